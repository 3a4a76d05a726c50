"""Connecting: with the agent absent and present, and what a user sees first."""

import time

from lib import check, expect, until


@check("with no agent anywhere, connect places them and a service answers by name")
def agent_absent(w):
    w.cluster.remove_agents()
    began = time.monotonic()
    with w.connected("--proxy-via", "service=web") as p:
        w.ws.get("http://edge/")
        w.note(f"first answer after {time.monotonic() - began:.2f} s")
        expect(p.is_true("Ready"), f"not Ready: {p.conditions()}")
    expect(w.cluster.agents(), "no agent was placed")


@check("with the agent present, it is used again and nothing is added")
def agent_present(w):
    with w.connected("--proxy-via", "service=web") as p:
        w.ws.get("http://edge/")
        # Whoever leaves before takes the pod back, as it never ran.
        until("AgentReady", lambda: p.is_true("AgentReady"), 30)
    before = w.cluster.agents()
    began = time.monotonic()
    with w.connected("--proxy-via", "service=web"):
        w.ws.get("http://edge/")
        w.note(f"first answer after {time.monotonic() - began:.2f} s")
        added = set(w.cluster.agents()) - set(before)
        expect(not added, f"agents were added: {added}")


@check("without --proxy-via, services and pods answer by name and by address")
def general(w):
    service = w.cluster.service("web")
    pod = sorted(w.cluster.addresses("web"))[0]
    with w.connected():
        for url in ("http://web/", "http://web.demo/", "http://web.demo.svc.cluster.local/", f"http://{service}/",
                    f"http://{pod}:8080/", "http://api.other/"):
            w.ws.get(url, 15)


@check("status shows ranges, the via workload with its agent's pod, names and the device")
def status(w):
    with w.connected("--proxy-via", "service=web") as p:
        text = p.ok("status").out
        for word in ("web", "podway0"):
            expect(word in text, f"{word} is not in status: {text}")
        conditions = p.conditions()
        for wanted in ("Ready", "RoutesReady", "DNSReady", "WorkloadReady demo/deployment/web"):
            expect(conditions.get(wanted, {}).get("status") == "True", f"{wanted}: {conditions.get(wanted)}")
        p.ok("wait", "--for=condition=Ready", "--timeout", "5s")


@check("without a daemon, the command says so, with exit code 3")
def no_daemon(w):
    done = w.podway.command("status")
    expect(done.code == 3, f"exit {done.code}: {done.said()}")
    expect("hint:" in done.err, f"no hint: {done.err}")


@check("a wrong flag is a usage error, with exit code 2")
def usage(w):
    with w.daemon() as p:
        for bad in ("service", "10.0.0.0/99=web", "0.0.0.0/0=web"):
            done = p.command("connect", "--proxy-via", bad)
            expect(done.code == 2, f"{bad}: exit {done.code}: {done.said()}")


@check("an own agent answers soon after connect, although connect does not wait for it")
def general_follows(w):
    with w.connected("--proxy-via", "service=web") as p:
        _, took = until("AgentReady", lambda: p.is_true("AgentReady"), 20)
        w.note(f"AgentReady {took:.2f} s after connect")
