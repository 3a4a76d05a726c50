//! Connections: accepted, encrypted, served until their end.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Request;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::answer::{self, Answer};
use super::certificates::{Authority, Certified};
use super::status::Status;
use super::users::{Accounts, User};
use super::{Boxed, Kubelet, respond};
use crate::faults::link::{Link, LinkStream};
use crate::faults::{Fault, Faults, Met, Who};
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

/// What the requests of a connection share.
pub struct Connection {
    link: Arc<Link>,
    /// The user whose certificate the client has.
    pub certificate: Option<User>,
    /// Whether the client has a certificate, of whomever.
    pub shown: bool,
    /// What becomes of the connection when it changed its protocol.
    after: Mutex<Option<Boxed<'static, ()>>>,
}

impl Connection {
    /// What is done with the connection after the answer that changes its protocol.
    pub fn then(&self, after: impl Future<Output = ()> + Send + 'static) {
        *self.after.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::pin(after));
    }
}

/// The connection of a request ends without an answer.
#[derive(Debug)]
pub struct Dropped;

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("dropped on purpose")
    }
}

impl std::error::Error for Dropped {}

/// Takes every client certificate whose key the client has. As with the real server, TLS does not ask who signed it: one that
/// is not known is answered with 401.
#[derive(Debug)]
struct AnyClient(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
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
        .with_client_cert_verifier(Arc::new(AnyClient(verifier)))
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
    let (address, mut changes) = (listener.local_addr(), shared.faults.changes());
    let mut listener = Some(listener);
    loop {
        if shared.faults.is_away() {
            listener = None;
        } else if let (None, Ok(address)) = (&listener, &address) {
            listener = TcpListener::bind(address).await.inspect_err(|error| tracing::error!(%error, "not back")).ok();
        }
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = changes.changed() => {}
            accepted = accepted => match accepted {
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
    let link = shared.faults.connected();
    let socket = LinkStream::new(socket, Arc::clone(&link));
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.accept(socket)).await else { return };
    let shown = stream.get_ref().1.peer_certificates().and_then(|shown| shown.first());
    let certificate = shown.and_then(|shown| shared.accounts.of_certificate(shown)).cloned();
    let connection = Arc::new(Connection { link, certificate, shown: shown.is_some(), after: Mutex::new(None) });
    let service = service_fn(|request: Request<Incoming>| {
        let (shared, connection) = (Arc::clone(&shared), Arc::clone(&connection));
        async move { answer(&shared, &connection, request).await }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(None);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await {
        tracing::debug!(%error, "a connection ended");
        return;
    }
    let after = connection.after.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(after) = after {
        after.await;
    }
}

/// Answers a request, unless a fault has it otherwise.
async fn answer(
    shared: &Arc<Shared>,
    connection: &Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Answer, Dropped> {
    let asked = respond::Asked::read(shared, connection, &request);
    let protocol = request.headers().get(SEC_WEBSOCKET_PROTOCOL).and_then(|protocol| protocol.to_str().ok());
    let who = Who { protocol: protocol.unwrap_or_default().to_owned(), ..asked.who() };
    let mut drops_after = false;
    for Met { id, fault } in shared.faults.requested(&connection.link, &who) {
        match fault {
            Fault::Delay { millis } => tokio::time::sleep(Duration::from_millis(millis)).await,
            Fault::Hang => shared.faults.withdrawn(id).await,
            Fault::Refuse { code, message, retry_after } => {
                return Ok(answer::status(&refusal(code, message, retry_after)));
            }
            Fault::DropBefore => return Err(Dropped),
            Fault::DropAfter => drops_after = true,
            // They happen to connections and to watches.
            Fault::Cut { .. }
            | Fault::Away
            | Fault::BlackHole { .. }
            | Fault::Link { .. }
            | Fault::DuplicateEvents
            | Fault::SwapEvents
            | Fault::LoseEvents { .. }
            | Fault::Gone
            | Fault::EndAfter { .. } => {}
        }
    }
    let answer = respond::respond(shared, connection, asked, who, request).await;
    if drops_after { Err(Dropped) } else { Ok(answer) }
}

fn refusal(code: u16, message: Option<String>, retry_after: Option<u32>) -> Status {
    let usual = match code {
        403 => "forbidden on purpose",
        410 => "The provided continue parameter is too old to display a consistent list result.",
        429 => "too many requests, please try again later",
        _ => "a fault that was asked for",
    };
    let message = message.unwrap_or_else(|| usual.to_owned());
    match (code, retry_after) {
        (429, seconds) => Status::too_many_requests(message, seconds.unwrap_or(0)),
        (500, None) => Status::internal(&message),
        (_, retry_after) => Status { retry_after, ..Status::of_code(code, message) },
    }
}

/// Somebody who asks for something, for the rules of faults.
pub fn who(info: &super::request::RequestInfo, user: &str) -> Who {
    let wanted = &info.attributes;
    let resource = match (wanted.resource.as_str(), wanted.subresource.as_str()) {
        ("", _) => info.path.clone(),
        (resource, "") => resource.to_owned(),
        (resource, subresource) => format!("{resource}/{subresource}"),
    };
    Who {
        verb: wanted.verb.clone(),
        resource,
        namespace: wanted.namespace.clone(),
        name: wanted.name.clone(),
        user: user.to_owned(),
        protocol: String::new(),
    }
}
