"""What a server does with its sessions, each flow once, as a coroutine over the store.

1. The decision about a refresh token is ``rotation.present``; this file carries it out.
2. Tokens are made before the rotation is written (``mint.py``): a refresh that fails has spent nothing.
3. Nearly every refresh is R1: then one statement is all that is asked of the store.
4. Refused is InvalidGrant, InvalidToken or InvalidScope, each with a reason. A revoked session stays revoked.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Callable
from dataclasses import replace
from time import monotonic

from unbroken.errors import ConfigurationError, InvalidGrant, InvalidScope, InvalidToken, TryLater
from unbroken.server import refresh_token
from unbroken.server.access_token import Claims, Verifier, kid_of
from unbroken.server.events import Event, Listeners, LoggedIn, Refreshed, RefreshRefused, ReuseDetected, SessionEnded
from unbroken.server.info import SessionInfo, device_of, info_of
from unbroken.server.keys import KeyRecord, Keyring
from unbroken.server.marks import new_device, void_steps
from unbroken.server.mint import ClaimsHook, Mint
from unbroken.server.recent import Recent
from unbroken.server.refresh_token import RefreshToken, row_key
from unbroken.server.rotation import Place, Policy, Presented, Row, Verdict, present, why_dead
from unbroken.server.stores import Store
from unbroken.server.watch import Watch
from unbroken.tokens import Granted

__all__ = ["Flows"]

_log = logging.getLogger("unbroken")
LONGEST_LABEL = 200
SKEW = 5.0  # seconds that a revocation is remembered longer than its access tokens live
USES_REMEMBERED = 10_000
REFUSALS = (Verdict.DEAD, Verdict.REUSED)
WHY_REFUSED = {
    "expired": "the session has expired",
    "logged_out": "the session was logged out",
    "reuse": "the refresh token was used twice: the session was ended",
}


class Flows:
    """Every flow over one store. ``Sessions`` gives them two spellings, and their documentation."""

    def __init__(
        self,
        store: Store,
        policy: Policy,
        issuer: str,
        audience: str,
        claims: ClaimsHook | None,
        listeners: Listeners,
        confirm_first_use: bool,
        clock: Callable[[], float],
    ) -> None:
        self.store, self.policy, self._listeners, self._clock = store, policy, listeners, clock
        self.confirms = confirm_first_use
        self._confirmed: Recent[tuple[str, int], None] = Recent(USES_REMEMBERED)
        self.watch = Watch(store, {"sign": policy.access_ttl, "mac": policy.refresh_ttl}, clock)
        self.mint = Mint(self.watch, policy, issuer, audience, claims)
        self._verifier = Verifier(issuer, audience)

    async def login(
        self, subject: str, client_id: str, scope: str, label: str, ip: str, user_agent: str, coordinated: bool
    ) -> Granted:
        _check_subject(subject)
        await self.watch.look()
        now, f = self._clock(), secrets.token_bytes(16)
        row = Row(
            key=row_key(f),
            sid=secrets.token_urlsafe(16),
            subject=str(subject),
            created_at=now,
            used_at=now,
            idle_expires_at=now + min(self.policy.refresh_ttl, self.policy.max_age),
            expires_at=now + self.policy.max_age,
            client_id=client_id,
            scope=" ".join(dict.fromkeys(scope.split())),
            coordinated=coordinated,
            label=label[:LONGEST_LABEL],
            ip=ip[:64],
            user_agent=user_agent[:400],
        )
        granted = self.mint.newest(f, row, row.scope, now)
        await self.store.insert(row)
        if self._listeners:
            self._tell(LoggedIn(row.sid, row.subject, client_id, row.ip, row.user_agent, await self._is_new(row, now)))
        return granted

    async def _is_new(self, row: Row, now: float) -> bool:
        try:
            return await new_device(self.store, row.subject, row.client_id, device_of(row.user_agent), now)
        except TryLater as error:  # better told once too often
            _log.warning("whether the device of session %s is new could not be found out: %s", row.sid, error)
            return True

    async def refresh(
        self, text: str, attempt: str | None, client_id: str | None, scope: str | None, ip: str, user_agent: str
    ) -> Granted:
        try:
            return await self._refresh(text, attempt, client_id, scope, ip, user_agent)
        except InvalidGrant as error:
            if self._listeners:
                self._tell(RefreshRefused(reason=error.reason, ip=ip, user_agent=user_agent))
            raise

    async def _refresh(
        self, text: str, attempt: str | None, client_id: str | None, scope: str | None, ip: str, user_agent: str
    ) -> Granted:
        if monotonic() > self.watch.fresh_until:
            await self.watch.look()
        now = self._clock()
        token = await self._genuine(text, now)
        key = row_key(token.f)
        row = self.mint.known(key) or await self._row(key)
        scope = _narrowed(row, client_id, scope)
        presented = Presented(token.g, token.b, _hashed(attempt))
        # Nearly always R1: then what the row will be is known, and its tokens are made before one statement settles it.
        idle_at = min(now + self.policy.refresh_ttl, row.expires_at)
        granted = self.mint.grant(token.f, row, Place(token.g + 1, 0), now, idle_at, scope, now)
        if await self.store.rotate(key, presented, now, self.policy.refresh_ttl):
            self._tell_refreshed(row, Verdict.ROTATED, token.g + 1)
            return granted
        return await self._settle(token, presented, scope, now, ip, user_agent)

    async def _settle(
        self, token: RefreshToken, presented: Presented, scope: str, now: float, ip: str, user_agent: str
    ) -> Granted:
        """Every rule but R1, and an R1 that lost a race: read, decide, compare-and-set."""
        key = row_key(token.f)
        for _ in range(20):
            row = await self.store.read(key)
            if row is None:
                raise InvalidGrant("there is no such session", reason="unknown")
            after, verdict = present(row, presented, now, self.policy)
            granted = None if verdict in REFUSALS else self.mint.newest(token.f, after, scope, now)
            if after is not row and not await self.store.swap(row, after, self._dead_until(now)):
                continue
            if granted is not None:
                self._tell_refreshed(after, verdict, after.g)
                return granted
            if verdict is Verdict.REUSED:
                self._found_reuse(row, after, now, ip, user_agent)
            raise _refused(why_dead(after, now) or "reuse")
        raise TryLater("too many refreshes of one session at once", retry_after=0.1)

    async def _genuine(self, text: str, now: float) -> RefreshToken:
        """The refresh token that *text* spells. Raises InvalidGrant ``malformed``."""
        try:
            return RefreshToken.read(text, lambda kid: self.watch.keyring.mac_key(kid, now))
        except InvalidGrant:
            if not await self._new_key(refresh_token.kid_of(text)):
                raise
            return RefreshToken.read(text, lambda kid: self.watch.keyring.mac_key(kid, now))

    def known(self, access_token: str) -> Claims | None:
        """What a good token says, where no I/O is due; None where ``verify`` has to look."""
        if self.confirms or monotonic() > self.watch.fresh_until:
            return None
        return self._verifier.known(access_token, self.watch.revoked, self._clock())

    async def verify(self, access_token: str, *, fresh: bool = False) -> Claims:
        """*fresh*: somebody has seen already that the store need not be asked."""
        watch = self.watch
        if not fresh and monotonic() > watch.fresh_until:
            await watch.look()
        try:
            claims = self._verifier.verify(access_token, watch.keyring, watch.revoked, self._clock())
        except InvalidToken:
            if not await self._new_key(kid_of(access_token)):
                raise
            claims = self._verifier.verify(access_token, watch.keyring, watch.revoked, self._clock())
        if self.confirms:
            await self._confirm(claims)
        return claims

    async def _new_key(self, kid: str | int | None) -> bool:
        """Whether a key that was unknown is known now: another process may have made it a moment ago."""
        if kid is None or self.watch.keyring.knows(kid):
            return False
        return await self.watch.look_again() and self.watch.keyring.knows(kid)

    async def logout(self, access_token: str | None, refresh_token: str | None) -> bool:
        await self.watch.look()
        sids = set()
        if access_token is not None and (sid := await self._sid_of_access(access_token)):
            sids.add(sid)
        if refresh_token is not None and (found := await self.inspect(refresh_token)):
            sids.add(found[0].sid)
        for sid in sids:
            await self.revoke("logged_out", sid=sid)
        return bool(sids)

    async def _sid_of_access(self, access_token: str) -> str | None:
        """The session of a genuine access token, however old."""
        await self._new_key(kid_of(access_token))
        try:
            return self._verifier.genuine(access_token, self.watch.keyring, self._clock()).sid
        except InvalidToken:
            return None

    async def inspect(self, text: str) -> tuple[SessionInfo, bool] | None:
        await self.watch.look()
        now = self._clock()
        try:
            token = await self._genuine(text, now)
        except InvalidGrant:
            return None
        row = await self.store.read(row_key(token.f))
        if row is None:
            return None
        _, verdict = present(row, Presented(token.g, token.b), now, self.policy)
        return info_of(row), verdict in (Verdict.ROTATED, Verdict.HEALED, Verdict.CONVERGED)

    async def list_of(self, subject: str | None, include_ended: bool) -> list[SessionInfo]:
        now = self._clock()
        rows = await self.store.sessions(subject)
        return [info_of(row) for row in rows if include_ended or not why_dead(row, now)]

    async def rename(self, sid: str, label: str, subject: str | None) -> SessionInfo | None:
        """As with every change but R1: read, compare and set."""
        for _ in range(20):
            now, found = self._clock(), await self.store.sessions(subject, sid)
            if not found or why_dead(found[0], now):
                return None
            after = replace(found[0], label=label[:LONGEST_LABEL])
            if after == found[0] or await self.store.swap(found[0], after, self._dead_until(now)):
                self.mint.remember(after)
                return info_of(after)
        raise TryLater("this session changes too often now", retry_after=0.1)

    async def revoke(
        self, why: str, *, sid: str | None = None, subject: str | None = None, keep: str | None = None
    ) -> int:
        """Ends what is named. An empty name names nothing: only None is any."""
        if "" in (sid, subject, keep) or (sid is None and subject is None):
            return 0
        await self.watch.look()
        now = self._clock()
        until = self._dead_until(now)
        if sid is None and subject is not None:  # logins that wait for a code end first: they become sessions no more
            await void_steps(self.store, subject, now)
        about = {} if sid is None else {row.sid: row.subject for row in await self.store.sessions(sid=sid)}
        ended = await self.store.revoke(now, why, until, sid=sid, subject=subject, keep=keep)
        self.watch.learn([(one, until) for one in ended])
        for one in ended:
            self._tell(SessionEnded(one, subject or about.get(one, ""), why))
        return len(ended)

    async def keyring(self) -> Keyring:
        await self.watch.look_now()
        return self.watch.keyring

    async def rotate_keys(self, publish_ahead: float) -> list[KeyRecord]:
        await self.store.save_keys((await self.keyring()).rotated(self._clock(), publish_ahead))
        return list((await self.keyring()).records)

    async def retire_key(self, kid: str) -> bool:
        records = (await self.keyring()).retired(kid, self._clock())
        await self.store.save_keys(records)
        await self.watch.look_now()
        return bool(records)

    async def jwks(self) -> dict[str, object]:
        await self.watch.look()
        return self.watch.keyring.jwks(self._clock())

    async def _confirm(self, claims: Claims) -> None:
        """The first use of an access token settles its branch: once a generation for each process. If the store is
        busy, the token is no worse for it, and its next use settles it.
        """
        use, done = (claims.sid, claims.seq), False
        if use in self._confirmed:
            return
        self._confirmed.keep(use, None)
        try:
            await self.store.confirm(claims.sid, claims.seq, claims.branch)
            done = True
        except TryLater:
            pass
        finally:
            if not done:
                self._confirmed.forget(use)

    # ---- small things ------------------------------------------------------------------------------------------

    async def _row(self, key: bytes) -> Row:
        row = await self.store.read(key)
        if row is None:
            raise InvalidGrant("there is no such session", reason="unknown")
        self.mint.remember(row)
        return row

    def _dead_until(self, now: float) -> float:
        return now + self.watch.keyring.longest_access() + SKEW

    def _found_reuse(self, row: Row, after: Row, now: float, ip: str, user_agent: str) -> None:
        self.watch.learn([(after.sid, self._dead_until(now))])
        age = None if row.at1 is None else int((now - row.at1) * 1000)
        _log.warning("refresh token reuse: session %s of %s was ended (%s)", after.sid, after.subject, after.evidence)
        self._tell(ReuseDetected(after.sid, after.subject, after.evidence or "", age, ip, user_agent))

    def _tell_refreshed(self, row: Row, verdict: Verdict, seq: int) -> None:
        if self._listeners:
            self._tell(Refreshed(row.sid, row.subject, verdict.value, seq))

    def _tell(self, event: Event) -> None:
        self._listeners.tell(event)


def _check_subject(subject: object) -> None:
    """Raises ConfigurationError: an application that gives such a subject is not right."""
    if not isinstance(subject, str) or not subject or any("\ud800" <= char <= "\udfff" for char in subject):
        raise ConfigurationError("the subject of a login must be a text that is not empty: see what authenticate gives")


def _narrowed(row: Row, client_id: str | None, scope: str | None) -> str:
    """The scope of the next access token. Raises InvalidGrant for another client's token, InvalidScope for too much."""
    if client_id is not None and client_id != row.client_id:
        raise InvalidGrant("the refresh token belongs to another client", reason="wrong_client")
    if scope is None:
        return row.scope
    wanted = dict.fromkeys(scope.split())
    if not wanted.keys() <= set(row.scope.split()):
        raise InvalidScope("more scope was asked for than the session has")
    return " ".join(wanted) or row.scope


def _hashed(attempt: str | None) -> bytes | None:
    """What a row keeps of an attempt id; one that is unreasonably long counts as none."""
    if not attempt or len(attempt) > 200:
        return None
    return hashlib.sha256(attempt.encode("utf-8", "replace")).digest()[:16]


def _refused(reason: str) -> InvalidGrant:
    return InvalidGrant(WHY_REFUSED.get(reason, "the session was revoked"), reason=reason)
