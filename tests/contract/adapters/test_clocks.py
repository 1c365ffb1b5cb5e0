"""Clocks that jump, sleep and disagree, and lifetimes that are odd."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.adapters.api import Api, used
from tests.support.adapters import Client
from unbroken import (
    Session,
)
from unbroken.testing import ManualClock


@pytest.mark.parametrize("jump", [3600, -3600])
def test_a_clock_that_is_set_costs_one_refresh_at_most(
    server: Api, client: Client, clock: ManualClock, jump: float
) -> None:
    clock.set(jump)
    for _ in range(10):
        assert client.request("GET", server.url + "/echo").status == 200
        clock.advance(1)
    assert server.refreshes <= 1


def test_a_machine_that_slept_refreshes_first(
    server: Api, client: Client, clock: ManualClock, session: Session
) -> None:
    old = session.token()
    clock.sleep(8 * 3600)
    assert client.request("GET", server.url + "/echo").status == 200
    assert (server.refreshes, old in used(server)) == (1, False)


@pytest.mark.parametrize("skew", [300, -300])
def test_a_server_with_a_wrong_clock_causes_no_extra_refresh(
    server: Api, client: Client, clock: ManualClock, skew: float
) -> None:
    server.skew(skew)
    for _ in range(3):
        assert client.request("GET", server.url + "/echo").status == 200
        clock.advance(1800)
    assert server.refreshes == 2


@pytest.mark.parametrize("expires_in", [None, 0, "60", "soon"])
def test_odd_lifetimes_are_driven_by_challenges(server: Api, connect: Any, expires_in: object) -> None:
    session = Session(server.url)
    granted = server.sessions.create("ada", coordinated=True).to_response()
    session.import_tokens({**granted, "access_token": granted["access_token"], "expires_in": expires_in})
    client = connect(session)
    assert client.request("GET", server.url + "/echo").status == 200
    server.expire()
    assert client.request("GET", server.url + "/echo").status == 200
    assert server.refreshes == 1
