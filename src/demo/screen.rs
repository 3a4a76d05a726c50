//! Where the demo writes: colours on a terminal alone, and nobody has to read on.

use std::io::Write as _;

/// Where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    /// The report is the result.
    Out,
    /// The result is that of the user's command.
    Err,
}

impl Screen {
    /// Writes a text. Who closed the other end does not want it.
    pub fn write(self, text: &str) {
        match self {
            Screen::Out => {
                let mut out = anstream::stdout().lock();
                drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
            }
            Screen::Err => {
                let mut err = anstream::stderr().lock();
                drop(err.write_all(text.as_bytes()).and_then(|()| err.flush()));
            }
        }
    }
}
