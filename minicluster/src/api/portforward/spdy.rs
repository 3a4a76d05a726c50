//! Port-forwards over SPDY/3.1, which kubectl speaks: over the connection itself, or in the messages of a WebSocket.
//!
//! Each forwarded connection is a pair of streams, one for bytes and one for errors, with the same request number.

mod frames;
mod headers;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::mpsc;

use self::frames::{Frame, Writer};
use self::headers::Inflate;
use super::super::Kubelet;
use super::Pod;
use super::forward::{Outbound, forward};

/// The protocol on top of SPDY.
pub const PROTOCOL: &str = "portforward.k8s.io";
/// Messages under way from the client to one connection.
const UNDER_WAY: usize = 8;
/// Streams of one connection that are open at the same time.
const STREAMS: usize = 4096;

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data,
    Error,
}

struct Half {
    request: String,
    kind: Kind,
}

/// A pair of streams, of which one may still be missing.
#[derive(Default)]
struct Pair {
    data: Option<u32>,
    error: Option<u32>,
    port: u16,
    /// Bytes of the client that came before the pair was whole are taken by this.
    received: Option<mpsc::Receiver<Bytes>>,
}

/// Serves until the client is gone.
pub async fn serve(chunks: impl Stream<Item = Bytes>, out: mpsc::Sender<Bytes>, kubelet: Arc<dyn Kubelet>, pod: Pod) {
    let mut chunks = std::pin::pin!(chunks);
    let mut forwards = FuturesUnordered::new();
    let mut session = Session { halves: BTreeMap::new(), pairs: BTreeMap::new(), senders: BTreeMap::new() };
    let (mut buffer, mut inflate, mut writer) = (BytesMut::new(), Inflate::new(), Writer::default());
    loop {
        let frame = match frames::take(&mut buffer) {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                tokio::select! {
                    chunk = chunks.next() => match chunk {
                        Some(chunk) => buffer.extend_from_slice(&chunk),
                        None => return,
                    },
                    Some(over) = forwards.next() => session.over(over),
                }
                continue;
            }
            Err(why) => {
                tracing::debug!(why, "a client speaks no SPDY");
                return;
            }
        };
        match frame {
            Frame::Open { stream, block } => {
                let Some(headers) = inflate.read(&block) else { return };
                let answer = match session.open(stream, &headers) {
                    Ok(whole) => {
                        if let Some((id, pair)) = whole {
                            forwards.push(run(id, pair, Arc::clone(&kubelet), pod.clone(), out.clone()));
                        }
                        writer.reply(stream)
                    }
                    Err(()) => writer.reset(stream),
                };
                if out.send(answer).await.is_err() {
                    return;
                }
            }
            Frame::Data { stream, bytes, last } => {
                let sender = session.senders.get(&stream).cloned();
                if let Some(sender) = sender
                    && !bytes.is_empty()
                {
                    // While it waits for room, others go on.
                    let mut sending = std::pin::pin!(sender.send(bytes));
                    loop {
                        tokio::select! {
                            sent = &mut sending => {
                                // A connection that is over takes nothing more.
                                drop(sent);
                                break;
                            }
                            Some(over) = forwards.next() => session.over(over),
                        }
                    }
                }
                if last {
                    session.senders.remove(&stream);
                }
            }
            Frame::Reset { stream } => drop(session.senders.remove(&stream)),
            Frame::Ping { bytes } => {
                if out.send(bytes).await.is_err() {
                    return;
                }
            }
            Frame::Other => {}
            Frame::GoAway => return,
        }
    }
}

struct Session {
    halves: BTreeMap<u32, Half>,
    pairs: BTreeMap<String, Pair>,
    /// Where bytes of the streams go.
    senders: BTreeMap<u32, mpsc::Sender<Bytes>>,
}

impl Session {
    /// A new stream; the pair that it makes whole.
    fn open(&mut self, stream: u32, headers: &BTreeMap<String, String>) -> Result<Option<(String, Pair)>, ()> {
        if self.halves.len() >= STREAMS {
            return Err(());
        }
        let port: u16 = headers.get("port").and_then(|port| port.parse().ok()).filter(|port| *port > 0).ok_or(())?;
        let kind = match headers.get("streamtype").map(String::as_str) {
            Some("data") => Kind::Data,
            Some("error") => Kind::Error,
            Some(_) | None => return Err(()),
        };
        // Old clients number no requests; there the stream of errors comes right before the other.
        let request = headers.get("requestid").cloned().unwrap_or_else(|| match kind {
            Kind::Error => stream.to_string(),
            Kind::Data => stream.saturating_sub(2).to_string(),
        });
        let pair = self.pairs.entry(request.clone()).or_default();
        let slot = match kind {
            Kind::Data => &mut pair.data,
            Kind::Error => &mut pair.error,
        };
        if slot.replace(stream).is_some() {
            return Err(());
        }
        pair.port = port;
        if kind == Kind::Data {
            let (sender, received) = mpsc::channel(UNDER_WAY);
            self.senders.insert(stream, sender);
            pair.received = Some(received);
        }
        let whole = pair.data.is_some() && pair.error.is_some();
        self.halves.insert(stream, Half { request: request.clone(), kind });
        Ok(if whole { self.pairs.remove(&request).map(|pair| (request, pair)) } else { None })
    }

    fn over(&mut self, request: String) {
        let streams: Vec<u32> =
            self.halves.iter().filter(|(_, half)| half.request == request).map(|(stream, _)| *stream).collect();
        for stream in streams {
            if let Some(Half { kind: Kind::Data, .. }) = self.halves.remove(&stream) {
                self.senders.remove(&stream);
            }
        }
    }
}

/// Forwards one connection; returns its request when it is over.
async fn run(request: String, pair: Pair, kubelet: Arc<dyn Kubelet>, pod: Pod, out: mpsc::Sender<Bytes>) -> String {
    let (Some(data), Some(error), Some(mut received)) = (pair.data, pair.error, pair.received) else { return request };
    let outbound = Outbound { messages: out.clone(), prefix: frames::data_head(data), seal: frames::seal };
    let ended = forward(&kubelet, &pod, pair.port, &mut received, &outbound).await;
    let mut last = Vec::new();
    match ended {
        Ok(()) => last.extend([frames::data(data, &[], true), frames::data(error, &[], true)]),
        Err(why) => {
            last.push(frames::data(error, why.as_bytes(), true));
            last.extend([data, error].map(frames::reset));
        }
    }
    for frame in last {
        // Without the client nobody wants to know.
        drop(out.send(frame).await);
    }
    request
}
