"""Challenges and redirects of a small backend, on every adapter."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.adapters import Client
from tests.support.small_api import BEARER, SmallApi, session_at
from unbroken import ResponseMatch, Session


def test_a_header_of_the_backends_own_follows_no_redirect_that_comes_after_a_challenge(
    connect: Callable[[Session], Client],
) -> None:
    with (
        SmallApi(header="token") as elsewhere,
        SmallApi(lambda path: (302, [("location", f"{elsewhere.url}/open")], b""), header="token") as here,
    ):
        here.refused = (400, [("content-type", "application/json")], b'{"code": 401}')
        own = ResponseMatch.of(400, field="code", values=(401,))
        client = connect(session_at(here, "old", header="token", scheme="", challenge=own))
        assert client.request("GET", here.url + "/go").status == 200
        assert here.seen == [("/go", "old"), ("/go", "A2")]
        assert elsewhere.seen == [("/open", None)]


def test_each_of_several_lines_of_challenges_is_read(connect: Callable[[Session], Client]) -> None:
    with SmallApi() as backend:
        backend.refused = (401, [("www-authenticate", BEARER), ("www-authenticate", 'Basic realm="x"')], b"")
        client = connect(session_at(backend, "old"))
        assert client.request("GET", backend.url + "/items").status == 200
