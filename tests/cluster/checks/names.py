"""Names: every record type, both ways of attaching to the host's resolver, and everyone else's names untouched."""

import json
import statistics
import time

from lib import NS, check, expect, facility, run


def reverse(address):
    return ".".join(reversed(address.split("."))) + ".in-addr.arpa"


def lookups(w, p):
    """The names of this cluster and of the network around, as programs ask for them."""
    server = "@" + p.dns_server()
    web, zone = w.cluster.service("web"), "svc.cluster.local"
    pods = w.cluster.addresses("db")

    expect(w.ws.short(f"web.{NS}.{zone}") == [web], "A of a service, by the host's resolver")
    expect(w.ws.short(f"web.{NS}") == [web], "A of name.namespace, by the host's resolver")
    expect(set(w.ws.short(f"db.{NS}.{zone}")) == pods, "A of a headless service")
    expect(w.ws.short(f"store-0.store.{NS}.{zone}")[0] in w.cluster.addresses("store"), "A of a stateful set's pod")
    status, answer = w.ws.dig(server, "AAAA", f"web.{NS}.{zone}")
    expect(status == "NOERROR" and "ANSWER: 0" in answer, f"AAAA of an IPv4 service has to be empty: {answer}")
    srv = w.ws.short(server, "SRV", f"_http._tcp.web.{NS}.{zone}")
    expect(any(f" 80 web.{NS}.{zone}." in s for s in srv), f"SRV: {srv}")
    expect(w.ws.short(server, "PTR", reverse(web)) == [f"web.{NS}.{zone}."], "PTR of a service")
    status, answer = w.ws.dig(server, "TXT", f"web.{NS}.{zone}")
    expect(status == "NOERROR" and "ANSWER: 0" in answer, f"TXT of a service has to be empty: {answer}")
    status, _ = w.ws.dig(server, "A", f"no-such-service.{NS}.{zone}")
    expect(status == "NXDOMAIN", f"a name that does not exist: {status}")
    expect(w.ws.short("+tcp", server, f"web.{NS}.{zone}") == [web], "A over TCP")


def whole(w, *flags):
    with w.connected(*flags) as p:
        lookups(w, p)
        w.ws.get("http://web/", 15)
        near = w.ws.run("getent", "hosts", "node.corp.example")
        expect(near.code == 0, "a name of the local network is lost")


@check("by resolv.conf: lookups of every record type, and the local network's names")
def resolv_conf(w):
    whole(w, "--dns", "file")


@check("by systemd-resolved: lookups of every record type, and the local network's names", needs=["PODWAY_RESOLVED"])
def resolved(w):
    switch = facility("PODWAY_RESOLVED")
    done = run([*switch, "on"], timeout=120)
    expect(done.code == 0, f"systemd-resolved does not start: {done.said()}")
    try:
        whole(w, "--dns", "resolved")
    finally:
        run([*switch, "off"])


@check("auto takes systemd-resolved where the host uses it", needs=["PODWAY_RESOLVED"])
def auto(w):
    switch = facility("PODWAY_RESOLVED")
    expect(run([*switch, "on"], timeout=120).code == 0, "systemd-resolved does not start")
    try:
        with w.connected("--proxy-via", "service=web") as p:
            expect("resolved" in json.dumps(p.status()), "status does not name systemd-resolved")
            w.ws.get("http://edge/")
    finally:
        run([*switch, "off"])


@check("an alias is followed, and keeps its CNAME")
def alias(w):
    manifest = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "podway-alias", "namespace": NS},
                "spec": {"type": "ExternalName", "externalName": "web.demo.svc.cluster.local"}}
    w.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    try:
        with w.connected() as p:
            got = w.ws.short("@" + p.dns_server(), "podway-alias.demo.svc.cluster.local")
            expect(got[:1] == ["web.demo.svc.cluster.local."] and len(got) == 2, f"answer: {got}")
    finally:
        w.cluster.kubectl("-n", NS, "delete", "service", "podway-alias")


@check("a virtual address has a name (PTR)")
def virtual_ptr(w):
    with w.connected("--proxy-via", "service=web") as p:
        virtual = w.ws.short("edge.demo.svc.cluster.local")[0]
        got = w.ws.short("@" + p.dns_server(), "PTR", reverse(virtual))
        expect(got == ["edge.demo.svc.cluster.local."], f"PTR of {virtual}: {got}")


@check("a name that does not exist is denied at once")
def quick_miss(w):
    with w.connected() as p:
        server, times = "@" + p.dns_server(), []
        for i in range(10):
            began = time.monotonic()
            status, _ = w.ws.dig(server, f"missing-{i}.demo.svc.cluster.local")
            times.append(time.monotonic() - began)
            expect(status == "NXDOMAIN", status)
        w.note(f"median {statistics.median(times) * 1000:.0f} ms with dig's own start")
        expect(max(times) < 1, f"slowest {max(times):.2f} s")


@check("--dns off changes nothing on the host, and the device still answers")
def off(w):
    with w.connected("--dns", "off") as p:
        expect(w.ws.traces()["resolv.conf"] == w.before["resolv.conf"], "resolv.conf changed")
        expect(w.ws.short("@" + p.dns_server(), "web.demo.svc.cluster.local"), "no answer on the device")
