//! More carriers to an agent, for flows that move much: behind them the others would wait, and with others beside them their
//! own windows would have to be small. One for each direction, as what is cheapest on the way differs. Dialled when a flow
//! wants it, ended when none has used it for a while.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use podway_tunnel::client::{Carrier, Direction, Line};
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::actors::shell::jitter;
use crate::backoff::{doubling, spread};
use crate::net::agent::native::Beside;

/// How long one dial may take.
pub const DIAL: Duration = Duration::from_secs(10);
/// The pause after a dial that failed, at first and at last: a flow goes on where it is.
const AGAIN: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(300)];
/// How often is looked whether a flow uses it, and how many looks without one end it.
const LOOK: Duration = Duration::from_secs(5);
const QUIET: u32 = 6;

/// A dial under way.
pub type Dialing = Pin<Box<dyn Future<Output = Option<Carrier>> + Send>>;
/// Dials one, after so many failures in a row: of dials, and of carriers that soon ended.
pub type Dial = Box<dyn Fn(Direction, u32) -> Dialing + Send + Sync>;

/// Keeps carriers for bulk beside `main` while flows of `line` want them; ends with `main`, and takes them along.
pub async fn mind(main: impl Future<Output = String>, line: Line, beside: Beside, dial: Dial) {
    let minding = |direction| keep(direction, &line, &beside, &dial);
    tokio::select! {
        _ = main => {}
        () = minding(Direction::Down) => {}
        () = minding(Direction::Up) => {}
    }
}

/// Keeps one while flows want it.
async fn keep(direction: Direction, line: &Line, beside: &Beside, dial: &Dial) {
    let [first, longest] = AGAIN;
    let mut failures = 0;
    loop {
        line.bulk_wanted(direction).await;
        let Ok(Some(carrier)) = timeout(DIAL, dial(direction, failures)).await else {
            sleep(spread(doubling(first, failures, longest), jitter())).await;
            failures += 1;
            continue;
        };
        debug!(?direction, "a carrier for bulk stands");
        let _ends = Ends { direction, carrier: &carrier, beside };
        beside.set(direction, Some(carrier.clone()));
        // Those that asked while it was dialled have it now.
        line.bulk_wanted(direction).now_or_never();
        // One that is cut whenever much goes over it is as good as none.
        if idle(&carrier).await {
            failures = 0;
        } else {
            sleep(spread(doubling(first, failures, longest), jitter())).await;
            failures += 1;
        }
    }
}

/// Ends a carrier with whoever holds it.
struct Ends<'a> {
    direction: Direction,
    carrier: &'a Carrier,
    beside: &'a Beside,
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.carrier.close();
        self.beside.set(self.direction, None);
    }
}

/// Returns when it has ended, or no flow has used it for a while. Says whether it stood for a while.
async fn idle(carrier: &Carrier) -> bool {
    let mut closed = std::pin::pin!(carrier.closed());
    let (mut looks, mut quiet) = (0_u32, 0);
    while quiet < QUIET {
        tokio::select! {
            _ = &mut closed => return looks >= QUIET,
            () = sleep(LOOK) => looks = looks.saturating_add(1),
        }
        quiet = if carrier.flows() > 0 { 0 } else { quiet + 1 };
    }
    true
}
