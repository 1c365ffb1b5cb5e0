"""Servers and pools whose workers are made in the middle of a refresh, or end in the middle of one.

The login server is strict and foreign: a refresh token that it sees a second time ends the session.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT
from tests.support.services import free_port
from tests.support.strict_logins import Login, StrictServer, strict_server
from tests.support.waiting import until
from unbroken import FileStore, Session, open_token_store
from unbroken.testing import ManualClock

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]

DELAY = 0.5  # of the server's response to a refresh
SOON = DELAY + 1.0
WORKERS = 3


@pytest.fixture(scope="module")
def strict() -> Iterator[StrictServer]:
    with strict_server() as running:
        yield running


# ---- servers ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(command: list[str], login: Login, store: str, port: int, **more: str) -> Iterator[str]:
    """The URL of a server whose workers share *store*; it is ended in order."""
    about = {"PREFORK_TOKEN": login.tokens.access_token, "PREFORK_SERVER": login.url, "PREFORK_STORE": store}
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | about | more, stderr=subprocess.DEVNULL)
    try:
        until(lambda: process.poll() is not None or answers(port), "the server listens")
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False


def ask(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=20) as response:
        said: dict[str, Any] = json.load(response)
        return said


def burst(url: str) -> list[dict[str, Any]]:
    """What several requests at once are told, until each worker has told something."""
    said: list[dict[str, Any]] = []

    def all_have_answered() -> bool:
        with ThreadPoolExecutor(4 * WORKERS) as pool:
            said.extend(pool.map(ask, [url] * 4 * WORKERS))
        return len({one["pid"] for one in said}) == WORKERS

    until(all_have_answered, "each worker answers")
    return said


@pytest.mark.parametrize("kind", ["file", "sqlite", "redis", "postgres"])
def test_gunicorn_forks_its_workers_in_the_middle_of_a_refresh(
    kind: str, strict: StrictServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    login, port = strict.login(delay=DELAY), free_port()
    store = location(kind, tmp_path, request)
    logged_in(login, store)
    gunicorn = [sys.executable, "-m", "gunicorn", "--preload", "-w", str(WORKERS), "--threads", "2"]
    command = [*gunicorn, "-b", f"127.0.0.1:{port}", "tests.chaos.prefork_app:wsgi"]
    with serving(command, login, store, port, PREFORK_REFRESHES="yes") as url:
        said = burst(url)
    assert len({one["token"] for one in said}) == 1, "all workers have the tokens of the refresh that was under way"
    assert max(one["seconds"] for one in said) < SOON
    assert login.counted() == (1, 0)


def test_workers_of_uvicorn_share_one_refresh(strict: StrictServer, tmp_path: Path) -> None:
    login, port = strict.login(delay=DELAY), free_port()
    store = str(tmp_path / "t.json")
    logged_in(login, store)
    uvicorn = [sys.executable, "-m", "uvicorn", "--workers", str(WORKERS), "--log-level", "critical"]
    command = [*uvicorn, "--port", str(port), "tests.chaos.prefork_app:asgi"]
    with serving(command, login, store, port) as url:
        said = burst(url)
    assert len({one["token"] for one in said}) == 1
    assert max(one["seconds"] for one in said) < SOON
    assert login.counted() == (1, 0)


def location(kind: str, folder: Path, request: pytest.FixtureRequest) -> str:
    """Where a store of a kind is, as ``Session`` takes it."""
    if kind in ("redis", "postgres"):
        return str(request.getfixturevalue("redis").url if kind == "redis" else request.getfixturevalue("database"))
    return f"sqlite:///{folder}/t.db" if kind == "sqlite" else str(folder / "t.json")


def logged_in(login: Login, store: str) -> None:
    with Session(login.dialect, open_token_store(store)) as session:
        session.import_tokens(login.tokens)


# ---- pools -----------------------------------------------------------------------------------------------------------


class Job:
    """One that uses a token which is ageing: a background refresh begins. It ends when that is under way."""

    def __init__(self, login: Login, store: FileStore) -> None:
        self._login, clock = login, ManualClock()
        self.session = Session(login.dialect, store, clock=clock)
        self.session.import_tokens(login.tokens)
        clock.advance(3600.0 - 100.0)  # between five minutes and ten seconds before its end

    def __call__(self, *_: object) -> bool:
        self.session.token()
        until(lambda: self._login.counted()[0], "the refresh arrives at the server")
        return True


def as_a_work_horse(job: Job) -> None:
    """As RQ does: a child for each job, which ends by ``os._exit``."""
    child = os.fork()
    if child == 0:
        try:
            job()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def in_a_pool(job: Job) -> None:
    """A pool that is terminated when its jobs are done, as by the end of its ``with`` block."""
    _jobs.append(job)  # the children inherit it
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(run_job, range(2))


_jobs: list[Job] = []


def run_job(_: int) -> bool:
    return _jobs[-1]()


@pytest.mark.parametrize("run", [as_a_work_horse, in_a_pool])
def test_a_worker_that_ends_after_its_job_does_not_cut_off_a_refresh(
    run: Callable[[Job], None], strict: StrictServer, tmp_path: Path
) -> None:
    login = strict.login(delay=DELAY)
    store = FileStore(tmp_path / "t.json")
    run(Job(login, store))
    assert login.counted() == (1, 0)
    session, old = Session(login.dialect, store), login.tokens.access_token
    assert session.token() != old, "the tokens of the refresh were stored"
    assert session.newer_token(session.token())
    assert login.counted() == (2, 0)


def test_a_job_does_not_wait_long_for_a_slow_server(strict: StrictServer, tmp_path: Path) -> None:
    job = Job(strict.login(delay=6.0), FileStore(tmp_path / "t.json"))
    began = time.monotonic()
    as_a_work_horse(job)
    assert time.monotonic() - began < 5.0
