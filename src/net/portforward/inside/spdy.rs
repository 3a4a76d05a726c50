//! SPDY/3.1 (<https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/>), as far as one forwarded port needs it: a
//! stream for its data and one for its errors as text. Nobody on the way knows its windows, so there are none here.

use tokio::io::ReadBuf;

use super::super::frames::{Reply, Step};
use super::{Text, hand_on};

/// The streams that we open.
const ERRORS: u32 = 1;
const DATA: u32 = 3;
/// The kinds of control frames that are looked at (2.6).
const SYN_STREAM: u16 = 1;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const VERSION: u16 = 3;
/// Flag of a stream's last frame.
const FIN: u8 = 1;
/// Most bytes of a control frame.
const CONTROL: u32 = 64 << 10;

/// In front of data: the stream, no flag, and the length, which [`seal`] fills in.
pub const HEAD: [u8; 8] = [0, 0, 0, DATA as u8, 0, 0, 0, 0];
/// The runtime holds up to fifty frames of a stream that is not read.
pub const MESSAGE: usize = 64 * 1024;

/// Fills the length into a message of data.
pub fn seal(message: &mut [u8]) {
    let length = u32::try_from(message.len().saturating_sub(HEAD.len())).unwrap_or(0);
    if let Some(place) = message.get_mut(5..8) {
        place.copy_from_slice(&length.to_be_bytes()[1..]);
    }
}

/// Opens both streams, and ends our side of that for errors.
pub fn hello(port: u16) -> Vec<u8> {
    let mut out = Vec::new();
    for (stream, kind) in [(ERRORS, "error"), (DATA, "data")] {
        // A zlib stream goes on from frame to frame (RFC 1950, 2.2). It need not compress: RFC 1951, 3.2.4.
        let mut block = if stream == ERRORS { vec![0x78, 0x01] } else { Vec::new() };
        let headers = headers(&[("port", &port.to_string()), ("requestid", "0"), ("streamtype", kind)]);
        let length = u16::try_from(headers.len()).unwrap_or(0);
        block.push(0);
        block.extend(length.to_le_bytes());
        block.extend((!length).to_le_bytes());
        block.extend(headers);
        // An empty block after it: what Go's reader has, it gives out only now.
        block.extend([0, 0, 0, 0xff, 0xff]);
        out.extend([0x80 | VERSION.to_be_bytes()[0], VERSION.to_be_bytes()[1], 0, SYN_STREAM.to_be_bytes()[1], 0]);
        out.extend(&u32::try_from(block.len() + 10).unwrap_or(0).to_be_bytes()[1..]);
        out.extend(stream.to_be_bytes());
        // No stream that it belongs to, the highest priority, no slot for credentials.
        out.extend([0; 6]);
        out.extend(block);
    }
    out.extend(ERRORS.to_be_bytes());
    out.extend([FIN, 0, 0, 0]);
    out
}

/// A number, then so many names and values, each with its length in front (2.6.10).
fn headers(pairs: &[(&str, &str)]) -> Vec<u8> {
    let number = |number: usize| u32::try_from(number).unwrap_or(0).to_be_bytes();
    let mut out = number(pairs.len()).to_vec();
    for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
        out.extend(number(text.len()));
        out.extend(text.as_bytes());
    }
    out
}

/// What the bytes after a head are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Data,
    Error,
    Ping,
    Reset,
    /// Of no interest: answers to what we opened, settings, windows.
    Other,
}

#[derive(Debug, Default)]
pub struct Spdy {
    head: [u8; 8],
    /// Bytes of the head that are here.
    have: usize,
    /// The frame under way, once its head is here.
    body: Option<Body>,
    /// Bytes of it that are still to come.
    left: u32,
    /// The last frame of its stream.
    last: bool,
    /// The beginning of a control frame's body.
    control: Vec<u8>,
    data_over: bool,
    errors_over: bool,
    pub(super) error: Text,
}

impl Spdy {
    /// What went wrong after the last byte is told after it.
    pub fn is_over(&self) -> bool {
        self.data_over && self.errors_over
    }

    pub fn data_ahead(&self) -> u64 {
        if self.body == Some(Body::Data) { self.left.into() } else { 0 }
    }

    pub fn passed(&mut self, count: u64) {
        self.left = self.left.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
        if self.left == 0 {
            self.frame_ends();
        }
    }

    pub fn take(&mut self, bytes: &[u8], into: &mut ReadBuf<'_>) -> (usize, Option<Step>) {
        let Some(body) = self.body else { return self.take_head(bytes) };
        let part = bytes.get(..bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX))).unwrap_or_default();
        let (used, step) = match body {
            Body::Data => hand_on(part, into),
            Body::Error => {
                self.error.push(part);
                (part.len(), None)
            }
            Body::Ping | Body::Reset => {
                self.control.extend_from_slice(part);
                (part.len(), None)
            }
            Body::Other => (part.len(), None),
        };
        self.left -= u32::try_from(used).unwrap_or(self.left);
        let said = if self.left == 0 { self.frame_ends() } else { None };
        (used, step.or(said))
    }

    fn take_head(&mut self, bytes: &[u8]) -> (usize, Option<Step>) {
        let used = bytes.len().min(self.head.len() - self.have);
        for (place, byte) in self.head.iter_mut().skip(self.have).zip(bytes) {
            *place = *byte;
        }
        self.have += used;
        if self.have < self.head.len() {
            return (used, None);
        }
        self.have = 0;
        let [a, b, c, d, flags, l2, l1, l0] = self.head;
        self.left = u32::from_be_bytes([0, l2, l1, l0]);
        self.last = flags & FIN != 0;
        self.control.clear();
        let body = if a & 0x80 == 0 {
            match u32::from_be_bytes([a, b, c, d]) {
                DATA => Body::Data,
                ERRORS => Body::Error,
                _ => return (used, Some(Step::Broken("a stream that nobody opened"))),
            }
        } else if u16::from_be_bytes([a & 0x7f, b]) != VERSION || self.left > CONTROL {
            return (used, Some(Step::Broken("no frame of SPDY/3.1")));
        } else {
            match u16::from_be_bytes([c, d]) {
                PING if self.left == 4 => Body::Ping,
                RST_STREAM if self.left == 8 => Body::Reset,
                PING | RST_STREAM => return (used, Some(Step::Broken("a frame of SPDY/3.1 has a wrong length"))),
                _ => Body::Other,
            }
        };
        self.body = Some(body);
        (used, if self.left == 0 { self.frame_ends() } else { None })
    }

    fn frame_ends(&mut self) -> Option<Step> {
        let body = self.body.take()?;
        match body {
            Body::Data => {
                self.data_over |= self.last;
                None
            }
            Body::Error => {
                self.errors_over |= self.last;
                (!self.error.0.is_empty()).then_some(Step::ErrorText)
            }
            // Even numbers are the other end's; we ask nothing (2.6.5).
            Body::Ping if self.control.last().is_some_and(|number| number % 2 == 1) => None,
            Body::Ping => {
                let mut answer = self.head.to_vec();
                answer.extend_from_slice(&self.control);
                Some(Step::Asked(Reply::Message, answer))
            }
            Body::Reset => {
                let number = |bytes: Option<&[u8; 4]>| bytes.map(|bytes| u32::from_be_bytes(*bytes));
                match number(self.control.first_chunk())? & 0x7fff_ffff {
                    DATA => {
                        if !self.data_over && self.error.0.is_empty() {
                            let status = number(self.control.last_chunk())?;
                            self.error.push(format!("the stream was reset (status {status})").as_bytes());
                        }
                        (self.data_over, self.errors_over) = (true, true);
                    }
                    ERRORS => self.errors_over = true,
                    _ => {}
                }
                None
            }
            Body::Other => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_streams_are_opened_with_plain_headers() {
        let headers = |kind: &[u8]| {
            let length = u8::try_from(kind.len()).expect("short");
            let pairs =
                b"\0\0\0\x03\0\0\0\x04port\0\0\0\x0480\x380\0\0\0\x09requestid\0\0\0\x010\0\0\0\x0astreamtype\0\0\0";
            [&pairs[..], &[length], kind].concat()
        };
        let block = |kind: &[u8]| {
            let headers = headers(kind);
            let length = u8::try_from(headers.len()).expect("short");
            [&[0, length, 0, !length, 0xff][..], &headers, &[0, 0, 0, 0xff, 0xff]].concat()
        };
        let open = |stream: u8, block: &[u8]| {
            let length = u8::try_from(block.len() + 10).expect("short");
            [&[0x80, 3, 0, 1, 0, 0, 0, length, 0, 0, 0, stream, 0, 0, 0, 0, 0, 0][..], block].concat()
        };
        let errors = open(1, &[&[0x78, 1][..], &block(b"error")].concat());
        let data = open(3, &block(b"data"));
        let end_of_errors = [0, 0, 0, 1, 1, 0, 0, 0];
        assert_eq!(hello(8080), [&errors[..], &data, &end_of_errors].concat());
    }
}
