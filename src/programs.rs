//! The other programs that `podway` can be: one file is enough for the demo and the tests.

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use podway_minicluster::sandbox;

/// The word after which a program's name and arguments follow. No subcommand has it.
pub const AS: &str = "as";

/// A program of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `podwayd`.
    Daemon,
    /// `podway-agent`.
    Agent,
    /// `podway-minicluster`, in the stages of its sandbox. Its run must be the first thing that a process does.
    Cluster,
    /// `podway-probe`: a plain client.
    Probe,
    /// `podway-keeper`: renews the credentials of a connection, as the user.
    Keeper,
}

impl Program {
    const ALL: [Program; 5] = [Program::Daemon, Program::Agent, Program::Cluster, Program::Probe, Program::Keeper];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Program::Daemon => "podwayd",
            Program::Agent => "podway-agent",
            Program::Cluster => "podway-minicluster",
            Program::Probe => "podway-probe",
            Program::Keeper => "podway-keeper",
        }
    }

    /// The program that `podway as NAME ...` asks for, and its arguments, the first being its name.
    pub fn asked_for(args: &[OsString]) -> Option<(Program, Vec<OsString>)> {
        let [_, word, name, ..] = args else { return None };
        let program = Program::ALL.into_iter().find(|program| name == program.name())?;
        (word == AS).then(|| (program, args[2..].to_vec()))
    }

    /// The command line that starts it from this very file: program, then arguments.
    pub fn command_line(self) -> std::io::Result<Vec<OsString>> {
        let own = std::env::current_exe()?;
        Ok(vec![own.into(), AS.into(), self.name().into()])
    }

    /// The same, as a sandbox starts it.
    pub fn of_sandbox(self) -> std::io::Result<sandbox::Program> {
        sandbox::Program::current([AS, self.name()])
    }

    /// Runs it; `args` begin with its name. Must be called outside any runtime.
    pub fn run(self, args: Vec<OsString>) -> ExitCode {
        match self {
            Program::Daemon => crate::daemon::program::run(args),
            Program::Cluster => match self.of_sandbox() {
                Ok(program) => sandbox::stage(&program, &args[1..], podway_minicluster::cluster::serve),
                Err(error) => {
                    eprintln!("error: {}: {error}", self.name());
                    ExitCode::FAILURE
                }
            },
            Program::Probe => crate::demo::probe::run(&args),
            Program::Keeper => crate::keeper::run(),
            Program::Agent => {
                podway_agent::program::run(args.iter().skip(1).map(|arg| OsStr::to_string_lossy(arg).into_owned()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn only_a_known_program_after_the_word_is_meant() {
        let (program, rest) = Program::asked_for(&args("podway as podway-agent serve --listen x")).expect("a program");
        assert_eq!((program, rest), (Program::Agent, args("podway-agent serve --listen x")));
        assert_eq!(Program::asked_for(&args("podway as root")), None);
        assert_eq!(Program::asked_for(&args("podway status podwayd")), None);
        assert_eq!(Program::asked_for(&args("podway")), None);
    }
}
