"""The proofs of one session: signed anew for each try, with what its servers have told (RFC 9449).

1. Each try of each request has a proof of its own: a new ``jti`` of 128 random bits, also with the same idempotency
   key.
2. Of each origin the newest nonce is kept, and how far its clock is from ours: of ``MAX_ORIGINS``, in this process.
3. A request is repeated once for another proof: with the nonce that was asked for, or by the server's clock. The second
   response is final.
4. Own requests to the server always tell its clock. A response of the API is asked for it only if it refuses a proof.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from unbroken import _base64
from unbroken._bounded_cache import BoundedCache
from unbroken._http import HttpRequest, HttpResponse
from unbroken.client.core.proof import (
    NONCE_REQUIRED,
    PROOF_HEADER,
    clock_offset,
    htu_of,
    nonce_in,
    origin_in,
    proof_claims,
    proof_error,
)
from unbroken.client.core.request_flow import ProofWish, SentResponse
from unbroken.client.proof_key import ProofKey
from unbroken.errors import BadResponse, SessionOver
from unbroken.tokens import TokenResponse, Tokens, jwt_thumbprint

__all__ = ["Prover", "check_bound_to"]

MAX_ORIGINS = 100
JTI_BYTES = 16


class _Known(NamedTuple):
    """What one origin has told: its nonce, and the seconds that its clock is ahead of ours."""

    nonce: str = ""
    clock_offset: float = 0.0


NOTHING = _Known()


class Prover:
    """Signs the proofs of one session with *key*, for any number of threads. *clock* returns the wall time.

    *is_required*: tokens that are bound to no key are refused.
    """

    def __init__(self, key: ProofKey, clock: Callable[[], float], *, is_required: bool = False) -> None:
        self.key, self.is_required, self._clock = key, is_required, clock
        self._known: BoundedCache[str, _Known] = BoundedCache(MAX_ORIGINS)
        self._prefix, self._sign = key.encoded_header.encode() + b".", key.sign

    def proof(self, method: str, htu: str, ath: str = "", nonce: str = "") -> str:
        """Return a proof for one try of one request to *htu*, as ``htu_of`` spells it.

        *ath* is the hash of the access token that goes along. *nonce*: another one than the newest of the origin.
        """
        known = self._known.get(origin_in(htu), NOTHING)
        jti = _base64.encode(os.urandom(JTI_BYTES))  # rule 1
        issued_at = int(self._clock() + known.clock_offset)
        claims = proof_claims(jti, method, htu, issued_at, ath, nonce or known.nonce)
        message = self._prefix + _base64.encode_to_bytes(claims)
        return (message + b"." + _base64.encode_to_bytes(self._sign(message))).decode("ascii")

    def must_repeat(self, htu: str, response: HttpResponse, *, was_proven: bool = True) -> bool:
        """Return whether the request to *htu* that got *response* is sent again with another proof (rule 3).

        Learn from the response (rule 2). *was_proven*: the request had a proof of its own. A redirect may have sent it
        elsewhere with none, or with that of the request before.
        """
        origin = origin_in(htu)
        known = self._known.get(origin, NOTHING)
        nonce = nonce_in(response.headers)
        if nonce and nonce != known.nonce:
            self._known.put(origin, known._replace(nonce=nonce))
        if response.status not in (400, 401):
            return False
        error = proof_error(response)
        if error == NONCE_REQUIRED:
            return bool(nonce)
        if not was_proven:
            return response.status == 401
        return bool(error) and self._has_learnt_clock(origin, response.headers)

    def judge(self, response: SentResponse) -> ProofWish:
        """Return what *response* to a request with bound tokens asks for. Learn from it."""
        htu, was_proven = response.proof_target()
        about = HttpResponse(response.status, response.headers())
        if not self.must_repeat(htu, about, was_proven=was_proven):
            return ""
        return "again" if was_proven else "hop"

    def send(
        self, send: Callable[[HttpRequest], HttpResponse], request: HttpRequest, may_repeat: Callable[[], bool]
    ) -> HttpResponse:
        """Return the response to a request of the library's own, which *send* sends, with a proof.

        *may_repeat* is asked before it is sent again.
        """
        htu = htu_of(request.url)
        response = send(self._with_proof(request, htu))
        if self.must_repeat(htu, response) and may_repeat():
            response = send(self._with_proof(request, htu))
            self.must_repeat(htu, response)
        self._has_learnt_clock(origin_in(htu), response.headers)  # rule 4
        return response

    def _with_proof(self, request: HttpRequest, htu: str) -> HttpRequest:
        return replace(request, headers={**request.headers, PROOF_HEADER.lower(): self.proof(request.method, htu)})

    def _has_learnt_clock(self, origin: str, headers: Mapping[str, str]) -> bool:
        """Return whether *origin* has told a time by which another proof may be good: one that is not ours."""
        offset = clock_offset(headers, self._clock())
        known = self._known.get(origin, NOTHING)
        if offset is None:
            return False
        if offset != known.clock_offset:
            self._known.put(origin, known._replace(clock_offset=offset))
        return offset != 0.0 or known.clock_offset != 0.0

    # ---- tokens ------------------------------------------------------------------------------------------------

    def bound(self, response: TokenResponse) -> TokenResponse:
        """Return *response* with the key that its tokens are bound to. Raise BadResponse if there must be one."""
        if not response.is_bound:
            if self.is_required:
                raise BadResponse(
                    "the server has bound the tokens to no key: it does not know DPoP", field="token_type"
                )
            return response
        return replace(response, jkt=response.jkt or jwt_thumbprint(response.access_token) or self.key.thumbprint)


def check_bound_to(tokens: Tokens, prover: Prover | None) -> None:
    """Raise SessionOver if *tokens* are bound to another key than that of *prover*, or to none where they must be."""
    if tokens.is_bound and (prover is None or tokens.jkt not in ("", prover.key.thumbprint)):
        why = "this program has no proof_key" if prover is None else ""
        raise SessionOver("wrong_key", why)
    if prover is not None and prover.is_required and not tokens.is_bound:
        raise SessionOver("not_bound")
