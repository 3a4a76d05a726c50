//! The world around Session: its children's facts in any order, a disconnect, a child that dies.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use podway::actors::client_list::messages::{LinkState, LinkStatus, Placement, TargetState, WaiterOutcome};
use podway::actors::dns::messages::DnsState;
use podway::actors::pod_watcher::messages::WatchHealth;
use podway::actors::proxy_via::messages::ViaState;
use podway::actors::session::core::reaching::{Outlook, Unreached};
use podway::actors::session::core::{Effect, Input, SessionCore, TeardownStep};
use podway::actors::session::messages::Child;
use podway::actors::shell::{Core, Exit};
use podway::actors::vif::messages::VifState;
use podway::cluster::{Resolution, Resolutions};
use podway::error::{Reason, UserError};
use podway::ids::{Generation, Millis, ReplyId, WaiterId};
use podway::net::views::Target;
use podway::spec::{AgentMode, ConnectSpec, DnsMode};
use podway::status::{ConnectOutcome, Phase, SessionStatus};
use podway::workload::WorkloadRef;

use super::explore::{Held, World};
use super::facts::{effects, target, workload};
use super::story::{say, short};

/// One session, and children that answer.
#[derive(Clone, Debug)]
pub struct SessionWorld {
    core: Held<SessionCore>,
    now: Millis,
    senders: BTreeMap<&'static str, VecDeque<Held<Input>>>,
    script: Held<Script>,
    /// Whether PodWatcher has nothing to say before it is fresh.
    pub watches_at_once: bool,
    /// How many children may panic.
    pub panics: u32,
    /// Whether teardown steps may hang until their limit.
    pub hanging_steps: u32,
    /// How often the API server gives no answer, once the time of `connect` is over; before that it is silent.
    away: Option<u32>,
    started: u32,
    children: bool,
    steps_done: Vec<TeardownStep>,
    outcomes: Vec<Held<ConnectOutcome>>,
    asked: BTreeSet<ReplyId>,
    answered: Vec<ReplyId>,
    ended: u32,
    /// A disconnect that was not too late asked for our pods to go too.
    clean: bool,
    removed: u32,
    faults: Vec<String>,
}

/// What the children say.
#[derive(Clone, Debug)]
struct Script {
    /// How the waiters of each target end.
    waiters: BTreeMap<Target, WaiterOutcome>,
    resolutions: Resolutions,
    reached: Result<(), UserError>,
}

/// One thing that can happen.
#[derive(Clone, Debug)]
pub enum Step {
    Deliver(&'static str),
    ChildPanics,
    TeardownHangs(TeardownStep),
    TimePasses,
}

/// What `connect -n demo --proxy-via service=NAME` for each name asks for.
pub fn spec(names: &[&str]) -> ConnectSpec {
    ConnectSpec {
        name: "default".into(),
        context: String::new(),
        namespace: "demo".into(),
        proxy_via: names.iter().map(|name| format!("service={name}").parse().expect("a rule")).collect(),
        also_proxy: Vec::new(),
        never_proxy: Vec::new(),
        vnat: Vec::new(),
        allow_conflicting_subnets: Vec::new(),
        agent: AgentMode::Auto,
        agent_image: String::new(),
        dns: DnsMode::Auto,
        timeout_ms: 30_000,
    }
}

/// `name` is a deployment that asks for `replicas`.
pub fn found(name: &str, replicas: u32) -> (WorkloadRef, Resolution) {
    let reference = name.parse().expect("a reference");
    (reference, Resolution::Found { workload: workload(name), replicas: Some(replicas) })
}

impl SessionWorld {
    /// A world in which every child does well, `names` resolve as given, and waiters end as given.
    pub fn new(
        names: &[&str],
        resolutions: impl IntoIterator<Item = (WorkloadRef, Resolution)>,
        waiters: impl IntoIterator<Item = (Target, WaiterOutcome)>,
    ) -> Self {
        let mut world = SessionWorld {
            core: Held::new(SessionCore::new(spec(names), None)),
            now: Millis(0),
            senders: BTreeMap::new(),
            script: Held::new(Script {
                waiters: waiters.into_iter().collect(),
                resolutions: resolutions.into_iter().collect(),
                reached: Ok(()),
            }),
            watches_at_once: false,
            panics: 0,
            hanging_steps: 0,
            away: None,
            started: 0,
            children: false,
            steps_done: Vec::new(),
            outcomes: Vec::new(),
            asked: BTreeSet::new(),
            answered: Vec::new(),
            ended: 0,
            clean: false,
            removed: 0,
            faults: Vec::new(),
        };
        world.input(Input::Begin);
        world
    }

    /// The API server answers with this error.
    pub fn unreachable(mut self, error: UserError) -> Self {
        self.script.change(|script| script.reached = Err(error.clone()));
        let unreached = Unreached { error, outlook: Outlook::MayPass };
        self.senders.insert("API server", VecDeque::from([Held::new(Input::Reached(Err(unreached)))]));
        self
    }

    /// Nothing comes from the API server before the time of `connect` is over; then so many questions come to nothing, and
    /// the next has the answer that it would have had.
    pub fn away(mut self, questions: u32) -> Self {
        self.away = Some(questions);
        let of_cluster = ["API server", "PodWatcher", "PodWatcher's answer"];
        self.senders.retain(|sender, _| !of_cluster.contains(sender));
        self
    }

    /// The question to the API server comes to its end.
    fn reach(&mut self) {
        let reached = match self.away {
            None => self.script.reached.clone().map(|()| BTreeSet::new()),
            Some(0) => {
                self.away = None;
                self.resolve();
                self.watch();
                self.script.reached.clone().map(|()| BTreeSet::new())
            }
            Some(questions) => {
                self.away = Some(questions - 1);
                Err(UserError::new(Reason::ClusterUnreachable, "API server: silent", ""))
            }
        };
        let reached = reached.map_err(|error| Unreached { error, outlook: Outlook::MayPass });
        self.send("API server", Input::Reached(reached));
    }

    fn resolve(&mut self) {
        if !self.script.resolutions.is_empty() {
            self.send("PodWatcher's answer", Input::Resolved(self.script.resolutions.clone()));
        }
    }

    fn watch(&mut self) {
        if !self.watches_at_once {
            self.send("PodWatcher", Input::Watch(Generation(1), WatchHealth::Starting));
        }
        self.send("PodWatcher", Input::Watch(Generation(2), WatchHealth::Fresh));
    }

    /// The user disconnects, once for each reply.
    pub fn disconnects(self, replies: &[u64]) -> Self {
        self.asks(replies.iter().map(|id| Input::Disconnect { clean: false, reply: ReplyId(*id) }))
    }

    /// The user disconnects with `--clean`.
    pub fn cleans(self, reply: u64) -> Self {
        self.asks([Input::Disconnect { clean: true, reply: ReplyId(reply) }])
    }

    fn asks(mut self, inputs: impl IntoIterator<Item = Input>) -> Self {
        self.senders.entry("Control").or_default().extend(inputs.into_iter().map(Held::new));
        self
    }

    fn input(&mut self, input: Input) {
        if let Input::Disconnect { reply, clean } = &input {
            self.asked.insert(*reply);
            self.clean |= *clean && self.ended == 0;
        }
        let now = self.now;
        say(|| format!("Session takes {}", short(&input)));
        for effect in self.core.change(|core| effects(core, now, input)) {
            say(|| format!("Session: {}", short(&effect)));
            self.perform(effect);
        }
        if let Some(outcome) = self.core.outcome()
            && self.outcomes.last().map(|last| &**last) != Some(outcome)
        {
            let first = self.outcomes.is_empty();
            self.outcomes.push(Held::new(outcome.clone()));
            if first && self.away.is_some() && self.children {
                self.reach();
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        if self.ended > 0 && !matches!(effect, Effect::Publish | Effect::Answer(..)) {
            self.faults.push(format!("{effect:?} after the end"));
        }
        match effect {
            Effect::Start { .. } => {
                if self.children {
                    self.faults.push("children were started beside others".into());
                }
                self.started += 1;
                self.children = true;
                self.steps_done.clear();
                self.children_start();
            }
            Effect::Resolve(_) if self.away.is_none() => self.resolve(),
            Effect::Resolve(_) => {}
            Effect::Reach => {
                self.must_run("a question to the API server");
                if self.outcomes.is_empty() {
                    self.faults.push("the API server was asked again while connect waited".into());
                }
                self.reach();
            }
            Effect::Register(id, target, _) => self.registered(id, &target),
            Effect::Select(selection) => {
                self.must_run("a selection");
                assert!(!selection.rules.is_empty() || self.script.resolutions.is_empty());
                let state = ViaState { ready: true, plan: Generation(1), ..ViaState::default() };
                self.send("ProxyVia", Input::Via(Generation(1), state));
            }
            Effect::Teardown(step) => {
                if !self.children {
                    self.faults.push(format!("teardown step {step:?} without children"));
                }
                // Removing agents may be asked for while the rest goes on, or has been done.
                if step == TeardownStep::RemoveAgents {
                    self.removed += 1;
                } else {
                    let last = self.steps_done.last();
                    if last.is_some_and(|last| *last >= step) {
                        self.faults.push(format!("teardown step {step:?} after {last:?}"));
                    }
                    self.steps_done.push(step);
                }
                self.send("Teardown", Input::StepDone(step, Vec::new()));
            }
            Effect::DropChildren => {
                self.children = false;
                self.senders.retain(|sender, _| *sender == "Control");
            }
            Effect::Answer(reply, _) => self.answered.push(reply),
            Effect::End => self.ended += 1,
            Effect::Publish | Effect::Ask(_) => {}
        }
    }

    fn must_run(&mut self, what: &str) {
        if self.core.phase() == Phase::Disconnecting {
            self.faults.push(format!("{what} after teardown began"));
        }
    }

    fn children_start(&mut self) {
        if self.away.is_none() {
            self.watch();
        }
        if self.away.is_none() || !self.outcomes.is_empty() {
            self.reach();
        }
        let up = VifState::Up {
            ifindex: 7,
            name: "podway0".into(),
            applied: Generation(1),
            routes: Vec::new(),
            failed: BTreeMap::new(),
        };
        self.send("Vif", Input::Vif(Generation(1), up));
        let state = DnsState { ready: true, ..DnsState::default() };
        self.send("Dns", Input::Dns(Generation(1), state));
    }

    fn registered(&mut self, id: WaiterId, target: &Target) {
        self.must_run("a waiter");
        let outcome = self.script.waiters.get(target).cloned().expect("the scenario says how it ends");
        if let WaiterOutcome::Ready { pod } = &outcome {
            let link = LinkStatus {
                pod: pod.clone(),
                pod_name: "demo/pod".into(),
                placement: Placement::Ephemeral,
                image: "podway-agent:test".into(),
                version: "0.1.0".into(),
                state: LinkState::Ready,
            };
            let mut targets = BTreeMap::new();
            for (other, outcome) in &self.script.waiters {
                let ready = matches!(outcome, WaiterOutcome::Ready { .. });
                let links = if ready { vec![link.clone()] } else { Vec::new() };
                let pods = usize::from(ready);
                targets.insert(other.clone(), TargetState { pods, running: pods, links, hopeless: None });
            }
            self.send("ClientList", Input::Links(Generation(1), targets));
        }
        if outcome != WaiterOutcome::TimedOut {
            self.send("ClientList", Input::Settled(id, outcome));
        }
    }

    fn send(&mut self, sender: &'static str, input: Input) {
        self.senders.entry(sender).or_default().push_back(Held::new(input));
    }

    /// The steps that the user has been told.
    pub fn steps_told(&self) -> Vec<String> {
        let status = self.core.status(&SessionStatus::default(), self.now, 0, 0);
        status.steps.into_iter().map(|step| step.text).collect()
    }

    /// The only outcome there may be once everything has happened; `None` when a disconnect may come first.
    pub fn outcome(&self) -> Option<&ConnectOutcome> {
        self.outcomes.last().map(|outcome| &**outcome)
    }
}

/// `web` has a working link.
pub fn ready(name: &str) -> (Target, WaiterOutcome) {
    (target(name), WaiterOutcome::Ready { pod: "t".into() })
}

impl World for SessionWorld {
    type Step = Step;

    fn steps(&self) -> Vec<Step> {
        let mut steps: Vec<Step> =
            self.senders.iter().filter(|(_, queue)| !queue.is_empty()).map(|(name, _)| Step::Deliver(name)).collect();
        if self.panics > 0 && self.children {
            steps.push(Step::ChildPanics);
        }
        if self.hanging_steps > 0
            && let Some(front) = self.senders.get("Teardown").and_then(VecDeque::front)
            && let Input::StepDone(step, _) = &**front
        {
            steps.push(Step::TeardownHangs(*step));
        }
        if steps.is_empty() && self.core.poll_deadline().is_some() {
            steps.push(Step::TimePasses);
        }
        steps
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Deliver(sender) => {
                let input = self.senders.get_mut(sender).and_then(VecDeque::pop_front);
                self.input((*input.expect("steps() named a sender with something to send")).clone());
            }
            Step::ChildPanics => {
                self.panics -= 1;
                self.input(Input::ChildExited(Child::Vif, Exit::Panicked("a bug".into())));
            }
            Step::TeardownHangs(_) => {
                self.hanging_steps -= 1;
                self.senders.get_mut("Teardown").and_then(VecDeque::pop_front);
            }
            Step::TimePasses => {
                self.now = self.core.poll_deadline().expect("steps() said there is one");
                self.input(Input::Woke);
            }
        }
    }

    fn always(&self) -> Result<(), String> {
        if let Some(fault) = self.faults.first() {
            return Err(fault.clone());
        }
        let failed = |outcome: &Held<ConnectOutcome>| matches!(**outcome, ConnectOutcome::Failed(_));
        // A connection that was made may fail later; nothing else follows an outcome.
        if self.outcomes.len() > 1 && !(self.outcomes.len() == 2 && self.outcomes.last().is_some_and(failed)) {
            return Err(format!("{} outcomes", self.outcomes.len()));
        }
        let mut answered = self.answered.clone();
        answered.dedup();
        if answered.len() != self.answered.len() { Err("a disconnect was answered twice".into()) } else { Ok(()) }
    }

    fn quiescent(&self) -> Result<(), String> {
        if self.answered.iter().copied().collect::<BTreeSet<_>>() != self.asked {
            return Err(format!("asked {:?}, answered {:?}", self.asked, self.answered));
        }
        let over = self.core.phase() == Phase::Disconnected;
        if over != (self.ended == 1) || (over && self.children) {
            return Err("the end was not told, or left children behind".into());
        }
        if self.removed != u32::from(self.clean) {
            return Err(format!("agents were removed {} times, asked for: {}", self.removed, self.clean));
        }
        if !self.asked.is_empty() && !over {
            return Err("teardown did not end".into());
        }
        if self.asked.is_empty() && self.outcomes.is_empty() {
            return Err("connect has no outcome".into());
        }
        if self.away.is_some() && !over {
            return Err("the API server is not asked any more, and has not answered".into());
        }
        Ok(())
    }
}
