//! The frames on the wire: WebSocket (RFC 6455) around what a port-forward says, see [`super::inside`]. Pure: bytes in,
//! bytes out.

use std::cmp::min;

use tokio::io::ReadBuf;

use super::inside::{Inside, Protocol};

/// Bytes kept free in front of a message for its header: 2, 8 of length, 4 of mask.
const HEADER: usize = 14;
/// What is read from the socket to find headers in; data beyond it goes to the reader directly.
const READ: usize = 2048;
/// Most payload that RFC 6455 allows in a control frame, in bytes.
const CONTROL: u64 = 125;

const OP_CONTINUE: u8 = 0;
const OP_TEXT: u8 = 1;
const OP_BINARY: u8 = 2;
const OP_CLOSE: u8 = 8;
const OP_PING: u8 = 9;
const OP_PONG: u8 = 10;

/// Gathers bytes into one open message and seals it for the wire.
#[derive(Debug)]
pub struct Encoder {
    protocol: Protocol,
    open: Vec<u8>,
}

impl Encoder {
    /// An encoder without an open message.
    pub fn new(protocol: Protocol) -> Encoder {
        Encoder { protocol, open: Vec::new() }
    }

    /// Takes as much of `data` as the open message has room for, and says how much.
    pub fn push(&mut self, data: &[u8]) -> usize {
        if self.open.is_empty() {
            self.open.resize(HEADER, 0);
            self.open.extend_from_slice(self.protocol.head());
        }
        let room = (HEADER + self.protocol.message()).saturating_sub(self.open.len());
        let taken = data.get(..min(room, data.len())).unwrap_or_default();
        self.open.extend_from_slice(taken);
        taken.len()
    }

    /// Whether nothing waits to be sealed.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether the open message takes no more.
    pub fn is_full(&self) -> bool {
        self.open.len() >= HEADER + self.protocol.message()
    }

    /// Seals the open message into `out`, whose buffer becomes the next open one; returns where the frame begins in it.
    pub fn seal(&mut self, out: &mut Vec<u8>, mask: [u8; 4]) -> usize {
        out.clear();
        std::mem::swap(&mut self.open, out);
        let length = out.len().saturating_sub(HEADER);
        let mut head = [0_u8; HEADER];
        let used = header(&mut head, OP_BINARY, length, mask);
        let start = HEADER - used;
        if let Some(space) = out.get_mut(start..HEADER) {
            space.copy_from_slice(&head[..used]);
        }
        if let Some(payload) = out.get_mut(HEADER..) {
            self.protocol.seal(payload);
            apply_mask(payload, mask);
        }
        start
    }
}

/// Appends a masked frame that is none of the port's data.
pub fn push_control(out: &mut Vec<u8>, reply: Reply, payload: &[u8], mask: [u8; 4]) {
    let mut head = [0_u8; HEADER];
    let op = match reply {
        Reply::Message => OP_BINARY,
        Reply::Pong => OP_PONG,
        Reply::Close => OP_CLOSE,
    };
    let used = header(&mut head, op, payload.len(), mask);
    out.extend_from_slice(&head[..used]);
    let from = out.len();
    out.extend_from_slice(payload);
    if let Some(payload) = out.get_mut(from..) {
        apply_mask(payload, mask);
    }
}

/// What a client sends beside data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A message of the protocol inside.
    Message,
    /// The answer to a ping.
    Pong,
    /// The end.
    Close,
}

fn header(head: &mut [u8; HEADER], op: u8, length: usize, mask: [u8; 4]) -> usize {
    head[0] = 0x80 | op;
    let at = match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if u64::from(short) <= CONTROL => {
            head[1] = 0x80 | short;
            2
        }
        (_, Ok(medium)) => {
            head[1] = 0x80 | 126;
            head[2..4].copy_from_slice(&medium.to_be_bytes());
            4
        }
        (_, Err(_)) => {
            head[1] = 0x80 | 127;
            head[2..10].copy_from_slice(&(length as u64).to_be_bytes());
            10
        }
    };
    head[at..at + 4].copy_from_slice(&mask);
    at + 4
}

fn apply_mask(data: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = data.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// What the decoder found.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// So many bytes of data were appended to the caller's buffer, at least one.
    Data(usize),
    /// More bytes from the socket are wanted.
    Need,
    /// A question, and the answer that it wants.
    Asked(Reply, Vec<u8>),
    /// The other end says goodbye; nothing follows.
    Closed,
    /// What the other end says about errors is complete so far; see [`Decoder::error_text`].
    ErrorText,
    /// The bytes are no frames of this protocol; nothing follows.
    Broken(&'static str),
}

/// Takes the frames of a server apart. Of a long message it sees the beginning only: the rest need not be copied.
#[derive(Debug)]
pub struct Decoder {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Payload of the current frame that is still to come.
    left: u64,
    opcode: u8,
    last_of_message: bool,
    inside: Inside,
    control: Vec<u8>,
    over: bool,
}

impl Decoder {
    /// A decoder at the first byte after the upgrade.
    pub fn new(protocol: Protocol) -> Decoder {
        Decoder {
            buffer: vec![0; READ].into_boxed_slice(),
            start: 0,
            end: 0,
            left: 0,
            opcode: OP_BINARY,
            last_of_message: true,
            inside: Inside::new(protocol),
            control: Vec::new(),
            over: false,
        }
    }

    /// Where bytes from the socket go. Never empty after [`Step::Need`].
    pub fn space(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        self.buffer.get_mut(self.end..).unwrap_or_default()
    }

    /// How many bytes come next from the socket that are nothing but data, if that is known.
    pub fn data_ahead(&self) -> Option<u64> {
        let data = if self.opcode < OP_CLOSE { min(self.left, self.inside.data_ahead()) } else { 0 };
        (data > 0 && self.start == self.end).then_some(data)
    }

    /// So many of [`Decoder::data_ahead`] were read past the decoder.
    pub fn passed(&mut self, count: usize) {
        self.left = self.left.saturating_sub(count as u64);
        self.inside.passed(count as u64);
    }

    /// So many bytes were put into [`Decoder::space`].
    pub fn filled(&mut self, count: usize) {
        self.end = min(self.end + count, self.buffer.len());
    }

    /// What the other end said about errors so far.
    pub fn error_text(&self) -> Option<String> {
        self.inside.error_text()
    }

    /// The next thing in the buffer. `into` must not be full.
    pub fn step(&mut self, into: &mut ReadBuf<'_>) -> Step {
        loop {
            if self.over || self.inside.is_over() {
                return Step::Closed;
            }
            if self.left == 0 {
                match self.header() {
                    Ok(true) => {}
                    Ok(false) => return Step::Need,
                    Err(why) => return Step::Broken(why),
                }
                if self.opcode >= OP_CLOSE
                    && self.left == 0
                    && let Some(step) = self.control_done()
                {
                    return step;
                }
                continue;
            }
            if self.start == self.end {
                return Step::Need;
            }
            if let Some(step) = self.payload(into) {
                return step;
            }
        }
    }

    fn payload(&mut self, into: &mut ReadBuf<'_>) -> Option<Step> {
        if self.opcode >= OP_CLOSE {
            let part = self.take(usize::MAX).to_vec();
            self.control.extend_from_slice(&part);
            return if self.left == 0 { self.control_done() } else { None };
        }
        let at_hand = min(usize::try_from(self.left).unwrap_or(usize::MAX), self.end - self.start);
        let ends = self.last_of_message && self.left == at_hand as u64;
        let (used, step) = self.inside.take(&self.buffer[self.start..self.start + at_hand], into, ends);
        self.start += used;
        self.left -= used as u64;
        step
    }

    /// Takes at most `most` bytes of the current frame's payload from the buffer.
    fn take(&mut self, most: usize) -> &[u8] {
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let count = min(min(most, left), self.end - self.start);
        let from = self.start;
        self.start += count;
        self.left -= count as u64;
        &self.buffer[from..from + count]
    }

    /// What a whole control frame asks for; a pong asks for nothing.
    fn control_done(&mut self) -> Option<Step> {
        let payload = std::mem::take(&mut self.control);
        match self.opcode {
            OP_PING => Some(Step::Asked(Reply::Pong, payload)),
            OP_CLOSE => {
                self.over = true;
                Some(Step::Closed)
            }
            _ => None,
        }
    }

    /// Reads a frame's header; false when it is not there in full.
    fn header(&mut self) -> Result<bool, &'static str> {
        let bytes = &self.buffer[self.start..self.end];
        let [first, second, rest @ ..] = bytes else { return Ok(false) };
        if second & 0x80 != 0 {
            return Err("a server's frame is masked");
        }
        if first & 0x70 != 0 {
            return Err("a frame uses an extension that was not agreed");
        }
        let (length, used) = match second & 0x7f {
            126 => {
                let Some(bytes) = rest.first_chunk::<2>() else { return Ok(false) };
                (u64::from(u16::from_be_bytes(*bytes)), 4)
            }
            127 => {
                let Some(bytes) = rest.first_chunk::<8>() else { return Ok(false) };
                (u64::from_be_bytes(*bytes), 10)
            }
            short => (u64::from(short), 2),
        };
        let opcode = first & 0x0f;
        let last = first & 0x80 != 0;
        match opcode {
            OP_CONTINUE => self.last_of_message = last,
            OP_TEXT | OP_BINARY => {
                self.last_of_message = last;
                self.inside.message_begins();
            }
            OP_CLOSE | OP_PING | OP_PONG if last && length <= CONTROL => {}
            OP_CLOSE | OP_PING | OP_PONG => return Err("a control frame is too long"),
            _ => return Err("a frame has an unknown opcode"),
        }
        self.opcode = opcode;
        self.left = length;
        self.start += used;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(op: u8, last: bool, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![op | if last { 0x80 } else { 0 }];
        match payload.len() {
            n @ 0..=125 => out.push(u8::try_from(n).expect("small")),
            n @ 126..=65535 => {
                out.push(126);
                out.extend(u16::try_from(n).expect("medium").to_be_bytes());
            }
            n => {
                out.push(127);
                out.extend((n as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(payload);
        out
    }

    fn preamble() -> Vec<u8> {
        [frame(OP_BINARY, true, &[0, 0x1f, 0x90]), frame(OP_BINARY, true, &[1, 0x1f, 0x90])].concat()
    }

    /// Feeds `wire` in pieces of at most `piece` bytes, data past the decoder if `past`; returns the data and the other
    /// steps.
    fn decode(wire: &[u8], piece: usize, past: bool) -> (Vec<u8>, Vec<Step>, Decoder) {
        decode_as(Protocol::Channels, wire, piece, past)
    }

    fn decode_as(protocol: Protocol, mut wire: &[u8], piece: usize, past: bool) -> (Vec<u8>, Vec<Step>, Decoder) {
        let mut decoder = Decoder::new(protocol);
        let (mut data, mut steps) = (Vec::new(), Vec::new());
        let mut space = [0_u8; 1000];
        while !wire.is_empty() {
            if past && let Some(ahead) = decoder.data_ahead() {
                let (part, rest) = wire.split_at(min(piece, wire.len()).min(usize::try_from(ahead).expect("short")));
                data.extend_from_slice(part);
                decoder.passed(part.len());
                wire = rest;
                continue;
            }
            let room = decoder.space();
            let (part, rest) = wire.split_at(min(piece, room.len()).min(wire.len()));
            room[..part.len()].copy_from_slice(part);
            decoder.filled(part.len());
            wire = rest;
            loop {
                let mut into = ReadBuf::new(&mut space);
                match decoder.step(&mut into) {
                    Step::Data(_) => data.extend_from_slice(into.filled()),
                    Step::Need => break,
                    step @ (Step::Closed | Step::Broken(_)) => {
                        steps.push(step);
                        return (data, steps, decoder);
                    }
                    step @ (Step::Asked(..) | Step::ErrorText) => steps.push(step),
                }
            }
        }
        (data, steps, decoder)
    }

    #[test]
    fn data_survives_any_cut_of_the_wire() {
        let big: Vec<u8> = (0..70_000_u32).map(|n| (n % 251) as u8).collect();
        let mut wire = preamble();
        wire.extend(frame(OP_BINARY, true, &[&[0], &b"hello "[..]].concat()));
        wire.extend(frame(OP_PING, true, b"p"));
        wire.extend(frame(OP_BINARY, false, &[&[0], &b"wor"[..]].concat()));
        wire.extend(frame(OP_PONG, true, b""));
        wire.extend(frame(OP_CONTINUE, true, b"ld"));
        wire.extend(frame(OP_BINARY, true, &[&[0], &big[..]].concat()));
        wire.extend(frame(OP_CLOSE, true, &[3, 232]));
        for (piece, past) in [1, 2, 3, 7, 1000, 40_000].into_iter().flat_map(|piece| [(piece, false), (piece, true)]) {
            let (data, steps, _) = decode(&wire, piece, past);
            assert_eq!(&data[..11], b"hello world", "pieces of {piece}, {past}");
            assert_eq!(&data[11..], &big, "pieces of {piece}, {past}");
            assert_eq!(steps, [Step::Asked(Reply::Pong, b"p".to_vec()), Step::Closed], "pieces of {piece}, {past}");
        }
    }

    /// A frame of SPDY with that many bytes of a body: stream or version and kind, flags, and the length.
    fn spdy(head: [u8; 4], flags: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).expect("short").to_be_bytes();
        [&head[..], &[flags], &length[1..], body].concat()
    }

    #[test]
    fn data_in_spdy_survives_any_cut_of_the_wire_and_of_the_messages() {
        let big: Vec<u8> = (0..70_000_u32).map(|n| (n % 251) as u8).collect();
        let ping = spdy([0x80, 3, 0, 6], 0, &[0, 0, 0, 2]);
        let inside = [
            spdy([0x80, 3, 0, 2], 0, &[0, 0, 0, 1, 0x78, 0x9c, 1, 2, 3]),
            spdy([0x80, 3, 0, 2], 0, &[0, 0, 0, 3, 9, 9]),
            spdy([0x80, 3, 0, 4], 0, &[]),
            spdy([0, 0, 0, 3], 0, b"hello "),
            ping.clone(),
            spdy([0, 0, 0, 3], 0, &[]),
            spdy([0, 0, 0, 3], 0, b"world"),
            spdy([0, 0, 0, 3], 1, &big),
            // It is not ours.
            spdy([0x80, 3, 0, 6], 0, &[0, 0, 0, 1]),
            spdy([0, 0, 0, 1], 1, &[]),
            spdy([0, 0, 0, 3], 0, b"not any more"),
        ]
        .concat();
        for message in [1, 7, 100, 40_000, 1_000_000] {
            let wire: Vec<u8> = inside.chunks(message).flat_map(|part| frame(OP_BINARY, true, part)).collect();
            for (piece, past) in [1, 3, 1000, 40_000].into_iter().flat_map(|piece| [(piece, false), (piece, true)]) {
                let (data, steps, _) = decode_as(Protocol::Spdy, &wire, piece, past);
                let case = format!("messages of {message}, pieces of {piece}, {past}");
                assert_eq!(&data[..11], b"hello world", "{case}");
                assert_eq!(&data[11..], &big, "{case}");
                assert_eq!(steps, [Step::Asked(Reply::Message, ping.clone()), Step::Closed], "{case}");
            }
        }
    }

    #[test]
    fn errors_in_spdy_are_text_also_after_the_end_of_the_data() {
        let end = spdy([0, 0, 0, 3], 1, &[]);
        let text = spdy([0, 0, 0, 1], 0, b"connection refused");
        let reset = |stream| spdy([0x80, 3, 0, 3], 0, &[0, 0, 0, stream, 0, 0, 0, 5]);
        let told = Some("connection refused");
        for (inside, steps, error) in [
            (vec![&text, &reset(3)], vec![Step::ErrorText, Step::Closed], told),
            (vec![&end, &text, &reset(1)], vec![Step::ErrorText, Step::Closed], told),
            (vec![&end, &reset(1)], vec![Step::Closed], None),
            (vec![&end, &reset(3)], vec![Step::Closed], None),
            (vec![&reset(3)], vec![Step::Closed], Some("the stream was reset (status 5)")),
            (vec![&reset(1)], vec![], None),
        ] {
            let wire: Vec<u8> = inside.into_iter().flat_map(|part| frame(OP_BINARY, true, part)).collect();
            let (data, found, decoder) = decode_as(Protocol::Spdy, &wire, 5, false);
            assert!(data.is_empty());
            assert_eq!(found, steps);
            assert_eq!(decoder.error_text().as_deref(), error);
        }
    }

    #[test]
    fn nonsense_in_spdy_is_refused() {
        for inside in [
            spdy([0, 0, 0, 5], 0, b"who"),
            spdy([0x80, 2, 0, 6], 0, &[0, 0, 0, 2]),
            spdy([0x80, 3, 0, 6], 0, &[0, 0, 2]),
            spdy([0x80, 3, 0, 3], 0, &[0, 0, 0, 3]),
            spdy([0x80, 3, 0, 8], 0, &[0; 70_000]),
        ] {
            let (_, steps, _) = decode_as(Protocol::Spdy, &frame(OP_BINARY, true, &inside), 100, false);
            assert!(matches!(steps.as_slice(), [Step::Broken(_)]), "{steps:?}");
        }
    }

    #[test]
    fn what_is_sealed_for_spdy_is_one_frame_of_its_stream() {
        for size in [1, 1000, 200_000] {
            let mut encoder = Encoder::new(Protocol::Spdy);
            let taken = encoder.push(&vec![7; size]);
            assert_eq!(taken, min(size, Protocol::Spdy.message() - 8));
            let mut out = Vec::new();
            encoder.seal(&mut out, [0; 4]);
            assert_eq!(out[HEADER..], spdy([0, 0, 0, 3], 0, &vec![7; taken]));
        }
    }

    #[test]
    fn the_error_channel_is_read_as_text() {
        let mut wire = preamble();
        wire.extend(frame(OP_BINARY, true, b"\x01connection refused\n"));
        let (data, steps, decoder) = decode(&wire, 5, false);
        assert!(data.is_empty());
        assert_eq!(steps, [Step::ErrorText]);
        assert_eq!(decoder.error_text().as_deref(), Some("connection refused"));
    }

    #[test]
    fn nonsense_is_refused() {
        for wire in [vec![0x82, 0x80, 0, 0], vec![0xf2, 1, 0], vec![0x83, 1, 0], vec![0x89, 126, 1, 0]] {
            let (_, steps, _) = decode(&wire, 100, false);
            assert!(matches!(steps.as_slice(), [Step::Broken(_)]), "{wire:?}: {steps:?}");
        }
    }

    #[test]
    fn what_is_sealed_unmasks_to_what_was_pushed() {
        for size in [0, 1, 124, 125, 126, 65_534, 65_535, 65_536, 200_000] {
            let data = vec![7_u8; size];
            let mut encoder = Encoder::new(Protocol::Channels);
            let taken = encoder.push(&data);
            assert_eq!(taken, min(size, Protocol::Channels.message() - 1));
            let mut out = Vec::new();
            let start = encoder.seal(&mut out, [1, 2, 3, 4]);
            assert!(encoder.is_empty());
            let wire = &mut out[start..];
            assert_eq!(wire[0], 0x82);
            let at = match wire[1] & 0x7f {
                126 => 4,
                127 => 10,
                _ => 2,
            };
            assert_eq!(wire[at..at + 4], [1, 2, 3, 4]);
            let payload = &mut wire[at + 4..];
            apply_mask(payload, [1, 2, 3, 4]);
            assert_eq!(payload[0], 0);
            assert_eq!(&payload[1..], &data[..taken]);
        }
    }
}
