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

from unbroken.client.core.events import Adopted, Event, LateTokensDropped, Renewed, SessionEnded
from unbroken.client.core.record import Record
from unbroken.errors import BadAnswer, SessionOver, TryLater
from unbroken.tokens import Granted, Tokens

__all__ = ["Answer", "Denied", "Port", "Unanswered", "current_for", "log_in", "log_out", "renew", "tokens_of"]


@dataclass(frozen=True, slots=True)
class Denied:
    """The exchange was refused for good: the refresh token is dead, for *reason*."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The exchange brought no answer that settles anything.

    ``lost``: it may have reached the server. ``retry_after``: what the server asked for, in seconds. ``again``: whether
    it helps to ask once more now.
    """

    why: str
    lost: bool = False
    retry_after: float = 0.0
    cause: BaseException | None = None
    again: bool = True


Answer = Granted | Denied | Unanswered


class Port(Protocol):
    """What the rules need of the world."""

    def now(self) -> float:
        """Seconds since the Unix epoch."""

    def new_attempt(self) -> str:
        """A fresh random id for one renewal."""

    def tell(self, event: Event) -> None:
        """Takes note of *event*; must not fail."""

    def alone(self) -> AbstractAsyncContextManager[None]:
        """Held by one renewal at a time among all who share the store."""

    def load(self) -> Awaitable[Record]:
        """The stored record."""

    def save(self, record: Record, expected: Record) -> Awaitable[bool]:
        """Compare-and-set; see ``Store.save``."""

    def exchange(self, tokens: Tokens, attempt: str) -> Awaitable[Answer]:
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
PAUSES = (0.2, 1.0)
PATIENCE = 2.0  # a longer Retry-After than this is the caller's to wait for


async def renew(port: Port, seen: Tokens) -> Tokens:
    """Tokens newer than *seen*, exchanged or adopted. Raises SessionOver, TryLater or BadAnswer."""
    async with port.alone():
        record = await _begin(port, seen)
        while adopted := current_for(seen, record):
            if not adopted.expired(port.now()):
                port.tell(Adopted(adopted.version))
                return adopted
            seen, record = adopted, await _begin(port, adopted)
        if not seen.refresh_token:
            return await _end(port, seen, "no_refresh_token")
        answer, tries = await _ask(port, seen, record.attempt or "")
        match answer:
            case Granted():
                return await _keep(port, record, seen, answer, tries)
            case Denied():
                return await _end(port, seen, answer.reason)
            case Unanswered(cause=BadAnswer() as wrong) if not answer.again:
                raise wrong
            case Unanswered():
                raise TryLater(answer.why, retry_after=answer.retry_after) from answer.cause
            case _:
                assert_never(answer)


def current_for(seen: Tokens, record: Record) -> Tokens | None:
    """The tokens that have replaced *seen*; None while *seen* are the newest. Raises SessionOver if they are gone.

    A store that holds older tokens of the same login than *seen* was set back; they are not current.
    """
    if record.tokens is None:
        raise SessionOver(record.over or "logged_out")
    if record.epoch != seen.epoch:
        raise SessionOver("other_login")
    return record.tokens if record.version > seen.version else None


async def log_in(port: Port, granted: Granted) -> Tokens:
    """Stores *granted* as a new login, over whatever was there. Never waits for a renewal."""
    record = await port.load()
    while True:
        epoch = _epoch_after(record, port.now())
        fresh = tokens_of(granted, port.now(), max(record.version + 1, epoch), epoch)
        if await port.save(_record_of(fresh), record):
            return fresh
        record = await port.load()


async def log_out(port: Port, held: Tokens | None = None) -> tuple[Tokens | None, int, bool]:
    """Forgets the tokens first, then tells the server: what it forgot, the new epoch, whether the server said yes.

    *held* are the tokens in memory: the server is told of them even if the store cannot be written (StoreUnavailable).
    """
    try:
        record, tokens = await _forget(port)
    except TryLater:
        if held is not None:
            await port.revoke(held)
        raise
    epoch = _epoch_after(record, port.now())
    if tokens is None:
        return None, epoch, False
    return tokens, epoch, await port.revoke(tokens)


async def _forget(port: Port) -> tuple[Record, Tokens | None]:
    """Takes the tokens out of the store: the record that it replaced, and the last tokens that stood there.

    A store that wrote, lost the answer and asked again says no: then the tokens are gone at the second look.
    """
    tokens: Tokens | None = None
    while True:
        record = await port.load()
        tokens = record.tokens or tokens
        if await port.save(_without_tokens(record, "logged_out", _epoch_after(record, port.now())), record):
            return record, tokens


def _epoch_after(record: Record, now: float) -> int:
    return max(record.epoch + 1, int(now * 1000))


def tokens_of(granted: Granted, now: float, version: int, epoch: int, before: Tokens | None = None) -> Tokens:
    """*granted* as it is stored. What the server left out stays as it was *before* (RFC 6749 §6)."""
    return Tokens(
        access_token=granted.access_token,
        refresh_token=granted.refresh_token or (before.refresh_token if before else None),
        lifetime=granted.expires_in,
        received_at=now if granted.received_at is None else granted.received_at,
        refresh_lifetime=granted.refresh_expires_in,
        seq=granted.refresh_seq,
        scope=granted.scope or (before.scope if before else ""),
        token_type=granted.token_type,
        version=version,
        epoch=epoch,
    )


async def _begin(port: Port, seen: Tokens) -> Record:
    """The stored record: with an attempt id in it, its own or one that a crashed process left, if *seen* stand."""
    while True:
        record = await port.load()
        set_back = record.version < seen.version
        if not seen.refresh_token or current_for(seen, record) or (record.attempt and not set_back):
            return record
        begun = Record(seen.version, seen.epoch, seen, port.new_attempt())
        if await port.save(begun, record):
            return begun


async def _ask(port: Port, tokens: Tokens, attempt: str) -> tuple[Answer, int]:
    """The server's answer, after at most three tries, each with the same attempt id, and how many it took."""
    answer = await port.exchange(tokens, attempt)
    for tries, pause in enumerate(PAUSES, start=1):
        if not isinstance(answer, Unanswered) or not answer.again or answer.retry_after > PATIENCE:
            return answer, tries
        await port.pause(0.0 if answer.lost and tries == 1 else max(pause, answer.retry_after))
        answer = await port.exchange(tokens, attempt)
    return answer, len(PAUSES) + 1


async def _keep(port: Port, record: Record, seen: Tokens, granted: Granted, tries: int) -> Tokens:
    """Stores what was granted for *seen*, unless the session has moved on. Raises SessionOver if it is gone."""
    while True:
        fresh = tokens_of(granted, port.now(), record.version + 1, seen.epoch, seen)
        if not _newer(fresh, seen):
            raise TryLater("the server answered with tokens that are not newer than the stored ones")
        if await port.save(_record_of(fresh), record):
            port.tell(Renewed(fresh.version, tries=tries))
            return fresh
        record = await port.load()
        if record.tokens is None or record.epoch != seen.epoch:
            port.tell(LateTokensDropped(seen.version))
            await port.revoke(fresh)
        if (stored := current_for(seen, record)) and not _newer(fresh, stored):
            port.tell(LateTokensDropped(seen.version))
            return stored


async def _end(port: Port, seen: Tokens, reason: str) -> Tokens:
    """Clears the store and raises SessionOver, or gives the tokens that a sibling has stored meanwhile."""
    while True:
        record = await port.load()
        if stored := current_for(seen, record):
            port.tell(Adopted(stored.version))
            return stored
        if await port.save(_without_tokens(record, reason, record.epoch), record):
            port.tell(SessionEnded(seen.version, reason=reason))
            raise SessionOver(reason)


def _newer(fresh: Tokens, stored: Tokens | None) -> bool:
    """Whether *fresh* may replace *stored*: by the server's own count where there is one."""
    if stored is None or fresh.seq is None or stored.seq is None:
        return stored is None or fresh.version > stored.version
    return fresh.seq > stored.seq


def _record_of(tokens: Tokens) -> Record:
    return Record(tokens.version, tokens.epoch, tokens)


def _without_tokens(record: Record, why: str, epoch: int) -> Record:
    return Record(record.version + 1, epoch, None, over=why)
