//! `podway connect`.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::args::{ConnectArgs, KubeFlags, TextOrJson};
use super::progress::{Progress, seconds};
use super::say::say;
use super::table::{BAD, GOOD, WARN};
use super::{API_VERSION, Exit, Failure, Resolved, document, planned, wait};
use crate::actors::control::protocol::{Connected, Disconnected, Event, Op, Planned};
use crate::actors::session::core::errors;
use crate::config::CommandConfig;
use crate::control_client::{self, ControlClient, Next};
use crate::core_files;
use crate::error::{Reason, UserError};
use crate::keeper::Errand;
use crate::kubeconfig::{self, ConnectionFlags};
use crate::span::typed;
use crate::spec::ConnectSpec;
use crate::status::{ConnectOutcome, Mark, SessionStatus, Step};

/// The name of a connection that has none, of a cluster without a context.
const UNNAMED: &str = "default";

/// Connects, telling each step on stderr and the result on stdout. Ctrl-C takes the connection back.
///
/// # Errors
///
/// What refused: the kubeconfig, the daemon, the cluster.
pub async fn run(
    socket: &Path,
    args: &ConnectArgs,
    settings: &CommandConfig,
    progress: Progress,
    resolve: impl AsyncFn(&KubeFlags) -> Result<Resolved, UserError>,
) -> Result<Exit, Failure> {
    args.check().map_err(|message| Failure {
        exit: Exit::Usage,
        error: UserError::new(Reason::BadRequest, message, "podway connect --help shows how ranges are named"),
    })?;
    core_files::none();
    if control_client::still_asked(socket) {
        // Without a daemon no name is found, and what reads the kubeconfig would only say that.
        ControlClient::open(socket).await?;
    }
    let resolved = resolve(&args.kube).await?;
    let spec = spec_of(args, settings, &resolved);
    let errand = Errand::of(socket, &spec.name, ConnectionFlags::from(&args.kube), &resolved, kubeconfig::now());
    if args.dry_run {
        let mut client = ControlClient::open(socket).await?;
        let op = Op::Plan { spec: Box::new(spec), access: Box::new(resolved.access) };
        let Planned { plan } = client.ask(op).await?;
        match args.output {
            TextOrJson::Text => say(planned::render(&plan).trim_end()),
            TextOrJson::Json => say(document("Plan", "plan", &json!(plan))),
        }
        return Ok(Exit::Done);
    }
    if let (Some(user), TextOrJson::Text) = (kubeconfig::sudo_user(), args.output) {
        progress.tell(format_args!(
            "{WARN}note:{WARN:#} run with sudo: the connection is root's, so status and disconnect need sudo too; as {user}, \
             connect without sudo"
        ));
    }
    let name = spec.name.clone();
    let mut client = ControlClient::open(socket).await?;
    client.send_request(Op::Connect { spec: Box::new(spec), access: Box::new(resolved.access) }).await?;
    loop {
        let next = tokio::select! {
            next = client.next::<Connected>() => next?,
            _ = tokio::signal::ctrl_c() => return take_back(socket, name, args.output, progress).await,
        };
        match next {
            Next::Event(Event::Progress { steps }) => {
                for step in steps {
                    progress.tell(step_line(&step));
                }
            }
            Next::Event(Event::Status { .. } | Event::Log { .. } | Event::CredentialsWanted { .. }) => {}
            Next::Result(connected) => {
                // Also where it was connected already: this is how another keeper comes in place of one that has gone.
                if let Some(errand) = errand
                    && let Err(error) = errand.start().await
                {
                    progress.tell(format_args!(
                        "{WARN}note:{WARN:#} the credentials will not be renewed by themselves: {error}"
                    ));
                }
                return conclude(&connected, args, settings, progress);
            }
        }
    }
}

fn spec_of(args: &ConnectArgs, settings: &CommandConfig, resolved: &Resolved) -> ConnectSpec {
    ConnectSpec {
        name: named(args.name.as_deref(), &resolved.context),
        context: resolved.context.clone(),
        namespace: resolved.namespace.clone(),
        proxy_via: args.proxy_via.clone(),
        also_proxy: args.also_proxy.clone(),
        never_proxy: args.never_proxy.clone(),
        vnat: args.vnat.clone(),
        allow_conflicting_subnets: args.allow_conflicting_subnets.clone(),
        agent: args.agent.unwrap_or(settings.agent),
        agent_image: args.agent_image.as_ref().unwrap_or(&settings.agent_image).clone(),
        dns: args.dns.unwrap_or(settings.dns),
        timeout_ms: u64::try_from(args.timeout.unwrap_or(settings.timeout).as_millis()).unwrap_or(u64::MAX),
    }
}

/// The name of a connection, where flags alone may say which cluster: there is no context then.
fn named(name: Option<&str>, context: &str) -> String {
    name.or(Some(context)).filter(|name| !name.is_empty()).unwrap_or(UNNAMED).to_owned()
}

async fn take_back(socket: &Path, name: String, form: TextOrJson, progress: Progress) -> Result<Exit, Failure> {
    progress.tell(format_args!("interrupted: disconnecting {name}"));
    let interrupted = UserError::new(Reason::Cancelled, format!("connect {name}: interrupted"), "");
    // A second connection: the first is busy with the connect that this takes back.
    let mut client = ControlClient::open(socket).await?;
    let op = Op::Disconnect { name: Some(name), clean: false, all: false };
    // Whatever comes of it, the command was interrupted; what was left stays visible in `podway status`.
    drop(client.ask::<Disconnected>(op).await);
    match form {
        TextOrJson::Text => Ok(Exit::Interrupted),
        TextOrJson::Json => Err(Failure { exit: Exit::Interrupted, error: interrupted }),
    }
}

fn step_line(step: &Step) -> String {
    let (style, mark) = match step.mark {
        Mark::Ok => (GOOD, "✓"),
        Mark::Warn => (WARN, "!"),
        Mark::Fail => (BAD, "✗"),
    };
    format!("{style}{mark}{style:#} {:<6} {}", seconds(step.at_ms), step.text)
}

fn conclude(
    connected: &Connected,
    args: &ConnectArgs,
    settings: &CommandConfig,
    progress: Progress,
) -> Result<Exit, Failure> {
    let Connected { outcome, already, status } = connected;
    let (exit, lacking) = match outcome {
        ConnectOutcome::Ready => (Exit::Done, [].as_slice()),
        ConnectOutcome::Degraded { pending } => (Exit::Degraded, pending.as_slice()),
        ConnectOutcome::TimedOut { missing } => (Exit::TimedOut, missing.as_slice()),
        ConnectOutcome::Failed(_) => (Exit::Failed, [].as_slice()),
    };
    let late = (exit == Exit::TimedOut).then(|| late(status, lacking, args.timeout.unwrap_or(settings.timeout)));
    match args.output {
        TextOrJson::Json => {
            let mut whole = json!({ "apiVersion": API_VERSION, "kind": "Connection", "status": status });
            // The connection stays, so there is both.
            if let Some(error) = late {
                whole["error"] = json!(error);
            }
            say(format_args!("{whole:#}"));
        }
        TextOrJson::Text => {
            if late.is_some() {
                progress.tell(format_args!("{GOOD}ready:{GOOD:#} {}", ready(status)));
            } else {
                for line in lacking {
                    progress.tell(format_args!("{WARN}not yet:{WARN:#} {line}"));
                }
            }
            for notice in status.notices() {
                progress.tell(format_args!("{WARN}warning:{WARN:#} {notice}"));
            }
            if let Some(error) = late {
                return Err(Failure { exit, error });
            }
            let already = if *already { "already " } else { "" };
            say(format_args!("{already}connected {} to namespace {}", status.name, status.namespace));
            let suggested = status.suggestion.clone().unwrap_or_else(|| format!("podway status {}", status.name));
            if progress == Progress::Shown {
                say(format_args!("try: {suggested}"));
            }
        }
    }
    Ok(exit)
}

/// The time was over; what is missing then.
fn late(status: &SessionStatus, missing: &[String], timeout: Duration) -> UserError {
    let name = &status.name;
    let hint = match wait::hopeless_of(status, "Ready") {
        None => format!("it goes on by itself: podway wait {name} waits longer, podway disconnect {name} gives up"),
        Some(cause) => {
            let namespace = cause.subject.split_once('/').map_or(&*status.namespace, |(namespace, _)| namespace);
            let (_, advice) = errors::advice(&cause.message, namespace);
            format!("it does not come by itself: {advice}; podway disconnect {name} gives up")
        }
    };
    let message = format!("connect {name}: not ready after {}: {}", typed(timeout), missing.join("; "));
    UserError::new(Reason::TimedOut, message, hint)
}

/// What works already, for people.
fn ready(status: &SessionStatus) -> String {
    let works = status.conditions.iter().filter(|condition| condition.status == "True").map(|condition| {
        match (condition.r#type.as_str(), condition.subject.as_str()) {
            ("WatchReady", _) => "cluster",
            ("RoutesReady", _) => "routes",
            ("DNSReady", _) => "names",
            ("AgentReady", _) => "agent",
            (other, "") => other,
            (_, subject) => subject,
        }
    });
    let works: Vec<&str> = works.collect();
    if works.is_empty() { "nothing".to_owned() } else { works.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Condition;

    #[test]
    fn a_connection_without_a_context_has_a_name_too() {
        assert_eq!((named(Some("a"), "kind"), named(None, "kind")), ("a".to_owned(), "kind".to_owned()));
        assert_eq!(named(None, ""), "default");
    }

    #[test]
    fn what_is_hopeless_is_not_said_to_come_by_itself() {
        let condition = |reason: &str, message: &str| Condition {
            r#type: "WorkloadReady".into(),
            subject: "shop/deployment/web".into(),
            status: "False".into(),
            reason: reason.into(),
            message: message.into(),
            last_transition_time: 0,
        };
        let late = |condition| {
            let status = SessionStatus { name: "kind".into(), conditions: vec![condition], ..SessionStatus::default() };
            late(&status, &["web".to_owned()], Duration::from_secs(3))
        };
        let pending = late(condition("Pending", "no pod runs"));
        assert!(pending.hint.starts_with("it goes on by itself: podway wait kind"), "{}", pending.hint);
        let hopeless = late(condition("Hopeless", "missing right: patch pods/ephemeralcontainers"));
        assert_eq!(hopeless.reason, Reason::TimedOut);
        assert!(
            hopeless.hint.starts_with("it does not come by itself: ")
                && hopeless.hint.contains("podway rbac -n shop --user NAME")
                && hopeless.hint.ends_with("podway disconnect kind gives up"),
            "{}",
            hopeless.hint
        );
    }
}
