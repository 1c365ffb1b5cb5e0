"""Tokens in HttpOnly cookies: no script sees them, and all else is as ever. unbroken's own server over SQLite."""

from __future__ import annotations

import pytest

from tests.browser.scene import statuses
from tests.interop.backends.base import PASSWORD, Fault
from unbroken.server import Cookies

BOTH, REFRESH = Cookies("both", secure=False), Cookies("refresh", secure=False)


def test_five_tabs_make_one_exchange_without_seeing_a_token(shop, at_shop) -> None:
    server = shop(cookies=BOTH)
    tabs = at_shop(server, tabs=5, storage="cookie")
    server.expire()
    server.spoil(Fault(seconds=0.2))
    begun = [(tab, tab.begin("/echo", count=5, method="POST", body="x")) for tab in tabs]
    assert [statuses(tab.outcomes(numbers)) for tab, numbers in begun] == [[200] * 5] * 5
    assert (server.exchanges, server.alarms(), len(server.bodies)) == (1, 0, 25)


def test_tabs_that_keep_an_access_token_each_exchange_one_after_the_other(shop, at_shop) -> None:
    server = shop(cookies=REFRESH)
    tabs = at_shop(server, tabs=3, storage="cookie")
    server.expire()
    begun = [(tab, tab.begin("/echo", count=5)) for tab in tabs]
    assert [statuses(tab.outcomes(numbers)) for tab, numbers in begun] == [[200] * 5] * 3
    assert server.exchanges <= 5, "one for each tab that had none, and one for its second token at most"
    assert server.alarms() == 0


@pytest.mark.parametrize("cookies", [BOTH, REFRESH], ids=["both", "refresh"])
def test_a_reload_and_a_lost_marker_go_on_with_the_cookie(shop, at_shop, tab, client, cookies) -> None:
    server = shop(cookies=cookies)
    [first] = at_shop(server, storage="cookie")
    second = tab(server, client)
    second.start(storage="cookie")
    assert second.ask("/echo")["json"]["user"] == "ada"
    first.run("() => localStorage.clear()")
    first.page.close()
    third = tab(server, client)
    third.start(storage="cookie")
    assert third.ask("/echo")["json"]["user"] == "ada"
    assert server.alarms() == 0


def test_without_a_cookie_nobody_is_logged_in(shop, tab, client) -> None:
    server = shop(cookies=BOTH)
    page = tab(server, client)
    page.start(storage="cookie")
    assert page.ask("/echo")["reason"] == "not_logged_in"
    assert page.ask("/echo")["reason"] == "not_logged_in"
    assert server.exchanges == 1
    page.run("(word) => session.login('ada', word)", PASSWORD)
    assert page.ask("/echo")["json"]["user"] == "ada"


def test_logout_ends_the_session_at_the_server_and_clears_the_cookies(shop, at_shop, context) -> None:
    server = shop(cookies=BOTH)
    tabs = at_shop(server, tabs=2, storage="cookie")
    assert tabs[0].run("() => session.logout()") is True
    assert context.cookies() == []
    assert [tab.ask("/echo")["reason"] for tab in tabs] == ["logged_out"] * 2


def test_another_user_in_another_tab_is_no_mixture(shop, at_shop) -> None:
    server = shop(cookies=BOTH)
    tabs = at_shop(server, tabs=2, storage="cookie")
    server.expire()
    server.spoil(Fault(seconds=0.4))
    waits = tabs[0].begin("/echo", method="POST", body="pay")
    tabs[0].until(lambda: server.exchanges)
    tabs[1].run("(word) => session.login('bob', word)", PASSWORD)
    came = tabs[0].outcome(waits)
    assert came.get("reason") == "other_login" or came["json"]["user"] == "ada"
    assert [tab.ask("/echo")["json"]["user"] for tab in tabs] == ["bob"] * 2
    assert all(user != "bob" for path, user in server.seen[:-2])


def test_a_page_of_another_origin_uses_cookies_if_it_may(shop, tab, client, doors) -> None:
    page_of = doors[1].url.replace("127.0.0.1", "localhost")
    server = shop(cookies=REFRESH, origins=[page_of.replace("localhost", "127.0.0.1")])
    page = tab(doors[1], client)
    page.start(url=server.url + "/auth", storage="cookie")
    page.run("(word) => session.login('ada', word)", PASSWORD)
    renewed = "async (url) => { await session.token(); return (await session.fetch(url)).status; }"
    assert page.run(renewed, server.url + "/auth/sessions") == 200
    assert page.run("() => document.cookie") == ""
