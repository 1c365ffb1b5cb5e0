"""When the server says that a token is no good.

Modules: client/core/request_flow.py, httpx2.py.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.contract.adapters.api import Api, burst, parked, used
from tests.support.adapters import Client
from tests.support.services import free_port
from unbroken import (
    ResponseMatch,
    Session,
    unbroken_server,
)
from unbroken.testing import ManualClock
from unbroken.testing.server import PASSWORD


def test_a_challenged_request_is_served_by_one_refresh(server: Api, client: Client) -> None:
    server.expire()
    assert client.request("GET", server.url + "/echo").status == 200
    assert (server.refreshes, len(server.seen)) == (1, 2)


def test_fifty_challenges_at_once_make_one_refresh(server: Api, client: Client, pool: ThreadPoolExecutor) -> None:
    server.expire()
    with server.assert_one_refresh():
        responses = burst(pool, lambda: client.request("GET", server.url + "/echo"), 50)
    assert [response.status for response in responses] == [200] * 50


def test_a_late_challenge_needs_no_refresh(server: Api, client: Client, pool: ThreadPoolExecutor) -> None:
    server.expire()  # so that /late rejects the first token
    late = parked(pool, server, lambda: client.request("GET", server.url + "/late"))
    assert client.request("GET", server.url + "/echo").status == 200
    server.opened.set()
    assert late.result(10).json == {"good": True}
    assert server.refreshes == 1


def test_a_challenge_that_comes_two_refreshes_late_needs_no_refresh(
    server: Api, client: Client, pool: ThreadPoolExecutor
) -> None:
    server.expire()
    late = parked(pool, server, lambda: client.request("GET", server.url + "/late"))
    for _ in range(2):
        client.request("GET", server.url + "/echo")
        server.expire()
    client.request("GET", server.url + "/echo")
    refreshes = server.refreshes
    server.opened.set()
    assert late.result(10).status == 200
    assert (server.refreshes, server.alarms()) == (refreshes, 0)


def test_any_other_error_is_the_callers(server: Api, client: Client) -> None:
    for status in (400, 403, 404, 429, 500, 503):
        assert client.request("POST", f"{server.url}/fail/{status}").status == status
    assert (server.refreshes, len(server.seen)) == (0, 6)


def test_a_network_error_is_the_librarys_own(clock: ManualClock, connect: Callable[[Session], Client]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    session = Session(url, clock=clock)
    session.import_tokens({"access_token": "A", "refresh_token": "R", "expires_in": 1800})
    client = connect(session)
    with pytest.raises(client.broken):
        client.request("GET", url + "/")
    assert session.status.state == "good"


def test_two_expiries_in_a_row_refresh_once_each(server: Api, client: Client) -> None:
    for _ in range(2):
        server.expire()
        assert client.request("GET", server.url + "/echo").status == 200
        assert client.request("GET", server.url + "/echo").status == 200
    assert (server.refreshes, server.alarms()) == (2, 0)


def test_a_parked_request_that_is_challenged_after_all_gets_new_tokens(
    server: Api, client: Client, session: Session, clock: ManualClock
) -> None:
    clock.advance(1800)
    session.token()
    server.expire()
    assert client.request("GET", server.url + "/echo").status == 200
    assert server.refreshes == 2


@pytest.mark.parametrize(
    ("challenges", "ours"),
    [
        ([], True),
        (["Bearer"], True),
        (['Bearer realm="api", error="invalid_token"'], True),
        (['Basic realm="x"', 'Bearer error="invalid_token"'], True),
        (['Digest realm="x, y", nonce="Bearer", Bearer error="expired_token"'], True),
        (['Basic realm="x"'], False),
        (['Bearer error="insufficient_scope"'], False),
    ],
)
def test_only_bearer_challenges_cause_a_refresh(server: Api, client: Client, challenges: list[str], ours: bool) -> None:
    asked = "&".join(f"challenge={challenge.replace(' ', '%20')}" for challenge in challenges)
    response = client.request("GET", f"{server.url}/says?{asked}")
    assert (response.status, server.refreshes) == ((200, 1) if ours else (401, 0))


def test_a_dialect_may_name_another_status(server: Api, clock: ManualClock, connect: Any) -> None:
    from dataclasses import replace

    session = Session(replace(unbroken_server(server.url), challenge=ResponseMatch.of(419)), clock=clock)
    session.login("ada", PASSWORD)
    client = connect(session)
    assert client.request("GET", server.url + "/says?status=419").status == 200
    assert client.request("GET", server.url + "/fail/401").status == 401
    assert server.refreshes == 1


def test_a_request_without_a_token_gets_none(server: Api, client: Client) -> None:
    assert client.request("GET", server.url + "/echo", skip=True).status == 401
    assert (used(server), server.refreshes) == ([""], 0)


def test_credentials_of_the_users_own_are_left_alone(server: Api, client: Client) -> None:
    assert client.request("GET", server.url + "/echo", headers={"Authorization": "Bearer theirs"}).status == 401
    assert (used(server), server.refreshes) == (["theirs"], 0)
