//! Answers the names of the cluster, and makes the host's resolver ask us.
//!
//! Queries come from the packet path; there is no listening socket. What is answered, asked, translated and attached is
//! decided by [`core`]; this shell holds the replies and runs what takes time in tasks that report back.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext as _, Context, Handler, Recipient};
use bytes::Bytes;
use tokio::sync::{Semaphore, watch};

use crate::actors::falls;
use crate::actors::pod_watcher::messages::{ClusterInfoChanged, RecordsChanged};
use crate::actors::proxy_via::messages::{AllocateVips, TranslationChanged};
use crate::actors::shell::{self, Driven, Reply, Shell, Stop, TaskFailed, Tasks, drive, spawn_reporting, told};
use crate::actors::vif::messages::VifChanged;
use crate::ids::{Attempt, Generation, ReplyId};
use crate::net::dns_tap::{DnsQuery, DnsReply};
use crate::net::resolver::forward::{Beside, ask_beside, forward, forward_whole};
use crate::net::resolver::host::HostResolver;
use crate::net::resolver::systemd_resolved::Resolved;
use crate::net::resolver::{AttachFailed, Backend, LinkPlan, Outlook};
use crate::net::views::ClientTable;
use crate::spec::DnsMode;

mod beside;
pub mod core;
pub mod messages;
mod upstream;
mod watching;

use self::beside::{Host, followed};
use self::core::{DnsCore, Effect, Input, QuestionId, Upstream};
use self::messages::{Configure, DnsChanged, QueryArrived, Restore, Transport};
use self::watching::Watching;

/// The whole of attaching or detaching.
const SEQUENCE: Duration = Duration::from_secs(5);
/// Queries passed on to the host's servers at once; more are answered SERVFAIL.
const MAX_FORWARDS: usize = 256;
/// Servers of other connections asked at once; more are not asked. Apart from the others, as one that is silent holds up
/// what it is asked.
const MAX_BESIDE: usize = 256;
/// How long ProxyVia may leave an answer open before the look-up forgets it.
const TRANSLATE: Duration = Duration::from_secs(3);

/// Whom Dns tells.
#[derive(Clone)]
pub struct Edges {
    /// Translates addresses.
    pub proxy_via: Recipient<AllocateVips>,
    /// Hears how names are attached.
    pub session: Recipient<DnsChanged>,
}

/// The actor.
pub struct Dns {
    driven: Driven<DnsCore>,
    edges: Edges,
    clients: watch::Receiver<Arc<ClientTable>>,
    host: HostResolver,
    replies: BTreeMap<ReplyId, DnsReply>,
    restores: BTreeMap<ReplyId, Reply<Vec<String>>>,
    last_reply: ReplyId,
    generation: Generation,
    forwards: Arc<Semaphore>,
    beside: Arc<Semaphore>,
    watching: Watching,
    tasks: Tasks,
}

/// Task → Dns. Something that took time came to an end.
#[derive(Debug)]
struct Report(Input);

told!(Report);

impl Dns {
    /// A Dns that waits for its [`Configure`]; nothing is done to the host before. What it does to `host` can be undone
    /// by whoever holds a clone, also when this actor is no more.
    pub fn new(edges: Edges, clients: watch::Receiver<Arc<ClientTable>>, host: HostResolver) -> Dns {
        Dns {
            driven: Driven::new(DnsCore::default()),
            edges,
            clients,
            host,
            replies: BTreeMap::new(),
            restores: BTreeMap::new(),
            last_reply: ReplyId::default(),
            generation: Generation::default(),
            forwards: Arc::new(Semaphore::new(MAX_FORWARDS)),
            beside: Arc::new(Semaphore::new(MAX_BESIDE)),
            watching: Watching::default(),
            tasks: Tasks::default(),
        }
    }

    fn next_reply(&mut self) -> ReplyId {
        self.last_reply = self.last_reply.next();
        self.last_reply
    }

    /// Runs `work` on the pool and drives the core with what came of it; ends it with this actor.
    fn report<T: Send + 'static>(
        &mut self,
        ctx: &Context<Dns>,
        work: impl Future<Output = T> + Send + 'static,
        limit: Duration,
        input: impl FnOnce(Result<T, TaskFailed>) -> Input + Send + 'static,
    ) {
        let own: Addr<Dns> = ctx.address();
        self.tasks.keep(spawn_reporting(work, limit, move |result| own.do_send(Report(input(result)))));
    }

    fn forward(&mut self, id: ReplyId, query: Bytes, transport: Transport, failure: Bytes) {
        let Some(reply) = self.replies.remove(&id) else { return };
        let over_tcp = transport == Transport::Tcp;
        let (beside, host) = (self.ask_beside(&query, over_tcp), self.of_the_host());
        let work = async move {
            match beside.await {
                Beside::Knows(answer) => followed(answer, &query, transport, host).await,
                Beside::Denies | Beside::Fails => {
                    let _permit = host.forwards.try_acquire_owned().ok()?;
                    forward(&host.servers, &query, over_tcp).await
                }
            }
        };
        self.tasks.keep(spawn_reporting(work, SEQUENCE, move |result| {
            reply.answer(result.ok().flatten().unwrap_or(failure));
        }));
    }

    fn deny(&mut self, id: ReplyId, query: Bytes, transport: Transport, denial: Bytes, failure: Bytes) {
        let Some(reply) = self.replies.remove(&id) else { return };
        if self.host.beside().is_empty() {
            return reply.answer(denial);
        }
        let (beside, host) = (self.ask_beside(&query, transport == Transport::Tcp), self.of_the_host());
        let work = async move {
            match beside.await {
                Beside::Knows(answer) => followed(answer, &query, transport, host).await,
                Beside::Denies => Some(denial),
                Beside::Fails => None,
            }
        };
        self.tasks.keep(spawn_reporting(work, SEQUENCE, move |result| {
            reply.answer(result.ok().flatten().unwrap_or(failure));
        }));
    }

    fn of_the_host(&self) -> Host {
        Host { servers: self.host.upstream(), forwards: Arc::clone(&self.forwards) }
    }

    /// Asks the connections beside this one; as if they failed where too many are asked already.
    fn ask_beside(&self, query: &Bytes, over_tcp: bool) -> impl Future<Output = Beside> + Send + use<> {
        let (servers, query) = (self.host.beside(), query.clone());
        let count = u32::try_from(servers.len()).unwrap_or(u32::MAX);
        let permits = Arc::clone(&self.beside).try_acquire_many_owned(count);
        async move {
            match permits {
                Ok(_permits) => ask_beside(&servers, &query, over_tcp).await,
                Err(_) => Beside::Fails,
            }
        }
    }

    fn ask(&mut self, id: QuestionId, upstream: Upstream, query: Bytes, limit: Duration, ctx: &Context<Dns>) {
        let answered =
            move |answer: Result<Option<Bytes>, TaskFailed>| Input::Answered { id, answer: answer.ok().flatten() };
        match upstream {
            Upstream::Cluster | Upstream::Outside => {
                self.report(ctx, upstream::ask(self.clients.clone(), query, limit), limit, answered);
            }
            Upstream::Host => {
                let servers = self.host.upstream();
                self.report(ctx, async move { forward_whole(&servers, &query).await }, limit, answered);
            }
        }
    }

    fn attach(&mut self, attempt: Attempt, mode: DnsMode, plan: LinkPlan, ctx: &Context<Dns>) {
        // It begins here, not when the task does.
        let (host, work) = (self.host.clone(), self.host.attach(mode, &plan));
        self.report(ctx, work, SEQUENCE, move |result| {
            let result = result.unwrap_or_else(|failed| {
                let message = match failed {
                    TaskFailed::TimedOut => "the host's resolver did not answer within 5 s".to_owned(),
                    TaskFailed::Panicked(why) => format!("attaching names failed: {why}"),
                    TaskFailed::Aborted => "attaching names was broken off".to_owned(),
                };
                Err(AttachFailed { message, outlook: Outlook::Open, file: host.may_be_asked() })
            });
            Input::Attached { attempt, result }
        });
    }

    fn detach(&mut self, attempt: Attempt, ctx: &Context<Dns>) {
        self.watching.end();
        let (own, detached) = (ctx.address(), self.host.detach());
        // Not kept: the host gets its resolver back also when this actor ends meanwhile.
        spawn_reporting(detached, SEQUENCE, move |result| {
            let late = |_| vec!["the host's resolver did not answer within 5 s; run: podwayd cleanup".to_owned()];
            own.do_send(Report(Input::Restored { attempt, left: result.unwrap_or_else(late) }));
        });
    }

    /// Hears once that the file may be ours.
    fn watch_editor(&mut self, ctx: &Context<Dns>) {
        let (own, given_back) = (ctx.address(), self.host.given_back());
        self.watching.begin(Backend::Beside, async move {
            given_back.await;
            own.do_send(Report(Input::ResolverChanged));
        });
    }

    /// Watches resolved for as long as it is the back end; ends with the bus, and starts anew with the next attaching.
    fn watch(&mut self, ctx: &Context<Dns>) {
        let own = ctx.address();
        self.watching.begin(Backend::Resolved, async move {
            let changed = || own.do_send(Report(Input::ResolverChanged));
            let watched = match Resolved::connect().await {
                Ok(resolved) => resolved.watch(changed).await,
                Err(error) => Err(error),
            };
            if let Err(error) = watched {
                tracing::debug!(%error, "systemd-resolved is not watched");
            }
        });
    }
}

impl Actor for Dns {
    type Context = Context<Dns>;
}

impl Shell for Dns {
    type Core = DnsCore;

    fn driven(&mut self) -> &mut Driven<DnsCore> {
        &mut self.driven
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Context<Dns>) {
        match effect {
            Effect::Reply { id, answer } => {
                if let (Some(reply), Some(answer)) = (self.replies.remove(&id), answer) {
                    reply.answer(answer);
                }
            }
            Effect::Forward { id, query, transport, failure } => self.forward(id, query, transport, failure),
            Effect::Deny { id, query, transport, denial, failure } => self.deny(id, query, transport, denial, failure),
            Effect::Ask { id, upstream, query, limit } => self.ask(id, upstream, query, limit, ctx),
            Effect::Translate { id, name, addresses } => {
                let (reply, translated) = Reply::new();
                self.edges.proxy_via.do_send(AllocateVips { name, addresses, reply });
                let own = ctx.address();
                // On this thread, which is ProxyVia's too: an answer need not take a turn through the pool.
                let task = actix_rt::spawn(async move {
                    let result = tokio::time::timeout(TRANSLATE, translated).await.ok().and_then(Result::ok);
                    own.do_send(Report(Input::Translated { id, result }));
                });
                self.tasks.keep(task.abort_handle());
            }
            Effect::Attach { attempt, mode, plan } => self.attach(attempt, mode, plan, ctx),
            Effect::Detach { attempt } => self.detach(attempt, ctx),
            Effect::AnswerRestore { id, left } => {
                if let Some(reply) = self.restores.remove(&id) {
                    reply.answer(left);
                }
            }
            Effect::Report(state) => {
                if state.backend == Backend::Resolved.to_string() {
                    self.watch(ctx);
                } else if state.backend == Backend::Beside.to_string() {
                    self.watch_editor(ctx);
                }
                self.generation = self.generation.next();
                self.edges.session.do_send(DnsChanged { generation: self.generation, state });
            }
        }
    }
}

impl Handler<QueryArrived> for Dns {
    type Result = ();
    fn handle(&mut self, QueryArrived(asked): QueryArrived, ctx: &mut Context<Dns>) {
        let DnsQuery { query, transport, reply, .. } = asked;
        let id = self.next_reply();
        self.replies.insert(id, reply);
        drive(self, Input::Asked { id, query, transport }, ctx);
    }
}

impl Handler<Restore> for Dns {
    type Result = ();
    fn handle(&mut self, Restore { reply }: Restore, ctx: &mut Context<Dns>) {
        let id = self.next_reply();
        self.restores.insert(id, reply);
        drive(self, Input::Restore(id), ctx);
    }
}

impl Handler<Report> for Dns {
    type Result = ();
    fn handle(&mut self, Report(input): Report, ctx: &mut Context<Dns>) {
        drive(self, input, ctx);
    }
}

/// Ends at once: the host is given back by [`Restore`], which Session sends before. Open queries stay unanswered.
impl Handler<Stop> for Dns {
    type Result = ();
    fn handle(&mut self, Stop { reply }: Stop, ctx: &mut Context<Dns>) {
        falls::at_message::<Self>("Stop");
        self.watching.end();
        shell::stop(ctx);
        reply.answer(());
    }
}

impl Handler<Configure> for Dns {
    type Result = ();
    fn handle(&mut self, configure: Configure, ctx: &mut Context<Dns>) {
        drive(self, Input::Configured(configure), ctx);
    }
}

impl Handler<RecordsChanged> for Dns {
    type Result = ();
    fn handle(&mut self, RecordsChanged { generation, records }: RecordsChanged, ctx: &mut Context<Dns>) {
        drive(self, Input::Records(generation, records), ctx);
    }
}

impl Handler<ClusterInfoChanged> for Dns {
    type Result = ();
    fn handle(&mut self, ClusterInfoChanged { generation, info }: ClusterInfoChanged, ctx: &mut Context<Dns>) {
        drive(self, Input::Info(generation, info), ctx);
    }
}

impl Handler<TranslationChanged> for Dns {
    type Result = ();
    fn handle(&mut self, changed: TranslationChanged, ctx: &mut Context<Dns>) {
        drive(self, Input::Translation(changed), ctx);
    }
}

impl Handler<VifChanged> for Dns {
    type Result = ();
    fn handle(&mut self, changed: VifChanged, ctx: &mut Context<Dns>) {
        drive(self, Input::Device(changed), ctx);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::task::LocalSet;

    use super::*;
    use crate::actors::shell::start_monitored;
    use crate::net::os_journal::OsJournal;
    use crate::net::resolver::host::FileEditor;

    /// Hears everything and says nothing.
    struct Sink;

    impl Actor for Sink {
        type Context = Context<Self>;
    }

    impl Handler<AllocateVips> for Sink {
        type Result = ();
        fn handle(&mut self, _: AllocateVips, _: &mut Context<Self>) {}
    }

    impl Handler<DnsChanged> for Sink {
        type Result = ();
        fn handle(&mut self, _: DnsChanged, _: &mut Context<Self>) {}
    }

    /// Begins tasks that hold these, then panics.
    struct Fall {
        work: oneshot::Sender<()>,
        watch: oneshot::Sender<()>,
    }

    told!(Fall);

    impl Handler<Fall> for Dns {
        type Result = ();
        fn handle(&mut self, Fall { mut work, mut watch }: Fall, ctx: &mut Context<Dns>) {
            let work = async move { work.closed().await };
            self.report(ctx, work, Duration::from_secs(3600), |_| Input::ResolverChanged);
            self.watching.begin(Backend::Resolved, async move { watch.closed().await });
            panic!("it fell");
        }
    }

    #[tokio::test]
    async fn connections_that_are_silent_hold_up_no_name_of_the_host() {
        use crate::net::dns_message::{Kind, Question, build_query};

        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("resolv.conf"), "nameserver 127.0.0.1\n").expect("written");
        let editor = FileEditor::default();
        let connection = || HostResolver::new(dir.path(), OsJournal::new(dir.path()), editor.clone());
        let plan = |server: &str| LinkPlan {
            ifindex: 7,
            interface: "podway0".into(),
            servers: vec![server.parse().expect("an address")],
            search: Vec::new(),
            routing: Vec::new(),
        };
        let (first, second) = (connection(), connection());
        first.attach(DnsMode::File, &plan("127.0.0.2")).await.expect("attached");
        // Nobody answers there.
        second.attach(DnsMode::File, &plan("192.0.2.1")).await.expect("beside it");
        LocalSet::new()
            .run_until(async {
                let sink = Sink.start();
                let edges = Edges { proxy_via: sink.clone().recipient(), session: sink.recipient() };
                let mut dns = Dns::new(edges, watch::channel(Arc::default()).1, first.clone());
                let query =
                    build_query(7, &Question { name: "www.example.com".into(), kind: Kind::A }).expect("a query");
                let (reply, answer) = DnsReply::to_test();
                let id = dns.next_reply();
                dns.replies.insert(id, reply);
                dns.forward(id, query.clone(), Transport::Udp, Bytes::from_static(b"failed"));
                assert_eq!(
                    (dns.forwards.available_permits(), dns.beside.available_permits()),
                    (MAX_FORWARDS, MAX_BESIDE - 1)
                );
                drop(answer);
                let held = Arc::clone(&dns.beside).try_acquire_many_owned(255).expect("that many");
                let limit = Duration::from_millis(500);
                let refused = tokio::time::timeout(limit, dns.ask_beside(&query, false)).await;
                assert_eq!(refused.expect("at once"), Beside::Fails);
                drop(held);
            })
            .await;
        assert_eq!(first.detach().await, Vec::<String>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_end_with_an_actor_that_panics() {
        let dir = tempfile::tempdir().expect("a directory");
        let host = HostResolver::new(dir.path(), OsJournal::new(dir.path()), Default::default());
        LocalSet::new()
            .run_until(async {
                let sink = Sink.start();
                let edges = Edges { proxy_via: sink.clone().recipient(), session: sink.recipient() };
                let (_table, clients) = watch::channel(Arc::default());
                let context = Context::new();
                let dns = context.address();
                start_monitored(Dns::new(edges, clients, host), context, |_| ());
                let ((work, worked), (watch, watched)) = (oneshot::channel(), oneshot::channel());
                dns.do_send(Fall { work, watch });
                let limit = Duration::from_secs(20);
                for ended in [worked, watched] {
                    assert!(tokio::time::timeout(limit, ended).await.expect("it ended").is_err());
                }
            })
            .await;
    }
}
