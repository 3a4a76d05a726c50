"""Figures as a table in Markdown, each beside its baseline and the bar that it has to hold."""

import os
import sys
import time


class Table:
    def __init__(self):
        self.rows = []

    def add(self, what, value, baseline, bar, holds):
        mark = "–" if holds is None else "yes" if holds else "**no**"
        self.rows.append((what, value, baseline, bar, mark))
        print(f"  {what}: {value}  (baseline {baseline or '–'}, bar {bar or '–'}: {mark})", file=sys.stderr, flush=True)

    def text(self):
        head = ("What", "podway", "Baseline, same run", "Bar", "Held")
        lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        return "\n".join(lines + ["| " + " | ".join(str(c) or "–" for c in r) + " |" for r in self.rows])


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo", encoding="utf-8") if line.startswith("model name")), "?")
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} × {model}, Linux {os.uname().release}, load before the run {load:.1f}, {time.strftime('%Y-%m-%d', time.gmtime())}"
