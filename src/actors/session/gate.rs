//! Through which the children of one run tell their session.
//!
//! Generations begin anew with each run, so a fact of an earlier run must not be taken for one of the present: the gate
//! puts the run's number on everything that passes.

use actix::{Actor, Context, Handler, WeakAddr};

use super::core::Input;
use super::messages::ChildExited;
use super::{OfRun, Session};
use crate::actors::client_list::messages::{LinksChanged, WaiterSettled};
use crate::actors::dns::messages::DnsChanged;
use crate::actors::pod_watcher::messages::{RightsChanged, WatchHealthChanged};
use crate::actors::proxy_via::messages::ViaChanged;
use crate::actors::vif::messages::{FlowStats, VifChanged};

/// The gate of one run.
pub struct Gate {
    run: u64,
    // Weak, or nothing would ever stop.
    session: WeakAddr<Session>,
}

impl Gate {
    /// The gate of run number `run`.
    pub fn new(run: u64, session: WeakAddr<Session>) -> Gate {
        Gate { run, session }
    }
}

impl Actor for Gate {
    type Context = Context<Self>;
}

macro_rules! passes {
    ($($message:ty),* $(,)?) => {$(
        impl Handler<$message> for Gate {
            type Result = ();
            fn handle(&mut self, message: $message, _: &mut Context<Self>) {
                if let Some(session) = self.session.upgrade() {
                    session.do_send(OfRun { run: self.run, input: Input::from(message) });
                }
            }
        }
    )*};
}

passes!(
    ChildExited,
    DnsChanged,
    FlowStats,
    LinksChanged,
    RightsChanged,
    ViaChanged,
    VifChanged,
    WaiterSettled,
    WatchHealthChanged,
);
