"""The refresh token grant (RFC 6749 §6): authenticate the token, decide, write.

1. ``rotation.present`` decides. Nearly every refresh is R1: then one statement is all that is asked of the store. Every
   other rule, and an R1 that lost a race, is a read, a decision and a compare-and-set.
2. Where making tokens can fail, they are made before the rotation is written (``token_issuer.py``): a refresh that
   fails has spent nothing. Where only the store can fail, a session that is not cached need not be read first: the one
   statement returns it.
3. A session that this process knows as revoked stays revoked, even if the store was restored to an older state in which
   it is alive: then it is revoked there again.
4. A refused refresh is InvalidGrant or InvalidScope (RFC 6749 §5.2), each with a reason; listeners hear of the former.
5. A refresh token is good at the issuer and for the audience of its session, and for its client alone (RFC 6749 §6,
   RFC 9700 §2.3). A session that belongs to no issuer yet, because an older version created it, is bound to the first
   one that refreshes it. Only the server's own client may leave out its client id.
6. What the subject may have now is asked before anything is spent, and decides the scope (``core/scope.py``). If
   nothing is left of it, the session lives on. A repetition gets no more than the first time.
7. A used token gets the newest tokens at most ``MAX_REPETITIONS`` times a generation within the grace (R2); one more is
   TryLater, for every party: a number tells of load, not of a second holder, and an honest crowd of tabs tries again.
   A response that a second holder may have caused is an event at once.
8. A session that is bound to a key is refreshed only by a request that has proven this key (R0k of rotation). The proof
   is spent for all nodes before anything is decided: a copy of a whole request would otherwise count as reuse, and end
   the session. A session that is not bound stays so, whatever is proven: a thief must not bind it to another key.
9. Each call of the store is one that rarely waits (``run_inline``), not the whole flow: between them the application is
   asked, whose functions may be async.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any, TypeVar, cast

from unbroken import _base64
from unbroken._arguments import wrong_type
from unbroken._bounded_cache import BoundedCache
from unbroken.errors import InvalidGrant, InvalidProof, TryLater
from unbroken.server.core.events import (
    KeyNotProven,
    RefreshRejected,
    ReuseDetected,
    ReuseSuspected,
    SessionRefreshed,
    VerdictWord,
)
from unbroken.server.core.party import party_of
from unbroken.server.core.refresh_token import RefreshToken, row_key
from unbroken.server.core.rotation import (
    FIRST_PARTY,
    Generation,
    Policy,
    PresentedToken,
    SessionBinding,
    SessionFacts,
    SessionRow,
    Verdict,
    evidence_of,
    has_key,
    is_suspicious,
    present,
    why_inactive,
)
from unbroken.server.core.scope import TokenScope, token_scope
from unbroken.server.core.session_info import Caller, RefreshInspection, session_info
from unbroken.server.freshness import KeyAndRevocationCache
from unbroken.server.grants.rights import Allowed
from unbroken.server.grants.token_issuer import TokenIssuer
from unbroken.server.keys.proof_token import refused
from unbroken.server.listeners import Listeners
from unbroken.server.proofs.verification import ProofVerifier, VerifiedProof
from unbroken.server.stores import SessionStore
from unbroken.server.stores.base import run_inline
from unbroken.server.stores.markers import marker_key
from unbroken.tokens import TokenResponse

__all__ = ["MAX_SWAP_TRIES", "RefreshGrant", "too_contended", "wrong_client"]

T = TypeVar("T")
_log = logging.getLogger("unbroken")
MAX_SWAP_TRIES = 20  # of a compare-and-set that other requests win
MAX_IDEMPOTENCY_KEY_CHARS = 200
MAX_REPORTED_SESSIONS = 1000
REPORT_INTERVAL_SECONDS = 60.0  # between two events of one session whose key is missing
MAX_REPETITIONS = 200  # for a used token, in one generation: more than a hundred tabs need, each with a retry
CONTENDED_RETRY_SECONDS = 0.1
USABLE = (Verdict.ROTATED, Verdict.HEALED, Verdict.CONVERGED)  # what is certain without an idempotency key
NO_TEXTS = (None, None, None)
REFUSALS = (Verdict.DEAD, Verdict.REUSED)
REPEATED = (Verdict.CONVERGED, Verdict.RETRIED)  # the newest tokens, which were sent before
WHY_REFUSED = {
    "expired": "the session has expired",
    "logged_out": "the session was logged out",
    "limit": "a newer login has ended the session: there are too many of them",
    "reuse": "the refresh token was used twice: the session was revoked",
}


class RefreshGrant:
    """Refreshes the sessions of one store."""

    def __init__(
        self,
        store: SessionStore,
        policy: Policy,
        freshness: KeyAndRevocationCache,
        issuer: TokenIssuer,
        listeners: Listeners,
        clock: Callable[[], float],
        proofs: ProofVerifier,
        rights: Allowed | None,
    ) -> None:
        self._rights = rights
        self._store, self._policy, self._freshness, self._issuer = store, policy, freshness, issuer
        self._listeners, self._clock, self._proofs = listeners, clock, proofs
        self._some_must_be_bound = proofs.policy.requires_some
        self._reported_at: BoundedCache[str, float] = BoundedCache(MAX_REPORTED_SESSIONS)

    async def refresh(
        self,
        refresh_token: str,
        idempotency_key: str | None,
        client_id: str | None,
        scope: str | None,
        caller: Caller,
        rights: Allowed | None = None,
        proof: VerifiedProof | None = None,
    ) -> TokenResponse:
        """Return the next tokens. Raise InvalidGrant, InvalidProof, InvalidScope or TryLater: then nothing is spent.

        *rights* replaces those of the ``Sessions``.
        """
        _check_types(refresh_token, (idempotency_key, client_id, scope), caller, proof)
        try:
            rights = rights or self._rights
            return await self._refresh(refresh_token, idempotency_key, client_id, scope, caller, rights, proof)
        except InvalidGrant as error:
            if self._listeners:  # rule 4
                self._listeners.notify(RefreshRejected(reason=error.reason, ip=caller.ip, user_agent=caller.user_agent))
            raise

    async def inspect(self, refresh_token: str) -> RefreshInspection | None:
        """Return the session of a refresh token, and whether a refresh would succeed; None unless it is genuine."""
        await self._inline(self._freshness.refresh_if_due)
        now = self._clock()
        try:
            token = await self._authenticate_token(refresh_token, now)
        except InvalidGrant:
            return None
        row = await self._inline(lambda: self._store.read(row_key(token.session_secret)))
        if row is None or not self._issuer.is_own(row):  # rule 5
            return None
        presented = PresentedToken(token.generation, token.branch, jkt=row.jkt)
        _, verdict = present(row, presented, now, self._policy)
        return RefreshInspection(session_info(row), verdict in USABLE, token.generation, token.branch)

    async def _refresh(
        self,
        text: str,
        idempotency_key: str | None,
        client_id: str | None,
        scope: str | None,
        caller: Caller,
        rights: Allowed | None,
        proof: VerifiedProof | None,
    ) -> TokenResponse:
        if monotonic() > self._freshness.fresh_until:
            await self._inline(self._freshness.refresh_if_due)
        now = self._clock()
        token = await self._authenticate_token(text, now)
        if proof is not None:
            await self._inline(lambda: self._proofs.spend(proof))  # rule 8
        presented = _presented(token, idempotency_key, caller, proof)
        key, binding = row_key(token.session_secret), self._issuer.binding(client_id)
        row = self._issuer.cached_row(key)
        must_be_bound = self._some_must_be_bound and self._proofs.policy.binding_of(binding.client_id) == "required"
        is_plain = scope is None and rights is None and not must_be_bound
        if row is None and is_plain and self._issuer.never_fails:
            return await self._rotate_unread(token, presented, binding, now, caller)
        row = row or await self._read_row(key)
        self._check_key(row, presented, caller)
        _check_binding(row, binding)
        if must_be_bound and row.jkt is None:
            raise _not_bound(proof)
        granted = _unasked_scope(row)
        if not is_plain:
            allowed = await rights(row.subject) if rights else None  # rule 6
            granted = token_scope(row.scope, allowed, row.client_id, scope)
            presented = presented._replace(scope=granted.encode())
        await self._check_not_revoked(row, now)
        if not row.issuer:  # rule 5
            return await self._decide_and_swap(token, presented, granted, now, caller)
        return await self._rotate(token, row, presented, granted, now, caller)

    async def _rotate_unread(
        self, token: RefreshToken, presented: PresentedToken, binding: SessionBinding, now: float, caller: Caller
    ) -> TokenResponse:
        """Carry out R1 for a session that is not cached: the one statement returns its facts (rule 2)."""
        key = row_key(token.session_secret)
        facts = await self._inline(lambda: self._store.rotate_returning(key, presented, now, self._policy, binding))
        if facts is not None:
            tokens = await self._issue_rotated(token, facts, now)
            self._notify_refreshed(facts, Verdict.ROTATED, token.generation + 1)
            return tokens
        row = await self._read_row(key)
        self._check_key(row, presented, caller)
        _check_binding(row, binding)
        return await self._decide_and_swap(token, presented, _unasked_scope(row), now, caller)

    async def _rotate(
        self,
        token: RefreshToken,
        row: SessionRow | SessionFacts,
        presented: PresentedToken,
        granted: TokenScope,
        now: float,
        caller: Caller,
    ) -> TokenResponse:
        """Carry out R1 for *row*. Its tokens are made before the one statement (rule 2): R1 tells what it will be."""
        tokens = await self._issue_next(token, row, granted, now)
        if await self._inline(lambda: self._store.rotate(row.key, presented, now, self._policy)):
            self._notify_refreshed(row, Verdict.ROTATED, token.generation + 1)
            return tokens
        return await self._decide_and_swap(token, presented, granted, now, caller)

    async def _inline(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the result of *work*, a call of the store (rule 9)."""
        return await run_inline(self._store, work)

    async def _issue_rotated(self, token: RefreshToken, facts: SessionFacts, now: float) -> TokenResponse:
        """Return the tokens of the session that R1 has just refreshed with *token*."""
        await self._check_not_revoked(facts, now)
        self._issuer.cache_row(facts)
        return await self._issue_next(token, facts, _unasked_scope(facts), now)

    async def _issue_next(
        self, token: RefreshToken, row: SessionRow | SessionFacts, scope: TokenScope, now: float
    ) -> TokenResponse:
        """Return the tokens that R1 gives for *token*."""
        idle_expires_at = min(now + self._policy.refresh_ttl, row.expires_at)
        generation = Generation(token.generation + 1, 0)
        return await self._issuer.issue(token.session_secret, row, generation, now, idle_expires_at, scope, now)

    async def _decide_and_swap(
        self, token: RefreshToken, presented: PresentedToken, scope: TokenScope, now: float, caller: Caller
    ) -> TokenResponse:
        """Carry out every rule but R1, and an R1 that lost a race (rule 1)."""
        key = row_key(token.session_secret)
        for _ in range(MAX_SWAP_TRIES):
            row = await self._inline(lambda: self._store.read(key))
            if row is None:
                raise _unknown()
            if not why_inactive(row, now):
                await self._check_not_revoked(row, now)
            after, verdict = present(row, presented, now, self._policy)
            if verdict is Verdict.UNPROVEN:
                raise self._unproven(row, presented, caller)
            after = after if after is row else self._issuer.bound(after)  # rule 5
            if verdict is Verdict.CONVERGED:
                await self._count_repetition(row, now)
            tokens = None
            if verdict not in REFUSALS:
                granted = scope.no_more_than(row.newest_scope) if verdict in REPEATED else scope  # rule 6
                tokens = await self._issuer.issue_current(token.session_secret, after, granted, now)
            if after is not row and not await self._swap(row, after, now):
                continue
            if tokens is not None:
                if after.issuer != row.issuer:
                    self._issuer.cache_row(after)
                self._notify_refreshed(after, verdict, after.generation)
                if is_suspicious(row, presented, verdict):
                    self._report_suspicion(row, after, presented, verdict, caller)
                return tokens
            if verdict is Verdict.REUSED:
                self._report_reuse(row, after, now, caller)
            raise _refused(why_inactive(after, now) or "reuse")
        raise too_contended("too many refreshes of one session at once")

    async def _swap(self, row: SessionRow, after: SessionRow, now: float) -> bool:
        until = self._freshness.dead_until(now)
        return await self._inline(lambda: self._store.compare_and_set(row, after, until))

    async def _authenticate_token(self, text: str, now: float) -> RefreshToken:
        """Return the genuine refresh token in *text*. Raise InvalidGrant ``malformed``."""
        unknown: list[int] = []

        def key_of(kid: int) -> bytes | None:
            key = self._freshness.keyring.mac_key(kid, now)
            if key is None:
                unknown.append(kid)
            return key

        try:
            return RefreshToken.decode(text, key_of)
        except InvalidGrant:
            if not unknown or not await self._inline(lambda: self._freshness.refresh_for_unknown_key(unknown[0])):
                raise
            return RefreshToken.decode(text, key_of)

    async def _read_row(self, key: bytes) -> SessionRow:
        row = await self._inline(lambda: self._store.read(key))
        if row is None:
            raise _unknown()
        self._issuer.cache_row(row)
        return row

    async def _check_not_revoked(self, row: SessionRow | SessionFacts, now: float) -> None:
        """Raise InvalidGrant for a session that this process knows as revoked (rule 3)."""
        if row.sid not in self._freshness.revoked:
            return
        stored = await self._inline(lambda: self._store.read(row.key))
        why = "revoked" if stored is None else why_inactive(stored, now)
        if why is None:
            _log.warning("session %s reappeared after a restore of the store: it is revoked again", row.sid)
            until = self._freshness.dead_until(now)
            await self._inline(lambda: self._store.revoke(now, "revoked", until, sid=row.sid))
        raise _refused(why or "revoked")

    def _check_key(self, row: SessionRow | SessionFacts, presented: PresentedToken, caller: Caller) -> None:
        """Raise InvalidProof or InvalidGrant unless the key of *row* was proven (rule 8), before anything is asked."""
        if not has_key(row, presented):
            raise self._unproven(row, presented, caller)

    def _unproven(
        self, row: SessionRow | SessionFacts, presented: PresentedToken, caller: Caller
    ) -> InvalidProof | InvalidGrant:
        """Return the error for a request that has not proven the key of *row*; report it, once a minute at most."""
        reason, now = "missing" if presented.jkt is None else "wrong_key", monotonic()
        if now - self._reported_at.get(row.sid, float("-inf")) >= REPORT_INTERVAL_SECONDS:
            self._reported_at.put(row.sid, now)
            _log.warning("a refresh token of session %s of %s came without its key (%s)", row.sid, row.subject, reason)
            event = KeyNotProven(row.sid, row.subject, reason, caller.ip, caller.user_agent)
            self._listeners.notify(event)
        if presented.jkt is None:
            return refused("missing")
        return InvalidGrant("this session is bound to another key: log in again", reason="wrong_key")

    async def _count_repetition(self, row: SessionRow, now: float) -> None:
        """Raise TryLater if the newest tokens were returned too often within the grace (rule 7)."""
        began, step = float(now if row.rotated_at is None else row.rotated_at), self._policy.grace
        key = marker_key(b"repetitions", row.key + row.generation.to_bytes(8, "big"))
        most = step * (MAX_REPETITIONS + 1)
        counted = await self._inline(lambda: self._store.advance_marker(key, began, step, most))
        if round((counted - began) / step) > MAX_REPETITIONS:
            raise TryLater("this refresh token was used too often at once", retry_after=step)

    def _report_suspicion(
        self, row: SessionRow, after: SessionRow, presented: PresentedToken, verdict: Verdict, caller: Caller
    ) -> None:
        evidence = evidence_of(row, presented)
        _log.warning("session %s of %s may have two holders (%s: %s)", row.sid, row.subject, verdict.value, evidence)
        self._listeners.notify(
            ReuseSuspected(
                row.sid,
                row.subject,
                cast("VerdictWord", verdict.value),
                after.generation,
                evidence,
                presented.party,
                row.presenter,
                after.shared_streak + after.shared,
                caller.ip,
                caller.user_agent,
            )
        )

    def _report_reuse(self, row: SessionRow, after: SessionRow, now: float, caller: Caller) -> None:
        self._freshness.add_revocations([(after.sid, self._freshness.dead_until(now))])
        age_ms = None if row.rotated_at is None else int((now - row.rotated_at) * 1000)
        _log.warning("refresh token reuse: session %s of %s was revoked (%s)", after.sid, after.subject, after.evidence)
        evidence = after.evidence or ""
        self._listeners.notify(ReuseDetected(after.sid, after.subject, evidence, age_ms, caller.ip, caller.user_agent))

    def _notify_refreshed(self, row: SessionRow | SessionFacts, verdict: Verdict, seq: int) -> None:
        if self._listeners:
            word = cast("VerdictWord", verdict.value)  # a refusal is no refresh
            self._listeners.notify(SessionRefreshed(row.sid, row.subject, word, seq))


def _check_types(refresh_token: object, texts: tuple[object, ...], caller: object, proof: object) -> None:
    """Raise ConfigurationError, which names the argument of a refresh that has the wrong type."""
    if not isinstance(refresh_token, str):
        raise wrong_type("refresh_token", "a text", refresh_token)
    if texts != NO_TEXTS:
        for name, value in zip(("idempotency_key", "client_id", "scope"), texts, strict=True):
            if value is not None and not isinstance(value, str):
                raise wrong_type(name, "a text or None", value)
    if not isinstance(caller, Caller):
        raise wrong_type("caller", "a Caller", caller)
    if proof is not None and not isinstance(proof, VerifiedProof):
        raise wrong_type("proof", "what verify_proof returns, or None", proof)


def too_contended(what: str) -> TryLater:
    """Return the error for a request that lost ``MAX_SWAP_TRIES`` races."""
    return TryLater(what, retry_after=CONTENDED_RETRY_SECONDS)


def wrong_client() -> InvalidGrant:
    """Return the error for a token that was issued to another client."""
    return InvalidGrant("this token belongs to another client", reason="wrong_client")


def _not_bound(proof: VerifiedProof | None) -> InvalidProof | InvalidGrant:
    """Return the error for a session that is not bound, of a client whose sessions must be (RFC 9449 §5.2)."""
    if proof is None:
        return refused("missing")
    return InvalidGrant("this client's sessions must be bound to a key: log in again", reason="not_bound")


def _check_binding(row: SessionRow | SessionFacts, binding: SessionBinding) -> None:
    """Raise InvalidGrant for the token of another issuer, audience or client (rule 5)."""
    if not row.is_of(binding.issuer, binding.audience):
        raise InvalidGrant("the refresh token belongs to another issuer or audience", reason="wrong_audience")
    if binding.client_id != (row.client_id or FIRST_PARTY):
        raise wrong_client()


def _unasked_scope(row: SessionRow | SessionFacts) -> TokenScope:
    """Return the scope of a refresh that asks for no part, where the application says nothing about rights."""
    return token_scope(row.scope, None, row.client_id)


def _presented(
    token: RefreshToken, idempotency_key: str | None, caller: Caller, proof: VerifiedProof | None
) -> PresentedToken:
    """Return what this request presents: a token, and who sent it."""
    return PresentedToken(
        token.generation,
        token.branch,
        _hash_of(idempotency_key),
        party_of(caller.ip, caller.user_agent),
        None if proof is None else _base64.decode(proof.jkt),
    )


def _hash_of(idempotency_key: str | None) -> bytes | None:
    """Return what a row stores of an idempotency key; None without one, and for one that is too long."""
    if not idempotency_key or len(idempotency_key) > MAX_IDEMPOTENCY_KEY_CHARS:
        return None
    return hashlib.sha256(idempotency_key.encode("utf-8", "replace")).digest()[:16]


def _unknown() -> InvalidGrant:
    return InvalidGrant("there is no such session", reason="unknown")


def _refused(reason: str) -> InvalidGrant:
    return InvalidGrant(WHY_REFUSED.get(reason, "the session was revoked"), reason=reason)
