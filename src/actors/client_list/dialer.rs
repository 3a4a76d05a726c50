//! Dials an agent: port-forward, then the handshake of its protocol.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix::WeakRecipient;
use podway_tunnel::client::{Carrier, Config, ConnectError, Direction, Line};
use podway_tunnel::credit::Budget;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::debug;

use super::core::DialOutcome;
use super::messages::Unfit;
use super::{Dialed, Dialer, bulk};
use crate::actors::pod_watcher::messages::Doubt;
use crate::cluster::PodFact;
use crate::error::chain;
use crate::identity::Identity;
use crate::net::agent::native::{Beside, NativeLink};
use crate::net::cidr::Cidr;
use crate::net::portforward::{self, PortForwardError};
use crate::workload::PodUid;

/// How long a tunnel for bulk may take. Half of [`bulk::DIAL`]: the rest is for a carrier without one.
const TUNNEL: Duration = Duration::from_secs(5);
/// Bytes of a version that are shown.
const LONGEST_VERSION: usize = 64;

/// Where the flows of each pod's agent find its next carrier: those that ClientList has not abandoned, and that somebody uses.
#[derive(Default)]
struct Lines(Mutex<BTreeMap<PodUid, Line>>);

impl Lines {
    fn get(&self) -> MutexGuard<'_, BTreeMap<PodUid, Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The line of the flows that wait for that pod's agent, or a new one. Lines of dials that came to nothing go.
    fn of(&self, pod: &PodUid) -> Line {
        let mut lines = self.get();
        lines.retain(|_, line| line.is_used());
        lines.entry(pod.clone()).or_default().clone()
    }

    fn abandon(&self, pod: &PodUid) {
        if let Some(line) = self.get().remove(pod) {
            line.end();
        }
    }
}

/// Dials podway's own agents through the API server.
pub struct NativeDialer {
    client: watch::Receiver<kube::Client>,
    identity: Identity,
    session_id: [u8; 16],
    budget: Arc<Budget>,
    pod_watcher: WeakRecipient<Doubt>,
    lines: Arc<Lines>,
}

impl NativeDialer {
    /// Dials with whatever client is newest. The flows of all that is dialled share `budget`. PodWatcher is told when the
    /// API server does not take the credentials.
    pub fn new(
        client: watch::Receiver<kube::Client>,
        identity: Identity,
        session_id: [u8; 16],
        budget: Arc<Budget>,
        pod_watcher: WeakRecipient<Doubt>,
    ) -> NativeDialer {
        NativeDialer { client, identity, session_id, budget, pod_watcher, lines: Arc::default() }
    }
}

impl Drop for NativeDialer {
    fn drop(&mut self) {
        // Nobody dials any more.
        self.lines.get().values().for_each(Line::end);
    }
}

impl Dialer for NativeDialer {
    fn dial(
        &self,
        pod: Arc<PodFact>,
        port: u16,
        special: Vec<Cidr>,
    ) -> Pin<Box<dyn Future<Output = Result<Dialed, DialOutcome>> + Send>> {
        let client = self.client.clone();
        let lines = Arc::clone(&self.lines);
        let mut config = Config {
            pair: Arc::clone(&self.identity.pair),
            session_id: self.session_id,
            pod_uid: pod.uid.to_string(),
            special: special.iter().map(ToString::to_string).collect(),
            budget: Arc::clone(&self.budget),
            line: None,
            bulk: None,
        };
        let pod_watcher = self.pod_watcher.clone();
        Box::pin(async move {
            let now = client.borrow().clone();
            let stream = portforward::open(&now, &pod.namespace, &pod.name, port).await.map_err(|error| {
                if let (PortForwardError::Unauthorized(_), Some(pod_watcher)) = (&error, pod_watcher.upgrade()) {
                    pod_watcher.do_send(Doubt);
                }
                outcome(&error)
            })?;
            let fault = stream.fault();
            // Not sooner: a line may be ended while the port-forward is opened.
            let line = config.line.insert(lines.of(&pod.uid)).clone();
            let carrier = Carrier::connect(stream, &config).await.map_err(|error| {
                match (handshake_outcome(&error), fault.get()) {
                    // What broke afterwards does not unsay it.
                    (unfit @ DialOutcome::Unfit(_), _) => unfit,
                    (_, Some(fault)) => outcome(fault),
                    (failed, None) => failed,
                }
            })?;
            if line.is_over() {
                return Err(DialOutcome::Failed("the agent was given up meanwhile".into()));
            }
            let (closed, version) = (carrier.closed(), readable(carrier.agent_version()));
            let beside = Beside::default();
            let again = Box::new(move |direction, failures| -> bulk::Dialing {
                let (client, pod) = (client.borrow().clone(), Arc::clone(&pod));
                let config = Config { bulk: Some(direction), ..config.clone() };
                // One that was agreed on and then brought nothing costs every second dial only.
                let tunnelled = direction == Direction::Up && failures % 2 == 0;
                Box::pin(async move { for_bulk(&client, &pod, port, &config, tunnelled).await })
            });
            tokio::spawn(bulk::mind(carrier.closed(), line, beside.clone(), again));
            Ok(Dialed { link: Arc::new(NativeLink::new(carrier, beside)), version, closed: Box::pin(closed) })
        })
    }

    fn abandon(&self, pod: &PodUid) {
        self.lines.abandon(pod);
    }
}

/// Dials a carrier for bulk, through a tunnel where that can be had.
async fn for_bulk(
    client: &kube::Client,
    pod: &PodFact,
    port: u16,
    config: &Config,
    tunnelled: bool,
) -> Option<Carrier> {
    if tunnelled {
        let dialing = async {
            let stream = portforward::open_tunnelled(client, &pod.namespace, &pod.name, port).await;
            Carrier::connect(stream.map_err(|error| error.to_string())?, config).await.map_err(|error| chain(&error))
        };
        match timeout(TUNNEL, dialing).await {
            Ok(Ok(carrier)) => return Some(carrier),
            Ok(Err(why)) => debug!(pod = %pod.name, why, "no tunnel for what goes up in bulk"),
            Err(_) => debug!(pod = %pod.name, "no answer from the tunnel for what goes up in bulk"),
        }
    }
    let stream = portforward::open(client, &pod.namespace, &pod.name, port).await.ok()?;
    Carrier::connect(stream, config).await.ok()
}

/// What a failed handshake says of the agent. What it says of its protocol and its key will not change: it cannot be
/// replaced where it runs, nor take other arguments. Any other word may be about this handshake alone.
pub fn handshake_outcome(error: &ConnectError) -> DialOutcome {
    let text: Arc<str> = chain(error).into();
    match error {
        ConnectError::Protocol { .. } => DialOutcome::Unfit(Unfit::Protocol(text)),
        ConnectError::Key => DialOutcome::Unfit(Unfit::Key(text)),
        ConnectError::Denied(_)
        | ConnectError::Http2(_)
        | ConnectError::Wire(_)
        | ConnectError::HungUp
        | ConnectError::WrongPod { .. }
        | ConnectError::Random => DialOutcome::Failed(text),
    }
}

/// What a pod says of its agent, where it is short and plain: it goes to terminals.
fn readable(version: &str) -> Arc<str> {
    let plain = version.len() <= LONGEST_VERSION && version.bytes().all(|byte| byte.is_ascii_graphic());
    if plain { version.into() } else { "".into() }
}

fn outcome(error: &PortForwardError) -> DialOutcome {
    let text: Arc<str> = error.to_string().into();
    match error {
        PortForwardError::Forbidden(_) => DialOutcome::Forbidden(text),
        PortForwardError::Refused(_) => DialOutcome::Refused,
        PortForwardError::Unauthorized(_)
        | PortForwardError::NotFound(_)
        | PortForwardError::Node(_)
        | PortForwardError::Unreachable(_)
        | PortForwardError::Other(_) => DialOutcome::Failed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kept_for_those_who_use_them_and_replaced_when_ended() {
        let lines = Lines::default();
        let (one, other) = (PodUid::from("one"), PodUid::from("other"));
        for index in 0..100 {
            drop(lines.of(&PodUid::from(&*format!("in vain {index}"))));
        }
        let line = lines.of(&one);
        assert_eq!(lines.get().len(), 1, "dials in vain leave lines");
        drop(lines.of(&other));
        lines.of(&one).end();
        assert!(line.is_over(), "the same line for the same pod");
        lines.abandon(&one);
        assert!(!lines.of(&one).is_over());
    }

    #[test]
    fn only_what_an_agent_says_of_its_protocol_and_key_is_for_good() {
        let outcome = handshake_outcome(&ConnectError::Protocol { theirs: 2..=2 });
        assert!(matches!(outcome, DialOutcome::Unfit(Unfit::Protocol(_))), "{outcome:?}");
        let outcome = handshake_outcome(&ConnectError::Key);
        assert!(matches!(outcome, DialOutcome::Unfit(Unfit::Key(_))), "{outcome:?}");
        let outcome = handshake_outcome(&ConnectError::Denied("no random bytes".into()));
        assert!(matches!(outcome, DialOutcome::Failed(_)), "{outcome:?}");
    }

    #[test]
    fn what_an_agent_says_of_its_version_is_shown_only_where_it_is_plain() {
        for said in ["0.1.0", "1.2.3-rc.1+abcdef"] {
            assert_eq!(&*readable(said), said);
        }
        for said in ["", "1 2", "\u{1b}[31m1", "1\n", "ü", &"1".repeat(65)] {
            assert_eq!(&*readable(said), "", "{said:?}");
        }
    }
}
