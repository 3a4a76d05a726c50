//! The demo from its first step to its end.
//!
//! Whatever happens, a signal, the end of the daemon or a step that fails, leads to the same end: [`Stage::end`].
#![expect(clippy::disallowed_methods, reason = "the time of each step is part of what is shown")]

use std::ffi::OsString;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::args::DemoArgs;
use super::error::DemoError;
use super::join;
use super::probe::Measured;
use super::report::{self, CONNECT, SERVICE};
use super::screen::Screen;
use super::seen::{Exchange, Pods, Proof};
use super::signals::Signals;
use super::stage::{self, Daemon, Stage};
use crate::cli::args::TextOrJson;
use crate::cli::progress::Progress;
use crate::cli::{complain, document};
use crate::error::{Reason, UserError};
use crate::programs::{AS, Program};

/// Longer than the connect's own limit, which says what is missing.
const CONNECT_LIMIT: Duration = Duration::from_secs(40);
/// A request, and the measuring.
const REQUEST_LIMIT: Duration = Duration::from_secs(20);

/// Where the workstation looks for programs.
fn there() -> OsString {
    let of_host = std::env::var_os("PATH").unwrap_or_default();
    let own = std::env::current_exe().unwrap_or_default();
    own.parent().map_or_else(|| of_host.clone(), |own| stage::search_path(own.as_os_str(), &of_host))
}

/// Shows the demo; returns the exit code.
pub async fn run(args: &DemoArgs, progress: Progress) -> u8 {
    if let Some(program) = args.command.first()
        && let Err(why) = join::check(program, Some(&there()))
    {
        let what = format!("demo: {}: {}", program.display(), why.cause());
        let hint = "name a program of this machine: it runs here, on the demo's network, as in `podway demo -- bash`";
        complain(&UserError::new(Reason::DemoFailed, what, hint), TextOrJson::Text);
        return why.code();
    }
    match show(args, progress).await {
        Ok(code) => code,
        Err(DemoError::Interrupted(code)) => {
            match args.output {
                TextOrJson::Text => Screen::Err.write("interrupted: all that was started is gone\n"),
                TextOrJson::Json => {
                    let hint = "all that was started is gone; podway demo shows it anew";
                    complain(&UserError::new(Reason::Cancelled, "demo: interrupted", hint), args.output);
                }
            }
            code
        }
        Err(error) => {
            complain(&error.into(), args.output);
            1
        }
    }
}

async fn show(args: &DemoArgs, progress: Progress) -> Result<u8, DemoError> {
    // The report for people holds the steps; a command's output, or a document, is a result without them.
    let for_people = args.command.is_empty() && args.output == TextOrJson::Text;
    let screen = if for_people { Screen::Out } else { Screen::Err };
    let mut signals = Signals::new().map_err(|error| DemoError::step("signals", error))?;
    let steps = Steps { shown: (progress == Progress::Shown).then_some(screen), done: Vec::new() };
    steps.write(&report::title());
    let began = Instant::now();
    let stage = Stage::start(&mut signals).await?;
    let shown = Showing { stage: &stage, signals: &mut signals, screen, steps, began }.all(args).await;
    let shown = match shown {
        Err(DemoError::Step { .. }) if stage.is_gone().await => Err(DemoError::step("cluster", "it ended")),
        shown => shown,
    };
    stage.end().await;
    shown
}

/// What is done on the way.
struct Steps {
    shown: Option<Screen>,
    done: Vec<Value>,
}

impl Steps {
    fn write(&self, text: &str) {
        if let Some(screen) = self.shown {
            screen.write(text);
        }
    }

    fn step(&mut self, name: &str, took: Duration, what: &str) {
        self.write(&report::step(name, took, what));
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.done.push(json!({ "name": name, "took_ms": millis, "text": what }));
    }
}

/// A demo that is being shown.
struct Showing<'a> {
    stage: &'a Stage,
    signals: &'a mut Signals,
    screen: Screen,
    steps: Steps,
    began: Instant,
}

impl Showing<'_> {
    async fn all(&mut self, args: &DemoArgs) -> Result<u8, DemoError> {
        let mut daemon = self.start().await?;
        self.connect(&mut daemon).await?;
        let code = if args.command.is_empty() {
            let proof = self.prove(&mut daemon).await?;
            let measured = self.measure(&mut daemon).await?;
            match args.output {
                TextOrJson::Text => {
                    self.screen.write(&report::proof(&proof));
                    self.screen.write(&report::figures(&measured));
                }
                TextOrJson::Json => {
                    let join = self.stage.enter_lines();
                    let join = args.keep.then(|| json!({ "join": join, "kubeconfig": self.stage.kubeconfig() }));
                    let seen = report::document(&self.steps.done, &proof, &measured, join);
                    Screen::Out.write(&format!("{}\n", document("Demo", "demo", &seen)));
                }
            }
            0
        } else {
            self.steps.write("\n");
            join::run(self.stage, self.signals, &args.command).await?
        };
        if args.keep {
            let podway =
                if join::has("podway") { "podway".to_owned() } else { self.stage.path().display().to_string() };
            if args.output == TextOrJson::Text {
                self.screen.write(&report::keep(&self.stage.enter_lines(), &podway, self.stage.kubeconfig()));
            }
            tokio::select! {
                biased;
                _ = self.signals.next() => self.steps.write("\nended: all that was started is going\n"),
                why = daemon.ended() => return Err(why),
            }
        } else if args.command.is_empty() && args.output == TextOrJson::Text {
            let typed = join::as_typed(std::env::args_os().next().as_deref(), std::env::var_os("CARGO").is_some());
            self.screen.write(&report::next(&typed));
        }
        Ok(code)
    }

    /// The daemon starts while the cluster's samples do.
    async fn start(&mut self) -> Result<Daemon, DemoError> {
        let (stage, began) = (self.stage, self.began);
        let daemon_began = Instant::now();
        let mut daemon = stage.daemon()?;
        let serving = daemon.serving();
        let both = async {
            let serving = async { serving.await.map(|()| daemon_began.elapsed()) };
            let cluster = async {
                stage.samples().await?;
                Ok((Pods::new(stage.list("pods").await?, Default::default()).count(), began.elapsed()))
            };
            tokio::try_join!(cluster, serving)
        };
        let ((pods, cluster), daemon_took) = unless(self.signals, &mut daemon, both).await?;
        let what = format!("API at {}, {pods} pods", stage.server());
        self.steps.step("cluster", cluster, &what);
        let what = format!("podwayd {}, on the workstation", env!("CARGO_PKG_VERSION"));
        self.steps.step("daemon", daemon_took, &what);
        Ok(daemon)
    }

    async fn connect(&mut self, daemon: &mut Daemon) -> Result<(), DemoError> {
        let (stage, began) = (self.stage, Instant::now());
        let line = stage.own(&CONNECT);
        unless(self.signals, daemon, stage.run("connect", &line, CONNECT_LIMIT)).await?;
        self.steps.step("connect", began.elapsed(), &format!("podway {}", CONNECT.join(" ")));
        Ok(())
    }

    async fn prove(&mut self, daemon: &mut Daemon) -> Result<Proof, DemoError> {
        let (stage, began) = (self.stage, Instant::now());
        let client = if join::has("curl") { Client::Curl } else { Client::Probe };
        let requests = async {
            let under = client.get(stage, SERVICE).await?;
            let took = began.elapsed();
            let pods = Pods::new(stage.list("pods").await?, Default::default());
            let answered = pods.named(&under.answer.namespace, &under.answer.pod);
            let answered = answered.ok_or_else(|| DemoError::step("request", "no pod has the name of who answered"))?;
            let outside = client.get(stage, &answered.address.to_string()).await?;
            // Only now, as podway's own pod may have come for that request.
            let (pods, sets) = tokio::try_join!(stage.list("pods"), stage.list("replicasets"))?;
            let pods = Pods::new(pods, sets);
            Ok((took, Proof::of(&under, &outside, &pods)?))
        };
        let (took, proof) = unless(self.signals, daemon, requests).await?;
        self.steps.step("request", took, &client.shown());
        Ok(proof)
    }

    async fn measure(&mut self, daemon: &mut Daemon) -> Result<Measured, DemoError> {
        let (stage, began) = (self.stage, Instant::now());
        let line = stage.own(&[AS, Program::Probe.name(), "measure", SERVICE]);
        let printed = unless(self.signals, daemon, stage.run("measure", &line, REQUEST_LIMIT)).await?;
        let measured = serde_json::from_str(&printed).map_err(|error| DemoError::step("measure", error))?;
        self.steps.step("measure", began.elapsed(), "plain sockets, by name");
        Ok(measured)
    }
}

/// Does it, unless a signal or the daemon's end comes first.
async fn unless<T>(
    signals: &mut Signals,
    daemon: &mut Daemon,
    work: impl Future<Output = Result<T, DemoError>>,
) -> Result<T, DemoError> {
    tokio::select! {
        biased;
        asked = signals.next() => Err(DemoError::Interrupted(asked.code())),
        why = daemon.ended() => Err(why),
        done = work => done,
    }
}

/// A plain client: nothing of podway is in it.
#[derive(Clone, Copy)]
enum Client {
    Curl,
    Probe,
}

impl Client {
    async fn get(self, stage: &Stage, host: &str) -> Result<Exchange, DemoError> {
        let line: Vec<OsString> = match self {
            // Without the user's own settings; the address that was asked is on a line at the end.
            Client::Curl => {
                ["curl", "-q", "-sS", "--max-time", "10", "-w", "%{remote_ip}\n", &format!("http://{host}/")]
                    .map(OsString::from)
                    .into()
            }
            Client::Probe => stage.own(&[AS, Program::Probe.name(), "get", host]),
        };
        Exchange::read(&stage.run("request", &line, REQUEST_LIMIT).await?)
    }

    fn shown(self) -> String {
        match self {
            Client::Curl => format!("curl http://{SERVICE}"),
            Client::Probe => format!("GET http://{SERVICE}/ by a plain client, as there is no curl"),
        }
    }
}
