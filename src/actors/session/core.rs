//! One connection from start to teardown. Pure.
//!
//! ```text
//!   Begin ─▶ Reaching ─▶ Running ─────────────────▶ Stopping(step…) ─▶ Over
//!             ▲ │           │  outcome: Ready | Degraded | TimedOut      ▲
//!             └─┤ later     └── Failed, Disconnect, a child ended ───────┤
//!               └────────────── no answer, connect waits; refused ───────┘
//! ```
//!
//! `handle` stores the fact, then recomputes: what to start, what to ask, which outcome holds, which teardown step is
//! next. One result path: the outcome, set once. Nothing is started after teardown began.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use self::reaching::{Outlook as Reachable, Reaching, Unreached};
use self::remains::RunningAgent;
use self::renewal::{Ask, Renewal};
use super::messages::{Child, Remains};
use crate::actors::client_list::messages::{LinkState, LinkStatus, TargetState, WaiterOutcome};
use crate::actors::dns::messages::DnsState;
use crate::actors::pod_watcher::messages::WatchHealth;
use crate::actors::proxy_via::core as proxy_via;
use crate::actors::proxy_via::messages::{SelectProxyVia, ViaState};
use crate::actors::shell::{Core, Exit};
use crate::actors::vif::messages::{FlowStats, VifState};
use crate::cluster::{NamespaceRights, Resolution, Resolutions, Rights};
use crate::error::UserError;
use crate::ids::{AskId, Generation, KeeperId, Millis, ReplyId, WaiterId};
use crate::net::resolver::Outlook;
use crate::net::views::Target;
use crate::spec::{ConnectSpec, DnsMode, ViaRule};
use crate::status::{ConnectOutcome, Mark, Phase, Step};
use crate::workload::{Workload, WorkloadRef};

pub mod errors;
pub mod reaching;
mod remains;
pub mod renewal;
pub mod report;

/// A child that has not finished its teardown step by then is passed over; only the removal of agents may take longer.
const STEP_LIMIT: Duration = Duration::from_millis(1500);
/// How long the API server may be silent before `connect` says so; an agent may be out of reach for half of it.
const SILENCE: Duration = Duration::from_secs(2);
/// What it says then.
const SILENT: &str = "the API server has not answered yet";
/// Sessions are torn down and made anew after a bug this often in [`RESTART_WINDOW`], then no more.
const RESTARTS: usize = 3;
/// See [`RESTARTS`].
const RESTART_WINDOW: Duration = Duration::from_secs(300);

/// What is left of a connection that ended before `disconnect --clean` came, or that had no client to ask with.
pub const NOT_REMOVED: &str = "agents of this and earlier connections, which were not looked for: connect again, and end that \
                               with podway disconnect --clean";

/// What goes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Start.
    Begin,
    /// The API server was asked for the connected namespace.
    Reached(Result<BTreeSet<IpAddr>, Unreached>),
    /// PodWatcher answered for the workloads of the rules.
    Resolved(Resolutions),
    /// Fact of PodWatcher.
    Rights(Generation, Arc<Rights>),
    /// Fact of PodWatcher.
    Watch(Generation, WatchHealth),
    /// Fact of Vif.
    Vif(Generation, VifState),
    /// Fact of Dns.
    Dns(Generation, DnsState),
    /// Fact of ProxyVia.
    Via(Generation, ViaState),
    /// Fact of ClientList.
    Links(Generation, BTreeMap<Target, TargetState>),
    /// ClientList settled a waiter.
    Settled(WaiterId, WaiterOutcome),
    /// Counters of the data plane.
    Flows(FlowStats),
    /// Credentials were renewed.
    Renewed {
        /// The question that they answer; none where nobody asked.
        ask: Option<AskId>,
        /// When the new ones end, in seconds since 1970.
        expires_at: Option<i64>,
        /// How long that is from now.
        lasts: Option<Duration>,
    },
    /// The keeper could not renew them, or what it or the user gave cannot be used.
    NotRenewed(Option<AskId>, String),
    /// The user gives credentials: no keeper's count any more that was asked before.
    RenewedByHand,
    /// So long is left of the credentials, by the clock on the wall.
    Left(Duration),
    /// A keeper came; it takes the place of any that was there.
    KeeperCame(KeeperId),
    /// One went.
    KeeperWent(KeeperId),
    /// A child ended.
    ChildExited(Child, Exit),
    /// Tear down.
    Disconnect {
        /// Whether our own pod goes too.
        clean: bool,
        /// Who asks.
        reply: ReplyId,
    },
    /// A teardown step is done; says what it left.
    StepDone(TeardownStep, Vec<String>),
    /// Time has passed.
    Woke,
}

/// The steps of teardown, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TeardownStep {
    /// Delete our own pods, where asked: before the others, or after them where it is asked later.
    RemoveAgents,
    /// Place no more agents.
    StopPlacer,
    /// Give the host its resolver back.
    RestoreDns,
    /// End all flows.
    StopDataPlane,
    /// End all links, settle all waiters.
    HangUp,
    /// Stop ProxyVia and PodWatcher.
    StopWatching,
    /// Remove the device.
    CloseVif,
}

impl TeardownStep {
    /// The order of those that are always taken.
    const ORDER: [TeardownStep; 6] = [
        TeardownStep::StopPlacer,
        TeardownStep::RestoreDns,
        TeardownStep::StopDataPlane,
        TeardownStep::HangUp,
        TeardownStep::StopWatching,
        TeardownStep::CloseVif,
    ];

    /// What it does, for people.
    fn words(self) -> &'static str {
        match self {
            TeardownStep::RemoveAgents => "removing agents",
            TeardownStep::StopPlacer => "ending the placing of agents",
            TeardownStep::RestoreDns => "giving the host's resolver back",
            TeardownStep::StopDataPlane => "ending what was open",
            TeardownStep::HangUp => "closing the links to agents",
            TeardownStep::StopWatching => "ending the watches of the cluster",
            TeardownStep::CloseVif => "removing the network device",
        }
    }
}

/// What the shell shall do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start the children and ask the API server for the connected namespace; answered by `Reached`.
    Start {
        /// What an earlier run left. Nobody asked for its end; the end of this one tells what this one leaves.
        left: Vec<String>,
    },
    /// Ask the API server again; answered by `Reached`.
    Reach,
    /// Ask PodWatcher; answered by `Resolved`.
    Resolve(BTreeSet<WorkloadRef>),
    /// Tell ProxyVia.
    Select(SelectProxyVia),
    /// Register a waiter with ClientList.
    Register(WaiterId, Target, Millis),
    /// Do one teardown step; answered by `StepDone`.
    Teardown(TeardownStep),
    /// Drop all children.
    DropChildren,
    /// Ask the keeper for credentials.
    Ask(Ask),
    /// Publish the status document.
    Publish,
    /// Answer a `Disconnect`.
    Answer(ReplyId, Remains),
    /// The session is over.
    End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Life {
    New,
    Running,
    Stopping { step: TeardownStep, until: Millis, then: AfterTeardown },
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AfterTeardown {
    End,
    StartAnew,
}

/// What one run of the children has told so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Addresses of the API server, once it answered.
    pub api_server: Option<BTreeSet<IpAddr>>,
    /// What the references of the rules are.
    pub resolutions: Option<Resolutions>,
    /// Rights.
    pub rights: (Generation, Arc<Rights>),
    /// Watches.
    pub watch: Option<(Generation, WatchHealth)>,
    /// Device.
    pub vif: Option<(Generation, VifState)>,
    /// Names.
    pub dns: Option<(Generation, DnsState)>,
    /// Ranges.
    pub via: Option<(Generation, ViaState)>,
    /// Links.
    pub links: (Generation, BTreeMap<Target, TargetState>),
    /// Waiters: target, and outcome once settled.
    pub waiters: BTreeMap<WaiterId, (Target, Option<WaiterOutcome>)>,
    /// What ProxyVia was told last.
    selected: Option<SelectProxyVia>,
}

/// The core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionCore {
    spec: ConnectSpec,
    /// The agent image that the user named.
    named_image: Option<String>,
    life: Life,
    facts: Facts,
    flows: FlowStats,
    outcome: Option<ConnectOutcome>,
    begun: Millis,
    deadline: Millis,
    steps: Vec<Step>,
    /// Since when agents are not reached that were not ready meanwhile.
    unreachable: BTreeMap<Target, Millis>,
    clean: bool,
    /// Teardown steps of this run that were begun.
    begun_steps: BTreeSet<TeardownStep>,
    left: Vec<String>,
    /// Where agents ran when teardown began.
    agents: BTreeSet<RunningAgent>,
    replies: Vec<ReplyId>,
    restarts: Vec<Millis>,
    /// The question to the API server.
    reaching: Reaching,
    /// Whether the time of `connect` was over before enough was known to refuse it; until it is.
    undecided: bool,
    /// Credentials that end.
    renewal: Renewal,
    /// How long the first ones last, and a random byte.
    lasting: (Option<Duration>, u8),
    next_waiter: WaiterId,
    dirty: bool,
    effects: VecDeque<Effect>,
}

/// The rules of `spec` with their workloads, once all are known.
fn rules_of(spec: &ConnectSpec, resolutions: &Resolutions) -> Option<Vec<ViaRule<Workload>>> {
    let rule = |rule: &ViaRule| match resolutions.get(&rule.workload) {
        Some(Resolution::Found { workload, .. }) => Some(ViaRule { range: rule.range, workload: workload.clone() }),
        Some(
            Resolution::NotFound { .. }
            | Resolution::Ambiguous { .. }
            | Resolution::Forbidden { .. }
            | Resolution::Failed { .. },
        )
        | None => None,
    };
    spec.proxy_via.iter().map(rule).collect()
}

/// What ProxyVia is to do for `spec`, once all workloads are known.
pub fn selection_of(
    spec: &ConnectSpec,
    api_server: &BTreeSet<IpAddr>,
    resolutions: &Resolutions,
) -> Option<SelectProxyVia> {
    Some(SelectProxyVia {
        api_server: api_server.clone(),
        rules: rules_of(spec, resolutions)?,
        vnat: spec.vnat.clone(),
        also_proxy: spec.also_proxy.clone(),
        never_proxy: spec.never_proxy.clone(),
        allow_conflicting: spec.allow_conflicting_subnets.clone(),
    })
}

/// Why a rule of `spec` names no workload, where one does not; nothing of those that will be told `later`.
pub fn refusal_of(
    spec: &ConnectSpec,
    resolutions: &Resolutions,
    later: impl Fn(&WorkloadRef, &Resolution) -> bool,
) -> Option<UserError> {
    spec.proxy_via.iter().find_map(|rule| {
        let resolution = resolutions.get(&rule.workload).filter(|resolution| !later(&rule.workload, resolution))?;
        errors::resolution(&rule.workload, &spec.namespace, resolution)
    })
}

impl SessionCore {
    /// A session that has not begun.
    pub fn new(spec: ConnectSpec, expires_at: Option<i64>) -> Self {
        SessionCore {
            spec,
            named_image: None,
            life: Life::New,
            facts: Facts::default(),
            flows: FlowStats::default(),
            outcome: None,
            begun: Millis(0),
            deadline: Millis(0),
            steps: Vec::new(),
            unreachable: BTreeMap::new(),
            clean: false,
            begun_steps: BTreeSet::new(),
            left: Vec::new(),
            agents: BTreeSet::new(),
            replies: Vec::new(),
            restarts: Vec::new(),
            reaching: Reaching::begun(Millis(0), 0),
            undecided: false,
            renewal: Renewal::new(expires_at),
            lasting: (None, 0),
            next_waiter: WaiterId(0),
            dirty: false,
            effects: VecDeque::new(),
        }
    }

    /// The same, for a user who named this agent image and is told where another serves.
    pub fn naming_image(self, named_image: Option<String>) -> Self {
        SessionCore { named_image, ..self }
    }

    /// The same, with credentials that last so long from its beginning on; `jitter` is a random byte.
    pub fn lasting(self, lasts: Option<Duration>, jitter: u8) -> Self {
        SessionCore { lasting: (lasts, jitter), ..self }
    }

    /// Whether credentials that were asked for so are still of use.
    pub fn accepts(&self, ask: Option<AskId>) -> bool {
        self.renewal.accepts(ask)
    }

    /// How `connect` ended, once it has.
    pub fn outcome(&self) -> Option<&ConnectOutcome> {
        self.outcome.as_ref()
    }

    /// Whether children may run.
    pub fn is_running(&self) -> bool {
        self.life == Life::Running
    }

    /// Index of the device, as far as it was told.
    pub fn device(&self) -> Option<u32> {
        match &self.facts.vif {
            Some((_, VifState::Up { ifindex, .. })) => Some(*ifindex),
            Some((_, VifState::Down | VifState::Failed { .. })) | None => None,
        }
    }

    /// Whether a pod of our own is wanted that no link led to: it may never have run, and then does not end by itself.
    pub fn own_pod_never_worked(&self) -> bool {
        let works = |link: &LinkStatus| matches!(link.state, LinkState::Ready | LinkState::Draining);
        self.facts.links.1.get(&Target::General).is_some_and(|state| !state.links.iter().any(works))
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        match (&self.life, &self.outcome) {
            (Life::Over, _) => Phase::Disconnected,
            (Life::Stopping { then: AfterTeardown::End, .. }, _) => Phase::Disconnecting,
            (_, Some(_)) => Phase::Connected,
            (_, None) => Phase::Connecting,
        }
    }

    fn store(&mut self, now: Millis, input: Input) {
        let facts = &mut self.facts;
        match input {
            Input::Begin => {
                if self.life == Life::New {
                    self.begun = now;
                    self.deadline = now + Duration::from_millis(self.spec.timeout_ms);
                    let (lasts, jitter) = self.lasting;
                    self.renewal.begin(now, lasts, jitter);
                    self.start(now);
                }
            }
            Input::Reached(Ok(addresses)) => {
                facts.api_server.get_or_insert(addresses);
                // What the watches are told counts more.
                if !matches!(facts.watch, Some((_, WatchHealth::Unauthorized { .. }))) {
                    self.renewal.judged(false);
                }
                self.step(now, Mark::Ok, "API server answered".to_owned());
            }
            Input::Reached(Err(unreached)) => self.unreached(now, unreached),
            Input::Resolved(resolutions) => {
                facts.resolutions.get_or_insert(resolutions);
            }
            Input::Rights(generation, rights) if generation > facts.rights.0 => facts.rights = (generation, rights),
            Input::Rights(..) => {}
            Input::Watch(generation, health) => {
                let is_newer = facts.watch.as_ref().is_none_or(|(known, _)| generation > *known);
                match &health {
                    WatchHealth::Unauthorized { .. } if is_newer => self.renewal.judged(true),
                    WatchHealth::Fresh if is_newer => {
                        self.renewal.judged(false);
                        self.reaching.hurry(now);
                    }
                    WatchHealth::Starting
                    | WatchHealth::Fresh
                    | WatchHealth::Stale { .. }
                    | WatchHealth::Unauthorized { .. } => {}
                }
                newer(&mut facts.watch, generation, health);
            }
            Input::Vif(generation, state) => newer(&mut facts.vif, generation, state),
            Input::Dns(generation, state) => newer(&mut facts.dns, generation, state),
            Input::Via(generation, state) => newer(&mut facts.via, generation, state),
            Input::Links(generation, targets) if generation > facts.links.0 => facts.links = (generation, targets),
            Input::Links(..) => {}
            Input::Settled(id, outcome) => {
                if let Some((_, slot @ None)) = facts.waiters.get_mut(&id) {
                    *slot = Some(outcome);
                }
            }
            Input::Flows(stats) => self.flows = stats,
            Input::Renewed { ask, expires_at, lasts } => {
                self.renewal.renewed(now, ask, expires_at, lasts);
                // A user who connects again does not wait for the next time, which may be some seconds away.
                self.reaching.renewed(now);
            }
            Input::NotRenewed(ask, why) => self.renewal.failed(now, ask, &why),
            Input::RenewedByHand => self.renewal.by_hand(),
            Input::Left(left) => self.renewal.left(now, left),
            Input::KeeperCame(keeper) => self.renewal.came(now, keeper),
            Input::KeeperWent(keeper) => self.renewal.went(keeper),
            Input::ChildExited(child, exit) => self.child_exited(now, child, &exit),
            Input::Disconnect { clean, reply } => {
                self.replies.push(reply);
                self.clean |= clean;
                self.tear_down(now, AfterTeardown::End);
            }
            Input::StepDone(step, left) => self.step_done(now, step, left),
            Input::Woke => {}
        }
        self.dirty = true;
    }

    fn start(&mut self, now: Millis) {
        self.life = Life::Running;
        self.reaching = Reaching::begun(now, self.lasting.1);
        self.begun_steps.clear();
        self.facts = Facts::default();
        self.effects.push_back(Effect::Start { left: std::mem::take(&mut self.left) });
        let references: BTreeSet<WorkloadRef> = self.spec.proxy_via.iter().map(|rule| rule.workload.clone()).collect();
        if references.is_empty() {
            self.facts.resolutions = Some(Resolutions::new());
        } else {
            self.effects.push_back(Effect::Resolve(references));
        }
    }

    fn child_exited(&mut self, now: Millis, child: Child, exit: &Exit) {
        if self.life != Life::Running {
            return;
        }
        let what = match exit {
            Exit::Stopped => "stopped by itself".to_owned(),
            Exit::Panicked(why) => format!("panicked: {why}"),
        };
        self.step(now, Mark::Fail, format!("{child:?} {what}"));
        self.restarts.retain(|at| now.since(*at) < RESTART_WINDOW);
        self.restarts.push(now);
        if self.restarts.len() > RESTARTS {
            self.fail(now, errors::child_ended(child, &what));
        } else {
            self.tear_down(now, AfterTeardown::StartAnew);
        }
    }

    /// Running => (Running | Stopping)
    fn unreached(&mut self, now: Millis, unreached: Unreached) {
        match unreached.outlook {
            // Nobody waits any more who could try another address: it was said that it goes on.
            Reachable::MayPass if self.outcome.is_some() => self.reaching.failed(now, &unreached.error),
            Reachable::Refused if self.reaching.is_outdated(now) => {}
            // As a connection that works does then: it needs others, which a keeper or the user gives.
            Reachable::Refused if self.outcome.is_some() => {
                self.renewal.judged(true);
                self.reaching.failed(now, &unreached.error);
            }
            Reachable::MayPass | Reachable::Refused | Reachable::Definite => self.fail(now, unreached.error),
        }
    }

    fn fail(&mut self, now: Millis, error: UserError) {
        if self.life != Life::Running {
            return;
        }
        // No step besides: the outcome is told with the same words. Only a failed connect is one; later the connection
        // just ends.
        self.outcome = Some(ConnectOutcome::Failed(error));
        self.tear_down(now, AfterTeardown::End);
    }

    fn tear_down(&mut self, now: Millis, then: AfterTeardown) {
        match &mut self.life {
            Life::New => self.end(),
            Life::Running => {
                self.agents = self.running_agents();
                let first = if self.clean { TeardownStep::RemoveAgents } else { TeardownStep::StopPlacer };
                self.begin_step(now, first, then);
            }
            Life::Stopping { then: planned, .. } if then == AfterTeardown::End => *planned = AfterTeardown::End,
            Life::Stopping { .. } => {}
            Life::Over => {
                if self.clean && !self.begun_steps.contains(&TeardownStep::RemoveAgents) {
                    self.left.push(NOT_REMOVED.to_owned());
                }
                self.answer_all();
            }
        }
    }

    fn begin_step(&mut self, now: Millis, step: TeardownStep, then: AfterTeardown) {
        let limit = if step == TeardownStep::RemoveAgents { STEP_LIMIT * 4 } else { STEP_LIMIT };
        self.life = Life::Stopping { step, until: now + limit, then };
        self.begun_steps.insert(step);
        self.effects.push_back(Effect::Teardown(step));
    }

    fn step_done(&mut self, now: Millis, done: TeardownStep, left: Vec<String>) {
        self.left.extend(left);
        let Life::Stopping { step, then, .. } = self.life else { return };
        if step != done {
            return;
        }
        let begun = |step: &TeardownStep| self.begun_steps.contains(step);
        let late = Some(TeardownStep::RemoveAgents).filter(|step| self.clean && !begun(step));
        match TeardownStep::ORDER.into_iter().find(|step| !begun(step)).or(late) {
            Some(next) => self.begin_step(now, next, then),
            None => {
                self.effects.push_back(Effect::DropChildren);
                match then {
                    AfterTeardown::End => self.end(),
                    AfterTeardown::StartAnew => self.start(now),
                }
            }
        }
    }

    fn end(&mut self) {
        self.life = Life::Over;
        self.answer_all();
        self.effects.push_back(Effect::Publish);
        self.effects.push_back(Effect::End);
    }

    fn answer_all(&mut self) {
        for reply in std::mem::take(&mut self.replies) {
            let remains = Remains { left: self.left.clone(), agents: self.agents_left() };
            self.effects.push_back(Effect::Answer(reply, remains));
        }
    }

    fn step(&mut self, now: Millis, mark: Mark, text: String) {
        if self.outcome.is_none() && !self.steps.iter().any(|step| step.text == text) {
            let at_ms = u64::try_from(now.since(self.begun).as_millis()).unwrap_or(u64::MAX);
            self.steps.push(Step { at_ms, text, mark });
        }
    }

    /// Recomputes what should be asked and which outcome holds.
    fn reconcile(&mut self, now: Millis) {
        if let Life::Stopping { step, until, .. } = self.life
            && until <= now
        {
            self.step_done(now, step, vec![format!("{} took too long", step.words())]);
        }
        if self.life != Life::Running {
            return;
        }
        if let Some(error) = self.hopeless() {
            self.fail(now, error);
            return;
        }
        self.undecided &= !self.knows_enough();
        if let Some(ask) = self.renewal.reconcile(now) {
            self.effects.push_back(Effect::Ask(ask));
        }
        if self.facts.api_server.is_none() && self.reaching.take_due(now) {
            self.effects.push_back(Effect::Reach);
        }
        self.select_and_wait();
        if self.silent_until().is_some_and(|until| until <= now) {
            self.step(now, Mark::Warn, SILENT.to_owned());
        }
        self.note_steps(now);
        self.decide_outcome(now);
    }

    /// Whether all is known that may refuse a connection.
    fn knows_enough(&self) -> bool {
        let facts = &self.facts;
        // Names are attached or not where there is a first word of it.
        let told = facts.dns.as_ref().is_some_and(|(_, dns)| dns.ready || !dns.message.is_empty());
        let names = told || matches!(self.spec.dns, DnsMode::Auto | DnsMode::Off);
        names && facts.api_server.is_some() && facts.resolutions.is_some() && self.rights_of_connected().is_some()
    }

    /// The first reason for which this connection cannot work, if there is one.
    fn hopeless(&self) -> Option<UserError> {
        let facts = &self.facts;
        if let Some((_, VifState::Failed { why })) = &facts.vif {
            return Some(errors::device(why));
        }
        if self.outcome.is_some() && !self.undecided {
            return None;
        }
        // Where more than the right to look a workload up is missing, that is told: it is known soon.
        let watched = self.rights_of_connected().is_some_and(|rights| rights.watch_pods);
        let later = |workload: &WorkloadRef, resolution: &Resolution| {
            let of_connected = workload.namespace.as_ref().is_none_or(|name| *name == self.spec.namespace);
            of_connected && !watched && matches!(resolution, Resolution::Forbidden { .. })
        };
        if let Some(error) = facts.resolutions.as_ref().and_then(|known| refusal_of(&self.spec, known, later)) {
            return Some(error);
        }
        if let Some(error) = self.selection().and_then(|selection| errors::loopback(&proxy_via::loopback(&selection))) {
            return Some(error);
        }
        if let Some(rights) = self.rights_of_connected().filter(|rights| !rights.watch_pods) {
            return Some(errors::forbidden(*rights, &self.spec));
        }
        // Whoever asks the API server first tells in more detail what it does not take.
        if let Some((_, WatchHealth::Unauthorized { why })) =
            facts.watch.as_ref().filter(|_| facts.api_server.is_some() && self.outcome.is_none())
        {
            return Some(errors::unauthorized(why));
        }
        if let Some((_, dns)) = &facts.dns
            && dns.outlook == Outlook::Hopeless
            && !matches!(self.spec.dns, DnsMode::Auto | DnsMode::Off)
        {
            return Some(errors::dns(&dns.message));
        }
        facts.waiters.values().find_map(|(target, outcome)| match outcome {
            Some(WaiterOutcome::Hopeless { why }) => Some(errors::target(target, &self.spec.namespace, why)),
            Some(WaiterOutcome::Ready { .. } | WaiterOutcome::TimedOut | WaiterOutcome::Cancelled) | None => None,
        })
    }

    fn rights_of_connected(&self) -> Option<&NamespaceRights> {
        self.facts.rights.1.namespaces.get(self.spec.namespace.as_str())
    }

    /// The rules with their workloads, once all are known.
    fn rules(&self) -> Option<Vec<ViaRule<Workload>>> {
        rules_of(&self.spec, self.facts.resolutions.as_ref()?)
    }

    /// What ProxyVia is to do, once the API server and all workloads are known.
    fn selection(&self) -> Option<SelectProxyVia> {
        selection_of(&self.spec, self.facts.api_server.as_ref()?, self.facts.resolutions.as_ref()?)
    }

    fn select_and_wait(&mut self) {
        let Some(selection) = self.selection() else { return };
        let targets = needed(&selection.rules);
        if self.facts.selected.as_ref() != Some(&selection) {
            self.facts.selected = Some(selection.clone());
            self.effects.push_back(Effect::Select(selection));
        }
        if self.outcome.is_some() {
            return;
        }
        for target in targets {
            if self.facts.waiters.values().any(|(waiting, _)| *waiting == target) {
                continue;
            }
            let id = self.next_waiter;
            self.next_waiter = id.next();
            self.facts.waiters.insert(id, (target.clone(), None));
            self.effects.push_back(Effect::Register(id, target, self.deadline));
        }
    }

    fn decide_outcome(&mut self, now: Millis) {
        if self.outcome.is_some() {
            return;
        }
        let outcome = self.standing();
        if matches!(outcome, ConnectOutcome::TimedOut { .. }) && now < self.deadline {
            return;
        }
        // What is found out later is as good a reason to end it as before.
        self.undecided = matches!(outcome, ConnectOutcome::TimedOut { .. }) && !self.knows_enough();
        self.outcome = Some(outcome);
    }

    /// Until when the API server may be silent before that is told; `None` once it has answered, or that was told.
    fn silent_until(&self) -> Option<Millis> {
        let waits = self.outcome.is_none() && self.facts.api_server.is_none();
        (waits && !self.steps.iter().any(|step| step.text == SILENT)).then(|| self.begun + SILENCE)
    }

    /// When the API server is asked again, where it has to be.
    fn reaching_until(&self) -> Option<Millis> {
        self.reaching.deadline().filter(|_| self.facts.api_server.is_none())
    }

    /// Via workloads whose spec asks for no replicas.
    fn scaled_to_zero(&self) -> BTreeMap<String, String> {
        let resolutions = self.facts.resolutions.iter().flatten();
        resolutions
            .filter_map(|(_, resolution)| match resolution {
                Resolution::Found { workload, replicas: Some(0) } => {
                    let text = format!("{workload} is scaled to zero and attaches by itself when a pod comes");
                    Some((workload.to_string(), text))
                }
                Resolution::Found { .. }
                | Resolution::NotFound { .. }
                | Resolution::Ambiguous { .. }
                | Resolution::Forbidden { .. }
                | Resolution::Failed { .. } => None,
            })
            .collect()
    }
}

impl Core for SessionCore {
    type Input = Input;
    type Effect = Effect;

    fn handle(&mut self, now: Millis, input: Input) {
        self.store(now, input);
        self.reconcile(now);
        if std::mem::take(&mut self.dirty) {
            self.effects.push_back(Effect::Publish);
        }
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn poll_deadline(&self) -> Option<Millis> {
        match &self.life {
            Life::Running => {
                let connecting = self.outcome.is_none().then_some(self.deadline);
                connecting
                    .into_iter()
                    .chain(self.silent_until())
                    .chain(self.renewal.deadline())
                    .chain(self.reaching_until())
                    .min()
            }
            Life::Stopping { until, .. } => Some(*until),
            Life::New | Life::Over => None,
        }
    }

    fn woke() -> Input {
        Input::Woke
    }
}

/// Through whom traffic has to flow for the connection to work: the workloads of its rules; without any rule, the default
/// egress.
pub fn needed(rules: &[ViaRule<Workload>]) -> BTreeSet<Target> {
    let workloads: BTreeSet<Target> = rules.iter().map(|rule| Target::Workload(rule.workload.clone())).collect();
    if workloads.is_empty() { BTreeSet::from([Target::General]) } else { workloads }
}

fn newer<T>(slot: &mut Option<(Generation, T)>, generation: Generation, fact: T) {
    if slot.as_ref().is_none_or(|(stored, _)| generation > *stored) {
        *slot = Some((generation, fact));
    }
}

#[cfg(test)]
mod tests;
