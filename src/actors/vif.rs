//! Vif: owns the device, its addresses and routes, and the data plane on it.
//!
//! Hears the route plan; tells the state of the device, the host's own network, and what flows through. What it decides
//! is in [`core`]; this file makes the device, talks to the kernel and carries queries from the packet path to Dns.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext as _, Context, Handler, Recipient};
use podway_tunnel::credit::Budget;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use self::core::{Change, Effect, Input, VifCore};
use self::feeds::{pump_blocked, pump_in_use, pump_stats, watch_host};
use self::messages::{Close, FlowStats, Open, StopDataPlane, VifChanged};
use crate::actors::client_list::messages::FlowsBlocked;
use crate::actors::dns::messages::QueryArrived;
use crate::actors::falls;
use crate::actors::proxy_via::messages::{HostFactsChanged, RoutePlanChanged, VipsInUseChanged};
use crate::actors::shell::{
    Driven, NO_LIMIT, Reply, Shell, Stop, TaskFailed, Tasks, drive, spawn_reporting, stop, told,
};
use crate::ids::{Generation, ReplyId};
use crate::net::cidr::Cidr;
use crate::net::data_plane::{DataPlane, DataPlaneHandle, Ended, Wiring};
use crate::net::dns_tap::DnsSink;
use crate::net::route::{RouteError, RouteHandle};
use crate::net::tun::{PacketDevice, TunDevice};
use crate::net::views::{ClientTable, Target, VipTable};

pub mod core;
pub(crate) mod feeds;
pub mod messages;

/// Blocked targets that wait to be told.
const BLOCKED_QUEUE: usize = 64;
/// How long making the device may take.
const OPEN_LIMIT: Duration = Duration::from_secs(5);
/// How long one change of routes may take.
const APPLY_LIMIT: Duration = Duration::from_secs(10);
/// How long stopping the data plane may take; it bounds itself.
const STOP_LIMIT: Duration = Duration::from_millis(100);
/// How long the removal of the device may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);
/// How often the device is looked for after its descriptor was closed, and the pause between.
const GONE_LOOKS: (u32, Duration) = (20, Duration::from_millis(5));

/// The edges of Vif.
pub struct Edges {
    /// Session: state of the device.
    pub session: Recipient<VifChanged>,
    /// Dns: state of the device.
    pub dns: Recipient<VifChanged>,
    /// Session: counters.
    pub stats: Recipient<FlowStats>,
    /// ProxyVia: the host's own network.
    pub proxy_via: Recipient<HostFactsChanged>,
    /// ProxyVia: the virtual addresses that flows use.
    pub in_use: Recipient<VipsInUseChanged>,
    /// Dns: queries out of the packet path.
    pub queries: Recipient<QueryArrived>,
    /// ClientList: flows that wait for a link.
    pub blocked: Recipient<FlowsBlocked>,
    /// The links that work.
    pub clients: watch::Receiver<Arc<ClientTable>>,
    /// What virtual addresses stand for.
    pub vips: watch::Receiver<Arc<VipTable>>,
    /// What the flows of the session share.
    pub buffers: Arc<Budget>,
}

/// The actor.
pub struct Vif {
    driven: Driven<VifCore>,
    edges: Edges,
    device: Option<Device>,
    /// Destinations that the kernel would not give to us, for the watch of the host's network.
    taken: watch::Sender<BTreeSet<Cidr>>,
    /// How long a UDP association lives without a datagram.
    udp_idle: Duration,
    /// Where the host's resolver is configured (`/etc`).
    etc: PathBuf,
    tasks: Tasks,
    replies: HashMap<ReplyId, Reply<()>>,
    next_reply: ReplyId,
}

/// The device and what belongs to it.
struct Device {
    tun: Arc<TunDevice>,
    ifindex: u32,
    routes: RouteHandle,
    /// Absent once it was told to stop.
    plane: Option<DataPlaneHandle>,
    blocked: Option<mpsc::Receiver<Target>>,
}

impl Vif {
    /// A Vif without a device, on a host whose resolver is configured in `etc` (`/etc`).
    pub fn new(edges: Edges, udp_idle: Duration, etc: PathBuf) -> Self {
        Vif {
            driven: Driven::new(VifCore::new()),
            edges,
            device: None,
            taken: watch::Sender::new(BTreeSet::new()),
            udp_idle,
            etc,
            tasks: Tasks::default(),
            replies: HashMap::new(),
            next_reply: ReplyId(0),
        }
    }

    fn keep(&mut self, reply: Reply<()>) -> ReplyId {
        self.next_reply = self.next_reply.next();
        self.replies.insert(self.next_reply, reply);
        self.next_reply
    }

    /// Runs a task for as long as the actor lives.
    fn serve(&mut self, what: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.keep(spawn_reporting(work, NO_LIMIT, move |ended| match ended {
            Ok(()) | Err(TaskFailed::Aborted) => debug!(what, "ended"),
            Err(failed) => warn!(what, ?failed, "ended"),
        }));
    }

    fn open(&mut self, device: String, mtu: u32, ctx: &mut Context<Self>) {
        let host = watch_host(self.edges.proxy_via.clone(), self.etc.clone(), device.clone(), self.taken.subscribe());
        self.serve("watch of the host's network", host);
        let me = ctx.address();
        let (clients, vips, udp_idle) = (self.edges.clients.clone(), self.edges.vips.clone(), self.udp_idle);
        let queries = self.edges.queries.clone();
        let dns = DnsSink::new(move |query| queries.do_send(QueryArrived(query)));
        let (blocked_tx, blocked) = mpsc::channel(BLOCKED_QUEUE);
        let wiring = Wiring { clients, vips, dns, blocked_tx, udp_idle };
        self.tasks.keep(spawn_reporting(make(device, mtu, wiring, blocked), OPEN_LIMIT, move |made| {
            let made = made.unwrap_or_else(|failed| Err(format!("cannot make the device: {}", why(failed))));
            me.do_send(OpenEnded(made));
        }));
    }

    fn opened(&mut self, made: Result<Device, String>, ctx: &mut Context<Self>) {
        let result = made.map(|mut device| {
            info!(device = device.tun.name(), ifindex = device.ifindex, "the device is up");
            if let Some(blocked) = device.blocked.take() {
                self.serve("pump of blocked targets", pump_blocked(blocked, self.edges.blocked.clone()));
            }
            if let Some(plane) = &device.plane {
                let stats = pump_stats(plane.shared_counters(), self.edges.buffers.clone(), self.edges.stats.clone());
                self.serve("pump of counters", stats);
                self.serve("pump of addresses in use", pump_in_use(plane.virtual_in_use(), self.edges.in_use.clone()));
                let me = ctx.address();
                let ended = plane.ended();
                self.tasks.keep(spawn_reporting(ended, NO_LIMIT, move |ended| {
                    me.do_send(PlaneEnded(match ended {
                        Ok(Ended::DeviceGone(why)) => format!("the device is gone: {why}; connect again"),
                        Ok(Ended::Stopped) => "the data plane was stopped".to_owned(),
                        Ok(Ended::Panicked) => "bug: the data plane panicked".to_owned(),
                        Err(failed) => why(failed),
                    }));
                }));
            }
            let ifindex = device.ifindex;
            self.device = Some(device);
            ifindex
        });
        drive(self, Input::Opened(result), ctx);
    }

    fn apply(&mut self, change: Change, ctx: &mut Context<Self>) {
        let me = ctx.address();
        let generation = change.generation;
        let Some(device) = &self.device else {
            let failed = all_failed(&change, "there is no device");
            return me.do_send(ApplyEnded { generation, failed, taken: BTreeSet::new() });
        };
        let (routes, whole) = (device.routes.clone(), change.clone());
        spawn_reporting(apply(routes, change), APPLY_LIMIT, move |result| {
            let (failed, taken) = result.unwrap_or_else(|failed| (all_failed(&whole, &why(failed)), BTreeSet::new()));
            me.do_send(ApplyEnded { generation, failed, taken });
        });
    }

    fn stop_data_plane(&mut self, ctx: &mut Context<Self>) {
        let me = ctx.address();
        let Some(plane) = self.device.as_mut().and_then(|device| device.plane.take()) else {
            return me.do_send(PlaneStopped);
        };
        spawn_reporting(plane.stop(), STOP_LIMIT, move |ended| {
            debug!(?ended, "the data plane stopped");
            me.do_send(PlaneStopped);
        });
    }

    fn close(&mut self, ctx: &mut Context<Self>) {
        let me = ctx.address();
        let Some(device) = self.device.take() else { return me.do_send(CloseEnded) };
        spawn_reporting(remove(device), CLOSE_LIMIT, move |removed| {
            match removed {
                Ok(Ok(())) => info!("the device is gone"),
                Ok(Err(error)) => warn!(%error, "cannot confirm that the device is gone"),
                Err(failed) => warn!(?failed, "cannot confirm that the device is gone"),
            }
            me.do_send(CloseEnded);
        });
    }
}

impl Actor for Vif {
    type Context = Context<Self>;
}

impl Shell for Vif {
    type Core = VifCore;

    fn driven(&mut self) -> &mut Driven<VifCore> {
        &mut self.driven
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Open { device, mtu } => self.open(device, mtu, ctx),
            Effect::Apply(change) => self.apply(change, ctx),
            Effect::StopDataPlane => self.stop_data_plane(ctx),
            Effect::Close => self.close(ctx),
            Effect::Answer(id) => {
                if let Some(reply) = self.replies.remove(&id) {
                    reply.answer(());
                }
            }
            Effect::Tell(generation, state) => {
                let changed = VifChanged { generation, state };
                self.edges.dns.do_send(changed.clone());
                self.edges.session.do_send(changed);
            }
        }
    }
}

/// Makes the device, sets it up and starts the data plane on it.
async fn make(name: String, mtu: u32, wiring: Wiring, blocked: mpsc::Receiver<Target>) -> Result<Device, String> {
    let packet = usize::try_from(mtu).map_err(|error| error.to_string())?;
    let tun = Arc::new(TunDevice::create(&name, packet).map_err(|error| error.to_string())?);
    let say = |error: RouteError| format!("cannot set the device {name} up: {error}");
    let routes = RouteHandle::open().map_err(say)?;
    let ifindex = tun.index().map_err(|error| format!("the device {name} is gone: {error}"))?;
    routes.set_up(ifindex, mtu).await.map_err(say)?;
    let shared: Arc<dyn PacketDevice> = Arc::<TunDevice>::clone(&tun);
    let plane = DataPlane::start(shared, wiring);
    Ok(Device { tun, ifindex, routes, plane: Some(plane), blocked: Some(blocked) })
}

/// Carries a change out and says what failed, and which routes others have. What is new comes first, so that nothing that
/// stays is ever without a route.
async fn apply(routes: RouteHandle, change: Change) -> (BTreeMap<String, String>, BTreeSet<Cidr>) {
    let (mut failed, mut taken) = (BTreeMap::new(), BTreeSet::new());
    let mut note = |cidr: &Cidr, result: Result<(), RouteError>| {
        if let Err(error) = result {
            failed.insert(cidr.to_string(), error.to_string());
            taken.extend(matches!(error, RouteError::Taken(_)).then_some(*cidr));
        }
    };
    for address in &change.add_addresses {
        note(address, routes.add_address(change.ifindex, *address).await);
    }
    for route in &change.add_routes {
        note(route, routes.add_route(change.ifindex, *route).await);
    }
    for route in &change.remove_routes {
        note(route, routes.del_route(change.ifindex, *route).await);
    }
    for address in &change.remove_addresses {
        note(address, routes.del_address(change.ifindex, *address).await);
    }
    (failed, taken)
}

fn all_failed(change: &Change, why: &str) -> BTreeMap<String, String> {
    let added = change.add_addresses.iter().chain(&change.add_routes);
    let removed = change.remove_addresses.iter().chain(&change.remove_routes);
    added.chain(removed).map(|cidr| (cidr.to_string(), why.to_owned())).collect()
}

/// Closes the device and returns once the kernel has it no more.
async fn remove(device: Device) -> Result<(), RouteError> {
    let Device { tun, ifindex, routes, plane, .. } = device;
    let name = tun.name().to_owned();
    drop((plane, tun));
    goes(&routes, &name, Some(ifindex)).await
}

/// Returns once the kernel has no device of this name that a Vif which is no more had made: it goes with the last flow.
/// One that is known to be ours, by its index, is removed if it stays; another is waited for, not long, and left.
///
/// # Errors
/// The kernel cannot be asked.
pub async fn gone(name: &str, ours: Option<u32>) -> Result<(), RouteError> {
    goes(&RouteHandle::open()?, name, ours).await
}

async fn goes(routes: &RouteHandle, name: &str, ours: Option<u32>) -> Result<(), RouteError> {
    for _ in 0..GONE_LOOKS.0 {
        match routes.link_index(name).await {
            Ok(index) if ours.is_none_or(|ours| index == ours) => sleep(GONE_LOOKS.1).await,
            Ok(_) | Err(RouteError::NoLink(_)) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    // A flow that does not end holds the descriptor.
    match ours {
        Some(ours) => routes.del_link(ours).await,
        None => Ok(()),
    }
}

fn why(failed: TaskFailed) -> String {
    match failed {
        TaskFailed::Panicked(text) => format!("bug: {text}"),
        TaskFailed::TimedOut => "it took too long".to_owned(),
        TaskFailed::Aborted => "given up".to_owned(),
    }
}

/// self → Vif. The device is there, or why not.
struct OpenEnded(Result<Device, String>);

/// self → Vif. A change was carried out.
struct ApplyEnded {
    generation: Generation,
    failed: BTreeMap<String, String>,
    taken: BTreeSet<Cidr>,
}

/// self → Vif. The data plane ended; says why.
struct PlaneEnded(String);

/// self → Vif. The data plane stopped as asked.
struct PlaneStopped;

/// self → Vif. The device is gone as asked.
struct CloseEnded;

told!(OpenEnded, ApplyEnded, PlaneEnded, PlaneStopped, CloseEnded);

impl Handler<OpenEnded> for Vif {
    type Result = ();
    fn handle(&mut self, message: OpenEnded, ctx: &mut Context<Self>) {
        falls::at_message::<Self>("OpenEnded");
        self.opened(message.0, ctx);
    }
}

impl Handler<StopDataPlane> for Vif {
    type Result = ();
    fn handle(&mut self, message: StopDataPlane, ctx: &mut Context<Self>) {
        let id = self.keep(message.reply);
        drive(self, Input::StopDataPlane(id), ctx);
    }
}

impl Handler<Close> for Vif {
    type Result = ();
    fn handle(&mut self, message: Close, ctx: &mut Context<Self>) {
        let id = self.keep(message.reply);
        drive(self, Input::Close(id), ctx);
    }
}

impl Handler<Stop> for Vif {
    type Result = ();
    fn handle(&mut self, message: Stop, ctx: &mut Context<Self>) {
        falls::at_message::<Self>("Stop");
        self.tasks.end();
        let Some(device) = self.device.take() else {
            stop(ctx);
            return message.reply.answer(());
        };
        // Not closed before: what is owned goes first, then the answer.
        spawn_reporting(remove(device), CLOSE_LIMIT, move |_| message.reply.answer(()));
        stop(ctx);
    }
}

impl From<Open> for Input {
    fn from(message: Open) -> Input {
        Input::Open { device: message.device, mtu: message.mtu }
    }
}

impl From<RoutePlanChanged> for Input {
    fn from(message: RoutePlanChanged) -> Input {
        Input::Plan(message.generation, message.plan)
    }
}

impl Handler<ApplyEnded> for Vif {
    type Result = ();
    fn handle(&mut self, message: ApplyEnded, ctx: &mut Context<Self>) {
        let ApplyEnded { generation, failed, mut taken } = message;
        // A virtual range is left to the older of two connections by the younger, which sees its address.
        taken.retain(|cidr| !self.edges.vips.borrow().virtual_ranges.contains(cidr));
        self.taken.send_if_modified(|known| {
            let before = known.len();
            known.extend(taken);
            known.len() > before
        });
        drive(self, Input::Applied { generation, failed }, ctx);
    }
}

impl From<PlaneEnded> for Input {
    fn from(message: PlaneEnded) -> Input {
        Input::DataPlaneEnded(message.0)
    }
}

impl From<PlaneStopped> for Input {
    fn from(_: PlaneStopped) -> Input {
        Input::DataPlaneStopped
    }
}

impl From<CloseEnded> for Input {
    fn from(_: CloseEnded) -> Input {
        Input::Closed
    }
}

crate::actors::shell::drives!(Vif, Open, RoutePlanChanged, PlaneEnded, PlaneStopped, CloseEnded);

#[cfg(test)]
mod device_tests;
