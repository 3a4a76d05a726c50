//! Bodies of calls as somebody could write them who means harm: messages of every field with every value, lengths that lie,
//! plain bytes; in any order, cut anywhere.

use bytes::{BufMut as _, Bytes};
use proptest::prelude::*;

/// A field of a message: its number, and a number or bytes.
fn field() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![0..70_000_u64, any::<u64>(), Just(u64::MAX), Just(1 << 63)];
    let plain = (1..8_u32, number).prop_map(|(tag, number)| {
        let mut out = Vec::new();
        prost::encoding::uint64::encode(tag, &number, &mut out);
        out
    });
    let bytes = (1..8_u32, prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(tag, bytes)| {
        let mut out = Vec::new();
        prost::encoding::bytes::encode(tag, &bytes, &mut out);
        out
    });
    let long = (1..4_u32, 0..40_000_usize).prop_map(|(tag, length)| {
        let mut out = Vec::new();
        prost::encoding::bytes::encode(tag, &vec![7; length], &mut out);
        out
    });
    prop_oneof![6 => plain, 3 => bytes, 1 => long]
}

/// A frame: one of those that there are, or of a kind that there is not.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    (1..15_u32, prop::collection::vec(field(), 0..5)).prop_map(|(tag, fields)| {
        let mut out = Vec::new();
        prost::encoding::bytes::encode(tag, &fields.concat(), &mut out);
        out
    })
}

/// A message with its length in front, which may lie, and may say that it is compressed.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let body = prop_oneof![6 => frame(), 2 => field(), 1 => prop::collection::vec(any::<u8>(), 0..60)];
    let lie = prop_oneof![12 => Just(None), 1 => any::<u32>().prop_map(Some), 1 => (0..90_u32).prop_map(Some)];
    let flag = prop_oneof![20 => Just(0), 1 => any::<u8>()];
    (body, lie, flag).prop_map(|(body, lie, flag)| {
        let mut out = vec![flag];
        out.put_u32(lie.unwrap_or_else(|| u32::try_from(body.len()).expect("short")));
        out.extend(body);
        out
    })
}

/// What comes on a stream, piece by piece.
pub fn stream() -> impl Strategy<Value = Vec<Bytes>> {
    (prop::collection::vec(message(), 0..12), 1..9_000_usize)
        .prop_map(|(messages, piece)| messages.concat().chunks(piece).map(Bytes::copy_from_slice).collect())
}
