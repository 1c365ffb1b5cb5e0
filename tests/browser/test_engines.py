"""The core scenarios, in every engine of browsers: Chromium, Firefox, WebKit. The rest runs in Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.engines import ENGINES, running
from tests.browser.scene import DOWN, errors, statuses
from tests.browser.tabs import Tab
from tests.browser.test_applications import WORKER
from tests.browser.test_nothing_silent import FILL, NO_LOCKS
from tests.browser.test_proofs import FORGET, KEYS
from tests.interop.backends.base import Fault
from tests.interop.backends.shapes import BearerJson, KeptRefresh
from unbroken.server import Cookies, ProofPolicy

WITHOUT_WINDOW = {"window": None}  # any number of refreshes: the tests expire tokens faster than servers do


class Windows:
    """The windows of one test, in a context that all tests of an engine share: WebKit needs two seconds for one."""

    def __init__(self, context: Any) -> None:
        self._context, self._open = context, []

    def new_page(self) -> Any:
        self._open.append(self._context.new_page())
        return self._open[-1]

    def close(self) -> None:
        for page in self._open:
            page.evaluate("() => localStorage.clear()")
            page.close()


@pytest.fixture(scope="module", params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A context of each engine."""
    if request.param == "chromium":
        context = request.getfixturevalue("browser").new_context()
        yield context
        context.close()
        return
    with running(request.param) as browser:
        context = browser.new_context()
        yield context
        context.close()


@pytest.fixture
def context(engine: Any) -> Iterator[Any]:
    made = Windows(engine)
    yield made
    made.close()


@pytest.fixture
def client() -> str:
    return "fetch"


def reloaded(tab: Tab, **options: Any) -> Tab:
    tab.page.reload()
    tab.page.wait_for_function("window.ready")
    tab.start(**options)
    return tab


# ---- storms and tabs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", ["fetch", "axios"])
def test_a_storm_of_challenges_causes_one_refresh(stage, client) -> None:
    scene = stage(BearerJson())
    scene.tab.client = client
    scene.backend.expire()
    outcomes = scene.tab.together(40, "/api/echo", method="POST", body="body")
    assert statuses(outcomes) == [200] * 40
    assert (scene.backend.refreshes, scene.backend.alarms) == (1, 0)
    assert len({seen.sha256 for seen in scene.backend.seen}) == 1, "each body is whole"
    good = scene.backend.issued[-1].access
    assert sum(seen.value.endswith(good) for seen in scene.backend.seen) == 40, "each is served once"


def test_a_storm_of_requests_after_the_expiry_causes_one_refresh(stage) -> None:
    scene = stage(BearerJson(lifetime=1800))
    scene.tab.pass_(1801)
    assert statuses(scene.tab.together(40, "/api/echo")) == [200] * 40
    assert (scene.backend.refreshes, len(scene.backend.seen)) == (1, 40)


def test_several_tabs_share_one_refresh(stage) -> None:
    scene = stage(BearerJson(), tabs=3, **WITHOUT_WINDOW)
    for round_ in (1, 2):
        scene.backend.expire()
        scene.backend.spoil(Fault(seconds=0.1))
        assert statuses(scene.together(10)) == [200] * 30
        assert (scene.backend.refreshes, scene.backend.alarms) == (round_, 0)


def test_several_tabs_share_one_refresh_without_web_locks(stage) -> None:
    scene = stage(BearerJson(), tabs=3, before=NO_LOCKS, **WITHOUT_WINDOW)
    for round_ in (1, 2):
        scene.backend.expire()
        scene.backend.spoil(Fault(seconds=0.1))
        assert statuses(scene.together(10)) == [200] * 30
        assert (scene.backend.refreshes, scene.backend.alarms) == (round_, 0)


def test_a_logout_wins_over_a_refresh_in_another_tab(stage) -> None:
    scene = stage(BearerJson(), tabs=2)
    scene.backend.expire()
    scene.backend.spoil(Fault(held=True))
    waiting = scene.tab.begin("/api/echo", count=10)
    scene.tab.until(lambda: scene.backend.refreshes == 1)
    scene.tabs[1].run("() => void session.logout()")
    assert [outcome["reason"] for outcome in scene.tab.outcomes(waiting)] == ["logged_out"] * 10
    scene.backend.go_on.set()
    assert [tab.ask("/api/echo")["error"] for tab in scene.tabs] == ["session_over"] * 2
    assert [len(tab.heard("over")) for tab in scene.tabs] == [1, 1]


# ---- what is lost ----------------------------------------------------------------------------------------------------


def test_a_lost_response_logs_no_user_out(shop, at_shop) -> None:
    server = shop(grace=0.0)
    [tab] = at_shop(server)
    server.expire()
    server.spoil(Fault(lost=True, used=True))
    assert statuses(tab.together(20, "/echo")) == [200] * 20
    assert (server.refreshes, server.alarms()) == (2, 0)


def test_a_reload_during_a_refresh_logs_no_user_out(shop, at_shop) -> None:
    server = shop(grace=0.0)
    [tab] = at_shop(server)
    server.expire()
    server.spoil(Fault(seconds=0.3, used=True, lost=True))
    tab.begin("/echo")
    tab.until(lambda: server.refreshes)
    assert reloaded(tab, storage="localStorage", refreshTimeout=2).ask("/echo")["status"] == 200
    assert server.alarms() == 0


def test_a_full_storage_ends_no_session(stage) -> None:
    scene = stage(KeptRefresh(), **WITHOUT_WINDOW)
    scene.tab.run(FILL)
    for _ in range(3):
        scene.backend.expire()
        assert scene.get()["status"] == 200
    assert reloaded(scene.tab, **scene.options).ask("/api/echo").get("status") == 200
    assert scene.backend.alarms == 0


@pytest.mark.parametrize("seconds", [-86_400, -3600, 3600])
def test_a_clock_that_jumps_ends_no_session(stage, seconds) -> None:
    scene = stage(BearerJson(lifetime=1800), **WITHOUT_WINDOW)
    scene.backend.expire()
    scene.backend.spoil(DOWN)
    assert errors([scene.get()]) == ["try_later"]
    scene.tab.pass_(seconds)
    assert scene.get()["status"] == 200
    assert scene.backend.alarms == 0


def test_a_hidden_page_does_not_refresh(stage) -> None:
    scene = stage(BearerJson(lifetime=1800))
    scene.tab.pass_(1700)
    scene.tab.run("""() => {
        Object.defineProperty(document, "visibilityState", { value: "hidden" });
        document.dispatchEvent(new Event("visibilitychange", { bubbles: true }));
    }""")
    scene.tab.page.wait_for_timeout(200)
    assert scene.backend.refreshes == 0


# ---- cookies, other origins, bodies, workers -------------------------------------------------------------------------


def test_tabs_with_both_tokens_in_cookies_share_one_refresh(shop, at_shop) -> None:
    server = shop(cookies=Cookies("both", secure=False))
    tabs = at_shop(server, tabs=3, storage="cookie", **WITHOUT_WINDOW)
    before = server.refreshes
    server.expire()
    server.spoil(Fault(seconds=0.1))
    begun = [(tab, tab.begin("/echo", count=10)) for tab in tabs]
    assert [statuses(tab.outcomes(numbers)) for tab, numbers in begun] == [[200] * 10] * 3
    assert (server.refreshes - before, server.alarms()) == (1, 0)


def test_tabs_with_access_tokens_in_memory_share_one_refresh(shop, at_shop) -> None:
    server = shop(cookies=Cookies(secure=False))
    tabs = at_shop(server, tabs=4, storage="cookie", **WITHOUT_WINDOW)
    assert statuses([tab.ask("/echo") for tab in tabs]) == [200] * 4
    before = server.refreshes
    server.expire()
    server.spoil(Fault(seconds=0.1))
    begun = [(tab, tab.begin("/echo", count=3)) for tab in tabs]
    assert [statuses(tab.outcomes(numbers)) for tab, numbers in begun] == [[200] * 3] * 4
    assert (server.refreshes - before, server.alarms()) == (1, 0)


def test_a_backend_on_another_origin_is_refreshed_once(run, tab, page_servers) -> None:
    own, other = run(BearerJson()), run(BearerJson())
    page = tab(own)
    refresh = {"url": f"{other.url}/auth/refresh-token", "rename": {"refresh_token": "refreshToken"}}
    names = {"access_token": "accessToken", "refresh_token": "refreshToken"}
    page.start(refresh=refresh, login={"url": f"{other.url}/login"}, tokens=names, storage="localStorage")
    page.log_in()
    other.expire()
    assert statuses(page.together(10, f"{other.url}/api/echo")) == [200] * 10
    assert (other.refreshes, other.alarms, own.seen) == (1, 0, [])


@pytest.mark.parametrize("client", ["fetch", "request"])
@pytest.mark.parametrize("kind", ["blob", "upload"])
def test_bodies_that_wait_and_are_sent_again(stage, client, kind) -> None:
    scene = stage(BearerJson(), **WITHOUT_WINDOW)
    scene.tab.client = client
    first = scene.post(None, kind=kind)
    if (client, kind, first.get("error")) == ("request", "upload", "misconfigured"):
        assert (scene.backend.seen, "form" in first["message"]) == ([], True), "WebKit, which would send it empty"
        return
    assert first["status"] == 200
    whole = int(scene.backend.seen[-1].headers["content-length"])
    for _ in range(2):
        scene.backend.expire()
        scene.backend.spoil(Fault(seconds=0.5))
        assert scene.post(None, kind=kind)["status"] == 200
    # the boundary of a form is another one each time, and not always as long
    lengths = [int(seen.headers["content-length"]) for seen in scene.backend.seen]
    assert lengths == [pytest.approx(whole, abs=30)] * 5


def test_streams_are_refused_or_sent_whole(stage) -> None:
    scene = stage(BearerJson())
    came = scene.post(None, kind="stream")
    refusals = ("UnbrokenError", "TypeError", "NotSupportedError")
    assert came.get("name") in refusals or came["status"] == 200
    sizes = [int(seen.headers.get("content-length", 13)) for seen in scene.backend.seen]
    assert sizes in ([], [len("streamed body")])


def test_pages_and_workers_share_a_session(stage) -> None:
    scene = stage(BearerJson())
    options = {**scene.options, "storage": "memory", "key": "shared"}
    start = """async (options) => {
        const { databaseStore } = await import("/unbroken-stores.js");
        start({ ...options, store: databaseStore() });
    }"""
    scene.tab.run(start, options)
    scene.log_in()
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=0.1))
    began = scene.tab.begin("/api/echo", count=5)
    about = {**options, "url": scene.backend.url + "/auth", "store": True, "path": "/api/echo"}
    assert scene.tab.run(WORKER, about) == [200] * 5
    assert statuses(scene.tab.outcomes(began)) == [200] * 5
    assert (scene.backend.refreshes, scene.backend.alarms) == (1, 0)


# ---- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", ["fetch", "axios"])
def test_tabs_share_a_key_that_nobody_can_take_away(shop, at_shop, client) -> None:
    server = shop(proofs=ProofPolicy("required", require_nonce=True))
    tabs = at_shop(server, tabs=2, dpop=True, **WITHOUT_WINDOW)
    server.expire()
    server.spoil(Fault(seconds=0.1))
    begun = [(tab, tab.begin("/echo", count=10)) for tab in tabs]
    assert [statuses(tab.outcomes(numbers)) for tab, numbers in begun] == [[200] * 10] * 2
    assert server.alarms() == 0
    key = f"async () => (await ({KEYS})()).map(({{ privateKey }}) => privateKey.extractable)"
    assert tabs[0].run(key) == [False]
    assert reloaded(tabs[0], storage="localStorage", dpop=True).ask("/echo")["status"] == 200


def test_a_lost_key_ends_the_session_with_a_reason(shop, at_shop) -> None:
    server = shop()
    [tab] = at_shop(server, dpop=True)
    tab.run(FORGET)
    said = reloaded(tab, storage="localStorage", dpop=True).ask("/echo")
    assert (said["error"], said["reason"], server.alarms()) == ("session_over", "wrong_key", 0)
