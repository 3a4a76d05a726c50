//! A connection, and what is done to it.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::flows::{self, Flows};
use crate::look::{Look, lines};
use crate::row::Row;
use crate::world::{Daemon, World, until};

/// For what is not measured.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// A program tries for so long, then anew.
const TRY: Duration = Duration::from_millis(1500);

pub struct Rig<'a, 'w> {
    pub world: &'a World,
    pub podway: &'a mut Daemon<'w>,
    pub look: Look,
    pub connect: Option<&'static [&'static str]>,
}

/// A fault that lasts until it is ended.
#[derive(Clone, Debug)]
pub struct Lasting {
    ids: Vec<Value>,
    pub since: Instant,
}

impl Rig<'_, '_> {
    /// A rule of faults; see `minicluster/src/faults/rule.rs`.
    pub fn fault(&self, rules: &[Value]) -> Lasting {
        let set = |rule: &Value| self.world.cluster.fault(json!({"do": "set", "rule": rule})).unwrap();
        let since = Instant::now();
        Lasting { ids: rules.iter().map(set).collect(), since }
    }

    /// Ends it; when.
    pub fn end(&self, fault: Lasting) -> Instant {
        for id in fault.ids {
            self.world.cluster.fault(json!({"do": "withdraw", "id": id})).unwrap();
        }
        Instant::now()
    }

    /// Cuts connections to the API server.
    pub fn cut(&self, on: Value, reset: bool) -> u64 {
        self.world.cluster.fault(json!({"do": "cut", "on": on, "reset": reset})).unwrap().as_u64().unwrap()
    }

    /// How many requests of that kind came so far.
    pub fn requests(&self, verb: &str, resource: &str) -> u64 {
        let on = json!({"verb": verb, "resource": resource});
        self.world.cluster.fault(json!({"do": "requests", "on": on})).unwrap().as_u64().unwrap()
    }

    pub fn connections(&self, on: Value) -> u64 {
        self.world.cluster.fault(json!({"do": "connections", "on": on})).unwrap().as_u64().unwrap()
    }

    /// The first address of a name there.
    pub fn address(&self, name: &str) -> IpAddr {
        self.world.ws.lookup(name).unwrap()[0]
    }

    pub fn flows(&self, name: &str) -> Flows {
        Flows::open(&self.world.ws, self.address(name), 4)
    }

    /// Waits until status says that something is not well; how long after `since`.
    pub fn seen(&self, since: Instant, limit: Duration, row: &mut Row) {
        let from = wall();
        let (_, status) = self.look.until("status says so", limit, |status| !status.holds("Ready"));
        row.seen = Some(since.elapsed());
        // Since when it says it is so.
        let ready = status.conditions.iter().find(|condition| condition.r#type == "Ready");
        let at = ready.map_or(0, |ready| ready.last_transition_time);
        row.holds((from - 1..=wall() + 1).contains(&at), || {
            format!("status says that it is so since {at}, not {from}")
        });
    }

    /// Waits until all is well; how long after `since`.
    pub fn well(&self, since: Instant, limit: Duration) -> Duration {
        self.look.fresh("all is well", limit, |status| status.holds("Ready") && lines(status).is_empty());
        since.elapsed()
    }

    /// Waits until a new connection works; how long after `since`.
    pub fn new_connection(&self, to: IpAddr, since: Instant, limit: Duration) -> Duration {
        until("a new connection", limit, || flows::works(&self.world.ws, to, TRY).ok());
        since.elapsed()
    }

    /// Notes what was shown since then.
    pub fn note(&self, since: Instant, row: &mut Row) {
        row.shows = self.look.shown_since(since);
        row.figures.extend(self.look.story_since(since));
    }

    /// Waits until so long after `since`.
    pub fn lasts(&self, since: Instant, time: Duration) {
        thread::sleep(time.saturating_sub(since.elapsed()));
    }

    /// A service of now, with pods of `web`; how long until its name is known.
    pub fn appears(&self, name: &str, since: Instant, limit: Duration) -> Duration {
        self.serve(name);
        self.is_known(name, since, limit)
    }

    pub fn serve(&self, name: &str) {
        let spec = json!({"selector": {"app": "web"}, "ports": [{"port": 80}]});
        let metadata = json!({"namespace": "demo", "name": name});
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec});
        self.world.cluster.apply(service).unwrap();
    }

    pub fn is_known(&self, name: &str, since: Instant, limit: Duration) -> Duration {
        let name = format!("{name}.demo.svc.cluster.local");
        until(&name, limit, || self.world.ws.lookup(&name).ok());
        since.elapsed()
    }

    pub fn is_unknown(&self, name: &str, limit: Duration) {
        let name = format!("{name}.demo.svc.cluster.local");
        until(&format!("{name} is gone"), limit, || self.world.ws.lookup(&name).is_err().then_some(()));
    }

    /// A row whose fault lasts, with four open connections, none of which may be lost.
    pub fn outage(&mut self, row: &mut Row, rules: &[Value], lasts: Duration, seen: Duration, healed: Duration) {
        let to = self.address("web");
        let flows = self.flows("web");
        let fault = self.fault(rules);
        let since = fault.since;
        self.seen(since, PATIENCE.max(lasts), row);
        row.within("seen", row.seen.unwrap(), seen);
        self.lasts(since, lasts);
        let over = self.end(fault);
        let first = self.new_connection(to, over, PATIENCE);
        let well = self.well(over, PATIENCE);
        row.healed = Some(row.within("healed", first.max(well), healed));
        row.figure(format!("a new connection {first:.2?} after its end, Ready after {well:.2?}"));
        self.note(since, row);
        flows.end().kept(row);
    }

    /// Everything as it was, whatever a row left.
    pub fn mend(&mut self) {
        self.world.cluster.fault(json!({"do": "clear"})).unwrap();
        if self.podway.ended().is_some() {
            self.podway.start();
        }
        if let Some(flags) = self.connect
            && !self.is_ready()
        {
            self.world.podway(&["disconnect", "--all"]);
            self.podway.connect(flags);
            self.well(Instant::now(), PATIENCE);
        }
    }

    fn is_ready(&self) -> bool {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(10) {
            if self.look.latest().is_some_and(|status| status.holds("Ready")) {
                return true;
            }
            thread::sleep(Duration::from_millis(50));
        }
        false
    }
}

/// Seconds since 1970.
pub fn wall() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// The memory of a process, in KiB.
pub fn resident(pid: nix::unistd::Pid) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
