"""How much of an answer is read to look for a challenge in its body, and that the caller gets all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import httpx
import httpx2
import pytest

from tests.contract.adapters.api import Api, coded, streaming
from tests.support.adapters import Client, Httpx, Requests
from unbroken import ResponseMatch, Session, unbroken_server
from unbroken._http import MAX_BODY_BYTES
from unbroken.testing.server import PASSWORD

LARGE, SMALL = 2 * MAX_BODY_BYTES, 3000


@pytest.fixture(params=["Authorization", "token"])
def client(request: pytest.FixtureRequest, server: Api, connect: Callable[[Session], Client]) -> Iterator[Client]:
    """A client whose backend says in the body of a 200 that a token is no good; also with a header of its own."""
    challenge = ResponseMatch.of(200, field="code", values=(401,))
    dialect = replace(unbroken_server(server.url), challenge=challenge, header=request.param)
    session = Session(dialect if request.param == "Authorization" else replace(dialect, scheme=""))
    session.login("ada", PASSWORD)
    yield connect(session)
    server.opened.set()


@pytest.mark.parametrize(
    "about",
    [
        f"size={LARGE}&announced=1&hold=10",
        f"size={LARGE}&hold={LARGE * 3 // 4}",
        f"size={SMALL}&type=text/html&hold=10",
        f"size={SMALL}&type=text/html&announced=1&hold=10",
    ],
    ids=["long", "unannounced", "another type", "another type, announced"],
)
def test_a_response_that_is_too_long_or_of_another_type_stays_lazy(server: Api, client: Client, about: str) -> None:
    """It says that the token is no good, and nobody believes it; its end is sent when its head was seen."""
    with streaming(client, f"{server.url}/told?{about}") as (status, rest):
        server.opened.set()
        body = rest()
    size = LARGE if str(LARGE) in about else SMALL
    assert (status, body) == (200, coded(401, size)), "whole, and in order"
    assert server.kept == [True], "the head came before the end of the body was sent"
    assert (server.refreshes, len(server.seen)) == (0, 1)


@pytest.mark.parametrize("about", ["announced=1", "announced=1&gzip=1", "", "gzip=1"])
def test_a_challenge_in_a_short_body_is_seen(server: Api, client: Client, about: str) -> None:
    with streaming(client, f"{server.url}/told?size={SMALL}&{about}") as (status, rest):
        assert (status, rest()) == (200, coded(200, SMALL)), "what was read is there for the caller"
    assert (server.refreshes, len(server.seen)) == (1, 2)
    assert client.request("GET", f"{server.url}/told?size={SMALL}&{about}").body == coded(200, SMALL)
    assert server.refreshes == 1


@pytest.mark.parametrize("announced", ["", "&announced=1"])
def test_a_body_that_unfolds_beyond_the_limit_is_not_looked_at(server: Api, client: Client, announced: str) -> None:
    answer = client.request("GET", f"{server.url}/told?size={LARGE}&gzip=1{announced}")
    assert (answer.status, answer.body) == (200, coded(401, LARGE))
    assert server.refreshes == 0


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_response_that_breaks_off_is_the_librarys_own_error(server: Api, client: Client, size: int) -> None:
    with pytest.raises(client.broken) as caught:
        client.request("GET", f"{server.url}/told?size={size}&broken=1")
    if isinstance(caught.value, (httpx.TransportError, httpx2.TransportError)):
        assert str(caught.value.request.url).startswith(server.url)
    assert server.refreshes == 0


def test_a_caller_may_stop_reading_a_long_response(server: Api, client: Client) -> None:
    for _ in range(3):
        with streaming(client, f"{server.url}/told?size={LARGE}&hold={LARGE * 3 // 4}") as (status, _):
            assert status == 200
    server.opened.set()
    assert client.request("GET", f"{server.url}/told?size={LARGE}").body == coded(401, LARGE)
    assert server.refreshes == 0


@pytest.mark.parametrize("connect", ["httpx2", "httpx", "requests"], indirect=True)
@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_cookies_and_the_time_it_took_are_those_of_the_response(server: Api, client: Client, size: int) -> None:
    assert isinstance(client, (Httpx, Requests))
    response = client.client.get(f"{server.url}/told?size={size}")
    assert response.elapsed.total_seconds() > 0
    assert response.cookies["seen"] == client.client.cookies["seen"] == "yes"
    assert response.content == coded(200 if size == SMALL else 401, size)


def test_a_response_without_a_body_is_no_trouble(server: Api, client: Client) -> None:
    answer = client.request("HEAD", f"{server.url}/told?size={SMALL}&announced=1")
    assert (answer.status, answer.body, server.refreshes) == (200, b"", 0)
