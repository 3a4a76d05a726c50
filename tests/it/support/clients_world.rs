//! The world around ClientList: who sends to it, and what its effects can come to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;

use podway::actors::client_list::core::{ClientListCore, DialOutcome, Effect, Input};
use podway::actors::client_list::messages::WaiterOutcome;
use podway::actors::shell::Core;
use podway::cluster::PodSnapshot;
use podway::ids::{Attempt, Millis, WaiterId};
use podway::net::views::Target;
use podway::workload::PodUid;

use super::explore::World;
use super::facts::connected;
use super::story::{say, short};

/// Whatever claims to be a client list.
pub trait Machine: Clone + Debug {
    fn handle(&mut self, now: Millis, input: Input);
    fn poll_effect(&mut self) -> Option<Effect>;
    fn poll_deadline(&self) -> Option<Millis>;
}

impl Machine for ClientListCore {
    fn handle(&mut self, now: Millis, input: Input) {
        Core::handle(self, now, input);
    }
    fn poll_effect(&mut self) -> Option<Effect> {
        Core::poll_effect(self)
    }
    fn poll_deadline(&self) -> Option<Millis> {
        Core::poll_deadline(self)
    }
}

/// One client list, its senders, its dials.
#[derive(Clone, Debug)]
pub struct ClientsWorld<M> {
    machine: M,
    now: Millis,
    /// One queue for each sender.
    senders: BTreeMap<&'static str, VecDeque<Input>>,
    /// Dials that have not ended.
    dials: BTreeSet<(PodUid, Attempt)>,
    /// Links that stand.
    links: BTreeSet<(PodUid, Attempt)>,
    /// Pods whose agent was reached and is not given up.
    reached: BTreeSet<PodUid>,
    /// Dials that were ended, but whose result is on its way all the same.
    overtaken: BTreeSet<(PodUid, Attempt)>,
    /// How many dials that were ended give their result all the same.
    pub late_results: u32,
    /// How many dials may still fail, how many links may still be lost, how often time may pass early.
    pub failing_dials: u32,
    pub lost_links: u32,
    pub early_deadlines: u32,
    /// What was seen.
    pods: Option<std::sync::Arc<PodSnapshot>>,
    registered: BTreeMap<WaiterId, (Target, Millis)>,
    answers: BTreeMap<WaiterId, Vec<WaiterOutcome>>,
    published: BTreeSet<PodUid>,
    hung_up: bool,
    faults: Vec<String>,
}

/// One thing that can happen.
#[derive(Clone, Debug)]
pub enum Step {
    Deliver(&'static str, String),
    DialOk(PodUid, Attempt),
    DialFails(PodUid, Attempt),
    LateResult(PodUid, Attempt, DialOutcome),
    LinkLost(PodUid, Attempt),
    TimePasses,
}

impl<M: Machine> ClientsWorld<M> {
    pub fn new(machine: M) -> Self {
        ClientsWorld {
            machine,
            now: Millis(0),
            senders: BTreeMap::new(),
            dials: BTreeSet::new(),
            links: BTreeSet::new(),
            reached: BTreeSet::new(),
            overtaken: BTreeSet::new(),
            late_results: 0,
            failing_dials: 0,
            lost_links: 0,
            early_deadlines: 0,
            pods: None,
            registered: BTreeMap::new(),
            answers: BTreeMap::new(),
            published: BTreeSet::new(),
            hung_up: false,
            faults: Vec::new(),
        }
    }

    /// `sender` will send these, in this order.
    pub fn sends(mut self, sender: &'static str, inputs: impl IntoIterator<Item = Input>) -> Self {
        self.senders.entry(sender).or_default().extend(inputs);
        self
    }

    /// How each waiter was answered, in a quiescent world.
    pub fn answers(&self) -> &BTreeMap<WaiterId, Vec<WaiterOutcome>> {
        &self.answers
    }

    fn input(&mut self, input: Input) {
        match &input {
            Input::Pods(_, pods) => self.pods = Some(pods.clone()),
            Input::Register { id, target, deadline } => {
                self.registered.insert(*id, (target.clone(), *deadline));
            }
            Input::HangUpAll(_) => self.hung_up = true,
            _ => {}
        }
        say(|| format!("ClientList takes {}", short(&input)));
        self.machine.handle(self.now, input);
        while let Some(effect) = self.machine.poll_effect() {
            say(|| format!("ClientList: {}", short(&effect)));
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Dial { pod, attempt, .. } => {
                if self.hung_up {
                    self.faults.push(format!("{} was dialled after teardown began", pod.name));
                }
                let twice = self.dials.iter().chain(&self.links).any(|(uid, _)| *uid == pod.uid);
                if twice {
                    self.faults.push(format!("two live clients for pod {}", pod.uid));
                }
                self.dials.insert((pod.uid.clone(), attempt));
            }
            Effect::Abandon { pod } => {
                if !self.reached.remove(&pod) {
                    self.faults.push(format!("{pod} was given up, and had not been reached"));
                }
            }
            Effect::HangUp { pod, attempt } => {
                if self.dials.remove(&(pod.clone(), attempt)) && self.late_results > 0 {
                    self.late_results -= 1;
                    self.overtaken.insert((pod.clone(), attempt));
                }
                self.links.remove(&(pod, attempt));
            }
            Effect::Publish(table) => {
                let links = table.workloads.values().flatten().chain(&table.general);
                self.published = links.map(|link| link.pod.uid.clone()).collect();
            }
            Effect::Settle { id, outcome } => {
                if let WaiterOutcome::Ready { pod } = &outcome
                    && !self.published.contains(pod)
                {
                    self.faults.push(format!("waiter {id} was told of {pod}, which no table names"));
                }
                if let WaiterOutcome::Ready { pod } = &outcome
                    && !self.links.iter().any(|(uid, _)| uid == pod)
                {
                    self.faults.push(format!("waiter {id} was told of {pod}, whose agent nobody has reached"));
                }
                if outcome == WaiterOutcome::TimedOut
                    && let Some((target, _)) = self.registered.get(&id)
                    && self.is_there(target)
                    && self.links.iter().any(|(uid, _)| self.belongs(uid, target))
                {
                    self.faults.push(format!("waiter {id} timed out although {target:?} has a working link"));
                }
                self.answers.entry(id).or_default().push(outcome);
            }
            Effect::TellLinks(..) | Effect::TellUnfit(..) | Effect::HungUp(_) => {}
        }
    }

    fn belongs(&self, uid: &PodUid, target: &Target) -> bool {
        self.pods.as_ref().and_then(|pods| pods.pods.get(uid)).is_some_and(|pod| match target {
            Target::Workload(workload) => pod.workload == *workload,
            Target::General => pod.own_pod_of.is_some(),
        })
    }

    /// Whether the newest snapshot holds a pod of `target` with a running agent.
    fn is_there(&self, target: &Target) -> bool {
        self.pods
            .iter()
            .flat_map(|pods| pods.pods.values())
            .any(|pod| !pod.agents.is_empty() && !pod.terminating && self.belongs(&pod.uid, target))
    }

    fn unanswered(&self) -> impl Iterator<Item = (WaiterId, &Target, Millis)> {
        let open = self.registered.iter().filter(|(id, _)| !self.answers.contains_key(id));
        open.map(|(id, (target, deadline))| (*id, target, *deadline))
    }
}

impl<M: Machine> World for ClientsWorld<M> {
    type Step = Step;

    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (sender, queue) in &self.senders {
            if let Some(input) = queue.front() {
                let name = format!("{input:?}").chars().take_while(|c| c.is_alphanumeric()).collect();
                steps.push(Step::Deliver(sender, name));
            }
        }
        for (uid, attempt) in &self.dials {
            steps.push(Step::DialOk(uid.clone(), *attempt));
            if self.failing_dials > 0 {
                steps.push(Step::DialFails(uid.clone(), *attempt));
            }
        }
        for (uid, attempt) in &self.overtaken {
            for outcome in [connected(), DialOutcome::Refused] {
                steps.push(Step::LateResult(uid.clone(), *attempt, outcome));
            }
        }
        if self.lost_links > 0 {
            steps.extend(self.links.iter().map(|(uid, attempt)| Step::LinkLost(uid.clone(), *attempt)));
        }
        // Time passes when nothing else can happen, or as often as the scenario lets it pass early.
        if self.machine.poll_deadline().is_some() && (steps.is_empty() || self.early_deadlines > 0) {
            steps.push(Step::TimePasses);
        }
        steps
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Deliver(sender, _) => {
                let input = self.senders.get_mut(sender).and_then(VecDeque::pop_front);
                self.input(input.expect("steps() named a sender with something to send"));
            }
            Step::DialOk(pod, attempt) => {
                self.dials.remove(&(pod.clone(), *attempt));
                self.links.insert((pod.clone(), *attempt));
                self.reached.insert(pod.clone());
                let outcome = connected();
                self.input(Input::DialFinished { pod: pod.clone(), attempt: *attempt, outcome });
            }
            Step::DialFails(pod, attempt) => {
                self.failing_dials -= 1;
                self.dials.remove(&(pod.clone(), *attempt));
                let outcome = DialOutcome::Refused;
                self.input(Input::DialFinished { pod: pod.clone(), attempt: *attempt, outcome });
            }
            Step::LateResult(pod, attempt, outcome) => {
                self.overtaken.remove(&(pod.clone(), *attempt));
                let (pod, outcome) = (pod.clone(), outcome.clone());
                self.input(Input::DialFinished { pod, attempt: *attempt, outcome });
            }
            Step::LinkLost(pod, attempt) => {
                self.lost_links -= 1;
                self.links.remove(&(pod.clone(), *attempt));
                self.input(Input::LinkLost { pod: pod.clone(), attempt: *attempt, why: "cut".into() });
            }
            Step::TimePasses => {
                let quiet = self.steps().len() == 1;
                self.early_deadlines = self.early_deadlines.saturating_sub(u32::from(!quiet));
                self.now = self.machine.poll_deadline().expect("steps() said there is one");
                let due = self.unanswered().find(|(_, target, at)| quiet && *at <= self.now && self.is_there(target));
                if let Some((id, target, _)) = due {
                    self.faults.push(format!("lost wake-up: waiter {id} waits for {target:?}, which is there"));
                }
                self.input(Input::Woke);
            }
        }
    }

    fn always(&self) -> Result<(), String> {
        if let Some(fault) = self.faults.first() {
            return Err(fault.clone());
        }
        if let Some((pod, _)) = self.links.iter().find(|(pod, _)| !self.reached.contains(pod)) {
            return Err(format!("{pod} was given up, and has a link"));
        }
        match self.answers.iter().find(|(_, answers)| answers.len() > 1) {
            Some((id, answers)) => Err(format!("waiter {id} was answered {} times: {answers:?}", answers.len())),
            None => Ok(()),
        }
    }

    fn quiescent(&self) -> Result<(), String> {
        match self.unanswered().next() {
            Some((id, target, _)) => Err(format!("waiter {id} for {target:?} was never answered")),
            None => Ok(()),
        }
    }
}
