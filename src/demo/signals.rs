//! Signals that ask the demo to end.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C, and what a terminal or a supervisor sends. What came before it is waited for is kept.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

/// Which one came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// SIGINT: who runs on the terminal hears it as well.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGHUP.
    HangUp,
}

impl Asked {
    /// The exit code of a program that ends for it.
    pub fn code(self) -> u8 {
        match self {
            Asked::Interrupt => 130,
            Asked::Terminate => 143,
            Asked::HangUp => 129,
        }
    }
}

impl Signals {
    /// Takes them over from here on. Needs a runtime around it.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn new() -> io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The next one. Cancel safe.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Interrupt,
            _ = self.terminate.recv() => Asked::Terminate,
            _ = self.hang_up.recv() => Asked::HangUp,
        }
    }
}
