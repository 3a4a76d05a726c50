//! Takes each line that is logged. The spans around it, or its own fields, say whom it concerns.
#![expect(clippy::disallowed_methods, reason = "a line says when it was logged; no decision depends on it")]

use std::collections::BTreeMap;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Span, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::{LONGEST, Level, LogLine, LogRing, Whose};
use crate::error::chain;

/// The span of all that one connection does.
const SESSION: &str = "session";
/// The parts that speak of the host alone.
const OF_THE_HOST: [&str; 1] = ["podway::daemon"];

/// The span of all that a connection of `uid` does. It is there at any level at which anything is logged.
pub fn session_span(name: &str, uid: u32) -> Span {
    tracing::error_span!(SESSION, session = name, uid)
}

/// Feeds a ring.
#[derive(Debug)]
pub struct RingLayer(pub LogRing);

/// Whose a span is.
#[derive(Clone, Debug)]
struct Owner {
    session: String,
    uid: u32,
}

/// Fields by name, as text.
#[derive(Default)]
struct Fields {
    message: String,
    others: BTreeMap<String, String>,
    uid: Option<u32>,
}

impl<S: Subscriber + for<'span> LookupSpan<'span>> Layer<S> for RingLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        if attributes.metadata().name() != SESSION {
            return;
        }
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let (Some(span), Some(uid), Some(session)) = (ctx.span(id), fields.uid, fields.others.remove(SESSION)) {
            span.extensions_mut().insert(Owner { session, uid });
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        // A record of the crate `log` brings its own target.
        let target = fields.others.remove("log.target");
        let target = target.unwrap_or_else(|| event.metadata().target().to_owned());
        fields.others.retain(|name, _| !name.starts_with("log."));
        let mut around = ctx.event_scope(event).into_iter().flatten();
        let owner = around.find_map(|span| span.extensions().get::<Owner>().cloned());
        let whose = match (fields.uid, &owner) {
            (Some(uid), _) => Whose::User(uid),
            (None, Some(owner)) => Whose::User(owner.uid),
            (None, None) if is_of_the_host(&target) => Whose::Nobodys,
            (None, None) => Whose::Unknown,
        };
        let session = fields.others.remove(SESSION).or(owner.map(|owner| owner.session));
        self.0.keep(
            whose,
            LogLine {
                time: wall_millis(),
                level: level(*event.metadata().level()),
                target,
                session,
                message: fields.message,
                fields: fields.others,
            },
        );
    }
}

fn is_of_the_host(target: &str) -> bool {
    OF_THE_HOST
        .iter()
        .any(|part| target.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with(':')))
}

fn level(level: tracing::Level) -> Level {
    match level {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        tracing::Level::DEBUG => Level::Debug,
        tracing::Level::TRACE => Level::Trace,
    }
}

impl Fields {
    fn put(&mut self, field: &Field, text: String) {
        let text = shortened(text);
        match field.name() {
            "message" => self.message = text,
            name => drop(self.others.insert(name.to_owned(), text)),
        }
    }
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "uid" {
            self.uid = u32::try_from(value).ok();
        }
        self.put(field, value.to_string());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, chain(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > LONGEST {
        let mut end = LONGEST - '…'.len_utf8();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

fn wall_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {

    use actix::AsyncContext as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::actors::shell::{NO_LIMIT, Reply, Stop, blocking, spawn_reporting, start_monitored, stop};

    /// What is logged by `work`.
    fn logged(filter: &str, work: impl FnOnce()) -> Vec<(Whose, LogLine)> {
        let ring = LogRing::default();
        let filter = tracing_subscriber::EnvFilter::new(filter);
        let subscriber = tracing_subscriber::registry().with(filter).with(RingLayer(ring.clone()));
        tracing::subscriber::with_default(subscriber, work);
        kept(&ring)
    }

    fn kept(ring: &LogRing) -> Vec<(Whose, LogLine)> {
        let ring = ring.ring();
        ring.all().map(|(kept, at)| (kept.whose, serde_json::from_slice(&ring.text(at)).unwrap())).collect()
    }

    #[test]
    fn a_line_is_told_with_its_fields_and_cut_where_it_is_long() {
        let lines = logged("trace", || {
            let error = std::io::Error::other("no room");
            let error = &error as &dyn std::error::Error;
            tracing::warn!(target: "podway::daemon", error, pod = %"web-1", count = 3, "a pod {}", "is gone");
            tracing::info!(target: "podway::daemon::x", long = "ä".repeat(LONGEST), "long");
            tracing::debug!(target: "podway::daemonic", "not the daemon");
        });
        let (whose, line) = &lines[0];
        assert_eq!((*whose, line.level, line.message.as_str()), (Whose::Nobodys, Level::Warn, "a pod is gone"));
        let fields: Vec<_> = line.fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(fields, ["count=3", "error=no room", "pod=web-1"]);
        let long = &lines[1].1.fields["long"];
        assert!(long.len() <= LONGEST && long.ends_with("ä…"), "{}", long.len());
        assert_eq!((lines[1].0, lines[2].0), (Whose::Nobodys, Whose::Unknown));
    }

    #[test]
    fn a_line_that_names_a_user_is_theirs() {
        let lines = logged("info", || tracing::info!(target: "podway::daemon", uid = 1000_u32, session = "demo", "x"));
        assert_eq!((lines[0].0, lines[0].1.session.as_deref()), (Whose::User(1000), Some("demo")));
    }

    /// Logs in each place in which a part of a connection runs.
    struct Part;

    impl actix::Actor for Part {
        type Context = actix::Context<Part>;

        fn started(&mut self, ctx: &mut actix::Context<Part>) {
            tracing::error!("in an actor");
            let me = ctx.address();
            // A thread of the pool has no subscriber of the test's own.
            let subscriber = tracing::dispatcher::get_default(Clone::clone);
            let tell = move || tracing::dispatcher::with_default(&subscriber, || tracing::error!("on a thread"));
            let work = async { blocking(tell).await };
            spawn_reporting(
                async {
                    tracing::error!("in a task");
                    work.await
                },
                NO_LIMIT,
                move |_| {
                    tracing::error!("in a report");
                    me.do_send(Stop { reply: Reply::new().0 });
                },
            );
        }
    }

    impl actix::Handler<Stop> for Part {
        type Result = ();
        fn handle(&mut self, _: Stop, ctx: &mut actix::Context<Part>) {
            tracing::error!("in a handler");
            stop(ctx);
        }
    }

    #[test]
    fn all_that_the_parts_of_a_connection_say_is_its_owners() {
        let ring = LogRing::default();
        let subscriber = tracing_subscriber::registry().with(RingLayer(ring.clone()));
        let subscriber = tracing::Dispatch::new(subscriber);
        let here = tracing::dispatcher::set_default(&subscriber);
        actix_rt::System::new().block_on(async {
            let (ended, end) = Reply::new();
            let outer = session_span("other", 7);
            let span = outer.in_scope(|| session_span("demo", 1000));
            let context = actix::Context::new();
            span.in_scope(|| start_monitored(Part, context, move |exit| ended.answer(exit)));
            end.await.expect("it ended");
            tracing::error!("outside");
        });
        drop(here);
        let told: Vec<_> = kept(&ring).into_iter().map(|(whose, line)| (line.message, whose)).collect();
        let of = |message: &str| told.iter().find(|(said, _)| said == message).map(|(_, whose)| *whose);
        for message in ["in an actor", "in a task", "on a thread", "in a report", "in a handler"] {
            assert_eq!(of(message), Some(Whose::User(1000)), "{message}: {told:?}");
        }
        assert_eq!(of("outside"), Some(Whose::Unknown));
    }
}
