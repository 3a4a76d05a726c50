//! What stands around the data plane when it is measured without a carrier: `benches/tun` starts each part in a network
//! namespace of its own.
//!
//! ```text
//! podway-rig serve ADDR        echo on 9001, source on 9002, sink on 9003, echo over UDP on 9004
//! podway-rig relay ADDR TO     copies connections to ADDR's ports to those of TO
//! podway-rig plane NAME TO UDP the data plane on a new TUN device, whose flows are plain sockets to TO's ports; UDP's to
//!                              those of UDP, as a relay carries none
//! ```
//!
//! Each says `ready`, and ends when its standard input does. The relay is the baseline: two of them joined by sockets,
//! against `plane` joined to one.

#![expect(clippy::print_stdout, reason = "it says when it is ready, and what was counted")]

mod plane;
mod relay;
mod serve;
mod socket_link;

use std::net::IpAddr;

use anyhow::{Result, bail};

/// TCP echo.
const ECHO: u16 = 9001;
/// TCP that sends until it is closed.
const SOURCE: u16 = 9002;
/// TCP that counts, and says how much it was at half-close.
const SINK: u16 = 9003;
/// UDP echo.
const ECHO_UDP: u16 = 9004;
/// Bytes that are moved at a time.
const BLOCK: usize = 64 * 1024;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// Bytes that bulk flows have in front of the program, as in the daemon.
const KEPT_FREE: i32 = 8 << 20;

fn main() -> Result<()> {
    podway_tunnel::heap::keep_freed(KEPT_FREE);
    let args: Vec<String> = std::env::args().skip(1).collect();
    // As many threads as the daemon's, for the baseline too.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(podway::daemon::workers()).enable_all().build()?;
    runtime.block_on(run(&args.iter().map(String::as_str).collect::<Vec<_>>()))?;
    // Connections that are still open end with the process.
    std::process::exit(0);
}

async fn run(args: &[&str]) -> Result<()> {
    match args {
        ["serve", at] => serve::start(at.parse()?)?,
        ["relay", at, to] => relay::start(at.parse()?, to.parse()?)?,
        ["plane", name, to, datagrams_to] => return plane::run(name, to.parse()?, datagrams_to.parse()?).await,
        _ => bail!("usage: the first lines of examples/podway-rig/main.rs"),
    }
    println!("ready");
    until_told().await
}

/// Until whoever started this is done with it, or gone.
async fn until_told() -> Result<()> {
    let told = || std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
    tokio::task::spawn_blocking(told).await??;
    Ok(())
}

/// Lets many datagrams wait at a socket; who may, has more than the host's limit.
fn much_room(socket: &impl std::os::fd::AsFd) -> std::io::Result<()> {
    use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
    const ROOM: usize = 8 << 20;
    set_socket_recv_buffer_size_force(socket, ROOM).or_else(|_| set_socket_recv_buffer_size(socket, ROOM))?;
    Ok(())
}

fn listen(at: IpAddr, port: u16) -> Result<tokio::net::TcpListener> {
    let socket = if at.is_ipv4() { tokio::net::TcpSocket::new_v4()? } else { tokio::net::TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind((at, port).into())?;
    Ok(socket.listen(BACKLOG.unsigned_abs())?)
}
