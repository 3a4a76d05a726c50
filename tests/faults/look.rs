//! The status of the connection, asked for all the time over the daemon's socket, as `podway status` does.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use podway::status::{Phase, SessionStatus};
use serde_json::Value;

use crate::stable::stable;
use crate::workstation::Workstation;
use crate::world::{SOCKET, World};

/// A pause between two questions.
const PAUSE: Duration = Duration::from_millis(25);
/// What `status` promises.
pub const STATUS: Duration = Duration::from_millis(100);
/// No answer for so long is none.
const PATIENCE: Duration = Duration::from_secs(20);
/// Connections of one user are few.
const NAME: &str = "minicluster";

/// What it shows that is not well, and from when on.
#[derive(Clone, Debug)]
pub struct Picture {
    pub at: Instant,
    /// Empty where all is well. `None` where nobody answers, or there is no connection.
    pub lines: Option<Vec<String>>,
}

#[derive(Default)]
struct Seen {
    over: bool,
    latest: Option<SessionStatus>,
    pictures: Vec<Picture>,
    slowest: Duration,
    asked: usize,
    /// Answers that took longer than promised: when each was asked for, and how long it took.
    late: Vec<(Instant, Duration)>,
    /// Pauses that took much longer than they should: the machine had something else to do.
    overslept: usize,
    failed: Vec<String>,
}

/// How it answered.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    pub slowest: Duration,
    pub asked: usize,
    pub late: Vec<(Instant, Duration)>,
    pub overslept: usize,
    pub failed: Vec<String>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever asks.
pub struct Look {
    /// Its own: names that are not answered hold up whoever asks after them.
    ws: Arc<Workstation>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// A connection to the daemon's socket, by which one question at a time is asked.
pub struct Control {
    lines: BufReader<UnixStream>,
    last_id: u64,
}

impl Control {
    pub fn open(ws: &Workstation) -> std::io::Result<Control> {
        let stream = ws.unix(SOCKET)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut control = Control { lines: BufReader::new(stream), last_id: 0 };
        control.send("{\"podway\":1}")?;
        control.line()?;
        Ok(control)
    }

    pub fn send(&mut self, line: &str) -> std::io::Result<()> {
        self.lines.get_mut().write_all(format!("{line}\n").as_bytes())
    }

    pub fn line(&mut self) -> std::io::Result<Value> {
        let mut line = String::new();
        match self.lines.read_line(&mut line)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(serde_json::from_str(&line)?),
        }
    }

    /// The state of all connections.
    pub fn status(&mut self) -> std::io::Result<Vec<SessionStatus>> {
        self.last_id += 1;
        self.send(&format!("{{\"id\":{},\"op\":\"status\"}}", self.last_id))?;
        let mut answer = self.line()?;
        Ok(serde_json::from_value(answer["result"]["sessions"].take())?)
    }
}

impl Look {
    pub fn start(world: &World) -> Look {
        let shared: Arc<Shared> = Arc::default();
        let own = Arc::new(Workstation::start(&world.cluster, &std::env::current_exe().unwrap()));
        let (ws, to) = (Arc::clone(&own), Arc::clone(&shared));
        let thread = thread::spawn(move || {
            let mut control = None;
            while !to.lock().over {
                if control.is_none() {
                    control = Control::open(&ws).ok();
                }
                let began = Instant::now();
                let answer = control.as_mut().map(Control::status);
                let took = began.elapsed();
                let mut seen = to.lock();
                match answer {
                    Some(Ok(sessions)) => {
                        seen.asked += 1;
                        seen.slowest = seen.slowest.max(took);
                        if took > STATUS {
                            seen.late.push((began, took));
                        }
                        seen.take(sessions.into_iter().find(|session| session.name == NAME));
                    }
                    Some(Err(error)) => {
                        if matches!(error.kind(), std::io::ErrorKind::WouldBlock) {
                            seen.failed.push(format!("no answer to status in {PATIENCE:?}"));
                        }
                        control = None;
                        seen.take(None);
                    }
                    None => seen.take(None),
                }
                drop(seen);
                to.changed.notify_all();
                let began = Instant::now();
                thread::sleep(PAUSE);
                to.lock().overslept += usize::from(began.elapsed() > PAUSE * 2);
            }
        });
        Look { ws: own, shared, thread: Some(thread) }
    }

    /// A connection of one's own.
    pub fn control(&self) -> std::io::Result<Control> {
        Control::open(&self.ws)
    }

    /// Waits until the status is so; how long that took, and what it was.
    pub fn until(
        &self,
        what: &str,
        limit: Duration,
        mut is: impl FnMut(&SessionStatus) -> bool,
    ) -> (Duration, SessionStatus) {
        let began = Instant::now();
        let mut seen = self.shared.lock();
        loop {
            if let Some(status) = seen.latest.as_ref().filter(|status| is(status)) {
                return (began.elapsed(), status.clone());
            }
            let left = limit.saturating_sub(began.elapsed());
            let lines = seen.pictures.last().map(|picture| picture.lines.clone());
            assert!(!left.is_zero(), "not within {limit:?}: {what}; status shows {lines:?}");
            seen = self.shared.changed.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until a question that is asked from now on is answered so.
    pub fn fresh(&self, what: &str, limit: Duration, is: impl FnMut(&SessionStatus) -> bool) -> Duration {
        self.shared.lock().latest = None;
        self.until(what, limit, is).0
    }

    pub fn latest(&self) -> Option<SessionStatus> {
        self.shared.lock().latest.clone()
    }

    /// What was shown longest since then that was not well.
    pub fn shown_since(&self, since: Instant) -> Vec<String> {
        let seen = self.shared.lock();
        let mut times: Vec<(Vec<String>, Duration)> = Vec::new();
        for (number, picture) in seen.pictures.iter().enumerate() {
            let until = seen.pictures.get(number + 1).map_or_else(Instant::now, |next| next.at);
            let lasted = until.saturating_duration_since(picture.at.max(since));
            let Some(lines) = picture.lines.as_ref().filter(|lines| !lines.is_empty() && until > since) else {
                continue;
            };
            match times.iter_mut().find(|(known, _)| known == lines) {
                Some((_, sum)) => *sum += lasted,
                None => times.push((lines.clone(), lasted)),
            }
        }
        times.into_iter().max_by_key(|(_, lasted)| *lasted).map(|(lines, _)| lines).unwrap_or_default()
    }

    /// All that was shown since then, for people.
    pub fn story_since(&self, since: Instant) -> Vec<String> {
        let seen = self.shared.lock();
        let from = seen.pictures.iter().rposition(|picture| picture.at <= since).unwrap_or(0);
        let told = |picture: &Picture| {
            let at = picture.at.saturating_duration_since(since);
            match &picture.lines {
                None => format!("{at:.2?} nothing"),
                Some(lines) if lines.is_empty() => format!("{at:.2?} all is well"),
                Some(lines) => format!("{at:.2?} {}", lines.join(" | ")),
            }
        };
        seen.pictures[from..].iter().map(told).collect()
    }

    /// How it answered since this was asked last.
    pub fn answers(&self) -> Answers {
        let mut seen = self.shared.lock();
        Answers {
            slowest: std::mem::take(&mut seen.slowest),
            asked: std::mem::take(&mut seen.asked),
            late: std::mem::take(&mut seen.late),
            overslept: std::mem::take(&mut seen.overslept),
            failed: std::mem::take(&mut seen.failed),
        }
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Seen {
    fn take(&mut self, status: Option<SessionStatus>) {
        let lines = status.as_ref().map(lines);
        if self.pictures.last().is_none_or(|picture| picture.lines != lines) {
            self.pictures.push(Picture { at: Instant::now(), lines });
        }
        self.latest = status;
    }
}

/// What is not well, as a person would tell it: conditions, and warnings.
pub fn lines(status: &SessionStatus) -> Vec<String> {
    let mut lines = Vec::new();
    if !matches!(status.phase, Phase::Connected) {
        lines.push(format!("{:?}", status.phase));
    }
    for condition in status.conditions.iter().filter(|condition| condition.status != "True") {
        // `Ready` says once more what the others do, and which watch is told of several is open.
        if condition.r#type == "Ready" && condition.reason == "NotYet" {
            continue;
        }
        let subject = if condition.subject.is_empty() { String::new() } else { format!(" {}", condition.subject) };
        let message = match condition.message.split_once(": ") {
            Some((_, rest)) if condition.reason == "Stale" => format!("*: {rest}"),
            _ => condition.message.clone(),
        };
        lines.push(format!("{}{subject}: {}: {message}", condition.r#type, condition.reason));
    }
    lines.extend(status.warnings.iter().map(|warning| format!("warning: {warning}")));
    lines.iter().map(|line| stable(line)).collect()
}
