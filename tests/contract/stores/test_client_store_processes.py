"""One session in many processes, over every store that processes can share."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keyring
import pytest
from keyrings.alt.file import PlaintextKeyring

from tests.support.backend import PASSWORD
from tests.support.processes import fresh_processes
from unbroken import FileStore, Session, unbroken_server
from unbroken.client.stores.keyring import KeyringStore
from unbroken.client.stores.postgres import PostgresStore
from unbroken.client.stores.redis import RedisStore
from unbroken.client.stores.sqlite import SqliteStore
from unbroken.testing import LoopbackServer


def worker(url: str, store: Any, seconds: float, queue: Any) -> None:
    session = Session(unbroken_server(url), store)
    calls, failures, ends = 0, 0, time.monotonic() + seconds
    while time.monotonic() < ends:
        calls += 1
        try:
            session.token()
        except Exception:  # noqa: BLE001  # every one counts
            failures += 1
        time.sleep(0.005)
    queue.put((calls, failures))


@pytest.fixture
def secrets_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """``keyring`` with a file for this process and those that it starts: there is no desktop that keeps secrets."""
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyrings.alt.file.PlaintextKeyring")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    before = keyring.get_keyring()
    keyring.set_keyring(PlaintextKeyring())
    yield
    keyring.set_keyring(before)


@pytest.mark.usefixtures("secrets_in_a_file")
@pytest.mark.parametrize("kind", ["file", "sqlite", "keyring", "redis", "postgres"])
def test_four_processes_make_one_refresh_a_generation(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    stores: dict[str, Callable[[], Any]] = {
        "file": lambda: FileStore(tmp_path / "t.json"),
        "sqlite": lambda: SqliteStore(tmp_path / "t.db"),
        "keyring": lambda: KeyringStore("unbroken tests", "fleet", locks=tmp_path),
        "redis": lambda: RedisStore(request.getfixturevalue("redis").url, "fleet"),
        "postgres": lambda: PostgresStore(request.getfixturevalue("postgres").url, "fleet"),
    }
    # ``keyring`` finds its backend when it is imported, by the environment.
    store, context = stores[kind](), multiprocessing.get_context("spawn") if kind == "keyring" else fresh_processes()
    with LoopbackServer(access_ttl=1.0) as server:
        Session(unbroken_server(server.url), store).login("ada", PASSWORD)
        queue = context.Queue()
        workers = [context.Process(target=worker, args=(server.url, store, 3.0, queue)) for _ in range(4)]
        for process in workers:
            process.start()
        seen = [queue.get(timeout=30) for _ in workers]
        for process in workers:
            process.join(10)
        tokens = store.load().tokens
        assert [failures for _, failures in seen] == [0, 0, 0, 0]
        assert tokens.refresh_seq == server.refreshes, "each refresh made a generation, and there was no other"
        assert server.refreshes >= 2
        assert server.alarms() == 0
