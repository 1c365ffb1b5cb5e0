"""The rules of a refresh, a login and a logout, over a port. Pure.

1. One refresh runs at a time among all clients of a store. It loads the record again under the lock, and adopts what
   another client has stored meanwhile.
2. The idempotency key is stored before the refresh is sent, and sent again with every retry, also by the next process.
3. A late response is still a response. Only a server that knows the idempotency key is sent a refresh again after a
   time limit; from any other the first response is waited for as long as it can come. A broken connection brings none:
   then the refresh is repeated at once, because a server that forgives does so for seconds.
4. New tokens are stored before anyone uses them, and only over the record that they were requested for. If the session
   has moved on meanwhile, they are discarded; after a logout or another login they are revoked as well.
5. A session is over only on a definite response, and only if no client has stored other tokens meanwhile. Everything
   else means "try later", and loses nothing.
6. A store that was reset to older tokens of the same login gets the newer ones again, from the client that has them.
7. A login and a logout change the epoch at once, without waiting for a refresh. A refresh of an older epoch can no
   longer write: that is how a logout wins over a refresh under way.
8. A strict server ends the session when a used token comes again. It is sent a refresh that it may have had already
   only if nothing else is left: when the access token cannot be used any more, and when no process can still be waiting
   for the first response. The lock proves that of an earlier holder on this machine; another has ``RESPONSE_SECONDS``.
9. The response to the refresh that the store knows of is newer than the stored tokens, whatever number it has: a server
   that was restored counts on from an older one. A response that finds other tokens in the store replaces them only if
   the numbers prove it newer: one that is not above that of the tokens it was asked for shows that the server has
   restarted its count, and so comes after any that counted on.
10. If the server has ended the session while a response was on its way, its tokens are tried, by one more refresh. They
   may have outlived the one that was refused.
11. A server that says ``wrong_key`` has not ended the session: this client lacks the key that it is bound to. The
   tokens stay in the store, for those who have it.
12. Where the server gives no refresh token and the user has chosen credentials, these get the next access token, under
    the same lock, with the same single flight and the same retries. They also begin a session that never was: once, by
    the holder of the lock. They begin none after a logout, nor after they were refused: that ends the session (rule 5).

When a refresh is due is stated in schedule.py; what follows a challenge, in refresh_coordinator.py. The rules await
nothing but their port: the same lines run blocking, and in a simulation that tries every interleaving with losses,
crashes and thieves. No clock, no randomness, no I/O here.
"""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, assert_never

from unbroken.client.core.events import ClientEvent, LateTokensDiscarded, SessionEnded, TokensAdopted, TokensRefreshed
from unbroken.client.core.token_store import StoredSession
from unbroken.errors import BadResponse, SessionOver, TryLater
from unbroken.tokens import TokenResponse, Tokens

__all__ = [
    "RESPONSE_SECONDS",
    "WRONG_KEY",
    "GrantRejected",
    "Indeterminate",
    "Port",
    "RefreshOutcome",
    "RepetitionCanWait",
    "ServerKind",
    "begin",
    "is_progress",
    "log_in",
    "log_out",
    "newer_than",
    "refresh",
    "response_seconds",
    "tokens_from_response",
]


@dataclass(frozen=True, slots=True)
class GrantRejected:
    """The server rejected the refresh token for good, for *reason*; ``said`` is its response in words."""

    reason: str
    said: str = field(default="", compare=False)


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
ServerKind = Literal["idempotent", "forgiving", "strict"]


class RepetitionCanWait(TryLater):
    """The refresh is not repeated while the access token can be used (rule 8)."""


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

    def can_refresh(self, tokens: Tokens) -> bool:
        """Return whether *tokens* can be refreshed: by their refresh token, or by credentials (rule 12)."""

    def server_kind(self, tokens: Tokens) -> ServerKind:
        """Return what the server does with a refresh of *tokens* that it gets twice."""

    def lock_holder(self) -> str:
        """Return the name under which the lock is held now.

        An earlier holder of the same name has released it, or is dead.
        """

    def send_refresh(self, tokens: Tokens, idempotency_key: str) -> Awaitable[RefreshOutcome]:
        """Send one refresh request (RFC 6749 §6), and wait for its response as rule 3 says. Without a refresh token,
        send the credentials (rule 12).

        It is sent only while the lock is certainly held: a holder that was asleep and lost the lock would present a
        token that others have used meanwhile, and look like a thief.
        """

    def revoke(self, tokens: Tokens) -> Awaitable[bool]:
        """Revoke the session of *tokens* at the server; return whether the server confirmed it. Must not raise."""

    def pause(self, seconds: float) -> Awaitable[None]:
        """Wait."""


RETRY_PAUSES_SECONDS = (0.2, 1.0)  # before the second and the third try of one refresh
MAX_RETRY_AFTER_SECONDS = 2.0  # a longer Retry-After is for the caller to wait for
RESPONSE_SECONDS = 120.0  # after which no response comes any more: gateways give up before
WRONG_KEY = "wrong_key"  # the session is bound to another key than the one that was proven (RFC 9449 §5)
EARLIER = "an earlier request for it may have arrived, and its response was lost"


# ---- refresh ---------------------------------------------------------------------------------------------------------


async def refresh(port: Port, seen: Tokens, *, needed: bool = True) -> Tokens:
    """Return tokens newer than *seen*: refreshed, or adopted from another client of the store.

    *needed*: the access token of *seen* cannot be used any more, or not for long. Raise SessionOver, TryLater or
    BadResponse.
    """
    try:
        async with port.lock():  # rule 1
            return await _refresh(port, seen, needed)
    except _EndedMeanwhile as late:
        async with port.lock():
            return await _try_late_tokens(port, late.tokens)


async def _refresh(port: Port, seen: Tokens, needed: bool) -> Tokens:
    record, is_begun = await _start_refresh(port, seen)
    while adopted := newer_than(seen, record):
        if not adopted.expired(port.now()):
            port.emit(TokensAdopted(adopted.version))
            return adopted
        seen, (record, is_begun) = adopted, await _start_refresh(port, adopted)
    if not port.can_refresh(seen):
        return await _end_session(port, seen, "no_refresh_token")
    if is_begun:
        _check_may_repeat(port, record, seen, needed)
    sent = await _send_with_retries(port, seen, record.idempotency_key or "", needed)
    may_have_arrived = is_begun or sent.was_lost
    match sent.outcome:
        case TokenResponse() as response:
            return await _save_response(port, record, seen, response, sent.tries)
        case GrantRejected(reason, said) if reason == WRONG_KEY:
            await _leave_to_others(port, record, may_have_arrived)
            raise SessionOver(reason, said)  # rule 11
        case GrantRejected(reason, said):
            why = "; ".join(filter(None, (said, EARLIER if may_have_arrived else "")))
            return await _end_session(port, seen, reason, why)
        case Indeterminate(cause=BadResponse() as error, may_retry=False):
            raise error
        case Indeterminate() as outcome:
            await _keep_for_later(port, record, seen, outcome, needed, may_have_arrived)
            raise TryLater(outcome.why, retry_after=outcome.retry_after) from outcome.cause  # rule 5
        case _:
            assert_never(sent.outcome)


def response_seconds(kind: ServerKind, refresh_timeout: float) -> float:
    """Return how long the response to a refresh is waited for at a server of *kind* (rule 3)."""
    return refresh_timeout if kind == "idempotent" else max(refresh_timeout, RESPONSE_SECONDS)


def newer_than(seen: Tokens, record: StoredSession) -> Tokens | None:
    """Return the tokens of *record* if they have replaced *seen*, else None. Raise SessionOver if they are gone."""
    if record.tokens is None:
        raise SessionOver(record.over or "logged_out")
    if record.epoch != seen.epoch:
        raise SessionOver("other_login")  # rule 7
    return record.tokens if record.version > seen.version else None  # rule 6: older ones do not replace them


async def _start_refresh(port: Port, seen: Tokens) -> tuple[StoredSession, bool]:
    """Return the stored record, and whether a refresh of *seen* has begun already, which did not end.

    If it has *seen*, it has an idempotency key: a new one, or that of the refresh which a crash, say, left.
    """
    while True:
        record = await port.load()
        was_set_back = record.version < seen.version
        if not port.can_refresh(seen) or newer_than(seen, record):
            return record, False
        if record.idempotency_key and not was_set_back:
            return record, True
        key, device_token = port.new_idempotency_key(), record.device_token
        started = StoredSession(
            seen.version, seen.epoch, seen, key, "", device_token, port.lock_holder(), max(port.now(), 0.0)
        )
        if await port.save(started, record):  # rules 2 and 6
            return started, False


@dataclass(frozen=True, slots=True)
class _Sent:
    """What came of the requests of one refresh; ``was_lost``: one of them may have arrived, without a response."""

    outcome: RefreshOutcome
    tries: int
    was_lost: bool


async def _send_with_retries(port: Port, tokens: Tokens, idempotency_key: str, needed: bool = True) -> _Sent:
    """Send at most three requests, each with the same idempotency key (rule 2)."""
    outcome, was_lost = await port.send_refresh(tokens, idempotency_key), False
    for tries, pause in enumerate(RETRY_PAUSES_SECONDS, start=1):
        if not isinstance(outcome, Indeterminate) or not outcome.may_retry:
            return _Sent(outcome, tries, was_lost)
        was_lost = was_lost or outcome.lost
        if outcome.retry_after > MAX_RETRY_AFTER_SECONDS or (was_lost and _can_wait(port, tokens, needed)):
            return _Sent(outcome, tries, was_lost)
        await port.pause(0.0 if outcome.lost and tries == 1 else max(pause, outcome.retry_after))  # rule 3
        outcome = await port.send_refresh(tokens, idempotency_key)
    was_lost = was_lost or (isinstance(outcome, Indeterminate) and outcome.lost)
    return _Sent(outcome, len(RETRY_PAUSES_SECONDS) + 1, was_lost)


def _can_wait(port: Port, tokens: Tokens, needed: bool) -> bool:
    """Return whether to use *tokens* until they expire before a refresh of them is repeated (rule 8)."""
    return port.server_kind(tokens) == "strict" and not needed and not tokens.expired(port.now())


def _check_may_repeat(port: Port, record: StoredSession, seen: Tokens, needed: bool) -> None:
    """Raise TryLater if it is too early to repeat the refresh that *record* has begun (rule 8)."""
    if port.server_kind(seen) != "strict":
        return
    if _can_wait(port, seen, needed):
        raise RepetitionCanWait("the refresh is repeated when the access token has expired")
    age = abs(port.now() - record.begun_at)  # clocks may have been set meanwhile
    if record.begun_by != port.lock_holder() and age < RESPONSE_SECONDS:
        raise TryLater("another machine has begun a refresh, and its response may still come")


async def _keep_for_later(
    port: Port, record: StoredSession, seen: Tokens, outcome: Indeterminate, needed: bool, may_have_arrived: bool
) -> None:
    """Mark a refresh that has certainly not arrived at a strict server as not begun: it need not wait (rule 8)."""
    if port.server_kind(seen) != "strict":
        return
    if not may_have_arrived and outcome.may_retry:  # else the lock is lost, and its next holder may be sending
        await _mark_as_not_begun(port, record)
    if may_have_arrived and _can_wait(port, seen, needed):
        raise RepetitionCanWait(outcome.why) from outcome.cause


async def _leave_to_others(port: Port, record: StoredSession, may_have_arrived: bool) -> None:
    """Leave the tokens to those who have the key. What one of them has begun, they end with its idempotency key."""
    if not may_have_arrived:
        await _mark_as_not_begun(port, record)


async def _mark_as_not_begun(port: Port, record: StoredSession) -> None:
    await port.save(replace(record, idempotency_key=None, begun_by="", begun_at=0.0), record)


async def _save_response(
    port: Port, record: StoredSession, seen: Tokens, response: TokenResponse, tries: int
) -> Tokens:
    """Store the tokens of *response* in place of *seen*, or return newer ones. Raise SessionOver if it is gone."""
    if not is_progress(response, seen):
        raise TryLater("the server responded with tokens that are not newer than the stored ones")
    while True:
        version = max(record.version, seen.version) + 1
        fresh = tokens_from_response(response, port.now(), version, seen.epoch, seen)
        if await port.save(_with_tokens(fresh, record.device_token), record):  # rules 4 and 9
            port.emit(TokensRefreshed(fresh.version, tries=tries))
            return fresh
        record = await port.load()
        if record.tokens is None and record.epoch == seen.epoch:
            raise _EndedMeanwhile(fresh)  # rule 10
        if record.tokens is None or record.epoch != seen.epoch:
            port.emit(LateTokensDiscarded(seen.version))
            await port.revoke(fresh)  # rule 4; newer_than raises now
        if (stored := newer_than(seen, record)) and not _is_newer(fresh, stored, seen):
            port.emit(LateTokensDiscarded(seen.version))
            return stored


class _EndedMeanwhile(Exception):
    """The server has ended the session while a response with *tokens* was on its way (rule 10)."""

    def __init__(self, tokens: Tokens) -> None:
        super().__init__("the session has ended meanwhile")
        self.tokens = tokens


async def _try_late_tokens(port: Port, late: Tokens) -> Tokens:
    """Refresh *late* and store what comes, over a session that had ended. Raise SessionOver if it has (rule 10)."""
    record = await port.load()
    if record.tokens is None and record.epoch == late.epoch and late.refresh_token:
        match await port.send_refresh(late, port.new_idempotency_key()):
            case TokenResponse() as response:
                late = tokens_from_response(response, port.now(), record.version + 1, late.epoch, late)
            case Indeterminate():
                late = replace(late, version=record.version + 1)  # their fate is unknown, so they are kept
            case GrantRejected(_, said):
                port.emit(LateTokensDiscarded(late.version))
                raise SessionOver(record.over, said)
        if await port.save(_with_tokens(late, record.device_token), record):
            port.emit(TokensRefreshed(late.version))
            return late
        record = await port.load()
    port.emit(LateTokensDiscarded(late.version))
    if record.tokens is None or record.epoch != late.epoch:
        await port.revoke(late)
        raise SessionOver(record.over or "other_login")
    return record.tokens


async def _end_session(port: Port, seen: Tokens, reason: str, why: str = "") -> Tokens:
    """Clear the store and raise SessionOver, or return the tokens that another client has stored meanwhile (rule 5)."""
    while True:
        record = await port.load()
        if stored := newer_than(seen, record):
            port.emit(TokensAdopted(stored.version))
            return stored
        if await port.save(_without_tokens(record, reason, record.epoch), record):
            port.emit(SessionEnded(seen.version, reason=reason))
            raise SessionOver(reason, why)


# ---- login and logout ------------------------------------------------------------------------------------------------


NO_TOKENS = Tokens("")
NEVER_LOGGED_IN = ("", "not_logged_in")


async def begin(port: Port) -> tuple[Tokens, bool]:
    """Return the tokens of the store, or those of a first login with the credentials (rule 12); and which it was.

    Raise SessionOver if the session has ended, also because they are refused; TryLater or BadResponse.
    """
    async with port.lock():
        record = await port.load()
        if record.tokens is not None:
            return record.tokens, False
        if record.over not in NEVER_LOGGED_IN:
            raise SessionOver(record.over)
        sent = await _send_with_retries(port, NO_TOKENS, port.new_idempotency_key())
        match sent.outcome:
            case TokenResponse() as response:
                return await _save_first(port, record, response), True
            case GrantRejected(reason, said):
                await port.save(_without_tokens(record, reason, record.epoch), record)
                raise SessionOver(reason, said)
            case Indeterminate(cause=BadResponse() as error, may_retry=False):
                raise error
            case Indeterminate() as outcome:
                raise TryLater(outcome.why, retry_after=outcome.retry_after) from outcome.cause
            case _:
                assert_never(sent.outcome)


async def _save_first(port: Port, record: StoredSession, response: TokenResponse) -> Tokens:
    """Store the tokens of a first login. After another login, return its tokens; after a logout, raise SessionOver."""
    epoch = _next_epoch(record, port.now())
    fresh = tokens_from_response(response, port.now(), max(record.version + 1, epoch), epoch)
    if await port.save(_with_tokens(fresh, response.device_token or record.device_token), record):
        return fresh
    stored = await port.load()
    port.emit(LateTokensDiscarded(record.version))
    await port.revoke(fresh)  # rule 7: it was not asked for any more
    if stored.tokens is None:
        raise SessionOver(stored.over or "logged_out")
    return stored.tokens


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
        scope=response.scope or (before.scope if before and not response.says_scope else ""),
        token_type=response.token_type,
        version=version,
        epoch=epoch,
        idempotent=response.idempotent,
        jkt=response.jkt,
    )


def is_progress(response: TokenResponse, seen: Tokens) -> bool:
    """Return whether *response* has other tokens than *seen*, as far as refresh token and number tell (rule 9)."""
    is_same_number = response.refresh_seq is not None and response.refresh_seq == seen.refresh_seq
    return not is_same_number or response.refresh_token not in (None, seen.refresh_token)


def _is_newer(fresh: Tokens, stored: Tokens, seen: Tokens) -> bool:
    """Return whether *fresh*, a response for *seen*, is certainly newer than *stored*, another such (rule 9)."""
    if fresh.refresh_seq is None or stored.refresh_seq is None:
        return False
    before = -1 if seen.refresh_seq is None else seen.refresh_seq
    fresh_restarts, stored_restarts = fresh.refresh_seq <= before, stored.refresh_seq <= before
    return fresh_restarts if fresh_restarts != stored_restarts else fresh.refresh_seq > stored.refresh_seq


def _with_tokens(tokens: Tokens, device_token: str) -> StoredSession:
    return StoredSession(tokens.version, tokens.epoch, tokens, device_token=device_token)


def _without_tokens(record: StoredSession, reason: str, epoch: int) -> StoredSession:
    return StoredSession(record.version + 1, epoch, None, over=reason, device_token=record.device_token)
