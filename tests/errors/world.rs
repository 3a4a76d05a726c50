//! A miniature cluster, a workstation, and podway there.

use std::cell::{Cell, RefCell};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use podway::daemon::SERVES;
use podway::programs::{AS, Program};
use podway_minicluster::control::{Condition, Name, Request, Settings};
use podway_minicluster::handle::{self, Done, Handle};
use podway_minicluster::sandbox;
use serde_json::{Value, json};

/// For what is not measured, on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// A directory on the workstation alone, whose /run is its own: what is in it goes with it.
pub const HERE: &str = "/run/errors";

/// At the end of [`World::through`]: the command's words are not podway's.
pub const ONLY: &str = "--instead-of-podway";
/// The daemon's: /var/lib is the host's.
const STATE: &str = "/run/podway/state";

/// Where a group of cases runs.
pub struct World {
    // In this order they end.
    daemons: RefCell<Vec<Running>>,
    pub cluster: Handle,
    podway: String,
    undo: RefCell<Vec<Undo>>,
    variables: RefCell<Vec<(String, String)>>,
    prefix: RefCell<Vec<String>>,
    faults: Cell<bool>,
}

type Undo = Box<dyn FnOnce(&World)>;

/// Something that runs on the workstation.
struct Running {
    process: Child,
    log: Arc<Mutex<String>>,
}

impl World {
    /// Starts it; its agents may be such as speak another protocol.
    pub fn start(other_agents: bool) -> World {
        let podway = env!("CARGO_BIN_EXE_podway").to_owned();
        let words = |program: Program| [AS.to_owned(), program.name().to_owned()];
        let own = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
        let agent = match other_agents {
            true => vec![own, "far".to_owned(), "agent".to_owned()],
            false => std::iter::once(podway.clone()).chain(words(Program::Agent)).collect(),
        };
        let program = sandbox::Program::new(&podway, words(Program::Cluster));
        let cluster = Handle::start(program, &Settings { agent, ..Settings::default() }).unwrap();
        cluster.wait(Condition::SamplesReady, PATIENCE).unwrap();
        let world = World {
            daemons: RefCell::default(),
            cluster,
            podway,
            undo: RefCell::default(),
            variables: RefCell::default(),
            prefix: RefCell::default(),
            faults: Cell::default(),
        };
        world.shell(&format!("mkdir -p {HERE}"));
        world
    }

    // --- what a setup does ---

    /// Does that after the case; the latest first.
    pub fn undo(&self, undo: impl FnOnce(&World) + 'static) {
        self.undo.borrow_mut().push(Box::new(undo));
    }

    /// A fault between clients and the API server, for the case.
    pub fn fault(&self, rule: Value) {
        self.cluster.fault(json!({"do": "set", "rule": rule})).unwrap();
        if !self.faults.replace(true) {
            self.undo(|world| {
                world.faults.set(false);
                world.cluster.fault(json!({"do": "clear"})).unwrap();
            });
        }
    }

    /// A variable of the command.
    pub fn variable(&self, name: &str, value: &str) {
        self.variables.borrow_mut().push((name.to_owned(), value.to_owned()));
    }

    /// What the command is an argument of.
    pub fn through(&self, words: &[&str]) {
        *self.prefix.borrow_mut() = words.iter().map(|word| (*word).to_owned()).collect();
    }

    /// Runs a line on the workstation; it has to succeed.
    pub fn shell(&self, line: &str) -> String {
        let done = self.cluster.run(["sh", "-c", line], PATIENCE).unwrap();
        assert!(done.status.success(), "{line}: {done:?}");
        done.out
    }

    /// Writes a file on the workstation; its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = format!("{HERE}/{name}");
        let mut command = self.cluster.command(["sh", "-c", &format!("cat >{path}")]);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        path
    }

    /// The kubeconfig of a user, changed, for the command.
    pub fn kubeconfig(&self, user: &str, change: impl FnOnce(&mut Value)) {
        let path = self.cluster.kubeconfig(user).unwrap();
        let mut config: Value = serde_saphyr::from_str(&self.shell(&format!("cat {path}"))).unwrap();
        change(&mut config);
        let path = self.file("kubeconfig", &config.to_string());
        self.variable("KUBECONFIG", &path);
    }

    /// Deletes objects of `demo` whose names begin so, and waits until they are gone.
    pub fn remove(&self, kind: &str, prefix: &str) {
        let namespace = Some("demo".to_owned());
        let objects = self.cluster.ask(Request::List { kind: kind.to_owned(), namespace }).unwrap();
        let names = objects.as_array().unwrap().iter().filter_map(|object| object["metadata"]["name"].as_str());
        for name in names.filter(|name| name.starts_with(prefix)) {
            // What belongs to another may be gone with it.
            let asked = self.cluster.delete(kind, "demo", name);
            assert!(asked.is_ok() || self.cluster.get(kind, "demo", name).unwrap().is_null(), "{name}: {asked:?}");
            let name = Name::new(kind, "demo", name);
            self.cluster.wait(Condition::Gone { name }, PATIENCE).unwrap();
        }
    }

    /// Runs `podway` to its end; it has to succeed.
    pub fn podway(&self, words: &[&str]) -> Done {
        let done = self.run(words);
        assert!(done.status.success(), "podway {words:?}: {done:?}");
        done
    }

    // --- podway ---

    /// A command on the workstation that the user types.
    pub fn command(&self, words: &[&str]) -> Command {
        let prefix = self.prefix.borrow();
        // A case may have a program of its own.
        let program = prefix.last().is_none_or(|last| last != ONLY).then_some(self.podway.as_str());
        let before = prefix.iter().map(String::as_str).filter(|word| *word != ONLY);
        let mut command = self.cluster.command(before.chain(program));
        command.args(words).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("KUBECONFIG", &self.cluster.sandbox().started().kubeconfig);
        command.envs(self.variables.borrow().iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs `podway` to its end.
    pub fn run(&self, words: &[&str]) -> Done {
        handle::run(self.command(words), PATIENCE).unwrap()
    }

    /// Whether the daemon answers.
    pub fn serves(&self) -> bool {
        self.run(&["status", "--check", "live"]).status.success()
    }

    /// Undoes what the setup did, and ends what the command left.
    pub fn clean_up(&self, daemon: bool) {
        self.prefix.borrow_mut().clear();
        self.variables.borrow_mut().clear();
        while let Some(undo) = { self.undo.borrow_mut().pop() } {
            undo(self);
        }
        if daemon {
            self.run(&["disconnect", "--all"]);
        }
    }

    /// Starts the daemon, and waits until it serves.
    pub fn daemon(&self, flags: &[&str]) {
        let state = if flags.contains(&"--state-dir") { [].as_slice() } else { &["--state-dir", STATE] };
        let words = [&[AS, Program::Daemon.name(), "--log", "info,podway=debug"], state, flags].concat();
        self.starts(self.command(&words), SERVES);
    }

    /// Starts something on the workstation that runs until the group ends, and waits until it says so on stderr.
    pub fn starts(&self, mut command: Command, says: &str) {
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log: Arc<Mutex<String>> = Arc::default();
        let (lines, text, says) =
            (BufReader::new(process.stderr.take().unwrap()).lines(), log.clone(), says.to_owned());
        let (serves_tx, serves) = std::sync::mpsc::sync_channel(1);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if line.contains(&says) {
                    serves_tx.try_send(()).ok();
                }
                let mut log = text.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        self.daemons.borrow_mut().push(Running { process, log: log.clone() });
        serves.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("it does not serve: {}", log.lock().unwrap()));
    }

    /// The same, of an ordinary user.
    pub fn far_as_nobody(&self, words: &[&str]) {
        let own = std::env::current_exe().unwrap();
        let user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
        let mut command = self.cluster.command(user);
        command.arg(own).arg("far").args(words).env_clear().env("PATH", "/usr/bin:/bin");
        self.starts(command, crate::far::SERVES);
    }

    /// A server of [`crate::far`] on the workstation, for the rest of the group.
    pub fn far(&self, words: &[&str]) {
        let own = std::env::current_exe().unwrap();
        let mut command = self.cluster.command([own.as_os_str()]);
        command.arg("far").args(words).env_clear();
        self.starts(command, crate::far::SERVES);
    }

    /// Ends what was started last.
    pub fn end_last(&self) {
        let last = self.daemons.borrow_mut().pop();
        drop(last.unwrap());
    }

    /// What all daemons of the group wrote.
    pub fn logs(&self) -> String {
        self.daemons.borrow().iter().map(|running| running.log.lock().unwrap().clone()).collect()
    }
}

/// Runs a command to its end, and how long that took.
pub fn measured(command: Command) -> (Done, Duration) {
    let began = Instant::now();
    let done = handle::run(command, PATIENCE * 2).unwrap();
    (done, began.elapsed())
}

impl Drop for Running {
    fn drop(&mut self) {
        // Whoever entered the workstation passes this on, and ends when its child does.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.process.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        self.process.wait().ok();
    }
}
