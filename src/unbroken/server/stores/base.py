"""What the server needs of a store: the protocol, its values and its errors; how one is called, and wrapped.

1. A store reads rows and replaces them. It contains no rule of rotation but R1, as one conditional write, because each
   refresh needs it. The contract suite compares it with ``rotation.present``.
2. The methods are coroutines. Those of a ``blocking`` store never suspend, so they run without an event loop; in one,
   slow methods run in a worker thread (``run_in_worker``), and fast ones at once, within ``short_timeout``
   (``run_inline``): in a thread only if another process locks the store. A store that awaits needs neither.
3. A store whose driver can both block and await asks ``in_sync_context`` in each call which of them is wanted.
4. *Durably* means: on the disk when the method returns. All other writes may be lost in a crash (rotation heals that).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Concatenate, Literal, NamedTuple, ParamSpec, Protocol, TypeVar

from unbroken._concurrency import in_sync_context, run_sync
from unbroken.errors import StoreUnavailable
from unbroken.server.core.rotation import Policy, PresentedToken, SessionBinding, SessionFacts, SessionRow
from unbroken.server.keys.keyring import KeyRecord
from unbroken.server.worker_pool import STORE_POOL

__all__ = [
    "COMPARED_FIELDS",
    "KEY_FILE_SUFFIX",
    "MAX_TRIMMED_SESSIONS",
    "Account",
    "DatabaseLocked",
    "Notifications",
    "SessionStore",
    "StoreProblem",
    "StoreWrapper",
    "clock_problems",
    "in_worker",
    "inline",
    "run_in_worker",
    "run_inline",
]

KEY_FILE_SUFFIX = ".key"  # of the file with the encryption key, beside a store that is a file
MAX_CLOCK_SKEW_SECONDS = 2.0  # a difference of clocks that changes no decision
MAX_TRIMMED_SESSIONS = 100  # at a time
# Each change of a row changes one of these fields, or revokes it: ``compare_and_set`` need not compare the others.
COMPARED_FIELDS = ("generation", "branch", "label", "rotated_at", "idempotency_hash", "first_used_branch", "shared")


class DatabaseLocked(StoreUnavailable):
    """Another process writes for longer than this operation may wait. Nothing was written."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account of the embedded account table. ``name`` is folded for comparison, ``shown`` is the name as entered.

    ``subject`` is what tokens call the account; empty means ``shown``. ``scope`` are the words that it may have.
    """

    name: str
    shown: str
    password_hash: str = field(repr=False)
    created_at: float = 0.0
    subject: str = ""
    scope: str = ""


class StoreProblem(NamedTuple):
    """A fault of a store's server or settings that loses sessions or changes decisions, for ``unbroken check``."""

    code: Literal["clock", "durability", "eviction", "memory"]
    message: str
    in_production_only: bool = False


class Notifications(Protocol):
    """A subscription to what a store tells its other processes. One thread waits, any thread may close."""

    def wait(self, timeout: float) -> None:
        """Return when a session was revoked or a key changed, or after *timeout* seconds.

        Raise StoreUnavailable if the subscription broke; the next call subscribes again.
        """

    def close(self) -> None:
        """End a ``wait`` in another thread, and close the connection."""


class SessionStore(Protocol):
    """Sessions, keys, accounts and markers. Times are seconds since the Unix epoch.

    Each method raises StoreUnavailable if the store does not respond in time, and ConfigurationError if an operator
    must act first. A method that only reads may be called at any time by any number of threads and tasks.

    A store that is a file has an attribute ``encryption_key_file``: the path of the file with its encryption key, which
    is made at first start (``encrypted_keys.py`` rule 5). None: the keys are in memory, and need none. Without the
    attribute, the operator sets an encryption key.
    """

    blocking: bool

    def short_timeout(self) -> AbstractContextManager[object]:
        """Within this block, the thread waits for other writers milliseconds instead of seconds (rule 2).

        What takes longer raises DatabaseLocked. Called only for ``blocking`` stores.
        """

    async def insert(self, row: SessionRow) -> None:
        """Store a new session, durably. Also delete a bounded number of sessions that expired before ``created_at``."""

    async def read(self, key: bytes) -> SessionRow | None:
        """Return the row with this key, or None."""

    async def rotate(self, key: bytes, token: PresentedToken, now: float, policy: Policy) -> bool:
        """Replace the row by what ``rotation.rotate`` returns, in one atomic step, if R1 allows it; return whether.

        R1 allows it for an active row for which ``rotation.has_key`` and ``rotation.may_rotate`` return True.
        """

    async def rotate_returning(
        self, key: bytes, token: PresentedToken, now: float, policy: Policy, binding: SessionBinding | None
    ) -> SessionFacts | None:
        """Rotate a row that was not read, if its ``binding`` is *binding* (None: any); return its ``facts``.

        Return None where ``rotate`` returns False. A store that cannot do this in one statement reads the row first.
        """

    async def compare_and_set(self, before: SessionRow, after: SessionRow, announce_until: float) -> bool:
        """Replace *before* by *after*; return False if the row is another one now.

        If this revokes the session: durably, and announce it to other processes until *announce_until*.
        """

    async def revoke(
        self,
        now: float,
        reason: str,
        announce_until: float,
        *,
        sid: str | None = None,
        subject: str | None = None,
        except_sid: str | None = None,
    ) -> list[str]:
        """Revoke, durably, the active sessions with this sid and this subject, where given, but not *except_sid*.

        Return their sids, and announce them to other processes until *announce_until*. Expired sessions stay as they
        are. With neither *sid* nor *subject*, all active sessions.
        """

    async def trim(self, subject: str, keep: int, now: float, reason: str, announce_until: float) -> list[str]:
        """Revoke, durably, those sessions of *subject* beyond *keep* that were used least recently.

        Expired ones count until they were trimmed. The work does not grow with the number of sessions: at most
        ``MAX_TRIMMED_SESSIONS`` of those that expire first are revoked at a time. Two calls at once leave *keep*.
        Return the sids of those that were active, and announce them.
        """

    async def record_first_use(self, sid: str, generation: int, branch: int) -> None:
        """Set ``first_used_branch`` to *branch* if the session is at *generation* and ``first_used_branch`` is None."""

    async def sessions(self, subject: str | None = None, sid: str | None = None) -> list[SessionRow]:
        """Return all sessions, or those of *subject*, or the one with this *sid*; last used first."""

    async def page(
        self, subject: str | None, limit: int, cursor: str, *, include_revoked: bool
    ) -> tuple[list[SessionRow], str]:
        """Return at most *limit* sessions after *cursor*, and that of the next page; "" is before the first and
        after the last.

        They come in an order that no refresh changes. A page may be short, and one that is not the last may be empty.
        Without *include_revoked*, revoked sessions may be left out. Raise ValueError for a malformed cursor.
        """

    async def revocations(self, after: int) -> tuple[int, list[tuple[str, float]]]:
        """Return a new cursor, and the sids revoked since the cursor *after*, each with its ``announce_until``.

        0 is a cursor before everything. A cursor that is not of this store returns all revocations once more.
        """

    async def keys(self) -> list[KeyRecord]:
        """Return all keys, oldest first."""

    async def save_keys(self, records: Sequence[KeyRecord], *, first: bool = False) -> None:
        """Store keys, durably, each merged with its stored version (``KeyRecord.merged_with``).

        *first*: store nothing if the store has keys.
        """

    async def accounts(self) -> list[Account]:
        """Return all accounts, by name."""

    async def account(self, name: str) -> Account | None:
        """Return the account with this folded name, or None."""

    async def add_account(self, account: Account) -> bool:
        """Store a new account, durably; return False if its name is taken."""

    async def change_account(
        self, name: str, password_hash: str | None, *, expected: str | None = None, scope: str | None = None
    ) -> bool:
        """Replace the password hash, or delete the account (None), durably; and replace its *scope*, if it is given.

        Return False if the account does not exist, or if *expected* is given and its hash is another one.
        """

    async def advance_marker(self, key: bytes, now: float, step: float, max_ahead: float) -> float:
        """Set the marker *key* to min(max(marker, *now*) + *step*, *now* + *max_ahead*) in one atomic step; return it.

        Also delete a bounded number of markers that are past.
        """

    async def read_markers(self, keys: Sequence[bytes]) -> list[float]:
        """Return the marker of each key, in order; 0.0 where there is no marker."""

    async def clear_markers(self, keys: Sequence[bytes]) -> None:
        """Delete the markers of *keys*."""

    def notifications(self) -> Notifications | None:
        """Return a subscription to revocations and new keys; None if the store must be polled."""

    async def health(self) -> None:
        """Return if the store responds. Raise StoreUnavailable or ConfigurationError."""

    async def problems(self) -> list[StoreProblem]:
        """Return what is wrong with the store's server or settings; nothing is changed."""

    async def aclose(self) -> None:
        """Close what belongs to the running event loop, then close the store."""

    def close(self) -> None:
        """Close the store's connections. A later operation may open new ones."""


class StoreWrapper:
    """A store around the store *inside*. A subclass defines the methods that differ."""

    def __init__(self, inside: SessionStore) -> None:
        self.inside = inside

    def __repr__(self) -> str:
        return repr(self.inside)

    def __getattr__(self, name: str) -> Any:
        if name == "inside":  # a copy under construction has no attributes yet
            raise AttributeError(name)
        found = getattr(self.inside, name)
        self.__dict__[name] = found  # the next access costs nothing
        return found


def clock_problems(store_time: float, asked_at: float, received_at: float) -> list[StoreProblem]:
    """Return a problem if the store's clock, read between *asked_at* and *received_at*, differs from this host's."""
    skew = store_time - min(max(store_time, asked_at), received_at)
    if abs(skew) <= MAX_CLOCK_SKEW_SECONDS:
        return []
    direction = "ahead of" if skew > 0 else "behind"
    return [StoreProblem("clock", f"the store's clock is {abs(skew):.0f} s {direction} this host's: use NTP")]


# ---- how a store is called (rule 2) ----------------------------------------------------------------------------------

P = ParamSpec("P")
T = TypeVar("T")


class MayBlock(Protocol):
    """A store that says whether its operations block."""

    blocking: bool


async def run_inline(store: SessionStore, flow: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Return the result of *flow*, which uses *store* and rarely waits.

    A flow that found the database locked has written nothing: it runs again, in a worker thread.
    """
    if not store.blocking or in_sync_context():
        return await flow()
    try:
        with store.short_timeout():
            return await flow()  # over a blocking store it never suspends: no other task runs within the timeout
    except DatabaseLocked:
        return await run_in_worker(store, flow)


async def run_in_worker(store: MayBlock, flow: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Return the result of *flow*, which waits for the disk or for other processes: off the loop if *store* blocks."""
    if not store.blocking or in_sync_context():
        return await flow()
    return await STORE_POOL.run(lambda: run_sync(flow()))


class _HasStore(Protocol):
    @property
    def store(self) -> SessionStore:
        """The store that the object's operations use."""


S = TypeVar("S", bound=_HasStore)
Method = Callable[Concatenate[S, P], Coroutine[Any, Any, T]]


def inline(method: Method[S, P, T]) -> Method[S, P, T]:
    """Make *method*, which rarely waits, an operation of an object with a ``store`` (rule 2)."""

    @wraps(method)
    async def operation(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await run_inline(self.store, lambda: method(self, *args, **kwargs))

    return operation


def in_worker(method: Method[S, P, T]) -> Method[S, P, T]:
    """Make *method*, which waits for the disk, an operation of an object with a ``store`` (rule 2)."""

    @wraps(method)
    async def operation(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await run_in_worker(self.store, lambda: method(self, *args, **kwargs))

    return operation
