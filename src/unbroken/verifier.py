"""Access tokens, verified by services that have neither the server's store nor its secrets.

    at = "https://id.example.org"
    verifier = Verifier(at + "/.well-known/jwks.json", issuer=at, audience="shop")
    claims = verifier.verify(token)            # or: await verifier.averify(token)

1. The rules are the server's own (``server/access_token.py``): RFC 9068 and RFC 8725. What is wrong with a token is
   InvalidToken; TryLater means that this could not be found out, and that the token may be good.
2. The server's public keys are asked for once, and then renewed behind the requests before they go stale. While the
   server does not answer they stay in use for ``keep`` seconds since it last did; then TryLater. A key that the server
   has withdrawn counts no more from the next good answer on.
3. A key that is unknown may be new: the server is asked again, whatever arrives every 5 seconds at most.
4. Keys come over https (loopback excepted), from the URL itself and not from where it redirects to, in bounded time and
   size; which of them count says ``server/published.py``.
5. A revoked session is known by ``revocation``: not at all (then its tokens live until they expire), by
   ``Introspection``, or by ``Feed``. See ``docs/verifier.md``.

Share one object between all threads, tasks and event loops. Forked children go on with the keys that are known.
"""

from __future__ import annotations

import random
import re
import ssl
from typing import Literal

from unbroken._clock import SYSTEM_CLOCK, Clock
from unbroken._http import HttpRequest
from unbroken._sync import run_sync
from unbroken._transport import NotSent, ResponseLost, http_sender
from unbroken._verify.cached import CacheAges, RefreshingValue, at_fork
from unbroken._verify.revocation import Introspection, RevocationCheck, RevocationFeed, answer_of, checked
from unbroken.errors import BadResponse, ConfigurationError, InvalidToken, TryLater
from unbroken.server.keys import access_token
from unbroken.server.keys.access_token import Claims, kid_of
from unbroken.server.keys.remote_jwks import MAX_JWKS_BYTES, RemoteKeySet

__all__ = ["Claims", "Introspection", "RevocationCheck", "RevocationFeed", "Verifier"]

LIFE, SHORTEST, LONGEST = 300.0, 10.0, 3600.0  # seconds that keys stay fresh: without Cache-Control, and at any rate
LONGEST_LEEWAY = 60.0
MAX_AGE = re.compile(r"(?:^|[,\s])max-age=\"?(\d{1,10})")
NOT_KEPT = re.compile(r"(?:^|[,\s])no-(?:store|cache)(?:$|[,\s=])")


class Verifier:
    """Verifies access tokens of *issuer* for *audience*, by the keys at *jwks_url*.

    *revocation*: ``"none"``, an ``Introspection`` or a ``Feed``. Times are in seconds: *keep* is how long keys are used
    without an answer of the server, *timeout* is for one request to it, *leeway* for how far this machine's clock may
    be ahead. *tls* replaces the system's TLS settings.

    Raises ConfigurationError for a URL that is not https (loopback excepted).
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
    ) -> None:
        if isinstance(revocation, str) and revocation != "none":
            raise ConfigurationError(f"revocation is 'none', an Introspection or a Feed, not {revocation!r}")
        if not 0 <= leeway <= LONGEST_LEEWAY:
            raise ConfigurationError(f"a leeway is from 0 to {LONGEST_LEEWAY:g} seconds: set the clock right")
        self._revocation = None if isinstance(revocation, str) else revocation
        self._url, self._send = checked(jwks_url), http_sender(tls, MAX_JWKS_BYTES)
        self.issuer, self.audience = issuer, audience
        self._keep, self._timeout, self._leeway, self._clock = keep, timeout, leeway, clock
        self._kept = RefreshingValue(f"the keys at {jwks_url}", self._look, clock.monotonic, timeout)
        self.forked()
        at_fork(self)

    def __repr__(self) -> str:
        return f"<unbroken.Verifier of {self.issuer} for {self.audience}>"

    def forked(self) -> None:
        """Begins anew what a forked child must not share with its parent."""
        self._rules: tuple[RemoteKeySet | None, access_token.AccessTokenVerifier] = (None, self._new_rules())

    def verify_cached(self, _access_token: str) -> Claims | None:
        """None, always: whether the keys are due, and what was revoked, is ``averify``'s to see."""
        return None

    def verify(self, access_token: str) -> Claims:
        """What a good access token says. Raises InvalidToken (``malformed``, ``expired``, ``revoked``), or TryLater."""
        return run_sync(self.averify(access_token))

    async def averify(self, access_token: str) -> Claims:
        """``verify`` without blocking."""
        claims = await self._genuine(access_token)
        if self._revocation is not None:
            await self._revocation.check(access_token, claims)
        return claims

    async def _genuine(self, token: str) -> Claims:
        keys = await self._kept.now()
        try:
            return self._read(token, keys)
        except InvalidToken:
            kid = kid_of(token)
            if kid is None or keys.verifier(kid) is not None:
                raise
        return self._read(token, await self._kept.newer())

    def _read(self, token: str, keys: RemoteKeySet) -> Claims:
        of, rules = self._rules
        if of is not keys:  # they remember tokens that were verified: of other keys they must know nothing
            _, rules = self._rules = keys, self._new_rules()
        return rules.verify(token, keys, (), self._clock.wall() - self._leeway)

    def _new_rules(self) -> access_token.AccessTokenVerifier:
        return access_token.AccessTokenVerifier(self.issuer, self.audience)

    def _look(self, last: RemoteKeySet | None) -> tuple[RemoteKeySet, CacheAges]:
        try:
            reply = self._send(HttpRequest("GET", self._url, {"accept": "application/json"}), self._timeout)
            found = RemoteKeySet(answer_of(reply, self._url))
        except (NotSent, ResponseLost, BadResponse) as error:
            raise TryLater(str(error)) from error
        life = min(_life(reply.headers.get("cache-control", "")), self._keep)
        behind = life * random.uniform(0.7, 0.8)  # noqa: S311  # many processes shall not ask at the same moment
        return (last if found == last and last is not None else found), CacheAges(behind, life, self._keep)


def _life(cache_control: str) -> float:
    """For how many seconds an answer is fresh (RFC 9111 §5.2.2)."""
    text = cache_control.lower()
    if NOT_KEPT.search(text):
        return SHORTEST
    found = MAX_AGE.search(text)
    return min(max(float(found[1]), SHORTEST), LONGEST) if found else LIFE
