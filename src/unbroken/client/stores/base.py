"""What a token store must be able to do, and what its locks promise."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self

from unbroken.client.core.record import StoredSession

__all__ = ["PERMANENT_LEASE", "Closeable", "Lease", "TokenStore"]


class TokenStore(Protocol):
    """Where the tokens of one session live. Every method blocks, and any thread may call it.

    Each method raises StoreUnavailable if the store cannot be reached, read or written.
    """

    def load(self) -> StoredSession:
        """Return the record; ``StoredSession(over="not_logged_in")`` if there is none."""

    def save(self, record: StoredSession, expected: StoredSession) -> bool:
        """Replace *expected* by *record* in one step, durably. Return False, and write nothing, if another is there."""

    def lock(self, timeout: float) -> AbstractContextManager[Lease | None]:
        """Return the lock that one refresh holds at a time among all that share the store.

        Entering it returns a lease, or None for a lock that cannot be lost. It raises StoreBusy if others hold the lock
        for *timeout* seconds.
        """


class Lease(Protocol):
    """A lock that is held, unless its holder was stopped for too long."""

    def is_held(self) -> bool:
        """Return whether it is certainly held now. Raise StoreUnavailable if that cannot be learnt."""


class _PermanentLease:
    def is_held(self) -> bool:
        return True


PERMANENT_LEASE: Lease = _PermanentLease()


class Closeable:
    """A context manager, sync and async, that closes its object at the end."""

    def close(self) -> None:
        """Close the connections. The next use opens new ones."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Close as ``close`` does."""
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
