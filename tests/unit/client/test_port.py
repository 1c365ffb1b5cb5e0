"""The blocking port: locks, leases and requests of one refresh."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.token_endpoint import URL, TokenEndpoint, json_response
from unbroken import (
    Dialect,
    HttpRequest,
    HttpResponse,
    MemoryStore,
    NotSent,
    ProofKey,
    RequestTemplate,
    Session,
    TryLater,
    oauth2,
)
from unbroken._concurrency import run_sync
from unbroken.client.core.refresh_rules import RESPONSE_SECONDS, Indeterminate
from unbroken.client.port import BlockingPort
from unbroken.client.prover import Prover
from unbroken.testing import ManualClock
from unbroken.tokens import Tokens


def test_a_refresh_that_was_given_up_does_not_send_under_the_lock_of_the_next(
    endpoint: TokenEndpoint, clock: ManualClock
) -> None:
    class Lost:
        def is_held(self) -> bool:
            return False

    leases: list[Any] = [Lost(), None]

    class Lends(MemoryStore):
        def lock(self, timeout: float) -> Any:
            return _Lends(leases.pop(0))

    port = BlockingPort(
        Lends(),
        Dialect(refresh=RequestTemplate(URL)),
        endpoint,
        clock,
        lambda _: None,
        refresh_timeout=1,
        lock_timeout=1,
    )
    first, second = port.for_one_refresh(), port.for_one_refresh()
    run_sync(first.lock().__aenter__())
    run_sync(second.lock().__aenter__())
    response = run_sync(first.send_refresh(Tokens("A", "R"), "x"))
    assert isinstance(response, Indeterminate)
    assert endpoint.calls == []
    run_sync(second.send_refresh(Tokens("A", "R"), "x"))
    assert (first.granted, second.granted) == (False, True)


class _Lends:
    def __init__(self, lease: Any) -> None:
        self._lease = lease

    def __enter__(self) -> Any:
        return self._lease

    def __exit__(self, *_: object) -> None: ...


def test_a_response_is_waited_for_longer_unless_the_server_knows_the_key() -> None:
    waited: list[tuple[float, float | None]] = []
    headers: dict[str, str] = {}

    def send(request: HttpRequest, timeout: float) -> HttpResponse:
        waited.append((timeout, request.connect_timeout))
        repeats = {"idempotency-key": request.headers["idempotency-key"]} if headers else {}
        return json_response({"access_token": f"A{len(waited)}", "refresh_token": f"R{len(waited)}"}, **repeats)

    session = Session(oauth2(URL + "/token"), send=send, refresh_timeout=3.0, window=None)
    session.import_tokens({"access_token": "A0", "refresh_token": "R0"})
    for turn in range(5):
        session.newer_token(f"A{turn}")
        if turn == 1:
            headers["knows"] = "keys"
        if turn == 3:
            headers.clear()  # a proxy drops them, say
    late, soon = (RESPONSE_SECONDS, 3.0), (3.0, 3.0)
    assert waited == [late, late, late, soon, soon]
    session.newer_token("A5")
    assert waited[-1] == late


@pytest.mark.parametrize(("kind", "seconds"), [("idempotent", 3.0), ("forgiving", 120.0), ("strict", 120.0)])
def test_what_the_dialect_says_of_the_server_counts(kind: Any, seconds: float) -> None:
    waited: list[float] = []

    def send(request: HttpRequest, timeout: float) -> HttpResponse:
        waited.append(timeout)
        return json_response({"access_token": "A1", "refresh_token": "R1"})

    session = Session(oauth2(URL + "/token", repeated_refresh=kind), send=send, refresh_timeout=3.0)
    session.import_tokens({"access_token": "A0", "refresh_token": "R0"})
    session.newer_token("A0")
    assert waited == [seconds]


def test_a_server_that_cannot_be_reached_leaves_no_refresh_that_may_have_arrived() -> None:
    store = MemoryStore()

    def send(request: HttpRequest, timeout: float) -> HttpResponse:
        raise NotSent("no route")

    session = Session(oauth2(URL + "/token", repeated_refresh="strict"), store, send=send)
    session.import_tokens({"access_token": "A0", "refresh_token": "R0"})
    with pytest.raises(TryLater):
        session.newer_token("A0")
    assert store.load().idempotency_key is None


def test_a_refresh_is_not_sent_again_with_a_nonce_when_the_lock_was_lost_meanwhile(clock: ManualClock) -> None:
    class LostAfterOne:
        def __init__(self) -> None:
            self.asked = 0

        def is_held(self) -> bool:
            self.asked += 1
            return self.asked == 1

    class Lends(MemoryStore):
        def lock(self, timeout: float) -> Any:
            return _Lends(LostAfterOne())

    sent: list[HttpRequest] = []

    def wants_nonces(request: HttpRequest, timeout: float) -> HttpResponse:
        sent.append(request)
        return HttpResponse(400, {"dpop-nonce": "n", "content-type": "application/json"}, b'{"error":"use_dpop_nonce"}')

    port = BlockingPort(
        Lends(),
        Dialect(refresh=RequestTemplate(URL)),
        wants_nonces,
        clock,
        lambda _: None,
        refresh_timeout=1,
        lock_timeout=1,
        prover=Prover(ProofKey.in_memory("Ed25519"), clock.wall),
    )
    run_sync(port.lock().__aenter__())
    response = run_sync(port.send_refresh(Tokens("A", "R"), "x"))
    assert isinstance(response, Indeterminate)
    assert len(sent) == 1
