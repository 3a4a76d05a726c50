//! A command line that cannot be understood, in the form of every other error.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, Parser as _};

use super::args::{Cli, TextOrJson};
use super::{Exit, complain};
use crate::error::{Reason, UserError};

/// Reads the command line.
///
/// # Errors
/// It is wrong, or asks for help or the version: that was told, and this is the exit code.
pub fn read(args: &[OsString]) -> Result<Cli, u8> {
    Cli::try_parse_from(args).map_err(|error| match refusal(&error, args) {
        Some(refusal) => {
            complain(&refusal, form(args));
            Exit::Usage as u8
        }
        // Help and version, which are no errors.
        None => {
            drop(error.print());
            u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8)
        }
    })
}

/// The error in words; `None` where what the parser says is to be shown as it is.
fn refusal(error: &clap::Error, args: &[OsString]) -> Option<UserError> {
    let help = match subcommand(args) {
        Some(command) => format!("podway {command} --help"),
        None => "podway --help".to_owned(),
    };
    let flag = text(error, ContextKind::InvalidArg);
    // `--agent <AGENT>`: what is typed of it.
    let typed = flag.split([' ', '=']).next().unwrap_or_default().to_owned();
    let value = text(error, ContextKind::InvalidValue);
    // The parser puts the nearest last.
    let near = |kind| list(error, kind).pop();
    #[expect(clippy::wildcard_enum_match_arm, reason = "the parser adds kinds; those not named say themselves")]
    let (message, hint) = match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        | ErrorKind::MissingSubcommand => return None,
        ErrorKind::InvalidValue => {
            let valid = list(error, ContextKind::ValidValue).join(", ");
            let hint =
                if valid.is_empty() { format!("{help} says what it takes") } else { format!("it takes {valid}") };
            match value.is_empty() {
                true => (format!("{typed}: its value is missing"), hint),
                false => (format!("{typed}: there is no {value:?}"), hint),
            }
        }
        ErrorKind::ValueValidation => {
            let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            (format!("{typed}: {cause}"), format!("{help} shows how it is written"))
        }
        ErrorKind::UnknownArgument => match near(ContextKind::SuggestedArg) {
            Some(near) => (format!("{typed}: there is no such flag"), format!("did you mean {near}?")),
            None if flag.starts_with('-') => {
                (format!("{typed}: there is no such flag"), format!("{help} lists those that there are"))
            }
            // A word may be anything, a secret too.
            None => ("there is a word too many".to_owned(), format!("{help} says what belongs where")),
        },
        ErrorKind::InvalidSubcommand => {
            let command = text(error, ContextKind::InvalidSubcommand);
            let near = near(ContextKind::SuggestedSubcommand).map(|near| format!("did you mean podway {near}?"));
            (
                format!("podway {command}: there is no such command"),
                near.unwrap_or(format!("{help} lists those there are")),
            )
        }
        ErrorKind::ArgumentConflict => match text(error, ContextKind::PriorArg) {
            prior if prior == flag || prior.is_empty() => {
                (format!("{typed}: it is there twice"), "give it once".to_owned())
            }
            // The parser puts them in no certain order.
            prior if prior.starts_with('-') => {
                (format!("{prior}: it contradicts {typed}"), "give one of the two".to_owned())
            }
            prior => (format!("{typed}: it contradicts {prior}"), "give one of the two".to_owned()),
        },
        _ => {
            let rendered = error.render().to_string();
            let first = rendered.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            (first, format!("{help} says what it takes"))
        }
    };
    Some(UserError::new(Reason::BadRequest, message, hint))
}

fn text(error: &clap::Error, kind: ContextKind) -> String {
    list(error, kind).into_iter().next().unwrap_or_default()
}

fn list(error: &clap::Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        Some(_) | None => Vec::new(),
    }
}

/// The command among the arguments.
fn subcommand(args: &[OsString]) -> Option<String> {
    let known = Cli::command();
    let words = args.iter().skip(1).filter_map(|word| word.to_str());
    let mut commands = words.filter_map(|word| known.find_subcommand(word));
    commands.next().map(|command| command.get_name().to_owned())
}

/// The form in which the arguments, though wrong, want errors.
fn form(args: &[OsString]) -> TextOrJson {
    let words: Vec<&str> = args.iter().filter_map(|word| word.to_str()).collect();
    let alone = words.iter().any(|word| matches!(*word, "-ojson" | "-o=json" | "--output=json"));
    let apart = words.windows(2).any(|pair| matches!(pair, ["-o" | "--output", "json"]));
    if alone || apart { TextOrJson::Json } else { TextOrJson::Text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn refused(line: &str) -> UserError {
        let args = words(line);
        let error = Cli::try_parse_from(&args).expect_err("refused");
        refusal(&error, &args).expect("an error")
    }

    #[test]
    fn each_wrong_line_says_what_is_wrong_and_what_to_type() {
        for (line, message, hint) in [
            ("podway connect --agent x", "--agent: there is no \"x\"", "it takes auto, ephemeral, pod"),
            ("podway connect --agent", "--agent: its value is missing", "it takes auto, ephemeral, pod"),
            ("podway connect --proxy-vai a=b", "--proxy-vai: there is no such flag", "did you mean --proxy-via?"),
            (
                "podway status --nothing",
                "--nothing: there is no such flag",
                "podway status --help lists those that there are",
            ),
            ("podway conect", "podway conect: there is no such command", "did you mean podway connect?"),
            ("podway disconnect --all x", "--all: it contradicts [NAME]", "give one of the two"),
            ("podway connect --name a --name b", "--name: it is there twice", "give it once"),
            ("podway connect x", "there is a word too many", "podway connect --help says what belongs where"),
        ] {
            let error = refused(line);
            assert_eq!((error.message.as_str(), error.hint.as_str()), (message, hint), "{line}");
            assert_eq!(error.reason, Reason::BadRequest);
        }
        let error = refused("podway connect --also-proxy y");
        assert_eq!(error.message, "--also-proxy: \"y\" is not a CIDR");
    }

    #[test]
    fn help_and_version_are_no_errors() {
        for line in ["podway --help", "podway connect --help", "podway --version", "podway"] {
            let args = words(line);
            let error = Cli::try_parse_from(&args).expect_err("not a command");
            assert_eq!(refusal(&error, &args), None, "{line}");
        }
    }

    #[test]
    fn the_form_of_the_error_is_the_one_that_was_asked_for() {
        for line in
            ["podway connect -o json --agent x", "podway connect --output=json --agent x", "podway connect -ojson"]
        {
            assert_eq!(form(&words(line)), TextOrJson::Json, "{line}");
        }
        assert_eq!(form(&words("podway connect --agent json")), TextOrJson::Text);
    }

    #[test]
    fn no_token_is_ever_said() {
        for line in [
            "podway connect --token canary-7f3a --agent x",
            "podway connect --token=canary-7f3a --token=canary-7f3a",
            "podway connect --tokn=canary-7f3a",
            "podway --token=canary-7f3a connect",
            "podway --token canary-7f3a connect",
            "podway connect canary-7f3a",
            "podway status --token canary-7f3a",
            "podway status --token=canary-7f3a",
        ] {
            let error = refused(line);
            assert!(!format!("{error:?}").contains("canary"), "{line}: {error:?}");
        }
    }
}
