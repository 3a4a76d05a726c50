//! Two devices back to back, in memory: what one sends the other receives.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::PacketDevice;

/// Packets that wait on one side before more are dropped.
const QUEUE: usize = 4096;

/// One end of the pair. Dropping it is to the other end as if the link was deleted.
#[derive(Debug)]
pub struct PairDevice {
    incoming: Arc<Way>,
    outgoing: Arc<Way>,
    mtu: usize,
}

#[derive(Debug, Default)]
struct Way {
    packets: Mutex<VecDeque<Box<[u8]>>>,
    arrived: Notify,
    closed: AtomicBool,
}

impl PairDevice {
    /// Makes both ends.
    pub fn pair(mtu: usize) -> (Self, Self) {
        let (a, b) = (Arc::new(Way::default()), Arc::new(Way::default()));
        let one = Self { incoming: Arc::clone(&a), outgoing: Arc::clone(&b), mtu };
        (one, Self { incoming: b, outgoing: a, mtu })
    }
}

impl Drop for PairDevice {
    fn drop(&mut self) {
        for way in [&self.incoming, &self.outgoing] {
            way.closed.store(true, Ordering::Release);
            way.arrived.notify_one();
        }
    }
}

#[async_trait::async_trait]
impl PacketDevice for PairDevice {
    async fn readable(&self) -> io::Result<()> {
        loop {
            if !self.incoming.packets.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
                return Ok(());
            }
            if self.incoming.closed.load(Ordering::Acquire) {
                return Err(io::Error::new(io::ErrorKind::NotConnected, "the other end is gone"));
            }
            self.incoming.arrived.notified().await;
        }
    }

    fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let packet = self.incoming.packets.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(packet) = packet else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let length = packet.len().min(buffer.len());
        buffer[..length].copy_from_slice(&packet[..length]);
        Ok(length)
    }

    fn try_send(&self, packet: &[u8]) -> io::Result<()> {
        if self.outgoing.closed.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the other end is gone"));
        }
        let mut packets = self.outgoing.packets.lock().unwrap_or_else(PoisonError::into_inner);
        if packets.len() >= QUEUE {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        packets.push_back(packet.into());
        drop(packets);
        self.outgoing.arrived.notify_one();
        Ok(())
    }

    fn mtu(&self) -> usize {
        self.mtu
    }
}
