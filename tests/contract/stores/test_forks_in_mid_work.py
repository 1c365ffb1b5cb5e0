"""A fork while another thread of the parent holds a lock of ours: the child is not stuck, whatever it does first."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from argon2 import PasswordHasher

from tests.support.processes import ends_well, fork
from unbroken._bounded_cache import BoundedCache
from unbroken._concurrency import ForkFreeLock
from unbroken.errors import TryLater
from unbroken.server import Accounts, MemorySessionStore, Sessions
from unbroken.server.freshness import RevocationListener
from unbroken.server.stores import open_store

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


@contextmanager
def held(work: Callable[[Callable[[], None]], object]) -> Iterator[None]:
    """Another thread runs *work*, and is in the middle of it: it has called the function that it was given."""
    inside, go_on, parent = threading.Event(), threading.Event(), os.getpid()

    def pause() -> None:
        inside.set()
        if os.getpid() == parent:
            go_on.wait(30)

    thread = threading.Thread(target=work, args=(pause,))
    thread.start()
    assert inside.wait(10)
    try:
        yield
    finally:
        go_on.set()
        thread.join()


def test_a_lock_that_is_held_is_free_in_the_child() -> None:
    lock = ForkFreeLock()

    def hold(pause: Callable[[], None]) -> None:
        with lock:
            pause()

    def use() -> bool:
        with lock:
            return True

    with held(hold):
        assert ends_well(fork(use))
    assert use()


def test_a_cache_that_is_being_filled() -> None:
    class Slow(BoundedCache[int, int]):
        pause: Callable[[], None] | None = None

        def popitem(self, last: bool = True) -> tuple[int, int]:
            if self.pause is not None:
                self.pause()
            return super().popitem(last)

    cache = Slow(1)
    cache.put(0, 0)

    def fill(pause: Callable[[], None]) -> None:
        cache.pause = pause
        cache.put(1, 1)

    def use() -> bool:
        cache.pause = None
        cache.put(2, 2)
        return 2 in cache

    with held(fill):
        assert ends_well(fork(use))


def test_a_store_in_memory_that_is_being_changed() -> None:
    store = MemorySessionStore()
    sessions = Sessions(store, issuer="https://id.example.com")
    token = sessions.create("ada").refresh_token or ""

    def change(pause: Callable[[], None]) -> None:
        with store._lock:
            pause()

    with held(change):
        assert ends_well(fork(lambda: sessions.refresh(token).refresh_seq == 1))
    assert sessions.refresh(token).refresh_seq == 1


def test_accounts_whose_first_hash_is_being_computed() -> None:
    class Slow(PasswordHasher):
        pause: Callable[[], None] | None = None

        def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
            if self.pause is not None:
                self.pause()
            return super().hash(password, salt=salt)

    hasher = Slow(time_cost=1, memory_cost=8, parallelism=1)
    accounts = Accounts(MemorySessionStore(), hasher)
    accounts.add("ada", "correct horse")

    def log_in(pause: Callable[[], None]) -> None:
        hasher.pause = pause
        accounts.authenticate("ada", "correct horse")

    def use() -> bool:
        hasher.pause = None
        return accounts.authenticate("ada", "correct horse") == "ada"

    with held(log_in):
        assert ends_well(fork(use))


def test_a_listener_that_is_being_started() -> None:
    pauses: list[Callable[[], None]] = []

    class Cache:
        async def refresh(self) -> None:
            """Nothing."""

    def subscribe() -> None:
        while pauses:
            pauses.pop()()

    cache = Cache()
    listener = RevocationListener(subscribe, cache.refresh)

    def start(pause: Callable[[], None]) -> None:
        pauses.append(pause)
        listener.start()

    def use() -> bool:
        pauses.clear()
        listener.start()
        return True

    with held(start):
        assert ends_well(fork(use))


def test_the_runtime_of_django_that_is_being_made(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support import django_project  # noqa: F401  # it sets Django up
    from unbroken.django import runtime

    made: list[Callable[[], Any]] = []

    def new_runtime() -> Any:
        return made.pop()()

    monkeypatch.setattr(runtime, "_runtimes", [])
    monkeypatch.setattr(runtime, "_new_runtime", new_runtime)

    def make(pause: Callable[[], None]) -> None:
        made.append(pause)
        runtime.runtime()

    def use() -> bool:
        made.append(lambda: "made")
        return bool(runtime.runtime() == "made")

    with held(make):
        assert ends_well(fork(use))


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgres", "redis"])
def test_a_server_that_is_forked_at_any_moment(kind: str, request: pytest.FixtureRequest, tmp_path: Any) -> None:
    """Threads of the parent refresh, verify and log in all the time."""
    urls = {"memory": lambda: "memory:", "sqlite": lambda: f"sqlite:///{tmp_path}/s.db"}
    store = open_store(urls[kind]() if kind in urls else request.getfixturevalue(kind).url)
    sessions, ended = Sessions(store, issuer="https://id.example.com"), threading.Event()

    def use(times: int = 2) -> bool:
        tokens = sessions.create("ada")
        for _ in range(times):
            tokens = sessions.refresh(tokens.refresh_token or "")
            sessions.verify(tokens.access_token)
        return True

    def go_on() -> None:
        while not ended.is_set():
            try:
                use(1)
            except TryLater:
                continue  # the database has had too many of us

    threads = [threading.Thread(target=go_on) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(150 if request.config.getoption("--chaos-full") else 8):
            assert ends_well(fork(use))
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        store.close()
    assert use()
