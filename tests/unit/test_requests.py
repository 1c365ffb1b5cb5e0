"""The auth class of requests: prepared requests and redirects."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
import requests
from urllib3 import HTTPResponse as RawResponse

import unbroken.requests
from tests.support.small_api import Said, SmallApi, session_at
from unbroken import HttpRequest, HttpResponse, ResponseMatch
from unbroken.testing import ManualClock


@pytest.fixture
def plain() -> Iterator[requests.Session]:
    with requests.Session() as made:
        made.trust_env = False
        yield made


def test_a_prepared_request_gets_new_tokens_each_time_it_is_sent(plain: requests.Session) -> None:
    with SmallApi() as backend:
        plain.auth = unbroken.requests.SessionAuth(session_at(backend, "old"))
        prepared = plain.prepare_request(requests.Request("POST", backend.url + "/items", data=b"pay"))
        for turn in range(3):
            assert plain.send(prepared).status_code == 200, turn
            backend.good = f"A{10 * (turn + 1)}"  # the token that was just used dies
        assert set(backend.bodies) == {b"pay"}


def test_a_redirected_request_gets_new_tokens_after_the_first_one_did(plain: requests.Session) -> None:
    def page(path: str) -> Said | None:
        if path != "/go":
            return None
        backend.good = "A7"  # the token that /go took is dead for what comes next
        return 307, [("location", "/items")], b""

    with SmallApi(page) as backend:
        plain.auth = unbroken.requests.SessionAuth(session_at(backend, "old"))
        response = plain.post(backend.url + "/go", data=io.BytesIO(b"pay"))
        assert response.status_code == 200
        assert [path for path, _ in backend.seen] == ["/go", "/go", "/items", "/items"]
        assert set(backend.bodies) == {b"pay"}


def test_a_redirect_to_a_login_page_may_be_a_challenge(plain: requests.Session) -> None:
    with SmallApi() as backend:
        backend.refused = (302, [("location", "/login")], b"")
        plain.auth = unbroken.requests.SessionAuth(session_at(backend, "old", challenge=ResponseMatch.of(302)))
        assert plain.get(backend.url + "/items").status_code == 200
        assert [path for path, _ in backend.seen] == ["/items", "/items"]


def test_a_hop_that_lost_its_token_on_the_way_waits_without_a_connection(plain: requests.Session) -> None:
    clock, free = ManualClock(), []

    def page(path: str) -> Said | None:
        clock.advance(1800)  # the tokens die while the request is away
        return 302, [("location", backend.url + "/items")], b""

    def to_elsewhere(path: str) -> Said | None:
        return (302, [("location", elsewhere.url)], b"") if path == "/go" else None

    with SmallApi(page) as elsewhere, SmallApi(to_elsewhere) as backend:
        elsewhere.response = lambda path, token, body: page(path)  # type: ignore[method-assign,assignment,return-value]
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=1, pool_block=True)
        plain.mount(backend.url, adapter)

        def look(call: HttpRequest, timeout: float) -> HttpResponse:
            pools = adapter.poolmanager.pools
            free.extend(pools[key].pool.qsize() for key in pools.keys())  # noqa: SIM118  # it is no dict
            return backend.refresh(call, timeout)

        plain.auth = unbroken.requests.SessionAuth(session_at(backend, clock=clock, send=look))
        assert plain.get(backend.url + "/go").status_code == 200
        assert free == [1], "the only connection was free during the refresh"


def test_a_body_that_was_looked_into_can_be_looked_into_again() -> None:
    body = unbroken.requests._ReplayedBody(b"ab", iter([b"cd"]), RawResponse(b""))
    assert [body.read1(1), body.read1(), body.read1(9), body.read1(None)] == [b"a", b"b", b"cd", b""]
