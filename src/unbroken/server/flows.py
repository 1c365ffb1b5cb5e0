"""What a server does with its sessions, each flow once, as a coroutine over the store.

1. The decision about a refresh token is ``rotation.present``; this file carries it out.
2. All that can fail, the claims hook and the signing, happens before the rotation is written: a refresh that fails has
   spent nothing.
3. Nearly every refresh is R1: then one statement is all that is asked of the store.
4. Refused is InvalidGrant, InvalidToken or InvalidScope, each with a reason. A revoked session stays revoked.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from unbroken.errors import InvalidGrant, InvalidScope, InvalidToken, TryLater
from unbroken.server.access_token import Claims, Verifier, fixed_claims, sign
from unbroken.server.events import Event, LoggedIn, Refreshed, ReuseDetected, SessionEnded
from unbroken.server.keys import KeyRecord, Keyring
from unbroken.server.refresh_token import RefreshToken, row_key
from unbroken.server.rotation import Place, Policy, Presented, Row, Verdict, present, why_dead
from unbroken.server.stores import Store
from unbroken.server.watch import Watch
from unbroken.tokens import Granted

__all__ = ["Flows", "SessionInfo"]

_log = logging.getLogger("unbroken")
SKEW = 5.0  # seconds that a revocation is remembered longer than its access tokens live
ROWS_REMEMBERED = 10_000
REFUSALS = (Verdict.DEAD, Verdict.REUSED)
WHY_REFUSED = {
    "expired": "the session has expired",
    "logged_out": "the session was logged out",
    "reuse": "the refresh token was used twice: the session was ended",
}


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """One session, for "your devices". Times are seconds since the Unix epoch; no secret is in it."""

    sid: str
    subject: str
    client_id: str
    scope: str
    label: str
    ip: str
    user_agent: str
    created_at: float
    used_at: float
    idle_expires_at: float
    expires_at: float
    revoked_at: float | None = None
    revoked_why: str | None = None

    def to_json(self, *, current: bool = False) -> dict[str, object]:
        """The session as a JSON object; *current* marks the one that asks."""
        return {**asdict(self), "current": current}


class Flows:
    """Every flow over one store. ``Sessions`` gives them two spellings, and their documentation."""

    def __init__(
        self,
        store: Store,
        policy: Policy,
        issuer: str,
        audience: str,
        claims: Callable[[SessionInfo], Mapping[str, object]] | None,
        on_event: Callable[[Event], object] | None,
        confirm_first_use: bool,
        clock: Callable[[], float],
    ) -> None:
        self.store, self.policy, self.issuer, self.audience = store, policy, issuer, audience
        self._claims, self._on_event, self._clock = claims, on_event, clock
        self._confirm_first_use = confirm_first_use
        self._confirmed: dict[tuple[str, int], None] = {}
        self._verifier = Verifier(issuer, audience)
        self.watch = Watch(store, {"sign": policy.access_ttl, "mac": policy.refresh_ttl}, clock)
        # What never changes of a session, so that a refresh need not read it first: its row as of once, and its claims.
        self._rows: dict[bytes, Row] = {}
        self._fixed: dict[bytes, str] = {}

    async def login(
        self, subject: str, client_id: str, scope: str, label: str, ip: str, user_agent: str, coordinated: bool
    ) -> Granted:
        await self.watch.look()
        now, f = self._clock(), secrets.token_bytes(16)
        row = Row(
            key=row_key(f),
            sid=secrets.token_urlsafe(16),
            subject=subject,
            created_at=now,
            used_at=now,
            idle_expires_at=now + min(self.policy.refresh_ttl, self.policy.max_age),
            expires_at=now + self.policy.max_age,
            client_id=client_id,
            scope=" ".join(dict.fromkeys(scope.split())),
            coordinated=coordinated,
            label=label[:200],
            ip=ip[:64],
            user_agent=user_agent[:400],
        )
        granted = self._newest(f, row, row.scope, now)
        await self.store.insert(row)
        self._tell(LoggedIn(row.sid, subject, client_id, ip))
        return granted

    async def refresh(
        self, text: str, attempt: str | None, client_id: str | None, scope: str | None, ip: str, user_agent: str
    ) -> Granted:
        if self.watch.due:
            await self.watch.look()
        now = self._clock()
        token = RefreshToken.read(text, lambda kid: self.watch.keyring.mac_key(kid, now))
        key = row_key(token.f)
        row = self._rows.get(key) or await self._known(key)
        scope = _narrowed(row, client_id, scope)
        presented = Presented(token.g, token.b, _hashed(attempt))
        # Nearly always R1: then what the row will be is known, and its tokens are made before one statement settles it.
        idle_at = min(now + self.policy.refresh_ttl, row.expires_at)
        granted = self._grant(token.f, row, Place(token.g + 1, 0), idle_at, scope, now)
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
            granted = None if verdict in REFUSALS else self._newest(token.f, after, scope, now)
            if after is not row and not await self.store.swap(row, after, self._dead_until(now)):
                continue
            if granted is not None:
                self._tell_refreshed(after, verdict, after.g)
                return granted
            if verdict is Verdict.REUSED:
                self._found_reuse(row, after, now, ip, user_agent)
            raise _refused(why_dead(after, now) or "reuse")
        raise TryLater("too many refreshes of one session at once", retry_after=0.1)

    def _newest(self, f: bytes, row: Row, scope: str, now: float) -> Granted:
        """The tokens for the newest place of *row*."""
        return self._grant(f, row, Place(row.g, row.b), row.idle_expires_at, scope, now)

    def _grant(self, f: bytes, row: Row, place: Place, idle_at: float, scope: str, now: float) -> Granted:
        """Tokens for *place* in the session of *row*. Nothing is written yet: if this fails, nothing is spent."""
        keyring = self.watch.keyring
        life = min(self.policy.access_ttl, row.expires_at - now)
        fixed = self._fixed.get(row.key) or fixed_claims(row, self.issuer, self.audience)
        extra = self._claims(_info(row)) if self._claims else {}
        kid, mac = keyring.mac(now)
        return Granted(
            access_token=sign(fixed, scope, place, now, life, extra, keyring.signer(now)),
            refresh_token=RefreshToken(f, place.g, place.b).text(kid, mac),
            expires_in=life,
            refresh_expires_in=idle_at - now,
            refresh_seq=place.g,
            scope=scope,
        )

    async def verify(self, access_token: str) -> Claims:
        if self.watch.due:
            await self.watch.look()
        claims = self._verifier.verify(access_token, self.watch.keyring, self.watch.revoked, self._clock())
        if self._confirm_first_use:
            await self._confirm(claims)
        return claims

    async def logout(self, access_token: str | None, refresh_token: str | None) -> bool:
        await self.watch.look()
        sids = set()
        if access_token is not None and (sid := self._sid_of_access(access_token)):
            sids.add(sid)
        if refresh_token is not None and (found := await self.inspect(refresh_token)):
            sids.add(found[0].sid)
        for sid in sids:
            await self.revoke("logged_out", sid=sid)
        return bool(sids)

    def _sid_of_access(self, access_token: str) -> str | None:
        try:
            claims = self._verifier.verify(access_token, self.watch.keyring, (), float("-inf"))
        except InvalidToken:
            return None
        return claims.sid

    async def inspect(self, text: str) -> tuple[SessionInfo, bool] | None:
        await self.watch.look()
        now = self._clock()
        try:
            token = RefreshToken.read(text, lambda kid: self.watch.keyring.mac_key(kid, now))
        except InvalidGrant:
            return None
        row = await self.store.read(row_key(token.f))
        if row is None:
            return None
        _, verdict = present(row, Presented(token.g, token.b), now, self.policy)
        return _info(row), verdict in (Verdict.ROTATED, Verdict.HEALED, Verdict.CONVERGED)

    async def list_of(self, subject: str | None, include_ended: bool) -> list[SessionInfo]:
        now = self._clock()
        rows = await self.store.sessions(subject)
        return [_info(row) for row in rows if include_ended or not why_dead(row, now)]

    async def revoke(self, why: str, *, sid: str = "", subject: str = "", keep: str = "") -> int:
        await self.watch.look()
        now = self._clock()
        until = self._dead_until(now)
        about = {row.sid: row.subject for row in await self.store.sessions(sid=sid)} if sid else {}
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
        """The first use of an access token settles its branch: once a generation for each process."""
        use = (claims.sid, claims.seq)
        if use in self._confirmed:
            return
        while len(self._confirmed) >= ROWS_REMEMBERED:
            self._confirmed.pop(next(iter(self._confirmed)), None)
        self._confirmed[use] = None
        await self.store.confirm(claims.sid, claims.seq, claims.branch)

    # ---- small things ------------------------------------------------------------------------------------------

    async def _known(self, key: bytes) -> Row:
        row = await self.store.read(key)
        if row is None:
            raise InvalidGrant("there is no such session", reason="unknown")
        while len(self._rows) >= ROWS_REMEMBERED:
            oldest = next(iter(self._rows), b"")
            self._rows.pop(oldest, None)
            self._fixed.pop(oldest, None)
        self._rows[key], self._fixed[key] = row, fixed_claims(row, self.issuer, self.audience)
        return row

    def _dead_until(self, now: float) -> float:
        return now + self.watch.keyring.longest_access() + SKEW

    def _found_reuse(self, row: Row, after: Row, now: float, ip: str, user_agent: str) -> None:
        self.watch.learn([(after.sid, self._dead_until(now))])
        age = None if row.at1 is None else int((now - row.at1) * 1000)
        _log.warning("refresh token reuse: session %s of %s was ended (%s)", after.sid, after.subject, after.evidence)
        self._tell(ReuseDetected(after.sid, after.subject, after.evidence or "", age, ip, user_agent))

    def _tell_refreshed(self, row: Row, verdict: Verdict, seq: int) -> None:
        if self._on_event:
            self._tell(Refreshed(row.sid, row.subject, verdict.value, seq))

    def _tell(self, event: Event) -> None:
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception:  # noqa: BLE001  # the application's code: whatever it raises is logged
            _log.exception("on_event failed")


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


def _info(row: Row) -> SessionInfo:
    return SessionInfo(
        row.sid,
        row.subject,
        row.client_id,
        row.scope,
        row.label,
        row.ip,
        row.user_agent,
        row.created_at,
        row.used_at,
        row.idle_expires_at,
        row.expires_at,
        row.revoked_at,
        row.revoked_why,
    )
