//! One host's resolver: which back end, attach, detach. The only place that knows all of them.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::watch;

use super::resolv_conf::{Applied, ResolvConf, ResolvConfError, Restored, is_marked, servers};
use super::systemd_resolved::{Resolved, ResolvedError};
use super::{AttachFailed, Attached, BESIDE, Backend, LinkPlan, Outlook, REPLACED};
use crate::net::os_journal::{Change, OsJournal, Undone};
use crate::spec::DnsMode;

/// Where resolved writes the servers that it asks.
const UPLINK: &str = "/run/systemd/resolve/resolv.conf";
const OFF_HINT: &str = "names are not attached: the host does not use systemd-resolved and its resolv.conf cannot be \
                        replaced; set your resolver to ask the DNS address that podway status shows, and connect with \
                        --dns off";
const TAKEN: &str =
    "another connection is about to replace resolv.conf, or cannot; end that one, or connect with --dns off";

const EDITED: &str = "somebody edited podway's resolv.conf: the edit stays until the disconnect, and is then kept beside it as \
                      resolv.conf.podway-edited";

/// What is told of an edit that was moved aside.
pub(crate) fn kept_edit(restored: &Restored) -> Option<String> {
    match restored {
        Restored::KeptEdit(path) => {
            Some(format!("resolv.conf was edited while podway had it: the edit is now in {}", path.display()))
        }
        Restored::Nothing | Restored::Exactly | Restored::LeftToOther => None,
    }
}

/// The host's resolver. Cheap to clone; clones share what was done.
#[derive(Clone, Debug)]
pub struct HostResolver {
    etc: PathBuf,
    journal: OsJournal,
    editor: FileEditor,
    done: Arc<Mutex<Done>>,
    /// In the place of the one on the system bus.
    #[cfg(test)]
    resolved: Option<Resolved>,
}

/// Who may edit `resolv.conf`: one connection of those that share this. A program asks the servers of that file in turn
/// and believes the first answer, so the editor alone is named there; what it has no answer for it passes on to those beside
/// it.
#[derive(Clone, Debug, Default)]
pub struct FileEditor {
    /// What the editor did; gone with it, so that nobody needs to give it back.
    by: Arc<Mutex<Weak<Mutex<Done>>>>,
    /// Who is beside the editor, in the order in which they came: those of a connection that is gone are gone too. As many
    /// as there are connections.
    beside: Arc<Mutex<Vec<Weak<Mutex<Done>>>>>,
    /// Counts how often an editor gave the file back.
    given_back: Arc<watch::Sender<u64>>,
    /// Held while the file, its backup and the journal are changed: by threads that may block, and no longer than that.
    writing: Arc<Mutex<()>>,
}

/// How far another connection is with the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Other {
    /// It is to edit the file, and has not yet.
    Begins,
    /// The file is its own.
    Edits,
}

impl FileEditor {
    /// Makes `done` the editor.
    ///
    /// # Errors
    /// Another is.
    fn take(&self, done: &Arc<Mutex<Done>>) -> Result<(), Other> {
        let mut by = locked(&self.by);
        if let Some(other) = of_another(&by, done) {
            return Err(other);
        }
        *by = Arc::downgrade(done);
        locked(done).file = true;
        Ok(())
    }

    /// How far another than `done` is, where one edits the file.
    fn other(&self, done: &Arc<Mutex<Done>>) -> Option<Other> {
        of_another(&locked(&self.by), done)
    }

    /// Has whoever edits the file pass on to these servers what it has no answer for.
    fn join(&self, done: &Arc<Mutex<Done>>, servers: &[IpAddr]) {
        locked(done).beside = servers.to_vec();
        let mut beside = locked(&self.beside);
        beside.retain(|other| other.strong_count() > 0);
        if !beside.iter().any(|other| other.as_ptr() == Arc::as_ptr(done)) {
            beside.push(Arc::downgrade(done));
        }
    }

    /// A server of each connection beside this one.
    fn beside(&self, done: &Arc<Mutex<Done>>) -> Vec<IpAddr> {
        let others = locked(&self.beside).iter().filter_map(Weak::upgrade).collect::<Vec<_>>();
        let others = others.iter().filter(|other| !Arc::ptr_eq(other, done));
        others.filter_map(|other| locked(other).beside.first().copied()).collect()
    }
}

fn of_another(by: &Weak<Mutex<Done>>, done: &Arc<Mutex<Done>>) -> Option<Other> {
    let other = by.upgrade().filter(|other| !Arc::ptr_eq(other, done))?;
    let other = locked(&other);
    match (other.file, other.replaced) {
        (false, _) => None,
        (true, false) => Some(Other::Begins),
        (true, true) => Some(Other::Edits),
    }
}

/// What it guards is whole between any two statements.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was done to the host in this run.
#[derive(Clone, Debug, Default)]
struct Done {
    link: Option<u32>,
    /// Whether the file is ours to change.
    file: bool,
    /// Whether it was changed.
    replaced: bool,
    /// Our servers, where another connection edits the file.
    beside: Vec<IpAddr>,
    upstream: Vec<IpAddr>,
    /// Counts detaching: what was begun before is not done after.
    detached: u64,
}

impl HostResolver {
    /// The resolver whose files are in `etc` (`/etc`); changes that outlive us are noted in `journal`. All connections of
    /// one daemon share `editor`.
    pub fn new(etc: impl Into<PathBuf>, journal: OsJournal, editor: FileEditor) -> HostResolver {
        HostResolver {
            etc: etc.into(),
            journal,
            editor,
            done: Arc::default(),
            #[cfg(test)]
            resolved: None,
        }
    }

    /// Makes the host ask us as planned; what is already so stays untouched.
    ///
    /// Cancel safe: what was begun is undone by [`HostResolver::detach`], and does not go on after it.
    ///
    /// # Errors
    /// Why it does not, and whether another try can help.
    pub async fn attach(&self, mode: DnsMode, plan: &LinkPlan) -> Result<Attached, AttachFailed> {
        match mode {
            DnsMode::Off => Ok(attached(Backend::Off, false, "")),
            DnsMode::Resolved => self.by_resolved(plan).await,
            DnsMode::File => self.by_file(plan).await,
            DnsMode::Auto if self.done().file => self.by_file(plan).await,
            DnsMode::Auto => {
                let uses_it = self.uses_resolved();
                if uses_it || self.done().link.is_some() {
                    match self.by_resolved(plan).await {
                        // Not there although the host is set up for it: it may only be starting anew.
                        Err(failed) if failed.outlook == Outlook::Hopeless && !uses_it => {}
                        Err(failed) => return Err(AttachFailed { outlook: Outlook::Open, ..failed }),
                        Ok(done) => return Ok(done),
                    }
                }
                let file = self.file();
                // The one that edits the file left no doubt that it can be replaced.
                if self.editor.other(&self.done).is_none() && blocking(move || file.replaceable()).await.is_err() {
                    return Err(AttachFailed { message: OFF_HINT.to_owned(), outlook: Outlook::Hopeless });
                }
                self.by_file(plan).await
            }
        }
    }

    /// How [`HostResolver::attach`] would make the host ask us, as far as can be told without a change.
    ///
    /// # Errors
    /// Why it would not.
    pub async fn foresee(&self, mode: DnsMode) -> Result<Attached, AttachFailed> {
        let by_resolved = || async {
            match Resolved::connect().await {
                Ok(_) => Ok(attached(Backend::Resolved, false, "")),
                Err(error) => Err(AttachFailed { message: error.to_string(), outlook: Outlook::Open }),
            }
        };
        let by_file = || async {
            match self.editor.other(&self.done) {
                None => {}
                Some(Other::Edits) => return Ok(attached(Backend::Beside, false, BESIDE)),
                Some(Other::Begins) => {
                    let message = format!("names would not be attached: {TAKEN}");
                    return Err(AttachFailed { message, outlook: Outlook::Taken });
                }
            }
            let file = self.file();
            match blocking(move || file.seems_replaceable()).await {
                Ok(()) => Ok(attached(Backend::File, false, REPLACED)),
                Err(error) => Err(AttachFailed { message: error.to_string(), outlook: Outlook::Hopeless }),
            }
        };
        match mode {
            DnsMode::Off => Ok(attached(Backend::Off, false, "")),
            DnsMode::Resolved => by_resolved().await,
            DnsMode::File => by_file().await,
            DnsMode::Auto if self.uses_resolved() => by_resolved().await,
            DnsMode::Auto => by_file().await.map_err(|failed| match failed.outlook {
                Outlook::Hopeless => AttachFailed { message: OFF_HINT.to_owned(), ..failed },
                Outlook::Taken | Outlook::Open | Outlook::Overwritten => failed,
            }),
        }
    }

    /// Undoes everything done to the host, and keeps an attaching that goes on meanwhile from doing more. Twice is
    /// harmless. Returns what could not be undone, in the user's words.
    pub async fn detach(&self) -> Vec<String> {
        self.update(|done| {
            done.detached += 1;
            done.beside.clear();
        });
        let Done { link, file, .. } = self.done();
        let mut left = Vec::new();
        if file {
            let (file, journal, change) = (self.file(), self.journal.clone(), self.change());
            let restored = self.writing(move |_| {
                let restored = file.restore()?;
                if let Err(error) = journal.forget(&change) {
                    tracing::debug!(%error, "the journal could not be written");
                }
                Ok(restored)
            });
            match restored.await {
                Ok(restored) => {
                    left.extend(kept_edit(&restored));
                    self.update(|done| (done.file, done.replaced) = (false, false));
                    self.editor.given_back.send_modify(|times| *times += 1);
                }
                Err(error) => left.push(format!("{error}; run: podwayd cleanup")),
            }
        }
        if let Some(ifindex) = link {
            let reverted = match self.resolved().await {
                Ok(resolved) => resolved.revert(ifindex).await,
                Err(error) => Err(error),
            };
            match reverted {
                // Without resolved there are no settings, and with the link they go anyway.
                Ok(()) | Err(ResolvedError::Absent(_)) => self.update(|done| done.link = None),
                Err(error) => left.push(format!("{error}; the settings go with the interface")),
            }
        }
        left
    }

    /// The servers that the host used before us; empty unless the file is ours.
    pub fn upstream(&self) -> Vec<IpAddr> {
        self.done().upstream
    }

    async fn resolved(&self) -> Result<Resolved, ResolvedError> {
        #[cfg(test)]
        if let Some(resolved) = &self.resolved {
            return Ok(resolved.clone());
        }
        Resolved::connect().await
    }

    /// Name servers of the connections beside this one, which edits the file.
    pub fn beside(&self) -> Vec<IpAddr> {
        self.editor.beside(&self.done)
    }

    /// Ends when the connection that edits the file has given it back after this call. One that fell gives no sign.
    pub fn given_back(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut times = self.editor.given_back.subscribe();
        async move {
            // Its sender is gone with the daemon.
            let _ = times.changed().await;
        }
    }

    async fn by_resolved(&self, plan: &LinkPlan) -> Result<Attached, AttachFailed> {
        let failed = |error: ResolvedError| AttachFailed {
            outlook: if matches!(error, ResolvedError::Absent(_)) { Outlook::Hopeless } else { Outlook::Open },
            message: format!("{error}; connect with --dns file or --dns off if the host does without it"),
        };
        let before = self.done().link;
        let resolved = self.resolved().await.map_err(failed)?;
        self.update(|done| done.link = Some(plan.ifindex));
        resolved.apply(plan).await.map_err(|error| AttachFailed { outlook: Outlook::Open, ..failed(error) })?;
        if let Some(old) = before.filter(|old| *old != plan.ifindex)
            && let Err(error) = resolved.revert(old).await
        {
            tracing::debug!(%error, "settings of a former link were not reverted");
        }
        Ok(attached(Backend::Resolved, false, ""))
    }

    async fn by_file(&self, plan: &LinkPlan) -> Result<Attached, AttachFailed> {
        let (file, journal, change, plan) = (self.file(), self.journal.clone(), self.change(), plan.clone());
        let begun = self.done().detached;
        match self.editor.take(&self.done) {
            Ok(()) => self.update(|done| done.beside.clear()),
            Err(Other::Edits) => {
                self.editor.join(&self.done, &plan.servers);
                // Whoever detached meanwhile did not see that.
                self.update(|done| {
                    if done.detached != begun {
                        done.beside.clear()
                    }
                });
                return Ok(attached(Backend::Beside, false, BESIDE));
            }
            Err(Other::Begins) => {
                let message = format!("names are not attached: {TAKEN}");
                return Err(AttachFailed { message, outlook: Outlook::Taken });
            }
        }
        // The thread goes on when this future is dropped; by then somebody may have detached.
        let applied = self.writing(move |done| {
            if locked(done).detached != begun {
                return Err(ResolvConfError::Withdrawn);
            }
            journal.record(&change).map_err(|source| ResolvConfError::Io { path: "os-journal.json".into(), source })?;
            let applied = file.apply(&plan)?;
            locked(done).replaced = true;
            Ok((applied, file.previous_servers()))
        });
        let (applied, upstream) = applied.await.map_err(|error| {
            let outlook = match &error {
                ResolvConfError::NotRegular(_) | ResolvConfError::NoBackup(_) | ResolvConfError::Damaged(_) => {
                    Outlook::Hopeless
                }
                ResolvConfError::Io { source, .. } if source.kind() == std::io::ErrorKind::ReadOnlyFilesystem => {
                    Outlook::Hopeless
                }
                ResolvConfError::Io { .. } | ResolvConfError::Withdrawn => Outlook::Open,
            };
            AttachFailed { message: error.to_string(), outlook }
        })?;
        let upstream = upstream.into_iter().filter(|server| !plan_has(&self.etc, *server)).collect();
        self.update(|done| done.upstream = upstream);
        let message = if applied == Applied::Edited { EDITED } else { REPLACED };
        Ok(attached(Backend::File, applied == Applied::Repaired, message))
    }

    /// Whether the host's programs ask resolved: its stub is in resolv.conf, or its module in nsswitch.conf.
    fn uses_resolved(&self) -> bool {
        let text = fs::read(self.etc.join("resolv.conf")).unwrap_or_default();
        let stub =
            |server: &IpAddr| [[127, 0, 0, 53], [127, 0, 0, 54]].iter().any(|stub| *server == IpAddr::from(*stub));
        let linked =
            fs::canonicalize(self.etc.join("resolv.conf")).is_ok_and(|p| p.starts_with("/run/systemd/resolve"));
        let switch = fs::read_to_string(self.etc.join("nsswitch.conf")).unwrap_or_default();
        let hosts = switch.lines().find_map(|line| line.trim_start().strip_prefix("hosts:"));
        let module = hosts.is_some_and(|sources| sources.split_whitespace().any(|source| source == "resolve"));
        linked || module || servers(&text).iter().any(stub)
    }

    /// Changes files on a thread that may block, one change at a time; goes on when this future is dropped.
    async fn writing<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Mutex<Done>) -> Result<T, ResolvConfError> + Send + 'static,
    ) -> Result<T, ResolvConfError> {
        let (one, done) = (Arc::clone(&self.editor.writing), Arc::clone(&self.done));
        blocking(move || {
            let _one = locked(&one);
            work(&done)
        })
        .await
    }

    fn file(&self) -> ResolvConf {
        ResolvConf::new(&self.etc)
    }

    fn change(&self) -> Change {
        Change::ResolvConf { directory: self.etc.clone() }
    }

    fn done(&self) -> Done {
        locked(&self.done).clone()
    }

    fn update(&self, change: impl FnOnce(&mut Done)) {
        change(&mut locked(&self.done));
    }
}

/// Puts back whatever an earlier run left changed: by the journal, and by the marker in `etc` alone. Blocks on the file
/// system; for the daemon's start and `podwayd cleanup`.
pub fn recover(etc: &Path, journal: &OsJournal) -> Undone {
    let mut undone = journal.undo_all();
    if let Err(error) = undone.add(&ResolvConf::new(etc))
        && !undone.left.contains(&error)
    {
        undone.left.push(error);
    }
    undone
}

/// Whether names of this host are asked of podwayd, by its mark in the file in `etc`. Blocks on the file system.
pub fn is_ours(etc: &Path) -> bool {
    fs::read(etc.join("resolv.conf")).is_ok_and(|text| is_marked(&text))
}

/// The name servers the host uses, loopback left out: those that systemd-resolved asks, and those that the file in `etc`
/// names, or named before we replaced it. Blocks on the file system, briefly.
///
/// systemd-resolved lists the servers of every link, ours among them.
pub fn host_resolvers(etc: &Path) -> BTreeSet<IpAddr> {
    resolvers(etc, Path::new(UPLINK))
}

fn resolvers(etc: &Path, uplink: &Path) -> BTreeSet<IpAddr> {
    let uplink = fs::read(uplink).map(|text| servers(&text)).unwrap_or_default();
    let linked = fs::read(etc.join("resolv.conf")).ok().filter(|text| !is_marked(text));
    let linked = linked.map(|text| servers(&text)).unwrap_or_default();
    let before = ResolvConf::new(etc).previous_servers();
    uplink.into_iter().chain(linked).chain(before).filter(|server| !server.is_loopback()).collect()
}

/// Whether the file in `etc` names this server now, so that asking it would be asking ourselves.
fn plan_has(etc: &Path, server: IpAddr) -> bool {
    fs::read(etc.join("resolv.conf")).is_ok_and(|text| servers(&text).contains(&server))
}

fn attached(backend: Backend, repaired: bool, message: &str) -> Attached {
    Attached { backend, repaired, message: message.to_owned() }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ResolvConfError> + Send + 'static,
) -> Result<T, ResolvConfError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(ResolvConfError::Io { path: "resolv.conf".into(), source: std::io::Error::other(error) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(interface: &str) -> LinkPlan {
        LinkPlan {
            ifindex: 7,
            interface: interface.into(),
            servers: vec!["246.246.0.2".parse().unwrap()],
            search: Vec::new(),
            routing: vec!["cluster.local".into()],
        }
    }

    #[test]
    fn the_host_s_servers_are_those_of_before_and_those_that_resolved_asks() {
        let etc = tempfile::tempdir().unwrap();
        let uplink = etc.path().join("uplink");
        let found = || resolvers(etc.path(), &uplink).iter().map(IpAddr::to_string).collect::<Vec<_>>();
        assert!(found().is_empty());
        fs::write(etc.path().join("resolv.conf"), "nameserver 127.0.0.53\nnameserver 192.0.2.53\n").unwrap();
        fs::write(&uplink, "nameserver 10.96.0.53\n").unwrap();
        assert_eq!(found(), ["10.96.0.53", "192.0.2.53"]);
        ResolvConf::new(etc.path()).apply(&plan("podway0")).unwrap();
        assert_eq!(found(), ["10.96.0.53", "192.0.2.53"], "ours is no server of the host");
    }

    #[tokio::test]
    async fn a_host_on_which_nothing_can_be_attached_is_told_so() {
        let (etc, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink("elsewhere", etc.path().join("resolv.conf")).unwrap();
        let resolver = HostResolver::new(etc.path(), OsJournal::new(run.path()), FileEditor::default());
        let failed = resolver.attach(DnsMode::Auto, &plan("podway0")).await.unwrap_err();
        assert_eq!(failed.outlook, Outlook::Hopeless);
        assert!(failed.message.contains("not attached") && failed.message.contains("--dns off"), "{}", failed.message);
        fs::remove_file(etc.path().join("resolv.conf")).unwrap();
        assert_eq!(resolver.attach(DnsMode::Auto, &plan("podway0")).await.unwrap().backend, Backend::File);
        assert_eq!(resolver.detach().await, Vec::<String>::new());
    }

    #[tokio::test]
    async fn what_was_begun_before_detaching_is_not_done_after() {
        const THEIRS: &str = "nameserver 192.0.2.53\n";
        let (etc, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = etc.path().join("resolv.conf");
        fs::write(&path, THEIRS).unwrap();
        let editor = FileEditor::default();
        let resolver = HostResolver::new(etc.path(), OsJournal::new(run.path()), editor.clone());
        // Both wait here, and then go on in either order.
        let (go, gate) = std::sync::mpsc::channel::<()>();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let holding = tokio::spawn({
            let resolver = resolver.clone();
            async move {
                let wait = move |_: &Mutex<Done>| {
                    begin.send(()).unwrap();
                    gate.recv().unwrap();
                    Ok(())
                };
                resolver.writing(wait).await.unwrap();
            }
        });
        begun.await.unwrap();
        let attaching = tokio::spawn({
            let resolver = resolver.clone();
            async move { resolver.attach(DnsMode::File, &plan("podway0")).await }
        });
        while !resolver.done().file {
            tokio::task::yield_now().await;
        }
        attaching.abort();
        let detaching = tokio::spawn({
            let resolver = resolver.clone();
            async move { resolver.detach().await }
        });
        while resolver.done().detached == 0 {
            tokio::task::yield_now().await;
        }
        go.send(()).unwrap();
        holding.await.unwrap();
        assert_eq!(detaching.await.unwrap(), Vec::<String>::new());
        // Whoever comes next waits for both.
        assert_eq!(resolver.detach().await, Vec::<String>::new());
        resolver.writing(|_| Ok(())).await.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), THEIRS);
        assert_eq!(resolver.attach(DnsMode::File, &plan("podway0")).await.unwrap().backend, Backend::File);
        resolver.detach().await;
        assert!(fs::read_dir(run.path()).unwrap().next().is_none(), "nothing is left in the journal");
    }

    /// What a resolved of the test was told.
    #[derive(Debug, Default)]
    struct Told {
        servers: Vec<(i32, Vec<u8>)>,
        domains: Vec<(String, bool)>,
        reverted: Vec<i32>,
        /// Whether it answers nothing about links any more.
        hangs: bool,
    }

    /// A resolved at the other end of a socket, which keeps what it is told.
    async fn fake_resolved() -> (Resolved, Arc<Mutex<Told>>) {
        use futures_util::StreamExt as _;
        use zbus::{ObjectPath, Variant as Value};

        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let guid = zbus::Guid::generate();
        let server = zbus::connection::Builder::unix_stream(theirs).server(guid).p2p().build();
        let client = zbus::connection::Builder::unix_stream(ours).p2p().build();
        let (server, client) = tokio::try_join!(server, client).unwrap();
        let told = Arc::new(Mutex::new(Told::default()));
        let keeps = Arc::clone(&told);
        tokio::spawn(async move {
            let mut calls = zbus::MessageStream::from(&server);
            while let Some(Ok(call)) = calls.next().await {
                let header = call.header();
                let (member, body) = (header.member().unwrap().to_string(), call.body());
                if member.contains("Link") && locked(&keeps).hangs {
                    continue;
                }
                match member.as_str() {
                    "GetLink" => {
                        let path = ObjectPath::try_from("/org/freedesktop/resolve1/link/_7").unwrap();
                        server.reply(&header, &path).await.unwrap();
                        continue;
                    }
                    "Get" => {
                        let (_, name): (String, String) = body.deserialize().unwrap();
                        let value = {
                            let told = locked(&keeps);
                            match name.as_str() {
                                "DNS" => Value::from(told.servers.clone()),
                                "Domains" => Value::from(told.domains.clone()),
                                "DefaultRoute" => Value::from(false),
                                _ => Value::from(1_u64),
                            }
                        };
                        server.reply(&header, &value).await.unwrap();
                        continue;
                    }
                    "SetLinkDNS" => locked(&keeps).servers = body.deserialize::<(i32, _)>().unwrap().1,
                    "SetLinkDomains" => locked(&keeps).domains = body.deserialize::<(i32, _)>().unwrap().1,
                    "RevertLink" => {
                        let (index,) = body.deserialize().unwrap();
                        let mut told = locked(&keeps);
                        told.reverted.push(index);
                        (told.servers, told.domains) = Default::default();
                    }
                    _ => {}
                }
                server.reply(&header, &()).await.unwrap();
            }
        });
        (Resolved::over(client), told)
    }

    #[tokio::test]
    async fn settings_of_resolved_are_reverted_by_who_outlives_the_one_that_made_them() {
        let (etc, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (resolved, told) = fake_resolved().await;
        let mut session = HostResolver::new(etc.path(), OsJournal::new(run.path()), FileEditor::default());
        session.resolved = Some(resolved);
        // Dns has a clone, and panics: what it did is the session's to undo.
        let dns = session.clone();
        assert_eq!(dns.attach(DnsMode::Resolved, &plan("podway0")).await.unwrap().backend, Backend::Resolved);
        assert_eq!(locked(&told).servers, [(2, vec![246, 246, 0, 2])]);
        assert_eq!(locked(&told).domains, [("cluster.local".to_owned(), true)]);
        drop(dns);
        assert_eq!(session.detach().await, Vec::<String>::new());
        let seen = || {
            let told = locked(&told);
            (told.reverted.len(), told.servers.len(), told.domains.len())
        };
        assert_eq!(seen(), (1, 0, 0));
        assert_eq!(locked(&told).reverted, [7]);
        assert_eq!(session.detach().await, Vec::<String>::new());
        assert_eq!(seen().0, 1, "once is enough");

        // In the middle of it, too.
        let dns = session.clone();
        let attaching = tokio::spawn(async move { dns.attach(DnsMode::Resolved, &plan("podway0")).await });
        while locked(&told).domains.is_empty() {
            tokio::task::yield_now().await;
        }
        attaching.abort();
        assert_eq!(session.detach().await, Vec::<String>::new());
        assert_eq!(seen(), (2, 0, 0));

        // One that hangs is told of, and tried again by the next.
        session.attach(DnsMode::Resolved, &plan("podway0")).await.unwrap();
        locked(&told).hangs = true;
        let left = session.detach().await;
        assert!(left.len() == 1 && left[0].contains("did not answer RevertLink within 1 s"), "{left:?}");
        locked(&told).hangs = false;
        assert_eq!(session.detach().await, Vec::<String>::new());
        assert_eq!(seen().0, 3);
    }

    #[tokio::test]
    async fn nobody_is_beside_a_connection_that_has_not_got_the_file() {
        let (etc, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = etc.path().join("resolv.conf");
        let editor = FileEditor::default();
        let resolver = || HostResolver::new(etc.path(), OsJournal::new(run.path()), editor.clone());
        let (first, second) = (resolver(), resolver());
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert_eq!(first.attach(DnsMode::File, &plan("podway0")).await.unwrap_err().outlook, Outlook::Hopeless);
        for mode in [DnsMode::File, DnsMode::Auto] {
            let waits = second.attach(mode, &plan("podway1")).await.unwrap_err();
            assert_eq!((waits.outlook, waits.message.contains("another connection")), (Outlook::Taken, true));
        }
        assert!(first.beside().is_empty());
        first.detach().await;
        fs::remove_file(&path).unwrap();
        assert_eq!(second.attach(DnsMode::Auto, &plan("podway1")).await.unwrap().backend, Backend::File);
        second.detach().await;
    }

    #[tokio::test]
    async fn one_connection_edits_the_file_and_another_after_it() {
        const THEIRS: &str = "nameserver 192.0.2.53\n";
        let (etc, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = etc.path().join("resolv.conf");
        fs::write(&path, THEIRS).unwrap();
        let editor = FileEditor::default();
        let resolver = || HostResolver::new(etc.path(), OsJournal::new(run.path()), editor.clone());
        let (first, second) = (resolver(), resolver());
        assert_eq!(first.attach(DnsMode::File, &plan("podway0")).await.unwrap().backend, Backend::File);
        let ours = fs::read(&path).unwrap();
        for mode in [DnsMode::File, DnsMode::Auto] {
            let beside = second.attach(mode, &plan("podway1")).await.unwrap();
            assert_eq!((beside.backend, beside.message.as_str()), (Backend::Beside, BESIDE));
        }
        assert_eq!(first.beside(), plan("podway1").servers, "asked once");
        assert!(second.beside().is_empty(), "it is not asked itself");
        // What another connection did is not the second's to undo.
        assert_eq!(second.detach().await, Vec::<String>::new());
        assert_eq!(fs::read(&path).unwrap(), ours);
        assert!(first.beside().is_empty(), "what has detached is asked no more");
        second.attach(DnsMode::Auto, &plan("podway1")).await.unwrap();
        assert_eq!(first.attach(DnsMode::File, &plan("podway0")).await.unwrap().backend, Backend::File);

        assert_eq!(first.detach().await, Vec::<String>::new());
        assert_eq!(fs::read_to_string(&path).unwrap(), THEIRS);
        assert_eq!(second.attach(DnsMode::File, &plan("podway1")).await.unwrap().backend, Backend::File);
        assert!(first.beside().is_empty(), "who edits the file is beside nobody");
        // Without a word, as a connection that panicked: the next takes it over.
        drop(second);
        let third = resolver();
        assert_eq!(third.attach(DnsMode::File, &plan("podway2")).await.unwrap().backend, Backend::File);
        assert_eq!(third.detach().await, Vec::<String>::new());
        assert_eq!(fs::read_to_string(&path).unwrap(), THEIRS);
    }
}
