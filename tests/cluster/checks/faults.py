"""The way to the API server is slow, cut, silent; the API server dies."""

import contextlib
import time

from lib import NS, check, expect, facility, run, until

PORT = "16471"
TARGET = "http://edge/"
OUTAGE = 10


@contextlib.contextmanager
def way(w, ms):
    """Another way to the API server; yields the environment that takes it."""
    relay = facility("PODWAY_DELAY")

    def start(ms=ms):
        done = run([*relay, str(ms), "--listen", f"127.0.0.1:{PORT}"])
        expect(done.code == 0, f"no relay: {done.said()}")
        return {"KUBECONFIG": done.out.strip()}

    env = start()
    try:
        yield env, relay, start
    finally:
        run([*relay, "stop", PORT])


@check("80 ms away, connect works and a service answers by name", needs=["PODWAY_DELAY"])
def far(w):
    with way(w, 80) as (env, _, _):
        began = time.monotonic()
        with w.connected("--proxy-via", "service=web", env=env):
            w.ws.get(TARGET)
            w.note(f"first answer after {time.monotonic() - began:.2f} s")


@check("connections to the API server are reset: new flows work again at once", needs=["PODWAY_DELAY"])
def cut(w):
    with way(w, 1) as (env, relay, _), w.connected("--proxy-via", "service=web", env=env):
        w.ws.get(TARGET)
        expect(run([*relay, "cut", PORT]).code == 0, "not cut")
        _, took = until("a new connection", lambda: w.ws.try_get(TARGET), 5)
        w.note(f"{took:.2f} s")


@check("the API server is away for 10 s and comes back", needs=["PODWAY_DELAY"])
def away(w):
    with way(w, 1) as (env, relay, start), w.connected("--proxy-via", "service=web", env=env) as p:
        w.ws.get(TARGET)
        run([*relay, "stop", PORT])
        began = time.monotonic()
        until("the outage shows in status", lambda: not p.is_true("Ready"), OUTAGE)
        name = w.ws.short("web.demo.svc.cluster.local")
        expect(name, "names of watched services are lost in the outage")
        until("the outage is over", lambda: time.monotonic() - began >= OUTAGE, OUTAGE + 1)
        start()
        _, took = until("a new connection", lambda: w.ws.try_get(TARGET), 5)
        w.note(f"{took:.2f} s after it was back")
        until("Ready", lambda: p.is_true("Ready"), 10)


@check("the way goes silent for 10 s, and comes back", needs=["PODWAY_DELAY"])
def silent(w):
    with way(w, 1) as (env, relay, _), w.connected("--proxy-via", "service=web", env=env):
        w.ws.get(TARGET)
        run([*relay, "blackhole", PORT])
        try:
            began = time.monotonic()
            while time.monotonic() - began < OUTAGE:
                w.ws.try_get(TARGET, 1)
        finally:
            run([*relay, "blackhole", PORT])
        _, took = until("a new connection", lambda: w.ws.try_get(TARGET), 5)
        w.note(f"{took:.2f} s")


@check("the API server is killed and started", needs=["PODWAY_DAEMON"])
def killed(w):
    daemon = facility("PODWAY_DAEMON")
    with w.connected("--proxy-via", "service=web"):
        w.ws.get(TARGET)
        expect(run([*daemon, "kill", "kube-apiserver"]).code == 0, "not killed")
        try:
            time.sleep(OUTAGE)  # the fault itself, not a wait for something
        finally:
            run([*daemon, "start", "kube-apiserver"])
            until("the API server", lambda: w.ws.run("kubectl", "get", "--raw", "/readyz").code == 0, 60)
            w.cluster.settled()
        _, took = until("a new connection", lambda: w.ws.try_get(TARGET), 10)
        w.note(f"{took:.2f} s after it was ready")


@check("an API server that nobody serves is an error that says so")
def nobody(w):
    config = w.dir / "nobody.conf"
    config.write_text("""apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:9"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u, namespace: %s}}]
current-context: x
""" % NS)
    with w.daemon() as p:
        done = p.command("connect", env={"KUBECONFIG": str(config)})
        expect(done.code == 1, f"exit {done.code}: {done.said()}")
        expect("127.0.0.1:9" in done.err and "hint:" in done.err, f"not helpful: {done.err}")
        w.note(f"{done.seconds:.2f} s")
