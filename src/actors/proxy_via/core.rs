//! Which ranges are translated or routed, and which virtual address stands for what. Pure.
//!
//! ```text
//!   Select, Cluster, Host ──▶ decisions ──▶ route plan, translated ranges, workloads, state
//!   Allocate ──▶ place of each address ──▶ pool ──▶ table published ──▶ answer
//! ```
//!
//! Invariants: the facts told depend on the facts known, not on their order; a table that knows a virtual address is
//! published before anyone is told of that address; repeated facts take no new address; workloads come from the rules
//! alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use super::messages::{
    AllocateError, Allocation, RangeStatus, RoutePlanChanged, SelectProxyVia, TranslationChanged, Treatment,
    ViaChanged, ViaState,
};
use crate::actors::client_list::core::ViaFact;
use crate::actors::client_list::messages::GeneralEgress;
use crate::actors::shell::Core;
use crate::cluster::ClusterInfo;
use crate::ids::{Generation, Millis, ReplyId};
use crate::net::cidr::{Cidr, minimal};
use crate::net::route_plan::{Decisions, HostFacts, Ipv6, Place, RoutePlan, Wanted, is_default, plan};
use crate::net::views::{Target, VipEntry};
use crate::net::vip::memory::VipMemory;
use crate::net::vip::{self, Exhausted, Hold, VipPool};
use crate::spec::RangeSelector;
use crate::workload::Workload;

/// Where virtual addresses come from, unless the host uses it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProxyViaConfig {
    /// IPv4.
    pub virtual_v4: Cidr,
    /// IPv6.
    pub virtual_v6: Cidr,
}

/// What goes in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Input {
    /// The rules; replaces all.
    Select(SelectProxyVia),
    /// Fact of PodWatcher.
    Cluster(Generation, Arc<ClusterInfo>),
    /// Fact of Vif.
    Host(Generation, Arc<HostFacts>),
    /// Dns wants the addresses of one answer translated.
    Allocate {
        /// Stands for the reply.
        reply: ReplyId,
        /// The name asked for.
        name: Arc<str>,
        /// The real addresses.
        addresses: Vec<IpAddr>,
    },
    /// Virtual addresses that flows use now; until it is known, no address is given to something else.
    InUse(BTreeSet<IpAddr>),
    /// What earlier connections left.
    Remember(VipMemory),
    /// Teardown: nothing is told any more.
    Stop,
    /// Time has passed.
    Woke,
}

/// What the shell shall do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Publish the table of virtual addresses.
    Publish(Table),
    /// Tell Vif.
    TellVif(RoutePlanChanged),
    /// Tell ClientList and AgentPlacer.
    TellWorkloads(Generation, ViaFact),
    /// Tell Dns.
    TellDns(TranslationChanged),
    /// Tell Session.
    TellSession(ViaChanged),
    /// Answer Dns.
    Answer(ReplyId, Allocation),
}

/// The published table, ordered.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Table {
    /// Version.
    pub generation: Generation,
    /// Virtual address to what it stands for.
    pub vips: BTreeMap<IpAddr, VipEntry>,
    /// Ranges of virtual addresses.
    pub virtual_ranges: Vec<Cidr>,
    /// The device's own addresses.
    pub device_addresses: Vec<IpAddr>,
    /// Addresses at which names are asked.
    pub dns_addresses: Vec<IpAddr>,
    /// Real ranges routed as they are.
    pub routed: Vec<Cidr>,
    /// Pod ranges as far as known.
    pub pod_ranges: Vec<Cidr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mode {
    Serving,
    Stopped,
}

/// Which range the virtual addresses of one family come from: chosen once, and left only when it cannot work any more.
///
/// What a choice causes (routes, an edited resolv.conf) comes back as a fact of the host, late and in any order. So a
/// range that works is never weighed against others, and one that was left is never taken again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Choice {
    candidates: Vec<Cidr>,
    made: bool,
    left: BTreeSet<Cidr>,
}

impl Choice {
    fn new(wanted: Cidr) -> Choice {
        Choice { candidates: vip::candidates(wanted), made: false, left: BTreeSet::new() }
    }

    /// Puts the ranges of before in front, those used last first.
    fn prefer<'a>(&mut self, ranges: impl Iterator<Item = &'a Cidr> + Clone) {
        let place = |candidate: &Cidr| ranges.clone().position(|range| range == candidate).unwrap_or(usize::MAX);
        self.candidates.sort_by_key(place);
    }

    /// Keeps the range of `pool` or replaces it, as the networks of others and the cluster's real ranges demand. When
    /// none is free, it stays.
    fn review(&mut self, pool: &mut VipPool, memory: &VipMemory, others: &[Cidr], real: &[Cidr]) {
        let range = pool.range();
        if self.made {
            if vip::is_free(&range, real) && !vip::is_broken_by(&range, others) {
                return;
            }
            self.left.insert(range);
        }
        let works =
            |range: &&Cidr| !self.left.contains(range) && vip::is_free(range, real) && vip::is_free(range, others);
        if let Some(better) = self.candidates.iter().find(works)
            && *better != range
        {
            *pool = VipPool::new(*better, memory);
        }
        self.made = true;
    }
}

/// The core.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProxyViaCore {
    config: ProxyViaConfig,
    selection: Option<SelectProxyVia>,
    cluster: (Generation, Arc<ClusterInfo>),
    host: (Generation, Option<Arc<HostFacts>>),
    pools: [VipPool; 2],
    choices: [Choice; 2],
    /// What earlier connections left, once it is known.
    memory: Option<Arc<VipMemory>>,
    in_use: Option<BTreeSet<IpAddr>>,
    fixed: Vec<(IpAddr, IpAddr, Workload, String)>,
    decisions: Decisions,
    mode: Mode,
    table: Table,
    plan: (Generation, RoutePlan),
    workloads: (Generation, ViaFact),
    translation: TranslationChanged,
    via: ViaChanged,
    effects: VecDeque<Effect>,
}

impl ProxyViaCore {
    /// A core that knows nothing yet.
    pub fn new(config: ProxyViaConfig) -> Self {
        let memory = Arc::<VipMemory>::default();
        let pools = [config.virtual_v4, config.virtual_v6].map(|range| VipPool::new(range, &memory));
        let choices = [Choice::new(config.virtual_v4), Choice::new(config.virtual_v6)];
        let translation = TranslationChanged {
            generation: Generation(0),
            translated: BTreeSet::new(),
            virtual_ranges: Vec::new(),
            dns_addresses: Vec::new(),
            names: Arc::default(),
            namespaces: BTreeSet::new(),
            ready: false,
        };
        ProxyViaCore {
            config,
            selection: None,
            cluster: Default::default(),
            host: Default::default(),
            pools,
            choices,
            memory: Some(memory),
            in_use: None,
            fixed: Vec::new(),
            decisions: Decisions::default(),
            mode: Mode::Serving,
            table: Table::default(),
            plan: Default::default(),
            workloads: Default::default(),
            translation,
            via: ViaChanged { generation: Generation(0), state: ViaState::default() },
            effects: VecDeque::new(),
        }
    }

    /// The same, but no range is chosen before it is known what earlier connections left.
    #[must_use]
    pub fn awaiting_memory(self) -> Self {
        ProxyViaCore { memory: None, ..self }
    }

    /// Draws the addresses of before from the ranges of before, unless others were configured since.
    fn remember(&mut self, memory: VipMemory) {
        let configured = [self.config.virtual_v4, self.config.virtual_v6];
        for (choice, (pool, range)) in self.choices.iter_mut().zip(self.pools.iter_mut().zip(configured)) {
            if memory.configured == configured {
                choice.prefer(memory.all_ranges());
            }
            *pool = VipPool::new(range, &memory);
        }
        self.memory = Some(Arc::new(memory));
    }

    /// What shall be remembered at `now`, in seconds since 1970, in the place of what was remembered before; nothing when
    /// that is not known, or when this connection has given out no address.
    pub fn memory(&self, now: u64) -> Option<VipMemory> {
        let before = self.memory.as_ref()?;
        let used = self.pools.iter().filter(|pool| !pool.entries().is_empty());
        let used: Vec<_> = used.map(|pool| (pool.range(), pool.remember(now).collect())).collect();
        let configured = [self.config.virtual_v4, self.config.virtual_v6];
        (!used.is_empty()).then(|| before.after(&configured, used))
    }

    /// Whether addresses can be translated: rules, host and the whole of the cluster's ranges are known.
    pub fn is_ready(&self) -> bool {
        self.mode == Mode::Serving && self.knows_ranges() && self.cluster.1.complete
    }

    /// Whether virtual ranges can be chosen.
    fn knows_ranges(&self) -> bool {
        self.selection.is_some() && self.host.1.is_some() && self.memory.is_some()
    }

    /// The host's resolver names our own DNS address once it was made to ask us, and that for a while after we left it.
    fn without_ourselves(&self, mut facts: Arc<HostFacts>) -> Arc<HostFacts> {
        let ours: BTreeSet<IpAddr> =
            self.choices.iter().flat_map(|choice| &choice.candidates).map(vip::dns_address).collect();
        if !facts.resolvers.is_disjoint(&ours) {
            Arc::make_mut(&mut facts).resolvers.retain(|resolver| !ours.contains(resolver));
        }
        facts
    }

    /// The ranges, their decisions taken from all that is known.
    fn decide(&mut self) {
        let (Some(selection), Some(host), Some(memory)) = (&self.selection, &self.host.1, &self.memory) else { return };
        let wanted = wanted(selection, &self.cluster.1, host);
        self.decisions = wanted.decide();
        let routes = host.routes.iter().map(|route| route.destination).filter(|cidr| !is_default(cidr));
        let links = host.addresses.iter().map(Cidr::trunc);
        let others: Vec<Cidr> = routes.chain(links).chain(wanted.protected()).collect();
        let cluster = &self.cluster.1;
        let known = cluster.service_cidrs.iter().chain(&cluster.pod_cidrs).chain(&selection.also_proxy);
        let known: Vec<Cidr> = known.filter(|cidr| !is_default(cidr)).copied().collect();
        for (pool, choice) in self.pools.iter_mut().zip(&mut self.choices) {
            choice.review(pool, memory, &others, &known);
        }
    }

    /// Gives each single loopback address of a rule its virtual address.
    fn fix(&mut self) {
        self.fixed.clear();
        if !self.is_ready() {
            return;
        }
        let Some(selection) = self.selection.clone() else { return };
        for (cidr, workload) in loopback(&selection) {
            if cidr.prefix_len() < cidr.max_prefix_len() || !self.carries(&cidr) {
                continue;
            }
            let (real, name) = (cidr.addr(), loopback_name(cidr.addr(), &workload));
            let target = Target::Workload(workload.clone());
            if let Ok(vip) = self.draw(real, &target, &name.as_str().into(), Hold::Fixed) {
                self.fixed.push((vip, real, workload, name));
            }
        }
    }

    fn draw(&mut self, real: IpAddr, target: &Target, name: &Arc<str>, hold: Hold) -> Result<IpAddr, Exhausted> {
        let [v4, v6] = &mut self.pools;
        let pool = if real.is_ipv4() { v4 } else { v6 };
        pool.allocate(real, target, name, hold, self.in_use.as_ref())
    }

    /// Flows use these addresses now. Those that they used until now have their quarantine before them as well.
    fn used(&mut self, now: Millis, vips: BTreeSet<IpAddr>) {
        let before = self.in_use.replace(vips.clone()).unwrap_or_default();
        for pool in &mut self.pools {
            pool.touch(before.union(&vips), now);
        }
    }

    fn allocate(&mut self, now: Millis, name: &Arc<str>, reals: &[IpAddr]) -> Allocation {
        if !self.is_ready() {
            return Err(AllocateError::NotReady);
        }
        let mut places = BTreeMap::new();
        for real in reals {
            match self.decisions.place(*real) {
                Place::Foreign => return Err(AllocateError::Foreign(*real)),
                place @ (Place::Plain | Place::Translated(_)) => places.insert(*real, place),
            };
        }
        let mut answer = BTreeMap::new();
        for (real, place) in places {
            let handed = match place {
                Place::Translated(target) => {
                    self.draw(real, &target, name, Hold::Answer(now)).map_err(|_| AllocateError::Exhausted)?
                }
                Place::Plain | Place::Foreign => real,
            };
            answer.insert(real, handed);
        }
        Ok(answer)
    }

    fn ipv6(&self) -> Ipv6 {
        self.host.1.as_ref().map(|host| host.ipv6).unwrap_or_default()
    }

    fn virtual_ranges(&self) -> Vec<Cidr> {
        if !self.knows_ranges() {
            return Vec::new();
        }
        self.carried().map(VipPool::range).collect()
    }

    /// Whether the device may have addresses of this family.
    fn carries(&self, cidr: &Cidr) -> bool {
        self.ipv6() == Ipv6::On || matches!(cidr, Cidr::V4(_))
    }

    /// The virtual addresses that the device may carry. Others stand for nothing here, and are not told of.
    fn carried(&self) -> impl Iterator<Item = &VipPool> {
        self.pools.iter().filter(|pool| self.carries(&pool.range()))
    }

    fn publish(&mut self) {
        let ranges = self.virtual_ranges();
        let table = Table {
            generation: self.table.generation,
            vips: self.carried().flat_map(|pool| pool.entries().clone()).collect(),
            device_addresses: ranges.iter().map(vip::device_address).collect(),
            dns_addresses: ranges.iter().map(vip::dns_address).collect(),
            virtual_ranges: ranges,
            routed: self.decisions.routed.iter().copied().collect(),
            pod_ranges: minimal(&self.cluster.1.pod_cidrs).into_iter().collect(),
        };
        if table != self.table {
            self.table = Table { generation: table.generation.next(), ..table };
            self.effects.push_back(Effect::Publish(self.table.clone()));
        }
    }

    fn tell(&mut self) {
        let Some(selection) = self.selection.clone() else { return };
        let ready = self.is_ready();
        let ranges = self.virtual_ranges();
        if !ranges.is_empty() {
            let plan = plan(&self.decisions, &ranges, &self.table.device_addresses);
            if plan != self.plan.1 {
                self.plan = (self.plan.0.next(), plan.clone());
                self.effects.push_back(Effect::TellVif(RoutePlanChanged { generation: self.plan.0, plan }));
            }
        }
        let workloads = self.wanted_workloads(&selection);
        if self.workloads.0 == Generation(0) || workloads != self.workloads.1 {
            self.workloads = (self.workloads.0.next(), workloads);
            self.effects.push_back(Effect::TellWorkloads(self.workloads.0, self.workloads.1.clone()));
        }
        let translation = TranslationChanged {
            generation: self.translation.generation,
            translated: self.decisions.translated(),
            virtual_ranges: self.table.virtual_ranges.clone(),
            dns_addresses: self.table.dns_addresses.clone(),
            names: Arc::new(self.carried().flat_map(|pool| pool.names().clone()).collect()),
            namespaces: selection.rules.iter().map(|rule| Arc::clone(&rule.workload.namespace)).collect(),
            ready,
        };
        if translation != self.translation {
            self.translation = TranslationChanged { generation: translation.generation.next(), ..translation };
            self.effects.push_back(Effect::TellDns(self.translation.clone()));
        }
        let state = ViaState {
            ranges: self.decisions.ranges.clone(),
            vips_in_use: self.table.vips.len(),
            vips_capacity: ranges.iter().map(vip::capacity).fold(0, u64::saturating_add),
            virtual_ranges: ranges,
            fixed: self.fixed.clone(),
            plan: self.plan.0,
            ipv6: self.ipv6(),
            ready,
        };
        if state != self.via.state {
            self.via = ViaChanged { generation: self.via.generation.next(), state };
            self.effects.push_back(Effect::TellSession(self.via.clone()));
        }
    }

    fn wanted_workloads(&self, selection: &SelectProxyVia) -> ViaFact {
        let mut special: BTreeMap<Workload, BTreeSet<Cidr>> = BTreeMap::new();
        for (cidr, workload) in loopback(selection) {
            special.entry(workload).or_default().insert(cidr);
        }
        let covered = |symbol: RangeSelector, source: &str, known: &BTreeSet<Cidr>| {
            let pinned = |range: &RangeStatus| {
                matches!(&range.treatment, Treatment::Translated { target: Target::Workload(_), .. })
            };
            let ranges = self.decisions.ranges.iter();
            selection.rules.iter().any(|rule| rule.range == symbol || rule.range == RangeSelector::All)
                || (self.is_ready()
                    && !known.is_empty()
                    && known.iter().all(|c| ranges.clone().any(|r| r.cidr == c.trunc() && pinned(r)))
                    && !ranges.clone().any(|r| r.source == source && r.treatment == Treatment::Routed))
        };
        let cluster = &self.cluster.1;
        let all = covered(RangeSelector::Service, "service", &cluster.service_cidrs)
            && covered(RangeSelector::Pods, "pods", &cluster.pod_cidrs);
        let general =
            if all && !self.decisions.wants_general() { GeneralEgress::NotNeeded } else { GeneralEgress::Wanted };
        ViaFact { workloads: selection.rules.iter().map(|rule| rule.workload.clone()).collect(), general, special }
    }
}

impl Core for ProxyViaCore {
    type Input = Input;
    type Effect = Effect;

    fn handle(&mut self, now: Millis, input: Input) {
        let mut asked = None;
        // These change nothing that ranges are decided by; each answered name is one.
        let decided = matches!(input, Input::Allocate { .. } | Input::InUse(_));
        match input {
            Input::Select(selection) => self.selection = Some(selection),
            Input::Cluster(generation, info) if generation > self.cluster.0 => self.cluster = (generation, info),
            Input::Host(generation, facts) if generation > self.host.0 => {
                self.host = (generation, Some(self.without_ourselves(facts)));
            }
            Input::Allocate { reply, name, addresses } => asked = Some((reply, name, addresses)),
            Input::InUse(vips) => self.used(now, vips),
            Input::Remember(memory) if self.memory.is_none() => self.remember(memory),
            Input::Stop => self.mode = Mode::Stopped,
            Input::Cluster(..) | Input::Host(..) | Input::Remember(_) | Input::Woke => {}
        }
        if self.mode == Mode::Serving && !decided {
            self.decide();
            self.fix();
        }
        let answer = asked.map(|(reply, name, reals)| Effect::Answer(reply, self.allocate(now, &name, &reals)));
        let drew = self.pools.iter_mut().fold(false, |drew, pool| pool.take_drew() | drew);
        if self.mode == Mode::Serving && (drew || !decided) {
            self.publish();
            self.tell();
        }
        self.effects.extend(answer);
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn poll_deadline(&self) -> Option<Millis> {
        None
    }

    fn woke() -> Input {
        Input::Woke
    }
}

fn wanted<'a>(selection: &'a SelectProxyVia, cluster: &'a ClusterInfo, host: &'a HostFacts) -> Wanted<'a> {
    Wanted {
        rules: &selection.rules,
        vnat: &selection.vnat,
        also: &selection.also_proxy,
        never: &selection.never_proxy,
        allow: &selection.allow_conflicting,
        api_server: &selection.api_server,
        service: &cluster.service_cidrs,
        pods: &cluster.pod_cidrs,
        host,
    }
}

/// The loopback ranges that rules name, by themselves or by `also`: each needs leave of its agent.
pub fn loopback(selection: &SelectProxyVia) -> Vec<(Cidr, Workload)> {
    let (cluster, host) = (ClusterInfo::default(), HostFacts::default());
    let wanted = wanted(selection, &cluster, &host);
    let of_rule = |rule: &crate::spec::ViaRule<Workload>| {
        let workload = rule.workload.clone();
        wanted.expand(rule.range).into_iter().map(move |(cidr, _)| (cidr, workload.clone()))
    };
    let is_loopback = |cidr: &Cidr| match cidr {
        Cidr::V4(v4) => v4.prefix_len() >= 8 && v4.addr().is_loopback(),
        Cidr::V6(v6) => v6.prefix_len() == 128 && v6.addr().is_loopback(),
    };
    let mut seen = BTreeSet::new();
    let all = selection.rules.iter().flat_map(of_rule).filter(|(cidr, _)| is_loopback(cidr));
    // A range of several rules is that of each workload once.
    all.filter(|pair| seen.insert(pair.clone())).collect()
}

/// `127-0-0-1.WORKLOAD.NAMESPACE.podway`.
fn loopback_name(real: IpAddr, workload: &Workload) -> String {
    let label = match real {
        IpAddr::V4(v4) => v4.to_string().replace('.', "-"),
        IpAddr::V6(v6) => v6.segments().map(|segment| format!("{segment:x}")).join("-"),
    };
    format!("{label}.{}.{}.podway", workload.name, workload.namespace)
}

#[cfg(test)]
mod tests;
