"""--proxy-via: the target sees the address of a pod of the workload. That is the proof, in every check here."""

from lib import NS, check, expect


def proof(w, rules, ways):
    """Connects with the rules; each (url, app, namespace) has to be seen from a pod of app."""
    flags = [f for rule in rules for f in ("--proxy-via", rule)]
    with w.connected(*flags) as p:
        for url, app, ns in ways:
            seen, pods = w.ws.seen_from(url, 15), w.cluster.addresses(app, ns)
            expect(seen in pods, f"{url} saw {seen}, no pod of {app}: {sorted(pods)}")
            w.note(f"{url} saw {seen} of {app}")
        return p


@check("service=web: services are called from a pod of web")
def service(w):
    proof(w, ["service=web"], [("http://edge/", "web", NS), ("http://api.other/", "web", NS)])


@check("pods=web: a headless service's pods are called from a pod of web")
def pods(w):
    proof(w, ["pods=web"], [("http://db:8080/", "web", NS)])


@check("CIDR=web: exactly that address is called from a pod of web")
def cidr(w):
    address = sorted(w.cluster.addresses("db"))[0]
    proof(w, [f"{address}/32=web"], [("http://db:8080/", "web", NS)])


@check("two workloads: each range through its own")
def two(w):
    proof(w, ["service=web", "pods=db"], [("http://edge/", "web", NS), ("http://store-0.store:8080/", "db", NS)])


@check("the longest prefix wins over a symbol")
def longest(w):
    edge = w.cluster.service("edge")
    proof(w, ["service=web", f"{edge}/32=db"], [("http://edge/", "db", NS), ("http://api.other/", "web", NS)])


@check("db, which runs as another user behind a headless service, carries traffic")
def headless(w):
    proof(w, ["service=deployment/db"], [("http://edge/", "db", NS)])


@check("store, a stateful set, carries traffic")
def stateful_set(w):
    proof(w, ["service=statefulset/store"], [("http://edge/", "store", NS)])


@check("edge, a daemon set, carries traffic")
def daemon_set(w):
    proof(w, ["service=daemonset/edge"], [("http://web/", "edge", NS)])


@check("a workload of another namespace carries traffic")
def other_namespace(w):
    proof(w, ["service=other/deployment/api"], [("http://edge/", "api", "other")])


@check("a name that only the cluster knows is reached through the workload")
def site(w):
    with w.connected("--proxy-via", "198.51.100.0/24=web"):
        address = w.ws.short("ledger.site.example")
        expect(address, "ledger.site.example has no address")
        expect(not address[0].startswith("198.51.100."), f"the real address {address} was handed out")
        w.ws.get("http://ledger.site.example:8080/", 15)
        w.note(f"ledger.site.example is {address[0]}")


@check("a translated range is not routed, and its names have virtual addresses")
def not_routed(w):
    real = w.cluster.service("edge")
    with w.connected("--proxy-via", "service=web"):
        given = w.ws.short("edge.demo.svc.cluster.local")
        expect(given and real not in given, f"edge is {given}, really {real}")
        way = w.ws.ok("ip", "route", "get", real)
        expect("podway" not in way, f"{real} is routed into the device: {way}")


@check("virtual addresses stay the same across reconnects")
def stable(w):
    seen = []
    for _ in range(2):
        with w.connected("--proxy-via", "service=web"):
            seen.append(w.ws.short("edge.demo.svc.cluster.local"))
    expect(seen[0] == seen[1], f"first {seen[0]}, then {seen[1]}")


@check("the pod's loopback is reached by its own rule")
def loopback(w):
    with w.connected("--proxy-via", "127.0.0.1/32=web"):
        answer = w.ws.client("half-close", "127-0-0-1.web.demo.podway", 9005, 1000)
        expect(answer["equal"], str(answer))
