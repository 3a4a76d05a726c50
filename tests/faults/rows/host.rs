//! The host of the daemon: its socket, its files, its disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{HEALED, VIA, seconds};
use crate::rig::{PATIENCE, Rig, resident};
use crate::row::{Group, case};
use crate::world::{Launch, SOCKET};

const FLOOD: Duration = Duration::from_secs(5);
const CLIENTS: usize = 16;
/// What each asks before it looks at an answer.
const AHEAD: usize = 48;

pub fn group() -> Group {
    let flood = case(
        format!("{CLIENTS} clients ask for the status without a pause for 5 s"),
        "all are answered, memory + 16 MiB at most, a new connection in 1 s",
        |rig, row| {
            rig.podway.connect(VIA);
            rig.well(Instant::now(), PATIENCE);
            let (to, flows) = (rig.address("web"), rig.flows("web"));
            let pid = rig.podway.pid();
            let before = resident(pid);
            let answers: Arc<AtomicU64> = Arc::default();
            let began = Instant::now();
            let clients: Vec<_> = (0..CLIENTS)
                .map(|_| {
                    let mut control = rig.look.control().unwrap();
                    let answers = Arc::clone(&answers);
                    thread::spawn(move || {
                        let mut id = 0;
                        while began.elapsed() < FLOOD {
                            for _ in 0..AHEAD {
                                id += 1;
                                control.send(&format!("{{\"id\":{id},\"op\":\"status\"}}"))?;
                            }
                            for _ in 0..AHEAD {
                                control.line()?;
                                answers.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        std::io::Result::Ok(())
                    })
                })
                .collect();
            thread::sleep(FLOOD / 2);
            let since = Instant::now();
            let first = rig.new_connection(to, since, PATIENCE);
            row.within("a new connection", first, seconds(1));
            let most = resident(pid);
            for client in clients {
                let came = client.join().unwrap();
                row.holds(came.is_ok(), || format!("a client was cut off: {came:?}"));
            }
            let rate = answers.load(Ordering::Relaxed) / FLOOD.as_secs();
            row.figure(format!(
                "{rate} answers a second, memory {} KiB more, a new connection {first:.2?}",
                most - before
            ));
            row.holds(most - before <= 16 << 10, || format!("memory grew by {} KiB", most - before));
            row.flows = flows.end().told();
            rig.world.podway(&["disconnect", "--all"]);
        },
    )
    .flooding();
    let files = case(
        "it may open 40 files, then as many as ever",
        "a clear error, and status as ever; works after the change",
        |rig, row| {
            again(
                rig,
                Launch {
                    prefix: ["sh", "-c", "ulimit -n 40; exec \"$@\"", "sh"].map(str::to_owned).into(),
                    ..Launch::default()
                },
            );
            let done = rig.world.podway(&["connect", "-n", "demo"]);
            row.shows = done.err.lines().skip_while(|line| !line.starts_with("error:")).map(str::to_owned).collect();
            row.holds(done.status.code() == Some(1), || format!("{done:?}"));
            // As many clients as may come in: they take the rest of the files.
            let clients: Vec<_> = (0..30).map(|_| rig.world.ws.unix(SOCKET)).collect();
            thread::sleep(Duration::from_millis(300));
            drop(clients);
            let since = Instant::now();
            rig.podway.expect(3, &["status", "--check", "ready"]);
            row.within("status after the clients went", since.elapsed(), seconds(2));
            again(rig, Launch::default());
            let over = Instant::now();
            rig.podway.connect(VIA);
            row.healed = Some(row.within("connected", rig.well(over, PATIENCE), HEALED));
            rig.podway.disconnect(&[]);
        },
    );
    let disk = case(
        "the disk of its state is full, then has room",
        "a clear error; works once there is room",
        |rig, row| {
            let shell = |line: &str| {
                let done = rig.world.cluster.run(["sh", "-c", line], PATIENCE).unwrap();
                assert!(done.status.success(), "{line}: {done:?}");
            };
            let full = "/run/podway/state/full";
            shell(&format!(
                "mkdir -p {full} && mount -t tmpfs -o size=16k tmpfs {full} && head -c 16384 /dev/zero >{full}/filler || true"
            ));
            again(rig, Launch { state: format!("{full}/state"), ..Launch::default() });
            let done = rig.world.podway(&["connect", "-n", "demo"]);
            row.shows = done.err.lines().skip_while(|line| !line.starts_with("error:")).map(str::to_owned).collect();
            row.holds(done.status.code() == Some(1), || format!("{done:?}"));
            rig.podway.expect(0, &["status", "--check", "live"]);
            let shell = |line: &str| {
                let done = rig.world.cluster.run(["sh", "-c", line], PATIENCE).unwrap();
                assert!(done.status.success(), "{line}: {done:?}");
            };
            shell(&format!("rm {full}/filler"));
            let over = Instant::now();
            rig.world.podway(&[&["connect", "-n", "demo"], VIA].concat());
            row.healed = Some(row.within("connected", rig.well(over, PATIENCE), HEALED));
            rig.world.podway(&["disconnect", "--all"]);
            shell(&format!("umount -l {full} && rmdir {full}"));
            again(rig, Launch::default());
        },
    );
    Group { title: "The host", connect: None, cases: vec![flood, files, disk] }
}

/// Ends the daemon, and starts it so.
pub fn again(rig: &mut Rig<'_, '_>, launch: Launch) {
    rig.podway.kill();
    rig.podway.launch = launch;
    rig.podway.start();
}
