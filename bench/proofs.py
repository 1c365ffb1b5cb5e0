"""What a proof of possession costs: the client, which signs it; the server, in a request, in a refresh over HTTP, and
in memory. Where the server is measured, proofs are signed before the clock starts.
"""

from __future__ import annotations

import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from starlette.applications import Starlette

from bench.figure import Figure, in_turns, per_call
from tests.support.proofs import ClientKey
from unbroken import ProofKey, Session
from unbroken.client.prover import Prover
from unbroken.server import MemorySessionStore, RequestProof, Sessions
from unbroken.starlette import routes
from unbroken.testing import running

URL, PATH = "https://shop.example.com", "/orders"
CALLS, REFRESHES, REQUESTS = 400, 100, 10_000
SIGN_LIMIT, VERIFY_LIMIT, REFRESH_LIMIT, MEMORY_LIMIT = 1.3, 1.2, 0.6, 14.0


def figures() -> Iterator[Figure]:
    for alg in ("ES256", "Ed25519"):
        yield from _signatures(alg)
        yield from _requests(alg)
    yield _memory()
    yield from _refreshes()
    yield from _sessions()


def bound(sessions: Sessions, key: ClientKey) -> str:
    """Return an access token that is bound to *key*."""
    login = RequestProof(key.proof("POST", URL + "/auth/login"), "POST", "/auth/login")
    return sessions.create("ada", proof=sessions.verify_proof(login)).access_token


def signed(key: ClientKey, token: str, count: int) -> list[RequestProof]:
    return [RequestProof(key.proof("GET", URL + PATH, token), "GET", PATH) for _ in range(count)]


def _signatures(alg: Any) -> Iterator[Figure]:
    """What a client pays for each request: a proof, against a signature and nothing else."""
    key, message, how = ProofKey.in_memory(alg), b"m" * 400, ec.ECDSA(SHA256())
    private, prover, ath = key._private_key, Prover(key, time.time), "a" * 43
    sign: Callable[[], object] = lambda: private.sign(message, how) if alg == "ES256" else private.sign(message)  # noqa: E731
    works = {"raw": per_call(sign, CALLS), "proof": per_call(lambda: prover.proof("GET", URL + PATH, ath), CALLS)}
    taken = in_turns(works)
    ratio = taken["proof"] / taken["raw"]
    yield Figure(f"one raw {alg} signature", taken["raw"], "µs")
    yield Figure(f"a proof of a request ({alg})", taken["proof"], "µs")
    yield Figure(f"the second to the first ({alg})", ratio, "x", f"at most {SIGN_LIMIT:g}", ratio <= SIGN_LIMIT)


def _requests(alg: str) -> Iterator[Figure]:
    sessions, key = Sessions(MemorySessionStore(), issuer=URL), ClientKey(alg)
    token, bearer = bound(sessions, key), sessions.create("ada").access_token

    def proven() -> float:
        proofs = signed(key, token, CALLS)
        began = time.perf_counter()
        for proof in proofs:
            sessions.verify(token, proof)
        return (time.perf_counter() - began) / CALLS * 1e6

    raw = per_call(_raw(key), CALLS)
    works = {"raw": raw, "bearer": per_call(lambda: sessions.verify(bearer), CALLS), "bound": proven}
    taken = in_turns(works)
    ratio = (taken["bound"] - taken["bearer"]) / taken["raw"]
    yield Figure(f"one raw {alg} verification", taken["raw"], "µs")
    yield Figure(f"a bound request, over a bearer request ({alg})", taken["bound"] - taken["bearer"], "µs")
    limit = f"at most {VERIFY_LIMIT:g}"
    yield Figure(f"the second to the first ({alg})", ratio, "x", limit, ratio <= VERIFY_LIMIT)


def _raw(key: ClientKey) -> Callable[[], object]:
    """Return the verification of one signature, and nothing else."""
    public, message = key.private.public_key(), b"m" * 400
    signature = key.signature(message)
    if key.alg != "ES256":
        return lambda: public.verify(signature, message)
    numbers = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    der, how = utils.encode_dss_signature(*numbers), ec.ECDSA(SHA256())
    return lambda: public.verify(der, message, how)


def _memory() -> Figure:
    sessions, key = Sessions(MemorySessionStore(), issuer=URL), ClientKey("Ed25519")
    token = bound(sessions, key)
    proofs = signed(key, token, REQUESTS)
    tracemalloc.start()
    for proof in proofs:
        sessions.verify(token, proof)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    what, limit = "what 10,000 proofs of one client take in memory", f"at most {MEMORY_LIMIT:g}, for 100,000"
    return Figure(what, used / 1e6, "MB", limit, used <= MEMORY_LIMIT * 1e6)


def _refreshes() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="unbroken-bench-") as folder:
        sessions = Sessions(f"sqlite:///{folder}/sessions.db", issuer=URL)
        app = Starlette(routes=routes(sessions, lambda name, password: name))
        with running(app) as port, httpx2.Client(base_url=f"http://127.0.0.1:{port}") as http:
            key = ClientKey("Ed25519")
            taken = in_turns({"with": _rate(http, key), "without": _rate(http, None)})
        sessions.close()
    ratio = taken["with"] / taken["without"]
    yield Figure("refreshes of one client over HTTP, without proofs", taken["without"], "refreshes/s")
    yield Figure("the same with proofs", taken["with"], "refreshes/s")
    yield Figure("the second to the first", ratio, "x", f"at least {REFRESH_LIMIT:g}", ratio >= REFRESH_LIMIT)


def _sessions() -> Iterator[Figure]:
    """The same by our client: its session signs, too."""
    with tempfile.TemporaryDirectory(prefix="unbroken-bench-") as folder:
        sessions = Sessions(f"sqlite:///{folder}/sessions.db")
        app = Starlette(routes=routes(sessions, lambda name, password: name))
        with running(app) as port:
            url = f"http://127.0.0.1:{port}"
            works = {"with": _session_rate(url, ProofKey.in_memory()), "without": _session_rate(url, None)}
            taken = in_turns(works)
        sessions.close()
    ratio = taken["with"] / taken["without"]
    yield Figure("refreshes of one Session over HTTP, without a key", taken["without"], "refreshes/s")
    yield Figure("the same with a key", taken["with"], "refreshes/s")
    yield Figure("the second to the first", ratio, "x", f"at least {REFRESH_LIMIT:g}", ratio >= REFRESH_LIMIT)


def _session_rate(url: str, key: ProofKey | None) -> Callable[[], float]:
    def run() -> float:
        session = Session(url, proof_key=key, window=None)
        session.login("ada", "x")
        token = session.token()
        began = time.perf_counter()
        for _ in range(REFRESHES):
            token = session.newer_token(token)
        return REFRESHES / (time.perf_counter() - began)

    return run


def _rate(http: httpx2.Client, key: ClientKey | None) -> Callable[[], float]:
    def post(path: str, body: dict[str, Any], proof: str) -> Any:
        return http.post(path, json=body, headers={"dpop": proof} if proof else {}).raise_for_status().json()

    def run() -> float:
        def sign(path: str) -> str:
            return key.proof("POST", URL + path) if key else ""

        tokens = post("/auth/login", {"username": "ada", "password": "x"}, sign("/auth/login"))
        proofs = [sign("/auth/refresh") for _ in range(REFRESHES)]
        began = time.perf_counter()
        for proof in proofs:
            tokens = post("/auth/refresh", {"refresh_token": tokens["refresh_token"]}, proof)
        return REFRESHES / (time.perf_counter() - began)

    return run
