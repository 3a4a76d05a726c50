"""The end: quick, complete, and again and again."""

import subprocess
import time

from lib import check, expect, until

CYCLES = 50
KILLS = 10


@check("disconnect takes at most 0.2 s")
def quick(w):
    with w.daemon() as p:
        times = []
        for _ in range(5):
            p.connect("--proxy-via", "service=web")
            w.ws.get("http://edge/")
            times.append(p.ok("disconnect").seconds)
            w.nothing_connected()
        w.note(f"slowest {max(times) * 1000:.0f} ms")
        expect(max(times) <= 0.2, f"slowest {max(times):.3f} s")


@check("disconnect with open connections is as quick, and ends them")
def open_connections(w):
    with w.daemon() as p:
        p.connect()
        w.ws.get("http://web/", 15)
        stream = w.ws.spawn("curl", "-sSN", "--max-time", "30", "http://web/stream?ms=50",
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            expect(stream.stdout.read(1), "nothing came")
            took = p.ok("disconnect").seconds
            w.nothing_connected()
        finally:
            stream.kill()
            stream.communicate()
        expect(took <= 0.2, f"{took:.3f} s")


@check(f"{CYCLES} times connect and disconnect, nothing left, no agent added")
def cycles(w):
    with w.daemon() as p:
        p.connect("--proxy-via", "service=web")
        w.ws.get("http://edge/")
        p.ok("disconnect")
        agents = set(w.cluster.agents())
        memory = resident(p.pid())
        began = time.monotonic()
        for i in range(CYCLES):
            p.connect("--proxy-via", "service=web")
            w.ws.get("http://edge/")
            p.ok("disconnect")
            w.nothing_connected()
        w.note(f"{(time.monotonic() - began) / CYCLES:.2f} s each")
        w.note(f"{(resident(p.pid()) - memory) / CYCLES:.1f} KiB each")
        added = {a for a in w.cluster.agents() if a[1]} - agents
        # A second pod of the workload may have got its agent meanwhile; never two in one pod.
        pods = [pod for pod, _ in {a for a in agents if a[1]} | added]
        expect(len(pods) == len(set(pods)), f"several agents in one pod: {pods}")


@check(f"{KILLS} times SIGKILL while connected, the next start puts everything right")
def kills(w):
    for i in range(KILLS):
        with w.daemon() as p:
            p.connect("--proxy-via", "service=web")
            w.ws.get("http://edge/")
            p.kill()
            expect(not w.ws.traces()["devices"], f"round {i}: the device outlived the daemon")
            p.start()  # undoes what the killed one had journaled
            w.nothing_connected()


@check("SIGTERM while connected ends the daemon and leaves nothing")
def term(w):
    with w.daemon() as p:
        p.connect("--proxy-via", "service=web")
        w.ws.get("http://edge/")
        took = p.stop()
        w.note(f"{took:.2f} s")
        expect(took < 5, f"{took:.2f} s")


@check("disconnect --clean removes our own pod")
def clean(w):
    with w.daemon() as p:
        p.connect()
        w.ws.get("http://web/", 15)
        p.ok("disconnect", "--clean")
        # The API server has taken the deletion; the node ends the pod.
        until("our own pod is gone", lambda: not [a for a, container in w.cluster.agents() if not container], 10)


def resident(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))
