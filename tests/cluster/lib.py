"""What every check on a real cluster uses: the workstation, the cluster, podway, and waiting for conditions.

Facilities come from the environment. What is not there makes the checks that need it say SKIP.

  KUBECONFIG          the cluster (an administrator's; checks scale, restart and delete sample workloads)
  PODWAY_WS           prefix that runs a command on the workstation; none: this host, as root
  PODWAY_BIN          directory of podway, podwayd, podway-agent (default: target/release)
  PODWAY_AGENT_IMAGE  image of the agent (default: podway-agent:dev)
  PODWAY_LOAD_IMAGE   command: NAME:TAG BINARY, puts an image of a static binary on the nodes
  PODWAY_RESOLVED     command: on|off, a real systemd-resolved on the workstation
  PODWAY_DELAY        command: MS [--listen ADDR] | cut|blackhole|stop [PORT], a slow way to the API server
  PODWAY_DAEMON       command: kill|start NAME, a daemon of the cluster
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
NS = "demo"


class Skip(Exception):
    """A facility is missing."""


class Failed(AssertionError):
    """A check did not hold."""


def expect(condition, message):
    if not condition:
        raise Failed(message)


@dataclasses.dataclass
class Done:
    code: int
    out: str
    err: str
    seconds: float

    def said(self):
        return (self.err.strip() or self.out.strip())[-600:]


def words(name):
    return shlex.split(os.environ.get(name, ""))


def run(argv, *, env=None, timeout=60, stdin=None):
    """Runs a command to its end. Never raises for an exit code; a hang is a failure."""
    began = time.monotonic()
    try:
        p = subprocess.run(
            [str(a) for a in argv], env={**os.environ, **(env or {})}, timeout=timeout,
            input=stdin, capture_output=True, text=True, check=False,
        )
    except subprocess.TimeoutExpired as e:
        raise Failed(f"no end after {timeout} s: {shlex.join(map(str, argv))}") from e
    return Done(p.returncode, p.stdout, p.stderr, time.monotonic() - began)


def until(what, condition, seconds, every=0.05):
    """Waits for a condition; returns its value and the seconds it took."""
    began = time.monotonic()
    while True:
        value = condition()
        took = time.monotonic() - began
        if value:
            return value, took
        if took > seconds:
            raise Failed(f"not after {seconds} s: {what}")
        time.sleep(every)


def find(document, key):
    """The first value of a key, at any depth: the checks do not depend on where a document keeps it."""
    if isinstance(document, dict):
        if key in document:
            return document[key]
        document = list(document.values())
    if isinstance(document, list):
        for item in document:
            got = find(item, key)
            if got is not None:
                return got
    return None


def facility(name):
    command = words(name)
    if not command:
        raise Skip(f"{name} is not set")
    return command


def ended(process, seconds=60):
    """The answer of a client."""
    out, err = process.communicate(timeout=seconds)
    expect(process.returncode == 0, f"the client failed: {err.decode(errors='replace').strip()}")
    return json.loads(out)


class Workstation:
    """The machine that podway runs on."""

    def __init__(self):
        self.prefix = words("PODWAY_WS")
        if not self.prefix and os.geteuid() != 0:
            sys.exit("error: this needs root, or PODWAY_WS\nhint: run it as root; it changes this host's routes and names while it runs")

    def run(self, *argv, **kw):
        return run([*self.prefix, *argv], **kw)

    def ok(self, *argv, **kw):
        done = self.run(*argv, **kw)
        expect(done.code == 0, f"exit {done.code}: {shlex.join(map(str, argv))}: {done.said()}")
        return done.out

    def spawn(self, *argv, **kw):
        return subprocess.Popen([*self.prefix, *map(str, argv)], **kw)

    # --- what programs there see ---

    def get(self, url, timeout=5):
        """The body and the seconds, or Failed."""
        done = self.run("curl", "-sS", "--fail", "--max-time", timeout, url)
        expect(done.code == 0, f"{url}: {done.said()}")
        return done.out, done.seconds

    def try_get(self, url, timeout=2):
        done = self.run("curl", "-sS", "--fail", "--max-time", timeout, url)
        return done.out if done.code == 0 else None

    def who(self, url, timeout=5):
        """The JSON of the sample workloads: who answered, and whom it saw."""
        return json.loads(self.get(url, timeout)[0])

    def seen_from(self, url, timeout=5):
        """The address that the target saw as the caller's: the proof of the way taken."""
        return self.who(url, timeout)["remote"].rsplit(":", 1)[0]

    def client(self, *argv, timeout=60):
        """client.py on the workstation; its answer as a document."""
        out = self.ok(sys.executable, HERE / "client.py", *argv, timeout=timeout)
        return json.loads(out)

    def begin(self, *argv):
        """The same, while other things happen; `ended` gives its answer."""
        return self.spawn(sys.executable, HERE / "client.py", *argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    @contextlib.contextmanager
    def keeps(self, host, port):
        """A connection that is open meanwhile, and must not be lost; yields a document that is filled at the end."""
        process, told = self.begin("keep", host, port), {}
        try:
            expect(process.stdout.readline() == b"open\n", "there is no connection to keep")
            yield told
            process.terminate()
            told.update(ended(process))
        finally:
            process.kill()
            process.wait()

    def dig(self, *argv):
        done = self.run("dig", "+time=2", "+tries=1", *argv)
        expect(done.code == 0, f"dig {shlex.join(map(str, argv))}: {done.said()}")
        status = re.search(r"status: (\w+)", done.out)
        return status.group(1) if status else "", done.out

    def short(self, *argv):
        return self.ok("dig", "+short", "+time=2", "+tries=1", *argv).split("\n")[:-1]

    # --- what podway could leave behind ---

    def traces(self):
        """Everything of the host that podway touches, as it is now."""
        return {
            "devices": sorted(re.findall(r"^\d+: (podway[^:@]*)", self.ok("ip", "-o", "link"), re.M)),
            "routes": sorted(self.ok("ip", "route", "show", "table", "all").splitlines()),
            "rules": sorted(self.ok("ip", "rule").splitlines()),
            "resolv.conf": self.ok("sh", "-c", "readlink /etc/resolv.conf; cat /etc/resolv.conf"),
            "files in /etc": sorted(self.ok("sh", "-c", "ls -A /etc | grep -i 'podway\\|resolv' || true").split()),
        }


class Cluster:
    """The cluster, by kubectl on the workstation, so that the same way leads there."""

    def __init__(self, ws):
        self.ws = ws

    def kubectl(self, *argv, stdin=None, timeout=90, env=None):
        done = self.ws.run("kubectl", *argv, stdin=stdin, timeout=timeout, env=env)
        expect(done.code == 0, f"kubectl {shlex.join(map(str, argv))}: {done.said()}")
        return done.out

    def get(self, *argv, ns=NS):
        return json.loads(self.kubectl("-n", ns, "get", *argv, "-o", "json"))

    def pods(self, app, ns=NS):
        """Pods of a sample workload that are running, ready and not on their way out."""
        return [
            p for p in self.get("pods", "-l", f"app={app}", ns=ns)["items"]
            if "deletionTimestamp" not in p["metadata"]
            and any(c["type"] == "Ready" and c["status"] == "True" for c in p["status"].get("conditions", []))
        ]

    def addresses(self, app, ns=NS):
        return {p["status"]["podIP"] for p in self.pods(app, ns)}

    def service(self, name, ns=NS):
        return self.get("service", name, ns=ns)["spec"]["clusterIP"]

    def _whole(self):
        done = self.ws.run("kubectl", "get", "nodes,endpointslices", "-A", "-o", "json")
        if done.code != 0:
            return False
        items = json.loads(done.out)["items"]
        nodes = [o for o in items if o["kind"] == "Node"]
        ready = {c["status"] for n in nodes for c in n["status"].get("conditions", []) if c["type"] == "Ready"}
        served = {
            (o["metadata"]["namespace"], o["metadata"].get("labels", {}).get("kubernetes.io/service-name"))
            for o in items if o["kind"] == "EndpointSlice"
            if any(e.get("conditions", {}).get("ready") for e in o.get("endpoints") or [])
        }
        return ready == {"True"} and {(NS, "web"), (NS, "edge"), ("kube-system", "kube-dns")} <= served

    def settled(self, seconds=90):
        """Waits until the cluster itself serves: a node that a killed API server left NotReady refuses for a while."""
        until("the cluster is whole: nodes ready, the samples served", self._whole, seconds, every=0.2)

    def scale(self, app, count, ns=NS):
        self.kubectl("-n", ns, "scale", f"deployment/{app}", f"--replicas={count}")

    def restart(self, kind_name, ns=NS):
        self.kubectl("-n", ns, "rollout", "restart", kind_name)
        self.rolled_out(kind_name, ns)

    def rolled_out(self, kind_name, ns=NS):
        self.kubectl("-n", ns, "rollout", "status", kind_name, "--timeout=80s")

    # --- podway's agents ---

    def agents(self):
        """(namespace/pod, container or '') of every agent of ours that has not ended."""
        found = []
        for pod in json.loads(self.kubectl("get", "pods", "-A", "-o", "json"))["items"]:
            where = pod["metadata"]["namespace"] + "/" + pod["metadata"]["name"]
            if pod["metadata"]["name"].startswith("podway-agent-"):
                if pod["status"].get("phase") in ("Pending", "Running"):
                    found.append((where, ""))
                continue
            ended = {
                s["name"] for s in pod["status"].get("ephemeralContainerStatuses", []) if s.get("state", {}).get("terminated")
            }
            for c in pod["spec"].get("ephemeralContainers", []):
                if c["name"].startswith("podway-agent") and c["name"] not in ended:
                    found.append((where, c["name"]))
        return found

    def remove_agents(self):
        """Puts the sample workloads back to pods that no agent was ever in."""
        wanted = set()
        for pod in json.loads(self.kubectl("get", "pods", "-A", "-o", "json"))["items"]:
            ns, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
            if name.startswith("podway-agent-"):
                job = name.rsplit("-", 1)[0]
                self.kubectl("-n", ns, "delete", "job", job, name, "--ignore-not-found", "--wait=false")
                self.kubectl("-n", ns, "delete", "pod", name, "--ignore-not-found", "--grace-period=1")
            elif any(c["name"].startswith("podway-agent") for c in pod["spec"].get("ephemeralContainers", [])):
                wanted |= {(ns, o["kind"], o["name"]) for o in pod["metadata"].get("ownerReferences", [])}
        for ns, kind, name in wanted:
            if kind == "ReplicaSet":
                kind, name = "Deployment", name.rsplit("-", 1)[0]
            self.restart(f"{kind.lower()}/{name}", ns)
        # A kubelet that still ends the pods before starts no container in those after.
        until("the pods before are gone", lambda: not any(
            "deletionTimestamp" in pod["metadata"] for ns in {ns for ns, _, _ in wanted} for pod in self.get("pods", ns=ns)["items"]
        ), 60, every=0.2)


class Podway:
    """podwayd on the workstation, in directories of its own, and the command that speaks to it."""

    def __init__(self, ws, dir):
        self.ws = ws
        self.dir = pathlib.Path(dir)
        target = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))
        self.bin = pathlib.Path(os.environ.get("PODWAY_BIN", target + "/release")).resolve()
        self.image = os.environ.get("PODWAY_AGENT_IMAGE", "podway-agent:dev")
        self.socket = self.dir / "podway.sock"
        self.log = self.dir / "podwayd.log"
        self.config = self.dir / "config.toml"
        self.process = None
        # The site's names are the cluster's only: podway has to be told to ask there.
        self.config.write_text('[dns]\ninclude_suffixes = ["site.example"]\n')

    def start(self):
        (self.dir / "run").mkdir(exist_ok=True)
        (self.dir / "state").mkdir(exist_ok=True)
        with open(self.log, "ab") as log:
            self.process = self.ws.spawn(
                self.bin / "podwayd", "--config", self.config, "--socket", self.socket,
                "--runtime-dir", self.dir / "run", "--state-dir", self.dir / "state",
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )
        until("podwayd answers", self._answers, 5, every=0.01)

    def _answers(self):
        if self.process.poll() is not None:
            raise Failed(f"podwayd ended with {self.process.returncode}: {self.tail()}")
        return self.socket.exists() and self.command("version", timeout=5).code == 0

    def tail(self, lines=5):
        return " | ".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def stop(self):
        """SIGTERM and the end; returns the seconds."""
        if not self.process:
            return 0.0
        began = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired as e:
            self.process.kill()
            self.process.wait()
            raise Failed("podwayd did not end within 10 s of SIGTERM") from e
        finally:
            self.process = None
        return time.monotonic() - began

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process = None

    def command(self, *argv, env=None, timeout=60):
        env = {"PODWAY_SOCKET": str(self.socket), **(env or {})}
        return self.ws.run(self.bin / "podway", *argv, env=env, timeout=timeout)

    def ok(self, *argv, **kw):
        done = self.command(*argv, **kw)
        expect(done.code == 0, f"podway {shlex.join(map(str, argv))}: exit {done.code}: {done.said()}")
        return done

    def connect(self, *argv, ns=NS, env=None, code=0, timeout=60):
        done = self.command("connect", "-n", ns, "--agent-image", self.image, *argv, env=env, timeout=timeout)
        expect(done.code == code, f"podway connect {shlex.join(map(str, argv))}: exit {done.code}, not {code}: {done.said()}")
        return done

    def status(self):
        return json.loads(self.ok("status", "-o", "json").out)

    def conditions(self):
        """By type, or by "type subject" where one type is told of several."""
        found = find(self.status(), "conditions") or []
        return {" ".join(filter(None, (c["type"], c.get("subject")))): c for c in found}

    def is_true(self, condition):
        return self.conditions().get(condition, {}).get("status") == "True"

    def dns_server(self):
        return (find(self.status(), "dns") or {})["server"].split("%")[0]

    def pid(self):
        return self.process.pid


class World:
    """What a check gets."""

    def __init__(self, dir):
        self.dir = pathlib.Path(dir)
        self.ws = Workstation()
        self.cluster = Cluster(self.ws)
        self.podway = Podway(self.ws, dir)
        self.before = None
        self.notes = []

    def note(self, text):
        """A figure for the line of this check."""
        self.notes.append(text)

    @contextlib.contextmanager
    def connected(self, *argv, code=0, ns=NS, env=None, timeout=60):
        """A connection for the length of a block, by a daemon of its own, with nothing left after it."""
        with self.daemon():
            self.podway.connect(*argv, code=code, ns=ns, env=env, timeout=timeout)
            yield self.podway
            self.podway.ok("disconnect")
            self.nothing_connected()

    @contextlib.contextmanager
    def daemon(self):
        self.before = self.ws.traces()
        expect(not self.before["devices"], f"another podway runs on the workstation: {self.before['devices']}")
        self.podway.start()
        try:
            yield self.podway
        finally:
            self.podway.stop()
        self.nothing_left()

    def nothing_connected(self):
        """After a disconnect, with the daemon alive: the host is as it was."""
        now = self.ws.traces()
        for what, was in self.before.items():
            expect(now[what] == was, f"{what} differ after disconnect: {was!r}, now {now[what]!r}")

    def nothing_left(self):
        """After the daemon's end: no trace, no process."""
        self.nothing_connected()
        expect(not self.processes(), f"processes are left: {self.processes()}")

    def processes(self):
        mark = str(self.dir).encode()
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    line = (entry / "cmdline").read_bytes()
                    if mark in line and b"podway" in line.split(b"\0")[0]:
                        found.append(f"{entry.name} {line.replace(b'%c' % 0, b' ').decode(errors='replace')}")
        return found

    def heal(self):
        """After a failed check: end what it left, so that the next one starts clean."""
        if self.podway.process:
            with contextlib.suppress(Exception):
                self.podway.stop()
        with contextlib.suppress(Exception):
            self.ws.run(self.podway.bin / "podwayd", "cleanup", "--runtime-dir", self.dir / "run", "--state-dir", self.dir / "state")

    def service_account(self, name, manifest):
        """A kubeconfig of a new user with exactly the rights of a manifest (or none)."""
        c = self.cluster
        c.kubectl("-n", NS, "create", "serviceaccount", name)
        if manifest:
            c.kubectl("apply", "-f", "-", stdin=manifest)
        token = c.kubectl("-n", NS, "create", "token", name).strip()
        config = json.loads(c.kubectl("config", "view", "--raw", "--flatten", "--minify", "-o", "json"))
        config["users"] = [{"name": name, "user": {"token": token}}]
        for context in config["contexts"]:
            context["context"]["user"] = name
        path = self.dir / f"{name}.conf"
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))
        return {"KUBECONFIG": str(path)}


CHECKS = []


def check(sentence, *, needs=()):
    """Registers a check: its name is a sentence of behaviour."""

    def register(function):
        theme = function.__module__.rsplit(".", 1)[-1].replace("_", "-")
        CHECKS.append((theme, sentence, tuple(needs), function))
        return function

    return register


def temporary():
    return tempfile.TemporaryDirectory(prefix="podway-cluster-")


def have(program, ws):
    expect(shutil.which(program) or ws.run("sh", "-c", f"command -v {program}").code == 0, f"{program} is not installed")


def ready(world):
    """The run's own conditions, checked once, with the fix in the message."""
    for program in ("podway", "podwayd"):
        if not (world.podway.bin / program).exists():
            sys.exit(f"error: {world.podway.bin / program} does not exist\nhint: cargo build --locked --release, or set PODWAY_BIN")
    for program in ("kubectl", "curl", "dig", "ip"):
        if world.ws.run("sh", "-c", f"command -v {program}").code:
            sys.exit(f"error: {program} is not installed on the workstation")
    try:
        world.cluster.get("deployment", "web")
    except Failed as e:
        sys.exit(f"error: the sample workloads are not there: {e}\nhint: docs/testing.md says what they are")
    agent = world.podway.bin / "podway-agent"
    if words("PODWAY_LOAD_IMAGE"):
        agent = pathlib.Path(os.environ.get("PODWAY_AGENT_BIN", agent))
        done = run([*words("PODWAY_LOAD_IMAGE"), world.podway.image, agent])
        if done.code:
            sys.exit(f"error: the agent's image was not loaded: {done.said()}")
    world.cluster.settled()
