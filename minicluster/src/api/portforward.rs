//! Port-forwards: a connection into a pod, over the connection of the request.
//!
//! What a client sees is what containerd's streaming server lets it see behind kubelet and API server: port numbers
//! first, errors as text on the error channel, and a close one second after the pod's end.

mod forward;
mod websocket;

use std::sync::Arc;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, Request};
use hyper::body::Incoming;

use super::answer::{self, Answer};
use super::respond::{Call, authorize};
use super::serve::Connection;
use super::status::Status;
use crate::object::{self, text};
use crate::rbac::{Attributes, Policy};

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
    if !websocket {
        return Err(Status::bad_request("Upgrade request required"));
    }
    // The rest is said by the kubelet, in plain text.
    if matches!(text(&pod, "/status/phase"), "Succeeded" | "Failed") {
        return Ok(answer::text(500, &format!("pod not found ({:?})", format!("{name}_{}", wanted.namespace))));
    }
    if let Some(why) = websocket::lacks(&ports) {
        return Ok(answer::text(400, &why));
    }
    let pod = Pod { uid: object::uid(&pod).to_owned() };
    websocket::answer(call, connection, request, pod, ports)
}

/// Whether a request asks for that protocol.
fn asks_upgrade(headers: &HeaderMap, protocol: &str) -> bool {
    let has = |name, wanted: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(wanted))
    };
    has(CONNECTION, "upgrade") && has(UPGRADE, protocol)
}
