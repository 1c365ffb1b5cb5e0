"""Access tokens, verified by services that have neither the server's store nor its secrets.

    url = "https://id.example.org"
    verifier = Verifier(url + "/.well-known/jwks.json", issuer=url, audience="shop")
    claims = verifier.verify(token)            # or: await verifier.averify(token)

1. The rules are the server's own (``server/keys/access_token.py``): RFC 9068 and RFC 8725. A bad token is InvalidToken.
   TryLater means that the token could not be verified now, and may be good.
2. The server's public keys are fetched once, and then refreshed in the background before they go stale. While the
   server does not respond they stay usable for ``keep`` seconds since the last success; then TryLater. A key that the
   server has withdrawn stops counting with the next success.
3. A token with an unknown key may be signed by a new one: then the keys are fetched again, every 5 seconds at most.
4. Keys come over https (loopback excepted), from the URL itself and never from a redirect, in bounded time and size.
   ``server/keys/remote_jwks.py`` says which of them count.
5. ``revocation`` decides how a revoked session is noticed: not at all (then its tokens live until they expire), by
   ``Introspection``, or by ``RevocationFeed``. See ``docs/verifier.md``.
6. A token that is bound to a key of its client counts only with a proof of this key (RFC 9449): ``proofs`` says what a
   proof must be, above all the URL at which clients see this service.

Share one object between all threads, tasks and event loops. A forked child keeps the keys that are known.
"""

from __future__ import annotations

import random
import re
import ssl
from typing import Literal

from unbroken._arguments import checked_class
from unbroken._concurrency import register_fork_aware, run_sync
from unbroken._http import HttpRequest, NotSent, ResponseLost
from unbroken._time import SYSTEM_CLOCK, Clock
from unbroken._transport import http_sender
from unbroken._verify.cached import CacheAges, RefreshingValue
from unbroken._verify.revocation import Introspection, RevocationCheck, RevocationFeed, checked_url, json_of
from unbroken.errors import BadResponse, ConfigurationError, InvalidToken, TryLater
from unbroken.server.core.proof import RequestProof
from unbroken.server.keys import access_token
from unbroken.server.keys.access_token import Claims, kid_of
from unbroken.server.keys.remote_jwks import MAX_JWKS_BYTES, RemoteKeySet
from unbroken.server.proofs.nonces import OwnNonceKey
from unbroken.server.proofs.policy import ProofPolicy
from unbroken.server.proofs.verification import ProofVerifier, check_bound, check_proof_type
from unbroken.server.stores import SessionStore
from unbroken.server.stores.base import run_inline

__all__ = ["Claims", "Introspection", "ProofPolicy", "RequestProof", "RevocationCheck", "RevocationFeed", "Verifier"]

DEFAULT_FRESH_SECONDS = 300.0  # without Cache-Control
MIN_FRESH_SECONDS, MAX_FRESH_SECONDS = 10.0, 3600.0  # whatever Cache-Control says
MAX_LEEWAY_SECONDS = 60.0
MIN_NONCE_SECRET_BYTES = 32
MAX_AGE = re.compile(r"(?:^|[,\s])max-age=\"?(\d{1,10})")
NOT_CACHED = re.compile(r"(?:^|[,\s])no-(?:store|cache)(?:$|[,\s=])")


@checked_class(own=("revocation",))
class Verifier:
    """Verifies access tokens of *issuer* for *audience*, by the keys at *jwks_url*.

    *revocation*: ``"none"``, an ``Introspection`` or a ``RevocationFeed``. Times are in seconds: *keep*, how long keys
    are used while the server does not respond; *timeout*, for one request to it; *leeway*, how far the clock of this
    machine may be ahead, or behind. *tls* replaces the system's TLS settings.

    *proofs*: ``public_url`` is that of this service; without it, proofs count on loopback only. ``require_nonce`` needs
    a *nonce_secret* of 32 bytes or more, the same for all processes of the service. *replay_store* is a store that all
    of them share, so that a proof is good once for all: ``open_store("redis://…")``. Without it, for each process.

    Raises ConfigurationError for a URL that is not https (loopback excepted), and for nonces without a secret.
    """

    def __init__(
        self,
        jwks_url: str,
        *,
        issuer: str,
        audience: str,
        revocation: Literal["none"] | RevocationCheck = "none",
        keep: float = 3600.0,
        timeout: float = 5.0,
        leeway: float = 0.0,
        tls: ssl.SSLContext | None = None,
        clock: Clock = SYSTEM_CLOCK,
        proofs: ProofPolicy = ProofPolicy(),
        nonce_secret: bytes | None = None,
        replay_store: SessionStore | None = None,
    ) -> None:
        if revocation != "none" and not callable(getattr(revocation, "check", None)):
            raise ConfigurationError(f"revocation is 'none', an Introspection or a RevocationFeed, not {revocation!r}")
        if not 0 <= leeway <= MAX_LEEWAY_SECONDS:
            raise ConfigurationError(f"leeway must be from 0 to {MAX_LEEWAY_SECONDS:g} seconds: set the clock right")
        self._revocation = None if isinstance(revocation, str) else revocation
        self._url, self._send = checked_url(jwks_url), http_sender(tls, max_body_bytes=MAX_JWKS_BYTES)  # rule 4
        self.issuer, self.audience = issuer, audience
        self._keep, self._timeout, self._leeway, self._clock = keep, timeout, leeway, clock
        self.proofs = _proof_verifier(proofs, nonce_secret, replay_store, clock)
        self._replay_store = replay_store
        self._keys = RefreshingValue(f"the keys at {jwks_url}", self._fetch_keys, clock.monotonic, timeout)
        self.reset_after_fork()
        register_fork_aware(self)

    def __repr__(self) -> str:
        return f"<unbroken.Verifier of {self.issuer} for {self.audience}>"

    def reset_after_fork(self) -> None:
        """Replace what a forked child must not share with its parent."""
        self._rules: tuple[RemoteKeySet | None, access_token.AccessTokenVerifier] = (None, self._new_rules())

    def verify_cached(self, _access_token: str) -> Claims | None:
        """Return None: only ``averify`` can tell whether the keys are due, and what was revoked."""
        return None

    def verify(self, access_token: str, proof: RequestProof | None = None, certificate: str = "") -> Claims:
        """Return the claims of a good token.

        Raise InvalidToken: ``malformed``, ``expired`` or ``revoked``; or TryLater. *proof* is that of the request,
        where the token came as ``Authorization: DPoP``: a token that is bound to a key is refused without it
        (InvalidToken), and with one that does not fit (InvalidProof). *certificate* is the SHA-256, in base64url, of
        the TLS certificate that the client has shown, for tokens that are bound to one.
        """
        return run_sync(self.averify(access_token, proof, certificate))

    async def averify(self, access_token: str, proof: RequestProof | None = None, certificate: str = "") -> Claims:
        """Return what ``verify`` returns, without blocking."""
        check_proof_type(proof, certificate)
        claims = await self._verify_signature(access_token)
        if self._revocation is not None:
            await self._revocation.check(access_token, claims)  # rule 5
        if self._replay_store is None or proof is None:
            await check_bound(self.proofs, claims, access_token, proof, certificate)
        else:
            store = self._replay_store
            await run_inline(store, lambda: check_bound(self.proofs, claims, access_token, proof, certificate))
        return claims

    async def _verify_signature(self, token: str) -> Claims:
        keys = await self._keys.get()  # rule 2
        try:
            return self._verify_by(keys, token)
        except InvalidToken:
            kid = kid_of(token)
            if kid is None or keys.verifier(kid) is not None:
                raise
        return self._verify_by(await self._keys.get_newer(), token)  # rule 3

    def _verify_by(self, keys: RemoteKeySet, token: str) -> Claims:
        rules_of, rules = self._rules
        if rules_of is not keys:  # the rules cache verified tokens: those of other keys must not count
            _, rules = self._rules = keys, self._new_rules()
        return rules.verify(token, keys, (), self._clock.wall())  # rule 1

    def _new_rules(self) -> access_token.AccessTokenVerifier:
        return access_token.AccessTokenVerifier(self.issuer, self.audience, self._leeway)

    def _fetch_keys(self, last: RemoteKeySet | None) -> tuple[RemoteKeySet, CacheAges]:
        try:
            response = self._send(HttpRequest("GET", self._url, {"accept": "application/json"}), self._timeout)
            keys = RemoteKeySet(json_of(response, self._url))
        except (NotSent, ResponseLost, BadResponse) as error:
            raise TryLater(str(error)) from error
        fresh = min(_fresh_seconds(response.headers.get("cache-control", "")), self._keep)
        background = fresh * random.uniform(0.7, 0.8)  # noqa: S311  # so that processes do not ask at the same moment
        return (last if keys == last and last is not None else keys), CacheAges(background, fresh, self._keep)


def _proof_verifier(
    policy: ProofPolicy, nonce_secret: bytes | None, store: SessionStore | None, clock: Clock
) -> ProofVerifier:
    if policy.require_nonce and len(nonce_secret or b"") < MIN_NONCE_SECRET_BYTES:
        raise ConfigurationError(
            f"require_nonce needs a nonce_secret of {MIN_NONCE_SECRET_BYTES} bytes or more, the same for all processes"
        )
    keys = OwnNonceKey(nonce_secret or b"")
    return ProofVerifier(policy, None, lambda: keys, clock.wall, store)


def _fresh_seconds(cache_control: str) -> float:
    """Return for how many seconds a response is fresh (RFC 9111 §5.2.2)."""
    text = cache_control.lower()
    if NOT_CACHED.search(text):
        return MIN_FRESH_SECONDS
    found = MAX_AGE.search(text)
    return min(max(float(found[1]), MIN_FRESH_SECONDS), MAX_FRESH_SECONDS) if found else DEFAULT_FRESH_SECONDS
