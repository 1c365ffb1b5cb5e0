"""Sessions: the server's end. Create, refresh, verify, log out; ``SessionAdmin`` lists, ``KeyAdmin`` rotates keys.

1. Every operation has two spellings. ``acreate`` awaits; ``create`` blocks and needs no event loop. The awaiting one is
   the implementation, the blocking one runs it by ``run_sync``. An awaiting one within ``run_sync`` blocks too: so code
   that is written once serves both.
2. In an event loop, what writes durably to a store that blocks (login, logout, revocation: they wait for the disk) runs
   in a worker thread: ``@in_worker``. What is quick runs inline, and in a thread only if another process locks the
   store: ``@inline``. A store that awaits needs neither.
3. ``verify`` and ``refresh`` are on the path of every request and of every refresh: both their spellings are written
   out, without the wrapper in between.
4. Whatever is done with a token of a bound session needs a proof of its key (``core/proof.py``), a logout too. To
   manage sessions by their ids or their subject is a right of its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Collection
from functools import cache
from time import monotonic
from urllib.parse import urlsplit

from unbroken._arguments import checked_class
from unbroken._bounded_cache import BoundedCache
from unbroken._concurrency import Closeable, in_sync_context, run_sync
from unbroken._encryption import EncryptionKey
from unbroken.errors import ConfigurationError, InvalidToken, TryLater
from unbroken.server.core.events import EventListener
from unbroken.server.core.proof import RequestProof
from unbroken.server.core.rotation import FIRST_PARTY, Policy
from unbroken.server.core.session_info import Caller, NewSession, RefreshInspection, SessionInfo
from unbroken.server.freshness import KeyAndRevocationCache
from unbroken.server.grants.current_rights import CurrentRights
from unbroken.server.grants.refresh_grant import RefreshGrant, wrong_client
from unbroken.server.grants.rights import Allowed, ScopesOf, rights_of
from unbroken.server.grants.session_creator import SessionCreator
from unbroken.server.grants.tickets import Ticket, TicketIssuer
from unbroken.server.grants.token_issuer import ClaimsHook, TokenIssuer
from unbroken.server.key_admin import KeyAdmin
from unbroken.server.keys.access_token import AccessTokenVerifier, Claims, kid_of
from unbroken.server.keys.proof_token import refused
from unbroken.server.listeners import listeners_of
from unbroken.server.proofs.policy import Binding, ProofPolicy, valid_policy
from unbroken.server.proofs.verification import ProofVerifier, VerifiedProof, check_bound_here, check_proof_type
from unbroken.server.session_admin import SessionAdmin
from unbroken.server.stores import SessionStore, open_store
from unbroken.server.stores.base import in_worker, inline, run_in_worker, run_inline
from unbroken.server.stores.encrypted_keys import encrypted_by_default
from unbroken.server.worker_pool import STORE_POOL
from unbroken.tokens import TokenResponse

__all__ = ["SessionInfo", "Sessions"]

DEVELOPMENT_ISSUER = "http://127.0.0.1:8400"  # where ``unbroken serve`` listens
MAX_REMEMBERED_USES = 10_000
_log = logging.getLogger("unbroken")


# The blocking spellings run these.
@checked_class("acreate", "ainspect_refresh", "aticket", "alogout", "_verify_proof")
class Sessions(SessionAdmin, KeyAdmin, Closeable):
    """All sessions of one server, for any number of threads and tasks.

    *store* is a store, or the URL of one: ``sqlite:///app.db``. *policy* says how long tokens and sessions live.
    *issuer* is the public URL of this server; it stands in every access token. Without it, tokens name the address of a
    development server, and the first login logs a warning.
    *scopes_of* returns the scope that a subject may have now, and *claims* further claims for the access tokens of a
    session. Both are asked whenever a token is made, and may be plain or async; if one raises, no token is issued and
    nothing is spent. *on_event* is one listener or several. *confirm_first_use*: the first use of an access token
    settles its branch at once, for servers whose clients store tokens before they use them. *encryption_key*, or
    several with the newest first, encrypts the keys in the store, so that a dump of it makes no token; ``"none"``
    leaves them as they are. It is not needed for SQLite, which gets a file with a key beside it, and for a store in
    memory; elsewhere it may also be in the environment, as UNBROKEN_ENCRYPTION_KEY. *proofs*: which clients bind their
    sessions to a key, and what a proof of it must be (RFC 9449); a word is that of ``ProofPolicy.binding``. *clock*
    returns the time of day, in seconds.

    Raise ConfigurationError for a store, an issuer or an encryption key that cannot be used, and StoreUnavailable for
    a store that does not respond. ``close`` it, or use it as a context manager.
    """

    def __init__(
        self,
        store: SessionStore | str,
        *,
        policy: Policy = Policy(),
        issuer: str | None = None,
        audience: str = "unbroken",
        scopes_of: ScopesOf | None = None,
        claims: ClaimsHook | None = None,
        on_event: EventListener | Collection[EventListener] | None = None,
        confirm_first_use: bool = False,
        encryption_key: EncryptionKey | None = None,
        proofs: ProofPolicy | Binding = ProofPolicy(),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._has_no_issuer = issuer is None
        self.issuer = DEVELOPMENT_ISSUER if issuer is None else _checked_issuer(issuer)
        self.audience, self.policy = audience, policy
        opened = open_store(store) if isinstance(store, str) else _checked_store(store)
        store, listeners = encrypted_by_default(opened, encryption_key), listeners_of(on_event)
        token_ttls = {"sign": policy.access_ttl, "mac": policy.refresh_ttl}
        freshness = KeyAndRevocationCache(store, token_ttls, clock)
        token_issuer = TokenIssuer(freshness, policy, self.issuer, audience, claims)
        super().__init__(store, freshness, token_issuer, listeners, clock)
        self.rights = None if scopes_of is None else rights_of(scopes_of)
        self._creator = SessionCreator(store, policy, freshness, token_issuer, listeners, clock)
        self.proofs = ProofVerifier(valid_policy(proofs), issuer, lambda: freshness.keyring, clock, store)
        self._refresh_grant = RefreshGrant(
            store, policy, freshness, token_issuer, listeners, clock, self.proofs, self.rights
        )
        self._current_rights = CurrentRights(store, token_issuer, clock)
        self._tickets = TicketIssuer(store, freshness, self.issuer, audience, clock)
        self._verifier = AccessTokenVerifier(self.issuer, audience)
        self._confirms_first_use = confirm_first_use
        self._confirmed_uses: BoundedCache[tuple[str, int], None] = BoundedCache(MAX_REMEMBERED_USES)

    # ---- tokens --------------------------------------------------------------------------------------------------

    def create(
        self,
        subject: str,
        *,
        client_id: str = FIRST_PARTY,
        scope: str = "",
        label: str = "",
        coordinated: bool = False,
        caller: Caller = Caller(),
        proof: VerifiedProof | None = None,
    ) -> TokenResponse:
        """Return the tokens of a new session of *subject*, who has been authenticated.

        *coordinated*: the client stores its idempotency keys and shares them, as unbroken's own client does (see
        ``NewSession``). *proof* binds the session to the key that was proven. Raise ConfigurationError for a subject
        that fits into no token, InvalidProof if this client must send a proof.
        """
        about = {"client_id": client_id, "scope": scope, "label": label}
        return run_sync(self.acreate(subject, **about, coordinated=coordinated, caller=caller, proof=proof))

    async def acreate(
        self,
        subject: str,
        *,
        client_id: str = FIRST_PARTY,
        scope: str = "",
        label: str = "",
        coordinated: bool = False,
        caller: Caller = Caller(),
        proof: VerifiedProof | None = None,
    ) -> TokenResponse:
        """``create`` for event loops."""
        new = NewSession(client_id, scope, label, coordinated)
        return await self._create(subject, new, caller, self.rights, None, proof)

    async def acreate_unless(
        self,
        subject: str,
        new: NewSession,
        caller: Caller,
        *,
        rights: Allowed | None = None,
        voided: Callable[[], Awaitable[bool]] | None = None,
        proof: VerifiedProof | None = None,
    ) -> TokenResponse:
        """``acreate`` for login endpoints: raises LoginRefused if the login was voided while it was under way.

        *voided* is awaited once the session is stored and before listeners are notified. If it returns True, the
        session is revoked. Within ``run_sync`` it must not suspend. *rights* replaces those of this object.
        """
        return await self._create(subject, new, caller, rights or self.rights, voided, proof)

    async def _create(
        self,
        subject: str,
        new: NewSession,
        caller: Caller,
        rights: Allowed | None,
        voided: Callable[[], Awaitable[bool]] | None,
        proof: VerifiedProof | None,
    ) -> TokenResponse:
        if self._has_no_issuer:
            _warn_of_development_issuer()
        if proof is None and self.proofs.policy.binding_of(new.client_id) == "required":
            raise refused("missing")
        if proof is not None:
            await run_in_worker(self.store, lambda: self.proofs.spend(proof))
        jkt = "" if proof is None else proof.jkt
        return await self._creator.create(subject, new._replace(jkt=jkt), caller, rights, voided)

    def refresh(
        self,
        refresh_token: str,
        *,
        idempotency_key: str | None = None,
        client_id: str | None = None,
        scope: str | None = None,
        caller: Caller = Caller(),
        proof: VerifiedProof | None = None,
    ) -> TokenResponse:
        """Return new tokens for a refresh token (RFC 6749 §6). Raise InvalidGrant, InvalidScope or TryLater.

        A session that is bound to a key needs a *proof* of this key: without it raises InvalidProof.

        The same *idempotency_key* always gets the same tokens. *client_id* must be that of the session; only for the
        server's own client it may be left out. *scope* narrows the access token. A session of another issuer or
        audience on the same store is refused.
        """
        grant = self._refresh_grant
        return run_sync(grant.refresh(refresh_token, idempotency_key, client_id, scope, caller, proof=proof))

    async def arefresh(
        self,
        refresh_token: str,
        *,
        idempotency_key: str | None = None,
        client_id: str | None = None,
        scope: str | None = None,
        caller: Caller = Caller(),
        proof: VerifiedProof | None = None,
    ) -> TokenResponse:
        """``refresh`` for event loops."""
        grant = self._refresh_grant
        return await grant.refresh(refresh_token, idempotency_key, client_id, scope, caller, proof=proof)

    async def arefresh_within(
        self,
        refresh_token: str,
        rights: Allowed | None,
        *,
        idempotency_key: str | None = None,
        client_id: str | None = None,
        scope: str | None = None,
        caller: Caller = Caller(),
        proof: VerifiedProof | None = None,
    ) -> TokenResponse:
        """``arefresh`` for endpoints with *rights* of their own, which replace those of this object."""
        grant = self._refresh_grant
        return await grant.refresh(refresh_token, idempotency_key, client_id, scope, caller, rights, proof)

    def inspect_refresh(self, refresh_token: str) -> RefreshInspection | None:
        """Return the session of a refresh token and whether the token is usable now; None unless it is genuine."""
        return run_sync(self.ainspect_refresh(refresh_token))

    async def ainspect_refresh(self, refresh_token: str) -> RefreshInspection | None:
        """``inspect_refresh`` for event loops."""
        return await self._refresh_grant.inspect(refresh_token)

    def verify_proof(self, proof: RequestProof | None, access_token: str = "") -> VerifiedProof:
        """Return the verified *proof* of a request, for ``create``, ``refresh`` and ``logout``.

        *access_token*: the one that came with it, as ``Authorization: DPoP``. Raise InvalidProof, or NonceRequired.
        """
        return run_sync(self._verify_proof(proof, access_token))

    async def averify_proof(self, proof: RequestProof | None, access_token: str = "") -> VerifiedProof:
        """``verify_proof`` for event loops."""
        return await run_inline(self.store, lambda: self._verify_proof(proof, access_token))

    async def _verify_proof(self, proof: RequestProof | None, access_token: str) -> VerifiedProof:
        check_proof_type(proof)
        if monotonic() > self._freshness.fresh_until:  # the keys of nonces
            await self._freshness.refresh_if_due()
        return self.proofs.verify(proof, access_token)

    def verify(self, access_token: str, proof: RequestProof | None = None, certificate: str = "") -> Claims:
        """Return the claims of a good access token. Raise InvalidToken: ``malformed``, ``expired`` or ``revoked``.

        *proof* is that of the request, where the token came as ``Authorization: DPoP``. A token that is bound to a key
        is refused without it (InvalidToken), and with one that does not fit (InvalidProof). *certificate* is the
        SHA-256, in base64url, of the TLS certificate that the client has shown, for tokens that are bound to one.
        """
        # The look-up costs less than a coroutine that does it (rule 3).
        claims = (
            self.verify_cached(access_token) if proof is None else self._verify_here(access_token, proof, certificate)
        )
        return claims or run_sync(self._verify(access_token, proof, certificate))

    async def averify(self, access_token: str, proof: RequestProof | None = None, certificate: str = "") -> Claims:
        """``verify`` for event loops."""
        claims = (
            self.verify_cached(access_token) if proof is None else self._verify_here(access_token, proof, certificate)
        )
        if claims is not None:
            return claims
        return await run_inline(self.store, lambda: self._verify(access_token, proof, certificate))

    def inspect_access(self, access_token: str) -> Claims:
        """Return the claims of a good access token, to report on it (RFC 7662), not to let its holder in.

        Raise InvalidToken as ``verify`` does, but needs no proof.
        """
        return run_sync(self._inspect_access(access_token))

    @inline
    async def ainspect_access(self, access_token: str) -> Claims:
        """``inspect_access`` for event loops."""
        return await self._inspect_access(access_token)

    def verify_cached(self, access_token: str) -> Claims | None:
        """Return the claims of a good access token that was verified before, if no I/O is due; else None.

        None for a token that is bound to a key or a certificate: it needs a proof.
        """
        freshness = self._freshness
        if self._confirms_first_use or monotonic() > freshness.fresh_until:
            return None
        try:
            return self._verifier.verify_cached(access_token, freshness.revoked, self.clock())
        except TypeError:  # it is not even a text
            return None

    def _verify_here(self, access_token: str, proof: RequestProof, certificate: str) -> Claims | None:
        """Return what ``verify`` does, if *access_token* was verified before and no I/O is due; else None."""
        check_proof_type(proof, certificate)
        freshness, proofs = self._freshness, self.proofs
        if self._confirms_first_use or monotonic() > freshness.fresh_until or not isinstance(access_token, str):
            return None
        if proofs.is_shared(proof.method, at_resource=True):
            return None
        claims = self._verifier.verify_cached(access_token, freshness.revoked, self.clock(), has_proof=True)
        if claims is not None:
            check_bound_here(proofs, claims, access_token, proof, certificate)
        return claims

    async def _verify(self, access_token: str, proof: RequestProof | None, certificate: str = "") -> Claims:
        check_proof_type(proof, certificate)
        claims = await self._inspect_access(access_token)
        if verified := check_bound_here(self.proofs, claims, access_token, proof, certificate):
            await self.proofs.spend(verified, at_resource=True)
        if self._confirms_first_use:
            await self._confirm(claims)
        return claims

    async def _inspect_access(self, access_token: str) -> Claims:
        freshness = self._freshness
        if monotonic() > freshness.fresh_until:
            await freshness.refresh_if_due()
        try:
            return self._verifier.verify(access_token, freshness.keyring, freshness.revoked, self.clock())
        except InvalidToken:
            if not await freshness.refresh_for_unknown_key(kid_of(access_token)):
                raise
            return self._verifier.verify(access_token, freshness.keyring, freshness.revoked, self.clock())

    async def _confirm(self, claims: Claims) -> None:
        """Record the first use of an access token, once a generation for each process.

        If the store cannot, the token is good all the same, and its next use is recorded.
        """
        use, is_recorded = (claims.sid, claims.generation), False
        if use in self._confirmed_uses:
            return
        self._confirmed_uses.put(use, None)
        try:
            await self.store.record_first_use(claims.sid, claims.generation, claims.branch)
            is_recorded = True
        except TryLater:
            pass
        finally:
            if not is_recorded:
                self._confirmed_uses.discard(use)

    def look_up(self, claims: Claims) -> Claims:
        """Return *claims* with the scope and the claims that their subject has now, and not when the token was made.

        Raise InvalidToken if the session is over, or TryLater. It costs a query.
        """
        return run_sync(self.alook_up(claims))

    async def alook_up(self, claims: Claims) -> Claims:
        """``look_up`` for event loops."""
        return await self._current_rights.of(claims, self.rights)

    async def alook_up_within(self, claims: Claims, rights: Allowed | None) -> Claims:
        """``alook_up`` for endpoints with *rights* of their own, which replace those of this object."""
        return await self._current_rights.of(claims, rights or self.rights)

    def ticket(self, access: str | Claims) -> Ticket:
        """Return a ticket for one connection that a browser opens without headers; it goes into the URL.

        *access* is a good access token, or the claims of one: those of a token that is bound to a key, once its proof
        was verified. Raise InvalidToken as ``verify`` does.
        """
        return run_sync(self.aticket(access))

    @inline
    async def aticket(self, access: str | Claims) -> Ticket:
        """``ticket`` for event loops."""
        return await self._tickets.issue(access if isinstance(access, Claims) else await self._verify(access, None))

    def redeem(self, ticket: str) -> Claims:
        """Return the claims of the access token that *ticket* was made from, once on all nodes.

        Raise InvalidToken (``malformed``, ``expired``, ``revoked`` or ``used``), or TryLater without the store.
        """
        return run_sync(self.aredeem(ticket))

    @inline
    async def aredeem(self, ticket: str) -> Claims:
        """``redeem`` for event loops."""
        return await self._tickets.redeem(ticket)

    def logout(
        self,
        *,
        access_token: str | None = None,
        refresh_token: str | None = None,
        client_id: str | None = None,
        proof: VerifiedProof | None = None,
    ) -> bool:
        """Revoke the sessions of these tokens, and return whether there are any. Old genuine tokens count as well.

        With *client_id*, raises InvalidGrant for a session of another client. A session that is bound to a key ends
        only with a *proof* of this key: otherwise raises InvalidProof, and nothing is revoked (rule 4).
        """
        return run_sync(
            self.alogout(access_token=access_token, refresh_token=refresh_token, client_id=client_id, proof=proof)
        )

    @in_worker
    async def alogout(
        self,
        *,
        access_token: str | None = None,
        refresh_token: str | None = None,
        client_id: str | None = None,
        proof: VerifiedProof | None = None,
    ) -> bool:
        """``logout`` for event loops."""
        await self._freshness.refresh_if_due()
        owners: dict[str, Claims | SessionInfo] = {}
        if access_token is not None and (claims := await self._claims_of(access_token)):
            owners[claims.sid] = claims
        if refresh_token is not None and (found := await self._refresh_grant.inspect(refresh_token)):
            owners[found.session.sid] = found.session
        if client_id is not None and not {owner.client_id for owner in owners.values()} <= {client_id}:
            raise wrong_client()
        await self.proofs.check_may_end({owner.jkt for owner in owners.values() if owner.jkt}, proof)
        for sid in owners:
            await self._revoke("logged_out", sid=sid)
        return bool(owners)

    async def _claims_of(self, access_token: str) -> Claims | None:
        """Return the claims of a genuine access token, however old; else None."""
        await self._freshness.refresh_for_unknown_key(kid_of(access_token))
        try:
            return self._verifier.verify_signature(access_token, self._freshness.keyring, self.clock())
        except InvalidToken:
            return None

    # ---- the end -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop listening to the store's notifications, and close the store."""
        self._freshness.listener.stop()
        self.store.close()

    async def aclose(self) -> None:
        """``close`` for event loops. It also closes the connections of the running loop."""
        if in_sync_context():
            self.close()
            return
        await STORE_POOL.run(self._freshness.listener.stop)
        await self.store.aclose()


OPERATIONS = tuple(name for name, value in vars(SessionStore).items() if not name.startswith("_") and callable(value))


def _checked_store(store: SessionStore) -> SessionStore:
    """Return *store*. Raise ConfigurationError for anything else."""
    missing = [name for name in OPERATIONS if not callable(getattr(store, name, None))]
    if missing or isinstance(store, type):
        what = store.__name__ if isinstance(store, type) else type(store).__name__
        raise ConfigurationError(
            f"Sessions needs a store, such as SqliteSessionStore('app.db'), or its URL: not {what}"
        )
    return store


@cache
def _warn_of_development_issuer() -> None:
    """Log once in a process that tokens name a development server."""
    _log.warning("no issuer is set: access tokens name %s. Set issuer to this server's public URL", DEVELOPMENT_ISSUER)


def _checked_issuer(issuer: str) -> str:
    """Return *issuer*. Raise ConfigurationError unless it is a URL without query and fragment (RFC 8414 §2)."""
    try:
        parts = urlsplit(issuer)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)
    except (ValueError, TypeError, AttributeError):
        is_url = False
    if not is_url:
        raise ConfigurationError("issuer must be the public URL of this server, as https://id.example.com")
    return issuer
