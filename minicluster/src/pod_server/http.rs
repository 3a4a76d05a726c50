//! What is served over HTTP: who answered whom, and the pod's own view of names and places.

use std::convert::Infallible;
use std::fmt::Display;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::TcpStream;

use super::{Identity, canonical, outbound, streams};

/// A body of any kind.
pub type Body = BoxBody<Bytes, io::Error>;

/// Who answers.
#[derive(Clone, Debug)]
pub struct Server(Arc<Identity>);

/// What a plain request is answered with: who answered, and the connection's addresses as the pod saw them.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    pod: &'a str,
    node: &'a str,
    namespace: &'a str,
    local: String,
    remote: String,
    path: &'a str,
}

impl Server {
    /// A server of that name.
    pub fn new(identity: Arc<Identity>) -> Server {
        Server(identity)
    }

    /// What serves a connection.
    pub fn handler(self) -> impl Fn(TcpStream) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>> {
        move |stream| {
            let server = self.clone();
            Box::pin(async move {
                let ends = [stream.local_addr()?, stream.peer_addr()?];
                let answer = service_fn(move |request| {
                    let server = server.clone();
                    async move { Ok::<_, Infallible>(server.answer(request, ends).await) }
                });
                let mut served = hyper::server::conn::http1::Builder::new();
                served.half_close(true);
                served.serve_connection(TokioIo::new(stream), answer).await.map_err(io::Error::other)
            })
        }
    }

    async fn answer(&self, request: Request<Incoming>, ends: [SocketAddr; 2]) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let value = |name: &str| {
            let pairs = form_urlencoded::parse(query.as_bytes());
            pairs.filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).next()
        };
        let every =
            Duration::from_millis(value("ms").and_then(|ms| ms.parse().ok()).filter(|ms| *ms > 0).unwrap_or(1000));
        match path.as_str() {
            "/healthz" => plain("ok\n"),
            "/bytes" => match value("n").and_then(|n| n.parse().ok()) {
                Some(count) => bytes(count),
                None => error(StatusCode::BAD_REQUEST, &"n must be a count of bytes"),
            },
            "/slow" => {
                tokio::time::sleep(every).await;
                plain("ok\n")
            }
            "/stream" => lines(every, value("n").and_then(|n| n.parse().ok())),
            "/echo" => Response::new(request.into_body().map_err(io::Error::other).boxed()),
            "/fetch" => match outbound::fetch(&self.0.resolver, &value("url").unwrap_or_default()).await {
                Ok(response) => response,
                Err(cause) => error(StatusCode::BAD_GATEWAY, &cause),
            },
            "/lookup" => match self.0.resolver.lookup(&value("name").unwrap_or_default()).await {
                Ok(found) => plain(&found.iter().map(|address| format!("{address}\n")).collect::<String>()),
                Err(cause) => error(StatusCode::BAD_GATEWAY, &cause),
            },
            _ => self.who(&path, ends),
        }
    }

    fn who(&self, path: &str, [local, remote]: [SocketAddr; 2]) -> Response<Body> {
        let Identity { pod, node, namespace, .. } = &*self.0;
        let (local, remote) = (canonical(local).to_string(), canonical(remote).to_string());
        let answer = Answer { pod, node, namespace, local, remote, path };
        let mut text = serde_json::to_string(&answer).unwrap_or_default();
        text.push('\n');
        typed("application/json", whole(text))
    }
}

fn whole(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

fn typed(kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

fn plain(text: &str) -> Response<Body> {
    typed("text/plain; charset=utf-8", whole(text.to_owned()))
}

fn error(status: StatusCode, cause: &dyn Display) -> Response<Body> {
    let mut response = plain(&format!("{cause}\n"));
    *response.status_mut() = status;
    response
}

/// That many bytes of the pattern.
fn bytes(count: u64) -> Response<Body> {
    let pattern = Bytes::from(streams::pattern());
    let body = stream::unfold(count, move |left| {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(pattern.len());
        let part = pattern.slice(..length);
        async move { (length > 0).then(|| (Ok(Frame::data(part)), left - u64::try_from(length).unwrap_or(left))) }
    });
    let mut response = typed("application/octet-stream", BodyExt::boxed(StreamBody::new(body)));
    response.headers_mut().insert(CONTENT_LENGTH, count.into());
    response
}

/// A line each time, so many or until the client goes away.
fn lines(every: Duration, count: Option<u64>) -> Response<Body> {
    let body = stream::unfold(1_u64, move |number| async move {
        if count.is_some_and(|count| number > count) {
            return None;
        }
        if number > 1 {
            tokio::time::sleep(every).await;
        }
        Some((Ok(Frame::data(Bytes::from(format!("{number}\n")))), number + 1))
    });
    typed("text/plain; charset=utf-8", BodyExt::boxed(StreamBody::new(body)))
}
