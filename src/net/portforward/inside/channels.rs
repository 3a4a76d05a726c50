//! `v4.channel.k8s.io`: a message is a channel's number and bytes. Channel 0 is the port's data, channel 1 its errors as text.
//! The first message on each channel is the port's number in two bytes.

use tokio::io::ReadBuf;

use super::super::frames::Step;
use super::{Text, hand_on};

/// In front of data.
pub const HEAD: [u8; 1] = [0];
/// Larger messages measured no faster at the container runtime's end.
pub const MESSAGE: usize = 128 * 1024;

#[derive(Debug)]
pub struct Channels {
    /// `None` before the channel byte of the current message.
    channel: Option<u8>,
    /// Bytes of the port's number that each channel still owes.
    owed: [u8; 2],
    pub(super) error: Text,
}

impl Default for Channels {
    fn default() -> Channels {
        Channels { channel: None, owed: [2, 2], error: Text::default() }
    }
}

impl Channels {
    pub fn message_begins(&mut self) {
        self.channel = None;
    }

    pub fn data_ahead(&self) -> u64 {
        if self.channel == Some(0) && self.owed[0] == 0 { u64::MAX } else { 0 }
    }

    pub fn take(&mut self, bytes: &[u8], into: &mut ReadBuf<'_>, ends: bool) -> (usize, Option<Step>) {
        let Some(channel) = self.channel else {
            self.channel = bytes.first().copied();
            return (1, None);
        };
        if let Some(owed) = self.owed.get_mut(usize::from(channel)).filter(|owed| **owed > 0) {
            let taken = bytes.len().min(usize::from(*owed));
            *owed -= u8::try_from(taken).unwrap_or(*owed);
            return (taken, None);
        }
        match channel {
            0 => hand_on(bytes, into),
            1 => {
                self.error.push(bytes);
                (bytes.len(), ends.then_some(Step::ErrorText))
            }
            _ => (bytes.len(), None),
        }
    }
}
