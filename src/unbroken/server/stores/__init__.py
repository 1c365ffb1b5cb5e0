"""Where the server keeps its sessions, and what every store must be able to do.

The rules are not here: a store reads rows and replaces them. One rule, R1, it may carry out by itself, because it is
the one that every refresh needs; the contract suite holds it to ``rotation.present``.

The methods are coroutines. Those of a store over a blocking driver never suspend (``blocking`` is True): they run
without an event loop; where there is one, slow ones are moved to a thread, and quick ones must be brief (``short_timeout``).
Those of a store with two drivers ask ``in_sync_context`` each time which of them is wanted.

A store around another one: it does what that one does, but for what it says itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

from unbroken.errors import ConfigurationError, StoreUnavailable
from unbroken.server.core.rotation import PresentedToken, SessionRow
from unbroken.server.keys.keyring import KeyRecord

__all__ = ["Account", "DatabaseLocked", "Notifications", "SessionStore", "StoreWrapper", "open_store"]


class DatabaseLocked(StoreUnavailable):
    """Another process is writing, for longer than this one may wait here. Nothing was written."""


@dataclass(frozen=True, slots=True)
class Account:
    """One account of the embedded table. ``name`` is folded for comparison, ``shown`` is as it was given."""

    name: str
    shown: str
    password_hash: str = field(repr=False)
    created_at: float = 0.0


class Notifications(Protocol):
    """What a store announces to its other processes, for one thread that listens."""

    def wait(self, timeout: float) -> None:
        """Blocks until a revocation or a key was announced, at most *timeout* seconds. Raises StoreUnavailable when
        nothing can be heard now; the next call tries again.
        """

    def close(self) -> None:
        """Ends a ``wait`` that another thread is in, and lets go of the connection."""


class SessionStore(Protocol):
    """What ``Sessions`` needs. Each method raises StoreUnavailable when the store does not answer in time."""

    blocking: bool

    def short_timeout(self) -> AbstractContextManager[object]:
        """Within it this thread waits some milliseconds for other processes, not seconds: an event loop stands still
        meanwhile. What takes longer raises Busy. Of stores that are not ``blocking`` nobody asks it.
        """

    async def insert(self, row: SessionRow) -> None:
        """Stores a new session, durably; clears away a bounded number of sessions that are long over."""

    async def read(self, key: bytes) -> SessionRow | None:
        """The row with this key."""

    async def rotate(self, key: bytes, token: PresentedToken, now: float, refresh_ttl: float) -> bool:
        """R1 in one step: what ``rotation.rotate`` gives, if the row is alive, at generation, and first_used_branch is null or branch."""

    async def rotate_returning(
        self, key: bytes, token: PresentedToken, now: float, refresh_ttl: float, client_id: str | None
    ) -> SessionRow | None:
        """``rotate``, for a row that was not read yet, if it is of *client_id* (None: any): the row it has become.

        None where ``rotate`` says False. Where one statement cannot do it, it is read first.
        """

    async def compare_and_set(self, before: SessionRow, after: SessionRow, dead_until: float) -> bool:
        """Replaces *before* by *after*; False if the row is another one now.

        If *after* is revoked and *before* was not: durably, and announced to other processes until *dead_until*.
        """

    async def revoke(
        self,
        now: float,
        why: str,
        dead_until: float,
        *,
        sid: str | None = None,
        subject: str | None = None,
        keep: str | None = None,
    ) -> list[str]:
        """Ends, durably, the living sessions with this sid and of this subject (where given), except *keep*.

        Their sids. One that has expired is not among them.
        """

    async def record_first_use(self, sid: str, generation: int, branch: int) -> None:
        """Sets first_used_branch to *branch* where the session's generation is *generation* and first_used_branch is null."""

    async def sessions(self, subject: str | None = None, sid: str | None = None) -> list[SessionRow]:
        """All sessions, or those of *subject*, or the one with this *sid*; newest first."""

    async def revocations(self, after: int) -> tuple[int, list[tuple[str, float]]]:
        """The sids revoked since the cursor *after*, each with how long its access tokens could live; a new cursor."""

    async def keys(self) -> list[KeyRecord]:
        """All keys."""

    async def save_keys(self, records: Sequence[KeyRecord], *, first: bool = False) -> None:
        """Stores keys, durably, each joined with what is there (``KeyRecord.joined``). *first*: only if none are."""

    async def accounts(self) -> list[Account]:
        """All accounts, by name."""

    async def account(self, name: str) -> Account | None:
        """The account with this folded name."""

    async def add_account(self, account: Account) -> bool:
        """Stores a new account; False if the name is taken."""

    async def change_account(self, name: str, password_hash: str | None, *, expected: str | None = None) -> bool:
        """Replaces the password's hash, or removes the account (None); False if there is none, or if it has another
        hash than *expected*.
        """

    async def advance_marker(self, key: bytes, now: float, every: float, most: float) -> float:
        """Moves the time that is kept under *key* to min(max(it, *now*) + *every*, *now* + *most*); the new time.

        In one step, whoever else does so. Clears away a bounded number of times that are past. A crash may forget it.
        """

    async def read_markers(self, keys: Sequence[bytes]) -> list[float]:
        """The time that is kept under each of *keys*; 0.0 where nothing is."""

    async def clear_markers(self, keys: Sequence[bytes]) -> None:
        """Forgets the times that are kept under *keys*."""

    def notifications(self) -> Notifications | None:
        """What this store announces, from now on; None for a store that has to be asked."""

    async def health(self) -> None:
        """Asks the store for the least thing. Raises StoreUnavailable."""

    async def aclose(self) -> None:
        """Lets go of what belongs to the running event loop, then of the store."""

    def close(self) -> None:
        """Lets go of the store."""


def open_store(url: str) -> SessionStore:
    """The store that *url* names: ``sqlite:///file.db`` (relative), ``sqlite:////path/file.db``, ``memory:``,
    ``postgresql://USER:PASSWORD@HOST/DATABASE``, or ``redis://HOST/0`` (also ``rediss://``,
    ``unix://``, ``redis+cluster://A:1,B:2`` and ``rediss+cluster://``).

    Raises ConfigurationError, in one line that says what to do, for any other URL and for a store that cannot be used,
    and StoreUnavailable for one that does not answer.
    """
    kind = url.partition(":")[0].lower()
    if url in ("memory:", "memory://"):
        from unbroken.server.stores.memory import MemorySessionStore  # noqa: PLC0415  # each store only where it is asked for

        return MemorySessionStore()
    if url.startswith("sqlite:///") and len(url) > len("sqlite:///"):
        from unbroken.server.stores.sqlite import SqliteSessionStore  # noqa: PLC0415

        return SqliteSessionStore(url.removeprefix("sqlite:///"))
    if kind in POSTGRES:
        return _opened("postgres", "PostgresSessionStore", url)
    if kind in REDIS:
        return _opened("redis", "RedisSessionStore", url)
    known = "sqlite:///FILE, postgresql://…, redis://… or memory:"
    raise ConfigurationError(f"unknown store {kind + ':' if ':' in url else url.partition('@')[0]!r}: use {known}")


POSTGRES = ("postgresql", "postgres")
REDIS = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster")


def _opened(module: str, name: str, url: str) -> SessionStore:
    """The store with a driver of its own. Raises ConfigurationError when the driver is not installed."""
    try:
        found = import_module(f"unbroken.server.stores.{module}")
    except ModuleNotFoundError as missing:
        raise ConfigurationError(f"this store needs {missing.name}: install 'unbroken[{module}]'") from missing
    store: SessionStore = getattr(found, name)(url)
    return store


class StoreWrapper:
    """All that *inside* has, asked for once and then at hand: what passes through costs nothing."""

    def __init__(self, inside: SessionStore) -> None:
        self.inside = inside

    def __repr__(self) -> str:
        return repr(self.inside)

    def __getattr__(self, name: str) -> Any:
        if name == "inside":  # it is being copied, and has nothing yet
            raise AttributeError(name)
        found = getattr(self.inside, name)
        self.__dict__[name] = found
        return found
