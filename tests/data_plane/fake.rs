//! A link whose far ends the test holds in its hands.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use podway::net::agent::{AgentLink, FlowEnded, FlowEvent, OpenError, TcpFlow, UdpEnded, UdpFlow};
use tokio::sync::mpsc;

/// What a link does with a dial.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manner {
    /// Opens; the test gets the far end.
    Open,
    /// Opens; the far end sends all back, its FIN too.
    Echo,
    /// Answers with an error.
    Fail(OpenError),
    /// Never answers.
    Silent,
}

#[derive(Debug)]
pub(crate) struct FakeLink {
    pub(crate) manner: Mutex<Manner>,
    pub(crate) dials: AtomicUsize,
    pub(crate) dropped_dials: Arc<AtomicUsize>,
    pub(crate) alive: AtomicBool,
    /// Echo requests: to whom, and their sequence numbers.
    pub(crate) echoed: Mutex<Vec<(IpAddr, u16)>>,
    opened_tx: mpsc::UnboundedSender<FarEnd>,
    pub(crate) window: usize,
}

impl FakeLink {
    pub(crate) fn new(manner: Manner) -> (Arc<Self>, mpsc::UnboundedReceiver<FarEnd>) {
        Self::with_window(manner, 256 * 1024)
    }

    pub(crate) fn with_window(manner: Manner, window: usize) -> (Arc<Self>, mpsc::UnboundedReceiver<FarEnd>) {
        let (opened_tx, opened_rx) = mpsc::unbounded_channel();
        let link = Self {
            manner: Mutex::new(manner),
            dials: AtomicUsize::new(0),
            dropped_dials: Arc::default(),
            alive: AtomicBool::new(true),
            echoed: Mutex::default(),
            opened_tx,
            window,
        };
        (Arc::new(link), opened_rx)
    }

    async fn open(&self, to: SocketAddr) -> Result<FarEnd, OpenError> {
        self.dials.fetch_add(1, Ordering::SeqCst);
        let manner = *self.manner.lock().unwrap();
        let end = FarEnd { to, state: Arc::default() };
        end.state.lock().unwrap().window = self.window;
        match manner {
            Manner::Open => {
                let _ = self.opened_tx.send(end.clone());
                Ok(end)
            }
            Manner::Echo => {
                end.state.lock().unwrap().echo = true;
                Ok(end)
            }
            Manner::Fail(error) => Err(error),
            Manner::Silent => {
                struct OnDrop(Arc<AtomicUsize>);
                impl Drop for OnDrop {
                    fn drop(&mut self) {
                        self.0.fetch_add(1, Ordering::SeqCst);
                    }
                }
                let _guard = OnDrop(Arc::clone(&self.dropped_dials));
                std::future::pending().await
            }
        }
    }
}

#[async_trait::async_trait]
impl AgentLink for FakeLink {
    async fn open_tcp(&self, to: SocketAddr, _: Duration) -> Result<Box<dyn TcpFlow>, OpenError> {
        Ok(Box::new(Near(self.open(to).await?)))
    }

    async fn open_udp(&self, to: SocketAddr, _: Duration) -> Result<Box<dyn UdpFlow>, OpenError> {
        Ok(Box::new(Near(self.open(to).await?)))
    }

    async fn dns(&self, _: Bytes, _: Duration) -> Result<Bytes, OpenError> {
        Err(OpenError::Refused)
    }

    async fn echo(&self, to: IpAddr, sequence: u16, payload: Bytes, _: Duration) -> Result<Bytes, OpenError> {
        self.echoed.lock().unwrap().push((to, sequence));
        let manner = *self.manner.lock().unwrap();
        match manner {
            Manner::Fail(error) => Err(error),
            Manner::Silent => std::future::pending().await,
            Manner::Open | Manner::Echo => Ok(payload),
        }
    }

    fn is_alive(&self) -> bool {
        self.alive.load(Ordering::SeqCst)
    }
}

/// What the near side did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Data(Bytes),
    Fin,
    Reset,
    Dropped,
}

#[derive(Debug, Default)]
struct State {
    sent: VecDeque<Sent>,
    /// On the carrier.
    events: VecDeque<FlowEvent>,
    /// Taken in by the near side, but not further.
    arrived: VecDeque<FlowEvent>,
    window: usize,
    queued: usize,
    echo: bool,
    /// Its link was lost.
    still: bool,
    near: Vec<Waker>,
    far: Vec<Waker>,
}

impl State {
    fn wake(wakers: &mut Vec<Waker>) {
        wakers.drain(..).for_each(Waker::wake);
    }
}

/// The far end of a flow.
#[derive(Clone, Debug)]
pub(crate) struct FarEnd {
    pub(crate) to: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl FarEnd {
    /// The next thing the near side did; frees as much window.
    pub(crate) async fn next(&self) -> Sent {
        std::future::poll_fn(|cx| {
            let mut state = self.state.lock().unwrap();
            let Some(sent) = state.sent.pop_front() else {
                state.far.push(cx.waker().clone());
                return Poll::Pending;
            };
            if let Sent::Data(data) = &sent {
                state.window += data.len();
            }
            State::wake(&mut state.near);
            Poll::Ready(sent)
        })
        .await
    }

    /// Exactly the next `length` bytes.
    pub(crate) async fn read(&self, length: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < length {
            match self.next().await {
                Sent::Data(data) => all.extend_from_slice(&data),
                other => panic!("{other:?} after {} bytes", all.len()),
            }
        }
        all
    }

    pub(crate) fn event(&self, event: FlowEvent) {
        let mut state = self.state.lock().unwrap();
        state.events.push_back(event);
        State::wake(&mut state.near);
    }

    pub(crate) fn write(&self, data: impl Into<Bytes>) {
        self.event(FlowEvent::Data(data.into()));
    }

    /// Whether its link is lost: nothing passes then.
    pub(crate) fn stand_still(&self, still: bool) {
        let mut state = self.state.lock().unwrap();
        state.still = still;
        State::wake(&mut state.near);
    }

    /// Bytes sent by the near side that nobody took.
    pub(crate) fn held(&self) -> usize {
        self.state.lock().unwrap().sent.iter().map(|s| if let Sent::Data(d) = s { d.len() } else { 0 }).sum()
    }

    /// Events that the near side has not taken.
    pub(crate) fn untaken(&self) -> usize {
        let state = self.state.lock().unwrap();
        state.arrived.len() + state.events.len()
    }

    /// Events that the near side has not even taken in.
    pub(crate) fn on_the_carrier(&self) -> usize {
        self.state.lock().unwrap().events.len()
    }

    fn push(&self, sent: Sent) {
        let mut state = self.state.lock().unwrap();
        if state.echo {
            match sent {
                Sent::Data(data) => {
                    state.queued += data.len();
                    state.events.push_back(FlowEvent::Data(data));
                }
                Sent::Fin => state.events.push_back(FlowEvent::Fin),
                Sent::Reset | Sent::Dropped => {}
            }
            State::wake(&mut state.near);
            return;
        }
        if let Sent::Data(data) = &sent {
            state.window = state.window.checked_sub(data.len()).expect("more sent than was allowed");
        }
        state.sent.push_back(sent);
        State::wake(&mut state.far);
    }
}

struct Near(FarEnd);

impl Drop for Near {
    fn drop(&mut self) {
        self.0.push(Sent::Dropped);
    }
}

impl TcpFlow for Near {
    fn poll_send_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, FlowEnded>> {
        let mut state = self.0.state.lock().unwrap();
        let room = if state.echo { (1_usize << 20).saturating_sub(state.queued) } else { state.window };
        if room == 0 || state.still {
            state.near.push(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(room))
    }

    fn send(&mut self, data: Bytes) -> Result<(), FlowEnded> {
        self.0.push(Sent::Data(data));
        Ok(())
    }

    fn send_fin(&mut self) {
        self.0.push(Sent::Fin);
    }

    fn send_reset(&mut self) {
        self.0.push(Sent::Reset);
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<FlowEvent> {
        let mut state = self.0.state.lock().unwrap();
        let arrived = state.arrived.pop_front();
        let still = state.still;
        let Some(event) = arrived.or_else(|| if still { None } else { state.events.pop_front() }) else {
            state.near.push(cx.waker().clone());
            return Poll::Pending;
        };
        if let FlowEvent::Data(data) = &event
            && state.echo
        {
            state.queued -= data.len();
            State::wake(&mut state.near);
        }
        Poll::Ready(event)
    }

    fn poll_arrivals(&mut self, cx: &mut Context<'_>) {
        let state = &mut *self.0.state.lock().unwrap();
        state.arrived.append(&mut state.events);
        state.near.push(cx.waker().clone());
    }

    fn stands_still(&self) -> bool {
        self.0.state.lock().unwrap().still
    }
}

impl UdpFlow for Near {
    fn send(&mut self, datagram: Bytes) -> bool {
        self.0.push(Sent::Data(datagram));
        true
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, UdpEnded>> {
        match self.poll_event(cx) {
            Poll::Ready(FlowEvent::Data(data)) => Poll::Ready(Ok(data)),
            Poll::Ready(FlowEvent::Fin) => Poll::Ready(Err(UdpEnded::Over)),
            Poll::Ready(FlowEvent::Reset) => Poll::Ready(Err(UdpEnded::Refused)),
            Poll::Pending => Poll::Pending,
        }
    }
}
