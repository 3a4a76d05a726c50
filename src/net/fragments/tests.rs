use std::net::SocketAddr;

use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, any, prop_assert};
use proptest::proptest;

use super::*;
use crate::net::packet::datagram;

const V4: [&str; 2] = ["246.246.0.1:40000", "10.96.0.7:53"];
const V6: [&str; 2] = ["[fd99::1]:40000", "[fd00:10::7]:53"];

fn packet(v6: bool, payload: &[u8]) -> Vec<u8> {
    let [from, to] = if v6 { V6 } else { V4 }.map(|address| address.parse::<SocketAddr>().unwrap());
    plain(&datagram(from, to, payload).unwrap())
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

/// Cuts a packet into parts with so many bytes behind the header, as a kernel does.
fn cut(packet: &[u8], size: usize, id: u8) -> Vec<Vec<u8>> {
    let v6 = packet[0] >> 4 == 6;
    let (header, bytes) = packet.split_at(if v6 { HEADER_V6 } else { 20 });
    let pieces = bytes.len().div_ceil(size);
    let part = |(number, piece): (usize, &[u8])| {
        let (at, more) = (number * size, number + 1 < pieces);
        let mut part = header.to_vec();
        if v6 {
            part[6] = 44;
            part[4..6].copy_from_slice(&u16::try_from(EXTENSION + piece.len()).unwrap().to_be_bytes());
            let place = (u16::try_from(at).unwrap() | u16::from(more)).to_be_bytes();
            part.extend([header[6], 0, place[0], place[1], 0, 0, 0, id]);
        } else {
            part[2..4].copy_from_slice(&u16::try_from(20 + piece.len()).unwrap().to_be_bytes());
            part[5] = id;
            let place = (u16::try_from(at / 8).unwrap() | if more { 0x2000 } else { 0 }).to_be_bytes();
            part[6..8].copy_from_slice(&place);
        }
        part.extend_from_slice(piece);
        part
    };
    bytes.chunks(size).enumerate().map(part).collect()
}

fn give(fragments: &mut Fragments, part: &[u8]) -> Taken {
    fragments.take(&Part::parse(part).unwrap())
}

/// Without its number, which only parts have a use for, and as it may be cut.
fn plain(whole: &[u8]) -> Vec<u8> {
    let mut whole = whole.to_vec();
    if whole[0] >> 4 == 4 {
        let mut ip = Ipv4Packet::new_unchecked(&mut whole);
        ip.set_ident(0);
        ip.set_dont_frag(false);
        ip.fill_checksum();
    }
    whole
}

#[test]
fn a_packet_comes_back_whole_whatever_its_length_and_the_order_of_its_parts() {
    for (v6, longest) in [(false, 65_507), (true, 65_527)] {
        for (length, size) in [(1, 8), (3000, 1480), (3000, 8 * 25), (longest, 1240), (longest, 65_480)] {
            let whole = packet(v6, &pattern(length));
            for backwards in [false, true] {
                let mut parts = cut(&whole, size, 7);
                if backwards {
                    parts.reverse();
                }
                let mut fragments = Fragments::default();
                let (last, others) = parts.split_last().unwrap();
                assert!(others.iter().all(|part| give(&mut fragments, part) == Taken::Waits), "{length}");
                let Taken::Whole(came) = give(&mut fragments, last) else { panic!("{length} bytes by {size}") };
                assert!(plain(&came) == whole, "{length} bytes by {size}");
                assert!(fragments.coming.is_empty());
                assert_eq!(fragments.in_vain(), 0);
            }
        }
    }
}

#[test]
fn packets_whose_parts_are_mixed_up_are_told_apart() {
    for v6 in [false, true] {
        let [one, other] = [1, 2].map(|fill| packet(v6, &vec![fill; 2000]));
        let mut fragments = Fragments::default();
        let (ones, others) = (cut(&one, 1000, 1), cut(&other, 1000, 2));
        for (one, other) in ones.iter().zip(&others).take(2) {
            assert_eq!(give(&mut fragments, one), Taken::Waits);
            assert_eq!(give(&mut fragments, other), Taken::Waits);
        }
        assert!(matches!(give(&mut fragments, &ones[2]), Taken::Whole(whole) if plain(&whole) == one));
        assert!(matches!(give(&mut fragments, &others[2]), Taken::Whole(whole) if plain(&whole) == other));
    }
}

#[test]
fn parts_of_two_packets_of_one_number_make_none() {
    for v6 in [false, true] {
        let [one, other] = [1, 2].map(|fill| packet(v6, &vec![fill; 2000]));
        let (ones, others) = (cut(&one, 1000, 1), cut(&other, 1000, 1));
        // The end of the first was lost: that of the second does not make it whole.
        let mut fragments = Fragments::default();
        assert_eq!(give(&mut fragments, &ones[0]), Taken::Waits);
        assert_eq!(give(&mut fragments, &others[1]), Taken::Waits);
        assert_eq!(give(&mut fragments, &others[2]), Taken::Dropped);
        assert_eq!(fragments.in_vain(), 2, "what waited goes as well");
        // The whole second comes behind a rest of the first.
        assert_eq!(give(&mut fragments, &ones[0]), Taken::Waits);
        assert_eq!(give(&mut fragments, &others[0]), Taken::Waits);
        assert_eq!(fragments.in_vain(), 1);
        assert_eq!(give(&mut fragments, &others[1]), Taken::Waits);
        assert!(matches!(give(&mut fragments, &others[2]), Taken::Whole(whole) if plain(&whole) == other));
    }
}

#[test]
fn what_waits_is_bounded_and_gives_up_in_time() {
    let mut fragments = Fragments::default();
    let first = |id| cut(&packet(false, &pattern(2000)), 1000, id).remove(0);
    for id in 0..20 {
        assert_eq!(give(&mut fragments, &first(id)), Taken::Waits);
    }
    assert_eq!((fragments.coming.len(), fragments.in_vain()), (AT_ONCE, 20 - AT_ONCE));
    fragments.age();
    assert_eq!(fragments.in_vain(), 0, "not before it was seen twice");
    assert_eq!(give(&mut fragments, &first(100)), Taken::Waits);
    fragments.in_vain();
    fragments.age();
    assert_eq!((fragments.coming.len(), fragments.in_vain()), (1, AT_ONCE - 1));
    fragments.age();
    assert_eq!((fragments.coming.len(), fragments.in_vain()), (0, 1));
    // Of one packet: the smallest parts that there are.
    let small = cut(&packet(false, &pattern(65_507)), 8, 1);
    let given: Vec<Taken> = small.iter().map(|part| give(&mut fragments, part)).collect();
    assert!(given.iter().all(|taken| *taken == Taken::Waits));
    assert!(fragments.coming.iter().all(|coming| coming.parts.len() <= PARTS));
}

#[test]
fn parts_that_cannot_be_of_a_packet_are_dropped() {
    for v6 in [false, true] {
        let whole = packet(v6, &pattern(3001));
        let parts = cut(&whole, 1000, 1);
        let place = if v6 { HEADER_V6 + 2 } else { 6 };
        let mut fragments = Fragments::default();
        // Beyond the longest packet.
        let mut beyond = parts[3].clone();
        beyond[place..place + 2].copy_from_slice(&if v6 { 0xfff8_u16 } else { 0x1fff }.to_be_bytes());
        assert_eq!(give(&mut fragments, &beyond), Taken::Dropped);
        // In the middle, and not of eight bytes.
        let mut odd = parts[3].clone();
        odd[place + 1] |= u8::from(v6);
        odd[place] |= if v6 { 0 } else { 0x20 };
        assert_eq!(give(&mut fragments, &odd), Taken::Dropped);
        assert!(fragments.coming.is_empty());
        // A header that is not there.
        assert!(Part::parse(&parts[0][..30]).is_none());
        assert!(Part::parse(&[]).is_none());
    }
}

#[test]
fn a_part_within_a_part_is_none() {
    // Whole at once, and what is whole a part again, and so on.
    let mut nested = packet(true, b"");
    nested.truncate(HEADER_V6);
    nested[6] = 44;
    for _ in 0..8000 {
        nested.extend([44, 0, 0, 0, 0, 0, 0, 1]);
    }
    let length = u16::try_from(nested.len() - HEADER_V6).unwrap();
    nested[4..6].copy_from_slice(&length.to_be_bytes());
    assert!(Part::parse(&nested).is_none());
    // Cut as an ordinary packet, it is put together no further than that.
    let inner = nested.split_off(HEADER_V6);
    nested[6] = 60;
    nested.extend(&inner);
    let mut fragments = Fragments::default();
    let parts = cut(&nested, 8 * 1000, 1);
    let last = parts.iter().map(|part| give(&mut fragments, part)).last();
    assert!(matches!(last, Some(Taken::Whole(_))), "its next header is none that is carried");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Parts of a few packets in any order, some of them more than once, some of their bytes changed: whatever becomes whole is
    /// what its headers say, and what waits is bounded.
    #[test]
    fn parts_of_nonsense_do_no_harm(
        v6 in any::<bool>(),
        sizes in vec((1_usize..3000, 1_usize..190), 1..4),
        order in vec(any::<usize>(), 1..60),
        changes in vec((any::<usize>(), 0_usize..60, any::<u8>()), 0..20),
    ) {
        let packets = sizes.iter().zip(1..);
        let mut parts: Vec<Vec<u8>> =
            packets.flat_map(|((length, size), id)| cut(&packet(v6, &pattern(*length)), size * 8, id)).collect();
        for (part, at, byte) in changes {
            let count = parts.len();
            let part = &mut parts[part % count];
            let at = at.min(part.len() - 1);
            part[at] = byte;
        }
        let mut fragments = Fragments::default();
        for (number, which) in order.into_iter().enumerate() {
            let Some(part) = Part::parse(&parts[which % parts.len()]) else { continue };
            if let Taken::Whole(whole) = fragments.take(&part) {
                let said = if whole[0] >> 4 == 4 {
                    Ipv4Packet::new_checked(&whole).map(|ip| ip.total_len().into())
                } else {
                    Ipv6Packet::new_checked(&whole).map(|ip| HEADER_V6 + usize::from(ip.payload_len()))
                };
                prop_assert!(said == Ok(whole.len()), "{said:?}: {whole:02x?}");
                prop_assert!(whole.len() <= LONGEST + HEADER_V6);
            }
            prop_assert!(fragments.coming.len() <= AT_ONCE);
            prop_assert!(fragments.coming.iter().all(|coming| coming.parts.len() <= PARTS));
            if number % 16 == 15 {
                fragments.age();
            }
        }
    }
}
