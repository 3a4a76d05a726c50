//! What programs on the workstation see: connections that are open, and new ones.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::row::Row;
use crate::workstation::Workstation;

/// A pause between two echoes.
const PAUSE: Duration = Duration::from_millis(50);
/// A program that is patient: no fault lasts as long.
const PATIENCE: Duration = Duration::from_secs(100);
/// The port that echoes.
const ECHO: u16 = 9001;

/// Connections that echo all the time.
pub struct Flows {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<(Option<ErrorKind>, Duration)>>,
}

/// What came of them.
#[derive(Clone, Debug, Default)]
pub struct Came {
    pub all: usize,
    /// How those that were lost ended.
    pub lost: Vec<ErrorKind>,
    /// The longest wait for an echo of those that were kept.
    pub waited: Duration,
}

impl Flows {
    pub fn open(ws: &Workstation, to: IpAddr, count: usize) -> Flows {
        let over: Arc<AtomicBool> = Arc::default();
        let threads: Vec<_> = (0..count)
            .map(|_| {
                let mut stream = ws.connect_within(SocketAddr::new(to, ECHO), PATIENCE).unwrap();
                let over = Arc::clone(&over);
                thread::spawn(move || {
                    let mut waited = Duration::ZERO;
                    while !over.load(Ordering::Relaxed) {
                        let began = Instant::now();
                        if let Err(error) = echo(&mut stream) {
                            return (Some(error.kind()), waited);
                        }
                        waited = waited.max(began.elapsed());
                        thread::sleep(PAUSE);
                    }
                    (None, waited)
                })
            })
            .collect();
        Flows { over, threads }
    }

    /// Ends them.
    pub fn end(self) -> Came {
        self.over.store(true, Ordering::Relaxed);
        let mut came = Came { all: self.threads.len(), ..Came::default() };
        for thread in self.threads {
            let (lost, waited) = thread.join().unwrap();
            match lost {
                Some(kind) => came.lost.push(kind),
                None => came.waited = came.waited.max(waited),
            }
        }
        came
    }
}

impl Came {
    /// Holds a row to it that none was lost.
    pub fn kept(&self, row: &mut Row) {
        row.figure(format!("the longest wait of an open connection: {:.2?}", self.waited));
        row.holds(self.lost.is_empty(), || format!("open connections were lost: {:?}", self.lost));
        row.flows = self.told();
    }

    /// For the document.
    pub fn told(&self) -> String {
        match self.lost.len() {
            0 => format!("{} of {} kept", self.all, self.all),
            lost => {
                let resets = self.lost.iter().filter(|kind| **kind == ErrorKind::ConnectionReset).count();
                let how = if resets == lost { "reset" } else { "lost" };
                format!("{lost} of {} {how}", self.all)
            }
        }
    }
}

fn echo(stream: &mut TcpStream) -> io::Result<()> {
    const WORD: &[u8] = b"as before";
    stream.write_all(WORD)?;
    let mut back = [0; WORD.len()];
    stream.read_exact(&mut back)?;
    if back == *WORD { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
}

/// A new connection to there, and an echo over it.
pub fn works(ws: &Workstation, to: IpAddr, limit: Duration) -> io::Result<()> {
    echo(&mut ws.connect_within(SocketAddr::new(to, ECHO), limit)?)
}
