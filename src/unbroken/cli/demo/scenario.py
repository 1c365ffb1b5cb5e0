"""The scenario of the demo: what happens when, the lines that tell of it, and the summary."""

from __future__ import annotations

import contextlib
import json
import logging
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, Self

from unbroken.cli.demo.environment import DemoEnvironment, demo_environment, stop_second_process
from unbroken.cli.demo.workers import Observations, run_in_thread
from unbroken.cli.terminal import say

__all__ = ["play"]

ACCESS_TTL_SECONDS = 1.0
DETECTION_SECONDS = 15.0  # within which the theft must be detected
MIN_ROTATIONS = 4  # with fewer, the demo would show nothing
EXTRA_SECONDS = 30.0  # for a machine that is too busy to make them in time
STATUS_SECONDS = 0.25  # between two updates of the line at the bottom
Summary = dict[str, int | float | bool]


class Step(NamedTuple):
    """One step of the scenario. *at* is a part of the whole time."""

    at: float
    text: str
    run: Callable[[], None]


def play(seconds: float, workers: int, *, as_json: bool) -> int:
    """Run the scenario, print the summary, and return the exit status."""
    logging.getLogger("unbroken").setLevel(logging.CRITICAL)  # the scenario tells of the reuse itself
    with demo_environment(ACCESS_TTL_SECONDS) as environment:
        summary, failures = _play(environment, seconds, workers)
    if as_json:
        say(json.dumps(summary))
    else:
        _print_summary(summary)
    for failure in failures:
        print(f"a task saw: {failure}", file=sys.stderr)
    return 0 if has_held(summary) else 1


def has_held(summary: Summary) -> bool:
    """Return whether the session held until the theft, and the theft was detected."""
    is_quiet = summary["failed_requests"] == 0 and summary["reuse_before_theft"] == 0
    return bool(is_quiet and summary["theft_detected"] and summary["requests"] and summary["rotations"])


def _play(environment: DemoEnvironment, seconds: float, workers: int) -> tuple[Summary, list[str]]:
    seen, stop, started = Observations(), threading.Event(), time.monotonic()
    session = environment.log_in()
    tasks = run_in_thread(session, environment.url + "/api/echo", seen, workers, stop)
    second_tasks = max(1, workers // 10)
    second = environment.start_second_process(second_tasks)
    with _Timeline(environment, seen, started) as timeline:
        timeline.add(f"ada logs in; {workers} tasks here and {second_tasks} in a second process share the session")
        try:
            for step in _steps(environment):
                time.sleep(max(0.0, started + step.at * seconds - time.monotonic()))
                timeline.add(step.text)
                step.run()
            time.sleep(max(0.0, started + seconds - time.monotonic()))
            _wait_for_last_step(environment)
            other = stop_second_process(second)
            summary = _summarize(environment, seen, other, time.monotonic() - started)
            failures = seen.first_failures + other.first_failures
            seen.end_is_expected = True
            timeline.add("a thief copies the token file, and uses it")
            summary["theft_detected"] = is_detected = _is_theft_detected(environment, seen)
            timeline.add(
                "the theft is detected: the session is revoked, for the thief too"
                if is_detected
                else f"the theft is NOT detected within {DETECTION_SECONDS:g} s"
            )
        finally:
            stop.set()
            second.kill()
            second.wait()
            tasks.join(timeout=30)
    return summary, failures


def _steps(environment: DemoEnvironment) -> Iterator[Step]:
    for at in (0.10, 0.30, 0.50, 0.70):
        yield Step(at, "the response to a refresh is lost", environment.lose_response)
        if at in (0.10, 0.50):
            text = "all access tokens become invalid before they expire"
            yield Step(at + 0.10, text, environment.invalidate_access_tokens)
        else:
            yield Step(at + 0.05, "the server is killed with -9, and starts again", environment.kill_server)
    yield Step(0.85, "one more response to a refresh is lost", environment.lose_response)


def _wait_for_last_step(environment: DemoEnvironment) -> None:
    """Wait until every response that should be lost is lost, and the refresh token was rotated often enough."""
    deadline = time.monotonic() + EXTRA_SECONDS
    while (environment.network.lose or environment.rotations() < MIN_ROTATIONS) and time.monotonic() < deadline:
        time.sleep(0.1)


def _is_theft_detected(environment: DemoEnvironment, seen: Observations) -> bool:
    """Let a thief use the stolen token while the tasks use theirs; return whether the server revokes the session."""
    thief, deadline = environment.steal(), time.monotonic() + DETECTION_SECONDS
    while time.monotonic() < deadline:
        thief.refresh()
        if environment.reuse_detections() and thief.is_locked_out() and seen.over == "reuse":
            return True
        time.sleep(0.3)
    return False


# ---- what is printed -------------------------------------------------------------------------------------------------


def _summarize(environment: DemoEnvironment, seen: Observations, other: Observations, seconds: float) -> Summary:
    times = sorted(seen.seconds) or [0.0]
    return {
        "requests": seen.requests + other.requests,
        "failed_requests": seen.failures + other.failures,
        "requests_without_server": seen.without_server + other.without_server,
        "rotations": environment.rotations(),
        "refresh_requests": environment.network.refreshes,
        "responses_lost": environment.network.lost,
        "server_kills": environment.kills,
        "reuse_before_theft": environment.reuse_detections(),
        "theft_detected": False,
        "p50_ms": round(statistics.median(times) * 1000, 2),
        "p99_ms": round(times[int(len(times) * 0.99)] * 1000, 2),
        "seconds": round(seconds, 1),
    }


ROWS = {  # how the summary names the figures, for people
    "requests": "requests with a response, of both processes",
    "failed_requests": "requests that failed for the user",
    "requests_without_server": "requests that found no server, and were sent again by their task",
    "rotations": "times the refresh token was rotated",
    "refresh_requests": "refresh requests on the network",
    "responses_lost": "responses to a refresh that were lost",
    "server_kills": "times the server was killed with -9",
    "reuse_before_theft": "reuse detected before the theft",
    "theft_detected": "theft detected",
    "p50_ms": "median time of a request, in ms",
    "p99_ms": "99th percentile, in ms",
    "seconds": "seconds until the theft",
}


def _print_summary(summary: Summary) -> None:
    say("The session held, and the theft was detected." if has_held(summary) else "THE SESSION DID NOT HOLD.")
    width = max(map(len, ROWS.values()))
    for name, label in ROWS.items():
        say(f"  {label.ljust(width)}  {_format(summary[name]):>9}")


def _format(value: float) -> str:
    return ("yes" if value else "NO") if isinstance(value, bool) else f"{value:,}"


class _Timeline(contextlib.AbstractContextManager["_Timeline"]):
    """Prints each step on standard error when it happens; at a terminal, a line below shows the counters."""

    def __init__(self, environment: DemoEnvironment, seen: Observations, started: float) -> None:
        self._environment, self._seen, self._started = environment, seen, started
        self._lock = threading.Lock()  # guards the line at the bottom
        self._end = threading.Event()
        self._updates = threading.Thread(target=self._update, daemon=True)
        self._is_terminal = sys.stderr.isatty()

    def __enter__(self) -> Self:
        if self._is_terminal:
            self._updates.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._is_terminal:
            self._updates.join()
        self._print(f"{self._elapsed():6.1f} s  {self._counters()}\n")

    def add(self, text: str) -> None:
        """Print one step."""
        self._print(f"{self._elapsed():6.1f} s  {text}\n")

    def _update(self) -> None:
        while not self._end.wait(STATUS_SECONDS):
            self._print(f"{self._elapsed():6.1f} s  {self._counters()}")

    def _counters(self) -> str:
        refreshes = self._environment.network.refreshes
        return f"{self._seen.requests:,} requests here, {self._seen.failures} failed, {refreshes} refreshes"

    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _print(self, text: str) -> None:
        erase = "\r\x1b[K" if self._is_terminal else ""
        with self._lock:
            sys.stderr.write(erase + text)
            sys.stderr.flush()
