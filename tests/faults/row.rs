//! The form of a row.

use std::time::Duration;

use crate::rig::Rig;

/// Faults that share a cluster and a daemon, and come one after another.
pub struct Group {
    /// A heading of the document.
    pub title: &'static str,
    /// What they are connected with; `None` where each connects itself.
    pub connect: Option<&'static [&'static str]>,
    /// In the order of the document.
    pub cases: Vec<Case>,
}

/// One fault.
pub struct Case {
    /// What happens, for the document.
    pub fault: String,
    /// What podway promises, for the document. The case holds it to that.
    pub bar: &'static str,
    /// Does it, and looks.
    pub run: Act,
    /// Whether it takes the whole machine.
    pub alone: bool,
    /// Whether it asks for the status itself, more often than it can be answered.
    pub floods: bool,
}

impl Case {
    /// It takes the whole machine, and floods the daemon.
    pub fn flooding(self) -> Case {
        Case { alone: true, floods: true, ..self }
    }
}

pub type Act = Box<dyn Fn(&mut Rig<'_, '_>, &mut Row) + Send + Sync>;

/// A case.
pub fn case(
    fault: impl Into<String>,
    bar: &'static str,
    run: impl Fn(&mut Rig<'_, '_>, &mut Row) + Send + Sync + 'static,
) -> Case {
    Case { fault: fault.into(), bar, run: Box::new(run), alone: false, floods: false }
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub group: &'static str,
    pub fault: String,
    pub bar: &'static str,
    /// What `status` showed, line by line.
    pub shows: Vec<String>,
    /// After how long it showed, or was noticed.
    pub seen: Option<Duration>,
    /// After how long from the fault's end, all was well.
    pub healed: Option<Duration>,
    /// What came of the connections that were open.
    pub flows: String,
    /// More figures of this run, which the document does not hold.
    pub figures: Vec<String>,
    /// The slowest answer to `status`.
    pub slowest: Duration,
    pub took: Duration,
    /// What is wrong with it.
    pub wrong: Vec<String>,
}

impl Row {
    pub fn name(&self) -> String {
        format!("{}: {}", self.group, self.fault)
    }

    /// A time that has to be within `bar`.
    pub fn within(&mut self, what: &str, took: Duration, bar: Duration) -> Duration {
        self.holds(took <= bar, || format!("{what} after {took:.2?}, later than {bar:.0?}"));
        took
    }

    /// Something that has to be so.
    pub fn holds(&mut self, is: bool, wrong: impl FnOnce() -> String) {
        if !is {
            self.wrong.push(wrong());
        }
    }

    /// A figure of this run.
    pub fn figure(&mut self, text: impl Into<String>) {
        self.figures.push(text.into());
    }
}

/// A quantile of times.
pub fn quantile(times: &[Duration], part: f64) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    let at = ((sorted.len() as f64 * part).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).copied().unwrap_or_default()
}

/// Times for people.
pub fn spread(times: &[Duration]) -> String {
    let of = |part| quantile(times, part);
    format!("p50 {:.2?}, p90 {:.2?}, p99 {:.2?}, most {:.2?}", of(0.5), of(0.9), of(0.99), of(1.0))
}
