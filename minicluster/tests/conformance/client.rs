//! A client that shows answers as they are: no retries, no types.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, handshake::client::generate_key};

/// Longer than any answer takes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How to reach an API server, as somebody.
#[derive(Clone)]
pub struct Client {
    host: String,
    tls: TlsConnector,
    headers: HeaderMap,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub code: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl Client {
    /// The user of a kubeconfig's current context.
    pub fn of_kubeconfig(text: &str) -> Client {
        let config: Value = serde_saphyr::from_str(text).expect("a kubeconfig");
        let named = |list: &str, name: &str| {
            config[list].as_array().and_then(|all| all.iter().find(|one| one["name"] == name)).cloned()
        };
        let context = named("contexts", config["current-context"].as_str().expect("a context")).expect("the context");
        let context = &context["context"];
        let cluster = named("clusters", context["cluster"].as_str().expect("a cluster")).expect("the cluster");
        let user = named("users", context["user"].as_str().expect("a user")).expect("the user")["user"].clone();
        let pem = |value: &Value| STANDARD.decode(value.as_str().expect("data")).expect("base64");
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem(&cluster["cluster"]["certificate-authority-data"])) {
            roots.add(certificate.expect("PEM")).expect("a certificate");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider);
        let tls = tls.with_safe_default_protocol_versions().expect("versions").with_root_certificates(roots);
        let tls = if user["client-certificate-data"].is_string() {
            let certificates = pem(&user["client-certificate-data"]);
            let certificates = CertificateDer::pem_slice_iter(&certificates).map(|one| one.expect("PEM")).collect();
            let key = PrivateKeyDer::from_pem_slice(&pem(&user["client-key-data"])).expect("a key");
            tls.with_client_auth_cert(certificates, key).expect("a client certificate")
        } else {
            tls.with_no_client_auth()
        };
        let mut headers = HeaderMap::new();
        if let Some(token) = user["token"].as_str() {
            headers.insert("authorization", format!("Bearer {token}").parse().expect("a token"));
        }
        let server = cluster["cluster"]["server"].as_str().expect("a server");
        let host = server.strip_prefix("https://").expect("https").trim_end_matches('/').to_owned();
        Client { host, tls: TlsConnector::from(Arc::new(tls)), headers }
    }

    /// The same server without any credentials.
    pub fn anonymous(&self, ca: &str) -> Client {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            roots.add(certificate.expect("PEM")).expect("a certificate");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider);
        let tls = tls.with_safe_default_protocol_versions().expect("versions").with_root_certificates(roots);
        let tls = TlsConnector::from(Arc::new(tls.with_no_client_auth()));
        Client { host: self.host.clone(), tls, headers: HeaderMap::new() }
    }

    /// With one more header in each request.
    pub fn with(&self, name: &'static str, value: &str) -> Client {
        let mut client = self.clone();
        client.headers.append(name, value.parse().expect("a header"));
        client
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let socket = TcpStream::connect(&self.host).await.expect("the API server");
        socket.set_nodelay(true).expect("a socket");
        let name = self.host.rsplit_once(':').expect("a port").0.trim_matches(['[', ']']).to_owned();
        self.tls.connect(ServerName::try_from(name).expect("a name"), socket).await.expect("TLS")
    }

    fn request(&self, method: &str, path: &str) -> http::request::Builder {
        let mut request = Request::builder().method(method.parse::<Method>().expect("a method")).uri(path);
        request = request.header("host", &self.host);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request
    }

    /// A request and the head of its answer.
    pub async fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> http::Response<Incoming> {
        let asked = async {
            let socket = TokioIo::new(self.connect().await);
            let (mut sender, connection) = hyper::client::conn::http1::handshake(socket).await.expect("HTTP");
            tokio::spawn(connection.with_upgrades());
            let mut request = self.request(method, path);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let request = request.body(Full::new(Bytes::from(body))).expect("a request");
            sender.send_request(request).await.expect("an answer")
        };
        timeout(PATIENCE, asked).await.expect("an answer in time")
    }

    /// A request and its whole answer.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Reply {
        let answer = self.open(method, path, headers, body).await;
        let (head, body) = answer.into_parts();
        let body = timeout(PATIENCE, body.collect()).await.expect("an end in time").expect("a body").to_bytes();
        Reply { code: head.status.as_u16(), headers: head.headers, body }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], Vec::new()).await
    }

    pub async fn json(&self, method: &str, path: &str, body: &Value) -> Reply {
        self.send(method, path, &[("content-type", "application/json")], body.to_string().into_bytes()).await
    }

    pub async fn patch(&self, kind: &str, path: &str, body: &Value) -> Reply {
        let media_type = format!("application/{kind}-patch+json");
        self.send("PATCH", path, &[("content-type", &media_type)], body.to_string().into_bytes()).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.send("DELETE", path, &[], Vec::new()).await
    }

    /// A watch.
    pub async fn watch(&self, path: &str) -> Lines {
        let answer = self.open("GET", path, &[], Vec::new()).await;
        Lines { code: answer.status().as_u16(), body: answer.into_body(), rest: Vec::new() }
    }

    /// A WebSocket, or the answer that refuses it.
    pub async fn websocket(&self, path: &str, protocols: Option<&str>) -> Result<WebSocket, Reply> {
        let mut request = self.request("GET", &format!("wss://{}{path}", self.host));
        for (name, value) in [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")] {
            request = request.header(name, value);
        }
        request = request.header("sec-websocket-key", generate_key());
        if let Some(protocols) = protocols {
            request = request.header("sec-websocket-protocol", protocols);
        }
        let request = request.body(()).expect("a request");
        let opened = tokio_tungstenite::client_async(request, self.connect().await);
        match timeout(PATIENCE, opened).await.expect("an answer in time") {
            Ok((socket, answer)) => {
                let protocol = answer.headers().get("sec-websocket-protocol");
                let protocol = protocol.and_then(|value| value.to_str().ok()).map(str::to_owned);
                Ok(WebSocket { socket, protocol })
            }
            // It may have read only a part of the answer.
            Err(Error::Http(_)) => {
                let key = generate_key();
                let mut headers = vec![
                    ("connection", "Upgrade"),
                    ("upgrade", "websocket"),
                    ("sec-websocket-version", "13"),
                    ("sec-websocket-key", &key),
                ];
                headers.extend(protocols.map(|protocols| ("sec-websocket-protocol", protocols)));
                Err(self.send("GET", path, &headers, Vec::new()).await)
            }
            Err(error) => panic!("neither a WebSocket nor an answer: {error}"),
        }
    }
}

pub struct WebSocket {
    pub socket: WebSocketStream<TlsStream<TcpStream>>,
    pub protocol: Option<String>,
}

/// The events of a watch.
pub struct Lines {
    pub code: u16,
    body: Incoming,
    rest: Vec<u8>,
}

impl Lines {
    /// The next event; none at the end.
    pub async fn next(&mut self) -> Option<Value> {
        timeout(PATIENCE, self.next_in_time()).await.expect("an event in time")
    }

    /// The next event, if there is one soon.
    pub async fn soon(&mut self, limit: Duration) -> Option<Value> {
        timeout(limit, self.next_in_time()).await.ok().flatten()
    }

    async fn next_in_time(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("JSON"));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.rest.extend_from_slice(frame.data_ref().expect("data")),
                Some(Err(error)) => panic!("the watch broke off: {error}"),
                None => return None,
            }
        }
    }
}
