//! What programs see through podway is what they see without it.
//!
//! Random programs of socket calls, real sockets at both ends, are carried out directly and through the data plane, a
//! carrier and an agent. What either side then sees has to be among what it saw directly. Directly means over loopback and over
//! a wire that takes time, with the program's buffers and with larger ones: a network may be slow, and may hold more.
//!
//! `PODWAY_SEED=N` begins with that program, `PODWAY_PROGRAMS=N` says how many.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use podway::net::agent::AgentLink;
use podway::net::agent::native::{Beside, NativeLink};
use podway::net::views::{ClientTable, LinkEntry};
use podway_agent::server::{Agent, FlowLimits};
use podway_tunnel::client::{Carrier, Config, Line};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::UDP_IDLE;
use super::real::{MTU, World, in_namespace_for, ip, world_with};
use program::Program;
pub(crate) use program::Random;
use sides::{Hiccup, Seen, Way, Went};

mod datagrams;
mod echoes;
mod paths;
mod program;
#[path = "../../agent/tests/support/serving.rs"]
mod serving;
mod sides;
mod windows;
mod wire;

/// Programs, unless `PODWAY_PROGRAMS` says otherwise.
const PROGRAMS: u64 = 2000;
/// Programs under way at once.
const AT_ONCE: usize = 16;
/// Direct runs before the judgement, and those made before a fault is called one.
const DIRECT: usize = 6;
const MORE: usize = 240;
/// Bytes that a program which has read nothing yet is sent in any case.
const FIRST_WINDOW: usize = 65_535;
/// How often something has to be seen to say how many bytes belong to it.
const SELDOM: usize = 3;

/// A number that the environment gives.
pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The ways of direct runs, in turn.
fn direct(v6: bool, run: usize) -> Way {
    let lo: IpAddr = if v6 { "::1" } else { "127.0.0.1" }.parse().unwrap();
    let here: IpAddr = wire::HERE[usize::from(v6)].parse().unwrap();
    let roomy = [run % 2 == 1, run / 2 % 2 == 1];
    match run {
        0..4 => Way { dials: lo, listens: lo, roomy },
        _ => Way { dials: wire::there(v6, run % wire::DELAYS.len()), listens: here, roomy },
    }
}

/// Of so many programs one may show what hundreds of direct runs did not: whether a reset comes between two of some hundred
/// writes is decided by who runs when. A fault of podway's shows in one of ten.
const RARE: u64 = 1000;

/// The way through podway: the device's route, the agent's loopback.
fn through(v6: bool) -> Way {
    let (dials, listens) = if v6 { ("fd99::100", "::1") } else { ("246.246.1.0", "127.0.0.1") };
    Way { dials: dials.parse().unwrap(), listens: listens.parse().unwrap(), roomy: [false; 2] }
}

/// What direct runs showed one side.
#[derive(Debug, Default)]
struct Shown(BTreeMap<Vec<Went>, Counts>);

/// How often its calls went so, and the fewest and the most bytes that it had read by each.
#[derive(Debug)]
struct Counts {
    times: usize,
    read: Vec<(usize, usize)>,
}

impl Shown {
    fn add(&mut self, seen: &Seen) {
        let new = || Counts { times: 0, read: seen.read().map(|read| (read, read)).collect() };
        let counts = self.0.entry(seen.went()).or_insert_with(new);
        counts.times += 1;
        for ((least, most), read) in counts.read.iter_mut().zip(seen.read()) {
            (*least, *most) = ((*least).min(read), (*most).max(read));
        }
    }

    /// Where the network loses some of what a reset ends, now more, now less, so may podway, and what is beyond the window of
    /// who does not read. More than was ever seen is no fault: each byte is looked at. In the `end`, what was seen too seldom says nothing of the bytes.
    fn has(&self, seen: &Seen, end: bool) -> bool {
        let Some(counts) = self.0.get(&seen.went()) else { return false };
        let reset = seen.0.iter().any(|(went, _)| matches!(went, Went::Failed(_)));
        let enough = |((least, most), read): (&(usize, usize), usize)| {
            read >= *least || least < most || (reset && read >= FIRST_WINDOW)
        };
        counts.read.iter().zip(seen.read()).all(enough) || (end && counts.times < SELDOM)
    }
}

/// Carries a program out both ways; says what podway made of it where it is not what the network does.
async fn judge(program: &Arc<Program>) -> Result<(), String> {
    let podway = sides::run(program, through(program.v6), [None, None]).await;
    let mut random = Random::new(program.seed);
    let mut shown = [Shown::default(), Shown::default()];
    let known = |shown: &[Shown; 2], end| shown.iter().zip(&podway).map(|(shown, seen)| shown.has(seen, end)).collect();
    let mut run = 0;
    while run < DIRECT || (run < DIRECT + MORE && known(&shown, false) != vec![true, true]) {
        let mut running = JoinSet::new();
        for run in run..run + DIRECT {
            let way = direct(program.v6, run);
            let hiccups = [&program.client, &program.server].map(|script| {
                let call = random.below(script.calls.len() + 1);
                let piece = if random.once_in(2) { 0 } else { random.below(1000) };
                let pause = Duration::from_millis(1 + random.next() % [25, 120, 600][run % 3]);
                (run >= DIRECT && random.once_in(2)).then_some(Hiccup { call, piece, pause })
            });
            let program = Arc::clone(program);
            running.spawn(async move { sides::run(&program, way, hiccups).await });
        }
        run += DIRECT;
        while let Some(direct) = running.join_next().await {
            for (shown, seen) in shown.iter_mut().zip(&direct.unwrap()) {
                if seen.0.iter().any(|(went, _)| matches!(went, Went::Wrong | Went::Stalled)) {
                    return Err(format!("{program:?}\n  the network itself showed {seen:?}"));
                }
                shown.add(seen);
            }
        }
    }
    let known: Vec<bool> = known(&shown, true);
    for (side, name) in ["client", "server"].into_iter().enumerate() {
        if !known[side] {
            return Err(format!("{program:?}\n  the {name} saw {:?}\n  directly {:?}", podway[side].0, shown[side].0));
        }
    }
    Ok(())
}

/// A link to a real agent over a real connection.
async fn link() -> Arc<dyn AgentLink> {
    let (pair, serve) = serving::serving();
    let agent = Agent::bind(serve, FlowLimits::default()).await.unwrap();
    let stream = TcpStream::connect(agent.address()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    tokio::spawn(agent.run(std::future::pending()));
    let config = Config {
        pair,
        session_id: [7; 16],
        pod_uid: "pod-1".into(),
        special: vec!["127.0.0.0/8".to_owned(), "::1/128".to_owned()],
        budget: podway_tunnel::client::budget(),
        line: Some(Line::default()),
        bulk: None,
    };
    Arc::new(NativeLink::new(Carrier::connect(stream, &config).await.unwrap(), Beside::default()))
}

/// podway with a device, an agent and what is between them, in this network namespace.
async fn podway(mtu: usize, udp_idle: Duration) -> World {
    ip("link set lo up");
    let entry = LinkEntry {
        pod: serde_json::from_value(serde_json::json!("uid-0")).unwrap(),
        pod_name: "ns/pod-0".into(),
        link: link().await,
    };
    let table = ClientTable { general: vec![entry], ..Default::default() };
    world_with(Arc::new(table), mtu, udp_idle)
}

#[test]
fn programs_see_what_they_see_without_podway() {
    let first = number("PODWAY_SEED");
    let count = number("PODWAY_PROGRAMS").unwrap_or(PROGRAMS);
    let began = Instant::now();
    let first = first.unwrap_or_else(|| u64::from(std::process::id()) << 32);
    println!("PODWAY_SEED={first} PODWAY_PROGRAMS={count}");
    in_namespace_for(Duration::from_secs(120 + count / 5), move || async move {
        // Thousands of connections within a minute, each with ports of its own.
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "2000 65000").unwrap();
        let world = podway(MTU, UDP_IDLE).await;
        wire::start(MTU);
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut running = JoinSet::new();
        let longest = Arc::new(AtomicUsize::new(0));
        let mut faults = Vec::new();
        for seed in first..first + count {
            let place = Arc::clone(&places).acquire_owned().await.unwrap();
            let longest = Arc::clone(&longest);
            running.spawn(async move {
                let began = Instant::now();
                let judged = judge(&Arc::new(Program::new(seed))).await;
                longest.fetch_max(began.elapsed().as_millis().try_into().unwrap(), Ordering::Relaxed);
                drop(place);
                judged
            });
            while let Some(judged) = running.try_join_next() {
                faults.extend(judged.unwrap().err());
            }
        }
        while let Some(judged) = running.join_next().await {
            faults.extend(judged.unwrap().err());
        }
        let counters = world.handle.counters();
        println!("{count} programs in {:?}, the longest {longest:?} ms; {counters:?}", began.elapsed());
        let told = format!("{} of {count} programs:\n{}", faults.len(), faults.join("\n"));
        println!("{told}");
        assert!(u64::try_from(faults.len()).unwrap() <= count / RARE, "{told}");
    });
}
