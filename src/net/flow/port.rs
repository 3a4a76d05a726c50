//! What a flow's stack reads from and writes to: one packet in, the device out.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

use crate::net::data_plane::Plane;

/// Longest IP and TCP headers with options: what is cleared before a packet is written.
const HEADERS: usize = 128;

thread_local! {
    /// Where packets are put together: one buffer per thread instead of one per flow.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; usize::from(u16::MAX)]);
}

pub(crate) struct Port {
    plane: Arc<Plane>,
    pub(crate) incoming: Option<Bytes>,
}

impl Port {
    pub(crate) fn new(plane: Arc<Plane>) -> Self {
        Self { plane, incoming: None }
    }
}

impl Device for Port {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let packet = self.incoming.take()?;
        Some((Incoming(packet), Outgoing(&self.plane)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&self.plane))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.plane.device.mtu();
        // What comes was written by this machine's kernel a moment ago and never left memory.
        capabilities.checksum.ipv4 = Checksum::Tx;
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities
    }
}

pub(crate) struct Incoming(Bytes);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

pub(crate) struct Outgoing<'a>(&'a Plane);

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        SCRATCH.with_borrow_mut(|scratch| {
            if scratch.len() < length {
                scratch.resize(length, 0);
            }
            // Header fields are written into what is there; the payload is overwritten whole.
            scratch[..length.min(HEADERS)].fill(0);
            let result = f(&mut scratch[..length]);
            self.0.send(&scratch[..length]);
            result
        })
    }
}
