"""The verification of the proofs of requests, by the rules of ``core/proof.py``.

    verified = proofs.verify(request.proof)                    # at a token endpoint
    await proofs.spend(verified)                               # once the token is known as genuine
    verified = proofs.verify(request.proof, access_token)      # with an access token, which has been verified before

1. ``verify`` does no I/O: everything but P10 is decided by the proof, the request and the time.
2. The URL is that which clients see: one of ``public_url`` of the policy, with the path of the request. Without it, the
   origin of the issuer. A server without an issuer is under development, and takes every loopback ``Host``; a service
   that only verifies tokens does so too, until it has a ``public_url``.
3. A proof that is right but for another URL is a mistake of the operator, or an attack. So the log names both URLs,
   once a minute at most.
4. A proof is *spent* (P10) after the token that came with it was found genuine. In the process always, and in the
   store, for all nodes, where a replay would do something: at login, refresh and logout, and where the policy says so.
5. An error says what the client can mend. NonceRequired has the nonce to sign.
6. A token that is bound to a TLS certificate (RFC 8705 §3) needs a connection with this certificate, whatever else it
   is bound to. What the proxy says about it is read by ``certificates.py``.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Mapping
from time import monotonic
from typing import NamedTuple
from urllib.parse import urlsplit

from unbroken._arguments import wrong_type
from unbroken._bounded_cache import BoundedCache
from unbroken._concurrency import register_fork_aware
from unbroken._http import is_loopback, origin_of
from unbroken.errors import InvalidProof, InvalidToken, NonceRequired
from unbroken.server.core.proof import (
    ProofTarget,
    RequestProof,
    token_hash,
    why_refused,
)
from unbroken.server.keys.access_token import Claims
from unbroken.server.keys.proof_token import ProofReader, SignedProof, refused
from unbroken.server.proofs.certificates import certificate_hash
from unbroken.server.proofs.nonces import NonceKeys, Nonces
from unbroken.server.proofs.policy import ProofPolicy
from unbroken.server.proofs.replays import ReplayCache
from unbroken.server.stores.markers import MarkerStore, mark_once, marker_key

__all__ = ["ProofVerifier", "VerifiedProof", "check_bound", "check_bound_here", "check_proof_type"]

_log = logging.getLogger("unbroken")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
ID_BYTES = 16
LOG_INTERVAL_SECONDS = 60.0
MAX_LOGGED_CHARS = 200
MAX_TOKEN_HASHES = 1000


class VerifiedProof(NamedTuple):
    """A good proof of the key with the thumbprint *jkt*. *spent_here*: what this request has spent."""

    jkt: str
    proof_id: bytes
    made_at: float
    method: str
    spent_here: set[bytes]


def check_proof_type(proof: object, certificate: object = "") -> None:
    """Raise ConfigurationError unless *proof* is None, or a RequestProof of texts, and *certificate* a text."""
    if type(certificate) is not str:
        raise wrong_type("certificate", "a text", certificate)
    if proof is None or (
        type(proof) is RequestProof  # the usual case, at once: each request pays for it
        and type(proof.text) is type(proof.method) is type(proof.path) is type(proof.host) is str
        and (proof.spent is None or type(proof.spent) is set)
    ):
        return
    if not isinstance(proof, RequestProof):
        raise wrong_type("proof", "a RequestProof or None", proof)
    for name in ("text", "method", "path", "host"):
        if not isinstance(value := getattr(proof, name), str):
            raise wrong_type(f"{name} of the proof", "a text", value)
    if proof.spent is not None and not isinstance(proof.spent, set):
        raise wrong_type("spent of the proof", "a set or None", proof.spent)


async def check_bound(
    proofs: ProofVerifier, claims: Claims, access_token: str, proof: RequestProof | None, certificate: str = ""
) -> None:
    """Raise InvalidToken or InvalidProof unless a request may use *access_token*, whose *claims* were verified.

    *proof* is None where it came as a bearer token. *certificate* is what the proxy says about the client's (rule 6).
    Raise TryLater if that cannot be found out.
    """
    verified = check_bound_here(proofs, claims, access_token, proof, certificate)
    if verified is not None:
        await proofs.spend(verified, at_resource=True)


def check_bound_here(
    proofs: ProofVerifier, claims: Claims, access_token: str, proof: RequestProof | None, certificate: str = ""
) -> VerifiedProof | None:
    """Raise as ``check_bound`` does, as far as this process can tell. Return the proof if the store must be asked too.

    Most requests end here, without a coroutine.
    """
    if claims.certificate and claims.certificate != certificate:  # rule 6
        raise InvalidToken("this access token is bound to another TLS certificate", reason="certificate")
    if proof is None:
        if claims.jkt:  # RFC 9449 §7.2: no downgrade
            raise InvalidToken("this access token is bound to a key: send it as DPoP, with a proof", reason="bound")
        return None
    if not claims.jkt:
        raise InvalidToken("this access token is bound to no key: send it as Bearer", reason="not_bound")
    verified = proofs.verify(proof, access_token)
    if verified.jkt != claims.jkt:  # P11
        raise InvalidToken("this access token is bound to another key", reason="wrong_key")
    if proofs.is_shared(verified.method, at_resource=True):
        return verified
    proofs.spend_here(verified, at_resource=True)
    return None


class ProofVerifier:
    """Verifies the proofs that clients send to one server, or to one service.

    *issuer_url* is what ``public_url`` of *policy* is by default; None where any loopback host is right. *nonce_keys*
    returns the keys of nonces. *store* makes a proof good once on all nodes; None: in this process.
    """

    def __init__(
        self,
        policy: ProofPolicy,
        issuer_url: str | None,
        nonce_keys: Callable[[], NonceKeys],
        clock: Callable[[], float],
        store: MarkerStore | None = None,
    ) -> None:
        self.policy, self._clock, self._store = policy, clock, store
        default = () if issuer_url is None else (str(origin_of(issuer_url)),)
        self._public_urls = policy.public_url or default
        self._reader, self._replays = ProofReader(), ReplayCache()
        self._token_hashes: BoundedCache[str, str] = BoundedCache(MAX_TOKEN_HASHES)
        self._nonces = Nonces(nonce_keys, policy.window)
        self._logged_at = float("-inf")
        register_fork_aware(self)

    def reset_after_fork(self) -> None:
        """Replace what a forked child must not share with its parent."""
        self._replays.reset_after_fork()

    def verify(self, proof: RequestProof | None, access_token: str = "") -> VerifiedProof:
        """Return the proof of a request, which came with *access_token* or without one.

        Its type was checked before. Raise InvalidProof, or NonceRequired.
        """
        try:
            return self._verify(proof or RequestProof("", "", ""), access_token)
        except InvalidProof as error:
            error.at_resource = bool(access_token)
            raise

    def certificate_in(self, headers: Mapping[str, str]) -> str:
        """Return the hash of the client's TLS certificate, if the proxy has told it; else "" (rule 6)."""
        policy = self.policy
        if not policy.certificate_header:
            return ""
        return certificate_hash(headers.get(policy.certificate_header, ""), policy.certificate_secret)

    def newest_nonce(self) -> str:
        """Return the nonce for the next proof; empty where the policy asks for none."""
        return self._nonces.newest(self._clock()) if self.policy.require_nonce else ""

    async def spend(self, proof: VerifiedProof, *, at_resource: bool = False) -> None:
        """Spend a proof (rule 4), unless this request has spent it already. Raise InvalidProof, or TryLater."""
        if proof.proof_id in proof.spent_here:
            return
        is_new = True
        if self._store is not None and self.is_shared(proof.method, at_resource=at_resource):
            is_new = await self._mark(self._store, proof.proof_id, self._clock())
        self.spend_here(proof, at_resource=at_resource, is_new=is_new)

    def spend_here(self, proof: VerifiedProof, *, at_resource: bool, is_new: bool = True) -> None:
        """Spend a proof in this process alone. *is_new*: no other node has. Raise InvalidProof."""
        if proof.proof_id in proof.spent_here:
            return
        if not is_new or not self._replays.add(proof.proof_id, proof.made_at, self._clock() - self.policy.window):
            error = refused("replayed")
            error.at_resource = at_resource
            raise error
        proof.spent_here.add(proof.proof_id)

    async def _mark(self, store: MarkerStore, proof_id: bytes, now: float) -> bool:
        """Return whether no node has spent this proof. One that is known here costs the store nothing."""
        if self._replays.is_used(proof_id):
            return False
        return await mark_once(store, marker_key(b"proof", proof_id), now, 2.0 * self.policy.window)

    async def check_may_end(self, keys: Collection[str], proof: VerifiedProof | None) -> None:
        """Raise InvalidProof unless *proof* is one of the only key in *keys*, thumbprints of the sessions to end."""
        if not keys or self.policy.revoke_without_proof:
            return
        if proof is None:
            raise refused("missing")
        await self.spend(proof)
        if set(keys) != {proof.jkt}:
            raise refused("wrong_key")

    def is_shared(self, method: str, *, at_resource: bool) -> bool:
        """Return whether the store must know that a proof was spent (rule 4)."""
        replays = self.policy.replays
        return not at_resource or replays == "all" or (replays == "writes" and method not in SAFE_METHODS)

    def _verify(self, proof: RequestProof, access_token: str) -> VerifiedProof:
        signed, now = self._reader.read(proof.text), self._clock()
        made_at = self._made_at(signed, now) if self.policy.require_nonce else signed.claims.issued_at
        target = self._target(proof, access_token)
        reason = why_refused(signed.claims, target, made_at, now, self.policy.window)
        if not reason and self._replays.is_too_old(made_at):
            reason = "too_old"
        if reason == "too_old" and self.policy.require_nonce:
            raise NonceRequired(self._nonces.newest(now))
        if reason:
            if reason == "url":
                self._log_url(signed.claims.url, target)
            raise refused(reason)
        digest = hashlib.blake2b((signed.jkt + signed.claims.jti).encode(), digest_size=ID_BYTES).digest()
        spent_here: set[bytes] = set() if proof.spent is None else proof.spent
        return VerifiedProof(signed.jkt, digest, made_at, proof.method, spent_here)

    def _made_at(self, signed: SignedProof, now: float) -> float:
        """Return when a proof was made, by its nonce, which is required (P8). Raise NonceRequired."""
        made_at = self._nonces.made_at(signed.claims.nonce, now)
        if made_at is None:
            raise NonceRequired(self._nonces.newest(now))
        return made_at

    def _target(self, proof: RequestProof, access_token: str) -> ProofTarget:
        bases = self._public_urls or self._loopback_bases(proof.host)
        urls = (bases[0] + proof.path,) if len(bases) == 1 else tuple([base + proof.path for base in bases])
        return ProofTarget(proof.method, urls, self._hash_of(access_token), proof.is_websocket)

    def _hash_of(self, access_token: str) -> str:
        """Return the ``ath`` of *access_token*, which is used again and again; empty text without one."""
        if not access_token:
            return ""
        known = self._token_hashes.get(access_token)
        if known is None:
            known = token_hash(access_token)
            self._token_hashes.put(access_token, known)
        return known

    def _loopback_bases(self, host: str) -> tuple[str, ...]:
        """Return the URL that clients see a server at which is under development (rule 2)."""
        try:
            is_own = is_loopback(urlsplit(f"//{host}").hostname or "")
        except ValueError:
            is_own = False
        return (f"http://{host}",) if is_own else ()

    def _log_url(self, named: str, target: ProofTarget) -> None:
        if monotonic() - self._logged_at < LOG_INTERVAL_SECONDS:  # rule 3
            return
        self._logged_at = monotonic()
        shown = "".join(char if " " < char <= "~" else "?" for char in named[:MAX_LOGGED_CHARS])
        expected = " or ".join(target.urls)[:MAX_LOGGED_CHARS] or "none: it knows no public_url"
        _log.warning(
            "a proof of possession is for the URL %s, and this server takes the request for %s: if clients use the "
            "former, set public_url of ProofPolicy",
            shown,
            expected,
        )
