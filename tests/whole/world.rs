//! A cluster with a workstation, podwayd on it, and the command that speaks to it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use podway::daemon::SERVES;
use podway::demo::seen::{Pod, Pods};
use podway::programs::{AS, Program};
use podway::status::SessionStatus;
use podway_minicluster::control::{Condition, Name, Request, Settings};
use podway_minicluster::handle::{Done, Handle};
use podway_minicluster::sandbox::{self, SandboxError};
use serde_json::Value;

use crate::allowed::{NOBODY, skipped, tun_is_open};
use crate::traces::Traces;
use crate::workstation::Workstation;

/// On a machine that is busy with other tests. What podway promises has limits of its own in the tests.
pub const LIMIT: Duration = Duration::from_secs(30);
/// A pause between two looks at something that tells nobody of its changes.
const LOOK: Duration = Duration::from_millis(10);
/// Of the workstation, whose /run is its own.
const RUNTIME: &str = "/run/podway";
const STATE: &str = "/run/podway/state";
pub const SOCKET: &str = "/run/podway/podway.sock";

/// Who runs: any number of tests, or one that measures time.
static MACHINE: RwLock<()> = RwLock::new(());

/// A part of the machine, or all of it.
#[expect(dead_code, reason = "it is held")]
enum Share {
    Part(RwLockReadGuard<'static, ()>),
    All(RwLockWriteGuard<'static, ()>),
    /// Of what another world has.
    Same,
}

impl Share {
    fn part() -> Share {
        Share::Part(MACHINE.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn all() -> Share {
        Share::All(MACHINE.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A cluster whose samples are ready, and a workstation that nothing is done to yet.
pub struct World {
    // In this order they end.
    pub ws: Arc<Workstation>,
    pub cluster: Handle,
    podway: PathBuf,
    kubeconfig: String,
    directory: tempfile::TempDir,
    before: Traces,
    _share: Share,
}

/// The daemon. Whoever does not [`Daemon::stop`] it has a test that fails.
pub struct Daemon<'a> {
    world: &'a World,
    process: Option<Child>,
    log: Arc<Mutex<String>>,
    pub launch: Launch,
}

/// How the daemon is started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// What it is an argument of.
    pub prefix: Vec<String>,
    pub variables: Vec<(String, String)>,
    pub state: String,
    /// What it logs.
    pub log: String,
}

impl Default for Launch {
    fn default() -> Launch {
        let (state, log) = (STATE.to_owned(), "info,podway=debug".to_owned());
        Launch { prefix: Vec::new(), variables: Vec::new(), state, log }
    }
}

impl World {
    /// Starts one beside others; `None` where the machine does not allow it.
    pub fn start() -> Option<World> {
        World::with(Share::part())
    }

    /// Starts one that no other is beside, for a test that measures time.
    pub fn start_alone() -> Option<World> {
        World::with(Share::all())
    }

    /// Starts another one for the same test.
    pub fn beside(&self) -> Option<World> {
        World::with(Share::Same)
    }

    /// Starts one whose agents are this program, started with these words before an agent's own.
    pub fn with_agent(words: &[&str]) -> Option<World> {
        World::with_its(Share::part(), Some(words))
    }

    fn with(share: Share) -> Option<World> {
        World::with_its(share, None)
    }

    fn with_its(share: Share, agent: Option<&[&str]>) -> Option<World> {
        if !geteuid().is_root() && !tun_is_open() {
            skipped("/dev/net/tun is closed to this user");
            return None;
        }
        let directory = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
        let own = std::env::current_exe().unwrap();
        let agent = agent.map(|words| {
            // Pods have users of their own, who may not look everywhere.
            let copy = copied(&directory, "agent", &own);
            std::iter::once(copy.to_str().unwrap().to_owned()).chain(words.iter().map(ToString::to_string)).collect()
        });
        World::of(share, directory, env!("CARGO_BIN_EXE_podway").into(), own, None, agent)
    }

    /// One of an ordinary user, by root; `None` where the machine does not allow it.
    pub fn of_nobody() -> Option<World> {
        if !geteuid().is_root() || !tun_is_open() {
            println!("skipped: needs root, and a /dev/net/tun that is open to others");
            return None;
        }
        let directory = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
        let podway = copied(&directory, "podway", Path::new(env!("CARGO_BIN_EXE_podway")));
        let own = copied(&directory, "test", &std::env::current_exe().unwrap());
        World::of(Share::part(), directory, podway, own, Some(NOBODY), None)
    }

    fn of(
        share: Share,
        directory: tempfile::TempDir,
        podway: PathBuf,
        own: PathBuf,
        user: Option<(u32, u32)>,
        agent: Option<Vec<String>>,
    ) -> Option<World> {
        let words = |program: Program| [AS, program.name()];
        let real =
            || std::iter::once(podway.to_str().unwrap()).chain(words(Program::Agent)).map(str::to_owned).collect();
        let agent = agent.unwrap_or_else(real);
        let settings = Settings { agent, ..Settings::default() };
        let program = sandbox::Program::new(&podway, words(Program::Cluster));
        let cluster = match Handle::start_as(program, &settings, user) {
            Ok(cluster) => cluster,
            Err(error @ SandboxError::Forbidden { .. }) => {
                skipped(&format!("{error}; hint: {:?}", error.hint()));
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        // The site's names are the cluster's only: podway has to be told to ask there.
        fs::write(directory.path().join("config.toml"), "[dns]\ninclude_suffixes = [\"site.example\"]\n").unwrap();
        cluster.wait(Condition::SamplesReady, LIMIT).unwrap();
        let ws = Arc::new(Workstation::start(&cluster, &own));
        let kubeconfig = cluster.sandbox().started().kubeconfig.clone();
        let before = Traces::of(&ws);
        assert!(before.devices.iter().all(|device| !device.contains("podway")), "{before:?}");
        Some(World { ws, cluster, podway, kubeconfig, directory, before, _share: share })
    }

    /// Takes what a test did to the workstation for what was before podway.
    pub fn is_prepared(&mut self) {
        self.before = Traces::of(&self.ws);
    }

    /// A directory of this test, on the workstation too.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn before(&self) -> &Traces {
        &self.before
    }

    /// Path of the administrator's kubeconfig on the workstation.
    pub fn kubeconfig(&self) -> &str {
        &self.kubeconfig
    }

    /// A program of podway's on the workstation, in an environment of its own.
    fn program(&self, words: &[&str]) -> Command {
        self.program_in(&[], words)
    }

    /// The same as an argument of something else.
    fn program_in(&self, prefix: &[String], words: &[&str]) -> Command {
        let mut command = self.cluster.command(prefix.iter().map(OsStr::new).chain([self.podway.as_os_str()]));
        command.args(words).env_clear();
        command.env("KUBECONFIG", &self.kubeconfig).env("PODWAY_SOCKET", SOCKET).env("PATH", "/usr/bin:/bin");
        command
    }

    /// Runs `podway` on a terminal that ends with it, as with `ssh -t HOST podway ...`; says whether that went well.
    pub fn podway_on_a_terminal(&self, words: &[&str]) -> bool {
        let line = format!("exec {} {}", self.podway.display(), words.join(" "));
        let mut command = self.cluster.command(["/usr/bin/script"]);
        command.args(["-q", "-e", "-c", &line, "/dev/null"]).env_clear().env("PODWAY_SOCKET", SOCKET);
        command.stdin(Stdio::null()).stdout(Stdio::null()).env("PATH", "/usr/bin:/bin").status().unwrap().success()
    }

    /// Runs `podway` to its end.
    pub fn podway(&self, words: &[&str]) -> Done {
        self.podway_with(words, &[])
    }

    /// The same with more variables.
    pub fn podway_with(&self, words: &[&str], variables: &[(&str, &str)]) -> Done {
        let mut command = self.program(words);
        command.envs(variables.iter().copied());
        podway_minicluster::handle::run(command, LIMIT).unwrap()
    }

    /// Does something with a daemon that runs; fails when it leaves anything behind.
    pub fn with_daemon<T>(&self, act: impl FnOnce(&mut Daemon<'_>) -> T) -> T {
        let mut daemon = Daemon { world: self, process: None, log: Arc::default(), launch: Launch::default() };
        daemon.start();
        let done = act(&mut daemon);
        daemon.stop();
        done
    }

    /// Does something while connected; fails when the connection leaves anything behind.
    pub fn connected<T>(&self, flags: &[&str], act: impl FnOnce(&Daemon<'_>) -> T) -> T {
        self.with_daemon(|daemon| {
            daemon.connect(flags);
            let done = act(daemon);
            daemon.disconnect(&[]);
            done
        })
    }

    /// Whether the workstation is as it was before podway.
    pub fn is_as_before(&self) -> bool {
        Traces::of(&self.ws) == self.before
    }

    /// Fails when it is not.
    pub fn assert_as_before(&self) {
        let differences = Traces::of(&self.ws).differences(&self.before);
        assert!(differences.is_empty(), "left behind: {differences:#?}");
    }

    fn assert_nothing_left(&self) {
        self.assert_as_before();
        let processes = self.ws.processes();
        assert!(processes.iter().all(|words| words.trim_end().ends_with(" hold")), "left behind: {processes:?}");
        // What is there to be found by the next start: whose addresses were which.
        assert_eq!(self.ws.list(RUNTIME), BTreeSet::from(["state".to_owned()]), "left behind in {RUNTIME}");
    }

    // --- the cluster ---

    /// Pods and their workloads.
    pub fn pods(&self) -> Pods {
        let list = |kind: &str| self.cluster.ask(Request::List { kind: kind.to_owned(), namespace: None }).unwrap();
        Pods::new(list("pods"), list("replicasets"))
    }

    /// Whose address it is, as `demo/deployment/web`; `own` for podway's own pod.
    pub fn whose(&self, address: IpAddr) -> String {
        match self.pods().find(address.to_canonical()) {
            Some(Pod { workload, .. }) if workload.starts_with("job/podway-agent") => "own".to_owned(),
            Some(Pod { namespace, workload, .. }) => format!("{namespace}/{workload}"),
            None => format!("nobody's: {address}"),
        }
    }

    /// From whose pod a host's service is called.
    pub fn seen_from(&self, host: &str) -> String {
        self.whose(self.ws.who(host).unwrap().remote.ip())
    }

    /// Names of the pods with that label `app` that do not end, in the order of their names.
    pub fn names(&self, namespace: &str, app: &str) -> Vec<String> {
        let pods = self.cluster.pods(namespace, app).unwrap();
        let stay = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        stay.map(|pod| text(&pod["metadata"]["name"])).collect()
    }

    /// Addresses of pods, of both families.
    pub fn addresses(&self, namespace: &str, app: &str) -> Vec<IpAddr> {
        let pods = self.cluster.pods(namespace, app).unwrap();
        pods.iter().flat_map(|pod| all(&pod["status"]["podIPs"], "ip")).collect()
    }

    /// A service's addresses: IPv4, then IPv6.
    pub fn service(&self, namespace: &str, name: &str) -> [IpAddr; 2] {
        let service = self.cluster.get("services", namespace, name).unwrap();
        let addresses = service["spec"]["clusterIPs"].as_array().unwrap();
        [0, 1].map(|at| text(&addresses[at]).parse().unwrap())
    }

    /// Every agent of ours that has not ended: its pod, and the container where that is another's.
    pub fn agents(&self) -> BTreeSet<(String, String)> {
        let mut found = BTreeSet::new();
        for pod in self.pods().pods {
            let place = format!("{}/{}", text(&pod["metadata"]["namespace"]), text(&pod["metadata"]["name"]));
            if text(&pod["metadata"]["name"]).starts_with("podway-agent-") {
                if ["Pending", "Running"].contains(&text(&pod["status"]["phase"]).as_str()) {
                    found.insert((place, String::new()));
                }
                continue;
            }
            let statuses = pod["status"]["ephemeralContainerStatuses"].as_array().cloned().unwrap_or_default();
            let ended = |name: &str| statuses.iter().any(|s| s["name"] == name && !s["state"]["terminated"].is_null());
            let containers = pod["spec"]["ephemeralContainers"].as_array().cloned().unwrap_or_default();
            let names = containers.iter().map(|container| text(&container["name"]));
            found.extend(names.filter(|name| !ended(name)).map(|name| (place.clone(), name)));
        }
        found
    }

    /// podway's own pods.
    pub fn own_pods(&self) -> Vec<String> {
        self.agents().into_iter().filter(|(_, container)| container.is_empty()).map(|(pod, _)| pod).collect()
    }

    /// Waits until a pod is gone.
    pub fn gone(&self, namespace: &str, pod: &str) {
        self.cluster.wait(Condition::Gone { name: Name::new("pods", namespace, pod) }, LIMIT).unwrap();
    }
}

/// A program where everybody may start it. By another process: what a test starts meanwhile would hold a file that we
/// write, which then cannot be started.
fn copied(directory: &tempfile::TempDir, name: &str, from: &Path) -> PathBuf {
    let to = directory.path().join(name);
    assert!(Command::new("cp").args([from, &to]).status().unwrap().success());
    to
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn all(list: &Value, key: &str) -> Vec<IpAddr> {
    list.as_array().into_iter().flatten().filter_map(|item| item[key].as_str()?.parse().ok()).collect()
}

/// Looks until it is so; returns what it saw and how long that took.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> (T, Duration) {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return (seen, began.elapsed());
        }
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(LOOK);
    }
}

pub fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

impl Daemon<'_> {
    /// Starts it, and waits until it serves.
    pub fn start(&mut self) {
        let config = self.world.directory.path().join("config.toml");
        let Launch { prefix, variables, state, log } = &self.launch;
        let settings = ["--runtime-dir", RUNTIME, "--state-dir", state.as_str(), "--socket", SOCKET];
        let mut command = self.world.program_in(prefix, &[AS, Program::Daemon.name()]);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command.args(settings).arg("--config").arg(config).args(["--log", log]);
        let mut process = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (serves_tx, serves) = std::sync::mpsc::sync_channel(1);
        let (lines, log) = (BufReader::new(process.stderr.take().unwrap()).lines(), Arc::clone(&self.log));
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if line.contains(SERVES) {
                    serves_tx.try_send(()).ok();
                }
                let mut log = log.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        self.process = Some(process);
        serves.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("podwayd does not serve: {}", self.log()));
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        // Whoever fails while it holds it has it printed.
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The daemon's own number: the child of the process that entered the workstation.
    pub fn pid(&self) -> Pid {
        let entered = self.process.as_ref().unwrap().id();
        let children = fs::read_to_string(format!("/proc/{entered}/task/{entered}/children")).unwrap();
        Pid::from_raw(children.trim().parse().unwrap())
    }

    /// Resident memory of the daemon, bytes (proc_pid_status(5)).
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Ends it by SIGTERM; fails when it leaves anything behind. How long it took.
    pub fn stop(&mut self) -> Duration {
        let began = Instant::now();
        kill(self.pid(), Signal::SIGTERM).unwrap();
        let status = self.process.take().unwrap().wait().unwrap();
        let took = began.elapsed();
        assert!(status.success(), "podwayd ended with {status}: {}", self.log());
        self.world.assert_nothing_left();
        took
    }

    /// Whether it ended by itself; how.
    #[allow(dead_code, reason = "the tests of faults ask for it")]
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        let ended = self.process.as_mut()?.try_wait().unwrap();
        if ended.is_some() {
            self.process = None;
        }
        ended
    }

    /// Kills it.
    pub fn kill(&mut self) {
        kill(self.pid(), Signal::SIGKILL).unwrap();
        self.process.take().unwrap().wait().unwrap();
    }

    /// Connects, and returns how; fails when the exit code is not 0.
    pub fn connect(&self, flags: &[&str]) -> Done {
        self.connect_to(0, flags)
    }

    /// The same with another exit code.
    pub fn connect_to(&self, code: i32, flags: &[&str]) -> Done {
        self.expect(code, &[&["connect", "-n", "demo"], flags].concat())
    }

    /// Disconnects; fails when the workstation is not as before then. How long the command took.
    pub fn disconnect(&self, flags: &[&str]) -> Duration {
        let began = Instant::now();
        self.expect(0, &[&["disconnect"], flags].concat());
        let took = began.elapsed();
        self.world.assert_as_before();
        took
    }

    pub fn expect(&self, code: i32, words: &[&str]) -> Done {
        let done = self.world.podway(words);
        assert_eq!(done.status.code(), Some(code), "podway {words:?}: {done:?}\n{}", self.log());
        done
    }

    pub fn status(&self) -> SessionStatus {
        self.status_of(&[])
    }

    /// The same of the connection with this name, where there are several.
    pub fn status_of(&self, name: &[&str]) -> SessionStatus {
        let words = [&["status", "-o", "json"], name].concat();
        let mut document: Value = serde_json::from_str(&self.expect(0, &words).out).unwrap();
        serde_json::from_value(document["status"].take()).unwrap()
    }

    /// The address of its name server.
    pub fn dns(&self) -> IpAddr {
        self.status().dns.server.parse().unwrap()
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("--- podwayd\n{}", self.log());
        }
        if let Some(mut process) = self.process.take() {
            // A test that failed: the workstation ends soon, and it with that.
            process.kill().ok();
            process.wait().ok();
        }
    }
}
