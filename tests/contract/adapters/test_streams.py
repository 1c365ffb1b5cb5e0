"""Streamed responses, and redirects."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from tests.contract.adapters.api import Api, streaming, used
from tests.support.adapters import Client
from unbroken import (
    ResponseMatch,
    Session,
    unbroken_server,
)
from unbroken.testing.server import PASSWORD


def test_a_streamed_response_stays_lazy(server: Api, client: Client) -> None:
    assert client.lines(server.url + "/stream") == (200, ["0", "1", "2"])
    server.expire()
    assert client.lines(server.url + "/stream") == (200, ["0", "1", "2"])
    assert server.refreshes == 1


def test_a_refresh_goes_on_while_a_response_is_being_read(server: Api, client: Client) -> None:
    """The responses end when the refresh has; a refresh that waited for one of them would wait for ten seconds."""
    server.expire()  # so that the first of them is itself a response to a request that was sent again
    with ExitStack() as opened:
        reading = [opened.enter_context(streaming(client, server.url + "/held")) for _ in range(3)]
        server.expire()
        assert client.request("GET", server.url + "/echo").status == 200
        assert server.refreshes == 2
        server.opened.set()
        assert [(status, rest()) for status, rest in reading] == [(200, b"0\n1\n")] * 3
    assert server.kept == [True] * 3, "none of them ended by itself"


def test_tokens_do_not_go_to_another_origin(server: Api, elsewhere: Api, client: Client) -> None:
    assert client.request("GET", elsewhere.url + "/echo").status == 401
    assert client.request("GET", f"{server.url}/redirect?to={elsewhere.url}/echo").status == 401
    assert used(elsewhere) == ["", ""]
    assert server.refreshes == 0, "the challenge of another origin is not about our token"


def test_a_redirect_within_the_origin_is_followed_with_the_token(server: Api, client: Client) -> None:
    assert client.request("GET", f"{server.url}/redirect?to=/echo").status == 200
    server.expire()
    assert client.request("GET", f"{server.url}/redirect?to=/echo").status == 200
    assert server.refreshes == 1


def test_a_challenge_behind_a_redirect_does_not_repeat_the_redirected_request(server: Api, client: Client) -> None:
    server.expire()
    assert client.request("POST", server.url + "/done", content=b"pay").status == 200
    assert server.done == 1
    assert server.refreshes == 1


def test_a_header_of_the_backends_own_stays_at_its_origin(server: Api, elsewhere: Api, connect: Any) -> None:
    from dataclasses import replace

    dialect = unbroken_server(server.url)
    own = replace(dialect, header="token", scheme="", challenge=ResponseMatch.of(400, field="code", values=(401,)))
    session = Session(own)
    session.login("ada", PASSWORD)
    client = connect(session)
    assert client.request("GET", f"{server.url}/head").status == 200
    assert client.request("GET", f"{server.url}/redirect?to=/head").status == 200, "it goes on within its origin"
    client.request("GET", f"{server.url}/redirect?to={elsewhere.url}/head")
    assert used(elsewhere) == [""]
    server.expire()
    assert client.request("GET", f"{server.url}/head").status == 200
    assert server.refreshes == 1
