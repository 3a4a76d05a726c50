//! Flows that may go on over another carrier, by session and name.
//!
//! A flow has its place here from its opening to its end. Who resumes it hands the new stream to its task, which may still
//! hold the old one: what the agent believes of a carrier does not matter. One that lost its carrier is detached, and the
//! first to go when flows are many.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use podway_tunnel::wire::{Reader, Writer};
use tokio::sync::oneshot;

/// A session, which is authenticated, and a flow of it.
pub type Key = ([u8; 16], [u8; 16]);

/// A flow's stream on a carrier.
#[derive(Debug)]
pub struct Stream {
    /// Of the workstation's frames.
    pub reader: Reader,
    /// Of ours.
    pub writer: Writer,
    /// Of the carrier: once the workstation left, nobody will come for what was on it.
    pub carrier: CarrierOf,
    /// Whether the carrier is for bulk alone.
    pub bulk: bool,
}

/// A session's carrier, by its number in the order in which they were authenticated.
#[derive(Clone, Debug, Default)]
pub struct CarrierOf {
    session: Arc<Session>,
    number: u64,
}

/// A session that has carriers or flows.
#[derive(Debug, Default)]
struct Session {
    carriers: AtomicU64,
    /// The last carrier on which the workstation said that it leaves: that one is left, and those before, which the agent may
    /// believe alive. Later ones are of a workstation that came back.
    left: AtomicU64,
}

impl CarrierOf {
    /// Whether the workstation left on purpose.
    pub fn is_left(&self) -> bool {
        self.number <= self.session.left.load(Ordering::Acquire)
    }
}

/// What reaches a flow from outside of its stream.
#[derive(Debug)]
pub enum Arrival {
    /// It goes on here, with a workstation that has so much.
    Stream(Stream, u64),
    /// It is detached and has to go: for another, or with the agent.
    End,
}

/// Why a stream was not handed over.
#[derive(Debug)]
pub enum NotTaken {
    /// No such flow.
    Unknown(Box<Stream>),
    /// Another stream was handed to it a moment ago.
    Busy(Box<Stream>),
}

/// All of them.
#[derive(Debug, Default)]
pub struct Places(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    flows: HashMap<Key, Held>,
    /// Those without a carrier, in the order in which they lost it, with what that was.
    detached: BTreeMap<u64, (Key, CarrierOf)>,
    next: u64,
    sessions: HashMap<[u8; 16], Weak<Session>>,
    /// The agent ends: nobody can come back.
    closed: bool,
}

#[derive(Debug)]
struct Held {
    arrival: Option<oneshot::Sender<Arrival>>,
    detached: Option<u64>,
}

impl State {
    fn attach(&mut self, key: &Key) {
        if let Some(number) = self.flows.get_mut(key).and_then(|held| held.detached.take()) {
            self.detached.remove(&number);
        }
    }

    /// Ends a flow, unless a stream waits for it: that decides.
    fn end(&mut self, key: &Key) {
        if let Some(arrival) = self.flows.get_mut(key).and_then(|held| held.arrival.take()) {
            self.attach(key);
            drop(arrival.send(Arrival::End));
        }
    }

    fn can_end(&self, key: &Key) -> bool {
        self.flows.get(key).is_some_and(|held| held.arrival.is_some())
    }
}

impl Places {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new flow; `None` where one of that name is there.
    pub fn enter(self: &Arc<Self>, key: Key) -> Option<Place> {
        let (arrival_tx, arrival) = oneshot::channel();
        let mut state = self.state();
        if state.flows.contains_key(&key) {
            return None;
        }
        state.flows.insert(key, Held { arrival: Some(arrival_tx), detached: None });
        drop(state);
        Some(Place { places: Arc::clone(self), key, arrival })
    }

    /// Hands a stream to its flow, with what the workstation has of it.
    ///
    /// # Errors
    ///
    /// There is no such flow, or it cannot take the stream just now.
    pub fn hand_over(&self, key: &Key, stream: Stream, received: u64) -> Result<(), NotTaken> {
        let mut state = self.state();
        let Some(held) = state.flows.get_mut(key) else { return Err(NotTaken::Unknown(Box::new(stream))) };
        let Some(arrival) = held.arrival.take() else { return Err(NotTaken::Busy(Box::new(stream))) };
        match arrival.send(Arrival::Stream(stream, received)) {
            // It ended a moment ago.
            Err(Arrival::Stream(stream, _)) => Err(NotTaken::Unknown(Box::new(stream))),
            Err(Arrival::End) | Ok(()) => Ok(()),
        }
    }

    /// Ends the flow that is detached for longest.
    pub fn make_room(&self) {
        let mut state = self.state();
        if let Some(key) = state.detached.values().map(|(key, _)| *key).find(|key| state.can_end(key)) {
            state.end(&key);
        }
    }

    /// A session has a new carrier. One for bulk stands beside the newest of the others: who leaves that has left all of them.
    pub fn carrier(&self, session: [u8; 16], bulk: bool) -> CarrierOf {
        let mut state = self.state();
        state.sessions.retain(|_, session| session.strong_count() > 0);
        let known = state.sessions.get(&session).and_then(Weak::upgrade).unwrap_or_else(|| {
            let new = Arc::default();
            state.sessions.insert(session, Arc::downgrade(&new));
            new
        });
        let number = match bulk {
            true => known.carriers.load(Ordering::Acquire),
            false => known.carriers.fetch_add(1, Ordering::AcqRel) + 1,
        };
        CarrierOf { session: known, number }
    }

    /// The workstation left on purpose, as it said on this carrier, and does not come back for what was on it or on those
    /// before: ends what is detached of them. The rest ends with its carrier.
    pub fn left(&self, carrier: &CarrierOf) {
        let mut state = self.state();
        carrier.session.left.fetch_max(carrier.number, Ordering::AcqRel);
        let of_it = |of: &CarrierOf| Arc::ptr_eq(&of.session, &carrier.session) && of.is_left();
        let keys: Vec<Key> = state.detached.values().filter(|(_, of)| of_it(of)).map(|(key, _)| *key).collect();
        keys.iter().for_each(|key| state.end(key));
    }

    /// Ends those that are detached, and all that would be from now on.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let keys: Vec<Key> = state.detached.values().map(|(key, _)| *key).collect();
        keys.iter().for_each(|key| state.end(key));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.state().flows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many are detached.
    pub fn detached(&self) -> usize {
        self.state().detached.len()
    }
}

/// One flow's place, given back when dropped.
pub struct Place {
    places: Arc<Places>,
    key: Key,
    arrival: oneshot::Receiver<Arrival>,
}

impl Place {
    /// What came for the flow. To be called until it is pending.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Arrival> {
        let Poll::Ready(Ok(arrival)) = Pin::new(&mut self.arrival).poll(cx) else { return Poll::Pending };
        let (arrival_tx, next) = oneshot::channel();
        self.arrival = next;
        if let Some(held) = self.places.state().flows.get_mut(&self.key) {
            held.arrival = Some(arrival_tx);
        }
        Poll::Ready(arrival)
    }

    /// The carrier of the flow's stream ended. Says whether the flow may wait for another.
    pub fn detach(&self, stream: &Stream) -> bool {
        let mut state = self.places.state();
        if state.closed || stream.carrier.is_left() {
            return false;
        }
        let number = state.next;
        state.next += 1;
        if let Some(held) = state.flows.get_mut(&self.key) {
            held.detached = Some(number);
        }
        state.detached.insert(number, (self.key, stream.carrier.clone()));
        true
    }

    /// The flow has a carrier again.
    pub fn attach(&self) {
        self.places.state().attach(&self.key);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.state();
        state.attach(&self.key);
        state.flows.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn detached(places: &Arc<Places>, key: Key) -> Place {
        let place = places.enter(key).unwrap();
        let mut state = places.state();
        let number = state.next;
        state.next += 1;
        state.flows.get_mut(&key).unwrap().detached = Some(number);
        state.detached.insert(number, (key, CarrierOf::default()));
        drop(state);
        place
    }

    #[test]
    fn room_is_made_by_the_one_that_is_detached_for_longest_and_has_no_arrival() {
        let places = Arc::new(Places::default());
        let mut flows: Vec<Place> = (0..3).map(|name| detached(&places, ([7; 16], [name; 16]))).collect();
        // A stream for the first is on its way: its task decides what becomes of it.
        let inbox = places.state().flows.get_mut(&flows[0].key).unwrap().arrival.take();
        places.make_room();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(flows[1].poll(&mut cx), Poll::Ready(Arrival::End)));
        assert!(flows[2].poll(&mut cx).is_pending());
        assert_eq!(places.detached(), 2, "the first still stands");
        places.state().flows.get_mut(&flows[0].key).unwrap().arrival = inbox;
        places.make_room();
        assert!(matches!(flows[0].poll(&mut cx), Poll::Ready(Arrival::End)));
        assert_eq!(places.detached(), 1);
    }

    #[test]
    fn a_session_that_left_left_its_carriers_before_and_none_after() {
        let places = Places::default();
        let [first, second] = [(); 2].map(|()| places.carrier([7; 16], false));
        let beside = places.carrier([7; 16], true);
        let third = places.carrier([7; 16], false);
        let other = places.carrier([8; 16], false);
        // Heard late: it is back already.
        places.left(&second);
        let left = [&first, &second, &beside, &third, &other].map(CarrierOf::is_left);
        assert_eq!(left, [true, true, true, false, false]);
        places.left(&first);
        assert!(!third.is_left());
        drop((first, second, beside, third, other));
        places.carrier([9; 16], false);
        assert_eq!(places.state().sessions.len(), 1, "sessions that are gone are kept");
    }
}
