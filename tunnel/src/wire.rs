//! gRPC messages (length-prefixed, uncompressed) on HTTP/2 streams, in both directions.
//!
//! Spoken on `h2` itself: a flow needs its credit, its back-pressure and its end by themselves, which a generated
//! client hides. The bytes on the wire are gRPC's (gRPC over HTTP2, length-prefixed message).

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use prost::Message;

use crate::assembly::{Assembly, Malformed, PREFIX};
use crate::frames::{Data, FlowFrame, flow_frame};
use crate::{MAX_DATA, STREAM_DATA};

/// Bytes of a message about credit or a heartbeat, at most.
const WORD: usize = 64;

/// A stream that broke.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The stream or its connection ended.
    #[error("the stream ended")]
    Ended(#[source] h2::Error),
    /// What came is no message.
    #[error("the peer sent nonsense")]
    Malformed,
}

impl From<h2::Error> for WireError {
    fn from(error: h2::Error) -> WireError {
        WireError::Ended(error)
    }
}

impl From<WireError> for io::Error {
    fn from(error: WireError) -> io::Error {
        io::Error::other(error)
    }
}

/// Reads messages off a stream.
#[derive(Debug)]
pub struct Reader {
    stream: RecvStream,
    assembly: Assembly,
}

impl Reader {
    /// A reader at the start of the stream's body.
    pub fn new(stream: RecvStream) -> Reader {
        Reader { stream, assembly: Assembly::default() }
    }

    /// The next message; `None` at the end of the stream. Never holds more than one message and one HTTP/2 frame.
    pub fn poll_next<M: Message + Default>(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<M, WireError>>> {
        loop {
            match self.assembly.take() {
                Ok(Some(message)) => return Poll::Ready(Some(M::decode(message).map_err(|_| WireError::Malformed))),
                Ok(None) => {}
                Err(Malformed) => return Poll::Ready(Some(Err(WireError::Malformed))),
            }
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(chunk)) => {
                    // Credit bounds what is under way; the HTTP/2 window never does.
                    if let Err(error) = self.stream.flow_control().release_capacity(chunk.len()) {
                        return Poll::Ready(Some(Err(error.into())));
                    }
                    self.assembly.push(chunk);
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None if self.assembly.is_empty() => return Poll::Ready(None),
                None => return Poll::Ready(Some(Err(WireError::Malformed))),
            }
        }
    }

    /// The next message. Cancel safe.
    pub async fn next<M: Message + Default>(&mut self) -> Option<Result<M, WireError>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }
}

/// Writes messages to a stream.
#[derive(Debug)]
pub struct Writer {
    stream: SendStream<Bytes>,
}

impl Writer {
    /// A writer at the start of the stream's body.
    pub fn new(stream: SendStream<Bytes>) -> Writer {
        Writer { stream }
    }

    /// Queues one message. Small ones only: nothing bounds the queue but the caller.
    pub fn send<M: Message>(&mut self, message: &M) -> Result<(), WireError> {
        let mut buffer = BytesMut::with_capacity(PREFIX + message.encoded_len());
        put_prefix(&mut buffer, message.encoded_len());
        message.encode_raw(&mut buffer);
        self.stream.send_data(buffer.freeze(), false).map_err(Into::into)
    }

    /// Queues one frame of a flow.
    pub fn send_flow(&mut self, frame: flow_frame::Frame) -> Result<(), WireError> {
        self.send(&FlowFrame { frame: Some(frame) })
    }

    /// Queues a `Data` frame without copying its bytes.
    pub fn send_data(&mut self, offset: u64, bytes: Bytes) -> Result<(), WireError> {
        debug_assert!(bytes.len() <= MAX_DATA);
        let whole = FlowFrame { frame: Some(flow_frame::Frame::Data(Data { offset, bytes })) };
        let length = whole.encoded_len();
        let Some(flow_frame::Frame::Data(data)) = whole.frame else { return Ok(()) };
        // What prost would write: the header of the oneof's message, its offset, then the bytes' own header.
        let mut header = BytesMut::with_capacity(PREFIX + 32);
        put_prefix(&mut header, length);
        let inner = data.encoded_len();
        prost::encoding::encode_key(7, prost::encoding::WireType::LengthDelimited, &mut header);
        prost::encoding::encode_varint(inner as u64, &mut header);
        if data.offset != 0 {
            prost::encoding::uint64::encode(1, &data.offset, &mut header);
        }
        if data.bytes.is_empty() {
            return self.stream.send_data(header.freeze(), false).map_err(Into::into);
        }
        prost::encoding::encode_key(2, prost::encoding::WireType::LengthDelimited, &mut header);
        prost::encoding::encode_varint(data.bytes.len() as u64, &mut header);
        if data.bytes.len() <= 2048 {
            header.extend_from_slice(&data.bytes);
            return self.stream.send_data(header.freeze(), false).map_err(Into::into);
        }
        self.stream.send_data(header.freeze(), false)?;
        self.stream.send_data(data.bytes, false).map_err(Into::into)
    }

    /// Ready when the carrier takes more of this stream, with how many bytes, at most [`STREAM_DATA`].
    ///
    /// What waits in front of the carrier is bounded, so that a bulk flow cannot bury an interactive one.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, WireError>> {
        self.poll_room_for(STREAM_DATA, cx)
    }

    /// Ready when the carrier takes one small message. What is reserved for it others cannot use, so it is little.
    pub fn poll_room_for_word(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        self.poll_room_for(WORD, cx).map_ok(drop)
    }

    fn poll_room_for(&mut self, wanted: usize, cx: &mut Context<'_>) -> Poll<Result<usize, WireError>> {
        self.stream.reserve_capacity(wanted);
        loop {
            if self.stream.capacity() > 0 {
                return Poll::Ready(Ok(self.stream.capacity().min(wanted)));
            }
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(0)) => {}
                Some(Ok(room)) => return Poll::Ready(Ok(room.min(wanted))),
                Some(Err(error)) => return Poll::Ready(Err(error.into())),
                None => return Poll::Ready(Err(WireError::Malformed)),
            }
        }
    }

    /// Ready when the peer ended the stream.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx).map(drop)
    }

    /// Ends our side of the stream (a client's last word).
    pub fn finish(&mut self) {
        drop(self.stream.send_data(Bytes::new(), true));
    }

    /// Ends our side with gRPC's `grpc-status: 0` (an agent's last word).
    pub fn finish_ok(&mut self) {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        drop(self.stream.send_trailers(trailers));
    }

    /// Ends the stream at once.
    pub fn abort(&mut self) {
        self.stream.send_reset(h2::Reason::CANCEL);
    }
}

fn put_prefix(buffer: &mut BytesMut, length: usize) {
    buffer.put_u8(0);
    buffer.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}
