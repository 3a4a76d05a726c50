"""Machines and users that are not the sunny ones: a VPN in the way, credentials that end, a daemon that stands still."""

import contextlib
import json
import signal
import socket
import stat

from checks.rights import user
from lib import NS, check, expect, find, until

SERVICES, PODS = "10.43.0.0/16", "10.42.0.0/16"
ENDS_AFTER = 12


@contextlib.contextmanager
def vpn(w, *routes):
    """A device of somebody else with these routes."""
    w.ws.ok("ip", "tuntap", "add", "vpn0", "mode", "tun")
    try:
        w.ws.ok("ip", "addr", "add", "172.30.0.1/24", "dev", "vpn0")
        w.ws.ok("ip", "link", "set", "vpn0", "up")
        for route in routes:
            w.ws.ok("ip", "route", "add", route, "dev", "vpn0")
        yield
    finally:
        w.ws.ok("ip", "link", "del", "vpn0")


def ranges(w):
    done = w.ws.ok("ip", "-j", "route", "show", "table", "all")
    return {route["dst"]: route.get("dev") for route in json.loads(done)}


@check("a VPN has the cluster's service range: connect says so, names work, its route stays")
def equal(w):
    with vpn(w, SERVICES), w.daemon() as p:
        said = p.connect().err
        expect("conflicts with 10.43.0.0/16 via vpn0" in said, f"not told: {said}")
        w.ws.get("http://web/", 15)
        expect(ranges(w).get(SERVICES) == "vpn0", "the route of the VPN is not as it was")
        expect("vpn0" in p.ok("status").out, "status does not name the device")
        p.ok("disconnect")


@check("a VPN that covers all of the cluster's ranges: services and pods by name, through a workload too")
def covering(w):
    with vpn(w, "10.0.0.0/8"), w.daemon() as p:
        p.connect("--proxy-via", "service=web")
        expect(w.ws.seen_from("http://edge/", 15) in w.cluster.addresses("web"), "not seen from web")
        w.ws.get("http://db:8080/", 15)
        p.ok("disconnect")


@check("a VPN comes up while connected: what it takes is translated, and names go on")
def later(w):
    with w.daemon() as p:
        p.connect()
        w.ws.get("http://db:8080/", 15)
        with vpn(w, PODS):
            told = lambda: "vpn0" in p.ok("status").out
            _, took = until("status names the VPN's device", told, 5)
            w.ws.get("http://db:8080/", 15)
            w.note(f"seen after {took:.2f} s")
        p.ok("disconnect")


@check("a machine without a default route connects, and has none afterwards")
def no_default(w):
    before = w.ws.ok("ip", "route", "show", "default").split()
    expect(before, "the workstation has no default route to begin with")
    w.ws.ok("ip", "route", "del", "default")
    try:
        with w.connected():
            w.ws.get("http://web/", 15)
        expect(not w.ws.ok("ip", "route", "show", "default").strip(), "a default route came")
    finally:
        w.ws.ok("ip", "route", "add", *before)


@check("connect --dry-run says what would change, and changes nothing")
def dry_run(w):
    w.cluster.remove_agents()
    with w.daemon() as p:
        before = w.ws.traces()
        done = p.connect("--proxy-via", "service=web", "--dry-run")
        for word in ("podway0", SERVICES, "demo/deployment/web", "ephemeral container"):
            expect(word in done.out, f"{word} is not in the plan: {done.out}")
        expect(w.ws.traces() == before, "the host changed")
        expect(not w.cluster.agents(), f"agents were added: {w.cluster.agents()}")
        plan = json.loads(p.connect("--proxy-via", "service=web", "--dry-run", "-o", "json").out)
        expect(find(plan, "kind") == "Plan", f"no plan: {plan}")


@check("logs tell of the connection, and completion offers its name")
def logs_and_completion(w):
    with w.connected("--name", "corner") as p:
        w.ws.get("http://web/", 15)
        told = p.ok("logs", "corner").out
        expect("corner" in told, f"logs do not tell of it: {told[-600:]}")
        asked = """
            source <("$0" completion bash); COMP_WORDS=(podway disconnect c) COMP_CWORD=2
            _podway_complete podway; printf '%s\\n' "${COMPREPLY[@]}"
        """
        done = w.ws.run("bash", "--norc", "-c", asked, p.bin / "podway", env={"PODWAY_SOCKET": str(p.socket)})
        expect("corner" in done.out.split(), f"not offered: {done.out} {done.err}")


class Login:
    """A kubeconfig whose user logs in by a plugin that gives what is in a file."""

    def __init__(self, w, name):
        self.dir = w.dir / name
        self.dir.mkdir(mode=0o700)
        self.config = self.dir / "config"
        plugin = self.dir / "plugin"
        plugin.write_text(
            f'#!/bin/sh\ncd "{self.dir}" || exit 1\necho run >>runs\n'
            'if test -e ends; then ends=",\\"expirationTimestamp\\":\\"$(date -u -d "+$(cat ends) seconds" +%Y-%m-%dT%H:%M:%SZ)\\""; fi\n'
            'printf \'{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"%s"%s}}\' "$(cat token)" "$ends"\n',
            encoding="ascii",
        )
        plugin.chmod(stat.S_IRWXU)
        config = json.loads(w.cluster.kubectl("config", "view", "--raw", "--flatten", "--minify", "-o", "json"))
        login = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin), "interactiveMode": "Never"}
        config["users"] = [{"name": name, "user": {"exec": login}}]
        for context in config["contexts"]:
            context["context"]["user"] = name
        self.config.write_text(json.dumps(config), encoding="utf-8")

    def gives(self, token, ends=None):
        new = self.dir / "new"
        new.write_text(token, encoding="ascii")
        new.rename(self.dir / "token")
        if ends:
            (self.dir / "ends").write_text(str(ends), encoding="ascii")

    def runs(self):
        return len((self.dir / "runs").read_text(encoding="ascii").splitlines())


def token(w, name, secret):
    """A token that is worth nothing once the secret is gone."""
    w.cluster.kubectl("-n", NS, "create", "secret", "generic", secret)
    return w.cluster.kubectl("-n", NS, "create", "token", name, "--bound-object-kind", "Secret", "--bound-object-name", secret).strip()


@check("a token that ends is asked for anew in time, and a revoked one when the API server says so")
def credentials(w):
    name, secrets = "podway-login", ["podway-login-1", "podway-login-2"]
    with user(w, name, True):
        try:
            login = Login(w, name)
            first = token(w, name, secrets[0])
            login.gives(first, ENDS_AFTER)
            with w.connected("--proxy-via", "service=web", env={"KUBECONFIG": str(login.config)}) as p:
                w.ws.get("http://edge/", 15)
                runs = login.runs()
                until("the plugin is asked in time", lambda: login.runs() > runs, 2 * ENDS_AFTER)
                # From here on only the API server can tell.
                (login.dir / "ends").unlink()
                runs = login.runs()
                until("the plugin is asked once more", lambda: login.runs() > runs, 2 * ENDS_AFTER)
                login.gives(token(w, name, secrets[1]))
                runs = login.runs()
                w.cluster.kubectl("-n", NS, "delete", "secret", secrets[0])
                _, took = until("the plugin is asked after the revocation", lambda: login.runs() > runs, 75)
                w.note(f"a revoked token was replaced after {took:.1f} s")
                until("the watches are well", lambda: p.is_true("WatchReady"), 15)
                w.ws.get("http://edge/", 15)
                expect(first not in p.ok("logs").out + p.log.read_text(errors="replace") + json.dumps(p.status()), "a token was told")
        finally:
            w.cluster.kubectl("-n", NS, "delete", "secret", *secrets, "--ignore-not-found")


@check("a daemon that stands still (SIGSTOP) holds no command for ever, and goes on with what was open")
def stands_still(w):
    with w.connected("--proxy-via", "service=web") as p:
        w.ws.get("http://edge/", 15)
        pid = p.pid()
        with w.ws.keeps("edge", 9001) as kept:
            p.process.send_signal(signal.SIGSTOP)
            try:
                done = p.command("status", timeout=40)
                expect(done.code != 0 and "hint:" in done.err, f"exit {done.code}: {done.said()}")
            finally:
                p.process.send_signal(signal.SIGCONT)
            w.ws.get("http://edge/", 15)
        expect(p.pid() == pid, "it is another daemon")
        w.note(f"status gave up after {done.seconds:.1f} s; an open connection waited {kept['longest']:.1f} s")


@check("nonsense on the socket is answered, and the next command is served")
def nonsense(w):
    with w.connected() as p:
        for line in (b"", b"{", b"\xff\xfe", b'{"id":1,"op":"none"}', b'{"id":1,"op":"connect","spec":7}', b"x" * 300_000):
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(5)
                s.connect(str(p.socket))
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    s.sendall(b'{"podway":1}\n' + line + b"\n")
                    s.shutdown(socket.SHUT_WR)
                    while s.recv(65536):
                        pass
        expect(p.is_true("Ready"), "it is not well afterwards")
        w.ws.get("http://web/", 15)
