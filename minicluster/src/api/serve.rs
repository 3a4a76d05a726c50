//! Connections: accepted, encrypted, served until their end.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::Kubelet;
use super::certificates::{Authority, Certified};
use super::users::Accounts;
use crate::faults::Faults;
use crate::store::Store;

/// Limit of a TLS handshake, and of the head of a request.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Pause after a failed accept: it fails when the process has too many files open, and goes on failing for a while.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What all requests share.
pub struct Shared {
    pub store: Store,
    pub kubelet: Arc<dyn Kubelet>,
    pub faults: Faults,
    pub accounts: Accounts,
    pub websocket_needs_create: bool,
}

/// The server's TLS: HTTP/1.1, client certificates welcome.
pub fn tls(authority: &Authority, certified: &Certified) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der())?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certified.der(), authority.der()], certified.key())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The tasks of a server: one for each listener, which owns those of its connections.
pub struct Tasks {
    stop: watch::Sender<bool>,
    listeners: JoinSet<()>,
}

impl Tasks {
    pub fn start(listeners: Vec<TcpListener>, tls: TlsAcceptor, shared: &Arc<Shared>) -> Tasks {
        let stop = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        for listener in listeners {
            tasks.spawn(accept(listener, tls.clone(), Arc::clone(shared), stop.subscribe()));
        }
        Tasks { stop, listeners: tasks }
    }

    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.listeners.join_next().await.is_some() {}
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => drop(connections.spawn(connection(socket, tls.clone(), Arc::clone(&shared)))),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            _ = stop.changed() => break,
        }
    }
    connections.shutdown().await;
}

async fn connection(socket: TcpStream, tls: TlsAcceptor, shared: Arc<Shared>) {
    drop(socket.set_nodelay(true));
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.accept(socket)).await else { return };
    let service = service_fn(move |request: Request<Incoming>| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(&shared, request)) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HANDSHAKE);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await {
        tracing::debug!(%error, "a connection ended");
    }
}

fn answer(shared: &Shared, _: Request<Incoming>) -> Response<Full<Bytes>> {
    let _ = (&shared.store, &shared.kubelet, &shared.faults, shared.websocket_needs_create);
    Response::new(Full::new(Bytes::from_static(b"ok")))
}
