//! The far ends.

use std::io;
use std::net::{IpAddr, UdpSocket};

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{BLOCK, ECHO, ECHO_UDP, SINK, SOURCE, listen};

pub fn start(at: IpAddr) -> Result<()> {
    tokio::spawn(accept(listen(at, ECHO)?, echo));
    tokio::spawn(accept(listen(at, SOURCE)?, source));
    tokio::spawn(accept(listen(at, SINK)?, sink));
    let socket = UdpSocket::bind((at, ECHO_UDP))?;
    super::much_room(&socket)?;
    std::thread::spawn(move || {
        let mut datagram = vec![0; BLOCK];
        loop {
            if let Ok((length, from)) = socket.recv_from(&mut datagram) {
                socket.send_to(&datagram[..length], from).ok();
            }
        }
    });
    Ok(())
}

async fn accept<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F + Send) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve(stream));
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut block = vec![0; 1024];
    loop {
        match stream.read(&mut block).await? {
            0 => return stream.shutdown().await,
            length => stream.write_all(&block[..length]).await?,
        }
    }
}

async fn source(mut stream: TcpStream) -> io::Result<()> {
    let block = vec![7; BLOCK];
    loop {
        stream.write_all(&block).await?;
    }
}

async fn sink(mut stream: TcpStream) -> io::Result<()> {
    let (mut block, mut count) = (vec![0; BLOCK], 0);
    loop {
        match stream.read(&mut block).await? {
            0 => break,
            length => count += length,
        }
    }
    stream.write_all(format!("{count}\n").as_bytes()).await?;
    stream.shutdown().await
}
