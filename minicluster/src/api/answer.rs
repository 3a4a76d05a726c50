//! Answers: JSON, text, streams.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, UPGRADE, X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::Frame;
use serde::Serialize;

use super::status::Status;

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;
/// An answer.
pub type Answer = Response<Body>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

fn of(code: u16, media_type: HeaderValue, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(CONTENT_TYPE, media_type);
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    answer
}

/// Something as JSON. Ends with a newline, as it does with Kubernetes.
pub fn json(code: u16, value: &impl Serialize) -> Answer {
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    of(code, JSON, Full::new(Bytes::from(text)).boxed_unsync())
}

/// A refusal.
pub fn status(status: &Status) -> Answer {
    let mut answer = json(status.code, &status.body());
    if let Some(seconds) = status.retry_after {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if status.code == 403 {
        answer.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    answer
}

/// Plain text.
pub fn text(code: u16, text: &str) -> Answer {
    let media_type = HeaderValue::from_static("text/plain; charset=utf-8");
    let mut answer = of(code, media_type, Full::new(Bytes::from(text.to_owned())).boxed_unsync());
    answer.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// What a path that leads nowhere is answered with.
pub fn nowhere() -> Answer {
    text(404, "404 page not found\n")
}

/// A body that comes bit by bit.
pub fn stream(media_type: &'static str, chunks: impl Stream<Item = Bytes> + Send + 'static) -> Answer {
    let frames = chunks.map(|chunk| Ok(Frame::data(chunk)));
    of(200, HeaderValue::from_static(media_type), StreamBody::new(frames).boxed_unsync())
}

/// An answer without a body.
pub fn bare(code: u16) -> Answer {
    let mut answer = Response::new(Empty::new().boxed_unsync());
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer
}

/// The answer that changes to that protocol.
pub fn switching(protocol: &'static str) -> Answer {
    let mut answer = bare(101);
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.headers_mut().insert(UPGRADE, HeaderValue::from_static(protocol));
    answer
}

/// Adds a warning, which clients show to people.
pub fn warn(answer: &mut Answer, warning: &str) {
    if let Ok(value) = HeaderValue::from_str(&format!("299 - {warning:?}")) {
        answer.headers_mut().append("Warning", value);
    }
}
