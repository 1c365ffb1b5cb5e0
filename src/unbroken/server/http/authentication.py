"""The authentication of requests, by an access token in the Authorization header or in a cookie.

    authenticator = RequestAuthenticator(sessions, cookies=Cookies("both"), origins=["https://app.example.com"])
    claims = await authenticator.authenticate(request)      # Claims, or the Response that refuses the request

1. A token in the Authorization header counts before a cookie. As ``DPoP`` it comes with a proof (RFC 9449 §7.1). A
   cookie counts only where ``cookies.py`` rule 3 lets it.
2. A request without a token gets a bare challenge, one with a bad token a challenge with the reason, one with too
   little scope, or without the claims that are needed, a 403.
3. With *now*, the scope and the application's claims are those that the subject has now (``Sessions.look_up``): a right
   that was taken away is gone at once. It costs a query, and what ``scopes_of`` and the claims hook cost.
4. The body of a refusal is the object of RFC 6749 §5.2. FastAPI puts it under ``detail``, as it does every error;
   REST framework gets a ``detail`` beside the members of that object.
4. The TLS certificate of the client is what its proxy says, in the header that the ``ProofPolicy`` names.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from unbroken._arguments import checked_class
from unbroken._base64 import decode
from unbroken._concurrency import run_sync
from unbroken.errors import ConfigurationError, InvalidToken, Refused, TryLater
from unbroken.server.core.proof import RequestProof
from unbroken.server.grants.rights import Allowed
from unbroken.server.http.cookies import Cookies, CookieTransport, ambiguous_cookies
from unbroken.server.http.messages import (
    Request,
    Response,
    access_token_of,
    challenge,
    error_response,
    lacks_claims,
)
from unbroken.server.http.origins import AllowedOrigins
from unbroken.server.keys.access_token import Claims
from unbroken.server.proofs.verification import ProofVerifier

__all__ = ["Needs", "RequestAuthenticator", "TokenVerifier", "is_foreign_token", "is_own_token", "require_scope"]

Needs = Mapping[str, object]  # {"role": "admin"}: a claim of the application, and its value
LOOK_UP = "alook_up_within"  # what a ``Sessions`` has, and a ``Verifier`` has not
LookUp = Callable[..., Awaitable[Claims]]

ACCESS_TOKEN_TYPES = ("at+jwt", "application/at+jwt")


class TokenVerifier(Protocol):
    """What verifies access tokens: ``Sessions``, or a ``Verifier`` where the sessions are another service's."""

    issuer: str

    def verify_cached(self, access_token: str) -> Claims | None:
        """Return the claims of a good token that was verified before, if no I/O is due; else None."""

    async def averify(self, access_token: str, proof: RequestProof | None = None, certificate: str = "") -> Claims:
        """Return the claims of a good token. Raise InvalidToken, InvalidProof or TryLater. Never suspends within
        ``run_sync``.

        *proof* is that of a request whose token came as ``DPoP``. Without one, a token that is bound to a key is
        refused. *certificate* is the hash of the client's TLS certificate; without it, a token that is bound to one is
        refused.
        """


@checked_class(own=("verifier",))
class RequestAuthenticator:
    """Finds the access token of a request, and verifies it.

    *cookies* and *origins* are those of the endpoints, *rights* what subjects may have now, where this is not for the
    ``Sessions`` to say. Raise ConfigurationError if *verifier* cannot verify tokens.
    """

    def __init__(
        self,
        verifier: TokenVerifier,
        *,
        cookies: Cookies | None = None,
        origins: Sequence[str] = (),
        rights: Allowed | None = None,
    ) -> None:
        if not callable(getattr(verifier, "averify", None)):
            wrong = type(verifier).__name__
            raise ConfigurationError(f"access tokens are verified by a Sessions or a Verifier, not by a {wrong}")
        self.verifier, self._rights = verifier, rights
        self._cookies = CookieTransport(cookies, AllowedOrigins(origins))

    async def claims(self, request: Request) -> Claims | None:
        """Return the claims of the request's token; None without a token.

        Raise InvalidToken, InvalidProof, Forbidden for a cookie that does not count, InvalidRequest for cookies of
        several sessions, or TryLater.
        """
        scheme, token = access_token_of(request)  # rule 1
        if scheme == "bearer":
            return await self.verify_token(request, token)
        if scheme == "dpop":
            return await self._proven(request, token)
        tokens = self._cookies.access_tokens(request)
        return await self._newest_of(request, tokens) if tokens else None

    async def verify_token(self, request: Request, token: str, proof: RequestProof | None = None) -> Claims:
        """Return the claims of a *token* that came with *request* and its TLS certificate. Raise as ``claims``."""
        proofs: ProofVerifier | None = getattr(self.verifier, "proofs", None)
        certificate = "" if proofs is None else proofs.certificate_in(request.headers)  # rule 4
        if certificate:
            return await self.verifier.averify(token, proof, certificate)
        return await (self.verifier.averify(token) if proof is None else self.verifier.averify(token, proof))

    async def authenticate(self, request: Request, *, scope: str = "") -> Claims | Response:
        """Return the claims of the request's token, or the response that refuses the request (rule 2)."""
        try:
            return require_scope(await self.claims(request) or challenge(None), scope)
        except (Refused, TryLater, ConfigurationError) as error:
            return error_response(error)

    def authenticate_blocking(self, request: Request, *, scope: str = "") -> Claims | Response:
        """Return what ``authenticate`` returns, without an event loop."""
        return run_sync(self.authenticate(request, scope=scope))

    async def check(
        self, found: Claims | Response, *, scope: str = "", claims: Needs | None = None, now: bool = False
    ) -> Claims | Response:
        """Return *found* if it has *scope* and *claims*, with *now* those of now (rule 3), or else the refusal."""
        if now and isinstance(found, Claims):
            try:
                found = await self._looked_up(found)
            except (Refused, TryLater, ConfigurationError) as error:
                return error_response(error)
        return require_scope(found, scope, claims)

    def check_need(self, *, now: bool) -> None:
        """Raise ConfigurationError for a route that needs the rights of *now* where they cannot be looked up."""
        if now and not hasattr(self.verifier, LOOK_UP):
            raise ConfigurationError("a Verifier cannot look up rights: leave out now=True, or ask a Sessions")

    async def _looked_up(self, claims: Claims) -> Claims:
        self.check_need(now=True)
        look_up: LookUp = getattr(self.verifier, LOOK_UP)
        return await look_up(claims, self._rights)

    async def require(self, request: Request) -> Claims:
        """Return the claims of the request's token. Raise as ``claims``, and InvalidToken without a token."""
        claims = await self.claims(request)
        if claims is None:
            raise InvalidToken("an access token is required", reason="missing")
        return claims

    def next_nonce(self, request: Request) -> str:
        """Return the header ``DPoP-Nonce`` of a good response (RFC 9449 §8.2): the nonce for the client's next proof.

        Empty where *request* had no proof, or proofs need none.
        """
        proofs: ProofVerifier | None = getattr(self.verifier, "proofs", None)
        return proofs.newest_nonce() if proofs is not None and "dpop" in request.headers else ""

    async def _proven(self, request: Request, token: str) -> Claims:
        try:
            return await self.verify_token(request, token, request.proof_or_none_sent)
        except InvalidToken as error:
            error.scheme = "DPoP"
            raise

    async def _newest_of(self, request: Request, tokens: tuple[str, ...]) -> Claims:
        """Return the claims of the good one of *tokens*, of several good ones of one session the newest."""
        good, errors = list[Claims](), list[InvalidToken]()
        for token in tokens:
            try:
                good.append(await self.verify_token(request, token))
            except InvalidToken as error:
                errors.append(error)
        if not good:
            raise min(errors, key=lambda error: error.reason != "expired")
        if len({claims.sid for claims in good}) > 1:
            raise ambiguous_cookies()
        return max(good, key=lambda claims: claims.expires_at)


def require_scope(found: Claims | Response, scope: str, claims: Needs | None = None) -> Claims | Response:
    """Return *found* if it has all of *scope* and *claims*, otherwise the response that refuses the request.

    *claims*: names of the application's claims, and the value that each must have, or have in its list.
    """
    if isinstance(found, Response) or not (scope or claims):
        return found
    scheme = "DPoP" if found.jkt else "Bearer"
    if not found.has_scope(scope):
        return challenge(None, scope=scope, scheme=scheme)
    if claims and not found.has_claims(claims):
        return lacks_claims(list(claims), scheme)
    return found


def is_foreign_token(token: str, issuer: str) -> bool:
    """Return whether *token* is plainly another issuer's: a JWT with another ``typ`` or another ``iss``.

    It verifies nothing. For applications in which two kinds of access tokens work side by side.
    """
    labels = _labels(token)
    return labels is not None and not _are_own(labels, issuer)


def is_own_token(token: str, issuer: str) -> bool:
    """Return whether *token* says that it is an access token of *issuer*. It verifies nothing."""
    labels = _labels(token)
    return labels is not None and _are_own(labels, issuer)


def _labels(token: str) -> tuple[str, object] | None:
    """Return the ``typ`` and the ``iss`` of a JWT; None for what is none."""
    try:
        header, payload = (_json_object(part) for part in token.split(".")[:2])
    except (ValueError, TypeError, RecursionError):
        return None
    return str(header.get("typ", "")).lower(), payload.get("iss")


def _are_own(labels: tuple[str, object], issuer: str) -> bool:
    return labels[0] in ACCESS_TOKEN_TYPES and labels[1] == issuer


def _json_object(part: str) -> dict[str, object]:
    value = json.loads(decode(part))
    if not isinstance(value, dict):
        raise TypeError
    return value
