"""The way to the API server is slow, cut, silent; the API server dies."""

import contextlib
import time

from lib import NS, check, ended, expect, facility, run, until

PORT = "16471"
TARGET = "http://edge/"
OUTAGE = 10
LONG_OUTAGE = 60
TRANSFER = 800_000_000


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


@check("connections to the API server are reset: new flows work again at once, open ones go on", needs=["PODWAY_DELAY"])
def cut(w):
    with way(w, 1) as (env, relay, _), w.connected("--proxy-via", "service=web", env=env):
        w.ws.get(TARGET)
        with w.ws.keeps("edge", 9001) as kept:
            expect(run([*relay, "cut", PORT]).code == 0, "not cut")
            _, took = until("a new connection", lambda: w.ws.try_get(TARGET), 5)
        w.note(f"{took:.2f} s; an open connection waited {kept['longest']:.2f} s")


@check("800 MB down, and as many up and back, arrive whole although the way is cut every 2 s", needs=["PODWAY_DELAY"])
def transfers(w):
    with way(w, 2) as (env, relay, _), w.connected("--proxy-via", "service=web", env=env):
        clients = [
            w.ws.begin("down", "http://edge/bytes", TRANSFER, 120), w.ws.begin("both", "edge", 9001, TRANSFER, 120),
        ]
        began, cuts = time.monotonic(), 0
        while any(client.poll() is None for client in clients):
            expect(time.monotonic() - began < 120, "it does not come to an end")
            time.sleep(2)
            expect(run([*relay, "cut", PORT]).code == 0, "not cut")
            cuts += 1
        for told in map(ended, clients):
            expect(told["equal"] and told["bytes"] == TRANSFER, f"not what was sent: {told}")
        expect(cuts >= 3, f"cut {cuts} times: it was too quick")
        w.note(f"{time.monotonic() - began:.1f} s, cut {cuts} times")


@check("the API server is away for 60 s and comes back: open connections stand still and go on", needs=["PODWAY_DELAY"])
def away(w):
    with way(w, 1) as (env, relay, start), w.connected("--proxy-via", "service=web", env=env) as p:
        w.ws.get(TARGET)
        with w.ws.keeps("edge", 9001) as kept:
            run([*relay, "stop", PORT])
            began = time.monotonic()
            _, seen = until("the outage shows in status", lambda: not p.is_true("Ready"), OUTAGE)
            time.sleep(max(0, began + LONG_OUTAGE - time.monotonic()))  # the fault itself
            name = w.ws.short("web.demo.svc.cluster.local")
            expect(name, "names of watched services are lost in the outage")
            start()
            _, took = until("a new connection", lambda: w.ws.try_get(TARGET), 5)
            _, well = until("Ready", lambda: p.is_true("Ready"), 10)
        w.note(f"seen after {seen:.2f} s, {took:.2f} s after it was back, Ready {well:.2f} s later; "
               f"an open connection waited {kept['longest']:.1f} s")


@check("the way goes silent for 10 s, and comes back: seen in 8 s, open connections go on", needs=["PODWAY_DELAY"])
def silent(w):
    with way(w, 1) as (env, relay, _), w.connected("--proxy-via", "service=web", env=env) as p:
        w.ws.get(TARGET)
        with w.ws.keeps("edge", 9001) as kept:
            run([*relay, "blackhole", PORT])
            try:
                began = time.monotonic()
                _, seen = until("status says so", lambda: "no byte came" in p.ok("status").out, 8.5)
                time.sleep(max(0, began + OUTAGE - time.monotonic()))  # the fault itself
            finally:
                run([*relay, "blackhole", PORT])
            _, took = until("a new connection", lambda: w.ws.try_get(TARGET), 5)
        w.note(f"seen after {seen:.2f} s, {took:.2f} s after its end; an open connection waited {kept['longest']:.1f} s")


@check("the API server is killed and started: open connections go on", needs=["PODWAY_DAEMON"])
def killed(w):
    daemon = facility("PODWAY_DAEMON")
    with w.connected("--proxy-via", "service=web"):
        w.ws.get(TARGET)
        with w.ws.keeps("edge", 9001) as kept:
            expect(run([*daemon, "kill", "kube-apiserver"]).code == 0, "not killed")
            try:
                time.sleep(OUTAGE)  # the fault itself, not a wait for something
            finally:
                run([*daemon, "start", "kube-apiserver"])
                until("the API server", lambda: w.ws.run("kubectl", "get", "--raw", "/readyz").code == 0, 60)
                w.cluster.settled()
            _, took = until("a new connection", lambda: w.ws.try_get(TARGET), 10)
        w.note(f"{took:.2f} s after it was ready; an open connection waited {kept['longest']:.1f} s")


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
