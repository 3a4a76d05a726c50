//! What the device shall be, what it is, and what to do about the difference. Pure.
//!
//! ```text
//!   Down ──Open──▶ Opening ──Opened──▶ Up ──StopDataPlane──▶ (data plane stopped) ──Close──▶ Closed
//!                     └── error ──▶ Failed ◀── device gone
//!   Plan ──▶ desired ── minus applied ──▶ Apply (one at a time) ──▶ applied
//! ```
//!
//! Invariants: at most one `Apply` is outstanding; nothing is applied before the device is there or after it is closed;
//! each reply is answered exactly once; `applied` is told only when the newest plan is on the device, wholly or but for
//! what the host refused of IPv6, which is told with it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::messages::VifState;
use crate::actors::shell::Core;
use crate::backoff::doubling;
use crate::ids::{Generation, Millis, ReplyId};
use crate::net::cidr::Cidr;
use crate::net::route_plan::RoutePlan;

/// The first pause before what failed is tried again; doubles up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What goes in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Input {
    /// Make the device.
    Open {
        /// Name.
        device: String,
        /// MTU.
        mtu: u32,
    },
    /// The device is there and up, with this index; or why not.
    Opened(Result<u32, String>),
    /// Fact of ProxyVia.
    Plan(Generation, RoutePlan),
    /// An `Apply` ended.
    Applied {
        /// Of which plan.
        generation: Generation,
        /// What failed: destination to cause.
        failed: BTreeMap<String, String>,
    },
    /// The data plane ended by itself: the device is gone.
    DataPlaneEnded(String),
    /// No more flows.
    StopDataPlane(ReplyId),
    /// No flow is left.
    DataPlaneStopped,
    /// Remove the device.
    Close(ReplyId),
    /// The device is gone as asked.
    Closed,
    /// Time has passed.
    Woke,
}

/// What the shell shall do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Make the device and start the data plane; answered by `Opened`.
    Open {
        /// Name.
        device: String,
        /// MTU.
        mtu: u32,
    },
    /// Change addresses and routes; answered by `Applied`.
    Apply(Change),
    /// End all flows; answered by `DataPlaneStopped`.
    StopDataPlane,
    /// Remove the device; answered by `Closed`.
    Close,
    /// Complete a reply.
    Answer(ReplyId),
    /// Tell the state.
    Tell(Generation, VifState),
}

/// The way from what is on the device to what shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Of this plan.
    pub generation: Generation,
    /// Index of the device.
    pub ifindex: u32,
    /// New addresses.
    pub add_addresses: BTreeSet<Cidr>,
    /// Old addresses.
    pub remove_addresses: BTreeSet<Cidr>,
    /// New destinations.
    pub add_routes: BTreeSet<Cidr>,
    /// Old destinations.
    pub remove_routes: BTreeSet<Cidr>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Down,
    Opening,
    Up { ifindex: u32 },
    Closing,
    Closed,
    Failed { why: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Flows {
    Running,
    Stopping,
    Stopped,
}

/// The core of Vif.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VifCore {
    phase: Phase,
    flows: Flows,
    device: Arc<str>,
    desired: (Generation, RoutePlan),
    applied: RoutePlan,
    /// What could not be added, or so it was said: removed all the same when no longer wanted.
    doubtful: RoutePlan,
    /// The newest plan that is applied.
    applied_generation: Generation,
    outstanding: Option<Change>,
    failed: BTreeMap<String, String>,
    /// Which plan the failures belong to, how often in a row, and when to try again.
    retry: Option<(Generation, u32, Millis)>,
    wants_stop: BTreeSet<ReplyId>,
    wants_close: BTreeSet<ReplyId>,
    told: (Generation, VifState),
    effects: VecDeque<Effect>,
}

impl Default for VifCore {
    fn default() -> Self {
        VifCore::new()
    }
}

impl VifCore {
    /// No device yet.
    pub fn new() -> Self {
        VifCore {
            phase: Phase::Down,
            flows: Flows::Running,
            device: "".into(),
            desired: (Generation(0), RoutePlan::default()),
            applied: RoutePlan::default(),
            doubtful: RoutePlan::default(),
            applied_generation: Generation(0),
            outstanding: None,
            failed: BTreeMap::new(),
            retry: None,
            wants_stop: BTreeSet::new(),
            wants_close: BTreeSet::new(),
            told: (Generation(0), VifState::Down),
            effects: VecDeque::new(),
        }
    }

    fn store(&mut self, now: Millis, input: Input) {
        match input {
            Input::Open { device, mtu } => {
                // Down => Opening
                if self.phase == Phase::Down {
                    self.device = device.as_str().into();
                    self.phase = Phase::Opening;
                    self.effects.push_back(Effect::Open { device, mtu });
                }
            }
            Input::Opened(result) => {
                // Opening => Up | Failed
                if self.phase == Phase::Opening {
                    self.phase = match result {
                        Ok(ifindex) => Phase::Up { ifindex },
                        Err(why) => Phase::Failed { why },
                    };
                }
            }
            Input::Plan(generation, plan) => {
                if generation > self.desired.0 {
                    self.desired = (generation, plan);
                }
            }
            Input::Applied { generation, failed } => self.applied(now, generation, failed),
            Input::DataPlaneEnded(why) => {
                // Opening | Up => Failed
                let expected = self.flows != Flows::Running || !matches!(self.phase, Phase::Opening | Phase::Up { .. });
                if !expected {
                    self.phase = Phase::Failed { why };
                }
            }
            Input::StopDataPlane(reply) => {
                self.wants_stop.insert(reply);
            }
            Input::DataPlaneStopped => {
                if self.flows == Flows::Stopping {
                    self.flows = Flows::Stopped;
                }
            }
            Input::Close(reply) => {
                self.wants_close.insert(reply);
            }
            Input::Closed => {
                // Closing => Closed
                if self.phase == Phase::Closing {
                    self.phase = Phase::Closed;
                }
            }
            Input::Woke => {}
        }
    }

    fn applied(&mut self, now: Millis, generation: Generation, failed: BTreeMap<String, String>) {
        let Some(change) = self.outstanding.take_if(|change| change.generation == generation) else { return };
        let worked = |cidr: &&Cidr| !failed.contains_key(&cidr.to_string());
        self.applied.addresses.extend(change.add_addresses.iter().filter(worked));
        self.applied.routes.extend(change.add_routes.iter().filter(worked));
        let doubtful = |cidr: &&Cidr| failed.contains_key(&cidr.to_string());
        self.doubtful.addresses.extend(change.add_addresses.iter().filter(doubtful));
        self.doubtful.routes.extend(change.add_routes.iter().filter(doubtful));
        for gone in change.remove_addresses.iter().filter(worked) {
            self.applied.addresses.remove(gone);
            self.doubtful.addresses.remove(gone);
        }
        for gone in change.remove_routes.iter().filter(worked) {
            self.applied.routes.remove(gone);
            self.doubtful.routes.remove(gone);
        }
        // A host can refuse one family for good: the other must not wait for it.
        if failed.keys().all(|destination| destination.contains(':')) {
            self.applied_generation = generation;
        }
        if failed.is_empty() {
            self.retry = None;
        } else {
            let tries = match self.retry {
                Some((of, tries, _)) if of == generation => tries + 1,
                Some(_) | None => 1,
            };
            self.retry = Some((generation, tries, now + pause(tries)));
        }
        self.failed = failed;
    }

    /// Recomputes what to do from all state.
    fn reconcile(&mut self, now: Millis) {
        self.stop_flows();
        self.close();
        self.apply(now);
    }

    fn stop_flows(&mut self) {
        let wanted = !self.wants_stop.is_empty() || !self.wants_close.is_empty();
        // While the device is being made, its data plane may start any moment: wait for it.
        if wanted && self.flows == Flows::Running && self.phase != Phase::Opening {
            self.flows = match self.phase {
                Phase::Up { .. } => {
                    self.effects.push_back(Effect::StopDataPlane);
                    Flows::Stopping
                }
                Phase::Down | Phase::Opening | Phase::Closing | Phase::Closed | Phase::Failed { .. } => Flows::Stopped,
            };
        }
        if self.flows == Flows::Stopped {
            let replies = std::mem::take(&mut self.wants_stop);
            self.effects.extend(replies.into_iter().map(Effect::Answer));
        }
    }

    fn close(&mut self) {
        if self.wants_close.is_empty() {
            return;
        }
        match self.phase {
            // Down => Closed
            Phase::Down => self.phase = Phase::Closed,
            // Up | Failed => Closing; not while the device is being changed, so that it ends in order.
            Phase::Up { .. } | Phase::Failed { .. } if self.flows == Flows::Stopped && self.outstanding.is_none() => {
                self.phase = Phase::Closing;
                self.effects.push_back(Effect::Close);
            }
            Phase::Up { .. } | Phase::Failed { .. } | Phase::Opening | Phase::Closing | Phase::Closed => {}
        }
        if self.phase == Phase::Closed {
            self.applied = RoutePlan::default();
            let replies = std::mem::take(&mut self.wants_close);
            self.effects.extend(replies.into_iter().map(Effect::Answer));
        }
    }

    fn apply(&mut self, now: Millis) {
        let Phase::Up { ifindex } = self.phase else { return };
        if self.outstanding.is_some() || !self.wants_close.is_empty() {
            return;
        }
        let (generation, desired) = &self.desired;
        let change = Change {
            generation: *generation,
            ifindex,
            add_addresses: &desired.addresses - &self.applied.addresses,
            remove_addresses: &(&self.applied.addresses | &self.doubtful.addresses) - &desired.addresses,
            add_routes: &desired.routes - &self.applied.routes,
            remove_routes: &(&self.applied.routes | &self.doubtful.routes) - &desired.routes,
        };
        if change == (Change { generation: *generation, ifindex, ..Change::default() }) {
            self.applied_generation = *generation;
            self.failed.clear();
            self.retry = None;
            return;
        }
        let waits = self.retry.is_some_and(|(of, _, at)| of == *generation && at > now);
        if !waits {
            self.outstanding = Some(change.clone());
            self.effects.push_back(Effect::Apply(change));
        }
    }

    fn tell(&mut self) {
        let state = match &self.phase {
            Phase::Down | Phase::Opening | Phase::Closing | Phase::Closed => VifState::Down,
            Phase::Up { ifindex } => VifState::Up {
                ifindex: *ifindex,
                name: Arc::clone(&self.device),
                applied: self.applied_generation,
                routes: self.applied.routes.iter().map(Cidr::to_string).collect(),
                failed: self.failed.clone(),
            },
            Phase::Failed { why } => VifState::Failed { why: why.clone() },
        };
        if state != self.told.1 {
            self.told = (self.told.0.next(), state.clone());
            self.effects.push_back(Effect::Tell(self.told.0, state));
        }
    }
}

impl Core for VifCore {
    type Input = Input;
    type Effect = Effect;

    fn handle(&mut self, now: Millis, input: Input) {
        self.store(now, input);
        self.reconcile(now);
        self.tell();
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn poll_deadline(&self) -> Option<Millis> {
        let up = matches!(self.phase, Phase::Up { .. }) && self.wants_close.is_empty();
        let (_, _, at) = self.retry?;
        (up && self.outstanding.is_none()).then_some(at)
    }

    fn woke() -> Input {
        Input::Woke
    }
}

fn pause(tries: u32) -> Duration {
    doubling(RETRY_FIRST, tries.saturating_sub(1), RETRY_MAX)
}

#[cfg(test)]
mod tests;
