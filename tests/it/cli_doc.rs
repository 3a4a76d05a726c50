//! `docs/cli.md` is what clap knows of the command: it cannot go stale.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command, CommandFactory as _};
use podway::cli::args::Cli;

const BEGIN: &str =
    "<!-- What follows is written by the test cli_doc: PODWAY_WRITE_DOCS=1 cargo test --test it cli_doc -->\n";

/// The reference of a command and of those below it.
fn reference(command: &Command, path: &str, text: &mut String) {
    let path = format!("{path} {}", command.get_name());
    let path = path.trim_start();
    let visible = |arg: &&Arg| !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str());
    if command.get_subcommands().next().is_none() {
        let _ = writeln!(
            text,
            "\n## {path}\n\n{}.",
            plain(&command.get_about().expect("a command says what it does").to_string())
        );
        let aliases: Vec<&str> = command.get_all_aliases().collect();
        if !aliases.is_empty() {
            let _ = writeln!(text, "Also `{}`.", aliases.join("`, `"));
        }
        let _ = writeln!(text, "\n```text\n{path}{}\n```", usage(command));
        let own: Vec<&Arg> = command.get_arguments().filter(visible).filter(|arg| !arg.is_global_set()).collect();
        rows(&own, text);
        if let Some(help) = command.get_after_help() {
            let _ = writeln!(text, "\n```text\n{help}\n```");
        }
    }
    let below = command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help");
    below.for_each(|command| reference(command, path, text));
}

fn usage(command: &Command) -> String {
    let flags = if command.get_opts().next().is_some() { " [FLAGS]" } else { "" };
    let values = command.get_positionals().map(|arg| {
        let name = value_of(arg);
        if arg.is_required_set() { format!(" {name}") } else { format!(" [{name}]") }
    });
    flags.to_owned() + &values.collect::<String>()
}

fn value_of(arg: &Arg) -> String {
    let names = arg.get_value_names().map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
    names.unwrap_or_else(|| arg.get_id().as_str().to_uppercase())
}

fn rows(args: &[&Arg], text: &mut String) {
    if args.is_empty() {
        return;
    }
    text.push_str("\n| | |\n|---|---|\n");
    for arg in args {
        let short = arg.get_short().map(|short| format!("`-{short}`, ")).unwrap_or_default();
        let value =
            if matches!(arg.get_action(), ArgAction::SetTrue) { String::new() } else { format!(" {}", value_of(arg)) };
        let name = match arg.get_long() {
            Some(long) => format!("{short}`--{long}{value}`"),
            None => format!("`{}`", value.trim()),
        };
        let mut help = plain(&arg.get_help().expect("an argument says what it is").to_string());
        let switch = matches!(arg.get_action(), ArgAction::SetTrue);
        let values: Vec<String> =
            arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
        if !values.is_empty() && !switch {
            let _ = write!(help, ": {}", values.join(", "));
        }
        let defaults: Vec<String> = arg.get_default_values().iter().map(|value| value.display().to_string()).collect();
        if !defaults.is_empty() && !switch {
            let _ = write!(help, "; else `{}`", defaults.join(","));
        }
        if matches!(arg.get_action(), ArgAction::Append) {
            help.push_str("; repeats");
        }
        let _ = writeln!(text, "| {name} | {help} |");
    }
}

fn plain(text: &str) -> String {
    text.trim_end_matches('.').replace('\n', " ").replace('|', "\\|")
}

#[test]
fn the_reference_is_what_the_command_takes() {
    let mut command = Cli::command();
    command.build();
    let mut text = String::from("\n## Flags of every command\n");
    let global: Vec<&Arg> = command.get_arguments().filter(|arg| arg.is_global_set()).collect();
    rows(&global, &mut text);
    reference(&command, "", &mut text);
    let path = crate::package().join("docs/cli.md");
    let document = std::fs::read_to_string(&path).expect("docs/cli.md");
    let (head, written) = document.split_once(BEGIN).expect("the line above what is written");
    if std::env::var_os("PODWAY_WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{head}{BEGIN}{text}")).expect("written");
        return;
    }
    assert!(written == text, "docs/cli.md is not what the command takes; its first line says how to write it anew");
    for command in Cli::command().get_subcommands() {
        assert!(text.contains(&format!("\n## podway {}", command.get_name())), "{} is missing", command.get_name());
    }
}
