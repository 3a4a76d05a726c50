//! Frames of SPDY/3.1, as far as a server of port-forwards meets them. Pure.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
/// Flag of a stream's last frame.
const FIN: u8 = 1;
/// Status of a stream that is reset: cancelled.
const CANCEL: u32 = 5;
/// Bytes of a frame's head.
const HEAD: usize = 8;
/// Most bytes of a frame that is not data.
const CONTROL: usize = 64 << 10;

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A new stream, with compressed headers.
    Open {
        /// Its number.
        stream: u32,
        /// Its headers.
        block: Bytes,
    },
    /// Bytes of a stream.
    Data {
        /// Its number.
        stream: u32,
        /// They.
        bytes: Bytes,
        /// Whether no more come.
        last: bool,
    },
    /// A stream is over.
    Reset {
        /// Its number.
        stream: u32,
    },
    /// To be sent back as it is.
    Ping {
        /// The whole frame.
        bytes: Bytes,
    },
    /// Nothing more comes.
    GoAway,
    /// Nothing to be done.
    Other,
}

/// Takes a frame out of a buffer, if there is a whole one.
///
/// # Errors
/// When these are no frames.
pub fn take(buffer: &mut BytesMut) -> Result<Option<Frame>, &'static str> {
    let [a, b, c, d, flags, l2, l1, l0] = match buffer.get(..HEAD) {
        Some(head) => <[u8; HEAD]>::try_from(head).map_err(|_| "no head")?,
        None => return Ok(None),
    };
    let length = usize::try_from(u32::from_be_bytes([0, l2, l1, l0])).unwrap_or(usize::MAX);
    let control = a & 0x80 != 0;
    if control && (u16::from_be_bytes([a & 0x7f, b]) != 3 || length > CONTROL) {
        return Err("not a frame of SPDY/3.1");
    }
    if buffer.len() < HEAD + length {
        return Ok(None);
    }
    let whole = buffer.split_to(HEAD + length).freeze();
    let mut body = whole.slice(HEAD..);
    if !control {
        let stream = u32::from_be_bytes([a, b, c, d]);
        return Ok(Some(Frame::Data { stream, bytes: body, last: flags & FIN != 0 }));
    }
    let mut number =
        |rest: usize| if body.len() >= 4 + rest { Ok(body.get_u32() & 0x7fff_ffff) } else { Err("too short") };
    Ok(Some(match u16::from_be_bytes([c, d]) {
        SYN_STREAM => {
            let stream = number(6)?;
            // The stream that it belongs to, its priority, its slot.
            body.advance(6);
            Frame::Open { stream, block: body }
        }
        RST_STREAM => Frame::Reset { stream: number(0)? },
        PING => Frame::Ping { bytes: whole },
        GOAWAY => Frame::GoAway,
        _ => Frame::Other,
    }))
}

/// The head of a data frame without its length, which [`seal`] fills in.
pub fn data_head(stream: u32) -> Vec<u8> {
    let mut head = stream.to_be_bytes().to_vec();
    head.extend([0; 4]);
    head
}

/// Fills the length into a data frame that began with [`data_head`].
pub fn seal(frame: &mut [u8]) {
    let length = u32::try_from(frame.len().saturating_sub(HEAD)).unwrap_or(0);
    if let Some(place) = frame.get_mut(5..HEAD) {
        place.copy_from_slice(&length.to_be_bytes()[1..]);
    }
}

/// A data frame.
pub fn data(stream: u32, bytes: &[u8], last: bool) -> Bytes {
    let mut frame = data_head(stream);
    if last {
        frame[4] = FIN;
    }
    frame.extend_from_slice(bytes);
    seal(&mut frame);
    Bytes::from(frame)
}

/// The end of a stream.
pub fn reset(stream: u32) -> Bytes {
    control(RST_STREAM, |body| {
        body.put_u32(stream);
        body.put_u32(CANCEL);
    })
}

fn control(kind: u16, fill: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut body = Vec::new();
    fill(&mut body);
    let mut frame = vec![0x80, 3];
    frame.put_u16(kind);
    frame.put_u32(u32::try_from(body.len()).unwrap_or(0));
    frame.extend(body);
    Bytes::from(frame)
}

/// Frames whose headers are compressed, together, from the first to the last.
#[derive(Debug, Default)]
pub struct Writer {
    begun: bool,
}

impl Writer {
    /// The answer to a new stream, without headers.
    pub fn reply(&mut self, stream: u32) -> Bytes {
        // Headers: their number, none. Stored as they are (RFC 1951, 3.2.4), behind the head of the whole (RFC 1950), and
        // an empty block, with which clients give out what they have.
        let head: &[u8] = if self.begun { &[] } else { &[0x78, 0x01] };
        self.begun = true;
        control(SYN_REPLY, |body| {
            body.put_u32(stream);
            body.extend_from_slice(head);
            body.extend_from_slice(&[0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
        })
    }

    /// A new stream is refused.
    pub fn reset(&self, stream: u32) -> Bytes {
        reset(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_out_whole_or_not_at_all() {
        let mut buffer = BytesMut::new();
        let sent = [&data(1, b"hello", false)[..], &data(3, b"", true), &reset(5)].concat();
        let mut seen = Vec::new();
        for byte in sent {
            buffer.put_u8(byte);
            seen.extend(take(&mut buffer).unwrap());
        }
        let wanted = [
            Frame::Data { stream: 1, bytes: Bytes::from_static(b"hello"), last: false },
            Frame::Data { stream: 3, bytes: Bytes::new(), last: true },
            Frame::Reset { stream: 5 },
        ];
        assert_eq!(seen, wanted);
        assert!(buffer.is_empty());
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for bad in [&[0x80, 2, 0, 1, 0, 0, 0, 0][..], &[0x80, 3, 0, 1, 0, 0xff, 0, 0], &[0x80, 3, 0, 1, 0, 0, 0, 1, 0]]
        {
            assert!(take(&mut BytesMut::from(bad)).is_err(), "{bad:?}");
        }
    }
}
