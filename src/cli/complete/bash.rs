//! bash takes `=` and `:` for ends of words (COMP_WORDBREAKS), and replaces only what stands behind the last of them:
//! words are put together again before they are looked at, and candidates are given without what stands already.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use clap_complete::engine::complete;
use clap_complete::env::EnvCompleter;

/// The variable with the number of the word that is typed.
const INDEX: &str = "_PODWAY_COMPLETE_INDEX";
/// Between candidates.
const BETWEEN: char = '\u{b}';

/// bash.
#[derive(Clone, Copy, Debug)]
pub struct Bash;

impl EnvCompleter for Bash {
    fn name(&self) -> &'static str {
        "bash"
    }

    fn is(&self, name: &str) -> bool {
        name == "bash"
    }

    fn write_registration(
        &self,
        var: &str,
        name: &str,
        bin: &str,
        completer: &str,
        buf: &mut dyn Write,
    ) -> io::Result<()> {
        let completer = completer.replace('\'', "'\\''");
        write!(
            buf,
            r#"_{name}_complete() {{
    local IFS=$'\013'
    COMPREPLY=($({var}=bash {INDEX}="$COMP_CWORD" '{completer}' -- "${{COMP_WORDS[@]}}" 2>/dev/null))
    if [[ "${{COMPREPLY[0]-}}" =~ [=/:]$ ]]; then
        compopt -o nospace 2>/dev/null
    fi
}}
complete -o bashdefault -o nosort -F _{name}_complete {bin}
"#
        )
    }

    fn write_complete(
        &self,
        cmd: &mut clap::Command,
        args: Vec<OsString>,
        current_dir: Option<&Path>,
        buf: &mut dyn Write,
    ) -> io::Result<()> {
        let index = std::env::var(INDEX).ok().and_then(|index| index.parse().ok()).unwrap_or_default();
        let (words, index, stands) = joined(args, index);
        for (number, candidate) in complete(cmd, words, index, current_dir)?.iter().enumerate() {
            if number > 0 {
                write!(buf, "{BETWEEN}")?;
            }
            let text = candidate.get_value().to_string_lossy();
            write!(buf, "{}", text.strip_prefix(stands.as_str()).unwrap_or(&text))?;
        }
        Ok(())
    }
}

/// The words as they were typed, the number of the one at the cursor, and what of that bash will leave as it stands.
fn joined(args: Vec<OsString>, cursor: usize) -> (Vec<OsString>, usize, String) {
    let is_break = |word: &OsString| {
        word.to_str().is_some_and(|word| !word.is_empty() && word.chars().all(|c| matches!(c, '=' | ':')))
    };
    let (mut words, mut at, mut stands): (Vec<OsString>, Option<usize>, String) = (Vec::new(), None, String::new());
    let mut behind_break = false;
    for (number, word) in args.into_iter().enumerate() {
        let joins = is_break(&word);
        match words.last_mut() {
            // What follows the cursor is no part of its word, and the program's name is one of its own.
            Some(last) if number <= cursor && number > 1 && (joins || behind_break) => {
                if number == cursor {
                    stands = last.to_string_lossy().into_owned();
                    if joins {
                        stands.push_str(&word.to_string_lossy());
                    }
                }
                last.push(&word);
            }
            Some(_) | None => words.push(word),
        }
        behind_break = joins;
        if number == cursor {
            at = Some(words.len() - 1);
        }
    }
    let at = at.unwrap_or_else(|| {
        words.push(OsString::new());
        words.len() - 1
    });
    (words, at, stands)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(line: &str, cursor: usize) -> (String, usize, String) {
        let (words, at, stands) = joined(line.split(' ').map(OsString::from).collect(), cursor);
        let words: Vec<String> = words.iter().map(|word| word.to_str().expect("UTF-8").to_owned()).collect();
        (words.join(" "), at, stands)
    }

    #[test]
    fn words_that_bash_took_apart_are_whole_again() {
        for (line, cursor, whole, at, stands) in [
            ("podway connect --proxy-via service = we", 5, "podway connect --proxy-via service=we", 3, "service="),
            ("podway connect --proxy-via service =", 4, "podway connect --proxy-via service=", 3, "service="),
            ("podway connect --context = ki", 4, "podway connect --context=ki", 2, "--context="),
            ("podway wait --for = condition = Re", 6, "podway wait --for=condition=Re", 2, "--for=condition="),
            ("podway connect --proxy-via a = b,c", 5, "podway connect --proxy-via a=b,c", 3, "a="),
            ("podway status de", 2, "podway status de", 2, ""),
            ("podway connect --context = a -n sh", 6, "podway connect --context=a -n sh", 4, ""),
        ] {
            assert_eq!(join(line, cursor), (whole.to_owned(), at, stands.to_owned()), "{line}");
        }
    }
}
