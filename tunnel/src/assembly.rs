//! Whole messages out of chunks, copied only where that saves memory.

use bytes::buf::Chain;
use bytes::{Buf as _, Bytes, BytesMut};

use crate::{MAX_DATA, MAX_MESSAGE};

/// Bytes in front of each message: a flag and a length (gRPC over HTTP2, length-prefixed message).
pub const PREFIX: usize = 5;
/// A chunk is part of a buffer of one largest frame or little more, which it keeps for as long as it lives. One of this
/// many bytes keeps at most a third beside itself; a smaller one is copied.
const LARGE: usize = MAX_DATA / 4 * 3;

/// What came is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Bytes on their way to being messages. Holds less than one message and one chunk between two calls of
/// [`Assembly::take`] that found none.
#[derive(Debug, Default)]
pub struct Assembly {
    copied: BytesMut,
    /// Follows `copied`, as it came.
    large: Bytes,
}

impl Assembly {
    /// Adds the next chunk of the stream.
    pub fn push(&mut self, chunk: Bytes) {
        self.copy_large();
        if chunk.len() >= LARGE {
            self.large = chunk;
        } else {
            self.copied.extend_from_slice(&chunk);
        }
    }

    /// Takes off the next message, without its prefix; `None` when it is not there in full.
    ///
    /// # Errors
    /// A message that is compressed or longer than [`MAX_MESSAGE`]. Nothing can be read after it.
    pub fn take(&mut self) -> Result<Option<Chain<Bytes, Bytes>>, Malformed> {
        let here = self.copied.len() + self.large.len();
        if here < PREFIX {
            return Ok(None);
        }
        let mut start = self.copied.as_ref().chain(self.large.as_ref());
        let compressed = start.get_u8();
        let length = start.get_u32() as usize;
        if compressed != 0 || length > MAX_MESSAGE {
            return Err(Malformed);
        }
        let whole = PREFIX + length;
        if here < whole {
            return Ok(None);
        }
        let first = self.copied.split_to(whole.min(self.copied.len())).freeze();
        let second = self.large.split_to(whole - first.len());
        let second = if second.len() < LARGE { Bytes::copy_from_slice(&second) } else { second };
        if self.copied.is_empty() {
            // What is left would keep the message's memory for as long as the stream is idle.
            self.copied = BytesMut::new();
        }
        if self.large.len() < LARGE {
            self.copy_large();
        }
        let mut message = first.chain(second);
        message.advance(PREFIX);
        Ok(Some(message))
    }

    /// Whether no byte waits.
    pub fn is_empty(&self) -> bool {
        self.copied.is_empty() && self.large.is_empty()
    }

    fn copy_large(&mut self) {
        self.copied.extend_from_slice(&self.large);
        self.large = Bytes::new();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq};
    use proptest::proptest;

    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).expect("short").to_be_bytes();
        [&[0], length.as_slice(), message].concat()
    }

    #[test]
    fn the_bytes_of_a_large_chunk_are_not_copied() {
        let bytes = Bytes::from(vec![7; MAX_DATA]);
        let mut assembly = Assembly::default();
        assembly.push(Bytes::from(framed(&bytes)[..PREFIX].to_vec()));
        assembly.push(bytes.clone());
        let mut message = assembly.take().expect("well formed").expect("whole");
        let same = message.copy_to_bytes(MAX_DATA);
        assert_eq!(same.as_ptr(), bytes.as_ptr());
        assert!(assembly.is_empty());
    }

    #[test]
    fn a_small_rest_keeps_no_large_chunk() {
        let wire = [framed(&vec![1; MAX_DATA]), framed(b"ab")].concat();
        let chunk = Bytes::from(wire);
        let mut assembly = Assembly::default();
        assembly.push(chunk.clone());
        assert!(assembly.take().expect("well formed").is_some());
        assert!(chunk.is_unique(), "the rest was copied");
        assert_eq!(assembly.take().expect("well formed").expect("whole").copy_to_bytes(2), b"ab".as_slice());
    }

    #[test]
    fn a_small_message_keeps_no_large_chunk() {
        let wire = [framed(b"ab"), framed(&vec![1; MAX_DATA - 100])].concat();
        let chunk = Bytes::from(wire);
        let mut assembly = Assembly::default();
        assembly.push(chunk.clone());
        let small = assembly.take().expect("well formed").expect("whole");
        assert!(assembly.take().expect("well formed").is_some());
        assert!(chunk.is_unique(), "the small message keeps the chunk");
        drop(small);
    }

    #[test]
    fn nonsense_is_refused() {
        for wire in [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]] {
            let mut assembly = Assembly::default();
            assembly.push(Bytes::copy_from_slice(&wire));
            assert_eq!(assembly.take().map(|_| ()), Err(Malformed));
        }
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_messages(
            lengths in proptest::collection::vec(0..2 * MAX_DATA, 1..6),
            cuts in proptest::collection::vec(any::<u32>(), 0..12),
        ) {
            let messages: Vec<Vec<u8>> = lengths.iter().zip(1_u8..).map(|(length, with)| vec![with; *length]).collect();
            let wire = Bytes::from(messages.iter().flat_map(|message| framed(message)).collect::<Vec<u8>>());
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| *cut as usize % (wire.len() + 1)).collect();
            cuts.extend([0, wire.len()]);
            cuts.sort_unstable();
            let mut assembly = Assembly::default();
            let mut found = Vec::new();
            for ends in cuts.windows(2) {
                assembly.push(wire.slice(ends[0]..ends[1]));
                while let Some(mut message) = assembly.take().expect("well formed") {
                    found.push(message.copy_to_bytes(message.remaining()).to_vec());
                }
            }
            prop_assert!(assembly.is_empty());
            prop_assert_eq!(found, messages);
        }
    }
}
