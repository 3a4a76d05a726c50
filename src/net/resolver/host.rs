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

const APART: &str = "a connection of another user has replaced resolv.conf, and what one asks is not told to the other's \
                     cluster; wait for its end, or connect with --dns off";

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
    /// It is another user's: the names of two users' clusters stay apart.
    Apart,
}

impl Other {
    fn in_the_way(self) -> &'static str {
        match self {
            Other::Begins | Other::Edits => TAKEN,
            Other::Apart => APART,
        }
    }
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

    /// A server of each connection of the same user beside this one.
    fn beside(&self, done: &Arc<Mutex<Done>>) -> Vec<IpAddr> {
        let others = locked(&self.beside).iter().filter_map(Weak::upgrade).collect::<Vec<_>>();
        let owner = locked(done).owner;
        let others = others.iter().filter(|other| !Arc::ptr_eq(other, done) && locked(other).owner == owner);
        others.filter_map(|other| locked(other).beside.first().copied()).collect()
    }
}

fn of_another(by: &Weak<Mutex<Done>>, done: &Arc<Mutex<Done>>) -> Option<Other> {
    let other = by.upgrade().filter(|other| !Arc::ptr_eq(other, done))?;
    let owner = locked(done).owner;
    let other = locked(&other);
    match (other.file, other.replaced) {
        (false, _) => None,
        (true, _) if other.owner != owner => Some(Other::Apart),
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
    /// Whose connection it is.
    owner: u32,
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

    /// The same of a connection of this user; else it is root's.
    pub fn of(self, uid: u32) -> HostResolver {
        self.update(|done| done.owner = uid);
        self
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
                Some(other @ (Other::Begins | Other::Apart)) => {
                    let message = format!("names would not be attached: {}", other.in_the_way());
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
        let (begun, ours) = (self.done().detached, plan.servers.clone());
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
            Err(other @ (Other::Begins | Other::Apart)) => {
                let message = format!("names are not attached: {}", other.in_the_way());
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
        // Asking those would be asking ourselves.
        let upstream = upstream.into_iter().filter(|server| !ours.contains(server)).collect();
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
mod tests;
