//! Panics that a test asks for, so that the end of each actor in each of its handlers can be seen in the real daemon.
//!
//! The variable `PODWAY_FALLS` names a file. Where that holds `ACTOR WORD`, such as `Vif Close`, the actor panics once when
//! it is given that input or message, and the file goes. Only in builds with debug assertions: in what is shipped nothing
//! of this is left.

use std::any::type_name;
use std::fmt::{Debug, Error, Write};
use std::path::PathBuf;
use std::sync::OnceLock;

/// The variable.
pub const VARIABLE: &str = "PODWAY_FALLS";

/// An actor is given an input of its core, whose name is that of its variant.
pub fn at_input<A>(input: &impl Debug) {
    if cfg!(debug_assertions) {
        fall::<A>(|wanted| {
            let mut word = FirstWord::default();
            // Its end is an error to who writes.
            write!(word, "{input:?}").ok();
            word.0 == wanted
        });
    }
}

/// An actor is given a message that is no input of a core.
pub fn at_message<A>(message: &str) {
    if cfg!(debug_assertions) {
        fall::<A>(|wanted| message == wanted);
    }
}

fn fall<A>(is_given: impl FnOnce(&str) -> bool) {
    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let Some(file) = FILE.get_or_init(|| std::env::var_os(VARIABLE).map(PathBuf::from)) else { return };
    let Ok(asked) = std::fs::read_to_string(file) else { return };
    let actor = type_name::<A>().rsplit("::").next().unwrap_or_default();
    let Some(wanted) = asked.trim_end().strip_prefix(actor).and_then(|rest| rest.strip_prefix(' ')) else { return };
    if is_given(wanted) && std::fs::remove_file(file).is_ok() {
        panic!("{actor} falls at {wanted}, as a test asked");
    }
}

/// Keeps the first word of what is written, and takes no more.
#[derive(Default)]
struct FirstWord(String);

impl Write for FirstWord {
    fn write_str(&mut self, text: &str) -> Result<(), Error> {
        let end = text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len());
        self.0.push_str(text.get(..end).unwrap_or_default());
        if end < text.len() { Err(Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_an_input_is_its_variant() {
        #[derive(Debug)]
        #[expect(dead_code, reason = "it is only shown")]
        enum Input {
            Alone,
            Of(u8, &'static str),
            With { many: Vec<u8> },
        }
        let word = |input: Input| {
            let mut word = FirstWord::default();
            write!(word, "{input:?}").ok();
            word.0
        };
        assert_eq!(word(Input::Alone), "Alone");
        assert_eq!(word(Input::Of(1, "x")), "Of");
        assert_eq!(word(Input::With { many: vec![1] }), "With");
    }
}
