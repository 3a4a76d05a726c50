//! One TCP flow: the program's side ends in a smoltcp socket of its own, the far side is a [`TcpFlow`].
//!
//! ```text
//! SYN held ── far side answered ──► SYN-ACK ──► both ways ──► one way ──► lingering 1 s ──► gone
//!    └── refused: RST · unreachable, silent: ICMP · stopped: RST        (only if we closed first)
//! ```
//!
//! - "Connected" is always true: the handshake with the program completes only after the far end's did.
//! - Bytes wait only in the socket's two buffers: what the far side cannot take stays there and closes the window, what
//!   the program does not take stays at the far side.
//! - While its link is lost, a flow stands still: the windows close, and ClientList is told that somebody waits.
//! - Buffers are mapped, not allocated (`memory`).

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::net::agent::{FlowEvent, OpenError, TcpFlow};
use crate::net::counters::{Open, add};
use crate::net::data_plane::Plane;
use crate::net::dns_tap::DnsExchange;
use crate::net::far::{self, Via};
use crate::net::packet::{FlowKey, tcp_flags};
use crate::net::views::Target;
use port::Port;

mod memory;
mod port;

/// Bytes each way between the program and the far side. Twice as much is slower (measured), half as much is too.
const BUFFER: usize = 256 * 1024;

/// How long the end of a connection that we closed first is remembered, to acknowledge a FIN that comes again. The other
/// end of the connection is a kernel on the same machine.
const LINGER: Duration = Duration::from_secs(1);

/// How long what came before a program's reset may wait for room at the far side, and the reset behind it.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Packets taken in one go before other tasks get their turn.
const BUDGET: usize = 32;

/// How long a flow stands still before it says so: ClientList hears of the loss by itself, and mostly dials at once.
const TELL_FIRST: Duration = Duration::from_millis(200);
/// How often it says so after that. It is passed on once a second for all of a target.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// The shortest wait for a timer of smoltcp, so that none can spin.
const TICK: Duration = Duration::from_millis(1);

/// The far side of a flow, before it is asked.
pub(crate) enum Far {
    /// Through an agent.
    Dial(Via),
    /// Our own DNS.
    Dns,
}

/// Carries one connection from its SYN to its end; `packets` closed means "reset it". Returns the SYN of the next
/// connection when one of the same five-tuple begins while this one lingers.
pub(crate) async fn run(
    plane: Arc<Plane>,
    key: FlowKey,
    far: Far,
    packets: &mut mpsc::Receiver<Bytes>,
) -> Option<Bytes> {
    let _open = Open::new(Arc::clone(&plane.counters), |c| &c.tcp_open);
    add(&plane.counters.tcp_total, 1);
    let mut syn = copied(packets.recv().await?);
    let opened = {
        let mut dial = std::pin::pin!(dial(&plane, &key, &far));
        loop {
            tokio::select! {
                biased;
                opened = &mut dial => break opened,
                packet = packets.recv() => {
                    let Some(packet) = packet else {
                        plane.refuse(&syn, OpenError::Refused);
                        return None;
                    };
                    let flags = tcp_flags(&packet);
                    if flags.rst {
                        return None;
                    }
                    if flags.opens() {
                        // The newest: a program may have given up and begun anew from the same port.
                        syn = copied(packet);
                    }
                }
            }
        }
    };
    let through = match &far {
        Far::Dial(via) => Some(&via.target),
        Far::Dns => None,
    };
    let far = match opened {
        Ok(far) => far,
        Err(why) => {
            plane.refuse(&syn, why);
            return None;
        }
    };
    match serve(&plane, &key, through, far, syn, packets).await {
        Ok(next) => next,
        Err(error) => {
            tracing::warn!(%error, "no memory for a flow");
            None
        }
    }
}

async fn dial(plane: &Arc<Plane>, key: &FlowKey, far: &Far) -> Result<Box<dyn TcpFlow>, OpenError> {
    match far {
        Far::Dial(via) => far::open_tcp(plane, via).await,
        Far::Dns => Ok(Box::new(DnsExchange::new(Arc::clone(plane), key.local))),
    }
}

/// Its own bytes: a slice would keep the reader's whole chunk for as long as the dial takes.
fn copied(packet: Bytes) -> Bytes {
    Bytes::copy_from_slice(&packet)
}

async fn serve(
    plane: &Arc<Plane>,
    key: &FlowKey,
    through: Option<&Target>,
    far: Box<dyn TcpFlow>,
    syn: Bytes,
    packets: &mut mpsc::Receiver<Bytes>,
) -> io::Result<Option<Bytes>> {
    let mut memory = memory::take(2 * BUFFER)?;
    let (receive, send) = memory.split_at_mut(BUFFER);
    let mut flow = Flow::new(plane, key, far, SocketBuffer::new(receive), SocketBuffer::new(send))?;
    flow.through = through;
    flow.take_packet(syn);
    let mut timer = std::pin::pin!(sleep_until(plane.now() + DORMANT));
    let next = poll_fn(|cx| flow.poll(cx, packets, timer.as_mut())).await;
    let moved = flow.moved;
    drop(flow);
    memory::give_back(memory, moved);
    Ok(next)
}

/// Where the timer is parked when nothing waits for it.
const DORMANT: Duration = Duration::from_secs(24 * 3600);

/// Whether a direction is still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    Finished,
}

/// What one step led to.
enum Step {
    Going,
    /// Over in both directions at once.
    Broken,
}

struct Flow<'a> {
    plane: &'a Arc<Plane>,
    interface: Interface,
    sockets: SocketSet<'a>,
    handle: SocketHandle,
    port: Port,
    /// Whose link it needs.
    through: Option<&'a Target>,
    /// Set while it stands still: when it says so.
    tells: Option<Instant>,
    /// `None` once both directions are finished.
    far: Option<Box<dyn TcpFlow>>,
    /// From the far side, not yet in the socket.
    pending: Bytes,
    /// Bytes that may have been in its memory: packets with their headers, and what the far side sent.
    moved: usize,
    /// The program's FIN has arrived here.
    from_program: Way,
    /// The program's FIN was passed on.
    to_far: Way,
    /// The far side's FIN has arrived here and was passed on.
    from_far: Way,
    /// When the lingering ends.
    lingers: Option<Instant>,
}

impl<'a> Flow<'a> {
    fn new(
        plane: &'a Arc<Plane>,
        key: &FlowKey,
        far: Box<dyn TcpFlow>,
        receive: SocketBuffer<'a>,
        send: SocketBuffer<'a>,
    ) -> io::Result<Self> {
        let mut port = Port::new(Arc::clone(plane));
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = plane.seed(key);
        let mut interface = Interface::new(config, &mut port, plane.stack_time());
        let address = IpAddress::from(key.remote.ip());
        let prefix = if key.remote.is_ipv4() { 32 } else { 128 };
        interface.update_ip_addrs(|addresses| {
            // There is room: the list is new.
            addresses.push(IpCidr::new(address, prefix)).ok();
        });
        let mut socket = Socket::new(receive, send);
        socket.set_nagle_enabled(false);
        // A program with Nagle on waits for each acknowledgement.
        socket.set_ack_delay(None);
        socket.listen((address, key.remote.port())).map_err(|e| io::Error::other(e.to_string()))?;
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Ok(Self {
            plane,
            interface,
            sockets,
            handle,
            port,
            through: None,
            tells: None,
            far: Some(far),
            pending: Bytes::new(),
            moved: 0,
            from_program: Way::Open,
            to_far: Way::Open,
            from_far: Way::Open,
            lingers: None,
        })
    }

    fn state(&self) -> State {
        self.sockets.get::<Socket<'_>>(self.handle).state()
    }

    /// One round. Ready when the flow is over.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        packets: &mut mpsc::Receiver<Bytes>,
        mut timer: Pin<&mut Sleep>,
    ) -> Poll<Option<Bytes>> {
        let mut hungry = true;
        for _ in 0..BUDGET {
            match packets.poll_recv(cx) {
                Poll::Ready(Some(packet)) => {
                    if self.lingers.is_some() && tcp_flags(&packet).opens() {
                        // Does nothing to one that has ended in order.
                        self.tell_reset();
                        return Poll::Ready(Some(packet));
                    }
                    self.take_packet(packet);
                }
                Poll::Ready(None) => return self.broken(),
                Poll::Pending => {
                    hungry = false;
                    break;
                }
            }
        }
        if hungry {
            cx.waker().wake_by_ref();
        }
        if matches!(self.state(), State::Closed | State::Listen) && !self.closed_cleanly() {
            return self.reset_by_program(cx, timer);
        }
        for step in [Self::pull_from_far, Self::push_to_far] {
            match step(self, cx) {
                Step::Going => {}
                Step::Broken => return self.broken(),
            }
        }
        if self.from_far == Way::Finished {
            finish(self.sockets.get_mut::<Socket<'_>>(self.handle));
        }
        self.write_packets();
        if self.closed_cleanly() && self.to_far == Way::Finished {
            self.far = None;
            match self.state() {
                State::TimeWait => {}
                State::Closed => return Poll::Ready(None),
                State::Listen
                | State::SynSent
                | State::SynReceived
                | State::Established
                | State::FinWait1
                | State::FinWait2
                | State::CloseWait
                | State::Closing
                | State::LastAck => return self.wait(cx, timer),
            }
            let now = self.plane.now();
            let end = *self.lingers.get_or_insert(now + LINGER);
            if now >= end {
                return Poll::Ready(None);
            }
            timer.as_mut().reset(end);
            if timer.poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            return Poll::Pending;
        }
        self.wait(cx, timer)
    }

    /// What came before the program's reset is the far side's, as far as it takes it soon.
    fn reset_by_program(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<Option<Bytes>> {
        let all = match self.push_to_far(cx) {
            Step::Going => !self.sockets.get::<Socket<'_>>(self.handle).can_recv() && !self.far_stands_still(cx),
            Step::Broken => true,
        };
        let now = self.plane.now();
        let end = *self.lingers.get_or_insert(now + LAST_WORDS);
        if all || now >= end {
            return self.broken();
        }
        timer.as_mut().reset(end);
        if timer.poll(cx).is_ready() { self.broken() } else { Poll::Pending }
    }

    /// Whether what was sent may still wait for a carrier. Helps it to one.
    fn far_stands_still(&mut self, cx: &mut Context<'_>) -> bool {
        self.far.as_mut().is_some_and(|far| {
            far.poll_arrivals(cx);
            far.stands_still()
        })
    }

    /// Lets the socket's next timer wake the task.
    fn wait(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<Option<Bytes>> {
        let now = self.plane.now();
        let delay = self.interface.poll_delay(self.plane.stack_time(), &self.sockets);
        let delay = delay.map(|delay| Duration::from_micros(delay.total_micros()));
        let tells = self.tell_that_it_stands_still(now);
        if let Some(delay) = delay.into_iter().chain(tells).min() {
            let at = now + delay.max(TICK);
            // Never moved to later: most timers are moved again before they fire, and waking early is harmless.
            if timer.is_elapsed() || timer.deadline() > at {
                timer.as_mut().reset(at);
            }
        } else if timer.is_elapsed() {
            return Poll::Pending;
        }
        if timer.poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Says that it waits for a link, if it does; gives the time until it says so again.
    fn tell_that_it_stands_still(&mut self, now: Instant) -> Option<Duration> {
        let target = self.through?;
        if !self.far.as_ref().is_some_and(|far| far.stands_still()) {
            self.tells = None;
            return None;
        }
        let at = self.tells.get_or_insert(now + TELL_FIRST);
        if *at <= now {
            self.plane.tell_blocked(target);
            *at = now + TELL_EVERY;
        }
        Some(at.saturating_duration_since(now))
    }

    /// Gives a packet to the socket.
    fn take_packet(&mut self, packet: Bytes) {
        self.moved += packet.len();
        self.port.incoming = Some(packet);
        let now = self.plane.stack_time();
        self.interface.poll_ingress_single(now, &mut self.port, &mut self.sockets);
        match self.state() {
            State::CloseWait | State::LastAck | State::Closing | State::TimeWait => self.from_program = Way::Finished,
            State::Closed
            | State::Listen
            | State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2 => {}
        }
    }

    /// Both directions were closed in order, as far as the program is concerned.
    fn closed_cleanly(&self) -> bool {
        self.from_program == Way::Finished && self.from_far == Way::Finished
    }

    /// Far side => socket, while there is room.
    fn pull_from_far(&mut self, cx: &mut Context<'_>) -> Step {
        let Some(far) = &mut self.far else {
            return Step::Going;
        };
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        if socket.state() == State::SynReceived {
            far.poll_arrivals(cx);
            return Step::Going;
        }
        loop {
            if !self.pending.is_empty() {
                let Ok(taken) = socket.send_slice(&self.pending) else {
                    return Step::Broken;
                };
                self.pending.advance(taken);
                self.moved += taken;
            }
            let full = socket.may_send() && socket.send_queue() == socket.send_capacity();
            if full || !self.pending.is_empty() {
                far.poll_arrivals(cx);
                return Step::Going;
            }
            match far.poll_event(cx) {
                Poll::Ready(FlowEvent::Data(data)) => {
                    add(&self.plane.counters.bytes_received, data.len());
                    self.pending = data;
                }
                Poll::Ready(FlowEvent::Fin) => {
                    self.from_far = Way::Finished;
                    // Before a reset that may be behind it.
                    finish(socket);
                }
                Poll::Ready(FlowEvent::Reset) => return Step::Broken,
                Poll::Pending => return Step::Going,
            }
        }
    }

    /// Socket => far side, as much as it takes.
    fn push_to_far(&mut self, cx: &mut Context<'_>) -> Step {
        let Some(far) = &mut self.far else {
            return Step::Going;
        };
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        while socket.can_recv() {
            let room = match far.poll_send_ready(cx) {
                Poll::Ready(Ok(0)) | Poll::Pending => return Step::Going,
                Poll::Ready(Ok(room)) => room,
                Poll::Ready(Err(_)) => return Step::Broken,
            };
            let taken = socket.recv(|bytes| {
                let length = bytes.len().min(room);
                (length, Bytes::copy_from_slice(&bytes[..length]))
            });
            let Ok(data) = taken else {
                return Step::Broken;
            };
            add(&self.plane.counters.bytes_sent, data.len());
            if far.send(data).is_err() {
                return Step::Broken;
            }
        }
        if self.from_program == Way::Finished && self.to_far == Way::Open {
            far.send_fin();
            self.to_far = Way::Finished;
        }
        Step::Going
    }

    fn write_packets(&mut self) {
        let now = self.plane.stack_time();
        while self.interface.poll_egress(now, &mut self.port, &mut self.sockets) != smoltcp::iface::PollResult::None {}
    }

    /// Both sides see a reset; the program after what came before, as far as it has room.
    fn broken(&mut self) -> Poll<Option<Bytes>> {
        if self.from_far == Way::Finished {
            self.sockets.get_mut::<Socket<'_>>(self.handle).close();
        }
        self.write_packets();
        self.sockets.get_mut::<Socket<'_>>(self.handle).abort();
        self.write_packets();
        self.tell_reset();
        Poll::Ready(None)
    }

    fn tell_reset(&mut self) {
        if let Some(mut far) = self.far.take() {
            far.send_reset();
        }
    }
}

/// Passes the far side's end on. To a program that has finished, only when it has all that came before: smoltcp, which then
/// waits for the last acknowledgement alone (LAST-ACK), takes word of a window that opens again for a repetition, and goes on
/// when it asks a second later.
fn finish(socket: &mut Socket<'_>) {
    if socket.state() != State::CloseWait || socket.send_queue() == 0 {
        socket.close();
    }
}
