//! The same again and again: what stays behind, and what grows.

use std::fs;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use super::VIA;
use super::host::again;
use crate::rig::{Rig, resident};
use crate::row::{Group, Row, case};
use crate::world::Launch;

const CYCLES: usize = 300;
/// Until caches and pools have their size.
const WARM: usize = 60;
const KILLS: usize = 20;
/// What memory may grow by in a cycle, in KiB.
const SLOPE: f64 = 4.0;

/// Files and threads of a process.
fn held(pid: Pid) -> (usize, usize) {
    let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
    (count("fd"), count("task"))
}

/// By how much a line through these rises with each (least squares), and the standard error of that.
fn slope(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let (middle, mean) = ((count - 1.0) / 2.0, values.iter().sum::<f64>() / count);
    let points = || values.iter().enumerate().map(|(at, value)| (at as f64 - middle, value - mean));
    let square: f64 = points().map(|(at, _)| at.powi(2)).sum();
    let rises = points().map(|(at, off)| at * off).sum::<f64>() / square;
    let rest: f64 = points().map(|(at, off)| (off - rises * at).powi(2)).sum();
    (rises, (rest / (count - 2.0) / square).sqrt())
}

fn work(rig: &Rig<'_, '_>, row: &mut Row) {
    row.holds(rig.world.ws.who("edge").is_ok(), || "no connection works".to_owned());
}

pub fn group() -> Group {
    let cycles = case(
        format!("{CYCLES} times connected and disconnected"),
        "files, threads, and the host as at the start; memory + 4 KiB a cycle at most after 60",
        |rig, row| {
            // The latest 512 KiB of the log are kept in memory, and would grow through most of this.
            again(rig, Launch { log: "warn,podway::daemon=info".to_owned(), ..Launch::default() });
            let pid = rig.podway.pid();
            let (mut memory, began) = (Vec::new(), Instant::now());
            let mut start = (0, 0);
            for cycle in 0..CYCLES {
                rig.podway.connect(VIA);
                work(rig, row);
                // Fails when the host is not as before.
                rig.podway.disconnect(&[]);
                if cycle == 1 {
                    start = settled(pid, None);
                }
                memory.push(resident(pid) as f64);
            }
            let end = settled(pid, Some(start));
            row.holds(end == start, || format!("files and threads: {start:?}, then {end:?}"));
            // Through all of them: one value is some hundred KiB off by what the heap holds at that moment.
            let (rises, error) = slope(&memory[WARM..]);
            let told: Vec<String> = memory.iter().step_by(20).map(|kib| format!("{kib:.0}")).collect();
            row.figure(format!(
                "{CYCLES} cycles in {:.0?}; memory in KiB, each 20th: {}",
                began.elapsed(),
                told.join(" ")
            ));
            let (first, _) = slope(&memory[..WARM]);
            row.figure(format!("{rises:.1} ± {error:.1} KiB a cycle after the first {WARM}, {first:.1} in those"));
            row.figure(format!("files and threads: {start:?}, then {end:?}"));
            row.holds(error <= 1.0, || format!("memory is not told to better than {error:.1} KiB a cycle"));
            row.holds(rises - 2.0 * error <= SLOPE, || format!("memory grows by {rises:.1} KiB a cycle"));
        },
    );
    let kills = case(
        format!("killed {KILLS} times at any time (SIGKILL), and started again"),
        "the host as at the start",
        |rig, row| {
            let began = Instant::now();
            let mut after = Vec::new();
            for kill in 0..KILLS {
                // From before the first step to long after the last.
                let when = Duration::from_millis(37 * u64::try_from(kill * 7 % KILLS).unwrap());
                let world = rig.world;
                std::thread::scope(|scope| {
                    let connecting = scope.spawn(|| world.podway(&[&["connect", "-n", "demo"], VIA].concat()));
                    std::thread::sleep(when);
                    rig.podway.kill();
                    connecting.join().unwrap();
                });
                after.push(when);
                rig.podway.start();
                world.assert_as_before();
            }
            rig.podway.connect(VIA);
            work(rig, row);
            rig.podway.disconnect(&[]);
            row.figure(format!(
                "{KILLS} kills in {:.0?}, up to {:.0?} after the connect began",
                began.elapsed(),
                after.iter().max().unwrap()
            ));
        },
    );
    Group { title: "Again and again", connect: None, cases: vec![cycles, kills] }
}

/// Files and threads once nothing of a connection is left, or as they are after a while.
fn settled(pid: Pid, wanted: Option<(usize, usize)>) -> (usize, usize) {
    let began = Instant::now();
    loop {
        let now = held(pid);
        if wanted == Some(now) || began.elapsed() > Duration::from_secs(12) {
            return now;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
