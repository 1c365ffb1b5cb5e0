"""Sessions: the server's end. Log in, refresh, verify, log out, list, revoke.

1. The decision about a refresh token is ``rotation.present``; this file carries it out.
2. All that can fail, the claims hook and the signing, happens before the rotation is written: a refresh that fails has
   spent nothing.
3. Each flow is written once, as a coroutine over the store. Without an event loop it runs by ``run_once``; the spelling
   with an ``a`` awaits it, and moves slow writes of a blocking store into a thread.
4. Refused is InvalidGrant, InvalidToken or InvalidScope, each with a reason. A revoked session stays revoked.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from unbroken._once import run_once
from unbroken.errors import InvalidGrant, InvalidScope, InvalidToken, TryLater
from unbroken.server.access_token import Claims, Verifier, fixed_claims, sign
from unbroken.server.events import Event, LoggedIn, Refreshed, ReuseDetected, SessionEnded
from unbroken.server.keys import KeyRecord, Keyring
from unbroken.server.refresh_token import RefreshToken, row_key
from unbroken.server.rotation import Place, Policy, Presented, Row, Verdict, present, why_dead
from unbroken.server.stores import Store
from unbroken.server.watch import Watch
from unbroken.tokens import Granted

__all__ = ["SessionInfo", "Sessions"]

T = TypeVar("T")
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


class Sessions:
    """All sessions of one server. Share one object between its threads and tasks.

    *claims* gives further claims for a session's access tokens; an error in it refuses the token and spends nothing.
    *on_event* is told what happens. *confirm_first_use*: the first use of an access token settles its branch at once,
    for servers whose clients store tokens before they use them. Times are in seconds; *clock* gives the time of day.
    """

    def __init__(
        self,
        store: Store,
        *,
        policy: Policy = Policy(),
        issuer: str = "http://127.0.0.1:8400",
        audience: str = "unbroken",
        claims: Callable[[SessionInfo], Mapping[str, object]] | None = None,
        on_event: Callable[[Event], object] | None = None,
        confirm_first_use: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store, self.policy, self.issuer, self.audience = store, policy, issuer, audience
        self._claims, self._on_event, self._clock = claims, on_event, clock
        self._confirm_first_use = confirm_first_use
        self._confirmed: dict[tuple[str, int], None] = {}
        self._verifier = Verifier(issuer, audience)
        self._watch = Watch(store, clock)
        # What never changes of a session, so that a refresh need not read it first: its row as of once, and its claims.
        self._rows: dict[bytes, Row] = {}
        self._fixed: dict[bytes, str] = {}

    # ---- blocking ----------------------------------------------------------------------------------------------

    def login(
        self,
        subject: str,
        *,
        client_id: str = "first-party",
        scope: str = "",
        label: str = "",
        ip: str = "",
        user_agent: str = "",
        coordinated: bool = False,
    ) -> Granted:
        """The tokens of a new session of *subject*, who has been authenticated.

        *coordinated*: the client stores its attempt ids and shares them, as unbroken's own does; then an old refresh
        token is forgiven only to a repetition of the same attempt, not for ``grace`` seconds.
        """
        return run_once(self._login(subject, client_id, scope, label, ip, user_agent, coordinated))

    def refresh(
        self,
        refresh_token: str,
        *,
        attempt: str | None = None,
        client_id: str | None = None,
        scope: str | None = None,
        ip: str = "",
        user_agent: str = "",
    ) -> Granted:
        """New tokens for a refresh token (RFC 6749 §6). Raises InvalidGrant, InvalidScope, or TryLater.

        *attempt* is the id of the client's attempt; the same one always gets the same answer. *scope* narrows the
        access token. *client_id*, where given, must be the one the session began with.
        """
        return run_once(self._refresh(refresh_token, attempt, client_id, scope, ip, user_agent))

    def verify(self, access_token: str) -> Claims:
        """What a good access token says. Raises InvalidToken: ``malformed``, ``expired`` or ``revoked``."""
        if self._watch.due:
            run_once(self._watch.look())
        claims = self._verifier.verify(access_token, self._watch.keyring, self._watch.revoked, self._clock())
        if self._confirm_first_use:
            run_once(self._confirm(claims))
        return claims

    def logout(self, *, access_token: str | None = None, refresh_token: str | None = None) -> bool:
        """Ends the sessions that these tokens name; False if they name none. Any genuine token will do, however old."""
        return run_once(self._logout(access_token, refresh_token))

    def list_of(self, subject: str, *, include_ended: bool = False) -> list[SessionInfo]:
        """The sessions of *subject*, last used first."""
        return run_once(self._list(subject, include_ended))

    def list_all(self, *, include_ended: bool = False) -> list[SessionInfo]:
        """All sessions, last used first."""
        return run_once(self._list(None, include_ended))

    def revoke(self, sid: str, *, subject: str = "", why: str = "revoked") -> bool:
        """Ends the session *sid*, with *subject* only if it is that subject's; whether there was one to end."""
        return bool(sid) and bool(run_once(self._revoke(why, sid=sid, subject=subject)))

    def revoke_others(self, subject: str, *, keep: str) -> int:
        """Ends all sessions of *subject* but the one with the sid *keep*; how many."""
        return run_once(self._revoke("revoked", subject=subject, keep=keep)) if subject and keep else 0

    def revoke_all(self, subject: str) -> int:
        """Ends all sessions of *subject*: the password was changed, the account closed. How many."""
        return run_once(self._revoke("revoked", subject=subject)) if subject else 0

    def inspect_refresh(self, refresh_token: str) -> tuple[SessionInfo, bool] | None:
        """The session of a genuine refresh token, and whether that token could be exchanged now; None for others."""
        return run_once(self._inspect(refresh_token))

    def keyring(self) -> Keyring:
        """The keys as the store has them now."""
        run_once(self._watch.look_now())
        return self._watch.keyring

    def rotate_keys(self, *, publish_ahead: float = 600.0) -> list[KeyRecord]:
        """Makes new keys; the signing key is published now and signs in *publish_ahead* seconds. All keys, after it."""
        records = self.keyring().rotated(
            self._clock(),
            publish_ahead=publish_ahead,
            access_ttl=self.policy.access_ttl,
            refresh_ttl=self.policy.refresh_ttl,
        )
        run_once(self.store.save_keys(records))
        return list(self.keyring().records)

    def retire_key(self, kid: str) -> bool:
        """Ends a key at once: no token it made is accepted any more. False if there is no such key."""
        found = [record for record in self.keyring().records if record.kid == kid]
        run_once(self.store.save_keys([replace(record, verifies_until=self._clock()) for record in found]))
        self.keyring()
        return bool(found)

    def jwks(self) -> dict[str, object]:
        """The public keys (RFC 7517)."""
        run_once(self._watch.look())
        return self._watch.keyring.jwks(self._clock())

    def close(self) -> None:
        """Lets go of the store."""
        self.store.close()

    # ---- for event loops ---------------------------------------------------------------------------------------

    async def alogin(self, subject: str, **about: Any) -> Granted:
        """``login`` without blocking."""
        return await self._slowly(
            lambda: self.login(subject, **about), lambda: self._login(*_login_args(subject, about))
        )

    async def arefresh(
        self,
        refresh_token: str,
        *,
        attempt: str | None = None,
        client_id: str | None = None,
        scope: str | None = None,
        ip: str = "",
        user_agent: str = "",
    ) -> Granted:
        """``refresh`` without blocking."""
        return await self._refresh(refresh_token, attempt, client_id, scope, ip, user_agent)

    async def averify(self, access_token: str) -> Claims:
        """``verify`` without blocking."""
        if self._watch.due:
            await self._watch.look()
        claims = self._verifier.verify(access_token, self._watch.keyring, self._watch.revoked, self._clock())
        if self._confirm_first_use:
            await self._confirm(claims)
        return claims

    async def alogout(self, *, access_token: str | None = None, refresh_token: str | None = None) -> bool:
        """``logout`` without blocking."""
        return await self._slowly(
            lambda: self.logout(access_token=access_token, refresh_token=refresh_token),
            lambda: self._logout(access_token, refresh_token),
        )

    async def alist_of(self, subject: str, *, include_ended: bool = False) -> list[SessionInfo]:
        """``list_of`` without blocking."""
        return await self._list(subject, include_ended)

    async def arevoke(self, sid: str, *, subject: str = "", why: str = "revoked") -> bool:
        """``revoke`` without blocking."""
        ended = self._slowly(
            lambda: int(self.revoke(sid, subject=subject, why=why)), lambda: self._revoke(why, sid=sid, subject=subject)
        )
        return bool(sid) and bool(await ended)

    async def arevoke_others(self, subject: str, *, keep: str) -> int:
        """``revoke_others`` without blocking."""
        return await self._slowly(
            lambda: self.revoke_others(subject, keep=keep), lambda: self._revoke("revoked", subject=subject, keep=keep)
        )

    async def arevoke_all(self, subject: str) -> int:
        """``revoke_all`` without blocking."""
        return await self._slowly(lambda: self.revoke_all(subject), lambda: self._revoke("revoked", subject=subject))

    async def ajwks(self) -> dict[str, object]:
        """``jwks`` without blocking."""
        await self._watch.look()
        return self._watch.keyring.jwks(self._clock())

    async def ainspect_refresh(self, refresh_token: str) -> tuple[SessionInfo, bool] | None:
        """``inspect_refresh`` without blocking."""
        return await self._inspect(refresh_token)

    async def _slowly(self, blocking: Callable[[], T], flow: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if not self.store.blocking:
            return await flow()
        import anyio.to_thread  # noqa: PLC0415  # blocking use needs no event loop library

        return await anyio.to_thread.run_sync(blocking)

    # ---- the flows ---------------------------------------------------------------------------------------------

    async def _login(
        self, subject: str, client_id: str, scope: str, label: str, ip: str, user_agent: str, coordinated: bool
    ) -> Granted:
        await self._watch.look()
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

    async def _refresh(
        self, text: str, attempt: str | None, client_id: str | None, scope: str | None, ip: str, user_agent: str
    ) -> Granted:
        if self._watch.due:
            await self._watch.look()
        now = self._clock()
        token = RefreshToken.read(text, lambda kid: self._watch.keyring.mac_key(kid, now))
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
        keyring = self._watch.keyring
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

    async def _logout(self, access_token: str | None, refresh_token: str | None) -> bool:
        await self._watch.look()
        sids = set()
        if access_token is not None and (sid := self._sid_of_access(access_token)):
            sids.add(sid)
        if refresh_token is not None and (found := await self._inspect(refresh_token)):
            sids.add(found[0].sid)
        for sid in sids:
            await self._revoke("logged_out", sid=sid)
        return bool(sids)

    def _sid_of_access(self, access_token: str) -> str | None:
        try:
            claims = self._verifier.verify(access_token, self._watch.keyring, (), float("-inf"))
        except InvalidToken:
            return None
        return claims.sid

    async def _inspect(self, text: str) -> tuple[SessionInfo, bool] | None:
        await self._watch.look()
        now = self._clock()
        try:
            token = RefreshToken.read(text, lambda kid: self._watch.keyring.mac_key(kid, now))
        except InvalidGrant:
            return None
        row = await self.store.read(row_key(token.f))
        if row is None:
            return None
        _, verdict = present(row, Presented(token.g, token.b), now, self.policy)
        return _info(row), verdict in (Verdict.ROTATED, Verdict.HEALED, Verdict.CONVERGED)

    async def _list(self, subject: str | None, include_ended: bool) -> list[SessionInfo]:
        now = self._clock()
        rows = await self.store.sessions(subject)
        return [_info(row) for row in rows if include_ended or not why_dead(row, now)]

    async def _revoke(self, why: str, *, sid: str = "", subject: str = "", keep: str = "") -> int:
        now = self._clock()
        until = self._dead_until(now)
        about = {row.sid: row.subject for row in await self.store.sessions(sid=sid)} if sid else {}
        ended = await self.store.revoke(now, why, until, sid=sid, subject=subject, keep=keep)
        self._watch.learn([(one, until) for one in ended])
        for one in ended:
            self._tell(SessionEnded(one, subject or about.get(one, ""), why))
        return len(ended)

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
        return now + self.policy.access_ttl + SKEW

    def _found_reuse(self, row: Row, after: Row, now: float, ip: str, user_agent: str) -> None:
        self._watch.learn([(after.sid, self._dead_until(now))])
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


def _login_args(subject: str, about: dict[str, Any]) -> tuple[Any, ...]:
    defaults = {"client_id": "first-party", "scope": "", "label": "", "ip": "", "user_agent": "", "coordinated": False}
    return (subject, *({**defaults, **about}[name] for name in defaults))


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
