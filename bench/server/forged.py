"""A forged refresh token is refused without a call of the store, and for a small part of the cost of a genuine one."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.figure import Figure, in_turns
from unbroken import InvalidGrant
from unbroken.server import Sessions, SqliteSessionStore
from unbroken.server.core.refresh_token import RefreshToken

CALLS = 2_000
CHEAPER = 10.0


class Counting:
    """A wrapper of *store* that counts the calls of each method."""

    def __init__(self, store: Any) -> None:
        self._store, self.calls = store, Counter[str]()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found) or name == "short_timeout":
            return found

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.calls[name] += 1
            return found(*args, **kwargs)

        return counted


def figures() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="unbroken-bench-") as folder:
        store = Counting(SqliteSessionStore(Path(folder) / "bench.db"))
        yield from _figures(Sessions(store), store)
        store.close()


def _figures(sessions: Sessions, store: Counting) -> Iterator[Figure]:
    sessions.create("ada")
    for what, forge in _forgeries(sessions).items():
        sessions.keyring()  # asks the store, as every process does once in a while: not again in what comes now
        store.calls.clear()
        refused = sum(_is_refused(sessions, forge()) for _ in range(CALLS))
        calls, limit = store.calls.total(), "0 of the store"
        said = f"calls of the store by {refused:,} refused ({dict(store.calls) or 'none'})"
        if what == "key unknown":  # another process may have made it: the store is read once a second at most
            yield Figure(f"forged refresh tokens, {what}", calls, said, "at most 4", calls <= 4 and refused == CALLS)
        else:
            yield Figure(f"forged refresh tokens, {what}", calls, said, limit, calls == 0 and refused == CALLS)
    forged = _forgeries(sessions)["wrong MAC"]()
    taken = in_turns({"genuine": _genuine(sessions), "forged": _timed(lambda: _is_refused(sessions, forged))})
    ratio = taken["genuine"] / taken["forged"]
    yield Figure("a genuine refresh, SQLite, without HTTP", taken["genuine"], "µs")
    yield Figure("a forged one", taken["forged"], "µs")
    yield Figure("ratio: genuine to forged", ratio, "x", f"at least {CHEAPER:g}", ratio >= CHEAPER)


def _forgeries(sessions: Sessions) -> dict[str, Callable[[], str]]:
    mac = sessions.keyring().mac(time.time())

    def text(kid: int, secret: bytes) -> str:
        return RefreshToken(secrets.token_bytes(16), 3, 0).encode(kid, secret)

    return {
        "wrong MAC": lambda: text(mac.number, secrets.token_bytes(32)),
        "key unknown": lambda: text(mac.number + 5, secrets.token_bytes(32)),
        "cut short": lambda: text(mac.number, mac.secret)[:-4],
        "no token at all": lambda: secrets.token_urlsafe(40),
    }


def _is_refused(sessions: Sessions, text: str) -> bool:
    try:
        sessions.refresh(text)
    except InvalidGrant:
        return True
    return False


def _timed(work: Callable[[], object]) -> Callable[[], float]:
    def run() -> float:
        began = time.perf_counter()
        for _ in range(CALLS):
            work()
        return (time.perf_counter() - began) / CALLS * 1e6

    return run


def _genuine(sessions: Sessions) -> Callable[[], float]:
    held = [sessions.create("bob").refresh_token or ""]

    def refresh() -> None:
        held[0] = sessions.refresh(held[0]).refresh_token or ""

    return _timed(refresh)
