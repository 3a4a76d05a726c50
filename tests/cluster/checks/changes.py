"""The cluster changes while connected: pods restart, come, and go."""

import time

from lib import NS, check, expect, until

TARGET = "http://edge/"


@check("after a rollout restart of the workload, new connections work within 5 s of the new pod")
def restart(w):
    with w.connected("--proxy-via", "service=web"):
        old = w.cluster.addresses("web")
        w.ws.get(TARGET)
        w.cluster.restart("deployment/web")
        _, took = until("a new connection", lambda: w.ws.try_get(TARGET), 5)
        w.note(f"{took:.2f} s after the new pods were ready")
        for _ in range(10):
            seen = w.ws.seen_from(TARGET)
        expect(seen not in old, f"still seen from the old pod {seen}")


@check("a workload without pods leaves the connection up and pending, and attaches by itself")
def idle(w):
    try:
        with w.daemon() as p:
            began = time.monotonic()
            p.connect("--proxy-via", "service=idle", code=4)
            w.note(f"connect said so after {time.monotonic() - began:.2f} s")
            condition = p.conditions()["WorkloadReady demo/deployment/idle"]
            expect(condition["status"] != "True", str(condition))
            w.cluster.scale("idle", 1)
            w.cluster.rolled_out("deployment/idle")
            _, took = until("the workload attaches", lambda: p.is_true("WorkloadReady demo/deployment/idle"), 15)
            w.note(f"attached {took:.2f} s after its pod was ready")
            p.ok("wait", "--for=workload/idle", "--timeout", "5s")
            seen = w.ws.seen_from(TARGET)
            expect(seen in w.cluster.addresses("idle"), f"seen from {seen}")
            p.ok("disconnect")
    finally:
        w.cluster.scale("idle", 0)
        w.cluster.kubectl("-n", NS, "wait", "--for=delete", "pod", "-l", "app=idle", "--timeout=60s")


@check("a pod that carries traffic is deleted, another takes over")
def pod_deleted(w):
    with w.connected("--proxy-via", "service=web"):
        seen = w.ws.seen_from(TARGET)
        name = next(p["metadata"]["name"] for p in w.cluster.pods("web") if p["status"]["podIP"] == seen)
        try:
            w.cluster.kubectl("-n", NS, "delete", "pod", name, "--wait=false")
            until("the pod ends", lambda: seen not in w.cluster.addresses("web"), 30)
            _, took = until("a new connection", lambda: w.ws.try_get(TARGET), 10)
            w.note(f"{took:.2f} s")
            expect(w.ws.seen_from(TARGET) != seen, "seen from the deleted pod")
        finally:
            w.cluster.rolled_out("deployment/web")


@check("our own agent's pod is deleted, and comes back")
def own_pod_deleted(w):
    with w.connected() as p:
        w.ws.get("http://web/", 15)
        own = [a.split("/") for a, container in w.cluster.agents() if not container]
        expect(own, "there is no own pod")
        for ns, name in own:
            w.cluster.kubectl("-n", ns, "delete", "pod", name, "--grace-period=1")
        _, took = until("a new connection", lambda: w.ws.try_get("http://web/"), 20)
        w.note(f"{took:.2f} s after the pod had gone")
        until("AgentReady", lambda: p.is_true("AgentReady"), 10)


@check("a service made while connected has a name at once")
def new_service(w):
    with w.connected():
        w.cluster.kubectl("-n", NS, "expose", "deployment/web", "--name=podway-new", "--port=80", "--target-port=8080")
        try:
            _, took = until("its name", lambda: w.ws.short("podway-new.demo.svc.cluster.local"), 5)
            w.note(f"{took:.2f} s")
            until("its answer", lambda: w.ws.try_get("http://podway-new/"), 5)
        finally:
            w.cluster.kubectl("-n", NS, "delete", "service", "podway-new")
