"""The rules of a refresh, a login and a logout, over a port. Pure.

1. One refresh runs at a time among all clients of a store. It loads the record again under the lock, and adopts what
   another client has stored meanwhile.
2. The idempotency key is stored before the refresh is sent, and sent again with every retry, also by the next process.
3. A response that was lost is requested again at once: a server that rotates strictly accepts a repetition only shortly
   after, if at all.
4. New tokens are stored before anyone uses them, and only over the record that they were requested for. If the session
   has moved on meanwhile, they are discarded; after a logout or another login they are revoked as well.
5. A session is over only on a definite response, and only if no client has stored other tokens meanwhile. Everything
   else means "try later", and loses nothing.
6. A store that was set back to older tokens of the same login gets the newer ones again, from the client that has them.
7. A login and a logout change the epoch at once, without waiting for a refresh. A refresh of an older epoch can no
   longer write: that is how a logout wins over a refresh under way.

When a refresh is due is stated in schedule.py; what follows a challenge, in refresh_coordinator.py. The rules await
nothing but their port: the same lines run blocking, and in a simulation that tries every interleaving with losses,
crashes and thieves. No clock, no randomness, no I/O here.
"""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, assert_never

from unbroken.client.core.events import ClientEvent, LateTokensDiscarded, SessionEnded, TokensAdopted, TokensRefreshed
from unbroken.client.core.token_store import StoredSession
from unbroken.errors import BadResponse, SessionOver, TryLater
from unbroken.tokens import TokenResponse, Tokens

__all__ = [
    "GrantRejected",
    "Indeterminate",
    "Port",
    "RefreshOutcome",
    "log_in",
    "log_out",
    "newer_than",
    "refresh",
    "tokens_from_response",
]


@dataclass(frozen=True, slots=True)
class GrantRejected:
    """The server rejected the refresh token for good, for *reason*."""

    reason: str


@dataclass(frozen=True, slots=True)
class Indeterminate:
    """A refresh without a definite outcome.

    ``lost``: the request may have reached the server. ``retry_after``: seconds that the server asked for.
    ``may_retry``: whether sending it again now can help.
    """

    why: str
    lost: bool = False
    retry_after: float = 0.0
    cause: BaseException | None = None
    may_retry: bool = True


RefreshOutcome = TokenResponse | GrantRejected | Indeterminate


class Port(Protocol):
    """What the rules need of the world."""

    def now(self) -> float:
        """Return the seconds since the Unix epoch."""

    def new_idempotency_key(self) -> str:
        """Return a random id for one refresh."""

    def emit(self, event: ClientEvent) -> None:
        """Queue *event* for the listeners. Must not fail."""

    def lock(self) -> AbstractAsyncContextManager[None]:
        """Return the lock that one refresh holds at a time among all clients of the store."""

    def load(self) -> Awaitable[StoredSession]:
        """Return the stored record."""

    def save(self, record: StoredSession, expected: StoredSession) -> Awaitable[bool]:
        """Compare and set, as ``TokenStore.save`` does."""

    def send_refresh(self, tokens: Tokens, idempotency_key: str) -> Awaitable[RefreshOutcome]:
        """Send one refresh request (RFC 6749 §6), bounded in time.

        It is sent only while the lock is certainly held: a holder that was asleep and lost the lock would present a
        token that others have used meanwhile, and look like a thief.
        """

    def revoke(self, tokens: Tokens) -> Awaitable[bool]:
        """Revoke the session of *tokens* at the server; return whether the server confirmed it. Must not raise."""

    def pause(self, seconds: float) -> Awaitable[None]:
        """Wait."""


RETRY_PAUSES_SECONDS = (0.2, 1.0)  # before the second and the third try of one refresh
MAX_RETRY_AFTER_SECONDS = 2.0  # a longer Retry-After is for the caller to wait for


# ---- refresh ---------------------------------------------------------------------------------------------------------


async def refresh(port: Port, seen: Tokens) -> Tokens:
    """Return tokens newer than *seen*: refreshed, or adopted from another client of the store.

    Raise SessionOver, TryLater or BadResponse.
    """
    async with port.lock():  # rule 1
        record = await _start_refresh(port, seen)
        while adopted := newer_than(seen, record):
            if not adopted.expired(port.now()):
                port.emit(TokensAdopted(adopted.version))
                return adopted
            seen, record = adopted, await _start_refresh(port, adopted)
        if not seen.refresh_token:
            return await _end_session(port, seen, "no_refresh_token")
        outcome, tries = await _send_with_retries(port, seen, record.idempotency_key or "")
        match outcome:
            case TokenResponse():
                return await _save_response(port, record, seen, outcome, tries)
            case GrantRejected():
                return await _end_session(port, seen, outcome.reason)
            case Indeterminate(cause=BadResponse() as error) if not outcome.may_retry:
                raise error
            case Indeterminate():
                raise TryLater(outcome.why, retry_after=outcome.retry_after) from outcome.cause  # rule 5
            case _:
                assert_never(outcome)


def newer_than(seen: Tokens, record: StoredSession) -> Tokens | None:
    """Return the tokens of *record* if they have replaced *seen*, else None. Raise SessionOver if they are gone."""
    if record.tokens is None:
        raise SessionOver(record.over or "logged_out")
    if record.epoch != seen.epoch:
        raise SessionOver("other_login")  # rule 7
    return record.tokens if record.version > seen.version else None  # rule 6: older ones do not replace them


async def _start_refresh(port: Port, seen: Tokens) -> StoredSession:
    """Return the stored record; if it has *seen*, with an idempotency key: a new one, or one that a crash left."""
    while True:
        record = await port.load()
        was_set_back = record.version < seen.version
        if not seen.refresh_token or newer_than(seen, record) or (record.idempotency_key and not was_set_back):
            return record
        key, device_token = port.new_idempotency_key(), record.device_token
        started = StoredSession(seen.version, seen.epoch, seen, key, device_token=device_token)
        if await port.save(started, record):  # rules 2 and 6
            return started


async def _send_with_retries(port: Port, tokens: Tokens, idempotency_key: str) -> tuple[RefreshOutcome, int]:
    """Return the outcome after at most three tries, each with the same idempotency key (rule 2), and their number."""
    outcome = await port.send_refresh(tokens, idempotency_key)
    for tries, pause in enumerate(RETRY_PAUSES_SECONDS, start=1):
        if not isinstance(outcome, Indeterminate) or not outcome.may_retry:
            return outcome, tries
        if outcome.retry_after > MAX_RETRY_AFTER_SECONDS:
            return outcome, tries
        await port.pause(0.0 if outcome.lost and tries == 1 else max(pause, outcome.retry_after))  # rule 3
        outcome = await port.send_refresh(tokens, idempotency_key)
    return outcome, len(RETRY_PAUSES_SECONDS) + 1


async def _save_response(
    port: Port, record: StoredSession, seen: Tokens, response: TokenResponse, tries: int
) -> Tokens:
    """Store the tokens of *response* in place of *seen*, or return newer ones. Raise SessionOver if it is gone."""
    while True:
        fresh = tokens_from_response(response, port.now(), record.version + 1, seen.epoch, seen)
        if not _is_newer(fresh, seen):
            raise TryLater("the server responded with tokens that are not newer than the stored ones")
        if await port.save(_with_tokens(fresh, record.device_token), record):  # rule 4
            port.emit(TokensRefreshed(fresh.version, tries=tries))
            return fresh
        record = await port.load()
        if record.tokens is None or record.epoch != seen.epoch:
            port.emit(LateTokensDiscarded(seen.version))
            await port.revoke(fresh)  # rule 4; newer_than raises now
        if (stored := newer_than(seen, record)) and not _is_newer(fresh, stored):
            port.emit(LateTokensDiscarded(seen.version))
            return stored


async def _end_session(port: Port, seen: Tokens, reason: str) -> Tokens:
    """Clear the store and raise SessionOver, or return the tokens that another client has stored meanwhile (rule 5)."""
    while True:
        record = await port.load()
        if stored := newer_than(seen, record):
            port.emit(TokensAdopted(stored.version))
            return stored
        if await port.save(_without_tokens(record, reason, record.epoch), record):
            port.emit(SessionEnded(seen.version, reason=reason))
            raise SessionOver(reason)


# ---- login and logout ------------------------------------------------------------------------------------------------


async def log_in(port: Port, response: TokenResponse) -> Tokens:
    """Store the tokens of *response* as a new login, in place of any other. Never waits for a refresh (rule 7)."""
    record = await port.load()
    while True:
        epoch = _next_epoch(record, port.now())
        fresh = tokens_from_response(response, port.now(), max(record.version + 1, epoch), epoch)
        if await port.save(_with_tokens(fresh, response.device_token or record.device_token), record):
            return fresh
        record = await port.load()


async def log_out(port: Port, held: Tokens | None = None) -> tuple[Tokens | None, int, bool]:
    """Clear the tokens first, then revoke the session at the server (rule 7).

    Return the cleared tokens, the new epoch, and whether the server confirmed. *held* are the tokens in memory: they
    are revoked even if the store cannot be written, which raises StoreUnavailable.
    """
    try:
        record, tokens = await _clear_tokens(port)
    except TryLater:
        if held is not None:
            await port.revoke(held)
        raise
    epoch = _next_epoch(record, port.now())
    if tokens is None:
        return None, epoch, False
    return tokens, epoch, await port.revoke(tokens)


async def _clear_tokens(port: Port) -> tuple[StoredSession, Tokens | None]:
    """Take the tokens out of the store. Return the record that was replaced, and the last tokens that it had.

    The loop remembers the tokens: if a save succeeds but its response is lost, the store retries it and returns False,
    and the next load no longer has them.
    """
    tokens: Tokens | None = None
    while True:
        record = await port.load()
        tokens = record.tokens or tokens
        if await port.save(_without_tokens(record, "logged_out", _next_epoch(record, port.now())), record):
            return record, tokens


def _next_epoch(record: StoredSession, now: float) -> int:
    return max(record.epoch + 1, int(now * 1000))  # rule 3 of token_store.py


# ---- records and tokens ----------------------------------------------------------------------------------------------


def tokens_from_response(
    response: TokenResponse, now: float, version: int, epoch: int, before: Tokens | None = None
) -> Tokens:
    """Return *response* as tokens. What the server left out stays as it was *before* (RFC 6749 §6)."""
    return Tokens(
        access_token=response.access_token,
        refresh_token=response.refresh_token or (before.refresh_token if before else None),
        expires_in=response.expires_in,
        received_at=now if response.received_at is None else response.received_at,
        refresh_expires_in=response.refresh_expires_in,
        refresh_seq=response.refresh_seq,
        scope=response.scope or (before.scope if before else ""),
        token_type=response.token_type,
        version=version,
        epoch=epoch,
    )


def _is_newer(fresh: Tokens, stored: Tokens) -> bool:
    """Return whether *fresh* may replace *stored*: by the server's generation number, or else by version."""
    if fresh.refresh_seq is None or stored.refresh_seq is None:
        return fresh.version > stored.version
    return fresh.refresh_seq > stored.refresh_seq


def _with_tokens(tokens: Tokens, device_token: str) -> StoredSession:
    return StoredSession(tokens.version, tokens.epoch, tokens, device_token=device_token)


def _without_tokens(record: StoredSession, reason: str, epoch: int) -> StoredSession:
    return StoredSession(record.version + 1, epoch, None, over=reason, device_token=record.device_token)
