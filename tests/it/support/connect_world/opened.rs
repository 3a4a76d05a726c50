//! Which misfortunes a scenario opens, and for whom: read off what it is made of.

use std::collections::BTreeSet;

use super::*;

impl ConnectWorld {
    /// The actors whose real cores are joined.
    pub fn joins(&self) -> BTreeSet<Part> {
        let mut parts = BTreeSet::from([Session, ClientList, AgentPlacer, ProxyVia, Vif]);
        parts.extend(self.watcher.as_ref().map(|_| PodWatcher));
        parts.extend(self.dns.as_ref().map(|_| Dns));
        parts.extend(self.daemon.as_ref().map(|_| Daemon));
        parts
    }

    /// The misfortunes.
    pub fn opens(&self) -> BTreeSet<(Part, Dimension)> {
        let joined = self.joins();
        let mut opened = BTreeSet::new();
        let fails = [
            (self.failing_dials, ClientList),
            (self.failing_placements, AgentPlacer),
            (self.failing_routes, Vif),
            (self.failing_names, Dns),
            (self.failing_lists, PodWatcher),
        ];
        opened.extend(fails.into_iter().filter(|(n, _)| *n > 0).map(|(_, part)| (part, Dimension::Failure)));
        for waits in &self.never {
            let (part, also) = match waits {
                Waits::Start => (Session, None),
                // Without ranges, ProxyVia waits for ever.
                Waits::Watch | Waits::Gather => (PodWatcher, Some(ProxyVia)),
                Waits::Dial => (ClientList, None),
                Waits::Place => (AgentPlacer, None),
                Waits::Device | Waits::Routes | Waits::Undo => (Vif, None),
                Waits::Names => (Dns, None),
                // A session that does not end is what Daemon waits for.
                Waits::Teardown => (Session, Some(Daemon)),
            };
            opened.insert((part, Dimension::Never));
            opened.extend(also.map(|part| (part, Dimension::Never)));
        }
        if self.early_deadlines > 0 {
            let timed = joined.iter().filter(|part| **part != ProxyVia);
            opened.extend(timed.map(|part| (*part, Dimension::Deadline)));
        }
        if self.slow.1.contains(&Waits::Gather) {
            opened.insert((PodWatcher, Dimension::Deadline));
        }
        for event in self.senders.values().flatten() {
            match &*event.event {
                Event::Panics(part) => drop(opened.insert((*part, Dimension::Panic))),
                Event::Crash => opened.extend(joined.iter().map(|part| (*part, Dimension::Crash))),
                Event::Again(_, to) => drop(opened.insert((*to, Dimension::Repeated))),
                Event::WatchEnds => drop(opened.insert((PodWatcher, Dimension::Failure))),
                Event::CarrierLost => drop(opened.insert((ClientList, Dimension::Failure))),
                // The same request twice.
                Event::Connect => drop(opened.insert((Daemon, Dimension::Repeated))),
                _ => {}
            }
        }
        opened.retain(|(part, _)| joined.contains(part));
        opened
    }
}
