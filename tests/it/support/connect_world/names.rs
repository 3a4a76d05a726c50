//! Names: the real Dns, or a model that is ready once it may be.

use podway::actors::dns::core::{Effect, Input, LookupId};
use podway::actors::dns::messages::{Configure, DnsState, Transport};
use podway::actors::proxy_via::core as via;
use podway::actors::proxy_via::messages::Allocation;
use podway::actors::session::core::{self as session, TeardownStep};
use podway::net::dns_message::{Kind, Question, build_query, parse_answer};
use podway::net::resolver::{AttachFailed, Attached, Backend, Outlook};
use podway::spec::DnsMode;

use super::*;

const NAME: &str = "web.demo.svc.cluster.local";

fn question() -> Question {
    Question { name: NAME.into(), kind: Kind::A }
}

/// Replies of ProxyVia to Dns, told apart from others.
const LOOKUPS: u64 = 1000;

impl ConnectWorld {
    pub(super) fn names_begin(&mut self) {
        if self.dns.is_none() {
            return;
        }
        self.dns = Some(Held::new(DnsCore::default()));
        self.seen.reports = Generation(0);
        let configure = Configure { mode: DnsMode::Auto, namespace: "demo".into(), include_suffixes: Vec::new() };
        self.send(Session, Dns, Letter::Dns(Input::Configured(configure)));
    }

    /// A program asks for the address of the service.
    pub(super) fn asks(&mut self) {
        if self.dns.is_none() {
            self.questions += 1;
            return;
        }
        if !self.alive.contains(&Dns) {
            return;
        }
        let id = ReplyId(u64::try_from(self.seen.queries.len()).expect("few"));
        self.seen.queries.insert(id);
        let query = build_query(1, &question()).expect("a query");
        self.send(Host, Dns, Letter::Dns(Input::Asked { id, query, transport: Transport::Udp }));
    }

    pub(super) fn dns(&mut self, input: Input) {
        let now = self.now;
        let Some(core) = &mut self.dns else { return };
        for effect in driven(core, now, input) {
            say(|| format!("Dns: {}", short(&effect)));
            match effect {
                Effect::Reply { id, answer } => self.dns_replied(id, answer.as_deref()),
                Effect::Forward { id, .. } => self.dns_replied(id, None),
                // There is no other connection.
                Effect::Deny { id, denial, .. } => self.dns_replied(id, Some(&denial)),
                Effect::Ask { id, .. } => self.under_way(Outside::Upstream(id)),
                Effect::Translate { id, addresses, .. } if self.mutant == Some(Mutant::DnsHandsOutReal) => {
                    let same = addresses.into_iter().map(|real| (real, real)).collect();
                    self.send(ProxyVia, Dns, Letter::Dns(Input::Translated { id, result: Some(Ok(same)) }));
                }
                Effect::Translate { id, name, addresses } => {
                    let reply = ReplyId(LOOKUPS + id.0);
                    if self.alive.contains(&ProxyVia) {
                        self.send(Dns, ProxyVia, Letter::Via(via::Input::Allocate { reply, name, addresses }));
                    } else {
                        self.send(ProxyVia, Dns, Letter::Dns(Input::Translated { id, result: None }));
                    }
                }
                Effect::Attach { attempt, .. } => {
                    if self.seen.stopping.contains(&Dns) {
                        self.fault("nothing_begun_after_teardown", "the resolver was attached");
                    }
                    // From when it is begun, there may be something to undo.
                    self.seen.attached = true;
                    self.under_way(Outside::Attach(attempt));
                }
                Effect::Detach { attempt } => self.under_way(Outside::Detach(attempt)),
                Effect::AnswerRestore { .. } => self.under_way(Outside::StepDone(TeardownStep::RestoreDns)),
                Effect::Report(state) => {
                    self.seen.reports = self.seen.reports.next();
                    let told = session::Input::Dns(self.seen.reports, state);
                    self.send(Dns, Session, Letter::Session(told));
                }
            }
        }
    }

    /// What a program hears has to work when it hears it.
    fn dns_replied(&mut self, id: ReplyId, answer: Option<&[u8]>) {
        if self.seen.replied.contains(&id) || !self.seen.queries.contains(&id) {
            self.fault("one_answer_per_query", &format!("query {id} was answered again"));
        }
        self.seen.replied.push(id);
        let parsed = answer.and_then(|raw| parse_answer(raw, 1, &question()).ok());
        for address in parsed.iter().flat_map(|answer| answer.addresses()) {
            if address == IpAddr::from(SERVICE_IP) {
                self.fault("no_real_address", "a translated address was handed out as it is");
            } else if !self.seen.vips.contains(&address) {
                self.fault("vip_routable_before_answered", &format!("{address} is in no published table"));
            } else {
                self.seen.given.insert(address);
            }
        }
    }

    /// ProxyVia answered Dns.
    pub(super) fn translated(&mut self, reply: ReplyId, answer: Allocation) {
        let id = LookupId(reply.0.saturating_sub(LOOKUPS));
        self.send(ProxyVia, Dns, Letter::Dns(Input::Translated { id, result: Some(answer) }));
    }

    pub(super) fn attach_ends(&mut self, attempt: Attempt, well: bool) {
        let result = if well {
            Ok(Attached { backend: Backend::Resolved, repaired: false, message: String::new(), domains: None })
        } else {
            self.failing_names -= 1;
            Err(AttachFailed { message: "the bus is away".into(), outlook: Outlook::Open, file: false })
        };
        self.dns(Input::Attached { attempt, result });
    }

    pub(super) fn detach_ends(&mut self, attempt: Attempt) {
        self.seen.attached = false;
        self.dns(Input::Restored { attempt, left: Vec::new() });
    }

    /// Looking at the host's resolver every now and then goes on for ever: it wakes only for questions, and to try again.
    pub(super) fn dns_deadline(&self) -> Option<Millis> {
        let core = self.dns.as_ref()?;
        let waits = self.seen.queries.len() > self.seen.replied.len();
        let undecided = !self.seen.attached || core.poll_deadline().is_some_and(|at| at <= self.now + SOON);
        (waits || undecided).then(|| core.poll_deadline()).flatten()
    }

    /// The model: ready once it knows its address and the device is up.
    pub(super) fn attach_names(&mut self) {
        let (address, device, told) = self.names;
        if address && device && told == 0 && self.alive.contains(&Dns) {
            self.names.2 = 1;
            let state = DnsState { ready: true, ..DnsState::default() };
            self.send(Dns, Session, Letter::Session(session::Input::Dns(Generation(1), state)));
        }
    }
}

/// Retries come within this time, checks of what works later.
const SOON: std::time::Duration = std::time::Duration::from_secs(10);
