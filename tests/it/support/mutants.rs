//! Faults of the cores, each a rule that some core breaks: bent inputs, bent effects, lost timers. The cores themselves
//! know nothing of them; the product is compiled without.

use podway::actors::client_list::core::{self as clients, ClientListCore};
use podway::actors::pod_watcher::facts::Event;
use podway::actors::proxy_via::core as via;
use podway::actors::session::core as session;
use podway::actors::vif::core as vif;
use podway::ids::{Generation, Millis};

/// Faults in a whole connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// ClientList takes pods only while something is wanted: they are an edge.
    EdgeTriggered,
    /// ProxyVia takes ranges only after the selection.
    OrderDependentSelection,
    /// ProxyVia answers before it publishes.
    VipBeforeTable,
    /// PodWatcher's second list adds what it holds, and removes nothing.
    MissedRelist,
    /// Session answers one disconnect of several.
    ReplyDropped,
    /// ClientList is not woken.
    TimerLost,
    /// ClientList takes whatever fact comes last, however old.
    StaleGeneration,
    /// Dns hands out what it was told, untranslated.
    DnsHandsOutReal,
    /// Vif removes no route.
    RoutesStay,
    /// Daemon does not see that a connection is being ended.
    EndUnseen,
    /// Session's teardown leaves the device to others.
    DeviceForgotten,
}

/// What ClientList hears; `None`: nothing.
pub fn to_clients(
    mutant: Option<Mutant>,
    core: &ClientListCore,
    came: &mut Generation,
    input: clients::Input,
) -> Option<clients::Input> {
    match (mutant, input) {
        (Some(Mutant::EdgeTriggered), clients::Input::Pods(..)) if core.waiting().next().is_none() => None,
        (Some(Mutant::StaleGeneration), clients::Input::Pods(_, pods)) => {
            // Whatever comes is the newest.
            *came = came.next();
            Some(clients::Input::Pods(*came, pods))
        }
        (_, input) => Some(input),
    }
}

/// When ClientList is woken.
pub fn clients_deadline(mutant: Option<Mutant>, at: Option<Millis>) -> Option<Millis> {
    at.filter(|_| mutant != Some(Mutant::TimerLost))
}

/// What ProxyVia hears.
pub fn to_via(mutant: Option<Mutant>, selected: &mut bool, input: via::Input) -> Option<via::Input> {
    *selected |= matches!(input, via::Input::Select(_));
    match (mutant, input) {
        (Some(Mutant::OrderDependentSelection), via::Input::Cluster(..)) if !*selected => None,
        (_, input) => Some(input),
    }
}

/// What ProxyVia does.
pub fn via(mutant: Option<Mutant>, mut effects: Vec<via::Effect>) -> Vec<via::Effect> {
    if mutant == Some(Mutant::VipBeforeTable) {
        effects.sort_by_key(|effect| !matches!(effect, via::Effect::Answer(..)));
    }
    effects
}

/// What Session does.
pub fn session(mutant: Option<Mutant>, effects: Vec<session::Effect>) -> Vec<session::Effect> {
    let mut answers = 0;
    let mut keep = |effect: &session::Effect| {
        answers += u32::from(matches!(effect, session::Effect::Answer(..)));
        !(mutant == Some(Mutant::ReplyDropped) && answers > 1 && matches!(effect, session::Effect::Answer(..)))
    };
    effects.into_iter().filter(|effect| keep(effect)).collect()
}

/// What Vif does.
pub fn vif(mutant: Option<Mutant>, mut effects: Vec<vif::Effect>) -> Vec<vif::Effect> {
    for effect in &mut effects {
        if let vif::Effect::Apply(change) = effect
            && mutant == Some(Mutant::RoutesStay)
        {
            change.remove_routes.clear();
        }
    }
    effects
}

/// What PodWatcher hears of a list.
pub fn list(mutant: Option<Mutant>, again: bool, events: Vec<Event>) -> Vec<Event> {
    if mutant != Some(Mutant::MissedRelist) || !again {
        return events;
    }
    let added = |event| match event {
        Event::InitApply(key, fact) => Some(Event::Apply(key, fact)),
        Event::Init | Event::InitDone => None,
        other => Some(other),
    };
    events.into_iter().filter_map(added).collect()
}
