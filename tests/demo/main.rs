//! `podway demo` as a stranger runs it: what it shows, how it ends, and that nothing of it is left.
//!
//! The tests run as root and, where `/dev/net/tun` is open to everybody, as an ordinary user too.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::allow_attributes, reason = "a test says what it expects")]
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test waits with a limit and says what it left out"
)]

#[path = "../support/allowed.rs"]
mod allowed;
#[expect(dead_code, reason = "what was seen of the schema is asked elsewhere")]
#[path = "../support/schema.rs"]
mod schema;

mod ends;
mod host;
mod shows;
