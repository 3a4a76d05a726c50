//! A whole connection: the real cores of Session, ClientList, AgentPlacer, ProxyVia and Vif with the edges that
//! `session::wiring` gives the actors, and a model of everything outside.
//!
//! All orders of all edges at once are too many to walk, so a scenario says which edges and which outside results may
//! wait ([`ConnectWorld::slow`]); everything else is delivered as soon as it is sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use podway::actors::agent_placer::core::{self as placer, AgentPlacerCore, Place, PlaceOutcome, Plan};
use podway::actors::client_list::core::{self as clients, ClientListCore, DialOutcome};
use podway::actors::client_list::messages::{Unfit, WaiterOutcome};
use podway::actors::dns::messages::DnsState;
use podway::actors::pod_watcher::messages::WatchHealth;
use podway::actors::proxy_via::core::{self as via, ProxyViaConfig, ProxyViaCore};
use podway::actors::proxy_via::messages::AllocateError;
use podway::actors::session::core::{self as session, SessionCore, TeardownStep};
use podway::actors::shell::Core;
use podway::actors::vif::core::{self as vif, VifCore};
use podway::actors::vif::messages::VifState;
use podway::cluster::{AgentContainer, ClusterInfo, ContainerState, PodFact, PodPhase, PodSnapshot};
use podway::ids::{Attempt, Generation, Millis, ReplyId, WaiterId};
use podway::net::cidr::{Cidr, covers};
use podway::net::route_plan::{HostFacts, RoutePlan};
use podway::net::views::Target;
use podway::spec::AgentMode;
use podway::status::{ConnectOutcome, Phase};
use podway::workload::PodUid;

use super::explore::{Held, World};
use super::facts::{Agent, FINGERPRINT, KEY, connected, pod, target};
use super::session_world::{found, spec};

/// Who sends and receives. The last four only send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Session,
    ClientList,
    AgentPlacer,
    ProxyVia,
    Vif,
    PodWatcher,
    Dns,
    Host,
}

use Part::{AgentPlacer, ClientList, Dns, Host, PodWatcher, ProxyVia, Session, Vif};

/// What one part sends another.
#[derive(Clone, Debug)]
enum Letter {
    Session(session::Input),
    Clients(clients::Input),
    Placer(placer::Input),
    Via(via::Input),
    Vif(vif::Input),
    /// Ends the actor.
    Stop,
}

/// What is under way outside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outside {
    /// The API client is being built.
    Client,
    /// The API server is asked for the namespace.
    Reach,
    /// PodWatcher looks the workloads up.
    Resolve,
    /// A dial.
    Dial(PodUid, Attempt),
    /// A placement that the API server has not seen, with its container and port.
    Place(Place, Attempt, String, u16),
    /// A placement whose answer is on its way.
    Placed(Place, Attempt),
    /// Our own pod is being deleted.
    Withdraw,
    /// The device is being made.
    Open,
    /// Routes are being changed.
    Apply(Generation),
    /// Flows are being ended.
    StopFlows,
    /// The device is being removed.
    CloseDevice,
    /// The word that a teardown step is done.
    StepDone(TeardownStep),
}

/// Kinds of [`Outside`] that a scenario lets wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Waits {
    Start,
    Dial,
    Place,
    Device,
    Teardown,
}

impl Outside {
    fn kind(&self) -> Waits {
        match self {
            Outside::Client | Outside::Reach | Outside::Resolve => Waits::Start,
            Outside::Dial(..) => Waits::Dial,
            Outside::Place(..) | Outside::Placed(..) | Outside::Withdraw => Waits::Place,
            Outside::Open | Outside::Apply(_) => Waits::Device,
            Outside::StopFlows | Outside::CloseDevice | Outside::StepDone(_) => Waits::Teardown,
        }
    }
}

/// One thing that can happen.
#[derive(Clone, Debug)]
pub enum Step {
    Deliver(Part, Part),
    Ends(Outside),
    Fails(Outside),
    PodAppears,
    DnsAsks,
    UserDisconnects,
    TimePassesFor(Part),
}

/// What must come of `connect` where nobody disconnects and no deadline comes early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Ready,
    Degraded,
    ReadyOrDegraded,
    TimedOut,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct ConnectWorld {
    session: Held<SessionCore>,
    clients: Held<ClientListCore>,
    placer: Held<AgentPlacerCore>,
    via: Held<ProxyViaCore>,
    vif: Held<VifCore>,
    now: Millis,
    queues: BTreeMap<(Part, Part), VecDeque<Held<Letter>>>,
    outside: BTreeSet<Outside>,
    alive: BTreeSet<Part>,
    /// Edges and results that may wait.
    slow: Held<(BTreeSet<(Part, Part)>, BTreeSet<Waits>)>,
    script: Held<Script>,
    expected: Expected,
    /// How many dials may fail, placements fail, changes of routes fail.
    pub failing_dials: u32,
    pub failing_placements: u32,
    pub failing_routes: u32,
    /// How often time may pass although something else could happen.
    pub early_deadlines: u32,
    /// Whether Dns asks, and whether somebody disconnects.
    pub questions: u32,
    pub disconnects: u32,
    unresolved: bool,
    hurried: bool,
    question: Option<Result<BTreeMap<IpAddr, IpAddr>, AllocateError>>,
    names: (bool, bool, u64),
    pods: (Generation, Held<PodSnapshot>),
    appearing: VecDeque<Held<PodFact>>,
    seen: Seen,
}

/// What the model outside begins with.
#[derive(Clone, Debug)]
pub struct Script {
    /// Containers whose agent says that it will not do.
    pub unfit: BTreeSet<String>,
    pub own_pod_is_stuck: bool,
    pub replicas: u32,
    pub cluster: Vec<ClusterInfo>,
    pub host: Vec<HostFacts>,
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
    plans: BTreeMap<Generation, Held<RoutePlan>>,
    applying: Option<Held<vif::Change>>,
    on_device: BTreeSet<Cidr>,
    device: bool,
    stopping: BTreeSet<Part>,
    asked: BTreeSet<ReplyId>,
    answered: Vec<ReplyId>,
    ended: u32,
    letters: u32,
    fault: Option<String>,
}

/// No connection of these scenarios needs this many messages; one that does goes on for ever.
const LETTERS_AT_MOST: u32 = 200;
const STOP_PLACER: ReplyId = ReplyId(0);
const STOP_FLOWS: ReplyId = ReplyId(1);
const HANG_UP: ReplyId = ReplyId(2);
const CLOSE: ReplyId = ReplyId(3);

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
            session: Held::new(SessionCore::new(spec, None)),
            clients: Held::new(ClientListCore::new(KEY, FINGERPRINT)),
            placer: Held::new(AgentPlacerCore::new(plan)),
            via: Held::new(ProxyViaCore::new(config)),
            vif: Held::new(VifCore::new()),
            now: Millis(0),
            queues: BTreeMap::new(),
            outside: BTreeSet::new(),
            alive: BTreeSet::new(),
            slow: Held::new(Default::default()),
            script: Held::new(Script {
                unfit: BTreeSet::new(),
                own_pod_is_stuck: false,
                replicas: 1,
                cluster: vec![ranges(true)],
                host: vec![host()],
            }),
            expected: Expected::Ready,
            failing_dials: 0,
            failing_placements: 0,
            failing_routes: 0,
            early_deadlines: 0,
            questions: 0,
            disconnects: 0,
            unresolved: false,
            hurried: false,
            question: None,
            names: (false, false, 0),
            pods: (Generation(1), Held::new(PodSnapshot { pods, namespaces: None })),
            appearing: VecDeque::new(),
            seen: Seen::default(),
        }
    }

    /// These edges and outside results may wait for anything else; the rest is prompt.
    pub fn slow(mut self, edges: &[(Part, Part)], outside: &[Waits]) -> Self {
        self.slow = Held::new((edges.iter().copied().collect(), outside.iter().copied().collect()));
        self
    }

    /// Everything may wait.
    pub fn all_slow(self) -> Self {
        let parts = [Session, ClientList, AgentPlacer, ProxyVia, Vif, PodWatcher, Dns, Host];
        let edges: Vec<(Part, Part)> = parts.iter().flat_map(|from| parts.iter().map(|to| (*from, *to))).collect();
        self.slow(&edges, &[Waits::Start, Waits::Dial, Waits::Place, Waits::Device, Waits::Teardown])
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

    /// Begins.
    pub fn begun(mut self) -> Self {
        self.session(session::Input::Begin);
        self.be_prompt();
        self
    }

    fn fault(&mut self, property: &str, what: &str) {
        self.seen.fault.get_or_insert_with(|| format!("{property}: {what}"));
    }

    fn send(&mut self, from: Part, to: Part, letter: Letter) {
        // A message to an actor that is gone vanishes.
        if to == Session || self.alive.contains(&to) {
            self.seen.letters += 1;
            self.queues.entry((from, to)).or_default().push_back(Held::new(letter));
        }
    }

    fn deliver(&mut self, from: Part, to: Part) {
        let queue = self.queues.get_mut(&(from, to));
        let letter = queue.and_then(VecDeque::pop_front).expect("steps() named a queue with something in it");
        self.queues.retain(|_, queue| !queue.is_empty());
        match (*letter).clone() {
            Letter::Session(input) => self.session(input),
            Letter::Clients(input) => self.clients(input),
            Letter::Placer(input) => self.placer(input),
            Letter::Via(input) => self.via(input),
            Letter::Vif(input) => self.vif(input),
            Letter::Stop => self.stopped(to),
        }
    }

    /// Delivers what may not wait.
    fn be_prompt(&mut self) {
        loop {
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
    }

    fn session(&mut self, input: session::Input) {
        let now = self.now;
        let before = self.session.outcome().cloned();
        let came = driven(&mut self.session, now, input);
        if before.is_none() && self.session.outcome() == Some(&ConnectOutcome::Ready) {
            self.ready_means_it_works();
        }
        for effect in came {
            match effect {
                session::Effect::Start { .. } => self.under_way(Outside::Client),
                session::Effect::Resolve(_) if self.alive.is_empty() => self.unresolved = true,
                session::Effect::Resolve(_) => self.under_way(Outside::Resolve),
                session::Effect::Select(selection) => {
                    self.nothing_begun_after_teardown(Session, "a selection");
                    self.send(Session, ProxyVia, Letter::Via(via::Input::Select(selection)));
                }
                session::Effect::Register(id, target, deadline) => {
                    self.nothing_begun_after_teardown(Session, "a waiter");
                    self.seen.registered.insert(id);
                    let register = clients::Input::Register { id, target, deadline };
                    self.send(Session, ClientList, Letter::Clients(register));
                }
                session::Effect::Teardown(step) => {
                    self.seen.stopping.insert(Session);
                    self.teardown(step);
                }
                session::Effect::DropChildren => {
                    self.alive.clear();
                    self.queues.retain(|(_, to), _| *to == Session);
                }
                session::Effect::Publish | session::Effect::Ask(_) => {}
                session::Effect::Answer(reply, _) => self.seen.answered.push(reply),
                session::Effect::End => self.seen.ended += 1,
            }
        }
    }

    fn teardown(&mut self, step: TeardownStep) {
        if self.alive.is_empty() {
            return self.under_way(Outside::StepDone(step));
        }
        match step {
            TeardownStep::RemoveAgents | TeardownStep::RestoreDns => self.under_way(Outside::StepDone(step)),
            TeardownStep::StopPlacer => self.send(Session, AgentPlacer, Letter::Stop),
            TeardownStep::StopDataPlane => {
                self.send(Session, Vif, Letter::Vif(vif::Input::StopDataPlane(STOP_FLOWS)));
            }
            TeardownStep::HangUp => {
                self.send(Session, ClientList, Letter::Clients(clients::Input::HangUpAll(HANG_UP)));
            }
            TeardownStep::StopWatching => {
                // PodWatcher and Dns stop at once; the step is done when the others have, too.
                self.alive.remove(&PodWatcher);
                self.alive.remove(&Dns);
                self.send(Session, ProxyVia, Letter::Stop);
                self.send(Session, ClientList, Letter::Stop);
            }
            TeardownStep::CloseVif => self.send(Session, Vif, Letter::Vif(vif::Input::Close(CLOSE))),
        }
    }

    fn stopped(&mut self, part: Part) {
        self.seen.stopping.insert(part);
        match part {
            // It ends when it says so.
            AgentPlacer => return self.placer(placer::Input::Stop(STOP_PLACER)),
            ProxyVia => self.via(via::Input::Stop),
            Session | ClientList | Vif | PodWatcher | Dns | Host => {}
        }
        self.gone(part);
        if !self.alive.contains(&ProxyVia) && !self.alive.contains(&ClientList) {
            self.under_way(Outside::StepDone(TeardownStep::StopWatching));
        }
    }

    fn gone(&mut self, part: Part) {
        self.alive.remove(&part);
        self.queues.retain(|(_, to), _| *to != part);
    }

    fn clients(&mut self, input: clients::Input) {
        if matches!(input, clients::Input::HangUpAll(_)) {
            self.seen.stopping.insert(ClientList);
        }
        let now = self.now;
        for effect in driven(&mut self.clients, now, input) {
            match effect {
                clients::Effect::Dial { pod, attempt, port, .. } => {
                    self.nothing_begun_after_teardown(ClientList, "a dial");
                    self.one_client_per_pod(&pod.uid);
                    let agent = pod.agents.iter().find(|agent| agent.port == port).expect("an agent is dialled");
                    self.seen.dialled.insert((pod.uid.clone(), attempt), Arc::clone(&agent.name));
                    self.under_way(Outside::Dial(pod.uid.clone(), attempt));
                }
                clients::Effect::HangUp { pod, attempt } => {
                    self.seen.links.remove(&(pod.clone(), attempt));
                    self.seen.dialled.remove(&(pod.clone(), attempt));
                    self.outside.remove(&Outside::Dial(pod, attempt));
                }
                clients::Effect::Publish(_) => {}
                clients::Effect::Settle { id, outcome } => {
                    self.one_answer_per_waiter(id, &outcome);
                    self.send(ClientList, Session, Letter::Session(session::Input::Settled(id, outcome)));
                }
                clients::Effect::TellLinks(generation, targets) => {
                    self.send(ClientList, Session, Letter::Session(session::Input::Links(generation, targets)));
                }
                clients::Effect::TellUnfit(generation, agents) => {
                    self.send(ClientList, AgentPlacer, Letter::Placer(placer::Input::Unfit(generation, agents)));
                }
                clients::Effect::HungUp(_) => self.under_way(Outside::StepDone(TeardownStep::HangUp)),
            }
        }
    }

    fn placer(&mut self, input: placer::Input) {
        let now = self.now;
        for effect in driven(&mut self.placer, now, input) {
            match effect {
                placer::Effect::Place { place, attempt, container, port, .. } => {
                    self.nothing_begun_after_teardown(AgentPlacer, "a placement");
                    self.under_way(Outside::Place(place, attempt, container, port));
                }
                placer::Effect::Tell(generation, hopeless) => {
                    let fact = clients::Input::Hopeless(generation, hopeless);
                    self.send(AgentPlacer, ClientList, Letter::Clients(fact));
                }
                placer::Effect::Remove(..) => {}
                placer::Effect::Withdraw => self.under_way(Outside::Withdraw),
                placer::Effect::Stopped(_) => {
                    self.gone(AgentPlacer);
                    self.under_way(Outside::StepDone(TeardownStep::StopPlacer));
                }
            }
        }
    }

    fn via(&mut self, input: via::Input) {
        let now = self.now;
        for effect in driven(&mut self.via, now, input) {
            match effect {
                via::Effect::Publish(table) => self.seen.vips = table.vips.into_keys().collect(),
                via::Effect::TellVif(fact) => {
                    self.seen.plans.insert(fact.generation, Held::new(fact.plan.clone()));
                    self.send(ProxyVia, Vif, Letter::Vif(vif::Input::Plan(fact.generation, fact.plan)));
                }
                via::Effect::TellWorkloads(generation, fact) => {
                    let told = clients::Input::Via(generation, fact.clone());
                    self.send(ProxyVia, ClientList, Letter::Clients(told));
                    self.send(ProxyVia, AgentPlacer, Letter::Placer(placer::Input::Via(generation, fact)));
                }
                via::Effect::TellDns(fact) => {
                    self.names.0 = !fact.dns_addresses.is_empty();
                    // Dns asks again once the ranges are known.
                    if fact.ready && self.question == Some(Err(AllocateError::NotReady)) {
                        self.question = None;
                        self.questions += 1;
                    }
                    self.attach_names();
                }
                via::Effect::TellSession(fact) => {
                    let state = session::Input::Via(fact.generation, fact.state);
                    self.send(ProxyVia, Session, Letter::Session(state));
                }
                via::Effect::Answer(_, answer) => {
                    self.vip_routable_before_answered(&answer);
                    self.question = Some(answer);
                }
            }
        }
    }

    fn vif(&mut self, input: vif::Input) {
        let now = self.now;
        for effect in driven(&mut self.vif, now, input) {
            match effect {
                vif::Effect::Open { .. } => self.under_way(Outside::Open),
                vif::Effect::Apply(change) => {
                    self.routes_of_some_plan(&change);
                    self.under_way(Outside::Apply(change.generation));
                    self.seen.applying = Some(Held::new(change));
                }
                vif::Effect::StopDataPlane => self.under_way(Outside::StopFlows),
                vif::Effect::Close => self.under_way(Outside::CloseDevice),
                vif::Effect::Answer(STOP_FLOWS) => {
                    self.under_way(Outside::StepDone(TeardownStep::StopDataPlane));
                }
                vif::Effect::Answer(_) => self.under_way(Outside::StepDone(TeardownStep::CloseVif)),
                vif::Effect::Tell(generation, state) => {
                    self.names.1 = matches!(state, VifState::Up { .. });
                    self.attach_names();
                    self.send(Vif, Session, Letter::Session(session::Input::Vif(generation, state)));
                }
            }
        }
    }

    /// Dns is ready once it knows its address and the device is up.
    fn attach_names(&mut self) {
        let (address, device, told) = self.names;
        if address && device && told == 0 && self.alive.contains(&Dns) {
            self.names.2 = 1;
            let state = DnsState { ready: true, ..DnsState::default() };
            self.send(Dns, Session, Letter::Session(session::Input::Dns(Generation(1), state)));
        }
    }

    fn under_way(&mut self, outside: Outside) {
        self.outside.insert(outside);
    }

    /// Something outside comes to its end.
    fn ends(&mut self, outside: &Outside, well: bool) {
        self.outside.remove(outside);
        match outside.clone() {
            Outside::Client => self.client_built(),
            Outside::Reach => {
                let api_server = IpAddr::from([192, 168, 1, 9]);
                self.session(session::Input::Reached(Ok(BTreeSet::from([api_server]))));
            }
            Outside::Resolve => {
                let resolutions = BTreeMap::from([found("web", self.script.replicas)]);
                self.session(session::Input::Resolved(resolutions));
            }
            Outside::Dial(pod, attempt) => {
                let agent = self.seen.dialled.remove(&(pod.clone(), attempt)).expect("it was dialled");
                let outcome = match well {
                    true if self.script.unfit.contains(&*agent) => {
                        DialOutcome::Unfit(Unfit::Protocol("another protocol".into()))
                    }
                    true => connected(),
                    false => DialOutcome::Refused,
                };
                if outcome == connected() {
                    self.seen.links.insert((pod.clone(), attempt));
                } else if !well {
                    self.failing_dials -= 1;
                }
                self.clients(clients::Input::DialFinished { pod, attempt, outcome });
            }
            Outside::Place(place, attempt, container, port) if well => {
                match &place {
                    Place::Pod(uid) => self.agent_placed(uid, &container, port),
                    Place::OwnJob | Place::OwnPod => self.own_pod_placed(),
                }
                // The snapshot that shows it may come before the answer.
                self.under_way(Outside::Placed(place, attempt));
            }
            Outside::Place(place, attempt, ..) => {
                self.failing_placements -= 1;
                let outcome = PlaceOutcome::Failed("refused for now".into());
                self.placer_told(place, attempt, outcome);
            }
            // What nobody hears of is deleted by whoever made it.
            Outside::Placed(place, _) if place.is_own() && !self.alive.contains(&AgentPlacer) => {
                self.under_way(Outside::Withdraw);
            }
            Outside::Placed(place, attempt) => self.placer_told(place, attempt, PlaceOutcome::Accepted),
            Outside::Withdraw => {
                self.pods_change(|snapshot| drop(snapshot.pods.remove(&PodUid::from("own"))));
                if self.alive.contains(&AgentPlacer) {
                    self.placer(placer::Input::Withdrawn);
                }
            }
            Outside::Open => {
                self.seen.device = true;
                self.vif(vif::Input::Opened(Ok(7)));
            }
            Outside::Apply(generation) => {
                let change = self.seen.applying.take().expect("it was asked for");
                let mut failed = BTreeMap::new();
                if well {
                    self.seen.on_device.extend(&change.add_routes);
                } else {
                    self.failing_routes -= 1;
                    failed.extend(change.add_routes.iter().map(|route| (route.to_string(), "no".to_owned())));
                }
                self.seen.on_device.retain(|route| !change.remove_routes.contains(route));
                self.vif(vif::Input::Applied { generation, failed });
            }
            Outside::StopFlows => self.vif(vif::Input::DataPlaneStopped),
            Outside::CloseDevice => {
                self.seen.device = false;
                self.seen.on_device.clear();
                self.vif(vif::Input::Closed);
            }
            Outside::StepDone(step) => self.session(session::Input::StepDone(step, Vec::new())),
        }
    }

    fn placer_told(&mut self, place: Place, attempt: Attempt, outcome: PlaceOutcome) {
        if self.alive.contains(&AgentPlacer) {
            self.placer(placer::Input::Finished { place, attempt, outcome });
        }
    }

    fn client_built(&mut self) {
        if !self.session.is_running() {
            return;
        }
        self.alive = BTreeSet::from([ClientList, AgentPlacer, ProxyVia, Vif, PodWatcher, Dns]);
        self.under_way(Outside::Reach);
        if std::mem::take(&mut self.unresolved) {
            self.under_way(Outside::Resolve);
        }
        self.send(Session, Vif, Letter::Vif(vif::Input::Open { device: "podway0".into(), mtu: 1500 }));
        let health = session::Input::Watch(Generation(1), WatchHealth::Fresh);
        self.send(PodWatcher, Session, Letter::Session(health));
        let script = self.script.clone();
        for (facts, n) in script.host.iter().zip(1..) {
            let fact = via::Input::Host(Generation(n), Arc::new(facts.clone()));
            self.send(Host, ProxyVia, Letter::Via(fact));
        }
        for (info, n) in script.cluster.iter().zip(1..) {
            let fact = via::Input::Cluster(Generation(n), Arc::new(info.clone()));
            self.send(PodWatcher, ProxyVia, Letter::Via(fact));
        }
        self.tell_pods();
    }

    fn tell_pods(&mut self) {
        if !self.alive.contains(&PodWatcher) {
            return;
        }
        let (generation, pods) = (self.pods.0, Arc::new((*self.pods.1).clone()));
        self.send(PodWatcher, ClientList, Letter::Clients(clients::Input::Pods(generation, Arc::clone(&pods))));
        self.send(PodWatcher, AgentPlacer, Letter::Placer(placer::Input::Pods(generation, pods)));
    }

    fn pods_change(&mut self, change: impl FnOnce(&mut PodSnapshot)) {
        self.pods.0 = self.pods.0.next();
        self.pods.1.change(change);
        self.tell_pods();
    }

    fn agent_placed(&mut self, uid: &PodUid, container: &str, port: u16) {
        if !self.seen.placed_in.insert(uid.clone()) {
            self.fault("one_agent_per_pod", &format!("a second agent in pod {uid}"));
        }
        let agent = AgentContainer {
            name: container.into(),
            image: "podway-agent:test".into(),
            port,
            authorized_key: KEY.into(),
            state: ContainerState::Running,
        };
        self.pods_change(|snapshot| {
            if let Some(pod) = snapshot.pods.get_mut(uid) {
                Arc::make_mut(pod).agents.push(agent);
            }
        });
    }

    fn own_pod_placed(&mut self) {
        if !self.seen.placed_in.insert("own".into()) {
            self.fault("one_agent_per_pod", "a second pod of our own");
        }
        let mut own = PodFact { own_pod_of: Some(FINGERPRINT.into()), ..pod("own", "podway-agent", Agent::Running) };
        if self.script.own_pod_is_stuck {
            own.phase = PodPhase::Pending;
            own.agents[0].state = ContainerState::Stuck { reason: "ErrImagePull".into() };
        }
        self.pods_change(|snapshot| {
            snapshot.pods.insert(own.uid.clone(), Arc::new(own));
        });
    }

    /// Cores that want to be woken first.
    fn sleepers(&self) -> (Option<Millis>, Vec<Part>) {
        let mut wanted = vec![(Session, self.session.poll_deadline())];
        for (part, at) in [
            (ClientList, self.clients.poll_deadline()),
            (AgentPlacer, self.placer.poll_deadline()),
            (Vif, self.vif.poll_deadline()),
        ] {
            if self.alive.contains(&part) {
                wanted.push((part, at));
            }
        }
        let first = wanted.iter().filter_map(|(_, at)| *at).min();
        let due = wanted.into_iter().filter(|(_, at)| first.is_some() && *at == first).map(|(part, _)| part);
        (first, due.collect())
    }
}

/// The properties.
impl ConnectWorld {
    fn one_answer_per_waiter(&mut self, id: WaiterId, outcome: &WaiterOutcome) {
        let count = self.seen.settled.entry(id).or_default();
        *count += 1;
        if *count > 1 {
            self.fault("one_answer_per_waiter", &format!("waiter {id} was answered again: {outcome:?}"));
        }
        if let WaiterOutcome::Ready { pod } = outcome
            && !self.seen.links.iter().any(|(uid, _)| uid == pod)
        {
            self.fault("one_answer_per_waiter", &format!("waiter {id} was told of {pod}, which has no link"));
        }
    }

    fn vip_routable_before_answered(&mut self, answer: &Result<BTreeMap<IpAddr, IpAddr>, AllocateError>) {
        let plan = self.seen.plans.last_key_value().map(|(_, plan)| plan.clone());
        for (real, vip) in answer.iter().flatten() {
            let routed = plan.iter().flat_map(|plan| &plan.routes).any(|route| covers(route, &Cidr::from(*vip)));
            if real != vip && !self.seen.vips.contains(vip) {
                self.fault("vip_routable_before_answered", &format!("{vip} is in no published table"));
            } else if real != vip && !routed {
                self.fault("vip_routable_before_answered", &format!("{vip} is in no told plan"));
            }
        }
    }

    fn ready_means_it_works(&mut self) {
        let whole = |plan: &Held<RoutePlan>| plan.routes == self.seen.on_device;
        if self.seen.links.is_empty() || !self.seen.plans.values().any(whole) {
            self.fault("ready_means_it_works", "no link, or not all routes of a plan");
        }
    }

    fn one_client_per_pod(&mut self, uid: &PodUid) {
        let dialing = self.outside.iter().any(|outside| matches!(outside, Outside::Dial(pod, _) if pod == uid));
        if dialing || self.seen.links.iter().any(|(pod, _)| pod == uid) {
            self.fault("one_client_per_pod", &format!("pod {uid} is dialled twice"));
        }
    }

    fn nothing_begun_after_teardown(&mut self, part: Part, what: &str) {
        if self.seen.stopping.contains(&part) {
            self.fault("nothing_begun_after_teardown", what);
        }
    }

    fn routes_of_some_plan(&mut self, change: &vif::Change) {
        let plan = self.seen.plans.get(&change.generation).map(|plan| plan.routes.clone()).unwrap_or_default();
        if !change.add_routes.is_subset(&plan) {
            self.fault("routes_of_some_plan", &format!("{:?} is in no plan", change.add_routes));
        }
    }

    fn facts_die_out(&self) -> Result<(), String> {
        if self.seen.letters < LETTERS_AT_MOST { Ok(()) } else { Err("facts_die_out: they go on and on".into()) }
    }

    fn teardown_ends(&self) -> Result<(), String> {
        let asked: Vec<ReplyId> = self.seen.asked.iter().copied().collect();
        if self.seen.answered != asked || self.seen.ended != 1 || self.session.phase() != Phase::Disconnected {
            return Err(format!("teardown_ends: asked {asked:?}, answered {:?}", self.seen.answered));
        }
        let dialing = self.outside.iter().any(|outside| outside.kind() == Waits::Dial);
        if self.seen.device || dialing || !self.seen.links.is_empty() || !self.alive.is_empty() {
            return Err("teardown_ends: something is left behind".into());
        }
        if self.pods.1.pods.values().any(|pod| pod.own_pod_of.is_some() && pod.phase == PodPhase::Pending) {
            return Err("teardown_ends: a pod of ours that never ran is left behind".into());
        }
        Ok(())
    }

    fn no_lost_wake_up(&self) -> Result<(), String> {
        let outcome = self.session.outcome();
        let as_expected = match (self.expected, outcome) {
            (_, Some(ConnectOutcome::TimedOut { .. })) if self.hurried => true,
            (Expected::Ready | Expected::ReadyOrDegraded, Some(ConnectOutcome::Ready))
            | (Expected::Degraded | Expected::ReadyOrDegraded, Some(ConnectOutcome::Degraded { .. }))
            | (Expected::TimedOut, Some(ConnectOutcome::TimedOut { .. })) => true,
            _ => false,
        };
        if !as_expected {
            return Err(format!("no_lost_wake_up: expected {:?}, got {outcome:?}", self.expected));
        }
        // Whatever was said by the deadline, what is there is connected in the end.
        let target = target("web");
        if self.is_there(&target) && !self.clients.is_ready(&target) {
            return Err("no_lost_wake_up: the target is there and has no link".into());
        }
        let last = self.seen.plans.last_key_value().map(|(_, plan)| &plan.routes);
        if last.is_none_or(|routes| *routes != self.seen.on_device) {
            return Err(format!("no_lost_wake_up: {last:?} is wanted, {:?} is there", self.seen.on_device));
        }
        match &self.question {
            Some(Err(error)) => Err(format!("no_lost_wake_up: Dns was told {error}")),
            Some(Ok(answer)) if answer.iter().all(|(real, vip)| real == vip) => {
                Err("no_lost_wake_up: a translated address was handed out as it is".into())
            }
            Some(Ok(_)) | None => Ok(()),
        }
    }

    fn is_there(&self, target: &Target) -> bool {
        self.pods.1.pods.values().any(|pod| {
            *target == Target::Workload(pod.workload.clone())
                && pod.agents.iter().any(|agent| agent.state == ContainerState::Running)
        })
    }
}

fn driven<C: Core + Clone + std::fmt::Debug>(core: &mut Held<C>, now: Millis, input: C::Input) -> Vec<C::Effect> {
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
                _ => 0,
            };
            if fails > 0 {
                steps.push(Step::Fails(outside.clone()));
            }
        }
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
            Step::PodAppears => {
                let pod = self.appearing.pop_front().expect("steps() said one appears");
                self.pods_change(|snapshot| {
                    snapshot.pods.insert(pod.uid.clone(), Arc::new((*pod).clone()));
                });
            }
            Step::DnsAsks => {
                self.questions -= 1;
                let addresses = vec![IpAddr::from(SERVICE_IP)];
                self.via(via::Input::Allocate { reply: ReplyId(1), name: "web.demo".into(), addresses });
            }
            Step::UserDisconnects => {
                self.disconnects -= 1;
                let reply = ReplyId(u64::try_from(self.seen.asked.len()).expect("few"));
                self.seen.asked.insert(reply);
                self.session(session::Input::Disconnect { clean: false, reply });
            }
            Step::TimePassesFor(part) => {
                let quiet = self.steps().iter().all(|step| matches!(step, Step::TimePassesFor(_)));
                if !quiet {
                    self.early_deadlines -= 1;
                    self.hurried = true;
                }
                self.now = self.sleepers().0.expect("steps() said there is one");
                match part {
                    Session => self.session(session::Input::Woke),
                    ClientList => self.clients(clients::Input::Woke),
                    AgentPlacer => self.placer(placer::Input::Woke),
                    ProxyVia | Vif | PodWatcher | Dns | Host => self.vif(vif::Input::Woke),
                }
            }
        }
        self.be_prompt();
    }

    fn always(&self) -> Result<(), String> {
        match &self.seen.fault {
            Some(fault) => Err(fault.clone()),
            None => self.facts_die_out(),
        }
    }

    fn quiescent(&self) -> Result<(), String> {
        if let Some(id) = self.seen.registered.iter().find(|id| !self.seen.settled.contains_key(id)) {
            return Err(format!("one_answer_per_waiter: waiter {id} was never answered"));
        }
        if self.seen.asked.is_empty() { self.no_lost_wake_up() } else { self.teardown_ends() }
    }
}
