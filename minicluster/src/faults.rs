//! What goes wrong on purpose: rules that tests set and withdraw.
//!
//! A rule says whom it is about ([`Matcher`]), what happens ([`Fault`]) and how often. Rules are data, so that they can
//! also be set from outside ([`Command`]). Those about connections are levels: each connection is always as the rules in
//! force say, whether it was there before the rule or came after it.

pub mod link;
pub mod rule;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde_json::{Value, json};
use tokio::sync::watch;

use self::link::{Link, Mode};
use self::rule::Scope;
pub use self::rule::{Command, Fault, Matcher, Rule, Way, Who};

/// The faults in force. A clone is another handle to the same ones.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    /// Counts changes of rules, for those that wait for one to be withdrawn.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    rules: Vec<Active>,
    links: Vec<Weak<Link>>,
    /// How many requests of a verb for a resource came.
    requests: BTreeMap<(String, String), u64>,
}

/// Most kinds of requests that are counted: resources are few, paths are anything.
const KINDS: usize = 1024;

#[derive(Debug)]
struct Active {
    id: u64,
    rule: Rule,
    left: Option<u32>,
    /// Connections and watches that a counted rule has been spent on: no more than its count.
    spent: BTreeSet<u64>,
}

impl Active {
    fn spend(&mut self) -> bool {
        match &mut self.left {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }

    /// Whether the rule is in force for something that lasts, which uses it up once.
    fn holds(&mut self, id: u64) -> bool {
        if self.left.is_none() || self.spent.contains(&id) {
            return true;
        }
        let spent = self.spend();
        if spent {
            self.spent.insert(id);
        }
        spent
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

impl Faults {
    /// None in force.
    pub fn new() -> Faults {
        Faults::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets a rule; its number is for [`withdraw`](Faults::withdraw).
    pub fn set(&self, rule: Rule) -> u64 {
        let mut state = self.state();
        let id = state.number();
        state.rules.push(Active { id, left: rule.times, rule, spent: BTreeSet::new() });
        self.changed(state);
        id
    }

    /// Ends a rule; says whether it was still there.
    pub fn withdraw(&self, id: u64) -> bool {
        let mut state = self.state();
        let before = state.rules.len();
        state.rules.retain(|active| active.id != id);
        let was = state.rules.len() < before;
        self.changed(state);
        was
    }

    /// Ends all rules.
    pub fn clear(&self) {
        let mut state = self.state();
        state.rules.clear();
        self.changed(state);
    }

    /// Cuts the connections that are there now and whose latest request matches; says how many. `reset`: by RST.
    pub fn cut(&self, on: &Matcher, reset: bool) -> usize {
        let links: Vec<Arc<Link>> = self.state().links.iter().filter_map(Weak::upgrade).collect();
        let mut cut = 0;
        for link in links {
            if on.matches(link.who().as_ref()) && link.set(Mode::Cut { reset }) {
                cut += 1;
            }
        }
        cut
    }

    /// How many connections there are whose latest request matches.
    pub fn connections(&self, on: &Matcher) -> usize {
        let links: Vec<Arc<Link>> = self.state().links.iter().filter_map(Weak::upgrade).collect();
        links.iter().filter(|link| on.matches(link.who().as_ref())).count()
    }

    /// How many requests with the verb and the resource of `on` came so far.
    pub fn requests(&self, on: &Matcher) -> u64 {
        let state = self.state();
        let counted = state.requests.iter().filter(|((verb, resource), _)| {
            let who = Who { verb: verb.clone(), resource: resource.clone(), ..Who::default() };
            on.matches(Some(&who))
        });
        counted.map(|(_, count)| count).sum()
    }

    /// Does what a control line says; answers with the rule's number, or a count, or nothing.
    ///
    /// # Errors
    /// What cannot be understood.
    pub fn control(&self, line: Value) -> Result<Value, String> {
        let command: Command = serde_json::from_value(line).map_err(|error| error.to_string())?;
        Ok(match command {
            Command::Set { rule } => json!(self.set(rule)),
            Command::Withdraw { id } => json!(self.withdraw(id)),
            Command::Clear => {
                self.clear();
                Value::Null
            }
            Command::Cut { on, reset } => json!(self.cut(&on, reset)),
            Command::Requests { on } => json!(self.requests(&on)),
            Command::Connections { on } => json!(self.connections(&on)),
        })
    }

    /// Brings every connection to what the rules say.
    fn changed(&self, mut state: MutexGuard<'_, State>) {
        state.links.retain(|link| link.strong_count() > 0);
        let links: Vec<Arc<Link>> = state.links.iter().filter_map(Weak::upgrade).collect();
        for link in links {
            let mode = mode_of(&mut state.rules, &link);
            link.set(mode);
        }
        drop(state);
        self.0.changes.send_modify(|count| *count += 1);
    }

    /// A new connection, which asked for nothing yet.
    pub(crate) fn connected(&self) -> Arc<Link> {
        let mut state = self.state();
        let link = Arc::new(Link::new(state.number()));
        state.links.retain(|link| link.strong_count() > 0);
        state.links.push(Arc::downgrade(&link));
        let mode = mode_of(&mut state.rules, &link);
        link.set(mode);
        link
    }

    /// A request on a connection: what happens to it, in the order of the rules, which it uses up.
    pub(crate) fn requested(&self, link: &Arc<Link>, who: &Who) -> Vec<Met> {
        link.asks(who.clone());
        let mut state = self.state();
        let kind = (who.verb.clone(), who.resource.clone());
        if state.requests.len() < KINDS || state.requests.contains_key(&kind) {
            *state.requests.entry(kind).or_default() += 1;
        }
        let mut met = Vec::new();
        for active in &mut state.rules {
            if active.rule.fault.scope() == Scope::Request && active.rule.on.matches(Some(who)) && active.spend() {
                met.push(Met { id: active.id, fault: active.rule.fault.clone() });
            }
        }
        let mode = mode_of(&mut state.rules, link);
        link.set(mode);
        met
    }

    /// A number for a watch.
    pub(crate) fn watching(&self) -> u64 {
        self.state().number()
    }

    /// What happens to the events of a watch now.
    pub(crate) fn watched(&self, id: u64, who: &Who) -> Vec<Fault> {
        let mut state = self.state();
        let mut met = Vec::new();
        for active in &mut state.rules {
            if active.rule.fault.scope() == Scope::Watch && active.rule.on.matches(Some(who)) && active.holds(id) {
                met.push(active.rule.fault.clone());
            }
        }
        met
    }

    /// Whether the server is there for nobody.
    pub(crate) fn is_away(&self) -> bool {
        self.state().rules.iter().any(|active| active.rule.fault == Fault::Away)
    }

    /// Changes whenever the rules do.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Returns once that rule is no longer in force.
    pub(crate) async fn withdrawn(&self, id: u64) {
        let mut changes = self.0.changes.subscribe();
        loop {
            if !self.state().rules.iter().any(|active| active.id == id) {
                return;
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

/// A fault that a request met.
#[derive(Clone, Debug)]
pub(crate) struct Met {
    /// The rule's number.
    pub id: u64,
    /// What happens.
    pub fault: Fault,
}

/// What the rules make of a connection: the first that matches decides.
fn mode_of(rules: &mut [Active], link: &Arc<Link>) -> Mode {
    let who = link.who();
    for active in rules {
        let Some(mode) = active.rule.fault.mode() else { continue };
        if active.rule.on.matches(who.as_ref()) && active.holds(link.id()) {
            return mode;
        }
    }
    Mode::Normal
}

#[cfg(test)]
mod tests;
