//! Port-forwards: a connection into a pod, over the connection of the request.
//!
//! What a client sees is what containerd's streaming server lets it see behind kubelet and API server: port numbers
//! first, errors as text on the error channel, and a close one second after the pod's end.

mod forward;
mod spdy;
mod websocket;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{HeaderMap, Request};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use self::websocket::Protocol;

use super::answer::{self, Answer};
use super::respond::{Call, authorize};
use super::serve::Connection;
use super::status::Status;
use crate::object::{self, text};
use crate::rbac::{Attributes, Policy};

/// The older protocol.
const SPDY: &str = "SPDY/3.1";
/// The header in which versions of what is on top of it are offered and chosen.
const VERSION: &str = "x-stream-protocol-version";
/// What is read at once.
const READ: usize = 16 << 10;
/// Frames under way to the client.
const UNDER_WAY: usize = 8;

/// A pod that ports are forwarded into.
#[derive(Clone, Debug)]
struct Pod {
    uid: String,
}

/// Answers a request for one.
pub fn answer(
    call: &Call<'_>,
    policy: &Policy,
    connection: &Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Answer, Status> {
    let wanted = &call.info.attributes;
    if !matches!(wanted.verb.as_str(), "get" | "create") {
        return Err(Status::method_not_allowed());
    }
    let websocket = asks_upgrade(request.headers(), "websocket");
    if websocket && call.shared.websocket_needs_create {
        authorize(policy, call.subject, &Attributes { verb: "create".to_owned(), ..wanted.clone() })?;
    }
    let name = wanted.name.as_str();
    let pod = call.shared.store.get(&call.key(name)).ok_or_else(|| Status::not_found(call.resource, name))?;
    if text(&pod, "/spec/nodeName").is_empty() {
        return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let ports = websocket::ports(call.info.query.all("ports"))?;
    let spdy = asks_upgrade(request.headers(), SPDY);
    if !websocket && !spdy {
        return Err(Status::bad_request("Upgrade request required"));
    }
    // The rest is said by the kubelet, in plain text.
    if matches!(text(&pod, "/status/phase"), "Succeeded" | "Failed") {
        return Ok(answer::text(500, &format!("pod not found ({:?})", format!("{name}_{}", wanted.namespace))));
    }
    let pod = Pod { uid: object::uid(&pod).to_owned() };
    if spdy {
        return Ok(over_spdy(call, connection, request, pod));
    }
    let Some(protocol) = Protocol::choose(request.headers()) else { return Ok(answer::bare(403)) };
    if let (Protocol::Channels(_), Some(why)) = (protocol, websocket::lacks(&ports)) {
        return Ok(answer::text(400, &why));
    }
    websocket::answer(call, connection, request, pod, protocol, ports)
}

/// Agrees on SPDY and forwards.
fn over_spdy(call: &Call<'_>, connection: &Arc<Connection>, mut request: Request<Incoming>, pod: Pod) -> Answer {
    let offers = request.headers().get_all(VERSION).iter().filter_map(|value| value.to_str().ok());
    let offers: Vec<&str> = offers.flat_map(|value| value.split(',')).map(str::trim).collect();
    if !offers.contains(&spdy::PROTOCOL) {
        let offers = offers.join(" ");
        let why =
            format!("unable to negotiate protocol: client supports [{offers}], server accepts [{}]", spdy::PROTOCOL);
        return answer::text(403, &format!("unable to upgrade: {why}\n"));
    }
    let mut answer = answer::switching(SPDY);
    answer.headers_mut().insert(VERSION, HeaderValue::from_static(spdy::PROTOCOL));
    let upgrade = hyper::upgrade::on(&mut request);
    let kubelet = Arc::clone(&call.shared.kubelet);
    connection.then(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let (read, mut write) = tokio::io::split(TokioIo::new(upgraded));
        let chunks = stream::unfold(read, async |mut read| {
            let mut chunk = BytesMut::with_capacity(READ);
            match read.read_buf(&mut chunk).await {
                Ok(0) | Err(_) => None,
                Ok(_) => Some((chunk.freeze(), read)),
            }
        });
        let (out, mut outbound) = mpsc::channel::<Bytes>(UNDER_WAY);
        // It owns the receiver: who sends to a client that is gone fails.
        let to_client = async move {
            while let Some(frame) = outbound.recv().await {
                if write.write_all(&frame).await.is_err() || write.flush().await.is_err() {
                    return;
                }
            }
            drop(write.shutdown().await);
        };
        tokio::join!(spdy::serve(chunks, out, kubelet, pod), to_client);
    });
    answer
}

/// Whether a request asks for that protocol.
fn asks_upgrade(headers: &HeaderMap, protocol: &str) -> bool {
    let has = |name, wanted: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(wanted))
    };
    has(CONNECTION, "upgrade") && has(UPGRADE, protocol)
}
