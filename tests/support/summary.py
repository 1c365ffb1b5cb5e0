"""What the end of a run tells: what could not be tested here, the browsers' engines, and where the time went."""

from __future__ import annotations

import re
import time
from collections import Counter
from typing import Any

__all__ = ["MISSING", "tell_engines", "tell_missing", "tell_times"]

MISSING = re.compile(r"(?P<what>.+) is not installed: (?P<how>.+)", re.DOTALL)
SCENARIO = re.compile(r"test_engines\.py::test_(?P<scenario>\w+)\[.*?(?P<engine>chromium|firefox|webkit)")
SLOWEST = 8  # files that are listed
_began = time.monotonic()


def tell_missing(terminal: Any) -> None:
    """Name the programs whose tests were skipped, and the command that installs each."""
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in terminal.stats.get("skipped", []))
    missing = [
        (found["what"], found["how"], count) for reason, count in reasons.items() if (found := MISSING.match(reason))
    ]
    if missing:
        terminal.section("not tested on this machine", yellow=True)
    for what, how, count in sorted(missing):
        terminal.line(f"{what}: {count} tests. To run them: {how}")


def tell_engines(terminal: Any) -> None:
    """Print one line for each scenario in each engine of browsers: how many of its tests have passed."""
    passed: Counter[tuple[str, str]] = Counter()
    ended: Counter[tuple[str, str]] = Counter()
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminal.stats.get(outcome, []):
            if found := SCENARIO.search(getattr(report, "nodeid", "")):
                ended[found["scenario"], found["engine"]] += 1
                passed[found["scenario"], found["engine"]] += outcome == "passed"
    if ended:
        terminal.section("scenarios in engines of browsers")
    for (scenario, engine), count in sorted(ended.items()):
        terminal.line(f"{scenario.replace('_', ' '):45} {engine:9} {passed[scenario, engine]} of {count} passed")


def tell_times(terminal: Any) -> None:
    """Print the seconds of the run, and of its slowest files."""
    files: Counter[str] = Counter()
    for reports in terminal.stats.values():
        for report in reports:
            if hasattr(report, "duration") and hasattr(report, "nodeid"):
                files[report.nodeid.partition("::")[0]] += report.duration
    if not files:
        return
    terminal.section(
        f"{time.monotonic() - _began:.0f} seconds, {sum(files.values()):.0f} of them in tests; the slowest files"
    )
    for name, seconds in files.most_common(SLOWEST):
        terminal.line(f"{seconds:6.1f} s  {name}")
