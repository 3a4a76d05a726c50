//! One host's resolver: which back end, attach, detach. The only place that knows all of them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use super::resolv_conf::{Applied, ResolvConf, ResolvConfError, Restored};
use super::systemd_resolved::{Resolved, ResolvedError};
use super::{AttachFailed, Attached, BESIDE, Backend, LinkPlan, Outlook, REPLACED};
use crate::net::os_journal::{Change, OsJournal, Undone};
use crate::spec::DnsMode;

mod editor;
mod look;

pub use editor::FileEditor;
use editor::{Done, Other, locked};
use look::uses_resolved;
pub use look::{host_resolvers, is_ours};

/// How long a file that somebody else wrote must look the same before ours takes its place: whoever writes in several
/// steps shall come to an end.
const SETTLE: Duration = Duration::from_millis(500);
/// How often it is looked at for that before ours takes its place.
const SETTLES: usize = 4;
/// The same before it is given back: a disconnect waits for that.
const SETTLES_AT_THE_END: usize = 2;

const OFF_HINT: &str = "names are not attached: the host does not use systemd-resolved and its resolv.conf cannot be \
                        replaced; set your resolver to ask the DNS address that podway status shows, and connect with \
                        --dns off";
const UNASKED: &str = "somebody edited podway's resolv.conf, and it does not name podway's server first any more, so names of \
                       the cluster are not found; put that line back, or connect again: the edit is kept beside it as \
                       resolv.conf.podway-edited";

const EDITED: &str = "somebody edited podway's resolv.conf: the edit stays until the disconnect, and is then kept beside it as \
                      resolv.conf.podway-edited";

/// What is told of an edit that was moved aside.
fn kept_in(path: &Path) -> String {
    format!("resolv.conf was edited while podway had it: the edit is now in {}", path.display())
}

/// The host's resolver. Cheap to clone; clones share what was done.
#[derive(Clone, Debug)]
pub struct HostResolver {
    etc: PathBuf,
    journal: OsJournal,
    editor: FileEditor,
    done: Arc<Mutex<Done>>,
    /// Counts detaching: what was begun before is not done after.
    detached: Arc<watch::Sender<u64>>,
    /// Held while settings of the link are made or undone.
    linking: Arc<tokio::sync::Mutex<()>>,
    /// In the place of the one on the system bus.
    #[cfg(test)]
    resolved: Option<Resolved>,
}

/// When somebody else is thought to have written all of a text.
#[derive(Clone, Copy)]
enum Settled {
    /// It has an end. That is enough where it stays.
    Whole,
    /// And it was so before.
    Alike,
}

/// How an attaching by the file went.
enum ByFile {
    Applied(Applied),
    /// Another connection edits the file, and asks us.
    Beside,
    Blocked(Other),
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
            detached: Arc::default(),
            linking: Arc::default(),
            #[cfg(test)]
            resolved: None,
        }
    }

    /// The same of a connection of this user; else it is root's.
    pub fn of(self, uid: u32) -> HostResolver {
        self.update(|done| done.owner = uid);
        self
    }

    /// Makes the host ask us as planned; what is already so stays untouched. It begins with this call: who detaches after it
    /// ends it.
    ///
    /// Cancel safe: what was begun is undone by [`HostResolver::detach`], and does not go on after it.
    ///
    /// # Errors
    /// Why it does not, and whether another try can help.
    pub fn attach(
        &self,
        mode: DnsMode,
        plan: &LinkPlan,
    ) -> impl Future<Output = Result<Attached, AttachFailed>> + Send + use<> {
        let mut detached = self.detached.subscribe();
        let begun = *detached.borrow_and_update();
        self.update(|done| done.begun = begun);
        let (host, plan) = (self.clone(), plan.clone());
        async move {
            let attached = tokio::select! {
                biased;
                // Its sender is held here.
                _ = detached.changed() => Err(failed(&ResolvConfError::Withdrawn)),
                attached = host.attach_since(begun, mode, &plan) => attached,
            };
            attached.map_err(|failed| AttachFailed { file: host.may_be_asked(), ..failed })
        }
    }

    /// Whether all names of the host may come to us.
    pub fn may_be_asked(&self) -> bool {
        self.done().replaced
    }

    async fn attach_since(&self, begun: u64, mode: DnsMode, plan: &LinkPlan) -> Result<Attached, AttachFailed> {
        match mode {
            DnsMode::Off => Ok(attached(Backend::Off, false, "")),
            DnsMode::Resolved => self.by_resolved(begun, plan).await,
            DnsMode::File => self.by_file(begun, plan).await,
            DnsMode::Auto if self.may_be_asked() => self.by_file(begun, plan).await,
            DnsMode::Auto => {
                // Where the file is not ours any more, it may be that the host is set up otherwise by now.
                if self.done().file && self.give_back(None).await.is_err() {
                    return self.by_file(begun, plan).await;
                }
                let uses_it = self.uses_resolved().await;
                if uses_it || self.done().link.is_some() {
                    match self.by_resolved(begun, plan).await {
                        // Not there although the host is set up for it: it may only be starting anew.
                        Err(failed) if failed.outlook == Outlook::Hopeless && !uses_it => {}
                        Err(failed) => return Err(AttachFailed { outlook: Outlook::Open, ..failed }),
                        Ok(done) => return Ok(done),
                    }
                }
                let file = self.file();
                // The one that edits the file left no doubt that it can be replaced.
                if self.editor.other(&self.done).is_none() && blocking(move || file.replaceable()).await.is_err() {
                    return Err(failed_with(OFF_HINT, Outlook::Hopeless));
                }
                self.by_file(begun, plan).await
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
                Err(error) => Err(failed_with(&error.to_string(), Outlook::Open)),
            }
        };
        let by_file = || async {
            match self.editor.other(&self.done) {
                None => {}
                Some(Other::Edits) => return Ok(attached(Backend::Beside, false, BESIDE)),
                Some(other @ (Other::Begins | Other::Apart)) => {
                    let message = format!("names would not be attached: {}", other.in_the_way());
                    return Err(failed_with(&message, Outlook::Taken));
                }
            }
            let file = self.file();
            match blocking(move || file.seems_replaceable()).await {
                Ok(()) => Ok(attached(Backend::File, false, REPLACED)),
                Err(error) => Err(failed_with(&error.to_string(), Outlook::Hopeless)),
            }
        };
        match mode {
            DnsMode::Off => Ok(attached(Backend::Off, false, "")),
            DnsMode::Resolved => by_resolved().await,
            DnsMode::File => by_file().await,
            DnsMode::Auto if self.uses_resolved().await => by_resolved().await,
            DnsMode::Auto => by_file().await.map_err(|failed| match failed.outlook {
                Outlook::Hopeless => AttachFailed { message: OFF_HINT.to_owned(), ..failed },
                Outlook::Taken | Outlook::Open | Outlook::Overwritten | Outlook::Edited => failed,
            }),
        }
    }

    /// Undoes everything done to the host, and keeps an attaching that goes on meanwhile from doing more, from this call on.
    /// What a later attaching does stays. Twice is harmless. Returns what could not be undone, in the user's words.
    pub fn detach(&self) -> impl Future<Output = Vec<String>> + Send + use<> {
        self.detached.send_modify(|times| *times += 1);
        let end = *self.detached.borrow();
        self.update(|done| done.beside.clear());
        let host = self.clone();
        async move {
            let mut left = host.put_back(end).await;
            left.extend(host.revert(end).await);
            left
        }
    }

    /// Gives the file back at this end, and tells which edits were moved aside.
    async fn put_back(&self, end: u64) -> Vec<String> {
        if self.may_be_asked() {
            self.settle(Settled::Whole).await;
        }
        match self.give_back(Some(end)).await {
            Ok(kept) => kept.iter().map(|path| kept_in(path)).collect(),
            Err(error) => vec![format!("{error}; run: podwayd cleanup")],
        }
    }

    /// Gives the file back, if it is ours, unless an attaching began after this end. Returns the edits that were moved aside
    /// and are not told yet, where it ends.
    async fn give_back(&self, end: Option<u64>) -> Result<Vec<PathBuf>, ResolvConfError> {
        let (file, journal, change) = (self.file(), self.journal.clone(), self.change());
        let (given_back, kept) = self
            .writing(move |done| {
                if end.is_some_and(|end| locked(done).begun >= end) {
                    return Ok((false, Vec::new()));
                }
                locked(done).beside.clear();
                let ours = locked(done).file;
                if ours {
                    let restored = file.restore()?;
                    if let Err(error) = journal.forget(&change) {
                        tracing::debug!(%error, "the journal could not be written");
                    }
                    let mut done = locked(done);
                    (done.file, done.replaced, done.asked) = (false, false, false);
                    if let Restored::KeptEdit(path) = restored {
                        done.keep(path);
                    }
                }
                let kept = end.map(|_| std::mem::take(&mut locked(done).kept));
                Ok((ours, kept.unwrap_or_default()))
            })
            .await?;
        if given_back {
            self.editor.given_back.send_modify(|times| *times += 1);
        }
        Ok(kept)
    }

    /// Forgets the settings of the link.
    async fn revert(&self, end: u64) -> Option<String> {
        let _one = self.linking.lock().await;
        let ifindex = self.done().link.filter(|_| self.done().begun < end)?;
        let reverted = match self.resolved().await {
            Ok(resolved) => resolved.revert(ifindex).await,
            Err(error) => Err(error),
        };
        match reverted {
            // Without resolved there are no settings, and with the link they go anyway.
            Ok(()) | Err(ResolvedError::Absent(_)) => {
                self.update(|done| done.link = None);
                None
            }
            Err(error) => Some(format!("{error}; the settings go with the interface")),
        }
    }

    /// The servers that the host used before us; empty unless the file is ours.
    pub fn upstream(&self) -> Vec<IpAddr> {
        self.editor.upstream(&self.done)
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

    async fn by_resolved(&self, begun: u64, plan: &LinkPlan) -> Result<Attached, AttachFailed> {
        let failed = |error: ResolvedError| {
            let absent = matches!(error, ResolvedError::Absent(_));
            let message = format!("{error}; connect with --dns file or --dns off if the host does without it");
            failed_with(&message, if absent { Outlook::Hopeless } else { Outlook::Open })
        };
        let _one = self.linking.lock().await;
        let before = self.done().link;
        let resolved = self.resolved().await.map_err(failed)?;
        // Whoever detaches from here on waits for us, and finds the link.
        if *self.detached.borrow() != begun {
            return Err(self::failed(&ResolvConfError::Withdrawn));
        }
        self.update(|done| done.link = Some(plan.ifindex));
        resolved.apply(plan).await.map_err(|error| AttachFailed { outlook: Outlook::Open, ..failed(error) })?;
        if let Some(old) = before.filter(|old| *old != plan.ifindex)
            && let Err(error) = resolved.revert(old).await
        {
            tracing::debug!(%error, "settings of a former link were not reverted");
        }
        let domains = resolved.domains_of_others(plan.ifindex).await.ok();
        Ok(Attached { domains, ..attached(Backend::Resolved, false, "") })
    }

    async fn by_file(&self, begun: u64, plan: &LinkPlan) -> Result<Attached, AttachFailed> {
        if self.may_be_asked() {
            self.settle(Settled::Alike).await;
        }
        let (file, journal, change, plan) = (self.file(), self.journal.clone(), self.change(), plan.clone());
        let (editor, detached) = (self.editor.clone(), Arc::clone(&self.detached));
        // The thread goes on when this future is dropped; by then somebody may have detached.
        let applied = self.writing(move |done| {
            if *detached.borrow() != begun {
                return Err(ResolvConfError::Withdrawn);
            }
            editor.know(done, &plan.servers);
            match editor.take(done) {
                Ok(()) => {}
                Err(Other::Edits) => {
                    locked(done).beside = plan.servers;
                    return Ok(ByFile::Beside);
                }
                Err(other @ (Other::Begins | Other::Apart)) => return Ok(ByFile::Blocked(other)),
            }
            journal.record(&change).map_err(|source| ResolvConfError::Io { path: "os-journal.json".into(), source })?;
            let applied = file.apply(&plan);
            let before = locked(done).replaced;
            let replaced = applied.is_ok() || file.is_ours().unwrap_or(before);
            let (upstream, mut done) = (file.previous_servers(), locked(done));
            done.replaced = replaced;
            // What cannot be read now is as it was.
            if let Some(upstream) = upstream.filter(|_| replaced) {
                done.upstream = upstream;
            }
            match &applied {
                Ok(applied) => done.asked = *applied != Applied::Unasked,
                // Until it is seen to be otherwise.
                Err(_) => done.asked &= replaced,
            }
            if let Ok(Applied::Kept(path)) = &applied {
                done.keep(path.clone());
            }
            applied.map(ByFile::Applied)
        });
        match applied.await.map_err(|error| failed(&error))? {
            ByFile::Beside => {
                Ok(Attached { domains: self.previous_domains().await, ..attached(Backend::Beside, false, BESIDE) })
            }
            ByFile::Blocked(other) => {
                Err(failed_with(&format!("names are not attached: {}", other.in_the_way()), Outlook::Taken))
            }
            ByFile::Applied(Applied::Unasked) => Err(failed_with(UNASKED, Outlook::Edited)),
            ByFile::Applied(applied) => {
                let kept = self.done().kept.last().map(|path| format!("{}; {REPLACED}", kept_in(path)));
                let message = match applied {
                    Applied::Edited => EDITED,
                    Applied::Written | Applied::Kept(_) | Applied::Unchanged | Applied::Repaired | Applied::Unasked => {
                        kept.as_deref().unwrap_or(REPLACED)
                    }
                };
                let domains = self.previous_domains().await;
                Ok(Attached { domains, ..attached(Backend::File, applied == Applied::Repaired, message) })
            }
        }
    }

    /// Domains that the host searched before us, where that can be told.
    async fn previous_domains(&self) -> Option<Vec<String>> {
        let file = self.file();
        blocking(move || Ok(file.previous_domains())).await.ok().flatten()
    }

    /// Waits while somebody else is writing the file, for 2 s at most, and for 1 s at the end.
    async fn settle(&self, settled: Settled) {
        let look = || {
            let file = self.file();
            async { blocking(move || Ok(file.foreign())).await.ok().flatten() }
        };
        let mut seen = look().await;
        let most = match settled {
            Settled::Whole => SETTLES_AT_THE_END,
            Settled::Alike => SETTLES,
        };
        for _ in 0..most {
            let before = match (seen, settled) {
                (None, _) | (Some((_, true)), Settled::Whole) => return,
                (Some((before, _)), Settled::Whole | Settled::Alike) => before,
            };
            tokio::time::sleep(SETTLE).await;
            seen = look().await;
            if seen == Some((before, true)) {
                return;
            }
        }
    }

    /// Whether the host's programs ask resolved: its stub is in resolv.conf, or its module in nsswitch.conf.
    async fn uses_resolved(&self) -> bool {
        let etc = self.etc.clone();
        blocking(move || Ok(uses_resolved(&etc))).await.unwrap_or(false)
    }

    /// Changes files on a thread that may block, one change at a time; goes on when this future is dropped.
    async fn writing<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Mutex<Done>>) -> Result<T, ResolvConfError> + Send + 'static,
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

fn attached(backend: Backend, repaired: bool, message: &str) -> Attached {
    Attached { backend, repaired, message: message.to_owned(), domains: None }
}

fn failed_with(message: &str, outlook: Outlook) -> AttachFailed {
    AttachFailed { message: message.to_owned(), outlook, file: false }
}

fn failed(error: &ResolvConfError) -> AttachFailed {
    let outlook = match error {
        ResolvConfError::NotRegular(_) | ResolvConfError::NoBackup(_) | ResolvConfError::Damaged(_) => {
            Outlook::Hopeless
        }
        ResolvConfError::Io { source, .. } if source.kind() == std::io::ErrorKind::ReadOnlyFilesystem => {
            Outlook::Hopeless
        }
        ResolvConfError::Io { .. } | ResolvConfError::Withdrawn => Outlook::Open,
    };
    failed_with(&error.to_string(), outlook)
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
