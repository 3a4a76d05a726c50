"""What the parts of the benchmark share: programs, processes that end with their starter, turns, what a process used."""

import ctypes
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time

from table import record

ROOT = pathlib.Path(__file__).resolve().parents[1]
PR_SET_PDEATHSIG = 1
TICKS = os.sysconf("SC_CLK_TCK")


def programs():
    return pathlib.Path(os.environ.get("PODWAY_BIN") or pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release").resolve()


def need(*found):
    for program in found:
        if not (programs() / program).exists():
            sys.exit(f"error: {programs() / program} does not exist\nhint: `just bench` builds it")


def dies_with_us(how=signal.SIGKILL):
    """For `preexec_fn`: the child gets this signal when its starter is gone, however that ended."""
    starter, libc = os.getpid(), ctypes.CDLL(None)

    def before_exec():
        libc.prctl(PR_SET_PDEATHSIG, int(how))
        if os.getppid() != starter:
            os._exit(1)

    return before_exec


def run(*argv, timeout=150, error=None, stdin=None):
    """What a command says. It ends with this process, and after `timeout` at the latest."""
    words = [str(word) for word in argv]
    with subprocess.Popen(words, stdin=stdin, stdout=subprocess.PIPE, stderr=error, text=True, preexec_fn=dies_with_us()) as process:
        try:
            out, _ = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise RuntimeError(f"exit {process.returncode}: {' '.join(words)}")
    return out


def load(*argv, who="", prefix=()):
    """One measurement of the load client."""
    answer = json.loads(run(*prefix, programs() / "examples" / "podway-load", *argv))
    record("load", who=who, argv=[str(word) for word in argv], answer=answer)
    return answer


class Part:
    """A program that says `ready`, and runs until its standard input ends."""

    def __init__(self, *argv, prefix=()):
        words = [str(word) for word in (*prefix, *argv)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=dies_with_us())
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError(f"it did not begin: {' '.join(words)}")
        self.pid = self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        """What it says at its end."""
        try:
            return self.process.communicate(timeout=5)[0] if self.process.returncode is None else ""
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.communicate()[0]


def in_turns(rounds, **ways):
    """Each way as often, one after the other in each round, so that what else the machine does meets all of them."""
    answers = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            answers[name].append(way())
    return answers


def median(answers, key):
    return statistics.median(answer[key] for answer in answers)


def processor(pid):
    """Seconds of processor."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(pid, which="VmRSS"):
    """MiB that are resident, or (VmHWM) were at most."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(which)) / 1024


def processes(name):
    """Processes of the program of this name, also where another is it (`podway as NAME`)."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0") if entry.name.isdigit() else [""]
        except OSError:
            continue
        if words[0].split("/")[-1] == name or words[1:3] == ["as", name]:
            found.append(int(entry.name))
    return sorted(found)


def alone(script, *words):
    """Runs a script anew in namespaces of its own: no network but what it makes, and all its processes end with it."""
    unshare = ["unshare", "--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        unshare += ["--user", "--map-root-user"]
    argv = [*unshare, sys.executable, str(pathlib.Path(script).resolve()), "--inside", *words]
    with subprocess.Popen(argv, preexec_fn=dies_with_us(), env=os.environ | {"PODWAY_BIN": str(programs())}) as process:
        try:
            return process.wait(timeout=400)
        except BaseException:
            process.kill()
            raise


def switches(pid):
    """How often its threads went to sleep so far."""
    found = 0
    for status in pathlib.Path(f"/proc/{pid}/task").glob("*/status"):
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("voluntary_ctxt_switches"))
        found += int(line.split()[1])
    return found


def sleeper(times, length):
    """What a thread takes of a processor that wakes so often and does nothing, in per cent: what waking costs here."""
    began, used = time.monotonic(), time.thread_time()
    for number in range(times):
        time.sleep(max(0, began + length * (number + 1) / times - time.monotonic()))
    return 100 * (time.thread_time() - used) / length
