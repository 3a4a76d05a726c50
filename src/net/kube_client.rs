//! The client of the API server, built from values alone: no file, no environment, no plugin.
//!
//! What it leaves out of kube's default stack: retries (the watches have their own backoff), compression (it costs more
//! than it saves next to a watch) and the trace layer. What it adds: TCP_NODELAY, without which 2 % of small round trips
//! take more than 40 ms, keepalive, and a limit on the whole of connecting, TLS included.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use kube::config::AuthInfo;
use secrecy::SecretString;
use tower::{BoxError, Service, ServiceBuilder};

use crate::error::chain;
use crate::refusal::Readiness;
use crate::spec::{ClusterAccess, Credential, without_userinfo};

/// Limit of a TCP connection: three retransmitted SYNs fit into it.
const TCP_TIMEOUT: Duration = Duration::from_secs(8);
/// Limit of one connection's set-up: TCP, proxy and TLS. Below the ten seconds after which servers give TLS up: who ends the
/// connection first decides what is told.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(9);
/// Limit of a question whether the API server is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(3);
/// Where reviews of one's own rights are asked for.
pub const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
/// One that every authenticated user may ask for.
const REVIEW: &str = r#"{
    "apiVersion": "authorization.k8s.io/v1",
    "kind": "SelfSubjectAccessReview",
    "spec": {"nonResourceAttributes": {"path": "/readyz", "verb": "get"}}
}"#;
/// Idle time before TCP asks whether the other end lives, and the time between two such questions.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Unanswered questions after which the connection is dead.
const KEEPALIVE_RETRIES: u32 = 3;

/// Why no client could be built. No variant holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum KubeClientError {
    /// The server's URL cannot be read.
    #[error("{url:?} is not the URL of an API server")]
    Server {
        /// The URL as given.
        url: String,
    },
    /// The proxy's URL cannot be read, or its scheme is none of http, https and socks5.
    #[error("the proxy URL is not an http, https or socks5 URL")]
    Proxy,
    /// The certificates to trust are not PEM.
    #[error("the certificate authority is not PEM")]
    CertificateAuthority,
    /// The credential cannot be used; says why without quoting it.
    #[error("the credential cannot be used: {0}")]
    Credential(String),
    /// TLS cannot be set up with these certificates and names.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// A host name cannot be resolved.
    #[error("{host} cannot be resolved")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        #[source]
        source: std::io::Error,
    },
}

/// Builds a client. Connects to nothing.
///
/// # Errors
/// When URLs, certificates or the credential cannot be read.
///
/// Cancel safe.
#[expect(clippy::unused_async, reason = "kube's client starts its worker on the runtime, so one has to be there")]
pub async fn client(access: &ClusterAccess) -> Result<kube::Client, KubeClientError> {
    let config = config(access)?;
    let http = connector();
    let Some(proxy) = config.proxy_url.clone() else {
        return over(config, http);
    };
    match proxy.scheme_str() {
        Some("socks5" | "socks5h") => over(config, SocksV5::new(proxy, http)),
        Some("http") => {
            let auth = proxy_auth(&proxy);
            let tunnel = Tunnel::new(proxy, http);
            over(config, if let Some(auth) = auth { tunnel.with_auth(auth) } else { tunnel })
        }
        Some("https") => {
            let auth = proxy_auth(&proxy);
            let mut to_proxy = kube::Config::new(proxy.clone());
            to_proxy.root_cert.clone_from(&config.root_cert);
            let tls = to_proxy.rustls_https_connector_with_connector(http).map_err(tls_error)?;
            let tunnel = Tunnel::new(proxy, tls);
            over(config, if let Some(auth) = auth { tunnel.with_auth(auth) } else { tunnel })
        }
        Some(_) | None => Err(KubeClientError::Proxy),
    }
}

/// The addresses that traffic to the API server goes to: the server's own and, where there is one, the proxy's.
///
/// Routes must leave them out. Asks the host's resolver once.
///
/// # Errors
/// When a URL cannot be read. A server behind a proxy may be unknown to the local resolver; that is no error.
///
/// Cancel safe.
pub async fn api_server_addresses(access: &ClusterAccess) -> Result<Vec<IpAddr>, KubeClientError> {
    let server = parse_server(&access.server)?;
    let proxy = access.proxy_url.as_deref().map(parse_proxy).transpose()?;
    let direct = async { lookup(&server).await };
    let via = async {
        match &proxy {
            Some(proxy) => lookup(proxy).await,
            None => Ok(Vec::new()),
        }
    };
    let (direct, via) = tokio::join!(direct, via);
    let direct = if proxy.is_some() { direct.unwrap_or_default() } else { direct? };
    let all: BTreeSet<IpAddr> = direct.into_iter().chain(via?).collect();
    Ok(all.into_iter().collect())
}

/// Asks the API server whether it is ready: it is not before it has read who may do what.
///
/// Cancel safe; has a limit of its own.
pub async fn readiness(client: &kube::Client) -> Readiness {
    match code(client, http::Request::get("/readyz").body(Vec::new())).await {
        Some(200) => Readiness::Ready,
        Some(500..) => Readiness::NotReady,
        // Everyone may ask for that, and for a review, unless somebody has taken one of these rights away. Where both are
        // refused, it has not read any roles yet.
        Some(403) => {
            let request = http::Request::post(REVIEWS).header(http::header::CONTENT_TYPE, "application/json");
            match code(client, request.body(REVIEW.as_bytes().to_vec())).await {
                Some(403) => Readiness::NotReady,
                Some(_) | None => Readiness::Silent,
            }
        }
        Some(_) | None => Readiness::Silent,
    }
}

/// The code of an answer; `None` without one in time.
async fn code(client: &kube::Client, request: http::Result<http::Request<Vec<u8>>>) -> Option<u16> {
    match tokio::time::timeout(READY_TIMEOUT, client.request_text(request.ok()?)).await {
        Ok(Ok(_)) => Some(200),
        Ok(Err(kube::Error::Api(status))) => Some(status.code),
        Ok(Err(_)) | Err(_) => None,
    }
}

async fn lookup(url: &Uri) -> Result<Vec<IpAddr>, KubeClientError> {
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = host.parse() {
        return Ok(vec![ip]);
    }
    let found = tokio::net::lookup_host((host, 443)).await;
    let found = found.map_err(|source| KubeClientError::Resolve { host: host.to_owned(), source })?;
    Ok(found.map(|address| address.ip()).collect())
}

fn config(access: &ClusterAccess) -> Result<kube::Config, KubeClientError> {
    let mut config = kube::Config::new(parse_server(&access.server)?);
    config.default_retry = false;
    config.accept_invalid_certs = access.insecure_skip_tls_verify;
    config.tls_server_name.clone_from(&access.tls_server_name);
    config.proxy_url = access.proxy_url.as_deref().map(parse_proxy).transpose()?;
    if let Some(pem) = &access.certificate_authority_data {
        config.root_cert = Some(certificates(pem)?);
    }
    let mut auth = AuthInfo::default();
    match &access.credential {
        Credential::None => {}
        Credential::Token(token) => auth.token = Some(SecretString::from(token.trim())),
        Credential::Basic { username, password } => {
            auth.username = Some(username.clone());
            auth.password = Some(SecretString::from(password.as_str()));
        }
        Credential::ClientCertificate { certificate, key } => {
            auth.client_certificate_data = Some(base64(certificate.as_bytes()));
            auth.client_key_data = Some(SecretString::from(base64(key.as_bytes())));
        }
    }
    if let Some(who) = &access.impersonate {
        auth.impersonate = Some(who.user.clone());
        auth.impersonate_groups = (!who.groups.is_empty()).then(|| who.groups.clone());
    }
    config.auth_info = auth;
    Ok(config)
}

fn parse_server(url: &str) -> Result<Uri, KubeClientError> {
    let bad = || KubeClientError::Server { url: without_userinfo(url) };
    let uri: Uri = url.parse().map_err(|_| bad())?;
    let web = uri.scheme() == Some(&Scheme::HTTPS) || uri.scheme() == Some(&Scheme::HTTP);
    if web && uri.host().is_some_and(|host| !host.is_empty()) { Ok(uri) } else { Err(bad()) }
}

fn parse_proxy(url: &str) -> Result<Uri, KubeClientError> {
    let uri: Uri = url.parse().map_err(|_| KubeClientError::Proxy)?;
    let known = matches!(uri.scheme_str(), Some("http" | "https" | "socks5" | "socks5h"));
    if known && uri.host().is_some() { Ok(uri) } else { Err(KubeClientError::Proxy) }
}

fn certificates(pem: &str) -> Result<Vec<Vec<u8>>, KubeClientError> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let found = found.map_err(|_| KubeClientError::CertificateAuthority)?;
    if found.is_empty() {
        return Err(KubeClientError::CertificateAuthority);
    }
    Ok(found.into_iter().map(|der| der.to_vec()).collect())
}

fn connector() -> HttpConnector {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_keepalive(Some(KEEPALIVE));
    http.set_keepalive_interval(Some(KEEPALIVE));
    http.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    http.set_connect_timeout(Some(TCP_TIMEOUT));
    http
}

fn over<C>(config: kube::Config, transport: C) -> Result<kube::Client, KubeClientError>
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Response:
        hyper_util::client::legacy::connect::Connection + hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
    C::Future: Send + 'static,
    C::Error: Into<BoxError>,
{
    let auth = config.auth_layer().map_err(|e| KubeClientError::Credential(chain(&e)))?;
    let headers = config.extra_headers_layer().map_err(|e| KubeClientError::Credential(chain(&e)))?;
    let tls = config.rustls_https_connector_with_connector(transport).map_err(tls_error)?;
    let http = HttpClient::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(60))
        .build::<_, Body>(Limited(tls));
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(auth)
        .layer(headers)
        .map_err(BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(service, config.default_namespace.clone()).build())
}

fn tls_error(error: kube::Error) -> KubeClientError {
    KubeClientError::Tls(chain(&error))
}

/// Somebody took the connection, and said nothing in time.
#[derive(Debug, thiserror::Error)]
#[error("it takes a connection and then says nothing")]
pub struct Mute;

/// Gives all of connecting one limit: a server that accepts and then says nothing would hold a caller for ever.
#[derive(Clone)]
struct Limited<C>(C);

impl<C> Service<Uri> for Limited<C>
where
    C: Service<Uri>,
    C::Future: Send + 'static,
    C::Response: Send + 'static,
    C::Error: Into<BoxError> + 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move {
            match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
                Ok(done) => done.map_err(Into::into),
                Err(_) => Err(Mute.into()),
            }
        })
    }
}

fn proxy_auth(proxy: &Uri) -> Option<http::HeaderValue> {
    let (userinfo, _) = proxy.authority()?.as_str().rsplit_once('@')?;
    let mut value = http::HeaderValue::from_str(&format!("Basic {}", base64(&percent_decoded(userinfo)))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        let digit = |at: usize| tail.get(at).and_then(|&b| char::from(b).to_digit(16));
        if *first == b'%'
            && let (Some(high), Some(low)) = (digit(0), digit(1))
            && let Ok(byte) = u8::try_from(high * 16 + low)
        {
            out.push(byte);
            rest = tail.get(2..).unwrap_or_default();
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    out
}

/// RFC 4648 base64 with padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            if at <= chunk.len() {
                out.push(char::from(ALPHABET[(word >> (18 - 6 * at) & 63) as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(server: &str) -> ClusterAccess {
        ClusterAccess::bare(server)
    }

    #[test]
    fn base64_is_padded() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[tokio::test]
    async fn bad_urls_are_named_without_their_secrets() {
        for bad in ["", "h", "ftp://h", "https://", "/path"] {
            assert!(client(&access(bad)).await.is_err(), "{bad:?} was taken");
        }
        let error = client(&access("ftp://user:canary@h")).await.err().expect("refused");
        assert!(!error.to_string().contains("canary"), "{error}");
    }

    #[tokio::test]
    async fn every_kind_of_proxy_makes_a_client() {
        for proxy in ["http://p:3128", "http://u:p%40s@p:3128", "socks5://p:1080", "https://p:3129"] {
            let with = ClusterAccess { proxy_url: Some(proxy.into()), ..access("https://192.0.2.1:6443") };
            client(&with).await.expect(proxy);
        }
        let bad = ClusterAccess { proxy_url: Some("gopher://p".into()), ..access("https://192.0.2.1:6443") };
        assert!(client(&bad).await.is_err());
    }

    #[tokio::test]
    async fn literal_addresses_need_no_resolver() {
        let with =
            ClusterAccess { proxy_url: Some("http://[2001:db8::1]:1".into()), ..access("https://192.0.2.1:6443") };
        let found = api_server_addresses(&with).await.expect("literal");
        let wanted: Vec<IpAddr> = vec!["192.0.2.1".parse().expect("v4"), "2001:db8::1".parse().expect("v6")];
        assert_eq!(found, wanted);
    }

    #[tokio::test]
    async fn an_api_server_is_as_ready_as_it_says_and_knows_nobody_where_it_refuses_what_everyone_may() {
        for (ready, review, expected) in [
            (200, 403, Readiness::Ready),
            (500, 201, Readiness::NotReady),
            (503, 403, Readiness::NotReady),
            (403, 403, Readiness::NotReady),
            (403, 201, Readiness::Silent),
            (404, 403, Readiness::Silent),
            (401, 401, Readiness::Silent),
        ] {
            let serve = move |request: http::Request<Body>| {
                let code = if request.uri().path() == "/readyz" { ready } else { review };
                let response = http::Response::builder().status(code).body(Body::from(b"no".to_vec()));
                std::future::ready(response.map_err(BoxError::from))
            };
            let client = kube::Client::new(tower::service_fn(serve), "demo");
            assert_eq!(readiness(&client).await, expected, "{ready} {review}");
        }
    }

    #[test]
    fn percent_signs_are_decoded_once() {
        assert_eq!(percent_decoded("u:a%40b%zz%"), b"u:a@b%zz%");
    }
}
