//! Chunks that wait to be taken off, in about as much memory as they have bytes.

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes, BytesMut};

/// A chunk shorter than this costs more to keep than to copy: some hundred bytes for what holds it together.
const SMALL: usize = 1024;
/// Small chunks are gathered into blocks of at most this.
const BLOCK: usize = 16 * 1024;
/// Room for chunks that an empty queue keeps.
const SPARE: usize = 32;

/// Chunks in order. A thousand small ones become one block, so that a slow trickle to a reader that stands still costs
/// what it has bytes.
#[derive(Debug, Default)]
pub struct Queue {
    chunks: VecDeque<Bytes>,
    /// Small chunks that came last.
    gathered: BytesMut,
    bytes: u64,
    /// Bytes taken off the first chunk, which it still holds.
    taken: usize,
}

impl Queue {
    /// Adds a chunk at the end.
    pub fn push(&mut self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        self.bytes += chunk.len() as u64;
        if chunk.len() >= SMALL || self.is_empty() {
            self.close_block();
            self.chunks.push_back(chunk);
            return;
        }
        if self.gathered.len() + chunk.len() > BLOCK {
            self.close_block();
        }
        self.gathered.extend_from_slice(&chunk);
    }

    /// Takes the next chunk.
    pub fn pop(&mut self) -> Option<Bytes> {
        if self.chunks.is_empty() {
            self.close_block();
        }
        let chunk = self.chunks.pop_front();
        self.taken = 0;
        self.bytes -= chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        if self.chunks.is_empty() && self.chunks.capacity() > SPARE {
            self.chunks = VecDeque::new();
        }
        chunk
    }

    /// Bytes of the next chunk; empty when the queue is.
    pub fn front(&mut self) -> &[u8] {
        if self.chunks.is_empty() {
            self.close_block();
        }
        self.chunks.front().map_or(&[], |chunk| chunk)
    }

    /// Takes bytes off the next chunk, at most as many as it has.
    pub fn advance(&mut self, count: usize) {
        if let Some(front) = self.chunks.front_mut() {
            let count = count.min(front.len());
            front.advance(count);
            self.taken += count;
            self.bytes -= count as u64;
            if front.is_empty() {
                self.pop();
            }
        }
    }

    /// Takes off `count` bytes, whichever chunks they are in; all there are when they are fewer.
    pub fn skip(&mut self, mut count: u64) {
        while count > 0 && !self.is_empty() {
            let length = usize::try_from(count).unwrap_or(usize::MAX).min(self.front().len());
            self.advance(length);
            count -= length as u64;
        }
        self.shrink();
    }

    /// Copies the first chunk where less than half of it is left: what waits may do so for long.
    fn shrink(&mut self) {
        if let Some(front) = self.chunks.front_mut()
            && front.len() < self.taken
        {
            *front = Bytes::copy_from_slice(front);
            self.taken = 0;
        }
    }

    /// The chunks, in order.
    pub fn chunks(&mut self) -> impl Iterator<Item = &Bytes> {
        self.close_block();
        self.chunks.iter()
    }

    /// How many bytes wait.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.gathered.is_empty()
    }

    fn close_block(&mut self) {
        if !self.gathered.is_empty() {
            self.chunks.push_back(std::mem::take(&mut self.gathered).freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::{any, prop_assert, prop_assert_eq};
    use proptest::proptest;

    use super::*;

    #[test]
    fn a_trickle_that_nobody_reads_becomes_few_blocks() {
        let mut queue = Queue::default();
        for _ in 0..100_000 {
            queue.push(Bytes::from_static(b"."));
        }
        assert!(queue.chunks.len() <= 2 + 100_000 / BLOCK, "{} chunks", queue.chunks.len());
    }

    #[test]
    fn what_is_left_of_a_chunk_that_was_skipped_holds_no_more_than_as_much_again() {
        struct Held(Vec<u8>, #[expect(dead_code, reason = "counted")] Arc<()>);
        impl AsRef<[u8]> for Held {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        let held = Arc::new(());
        let chunk = Bytes::from_owner(Held(vec![1; 64 << 10], Arc::clone(&held)));
        let mut queue = Queue::default();
        queue.push(chunk);
        for _ in 0..32 << 10 {
            queue.skip(1);
        }
        assert_eq!(Arc::strong_count(&held), 2, "half of it is left");
        queue.skip(1);
        assert_eq!(Arc::strong_count(&held), 1, "the chunk is still held");
        assert_eq!(queue.bytes(), (32 << 10) - 1);
        queue.skip((32 << 10) - 2);
        assert_eq!(queue.pop().unwrap(), [1][..]);
    }

    #[test]
    fn an_empty_queue_keeps_no_room_of_a_long_one() {
        let mut queue = Queue::default();
        for _ in 0..1000 {
            queue.push(Bytes::from(vec![0; SMALL]));
        }
        while queue.pop().is_some() {}
        assert!(queue.chunks.capacity() <= SPARE);
    }

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(
            steps in proptest::collection::vec((0_usize..3000, any::<bool>(), 0_usize..5000), 0..200),
        ) {
            let mut queue = Queue::default();
            let (mut expected, mut got) = (Vec::new(), Vec::new());
            for (length, whole, take) in steps {
                let chunk: Vec<u8> = (expected.len()..expected.len() + length).map(|at| (at % 251) as u8).collect();
                expected.extend_from_slice(&chunk);
                queue.push(chunk.into());
                if whole {
                    got.extend(queue.pop().unwrap_or_default());
                } else {
                    let take = take.min(queue.front().len());
                    got.extend_from_slice(&queue.front()[..take]);
                    queue.advance(take);
                }
                prop_assert_eq!(queue.is_empty(), got.len() == expected.len());
            }
            while let Some(chunk) = queue.pop() {
                prop_assert!(!chunk.is_empty());
                got.extend(chunk);
            }
            prop_assert_eq!(got, expected);
        }
    }
}
