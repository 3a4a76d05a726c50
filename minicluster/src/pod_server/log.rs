//! What a container wrote: the newest of it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes that are kept of each container.
const KEPT: usize = 64 * 1024;

/// A container's output. A clone is another handle to the same one.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<VecDeque<u8>>>);

impl Log {
    /// Adds a line.
    pub fn line(&self, text: fmt::Arguments<'_>) {
        self.write(format!("{text}\n").as_bytes());
    }

    /// Adds bytes; the oldest go.
    pub fn write(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(bytes);
        let over = kept.len().saturating_sub(KEPT);
        kept.drain(..over);
    }

    /// What is kept.
    pub fn read(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_kept() {
        let log = Log::default();
        for n in 0..20_000 {
            log.line(format_args!("{n}"));
        }
        let text = String::from_utf8(log.read()).unwrap();
        assert!(text.ends_with("19998\n19999\n") && text.len() <= KEPT);
    }
}
