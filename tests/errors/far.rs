//! Servers that are not as they should be, and a client of the daemon's socket: this program, started anew.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use podway_agent::server::{Agent, FlowLimits};
use rcgen::{CertificateParams, CertifiedKey, DnType, KeyPair, SanType, date_time_ymd};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// What a server says when it serves.
pub const SERVES: &str = "the far end serves";
/// How long anybody is listened to.
const PATIENCE: Duration = Duration::from_secs(20);

/// - `proxy ADDRESS CODE`: an HTTP proxy that answers every request with that code.
/// - `text ADDRESS TEXT`: says the text to whoever connects.
/// - `tls ADDRESS CERTIFICATE KEY`: ends TLS as soon as it is there; both in base64.
/// - `unix PATH`: a socket of a file system.
/// - `agent …`: an agent that speaks protocol 2 and 3.
/// - `line WHAT [-o json]`: says something odd to the daemon, and tells its error as podway does.
pub fn serve(words: &[&str]) -> ExitCode {
    match words {
        ["proxy", address, code] => {
            let answer = format!("HTTP/1.1 {code} Refused\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            each(address, move |stream| talk(stream, true, &answer))
        }
        ["text", address, text] => {
            let text = format!("{text}\r\n");
            each(address, move |stream| talk(stream, false, &text))
        }
        ["tls", address, certificate, key] => {
            let decoded = |text: &str| STANDARD.decode(text).unwrap();
            let key = PrivatePkcs8KeyDer::from(decoded(key));
            let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
            let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
            let config = Arc::new(builder.with_single_cert(vec![decoded(certificate).into()], key.into()).unwrap());
            each(address, move |stream| {
                let tls = ServerConnection::new(config.clone()).unwrap();
                // Whoever does not trust it goes.
                StreamOwned::new(tls, stream).read_to_end(&mut Vec::new()).ok();
            })
        }
        ["unix", path] => {
            let listener = UnixListener::bind(path).unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).unwrap();
            eprintln!("{SERVES}");
            // Whoever finds that it is not the daemon goes.
            listener.incoming().flatten().for_each(drop);
            ExitCode::SUCCESS
        }
        ["agent", rest @ ..] => agent(rest),
        ["line", what, rest @ ..] => line(what, rest.contains(&"json")),
        _ => ExitCode::from(2),
    }
}

fn each(address: &str, serve: impl Fn(TcpStream) + Clone + Send + 'static) -> ExitCode {
    let listener = TcpListener::bind(address).unwrap();
    eprintln!("{SERVES}");
    for stream in listener.incoming().flatten() {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let serve = serve.clone();
        thread::spawn(move || serve(stream));
    }
    ExitCode::SUCCESS
}

fn talk(mut stream: TcpStream, after_a_request: bool, answer: &str) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    if after_a_request {
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|length| length > 2) {
            line.clear();
        }
    }
    stream.write_all(answer.as_bytes()).ok();
    stream.shutdown(Shutdown::Write).ok();
    // What is unread would be answered by a reset.
    reader.read_to_end(&mut Vec::new()).ok();
}

fn agent(words: &[&str]) -> ExitCode {
    let words = words.iter().map(|word| (*word).to_owned());
    let serve = podway_agent::args::parse(words, std::env::var("PODWAY_POD_UID").ok()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let limits = FlowLimits { protocols: 2..=3, ..FlowLimits::default() };
        Agent::bind(serve, limits).await.unwrap().run(std::future::pending()).await;
    });
    ExitCode::SUCCESS
}

fn line(what: &str, form: bool) -> ExitCode {
    let greeting = "{\"podway\":1}\n";
    let text = match what {
        "another-version" => "{\"podway\":7}\n".to_owned(),
        "no-json" => format!("{greeting}hello\n"),
        "unknown-op" => format!("{greeting}{{\"id\":1,\"op\":\"dance\"}}\n"),
        "unknown-field" => format!("{greeting}{{\"id\":1,\"op\":\"version\",\"loud\":true}}\n"),
        "too-long" => format!("{greeting}{{\"id\":1,\"op\":\"{}\"}}\n", "x".repeat(300_000)),
        "too-many" => {
            let watch = |id: usize| format!("{{\"id\":{id},\"op\":\"watch\",\"name\":\"minicluster\"}}\n");
            format!("{greeting}{}", (0..65).map(watch).collect::<String>())
        }
        "half" => format!("{greeting}{{\"id\":1"),
        _ => return ExitCode::from(2),
    };
    let mut stream = UnixStream::connect("/run/podway/podway.sock").unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may have enough before all of it is written.
    stream.write_all(text.as_bytes()).ok();
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let answer: Value = serde_json::from_str(&line).unwrap_or_default();
        let Some(error) = answer.get("error") else { continue };
        let text = |field: &str| error[field].as_str().unwrap_or_default().to_owned();
        match form {
            true => println!("{}", json!({"error": error})),
            false => eprintln!("error: {}\nhint: {}", text("message"), text("hint")),
        }
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// A certificate that signs itself, for that name or address, valid until June of a year.
pub fn certificate(name: &str, last_year: i32) -> CertifiedKey<KeyPair> {
    let mut params = CertificateParams::default();
    let host = name.rsplit_once(':').map_or(name, |(host, _)| host);
    params.subject_alt_names.extend(host.parse().ok().map(SanType::IpAddress));
    params.distinguished_name.push(DnType::CommonName, host);
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(last_year, 6, 1));
    let signing_key = KeyPair::generate().unwrap();
    let cert = params.self_signed(&signing_key).unwrap();
    CertifiedKey { cert, signing_key }
}

pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

/// RFC 7468 text.
pub fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", base64(der))
}
