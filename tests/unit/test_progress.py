"""The progress of a transfer: when a line is shown, and what it says."""

from __future__ import annotations

import io

import pytest

from unbroken.cli.client import progress as module
from unbroken.cli.client.progress import WIPE_LINE, CountedBody, Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    time = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: time[0])
    return time


def test_a_short_transfer_shows_nothing(now: list[float]) -> None:
    terminal = Terminal()
    progress = Progress(is_shown=True, terminal=terminal)
    progress.start("received", 10)
    now[0] += 0.9
    progress.add(10)
    progress.end()
    assert terminal.getvalue() == ""


def test_a_long_one_has_a_line_that_is_written_anew_and_wiped_out(now: list[float]) -> None:
    terminal = Terminal()
    progress = Progress(is_shown=True, terminal=terminal)
    progress.start("received", 50_000_000)
    for step in (1.1, 0.1, 0.3):
        now[0] += step
        progress.add(12_500_000)
    progress.end()
    lines = terminal.getvalue().split(WIPE_LINE)
    assert lines == ["", "received 12.5 MB of 50 MB (25 %)", "received 37.5 MB of 50 MB (75 %)", ""]


@pytest.mark.parametrize(("is_shown", "terminal"), [(False, Terminal()), (True, io.StringIO())])
def test_nothing_is_written_where_it_must_not(is_shown: bool, terminal: io.StringIO, now: list[float]) -> None:
    progress = Progress(is_shown=is_shown, terminal=terminal)
    progress.start("received", 0)
    now[0] += 5
    progress.add(1)
    progress.end()
    assert terminal.getvalue() == ""


SIZES = [
    (0, "0 B"),
    (999, "999 B"),
    (1000, "1 kB"),
    (999_999, "1000 kB"),
    (12_340_000, "12.34 MB"),
    (5 * 10**15, "5000 TB"),
]


@pytest.mark.parametrize(("count", "shown"), SIZES)
def test_sizes_have_few_digits(count: int, shown: str) -> None:
    progress = Progress(is_shown=False)
    progress.start("received", 0)
    progress.add(count)
    assert progress.line() == f"received {shown}"


def test_a_body_that_is_sent_again_is_counted_from_its_start() -> None:
    progress = Progress(is_shown=False)
    body = CountedBody(io.BytesIO(b"x" * 300), progress, 300)
    body.seek(0)
    assert b"".join(body) == b"x" * 300
    assert progress.line() == "sent 300 B of 300 B (100 %)"
    body.seek(0)
    assert body.read(30) == b"x" * 30
    assert progress.line() == "sent 30 B of 300 B (10 %)"
