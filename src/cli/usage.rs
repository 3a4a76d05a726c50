//! A command line that is wrong: one error and one hint like every other failure, and a document under `-o json`.

use std::ffi::OsString;

use clap::error::{ContextKind, ErrorKind};
use clap::{CommandFactory as _, Parser as _};

use super::args::{Cli, TextOrJson};
use super::{Exit, complain};
use crate::error::{Reason, UserError, one_line};

/// Reads the command line; what is wrong with it, or the help that it asks for, is printed.
///
/// # Errors
///
/// The exit code, when there is nothing more to do.
pub fn parse(args: &[OsString]) -> Result<Cli, u8> {
    Cli::try_parse_from(args).map_err(|error| {
        let asked_for =
            [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion, ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand];
        if asked_for.contains(&error.kind()) {
            // Nobody may read on.
            drop(error.print());
            return u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8);
        }
        complain(&told(&error, args), form(args));
        Exit::Usage as u8
    })
}

/// What clap says in several paragraphs. Its first one names what is wrong and no value of a flag that holds a secret.
fn told(error: &clap::Error, args: &[OsString]) -> UserError {
    let text = error.to_string();
    let what = text.split("\n\n").next().unwrap_or_default();
    let what = one_line(what.strip_prefix("error: ").unwrap_or(what));
    let meant = [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue]
        .into_iter()
        .find_map(|kind| error.get(kind))
        .map(|meant| format!("did you mean {meant}? "))
        .unwrap_or_default();
    UserError::new(Reason::BadRequest, what, format!("{meant}{} --help shows what it takes", command(args)))
}

/// `podway` and the command that was meant, where one was.
fn command(args: &[OsString]) -> String {
    let words = args.iter().skip(1).filter_map(|arg| arg.to_str());
    let known = Cli::command();
    let found = words.take_while(|word| *word != "--").find_map(|word| known.find_subcommand(word));
    found.map_or_else(|| "podway".to_owned(), |found| format!("podway {}", found.get_name()))
}

/// How it would have been printed: the form is looked for by hand, as nothing could be read.
fn form(args: &[OsString]) -> TextOrJson {
    let mut words = args.iter().skip(1).filter_map(|arg| arg.to_str()).take_while(|word| *word != "--").peekable();
    while let Some(word) = words.next() {
        let value = match word {
            "-o" | "--output" => words.peek().copied(),
            word => word.strip_prefix("--output=").or_else(|| word.strip_prefix("-o")),
        };
        if value.is_some_and(|value| value.trim_start_matches('=') == "json") {
            return TextOrJson::Json;
        }
    }
    TextOrJson::Text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn said(line: &str) -> UserError {
        let args = words(line);
        told(&Cli::try_parse_from(&args).expect_err("refused"), &args)
    }

    #[test]
    fn what_is_wrong_is_one_line_and_what_was_meant_is_in_the_hint() {
        let error = said("podway connect --agnt pod");
        assert_eq!(error.message, "unexpected argument '--agnt' found");
        assert_eq!(error.hint, "did you mean --agent? podway connect --help shows what it takes");
        let error = said("podway statsu");
        assert_eq!(error.message, "unrecognized subcommand 'statsu'");
        assert_eq!(error.hint, "did you mean status? podway --help shows what it takes");
        let error = said("podway connect --agent x");
        assert_eq!(error.message, "invalid value 'x' for '--agent <AGENT>'; [possible values: auto, ephemeral, pod]");
        assert_eq!(error.hint, "podway connect --help shows what it takes");
    }

    #[test]
    fn the_form_is_found_in_a_line_that_cannot_be_read() {
        for line in ["podway fly -o json", "podway --output=json fly", "podway fly -ojson", "podway fly --output json"]
        {
            assert_eq!(form(&words(line)), TextOrJson::Json, "{line}");
        }
        for line in ["podway fly", "podway fly -o text", "podway demo -- x -o json", "podway fly --on json"] {
            assert_eq!(form(&words(line)), TextOrJson::Text, "{line}");
        }
    }
}
