//! Servers on the workstation that are not as they should be.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What one says when it serves.
pub const SERVES: &str = "the far end serves";

/// `proxy ADDRESS CODE`: an HTTP proxy that answers every request with that code. `text ADDRESS TEXT`: says the text to
/// whoever connects.
pub fn serve(words: &[&str]) -> ExitCode {
    let (address, answer) = match words {
        ["proxy", address, code] => {
            (address, format!("HTTP/1.1 {code} Refused\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"))
        }
        ["text", address, text] => (address, format!("{text}\r\n")),
        _ => return ExitCode::from(2),
    };
    let listener = TcpListener::bind(address).unwrap();
    eprintln!("{SERVES}");
    for stream in listener.incoming().flatten() {
        let answer = answer.clone();
        thread::spawn(move || talk(stream, &answer));
    }
    ExitCode::SUCCESS
}

fn talk(mut stream: TcpStream, answer: &str) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    if answer.starts_with("HTTP") {
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    }
    stream.write_all(answer.as_bytes()).ok();
}

pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

/// RFC 7468 text.
pub fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", base64(der))
}
