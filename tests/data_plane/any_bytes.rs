//! Packets as text would be: any bytes, and what is written is read again.

use std::net::SocketAddr;

use podway::net::packet::{Body, Unreachable, View, datagram, reset, tcp_flags, unreachable};
use proptest::prelude::*;

use super::peer::syn;

const WHYS: [Unreachable; 4] = [Unreachable::Net, Unreachable::Host, Unreachable::Port, Unreachable::Admin];

fn all(packet: &[u8]) {
    let _ = View::parse(packet);
    let _ = tcp_flags(packet);
    if let Some(answer) = reset(packet) {
        View::parse(&answer).unwrap();
        assert_eq!(reset(&answer), None);
    }
    for why in WHYS {
        if let Some(answer) = unreachable(packet, why) {
            assert!(answer.len() <= 1280);
        }
    }
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let v4 = any::<([u8; 4], u16)>().prop_map(SocketAddr::from);
    let v6 = any::<([u8; 16], u16)>().prop_map(SocketAddr::from);
    prop_oneof![v4, v6]
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), first in 0..4_usize) {
        all(&bytes);
        if let Some(byte) = bytes.first_mut() {
            *byte = [0x45, 0x46, 0x60, 0x4f][first];
        }
        if first == 2 && bytes.len() > 40 {
            bytes[6] = 6;
            let length = u16::try_from(bytes.len() - 40).unwrap();
            bytes[4..6].copy_from_slice(&length.to_be_bytes());
        } else if bytes.len() > 20 {
            let length = u16::try_from(bytes.len()).unwrap();
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
            bytes[6] = 0;
            bytes[7] = 0;
            bytes[9] = 6;
        }
        all(&bytes);
    }

    #[test]
    fn spoilt_packets_are_read_without_panic(from in address(), to in address(), at in 0..80_usize, byte: u8, cut in 0..90_usize) {
        prop_assume!(from.is_ipv4() == to.is_ipv4());
        for mut packet in [syn(from, to), datagram(from, to, b"payload").unwrap()] {
            if let Some(place) = packet.get_mut(at) {
                *place = byte;
            }
            all(&packet);
            packet.truncate(cut);
            all(&packet);
        }
    }

    #[test]
    fn a_datagram_reads_as_it_was_written(from in address(), to in address(), payload in prop::collection::vec(any::<u8>(), 0..300)) {
        let written = datagram(from, to, &payload);
        prop_assert_eq!(written.is_some(), from.is_ipv4() == to.is_ipv4());
        let Some(written) = written else { return Ok(()) };
        let view = View::parse(&written).unwrap();
        let key = view.key().unwrap();
        prop_assert_eq!((key.local, key.remote), (from, to));
        let is_payload = matches!(view.body, Body::Udp { payload: p, .. } if p == payload.as_slice());
        prop_assert!(is_payload);
    }
}
