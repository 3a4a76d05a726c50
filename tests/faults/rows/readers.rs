//! Programs that ask for much and do not read it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{VIA, seconds};
use crate::rig::{PATIENCE, Rig, resident};
use crate::row::{Group, case};
use crate::workstation::Workstation;

const MANY: usize = 100;
/// Of a download that nobody reads, and of all of them, in KiB: docs/adr/0013.
const ONE_AT_MOST: i64 = 8 << 10;
const ALL_AT_MOST: i64 = 64 << 10;
/// Until as much has come as may.
const FILLS: Duration = Duration::from_secs(4);

/// A download of which only the first bytes are read.
fn unread(ws: &Workstation) -> TcpStream {
    let mut stream = ws.reach("edge", 80).unwrap();
    write!(stream, "GET /bytes?n=1000000000 HTTP/1.1\r\nHost: edge\r\n\r\n").unwrap();
    stream.read_exact(&mut [0; 64]).unwrap();
    stream
}

pub fn group() -> Group {
    let stalled = case(
        format!("{MANY} programs download and do not read; then the carriers are cut"),
        "memory + 8 MiB for one and + 64 MiB for all at most; others go on, a new connection in 1 s",
        |rig: &mut Rig<'_, '_>, row| {
            let (to, flows, pid) = (rig.address("web"), rig.flows("web"), rig.podway.pid());
            let before = resident(pid);
            let more = |row: &mut crate::row::Row, what: &str, bar: i64| {
                std::thread::sleep(FILLS);
                let more = resident(pid) - before;
                row.figure(format!("{what}: {more} KiB more"));
                row.holds(more <= bar, || format!("{what}: {more} KiB more than before, not {bar}"));
            };
            let mut streams = vec![unread(&rig.world.ws)];
            more(row, "one", ONE_AT_MOST);
            streams.extend((1..MANY).map(|_| unread(&rig.world.ws)));
            more(row, "all", ALL_AT_MOST);
            let since = Instant::now();
            let first = rig.new_connection(to, since, PATIENCE);
            row.within("a new connection beside them", first, seconds(1));
            rig.cut(json!({"resource": "pods/portforward"}), true);
            more(row, "all, after a cut", ALL_AT_MOST);
            drop(streams);
            rig.well(Instant::now(), PATIENCE);
            flows.end().kept(row);
        },
    );
    Group { title: "Readers", connect: Some(VIA), cases: vec![stalled] }
}
