"""What goes wrong has a stable code, whichever way it goes wrong; and tokens are kept off connections in the clear."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from tests.browser.shop import PASSWORD
from tests.interop.backends.base import Fault
from tests.interop.backends.shapes import BearerJson, OwnHeader
from unbroken.server import Cookies

# ---- codes -----------------------------------------------------------------------------------------------------------

LOGIN = "() => session.login('ada', 'word')"
CODES = {
    "tokens in the clear": ("() => createSession({ url: 'http://shop.example/auth' })", "misconfigured"),
    "in the clear on purpose": ("() => createSession({ url: 'http://shop.example/auth', allowPlainHttp: true })", None),
    "no URL for a login": (LOGIN, "misconfigured"),
    "an answer without tokens": ("() => session.import_tokens({})", "bad_answer"),
    "no answer": ("() => session.import_tokens(null)", "bad_answer"),
    "nobody is logged in": ("async () => { await session.logout(); await session.token(); }", "session_over"),
}


@pytest.mark.parametrize("client", ["fetch"])
@pytest.mark.parametrize(("script", "code"), CODES.values(), ids=CODES)
def test_a_mistake_has_its_code(stage, client, script, code) -> None:
    scene = stage(OwnHeader())  # whose dialect has no login
    assert scene.tab.attempt(script).get("error") == code


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
def test_a_login_that_is_refused_has_its_code(stage, client, status, code) -> None:
    scene = stage(BearerJson())
    scene.tab.start(**scene.options | {"login": {"url": f"/api/raw/{status}"}})
    assert scene.tab.attempt(LOGIN)["error"] == code


def test_tokens_that_are_rejected_again_and_again_are_a_storm(stage) -> None:
    scene = stage(BearerJson(), window={"attempts": 2, "interval": 30})
    for _ in range(2):
        scene.backend.expire()
        assert scene.get()["status"] == 200
    scene.backend.expire()
    caught = scene.get()
    assert (caught["error"], caught["retryAfter"]) == ("renewal_storm", 30)
    assert scene.backend.exchanges == 2
    scene.tab.pass_(31)
    assert scene.get()["status"] == 200


# ---- connections in the clear ----------------------------------------------------------------------------------------

ORIGINS = {
    "https://shop.example": True,
    "https://localhost.shop.example:8443": True,
    "http://localhost": True,
    "http://localhost:8000": True,
    "http://127.0.0.1:8000": True,
    "http://127.8.9.1": True,
    "http://[::1]": True,
    "http://[::1]:8000": True,
    "http://shop.example": False,
    "http://localhost.evil.example": False,
    "http://localhost.evil.example:8000": False,
    "http://localhosts": False,
    "http://127.evil.example": False,
    "http://127.0.0.1.evil.example": False,
    "http://localhost:80@evil.example": False,
    "http://[2001:db8::1]": False,
    "ws://localhost": False,
    "http://evil.example/http://localhost": False,
}


@pytest.mark.parametrize("client", ["fetch"])
@pytest.mark.parametrize("option", ["url", "origins", "refresh", "login"])
def test_only_loopback_may_do_without_https(stage, client, option) -> None:
    scene = stage(BearerJson())
    script = """(option, places) => places.map((place) => {
        const safe = { url: "https://shop.example", refresh: { url: "/refresh" }, origins: ["https://shop.example"] };
        const asks = { refresh: { url: place + "/refresh" }, login: { url: place + "/login" } };
        const own = { url: { url: place, refresh: undefined, origins: undefined }, origins: { origins: [place] } };
        try {
            createSession({ ...safe, ...(own[option] ?? { [option]: asks[option] }) }).dispose();
            return true;
        } catch ({ code }) {
            return code !== "misconfigured";
        }
    })"""
    allowed = scene.tab.run(script, option, list(ORIGINS))
    assert dict(zip(ORIGINS, allowed, strict=True)) == ORIGINS


# ---- how long to wait ------------------------------------------------------------------------------------------------


def test_a_server_that_asks_for_hours_is_left_alone_for_one(stage) -> None:
    scene = stage(BearerJson())
    scene.backend.expire()
    scene.backend.spoil(Fault(status=503, headers={"retry-after": "7200"}))
    assert scene.get()["retryAfter"] == 3600
    scene.tab.pass_(3500)
    caught = scene.get()
    assert (caught["error"], scene.backend.exchanges) == ("try_later", 1)
    assert caught["retryAfter"] == pytest.approx(100, abs=20)
    scene.tab.pass_(101)
    assert scene.get()["status"] == 200


@pytest.mark.parametrize(("ahead", "wait"), [(60, 60), (100_000, 3600), (-60, 1)])
def test_a_server_may_say_by_a_date_when_to_come_back_whatever_the_pages_clock_says(stage, ahead, wait) -> None:
    scene = stage(BearerJson())
    scene.backend.expire()
    scene.tab.pass_(5000)
    until = formatdate(time.time() + ahead, usegmt=True)
    scene.backend.spoil(Fault(status=503, headers={"retry-after": until}), times=3)
    caught = scene.get()
    assert (caught["error"], caught["retryAfter"]) == ("try_later", pytest.approx(wait, abs=3))


# ---- answers that are none -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", ["fetch"])
def test_a_login_that_is_answered_with_a_page_is_no_login_also_with_cookies(shop, tab, client) -> None:
    server = shop(cookies=Cookies("both", secure=False))
    page = tab(server, client)
    page.start(storage="cookie")
    page.page.route("**/auth/login", lambda route: route.fulfill(status=200, body="<h1>Welcome to our network</h1>"))
    assert page.attempt(LOGIN)["error"] == "bad_answer"
    assert page.attempt("() => session.import_tokens(null)")["error"] == "bad_answer"
    page.page.unroute("**/auth/login")
    page.run("(word) => session.login('ada', word)", PASSWORD)
    assert page.ask("/echo")["json"]["user"] == "ada"
