//! Results, on stdout. Colours are dropped where they would not be seen.

use std::io::{ErrorKind, Write as _};

use super::Exit;

/// Prints a text and ends its line. Ends the command where it cannot: quietly when nobody reads on.
pub fn say(text: impl std::fmt::Display) {
    let mut out = anstream::stdout().lock();
    if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) {
        if error.kind() != ErrorKind::BrokenPipe {
            anstream::eprintln!("error: stdout: {error}");
        }
        std::process::exit(Exit::Failed as i32);
    }
}
