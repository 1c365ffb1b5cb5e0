"""Login and logout count at once, in all tabs: nothing is sent for another user."""

from __future__ import annotations

import httpx2
import pytest

from tests.browser.tabs import until
from tests.interop.backends.base import Fault
from tests.interop.backends.shapes import BearerJson
from unbroken.server import Cookies, RateLimitPolicy


@pytest.mark.defect("C7")
def test_requests_that_wait_under_one_user_are_never_sent_for_the_next(stage) -> None:
    scene = stage(BearerJson(), tabs=2)
    scene.backend.expire()
    scene.backend.spoil(Fault(held=True))
    waits = [(tab, tab.begin("/api/echo", method="POST", body="pay")) for tab in scene.tabs]
    scene.tab.until(lambda: scene.backend.refreshes and len(scene.backend.seen) == 2)
    scene.log_in("bob", scene.tabs[1])
    scene.backend.go_on.set()
    assert [tab.outcome(numbers)["reason"] for tab, numbers in waits] == ["other_login"] * 2
    assert len(scene.backend.seen) == 2
    assert [tab.ask("/api/echo")["json"]["user"] for tab in scene.tabs] == ["bob"] * 2
    assert [len(tab.heard("over")) for tab in scene.tabs] == [1, 0], (
        "only the other tab has to know that the user has changed"
    )


@pytest.mark.defect("I5")
def test_a_logout_in_one_tab_ends_the_waiting_requests_of_another_at_once(stage) -> None:
    scene = stage(BearerJson(), tabs=2)
    scene.backend.expire()
    scene.backend.spoil(Fault(held=True))
    waits = scene.tabs[1].begin("/api/echo", count=3, method="POST", body="pay")
    scene.tab.until(lambda: scene.backend.refreshes)
    scene.tab.run("() => session.logout()")
    assert [one["reason"] for one in scene.tabs[1].outcomes(waits)] == ["logged_out"] * 3
    assert len(scene.backend.issued) == 1, "before the response to the refresh"
    scene.backend.go_on.set()
    until(lambda: len(scene.backend.issued) == 2)
    scene.tab.until(lambda: not scene.tabs[1].status["refreshing"])
    assert "tokens" not in scene.tab.stored, "and its late tokens are dropped"


def test_a_logout_during_a_refresh_is_final_in_all_tabs(shop, at_shop) -> None:
    server = shop()
    tabs = at_shop(server, tabs=2)
    server.expire()
    server.spoil(Fault(seconds=0.5))
    begun = [(tab, tab.begin("/echo")) for tab in tabs]
    tabs[0].until(lambda: server.refreshes)
    assert tabs[1].run("() => session.logout()") is True
    assert [tab.outcome(numbers)["reason"] for tab, numbers in begun] == ["logged_out"] * 2
    tabs[0].until(lambda: not tabs[0].status["refreshing"])
    assert [tab.status["reason"] for tab in tabs] == ["logged_out"] * 2
    assert "tokens" not in tabs[0].stored
    assert [event["here"] for tab in tabs for event in tab.heard("over")] == [False, True]


@pytest.mark.defect("I5")
def test_requests_after_a_logout_fail_unless_visitors_are_allowed(stage) -> None:
    scene = stage(BearerJson())
    scene.tab.run("() => session.logout()")
    assert scene.get()["reason"] == "logged_out"
    assert scene.backend.seen == []
    scene.tab.start(**scene.options, visitors=True)
    assert scene.get()["status"] == 401
    assert [seen.value for seen in scene.backend.seen] == [""]
    assert scene.backend.refreshes == 0


LOGIN = "() => session.login('ada', 'word')"


REFUSALS = {
    400: "invalid_request",
    401: "access_denied",
    403: "access_denied",
    422: "invalid_request",
    429: "try_later",
    500: "try_later",
}


@pytest.mark.parametrize("client", ["fetch"])
@pytest.mark.parametrize(("status", "code"), REFUSALS.items())
def test_a_refused_login_has_the_code_for_its_status(stage, client, status, code) -> None:
    scene = stage(BearerJson())
    scene.tab.start(**scene.options | {"login": {"url": f"/api/raw/{status}"}})
    assert scene.tab.attempt(LOGIN)["error"] == code


@pytest.mark.parametrize("client", ["fetch"])
def test_a_login_whose_response_is_an_html_page_is_a_bad_response_with_cookies_too(shop, tab, client) -> None:
    server = shop(cookies=Cookies("both", secure=False))
    page = tab(server, client)
    page.start(storage="cookie")
    page.page.route("**/auth/login", lambda route: route.fulfill(status=200, body="<h1>Welcome to our network</h1>"))
    assert page.attempt(LOGIN)["error"] == "bad_answer"
    assert page.attempt("() => session.importTokens(null)")["error"] == "bad_answer"
    page.page.unroute("**/auth/login")
    page.log_in()
    assert page.ask("/echo")["json"]["user"] == "ada"


# ---- dispose ---------------------------------------------------------------------------------------------------------


@pytest.mark.defect("C10")
def test_a_disposed_session_and_a_detached_axios_do_nothing_by_themselves(scene) -> None:
    scene.tab.run("() => (session.dispose(), session.dispose(), detach(), detach())")
    scene.backend.expire()
    assert scene.tab.run("async () => (await instance.get('/api/echo').catch((error) => error.response)).status") == 401
    assert scene.backend.refreshes == 0, "axios is on its own again"
    scene.tab.pass_(9000)
    scene.tab.run("() => window.dispatchEvent(new Event('online'))")
    assert [seen.value for seen in scene.backend.seen] == [""]


def test_a_disposed_session_can_log_out(shop, at_shop) -> None:
    server = shop()
    [tab] = at_shop(server)
    assert tab.run("() => { session.dispose(); return session.logout(); }") is True
    assert [info.revoked_why for info in server.sessions.list_sessions(include_revoked=True)] == ["logged_out"]


def test_a_disposed_session_still_refreshes_for_its_requests(stage) -> None:
    scene = stage(BearerJson())
    scene.tab.run("() => session.dispose()")
    scene.backend.expire()
    assert scene.get()["status"] == 200
    assert scene.backend.refreshes == 1


@pytest.mark.parametrize("storage", ["localStorage", "sessionStorage", "memory", "cookie"])
def test_a_page_that_has_logged_in_before_gets_in_beside_guesses_from_the_same_address(storage, shop, at_shop) -> None:
    server = shop(cookies=Cookies(secure=False), rate_limit=RateLimitPolicy(account_burst=2))
    [tab] = at_shop(server, storage=storage)
    tab.run("() => session.logout()")
    guesses = [
        httpx2.post(server.url + "/auth/login", json={"username": "ada", "password": "wrong"}, timeout=30).status_code
        for _ in range(6)
    ]
    assert guesses[-1] == 429
    tab.log_in()
    assert tab.status["reason"] != "logged_out"
    assert tab.ask("/echo")["json"]["user"] == "ada"
