"""Figures as a table in Markdown, each beside its baseline and the bar that it has to hold.

With PODWAY_BENCH_OUT, a file, each row and each raw answer is also a line of JSON there.
"""

import json
import os
import subprocess
import sys
import time

OUT = "PODWAY_BENCH_OUT"
HEAD = ("What", "podway", "Baseline, same run", "Ratio", "Bar", "Held")


def record(kind, **what):
    """Keeps what was measured."""
    if path := os.environ.get(OUT):
        line = json.dumps({"kind": kind, "at": round(time.time(), 3), **what})
        # One write, so that lines of several programs do not mix.
        with open(path, "ab", buffering=0) as file:
            file.write(f"{line}\n".encode())


def markdown(rows):
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    return "\n".join(lines + ["| " + " | ".join(str(c) or "–" for c in row) + " |" for row in rows])


class Table:
    def __init__(self):
        self.rows = []

    def add(self, what, value, baseline, bar, holds, ratio=None):
        mark = "–" if holds is None else "yes" if holds else "**no**"
        row = (what, value, baseline, "" if ratio is None else f"{ratio:.2f}", bar, mark)
        self.rows.append(row)
        record("row", row=row)
        print(f"  {what}: {value}  (baseline {baseline or '–'}, ratio {row[3] or '–'}, bar {bar or '–'}: {mark})", file=sys.stderr, flush=True)

    def attempt(self, name, measure):
        """A measurement that cannot be made is a row that does not hold, and keeps no other from being made."""
        try:
            measure()
        except (OSError, RuntimeError, ValueError, LookupError, subprocess.SubprocessError) as error:
            self.add(f"{name}: a measurement failed", f"{type(error).__name__}: {error}".replace("|", "¦")[:200], "", "", False)

    def text(self):
        return markdown(self.rows)

    def missed(self):
        return any(row[-1] == "**no**" for row in self.rows)


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo", encoding="utf-8") if line.startswith("model name")), "?")
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} × {model}, Linux {os.uname().release}, load before the run {load:.1f}, {time.strftime('%Y-%m-%d', time.gmtime())}"
