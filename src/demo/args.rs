//! What is typed.

use std::ffi::OsString;

use clap::Args;

use crate::cli::args::TextOrJson;

/// `podway demo`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  podway demo                              show it, and end
  podway demo -- bash                      a shell on the connected workstation
  podway demo -- curl -s http://web.demo   one command there; its exit code is this one's
  podway demo --keep                       stay until Ctrl-C, to be joined from other terminals

It needs no root and no cluster: namespaces, /dev/net/tun, nothing else. It leaves nothing behind.")]
pub struct DemoArgs {
    /// Stay until Ctrl-C, and tell how to join from another terminal.
    #[arg(long)]
    pub keep: bool,
    /// Form of the report.
    #[arg(long, short, default_value = "text", conflicts_with = "command")]
    pub output: TextOrJson,
    /// A command to run on the connected workstation instead of the report.
    #[arg(trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}
