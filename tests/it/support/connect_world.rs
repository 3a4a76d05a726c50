//! A whole connection: the real cores with the edges that `session::wiring` gives the actors, and a model of everything
//! outside.
//!
//! Session, ClientList, AgentPlacer, ProxyVia and Vif are always real. PodWatcher, Dns and Daemon are where a scenario
//! asks for them, else simple models that tell the same facts.
//!
//! All orders of all edges at once are too many to walk, so a scenario says which edges and which outside results may
//! wait ([`ConnectWorld::slow`]); everything else is delivered as soon as it is sent. What people, the cluster and the
//! host do comes from senders ([`ConnectWorld::says`]), whose messages come in every order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use podway::actors::agent_placer::core::{AgentPlacerCore, Plan};
use podway::actors::client_list::core::ClientListCore;
use podway::actors::daemon::core::DaemonCore;
use podway::actors::dns::core::DnsCore;
use podway::actors::pod_watcher::core::PodWatcherCore;
use podway::actors::proxy_via::core::{self as via, ProxyViaConfig, ProxyViaCore};
use podway::actors::proxy_via::messages::AllocateError;
use podway::actors::session::core::{self as session, SessionCore};
use podway::actors::shell::Core;
use podway::actors::vif::core::{self as vif, VifCore};
use podway::cluster::{ClusterInfo, PodFact, PodSnapshot};
use podway::ids::{Attempt, Generation, Millis, ReplyId, WaiterId};
use podway::net::cidr::Cidr;
use podway::net::route_plan::{HostFacts, RoutePlan};
use podway::net::views::Target;
use podway::spec::{AgentMode, ConnectSpec};
use podway::workload::PodUid;

use super::explore::{Held, World};
use super::facts::{FINGERPRINT, KEY, workload};
use super::mutants::Mutant;
use super::session_world::spec;
use super::story::{say, short};

#[path = "connect_world/children.rs"]
mod children;
#[path = "connect_world/cluster.rs"]
mod cluster;
#[path = "connect_world/daemon.rs"]
mod daemon;
#[path = "connect_world/events.rs"]
mod events;
#[path = "connect_world/names.rs"]
mod names;
#[path = "connect_world/opened.rs"]
mod opened;
#[path = "connect_world/outside.rs"]
mod outside;
#[path = "connect_world/parts.rs"]
mod parts;
#[path = "connect_world/properties.rs"]
mod properties;
#[path = "connect_world/watching.rs"]
mod watching;

use Part::{AgentPlacer, ClientList, Daemon, Dns, Host, PodWatcher, ProxyVia, Session, Vif};
use cluster::ClusterModel;
use parts::Letter;
pub use parts::{Dimension, Event, Expected, Outside, Part, Step, Waits};

/// See the module.
#[derive(Clone, Debug)]
pub struct ConnectWorld {
    setup: Held<Setup>,
    session: Held<SessionCore>,
    clients: Held<ClientListCore>,
    placer: Held<AgentPlacerCore>,
    via: Held<ProxyViaCore>,
    vif: Held<VifCore>,
    watcher: Option<Held<PodWatcherCore>>,
    /// PodWatcher's times are its own: it tells nobody of them.
    watcher_now: Millis,
    dns: Option<Held<DnsCore>>,
    daemon: Option<Held<DaemonCore>>,
    now: Millis,
    queues: BTreeMap<(Part, Part), VecDeque<Held<Letter>>>,
    /// The last two messages on each edge on which one may come again.
    last: BTreeMap<(Part, Part), VecDeque<Held<Letter>>>,
    outside: BTreeSet<Outside>,
    alive: BTreeSet<Part>,
    senders: BTreeMap<&'static str, VecDeque<Said>>,
    cluster: Held<ClusterModel>,
    /// Edges and results that may wait.
    slow: Held<(BTreeSet<(Part, Part)>, BTreeSet<Waits>)>,
    /// Results that never come.
    never: BTreeSet<Waits>,
    script: Held<Script>,
    expected: Expected,
    /// How many dials may fail, placements fail, changes of routes fail.
    pub failing_dials: u32,
    pub failing_placements: u32,
    pub failing_routes: u32,
    /// How many attachments of the host's resolver, and lists, may fail.
    pub failing_names: u32,
    pub failing_lists: u32,
    /// How often time may pass although something else could happen.
    pub early_deadlines: u32,
    /// Whether Dns asks, and whether somebody disconnects.
    pub questions: u32,
    pub disconnects: u32,
    /// Whether somebody disconnects at last.
    ends: bool,
    mutant: Option<Mutant>,
    unresolved: bool,
    hurried: bool,
    question: Option<Result<BTreeMap<IpAddr, IpAddr>, AllocateError>>,
    names: (bool, bool, u64),
    pods: (Generation, Held<PodSnapshot>),
    appearing: VecDeque<Held<PodFact>>,
    seen: Seen,
}

/// What a sender will do. What is left of a sender's events is told by their number: they keep their order.
#[derive(Clone)]
struct Said {
    words: Rc<str>,
    event: Rc<Event>,
}

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("-")
    }
}

/// What each run of the children begins with.
#[derive(Clone, Debug)]
struct Setup {
    spec: ConnectSpec,
    plan: Plan,
    config: ProxyViaConfig,
}

/// What the model outside begins with.
#[derive(Clone, Debug)]
pub struct Script {
    /// Containers whose agent says that it will not do.
    pub unfit: BTreeSet<String>,
    pub own_pod_is_stuck: bool,
    /// The workloads of the rules, and for how many pods they ask.
    pub workloads: BTreeMap<&'static str, u32>,
    pub cluster: Vec<ClusterInfo>,
    pub host: Vec<HostFacts>,
    /// Whether the API server knows its ranges from the start (with a real PodWatcher).
    pub ranges_known: bool,
}

/// What was seen so far, as far as the properties need it.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// Which container each dial goes to.
    dialled: BTreeMap<(PodUid, Attempt), Arc<str>>,
    links: BTreeSet<(PodUid, Attempt)>,
    placed_in: BTreeSet<PodUid>,
    registered: BTreeSet<WaiterId>,
    settled: BTreeMap<WaiterId, u32>,
    vips: BTreeSet<IpAddr>,
    /// Whom each virtual address of this run has ever stood for.
    owners: BTreeMap<IpAddr, (IpAddr, Target)>,
    /// Virtual addresses that flows use.
    flows: BTreeSet<IpAddr>,
    plans: BTreeMap<Generation, Held<RoutePlan>>,
    applying: Option<Held<vif::Change>>,
    on_device: BTreeSet<Cidr>,
    device: bool,
    /// Whether the host's resolver asks us.
    attached: bool,
    stopping: BTreeSet<Part>,
    asked: BTreeSet<ReplyId>,
    answered: Vec<ReplyId>,
    /// Requests to Daemon, and those that were answered.
    requests: BTreeSet<ReplyId>,
    served: Vec<ReplyId>,
    queries: BTreeSet<ReplyId>,
    /// Virtual addresses that programs were given.
    given: BTreeSet<IpAddr>,
    /// For mutants: how many snapshots came to ClientList, and whether ProxyVia has rules.
    came: Generation,
    selected: bool,
    /// Of Dns to Session.
    reports: Generation,
    replied: Vec<ReplyId>,
    ended: u32,
    started: u32,
    fault: Option<String>,
}

const STOP_PLACER: ReplyId = ReplyId(0);
const STOP_FLOWS: ReplyId = ReplyId(1);
const HANG_UP: ReplyId = ReplyId(2);
const CLOSE: ReplyId = ReplyId(3);
const RESTORE: ReplyId = ReplyId(4);

/// The real address that Dns asks about.
pub const SERVICE_IP: [u8; 4] = [10, 43, 0, 10];

fn cidr(text: &str) -> Cidr {
    text.parse().expect("a range")
}

/// What PodWatcher knows of a small cluster, all of it or only of pods.
pub fn ranges(complete: bool) -> ClusterInfo {
    ClusterInfo {
        service_cidrs: complete.then(|| cidr("10.43.0.0/16")).into_iter().collect(),
        pod_cidrs: BTreeSet::from([cidr("10.42.0.0/16")]),
        complete,
        ..ClusterInfo::default()
    }
}

/// A host on a small network.
pub fn host() -> HostFacts {
    HostFacts { addresses: BTreeSet::from([cidr("192.168.1.5/24")]), ..HostFacts::default() }
}

/// Setting a scenario up.
impl ConnectWorld {
    /// `connect -n demo --proxy-via all=web` in a cluster that holds `pods` from the start.
    pub fn new(pods: impl IntoIterator<Item = PodFact>) -> Self {
        ConnectWorld::via_rule("all=web", pods)
    }

    /// The same with this rule.
    pub fn via_rule(rule: &str, pods: impl IntoIterator<Item = PodFact>) -> Self {
        ConnectWorld::via_rules(&[rule], pods)
    }

    /// The same with these rules.
    pub fn via_rules(rules: &[&str], pods: impl IntoIterator<Item = PodFact>) -> Self {
        let mut spec = spec(&[]);
        spec.proxy_via = rules.iter().map(|rule| rule.parse().expect("a rule")).collect();
        let plan = Plan {
            key: KEY.into(),
            fingerprint: FINGERPRINT.into(),
            first_port: 20_001,
            namespace: "demo".into(),
            mode: AgentMode::Auto,
        };
        let config = ProxyViaConfig { virtual_v4: cidr("246.246.0.0/16"), virtual_v6: cidr("fd00:0:0:246::/64") };
        let pods = pods.into_iter().map(|pod| (pod.uid.clone(), Arc::new(pod))).collect();
        ConnectWorld {
            session: Held::new(SessionCore::new(spec.clone(), None)),
            clients: Held::new(ClientListCore::new(KEY, FINGERPRINT)),
            placer: Held::new(AgentPlacerCore::new(plan.clone())),
            via: Held::new(ProxyViaCore::new(config.clone())),
            vif: Held::new(VifCore::new()),
            setup: Held::new(Setup { spec, plan, config }),
            watcher: None,
            watcher_now: Millis(0),
            dns: None,
            daemon: None,
            now: Millis(0),
            queues: BTreeMap::new(),
            last: BTreeMap::new(),
            outside: BTreeSet::new(),
            alive: BTreeSet::new(),
            senders: BTreeMap::new(),
            cluster: Held::new(ClusterModel::default()),
            slow: Held::new(Default::default()),
            never: BTreeSet::new(),
            script: Held::new(Script {
                unfit: BTreeSet::new(),
                own_pod_is_stuck: false,
                workloads: BTreeMap::from([("web", 1)]),
                cluster: vec![ranges(true)],
                host: vec![host()],
                ranges_known: true,
            }),
            expected: Expected::Ready,
            failing_dials: 0,
            failing_placements: 0,
            failing_routes: 0,
            failing_names: 0,
            failing_lists: 0,
            early_deadlines: 0,
            questions: 0,
            disconnects: 0,
            ends: false,
            mutant: None,
            unresolved: false,
            hurried: false,
            question: None,
            names: (false, false, 0),
            pods: (Generation(1), Held::new(PodSnapshot { pods, namespaces: None })),
            appearing: VecDeque::new(),
            seen: Seen::default(),
        }
    }

    /// With the real PodWatcher.
    pub fn watching(mut self) -> Self {
        self.watcher = Some(Held::new(PodWatcherCore::new()));
        self
    }

    /// With the real Dns.
    pub fn naming(mut self) -> Self {
        self.dns = Some(Held::new(DnsCore::default()));
        self
    }

    /// With the real Daemon, whose users connect ([`Event::Connect`]).
    pub fn serving(mut self) -> Self {
        self.daemon = Some(Held::new(DaemonCore::new()));
        self.alive.insert(Daemon);
        self
    }

    /// `sender` does these, in this order, at any moment. At last the user disconnects.
    pub fn says(mut self, sender: &'static str, events: impl IntoIterator<Item = Event>) -> Self {
        let events: Vec<Event> = events.into_iter().collect();
        let repeated = events.iter().filter_map(|event| match event {
            Event::Again(from, to) => Some((*from, *to)),
            _ => None,
        });
        self = self.repeats(&Vec::from_iter(repeated));
        let said = events.into_iter().map(|event| Said { words: short(&event).into(), event: Rc::new(event) });
        self.senders.entry(sender).or_default().extend(said);
        self.ends = true;
        self
    }

    /// Messages on these edges may come again ([`Event::Again`]).
    pub fn repeats(mut self, edges: &[(Part, Part)]) -> Self {
        self.last.extend(edges.iter().map(|edge| (*edge, VecDeque::new())));
        self
    }

    /// This happens now.
    pub fn event(&mut self, event: Event) {
        self.ends = true;
        self.happens(event);
        self.be_prompt();
    }

    /// These edges and outside results may wait for anything else; the rest is prompt.
    pub fn slow(mut self, edges: &[(Part, Part)], outside: &[Waits]) -> Self {
        self.slow = Held::new((edges.iter().copied().collect(), outside.iter().copied().collect()));
        self
    }

    /// These outside results never come.
    pub fn never(mut self, outside: &[Waits]) -> Self {
        self.never = outside.iter().copied().collect();
        self
    }

    /// Everything may wait.
    pub fn all_slow(self) -> Self {
        let parts = [Session, ClientList, AgentPlacer, ProxyVia, Vif, PodWatcher, Dns, Daemon, Host, Part::Cluster];
        let edges: Vec<(Part, Part)> = parts.iter().flat_map(|from| parts.iter().map(|to| (*from, *to))).collect();
        let start = [Waits::Start, Waits::Watch, Waits::Gather, Waits::Dial, Waits::Place];
        let host = [Waits::Device, Waits::Routes, Waits::Names, Waits::Undo, Waits::Teardown];
        let waits = [start, host].concat();
        self.slow(&edges, &waits)
    }

    /// Changes what the model outside begins with.
    pub fn with(mut self, change: impl FnOnce(&mut Script)) -> Self {
        self.script.change(change);
        self
    }

    /// This pod appears, or changes, at any moment.
    pub fn pod_appears(mut self, pod: PodFact) -> Self {
        self.appearing.push_back(Held::new(pod));
        self
    }

    /// What must come of it.
    pub fn expects(mut self, expected: Expected) -> Self {
        self.expected = expected;
        self
    }

    /// With a fault in one core.
    pub fn with_mutant(mut self, mutant: Mutant) -> Self {
        self.mutant = Some(mutant);
        self
    }

    /// Begins.
    pub fn begun(mut self) -> Self {
        self.fill_cluster();
        if self.daemon.is_none() {
            self.seen.started = 1;
            self.session(session::Input::Begin);
        }
        self.be_prompt();
        self
    }
}

/// How messages go.
impl ConnectWorld {
    fn send(&mut self, from: Part, to: Part, letter: Letter) {
        // A message to an actor that is gone vanishes.
        if to == Session || self.alive.contains(&to) {
            let letter = Held::new(letter);
            if let Some(last) = self.last.get_mut(&(from, to)) {
                if last.len() == 2 {
                    last.pop_front();
                }
                last.push_back(letter.clone());
            }
            self.queues.entry((from, to)).or_default().push_back(letter);
        }
    }

    fn deliver(&mut self, from: Part, to: Part) {
        let queue = self.queues.get_mut(&(from, to));
        let letter = queue.and_then(VecDeque::pop_front).expect("steps() named a queue with something in it");
        self.queues.retain(|_, queue| !queue.is_empty());
        say(|| format!("{from:?} tells {to:?}: {}", letter.words()));
        self.receive(to, (*letter).clone());
    }

    fn receive(&mut self, to: Part, letter: Letter) {
        match letter {
            Letter::Session(input) => self.session(input),
            Letter::Clients(input) => self.clients(input),
            Letter::Placer(input) => self.placer(input),
            Letter::Via(input) => self.via(input),
            Letter::Vif(input) => self.vif(input),
            Letter::Watcher(input) => self.watcher(input),
            Letter::Dns(input) => self.dns(input),
            Letter::Daemon(input) => self.daemon(input),
            Letter::Stop => self.stopped(to),
        }
    }

    /// Delivers what may not wait.
    fn be_prompt(&mut self) {
        for _ in 0..PROMPT_AT_MOST {
            let (edges, waits) = &*self.slow;
            if let Some((from, to)) = self.queues.keys().find(|edge| !edges.contains(edge)).copied() {
                self.deliver(from, to);
            } else if let Some(outside) = self.outside.iter().find(|outside| !waits.contains(&outside.kind())).cloned()
            {
                self.ends(&outside, true);
            } else {
                return;
            }
        }
        self.fault("facts_die_out", "they go on and on");
    }

    fn under_way(&mut self, outside: Outside) {
        if !self.never.contains(&outside.kind()) {
            self.outside.insert(outside);
        }
    }
}

/// No event of these scenarios causes this many messages; one that does goes on for ever.
const PROMPT_AT_MOST: usize = 500;

fn driven<C: Core + Clone + fmt::Debug>(core: &mut Held<C>, now: Millis, input: C::Input) -> Vec<C::Effect> {
    core.change(|core| {
        core.handle(now, input);
        std::iter::from_fn(|| core.poll_effect()).collect()
    })
}

impl World for ConnectWorld {
    type Step = Step;

    fn steps(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = self.queues.keys().map(|(from, to)| Step::Deliver(*from, *to)).collect();
        for outside in &self.outside {
            steps.push(Step::Ends(outside.clone()));
            let fails = match outside {
                Outside::Dial(..) => self.failing_dials,
                Outside::Place(..) => self.failing_placements,
                Outside::Apply(_) => self.failing_routes,
                Outside::Attach(_) => self.failing_names,
                Outside::List(..) => self.failing_lists,
                _ => 0,
            };
            if fails > 0 {
                steps.push(Step::Fails(outside.clone()));
            }
        }
        let said = self.senders.iter().filter_map(|(sender, events)| Some((*sender, events.front()?)));
        steps.extend(said.map(|(sender, event)| Step::Says(sender, Rc::clone(&event.words))));
        if !self.appearing.is_empty() && self.alive.contains(&PodWatcher) {
            steps.push(Step::PodAppears);
        }
        if self.questions > 0 && self.alive.contains(&Dns) && self.alive.contains(&ProxyVia) {
            steps.push(Step::DnsAsks);
        }
        if self.disconnects > 0 {
            steps.push(Step::UserDisconnects);
        }
        if steps.is_empty() || self.early_deadlines > 0 {
            steps.extend(self.sleepers().1.into_iter().map(Step::TimePassesFor));
        }
        steps
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Deliver(from, to) => self.deliver(*from, *to),
            Step::Ends(outside) => self.ends(outside, true),
            Step::Fails(outside) => self.ends(outside, false),
            Step::Says(sender, _) => {
                let said = self.senders.get_mut(sender).and_then(VecDeque::pop_front);
                self.senders.retain(|_, events| !events.is_empty());
                self.happens((*said.expect("steps() named a sender with something to say").event).clone());
            }
            Step::PodAppears => {
                let pod = self.appearing.pop_front().expect("steps() said one appears");
                self.pod_is((*pod).clone());
            }
            Step::DnsAsks => {
                self.questions -= 1;
                let addresses = vec![IpAddr::from(SERVICE_IP)];
                self.via(via::Input::Allocate { reply: ReplyId(1), name: "web.demo".into(), addresses });
            }
            Step::UserDisconnects => {
                self.disconnects = self.disconnects.saturating_sub(1);
                self.ends = false;
                self.user_disconnects();
            }
            Step::TimePassesFor(part) => {
                let quiet = self.steps().iter().all(|step| matches!(step, Step::TimePassesFor(_)));
                if !quiet {
                    self.early_deadlines -= 1;
                    self.hurried = true;
                }
                self.wake(*part);
            }
        }
        self.be_prompt();
    }

    fn always(&self) -> Result<(), String> {
        self.seen.fault.clone().map_or(Ok(()), Err)
    }

    fn quiescent(&self) -> Result<(), String> {
        self.nothing_is_owed()?;
        if self.is_over() { self.teardown_ends() } else { self.no_lost_wake_up() }
    }

    fn at_last(&self) -> Option<Step> {
        (self.ends && !self.is_over()).then_some(Step::UserDisconnects)
    }

    fn at_rest(&self) -> bool {
        // Scenarios without senders end where their questions are answered.
        !self.ends || self.is_over()
    }
}
