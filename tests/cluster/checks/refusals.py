"""A cluster that says no: images, quotas, admission, rights."""

import contextlib
import json
import pathlib

from checks.rights import user
from lib import NS, check, expect, facility, run, until

POLICY = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: podway-corner}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
    - {apiGroups: [""], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [pods/ephemeralcontainers]}
  validations:
  - {expression: "false", message: "debugging is for the on-call team"}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: podway-corner}
spec: {policyName: podway-corner, validationActions: [Deny]}
"""

WEBHOOK = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: podway-corner}
webhooks:
- name: guard.podway.example
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Fail
  timeoutSeconds: 1
  clientConfig: {url: "https://127.0.0.1:9/"}
  rules: [{apiGroups: [""], apiVersions: [v1], operations: [UPDATE], resources: [pods/ephemeralcontainers]}]
"""


@contextlib.contextmanager
def applied(w, manifest):
    w.cluster.kubectl("apply", "-f", "-", stdin=manifest)
    try:
        yield
    finally:
        w.cluster.kubectl("delete", "-f", "-", "--ignore-not-found", stdin=manifest)


def refused(w, *words, within=4):
    """A connect through web that is refused with these words."""
    with w.daemon() as p:
        done = p.connect("--proxy-via", "service=web", code=1)
        for word in (*words, "hint:"):
            expect(word in done.err, f"{word} is not in: {done.err}")
        expect(done.seconds < within, f"after {done.seconds:.2f} s: {done.err}")
        w.note(f"{done.seconds:.2f} s: {done.err.strip().splitlines()[-2]}")
        w.nothing_connected()


def in_force(w, word):
    """Admission is configured some moments after it was written. Any other refusal, as of a pod that has just gone, is none."""
    patch = json.dumps({"spec": {"ephemeralContainers": [{"name": "in-force", "image": "none.invalid/none"}]}})

    def is_refused():
        pod = w.cluster.pods("web")[0]["metadata"]["name"]
        asked = ("-n", NS, "patch", "pod", pod, "--subresource=ephemeralcontainers", "--dry-run=server", "-p", patch)
        done = w.ws.run("kubectl", *asked)
        return done.code != 0 and word in done.err

    until("admission refuses", is_refused, 20, every=0.5)


@check("an admission policy that forbids ephemeral containers is told with its own words")
def policy(w):
    w.cluster.remove_agents()
    with applied(w, POLICY):
        in_force(w, "debugging is for the on-call team")
        refused(w, "debugging is for the on-call team")


@check("an admission webhook that does not answer is told with its name")
def webhook(w):
    w.cluster.remove_agents()
    with applied(w, WEBHOOK):
        in_force(w, "guard.podway.example")
        refused(w, "guard.podway.example", within=8)


@check("an image for another processor is told with the kubelet's own word", needs=["PODWAY_LOAD_IMAGE", "PODWAY_AGENT_BIN"])
def architecture(w):
    w.cluster.remove_agents()
    binary = bytearray(pathlib.Path(facility("PODWAY_AGENT_BIN")[0]).read_bytes())
    # e_machine of ELF: x86-64 becomes AArch64, and the other way around.
    binary[18] = 183 if binary[18] == 62 else 62
    other = w.dir / "agent-of-another-machine"
    other.write_bytes(binary)
    other.chmod(0o755)
    expect(run([*facility("PODWAY_LOAD_IMAGE"), "podway-agent:other-machine", other]).code == 0, "no image")
    try:
        with w.daemon() as p:
            done = p.command("connect", "-n", NS, "--proxy-via", "service=web", "--agent-image", "podway-agent:other-machine")
            expect(done.code == 1, f"exit {done.code}: {done.said()}")
            for word in ("podway-agent:other-machine", "architecture", "hint:"):
                expect(word in done.err, f"{word} is not in: {done.err}")
            w.note(f"{done.seconds:.2f} s: {done.err.strip().splitlines()[-2]}")
            w.nothing_connected()
    finally:
        w.cluster.remove_agents()


@check("disconnect --clean without the right to delete names that right, and what stays")
def clean_with_few_rights(w):
    with user(w, "podway-few", True, without=["delete"]) as env, w.daemon() as p:
        p.connect("--proxy-via", "service=web", env=env)
        w.ws.get("http://edge/", 15)
        done = p.command("disconnect", "--clean")
        expect(done.code == 1, f"exit {done.code}: {done.said()}")
        for word in ("left behind", "delete jobs", "hint:"):
            expect(word in done.out + done.err, f"{word} is not in: {done.out} {done.err}")
        w.nothing_connected()


@check("an image that cannot be pulled is told with the kubelet's own word")
def no_image(w):
    w.cluster.remove_agents()
    try:
        with w.daemon() as p:
            done = p.command("connect", "-n", NS, "--proxy-via", "service=web", "--agent-image", "registry.invalid/podway-agent:0")
            expect(done.code == 1, f"exit {done.code}: {done.said()}")
            expect("registry.invalid/podway-agent:0" in done.err and "hint:" in done.err, f"not clear: {done.err}")
            w.note(f"{done.seconds:.2f} s: {done.err.strip().splitlines()[-2]}")
            w.nothing_connected()
    finally:
        w.cluster.remove_agents()


@check("a quota that holds no further pod is told with its name")
def quota(w):
    space = "podway-corner"
    w.cluster.kubectl("create", "namespace", space)
    try:
        w.cluster.kubectl("-n", space, "create", "quota", "full", "--hard=pods=0")
        full = lambda: "hard" in w.cluster.get("quota", "full", ns=space)["status"]
        until("the quota is in force", full, 10)
        with w.daemon() as p:
            done = p.connect(ns=space, code=1)
            expect("exceeded quota: full" in done.err and "hint:" in done.err, f"not clear: {done.err}")
            expect(done.seconds < 4, f"after {done.seconds:.2f} s")
            w.note(f"{done.seconds:.2f} s")
    finally:
        w.cluster.kubectl("delete", "namespace", space, "--wait=false")
