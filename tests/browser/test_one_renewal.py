"""One renewal, however many requests, tabs and clients there are; counted at unbroken's own server over SQLite."""

from __future__ import annotations

import pytest

from tests.browser.scene import statuses
from tests.interop.backends.base import Fault
from unbroken.server import Cookies


def test_many_requests_on_a_dead_token_make_one_exchange(shop, at_shop) -> None:
    server = shop()
    [tab] = at_shop(server)
    server.expire()
    assert statuses(tab.together(50, "/echo", method="POST", body="x")) == [200] * 50
    assert (server.exchanges, server.alarms(), len(server.bodies)) == (1, 0, 50)


def test_five_tabs_make_one_exchange(shop, at_shop) -> None:
    server = shop()
    tabs = at_shop(server, tabs=5)
    server.expire()
    server.spoil(Fault(seconds=0.1))
    begun = [(tab, tab.begin("/echo", count=10)) for tab in tabs]
    assert [statuses(tab.outcomes(numbers)) for tab, numbers in begun] == [[200] * 10] * 5
    assert (server.exchanges, server.alarms()) == (1, 0)
    assert len({tab.run("() => session.token()") for tab in tabs}) == 1


def test_a_lost_answer_is_asked_for_again_with_the_same_attempt(shop, at_shop) -> None:
    server = shop(grace=0.0)
    [tab] = at_shop(server)
    server.expire()
    server.spoil(Fault(lost=True, used=True))
    assert statuses(tab.together(5, "/echo")) == [200] * 5
    assert (server.exchanges, server.alarms(), len(set(server.attempts))) == (2, 0, 1)


def test_a_logout_during_a_renewal_stays_a_logout_in_all_tabs(shop, at_shop) -> None:
    server = shop()
    tabs = at_shop(server, tabs=2)
    server.expire()
    server.spoil(Fault(seconds=0.5))
    begun = [(tab, tab.begin("/echo")) for tab in tabs]
    tabs[0].until(lambda: server.exchanges)
    assert tabs[1].run("() => session.logout()") is True
    assert [tab.outcome(numbers)["reason"] for tab, numbers in begun] == ["logged_out"] * 2
    tabs[0].until(lambda: not tabs[0].status["renewing"])
    assert [tab.status["reason"] for tab in tabs] == ["logged_out"] * 2
    assert "tokens" not in tabs[0].stored
    assert [event["here"] for tab in tabs for event in tab.heard("over")] == [False, True]


@pytest.mark.parametrize("mode", ["refresh", "both"])
def test_cookies_keep_tokens_from_scripts(shop, at_shop, mode) -> None:
    server = shop(cookies=Cookies(mode, secure=False))
    [tab] = at_shop(server, storage="cookie")
    assert tab.ask("/echo", method="POST", body="x")["status"] == 200
    server.expire()
    assert statuses(tab.together(10, "/echo", method="POST", body="x")) == [200] * 10
    assert (server.exchanges, server.alarms()) == (1, 0)
    assert "eyJ" not in tab.run("() => JSON.stringify(localStorage) + document.cookie")
    assert (tab.run("() => session.token()") == "") is (mode == "both")


def test_a_websocket_gets_a_token_that_is_good_now(shop, at_shop) -> None:
    server = shop(access_ttl=60.0)
    [tab] = at_shop(server)
    tab.pass_(61)
    script = """async () => {
        const token = await session.token();
        const socket = new WebSocket(location.origin.replace("http", "ws") + "/socket", ["unbroken", token]);
        return new Promise((resolve, reject) => {
            socket.onmessage = ({ data }) => resolve(data);
            socket.onerror = () => reject(new Error("the socket was refused"));
        });
    }"""
    assert tab.run(script) == "ada"
    assert server.exchanges == 1
