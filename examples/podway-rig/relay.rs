//! The baseline: a plain TCP relay.

use std::io;
use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};

use super::{BLOCK, ECHO, SINK, SOURCE, listen};

pub fn start(at: IpAddr, to: IpAddr) -> Result<()> {
    for port in [ECHO, SOURCE, SINK] {
        tokio::spawn(accept(listen(at, port)?, (to, port).into()));
    }
    Ok(())
}

async fn accept(listener: TcpListener, to: SocketAddr) -> io::Result<()> {
    loop {
        let (near, _) = listener.accept().await?;
        tokio::spawn(copy(near, to));
    }
}

async fn copy(mut near: TcpStream, to: SocketAddr) -> io::Result<()> {
    let mut far = TcpStream::connect(to).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    tokio::io::copy_bidirectional_with_sizes(&mut near, &mut far, BLOCK, BLOCK).await.map(drop)
}
