//! The tests that need neither root nor a cluster, in one binary: one link, one set of helpers.
#![allow(clippy::expect_used, clippy::allow_attributes, reason = "a test says what it expects")]
#![allow(dead_code, clippy::type_complexity, reason = "steps and failures are read as Debug prints them")]
#![allow(
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test looks at what it is about"
)]

#[path = "it/support.rs"]
mod support;

#[path = "it/actix_semantics.rs"]
mod actix_semantics;
#[path = "it/architecture.rs"]
mod architecture;
#[path = "it/cli_doc.rs"]
mod cli_doc;
#[path = "it/command.rs"]
mod command;
#[path = "it/completion.rs"]
mod completion;
#[path = "it/daemon_end.rs"]
mod daemon_end;
#[path = "it/documents.rs"]
mod documents;
#[path = "it/interleavings.rs"]
mod interleavings;
#[path = "it/other_protocol.rs"]
mod other_protocol;
#[path = "it/settings.rs"]
mod settings;
#[path = "it/shells.rs"]
mod shells;
#[path = "it/unit_file.rs"]
mod unit_file;

/// The directory of this package, from where cargo runs it: a build may be shared by several checkouts.
fn package() -> std::path::PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs this").into()
}
