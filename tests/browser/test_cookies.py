"""Tokens in HttpOnly cookies: no script sees them; all else works as with tokens. unbroken's own server over SQLite."""

from __future__ import annotations

import pytest

from tests.browser.scene import statuses
from tests.interop.backends.base import Fault
from unbroken.server import Cookies

BOTH, REFRESH = Cookies("both", secure=False), Cookies("refresh", secure=False)


def test_five_tabs_share_one_refresh_without_seeing_a_token(shop, at_shop) -> None:
    server = shop(cookies=BOTH)
    tabs = at_shop(server, tabs=5, storage="cookie")
    server.expire()
    server.spoil(Fault(seconds=0.2))
    begun = [(tab, tab.begin("/echo", count=5, method="POST", body="x")) for tab in tabs]
    assert [statuses(tab.outcomes(numbers)) for tab, numbers in begun] == [[200] * 5] * 5
    assert (server.refreshes, server.alarms(), len(server.bodies)) == (1, 0, 25)


def test_tabs_with_an_access_token_each_refresh_one_after_the_other(shop, at_shop) -> None:
    server = shop(cookies=REFRESH)
    tabs = at_shop(server, tabs=3, storage="cookie")
    server.expire()
    begun = [(tab, tab.begin("/echo", count=5)) for tab in tabs]
    assert [statuses(tab.outcomes(numbers)) for tab, numbers in begun] == [[200] * 5] * 3
    assert server.refreshes <= 5, "one for each tab that had none, and one for its second token at most"
    assert server.alarms() == 0


@pytest.mark.parametrize("cookies", [BOTH, REFRESH], ids=["both", "refresh"])
def test_a_reload_and_a_cleared_storage_go_on_with_the_cookie(shop, at_shop, tab, client, cookies) -> None:
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


def test_without_a_cookie_one_refresh_tells_that_nobody_is_logged_in(shop, tab, client) -> None:
    server = shop(cookies=BOTH)
    page = tab(server, client)
    page.start(storage="cookie")
    assert page.ask("/echo")["reason"] == "not_logged_in"
    assert page.ask("/echo")["reason"] == "not_logged_in"
    assert server.refreshes == 1
    page.log_in()
    assert page.ask("/echo")["json"]["user"] == "ada"


def test_a_logout_revokes_the_session_and_clears_the_cookies(shop, at_shop, context) -> None:
    server = shop(cookies=BOTH)
    tabs = at_shop(server, tabs=2, storage="cookie")
    assert tabs[0].run("() => session.logout()") is True
    [device] = context.cookies()  # it opens nothing: it spares the next login here the limit of strangers
    assert (device["name"], device["path"], device["httpOnly"]) == ("unbroken-device", "/auth/login", True)
    assert [tab.ask("/echo")["reason"] for tab in tabs] == ["logged_out"] * 2


def test_no_request_is_sent_for_a_user_who_logged_in_in_another_tab(shop, at_shop) -> None:
    server = shop(cookies=BOTH)
    tabs = at_shop(server, tabs=2, storage="cookie")
    server.expire()
    server.spoil(Fault(seconds=0.4))
    waits = tabs[0].begin("/echo", method="POST", body="pay")
    tabs[0].until(lambda: server.refreshes)
    tabs[1].log_in("bob")
    came = tabs[0].outcome(waits)
    assert came.get("reason") == "other_login" or came["json"]["user"] == "ada"
    assert [tab.ask("/echo")["json"]["user"] for tab in tabs] == ["bob"] * 2
    assert all(user != "bob" for path, user in server.seen[:-2])


def test_a_page_of_an_allowed_origin_uses_cookies(shop, tab, client, page_servers) -> None:
    page_of = page_servers[1].url.replace("127.0.0.1", "localhost")
    server = shop(cookies=REFRESH, origins=[page_of.replace("localhost", "127.0.0.1")])
    page = tab(page_servers[1], client)
    page.start(url=server.url + "/auth", storage="cookie")
    page.log_in()
    refreshed = "async (url) => { await session.token(); return (await session.fetch(url)).status; }"
    assert page.run(refreshed, server.url + "/auth/sessions") == 200
    assert page.run("() => document.cookie") == ""


@pytest.mark.parametrize("mode", ["refresh", "both"])
def test_no_script_sees_a_token_in_a_cookie(shop, at_shop, mode) -> None:
    server = shop(cookies=Cookies(mode, secure=False))
    [tab] = at_shop(server, storage="cookie")
    assert tab.ask("/echo", method="POST", body="x")["status"] == 200
    server.expire()
    assert statuses(tab.together(10, "/echo", method="POST", body="x")) == [200] * 10
    assert (server.refreshes, server.alarms()) == (1, 0)
    assert "eyJ" not in tab.run("() => JSON.stringify(localStorage) + document.cookie")
    assert (tab.run("() => session.token()") == "") is (mode == "both")
