//! Packets that come in parts, put together again. Pure.
//!
//! This host's kernel cuts what is longer than the device's MTU: all parts at once, and in order. Where one is missing, the
//! device's queue was full, and the others are of no use. Parts that overlap belong to different packets (RFC 5722).

use std::collections::VecDeque;
use std::net::IpAddr;

use bytes::Bytes;
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet};

use crate::net::packet::is_whole;

/// Packets that may be incomplete at once: with parts in order, one is.
const AT_ONCE: usize = 16;

/// Parts of one packet: the longest packet, cut for the smallest MTU that IPv4 hosts have to take (576), has 119.
const PARTS: usize = 128;

/// Bytes behind the header.
const LONGEST: usize = u16::MAX as usize;

/// Bytes of an IPv6 header, and of the header that says which part it is (RFC 8200 section 4.5).
const HEADER_V6: usize = 40;
const EXTENSION: usize = 8;

/// What the parts of one packet have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    id: u32,
}

/// A part of a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    key: Key,
    /// How many hops it may still go.
    pub(crate) hops: u8,
    header: &'a [u8],
    at: usize,
    last: bool,
    bytes: &'a [u8],
}

impl<'a> Part<'a> {
    /// Reads one; `None` where it is not what its headers say.
    pub(crate) fn parse(packet: &'a [u8]) -> Option<Part<'a>> {
        if packet.first()? >> 4 == 4 {
            let ip = Ipv4Packet::new_checked(packet).ok()?;
            let key = Key {
                source: ip.src_addr().into(),
                destination: ip.dst_addr().into(),
                protocol: ip.next_header().into(),
                id: ip.ident().into(),
            };
            return Some(Part {
                key,
                hops: ip.hop_limit(),
                header: packet.get(..usize::from(ip.header_len()))?,
                at: ip.frag_offset().into(),
                last: !ip.more_frags(),
                bytes: ip.payload(),
            });
        }
        let ip = Ipv6Packet::new_checked(packet).ok()?;
        let (extension, bytes) = ip.payload().split_at_checked(EXTENSION)?;
        let &[protocol, _, high, low, ref id @ ..] = extension else { return None };
        if IpProtocol::from(protocol) == IpProtocol::Ipv6Frag {
            // No kernel cuts a part again, and what is put together would be one.
            return None;
        }
        let place = u16::from_be_bytes([high, low]);
        let key = Key {
            source: ip.src_addr().into(),
            destination: ip.dst_addr().into(),
            protocol,
            id: u32::from_be_bytes(id.try_into().ok()?),
        };
        Some(Part {
            key,
            hops: ip.hop_limit(),
            header: packet.get(..HEADER_V6)?,
            at: usize::from(place & !7),
            last: place & 1 == 0,
            bytes,
        })
    }

    /// Where it comes from.
    pub(crate) fn source(&self) -> IpAddr {
        self.key.source
    }

    /// Where it goes.
    pub(crate) fn destination(&self) -> IpAddr {
        self.key.destination
    }

    fn end(&self) -> usize {
        self.at + self.bytes.len()
    }

    /// Only the last one may have any length.
    fn is_proper(&self) -> bool {
        self.end() <= LONGEST && (self.last || (!self.bytes.is_empty() && self.bytes.len().is_multiple_of(8)))
    }
}

/// What became of a part.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It waits for the others.
    Waits,
    /// It was the one that was missing.
    Whole(Bytes),
    /// It is none of any packet.
    Dropped,
}

/// A packet whose parts come.
#[derive(Debug)]
struct Coming {
    key: Key,
    /// That of its first part, once that is here.
    header: Vec<u8>,
    bytes: Vec<u8>,
    /// From where to where.
    parts: Vec<(usize, usize)>,
    /// Once its last part is here.
    length: Option<usize>,
    /// It was there at the last [`Fragments::age`].
    old: bool,
}

impl Coming {
    fn of(key: Key) -> Coming {
        Coming { key, header: Vec::new(), bytes: Vec::new(), parts: Vec::new(), length: None, old: false }
    }

    /// False where the part is of another packet.
    fn add(&mut self, part: &Part<'_>) -> bool {
        let (at, end) = (part.at, part.end());
        let overlaps = self.parts.iter().any(|(from, to)| *from < end && at < *to);
        let beyond = match self.length {
            Some(length) => part.last || end > length,
            None => part.last && end < self.bytes.len(),
        };
        // The first part may be empty, and the only one.
        if overlaps || beyond || self.parts.len() == PARTS || (at == 0 && !self.header.is_empty()) {
            return false;
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[at..end].copy_from_slice(part.bytes);
        self.parts.push((at, end));
        if at == 0 {
            self.header = part.header.to_vec();
        }
        if part.last {
            self.length = Some(end);
        }
        true
    }

    fn is_complete(&self) -> bool {
        let here: usize = self.parts.iter().map(|(from, to)| to - from).sum();
        !self.header.is_empty() && self.length == Some(here)
    }

    /// The packet; `None` where its parts do not belong together, which its checksum tells.
    fn whole(self) -> Option<Bytes> {
        let start = self.header.len();
        let mut packet = self.header;
        packet.extend_from_slice(&self.bytes);
        if self.key.source.is_ipv4() {
            let length = u16::try_from(packet.len()).ok()?;
            let mut ip = Ipv4Packet::new_unchecked(&mut packet);
            ip.set_total_len(length);
            ip.set_more_frags(false);
            ip.set_frag_offset(0);
            ip.fill_checksum();
        } else {
            let length = u16::try_from(self.bytes.len()).ok()?;
            let mut ip = Ipv6Packet::new_unchecked(&mut packet);
            ip.set_payload_len(length);
            ip.set_next_header(IpProtocol::from(self.key.protocol));
        }
        let fits = is_whole(self.key.source, self.key.destination, self.key.protocol, packet.get(start..)?);
        fits.then(|| packet.into())
    }
}

/// The packets whose parts come.
#[derive(Debug, Default)]
pub(crate) struct Fragments {
    coming: VecDeque<Coming>,
    /// Parts that waited in vain and were not asked for yet.
    in_vain: usize,
}

impl Fragments {
    /// Takes a part.
    pub(crate) fn take(&mut self, part: &Part<'_>) -> Taken {
        if !part.is_proper() {
            return Taken::Dropped;
        }
        let known = self.coming.iter().position(|coming| coming.key == part.key);
        let mut coming = known.and_then(|at| self.coming.remove(at)).unwrap_or_else(|| Coming::of(part.key));
        if !coming.add(part) {
            // A packet of the same number came later.
            self.in_vain += coming.parts.len();
            coming = Coming::of(part.key);
            coming.add(part);
        }
        if coming.is_complete() {
            let waited = coming.parts.len() - 1;
            return match coming.whole() {
                Some(whole) => Taken::Whole(whole),
                None => {
                    self.in_vain += waited;
                    Taken::Dropped
                }
            };
        }
        if self.coming.len() == AT_ONCE {
            self.in_vain += self.coming.pop_front().map_or(0, |oldest| oldest.parts.len());
        }
        self.coming.push_back(coming);
        Taken::Waits
    }

    /// Gives up what was here at the last call already.
    pub(crate) fn age(&mut self) {
        let in_vain = &mut self.in_vain;
        self.coming.retain_mut(|coming| {
            if coming.old {
                *in_vain += coming.parts.len();
            }
            !std::mem::replace(&mut coming.old, true)
        });
    }

    /// How many parts have waited in vain since the last call.
    pub(crate) fn in_vain(&mut self) -> usize {
        std::mem::take(&mut self.in_vain)
    }
}

#[cfg(test)]
mod tests;
