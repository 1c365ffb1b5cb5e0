"""The rules of a client's session: the client's heart.

    1. A token in good time is used as it is. An ageing one is renewed behind the request, an old one before it.
    2. A challenge to an older token than the current one is answered with the current one, without an exchange.
    3. Whoever renews is alone, looks again first, and adopts what another has done.
    4. The attempt id is stored before the exchange is sent, and sent again with every try, also by the next process.
    5. New tokens are stored before anybody uses them, and only over the record they were asked for.
    6. The session is over only on a definite answer, and only if nobody has stored other tokens meanwhile.
       Everything else means try later, and loses nothing.
    7. A store that was set back to older tokens of the same login gets the newer ones again, from whoever has them.
    8. Login and logout change the epoch at once, without waiting. A renewal of an older epoch can no longer write,
       its late tokens are revoked, and whatever waited for it is never sent for the new epoch.

The rules await nothing but their port, so that the same lines run blocking, and in a simulation that tries every
interleaving with losses, crashes and thieves. No clock, no randomness, no I/O here.
"""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, assert_never

from unbroken.client.core.events import ClientEvent, LateTokensDiscarded, SessionEnded, TokensAdopted, TokensRefreshed
from unbroken.client.core.record import StoredSession
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
    """The exchange was refused for good: the refresh token is dead, for *reason*."""

    reason: str


@dataclass(frozen=True, slots=True)
class Indeterminate:
    """The exchange brought no answer that settles anything.

    ``lost``: it may have reached the server. ``retry_after``: what the server asked for, in seconds. ``again``: whether
    it helps to ask once more now.
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
        """Seconds since the Unix epoch."""

    def new_idempotency_key(self) -> str:
        """A fresh random id for one renewal."""

    def emit(self, event: ClientEvent) -> None:
        """Takes note of *event*; must not fail."""

    def lock(self) -> AbstractAsyncContextManager[None]:
        """Held by one renewal at a time among all who share the store."""

    def load(self) -> Awaitable[StoredSession]:
        """The stored record."""

    def save(self, record: StoredSession, expected: StoredSession) -> Awaitable[bool]:
        """Compare-and-set; see ``Store.save``."""

    def send_refresh(self, tokens: Tokens, attempt: str) -> Awaitable[RefreshOutcome]:
        """One refresh request on the wire (RFC 6749 §6), bounded in time.

        It is sent only while ``alone`` certainly holds for as long as it may take: a holder who was asleep and lost
        the lock would present a token that others have spent meanwhile, and look like a thief.
        """

    def revoke(self, tokens: Tokens) -> Awaitable[bool]:
        """Asks the server to end the session of *tokens*; whether it said yes. Must not raise."""

    def pause(self, seconds: float) -> Awaitable[None]:
        """Waits."""


# Seconds to wait before the second and the third try of one renewal. An answer that was lost is asked for again at
# once: a server that rotates strictly accepts a repetition only shortly after, if at all.
RETRY_PAUSES_SECONDS = (0.2, 1.0)
MAX_RETRY_AFTER_SECONDS = 2.0  # a longer Retry-After than this is the caller's to wait for


async def refresh(port: Port, seen: Tokens) -> Tokens:
    """Tokens newer than *seen*, exchanged or adopted. Raises SessionOver, TryLater or BadResponse."""
    async with port.lock():
        record = await _start_refresh(port, seen)
        while adopted := newer_than(seen, record):
            if not adopted.expired(port.now()):
                port.emit(TokensAdopted(adopted.version))
                return adopted
            seen, record = adopted, await _start_refresh(port, adopted)
        if not seen.refresh_token:
            return await _end_session(port, seen, "no_refresh_token")
        answer, tries = await _send_with_retries(port, seen, record.idempotency_key or "")
        match answer:
            case TokenResponse():
                return await _save_response(port, record, seen, answer, tries)
            case GrantRejected():
                return await _end_session(port, seen, answer.reason)
            case Indeterminate(cause=BadResponse() as wrong) if not answer.may_retry:
                raise wrong
            case Indeterminate():
                raise TryLater(answer.why, retry_after=answer.retry_after) from answer.cause
            case _:
                assert_never(answer)


def newer_than(seen: Tokens, record: StoredSession) -> Tokens | None:
    """The tokens that have replaced *seen*; None while *seen* are the newest. Raises SessionOver if they are gone.

    A store that holds older tokens of the same login than *seen* was set back; they are not current.
    """
    if record.tokens is None:
        raise SessionOver(record.over or "logged_out")
    if record.epoch != seen.epoch:
        raise SessionOver("other_login")
    return record.tokens if record.version > seen.version else None


async def log_in(port: Port, granted: TokenResponse) -> Tokens:
    """Stores *granted* as a new login, over whatever was there. Never waits for a renewal."""
    record = await port.load()
    while True:
        epoch = _epoch_after(record, port.now())
        fresh = tokens_from_response(granted, port.now(), max(record.version + 1, epoch), epoch)
        if await port.save(_stored(fresh), record):
            return fresh
        record = await port.load()


async def log_out(port: Port, held: Tokens | None = None) -> tuple[Tokens | None, int, bool]:
    """Forgets the tokens first, then tells the server: what it forgot, the new epoch, whether the server said yes.

    *held* are the tokens in memory: the server is told of them even if the store cannot be written (StoreUnavailable).
    """
    try:
        record, tokens = await _clear_tokens(port)
    except TryLater:
        if held is not None:
            await port.revoke(held)
        raise
    epoch = _epoch_after(record, port.now())
    if tokens is None:
        return None, epoch, False
    return tokens, epoch, await port.revoke(tokens)


async def _clear_tokens(port: Port) -> tuple[StoredSession, Tokens | None]:
    """Takes the tokens out of the store: the record that it replaced, and the last tokens that stood there.

    A store that wrote, lost the answer and asked again says no: then the tokens are gone at the second look.
    """
    tokens: Tokens | None = None
    while True:
        record = await port.load()
        tokens = record.tokens or tokens
        if await port.save(_without_tokens(record, "logged_out", _epoch_after(record, port.now())), record):
            return record, tokens


def _epoch_after(record: StoredSession, now: float) -> int:
    return max(record.epoch + 1, int(now * 1000))


def tokens_from_response(
    granted: TokenResponse, now: float, version: int, epoch: int, before: Tokens | None = None
) -> Tokens:
    """*granted* as it is stored. What the server left out stays as it was *before* (RFC 6749 §6)."""
    return Tokens(
        access_token=granted.access_token,
        refresh_token=granted.refresh_token or (before.refresh_token if before else None),
        expires_in=granted.expires_in,
        received_at=now if granted.received_at is None else granted.received_at,
        refresh_expires_in=granted.refresh_expires_in,
        refresh_seq=granted.refresh_seq,
        scope=granted.scope or (before.scope if before else ""),
        token_type=granted.token_type,
        version=version,
        epoch=epoch,
    )


async def _start_refresh(port: Port, seen: Tokens) -> StoredSession:
    """The stored record: with an attempt id in it, its own or one that a crashed process left, if *seen* stand."""
    while True:
        record = await port.load()
        set_back = record.version < seen.version
        if not seen.refresh_token or newer_than(seen, record) or (record.idempotency_key and not set_back):
            return record
        begun = StoredSession(seen.version, seen.epoch, seen, port.new_idempotency_key())
        if await port.save(begun, record):
            return begun


async def _send_with_retries(port: Port, tokens: Tokens, attempt: str) -> tuple[RefreshOutcome, int]:
    """The server's answer, after at most three tries, each with the same attempt id, and how many it took."""
    answer = await port.send_refresh(tokens, attempt)
    for tries, pause in enumerate(RETRY_PAUSES_SECONDS, start=1):
        if (
            not isinstance(answer, Indeterminate)
            or not answer.may_retry
            or answer.retry_after > MAX_RETRY_AFTER_SECONDS
        ):
            return answer, tries
        await port.pause(0.0 if answer.lost and tries == 1 else max(pause, answer.retry_after))
        answer = await port.send_refresh(tokens, attempt)
    return answer, len(RETRY_PAUSES_SECONDS) + 1


async def _save_response(port: Port, record: StoredSession, seen: Tokens, granted: TokenResponse, tries: int) -> Tokens:
    """Stores what was granted for *seen*, unless the session has moved on. Raises SessionOver if it is gone."""
    while True:
        fresh = tokens_from_response(granted, port.now(), record.version + 1, seen.epoch, seen)
        if not _is_newer(fresh, seen):
            raise TryLater("the server answered with tokens that are not newer than the stored ones")
        if await port.save(_stored(fresh), record):
            port.emit(TokensRefreshed(fresh.version, tries=tries))
            return fresh
        record = await port.load()
        if record.tokens is None or record.epoch != seen.epoch:
            port.emit(LateTokensDiscarded(seen.version))
            await port.revoke(fresh)
        if (stored := newer_than(seen, record)) and not _is_newer(fresh, stored):
            port.emit(LateTokensDiscarded(seen.version))
            return stored


async def _end_session(port: Port, seen: Tokens, reason: str) -> Tokens:
    """Clears the store and raises SessionOver, or gives the tokens that a sibling has stored meanwhile."""
    while True:
        record = await port.load()
        if stored := newer_than(seen, record):
            port.emit(TokensAdopted(stored.version))
            return stored
        if await port.save(_without_tokens(record, reason, record.epoch), record):
            port.emit(SessionEnded(seen.version, reason=reason))
            raise SessionOver(reason)


def _is_newer(fresh: Tokens, stored: Tokens | None) -> bool:
    """Whether *fresh* may replace *stored*: by the server's own count where there is one."""
    if stored is None or fresh.refresh_seq is None or stored.refresh_seq is None:
        return stored is None or fresh.version > stored.version
    return fresh.refresh_seq > stored.refresh_seq


def _stored(tokens: Tokens) -> StoredSession:
    return StoredSession(tokens.version, tokens.epoch, tokens)


def _without_tokens(record: StoredSession, why: str, epoch: int) -> StoredSession:
    return StoredSession(record.version + 1, epoch, None, over=why)
