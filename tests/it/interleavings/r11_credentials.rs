//! Credentials end while keepers come and go, the user connects again, answers are late, and the connection is ended.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use podway::actors::pod_watcher::messages::WatchHealth;
use podway::actors::session::core::{Effect, Input, SessionCore};
use podway::actors::shell::Core as _;
use podway::ids::{AskId, Generation, KeeperId, Millis, ReplyId};

use crate::support::explore::{World, assert_holds, explore};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// The next of what a sender says.
    Says(&'static str),
    /// The keeper that was asked answers, whether it is still there or not.
    Gives(AskId),
    Forgoes(AskId),
    /// Time passes up to the core's next deadline.
    Waits,
}

#[derive(Clone, Debug)]
struct Keeping {
    core: SessionCore,
    now: Millis,
    senders: BTreeMap<&'static str, VecDeque<Input>>,
    /// Deadlines that may still be reached.
    waits: u32,
    /// Whether answers are taken up without a look at what they answer: a mistake for the explorer to find.
    credulous: bool,

    keepers: BTreeSet<KeeperId>,
    /// Which credentials there are: they are numbered as they are taken up.
    credentials: u32,
    refused: bool,
    ending: bool,
    /// Questions without an answer, and the credentials that were there when they were asked.
    questions: BTreeMap<AskId, u32>,
    faults: Vec<String>,
}

impl Keeping {
    fn new() -> Keeping {
        let spec = serde_json::json!({ "name": "demo", "namespace": "shop", "timeout_ms": 1 });
        let spec = serde_json::from_value(spec).expect("a spec");
        let mut world = Keeping {
            core: SessionCore::new(spec, Some(10)).lasting(Some(Duration::from_secs(10)), 0),
            now: Millis(0),
            senders: BTreeMap::new(),
            waits: 4,
            credulous: false,
            keepers: BTreeSet::new(),
            credentials: 0,
            refused: false,
            ending: false,
            questions: BTreeMap::new(),
            faults: Vec::new(),
        };
        world.input(Input::Begin);
        // The connect is over: its deadline is none of these.
        world.now = Millis(1);
        world.input(Input::Woke);
        world
    }

    fn says(mut self, sender: &'static str, inputs: impl IntoIterator<Item = Input>) -> Self {
        self.senders.insert(sender, inputs.into_iter().collect());
        self
    }

    fn input(&mut self, input: Input) {
        match &input {
            Input::KeeperCame(keeper) => {
                self.keepers = BTreeSet::from([*keeper]);
            }
            Input::KeeperWent(keeper) => {
                self.keepers.remove(keeper);
            }
            // As good as there: what was asked for before is none of the like.
            Input::RenewedByHand => {
                self.credentials += 1;
                self.keepers.clear();
            }
            Input::Renewed { .. } => {
                self.credentials += 1;
                self.refused = false;
            }
            Input::Watch(_, health) => self.refused = matches!(health, WatchHealth::Unauthorized { .. }),
            Input::Disconnect { .. } => self.ending = true,
            _ => {}
        }
        self.core.handle(self.now, input);
        while let Some(effect) = self.core.poll_effect() {
            let Effect::Ask(ask) = effect else { continue };
            if self.keepers.is_empty() || self.ending {
                self.faults.push(format!("question {} with nobody to ask, or too late", ask.id));
            }
            if self.questions.insert(ask.id, self.credentials).is_some() {
                self.faults.push(format!("question {} twice", ask.id));
            }
        }
    }

    fn gives(&mut self, ask: AskId) {
        let asked_of = self.questions.remove(&ask);
        let accepted = self.credulous || self.core.accepts(Some(ask));
        if accepted && asked_of != Some(self.credentials) {
            self.faults.push(format!("the answer to {ask} takes the place of newer credentials"));
        }
        if !accepted && asked_of == Some(self.credentials) {
            self.faults.push(format!("the answer to {ask} is thrown away, and there are no newer credentials"));
        }
        if accepted {
            let lasts = Some(Duration::from_secs(10));
            self.input(Input::Renewed { ask: Some(ask), expires_at: Some(100 + i64::from(self.credentials)), lasts });
        }
    }
}

impl World for Keeping {
    type Step = Step;

    fn steps(&self) -> Vec<Step> {
        let says = self.senders.iter().filter(|(_, inputs)| !inputs.is_empty()).map(|(name, _)| Step::Says(name));
        let answers = self.questions.keys().flat_map(|ask| [Step::Gives(*ask), Step::Forgoes(*ask)]);
        let waits =
            (self.waits > 0 && self.core.is_running() && self.core.poll_deadline().is_some()).then_some(Step::Waits);
        says.chain(answers).chain(waits).collect()
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Says(name) => {
                let input = self.senders.get_mut(name).and_then(VecDeque::pop_front).expect("it was a step");
                self.input(input);
            }
            Step::Gives(ask) => self.gives(*ask),
            Step::Forgoes(ask) => {
                self.questions.remove(ask);
                self.input(Input::NotRenewed(Some(*ask), "no login".into()));
            }
            Step::Waits => {
                self.waits -= 1;
                self.now = self.core.poll_deadline().expect("it was a step").max(self.now);
                self.input(Input::Woke);
            }
        }
    }

    fn always(&self) -> Result<(), String> {
        if let Some(fault) = self.faults.first() {
            return Err(fault.clone());
        }
        // Nothing is lost: whoever can be asked is, or will be.
        let may_ask = self.core.is_running() && !self.keepers.is_empty();
        if may_ask && self.core.poll_deadline().is_none() {
            return Err(format!("a keeper is there, and nobody will ask it (refused: {})", self.refused));
        }
        Ok(())
    }

    fn quiescent(&self) -> Result<(), String> {
        Ok(())
    }
}

fn refused(generation: u64) -> Input {
    Input::Watch(Generation(generation), WatchHealth::Unauthorized { why: "expired".into() })
}

fn scenario() -> Keeping {
    let again = Input::Renewed { ask: None, expires_at: Some(50), lasts: Some(Duration::from_secs(40)) };
    Keeping::new()
        .says("keeper 1", [Input::KeeperCame(KeeperId(1)), Input::KeeperWent(KeeperId(1))])
        .says("PodWatcher", [refused(1), Input::Watch(Generation(2), WatchHealth::Fresh)])
        .says("user", [Input::RenewedByHand, again, Input::Disconnect { clean: false, reply: ReplyId(1) }])
}

#[test]
fn no_question_is_lost_and_no_answer_replaces_newer_credentials() {
    let explored = assert_holds(scenario());
    assert!(explored.states > 1000, "{explored:?}");
}

#[test]
fn a_second_keeper_takes_over_in_every_order() {
    let second = [Input::KeeperCame(KeeperId(2)), Input::KeeperWent(KeeperId(2))];
    let mut world = Keeping::new()
        .says("keeper 1", [Input::KeeperWent(KeeperId(1))])
        .says("keeper 2", second)
        .says("PodWatcher", [refused(1)]);
    world.input(Input::KeeperCame(KeeperId(1)));
    world.waits = 3;
    assert_holds(world);
}

#[test]
fn the_explorer_finds_an_answer_that_is_taken_up_too_late() {
    let mut world = scenario();
    world.credulous = true;
    let broken = explore(world).expect_err("newer credentials are lost");
    assert!(broken.why.contains("takes the place of newer credentials"), "{broken:?}");
}
