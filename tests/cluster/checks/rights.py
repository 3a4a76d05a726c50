"""Users with few rights: config/rbac.yaml is enough, and what is missing is named."""

import contextlib
import re

from lib import NS, ROOT, check, expect


@contextlib.contextmanager
def user(w, name, with_rights, without=()):
    """A user with the rights of config/rbac.yaml, without these verbs; or without any right."""
    manifest = None
    if with_rights:
        manifest = (ROOT / "config" / "rbac.yaml").read_text()
        subject = "{kind: ServiceAccount, name: %s, namespace: %s}" % (name, NS)
        for verb in without:
            manifest = manifest.replace(f", {verb}]", "]")
        manifest = re.sub(r"\{apiGroup: rbac\.authorization\.k8s\.io, kind: User, name: [^}]*\}", subject, manifest)
    try:
        yield w.service_account(name, manifest)
    finally:
        for kind, names in (
            ("serviceaccount", [name]),
            ("rolebinding", ["podway-connect", "podway-agent"] if with_rights else []),
            ("role", ["podway-connect", "podway-agent"] if with_rights else []),
        ):
            for n in names:
                w.cluster.kubectl("-n", NS, "delete", kind, n, "--ignore-not-found")


@check("a user with only the rights of config/rbac.yaml connects, with --proxy-via")
def least(w):
    with user(w, "podway-least", True) as env:
        w.cluster.remove_agents()
        with w.connected("--proxy-via", "service=web", env=env):
            w.ws.get("http://edge/", 15)
            expect(w.ws.seen_from("http://edge/") in w.cluster.addresses("web"), "not seen from web")
        with w.connected(env=env):
            w.ws.get("http://web/", 15)
            expect(w.ws.client("udp", "web", 9004, 5)["back"] == 5, "no UDP")


@check("a user without any right gets a clear error in under 2 s")
def none(w):
    with user(w, "podway-none", False) as env, w.daemon() as p:
        done = p.command("connect", "-n", NS, "--proxy-via", "service=web", env=env)
        expect(done.code == 1, f"exit {done.code}: {done.said()}")
        expect(done.seconds < 2, f"after {done.seconds:.2f} s")
        expect(NS in done.err and "hint:" in done.err, f"not clear: {done.err}")
        w.note(f"{done.seconds:.2f} s: {done.err.strip().splitlines()[0]}")


@check("a workload that does not exist is an error with near names in under 2 s")
def unknown(w):
    with w.daemon() as p:
        done = p.command("connect", "-n", NS, "--proxy-via", "service=wbe")
        expect(done.code == 1, f"exit {done.code}: {done.said()}")
        expect(done.seconds < 2, f"after {done.seconds:.2f} s")
        for word in ("wbe", NS, "web"):
            expect(word in done.err, f"{word} is not in: {done.err}")
        w.note(f"{done.seconds:.2f} s")
        expect(not w.ws.traces()["devices"], "a device is left after the failed connect")
