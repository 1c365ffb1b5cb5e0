"""What goes wrong says so, and loses nothing: storages, clocks, locks, hidden pages, wrong options, wrong URLs."""

from __future__ import annotations

import json
import time

import pytest

from tests.browser.scene import DOWN, statuses
from tests.browser.tabs import Tab
from tests.interop.backends.base import Fault
from tests.interop.backends.shapes import BearerJson, CodeIn200, KeptRefresh

NO_LOCKS = "delete Navigator.prototype.locks;"
FILL = """() => {
    for (let size = 2 ** 20; size >= 1; size = Math.floor(size / 2))
        for (let n = 0; ; n++)
            try { localStorage.setItem(`fill ${size} ${n}`, "x".repeat(size)); } catch { break; }
}"""


@pytest.fixture
def client() -> str:
    return "fetch"


def reloaded(tab: Tab, **options: object) -> Tab:
    tab.page.reload()
    tab.page.wait_for_function("window.ready")
    tab.start(**options)
    return tab


# ---- storage ---------------------------------------------------------------------------------------------------------


def test_a_storage_that_has_become_full_still_takes_new_tokens(stage) -> None:
    scene = stage(KeptRefresh())
    scene.tab.run(FILL)
    for _ in range(3):
        scene.backend.expire()
        assert scene.get()["status"] == 200
    assert reloaded(scene.tab, **scene.options).ask("/api/echo")["status"] == 200
    assert (scene.backend.refreshes, scene.backend.alarms) == (3, 0)


def test_a_storage_that_refuses_leaves_no_spent_token_behind(stage) -> None:
    scene = stage(KeptRefresh())
    scene.tab.run("() => { Storage.prototype.setItem = () => { throw new DOMException('full'); }; }")
    for _ in range(2):
        scene.backend.expire()
        assert scene.get()["status"] == 200
    assert reloaded(scene.tab, **scene.options).ask("/api/echo")["reason"] == "not_logged_in"
    assert scene.backend.alarms == 0


@pytest.mark.parametrize(
    "junk",
    [
        "5",
        '"text"',
        "[]",
        "{}",
        '{"version": "1"}',
        '{"version": 1e999, "epoch": 1}',
        '{"version": 1, "epoch": 1, "tokens": 5}',
        '{"version": 1, "epoch": 1, "failed": 5}',
        "null",
        "{",
        "",
    ],
)
def test_a_stored_text_that_is_no_record_is_no_session(stage, junk) -> None:
    scene = stage(BearerJson(), key="junk")
    scene.tab.run("(junk) => localStorage.setItem('junk', junk)", junk)
    tab = reloaded(scene.tab, **scene.options)
    assert tab.ask("/api/echo").get("reason") in ("not_logged_in", "logged_out", "no_refresh_token")
    scene.log_in()
    assert tab.ask("/api/echo")["status"] == 200


def test_a_cleared_storage_ends_the_session_in_the_tab_that_cleared_it(stage) -> None:
    scene = stage(BearerJson(), tabs=2)
    scene.tab.run("() => localStorage.clear()")
    assert scene.get()["error"] == "session_over"
    scene.tabs[1].until(lambda: scene.tabs[1].heard("over"))
    assert [len(tab.heard("over")) for tab in scene.tabs] == [1, 1]


# ---- clocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [-1800, -86_400, -5])
def test_a_clock_that_is_set_back_does_not_lengthen_a_pause(stage, seconds) -> None:
    scene = stage(BearerJson())
    scene.backend.expire()
    scene.backend.spoil(DOWN)
    assert scene.get()["retryAfter"] == 30
    scene.tab.pass_(seconds)
    assert scene.get()["status"] == 200


def test_a_clock_that_is_set_back_ends_a_storm(stage) -> None:
    scene = stage(BearerJson(), window={"attempts": 1, "interval": 30})
    scene.backend.expire()
    assert scene.get()["status"] == 200
    scene.backend.expire()
    assert scene.get()["status"] == 401
    scene.tab.pass_(-3600)
    assert scene.get()["status"] == 200


def test_a_clock_that_is_set_back_does_not_leave_an_endpoint_alone(stage) -> None:
    scene = stage(BearerJson())
    assert scene.get("/api/never")["status"] == 401
    scene.tab.pass_(-3600)
    before = scene.backend.refreshes
    assert scene.get("/api/never")["status"] == 401
    assert scene.backend.refreshes == before + 1


# ---- locks -----------------------------------------------------------------------------------------------------------


def test_tabs_without_web_locks_refresh_once_at_a_strict_backend(stage) -> None:
    scene = stage(BearerJson(), tabs=3, before=NO_LOCKS, window=None)
    for round_ in range(1, 3):
        scene.backend.expire()
        scene.backend.spoil(Fault(seconds=0.1))
        assert statuses(scene.together(30)) == [200] * 90
        assert (scene.backend.refreshes, scene.backend.alarms) == (round_, 0)


def test_without_web_locks_a_reload_during_a_refresh_holds_nobody_up(stage) -> None:
    scene = stage(BearerJson(), tabs=2, before=NO_LOCKS, refreshTimeout=10)
    scene.backend.expire()
    scene.backend.spoil(Fault(held=True))
    scene.tab.begin("/api/echo")
    scene.tab.until(lambda: scene.backend.refreshes == 1)
    scene.tab.page.goto("about:blank")
    began = time.monotonic()
    assert scene.tabs[1].ask("/api/echo")["status"] == 200
    assert time.monotonic() - began < 5
    scene.backend.go_on.set()


def test_without_web_locks_a_lock_that_is_never_released_is_waited_for_a_limited_time(stage) -> None:
    scene = stage(BearerJson(), before=NO_LOCKS, refreshTimeout=0.5, key="the lock")
    scene.tab.run("""() => new Promise((done) => {
        const opening = indexedDB.open("the lock");
        opening.onupgradeneeded = () => opening.result.createObjectStore("the lock");
        opening.onsuccess = () => {
            const transaction = opening.result.transaction("the lock", "readwrite");
            transaction.objectStore("the lock").put("somebody who is gone", "the lock");
            transaction.oncomplete = () => done(opening.result.close());
        };
    })""")
    scene.backend.expire()
    assert scene.get()["status"] == 200
    began = time.monotonic()
    scene.backend.expire()
    assert scene.get()["status"] == 200
    assert time.monotonic() - began < 0.75, "it is free again"


def test_tabs_with_an_access_token_in_memory_share_one_refresh(shop, at_shop) -> None:
    from unbroken.server import Cookies

    server = shop(cookies=Cookies(secure=False), access_ttl=1800)
    tabs = at_shop(server, tabs=8, storage="cookie")
    assert statuses([tab.ask("/echo") for tab in tabs]) == [200] * 8
    before = server.refreshes
    server.expire()
    server.spoil(Fault(seconds=0.1))
    began = time.monotonic()
    begun = [(tab, tab.begin("/echo", count=5)) for tab in tabs]
    assert [statuses(tab.outcomes(numbers)) for tab, numbers in begun] == [[200] * 5] * 8
    assert (server.refreshes - before, server.alarms()) == (1, 0)
    assert time.monotonic() - began < 3


# ---- hidden pages ----------------------------------------------------------------------------------------------------


def test_hiding_a_page_begins_no_refresh(stage) -> None:
    scene = stage(BearerJson(lifetime=1800))
    scene.tab.pass_(1700)
    scene.tab.run("""() => {
        Object.defineProperty(document, "visibilityState", { value: "hidden", configurable: true });
        document.dispatchEvent(new Event("visibilitychange", { bubbles: true }));
        for (const type of ["focus", "online", "pageshow"]) dispatchEvent(new Event(type));
    }""")
    scene.tab.page.wait_for_timeout(300)
    assert scene.backend.refreshes == 0
    scene.tab.run("""() => {
        Object.defineProperty(document, "visibilityState", { value: "visible", configurable: true });
        document.dispatchEvent(new Event("visibilitychange", { bubbles: true }));
    }""")
    scene.tab.until(lambda: scene.backend.refreshes == 1)


# ---- the server's own response ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", ["fetch", "axios"])
def test_an_api_that_answers_401_for_rights_is_never_hidden(stage, client) -> None:
    scene = stage(BearerJson(), window={"attempts": 2, "interval": 30})
    scene.tab.client = client
    responses = [scene.get(f"/api/never/{n}" if n else "/api/never") for n in (0,)]
    responses += [scene.tab.ask("/api/never", method=method) for method in ("POST", "PUT", "GET")]
    assert statuses(responses) == [401] * 4


def test_an_error_after_a_challenge_has_the_servers_response(stage) -> None:
    scene = stage(BearerJson())
    scene.backend.expire()
    scene.backend.spoil(DOWN)
    script = "() => session.fetch('/api/echo').catch((error) => [error.code, error.response.status, error.message])"
    assert scene.tab.run(script)[:2] == ["try_later", 401]
    assert "/auth/refresh-token responded with status 503" in scene.tab.run(script)[2]


# ---- options ---------------------------------------------------------------------------------------------------------

MISTAKES = {
    "{ storge: 'localStorage' }": "storage",
    "{ storage: 'localstorage' }": "localStorage",
    "{ storage: 'local' }": "localStorage",
    "{ refreshTimout: 5 }": "refreshTimeout",
    "{ tokens: { accessToken: 'a' } }": "access_token",
    "{ challenge: [401] }": "status",
    "{ challenge: { stauts: [401] } }": "status",
    "{ challenge: { status: [401], field: 'code' } }": "values",
    "{ endsSession: { values: [401] } }": "field",
    "{ refresh: { url: '/x', method: 'GET' } }": "query",
    "{ refresh: { url: '/x', encoding: 'querry' } }": "query",
    "{ refresh: { ulr: '/x' } }": "url",
    "{ login: { url: '/x', rname: {} } }": "rename",
    "{ window: { intervall: 3, attempts: 2 } }": "interval",
    "{ Storage: 'cookie' }": "storage",
}


@pytest.mark.parametrize("options", MISTAKES)
def test_a_mistake_in_the_options_names_what_was_meant(scene, options) -> None:
    came = scene.tab.attempt(f"() => createSession({options})")
    assert came["error"] == "misconfigured"
    assert f"'{MISTAKES[options]}'" in came["message"] or MISTAKES[options] in came["message"]
    assert came["field"]


@pytest.mark.parametrize(
    "options", ["{ window: null }", "{ scheme: null }", "{ storage: undefined }", "{ header: 'token' }"]
)
def test_what_switches_off_or_is_left_out_is_no_mistake(scene, options) -> None:
    assert "error" not in scene.tab.attempt(f"() => void createSession({options})")


@pytest.mark.parametrize("name", ["URL", "Headers", "AbortController", "fetch"])
def test_what_a_platform_lacks_is_told_when_the_session_is_created(scene, name) -> None:
    script = "(name) => { delete window[name]; createSession(); }"
    came = scene.tab.attempt(script, name)
    assert (came["error"], name in came["message"]) == ("misconfigured", True)


def test_an_older_browser_has_all_that_a_session_needs(stage) -> None:
    old = "delete Promise.withResolvers; delete AbortSignal.any; delete AbortSignal.timeout; delete window.EventTarget;"
    scene = stage(BearerJson(), before=old)
    scene.backend.expire()
    assert statuses(scene.together(3)) == [200] * 3


# ---- the refresh endpoint --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(status=404, body=b"{}"), ["/auth/refresh-token", "404"]),
        (Fault(status=502, body=b"bad gateway"), ["/auth/refresh-token", "502"]),
    ],
    ids=["404", "proxy"],
)
def test_a_wrong_refresh_url_and_a_proxys_error_are_named(stage, fault, words) -> None:
    scene = stage(BearerJson())
    scene.backend.expire()
    scene.backend.spoil(fault, times=3)
    caught = scene.get()
    assert caught["error"] == "try_later"
    assert all(word in caught["message"] for word in words)
    assert scene.get()["message"] == caught["message"], "a remembered failure says the same"


def test_a_server_that_keeps_silent_is_named_with_the_time_and_with_busy_connections(stage) -> None:
    scene = stage(BearerJson(), refreshTimeout=0.2)
    scene.backend.expire()
    scene.backend.spoil(Fault(held=True), times=3)
    message = scene.get()["message"]
    scene.backend.go_on.set()
    assert all(words in message for words in (scene.backend.url, "0.2 seconds", "every connection"))


def test_a_page_of_html_at_the_refresh_url_is_named(stage) -> None:
    scene = stage(BearerJson())
    scene.backend.expire()
    scene.tab.page.route(
        "**/auth/refresh-token", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html")
    )
    assert "HTML" in scene.get()["message"]


def test_a_refused_preflight_says_that_it_may_be_one(stage) -> None:
    scene = stage(BearerJson())
    elsewhere = scene.backend.url.replace("127.0.0.1", "localhost")
    scene.tab.start(**{**scene.options, "login": {"url": f"{elsewhere}/login"}})
    caught = scene.tab.attempt("() => session.login('ada', 'x')")
    assert (caught["error"], "CORS" in caught["message"], elsewhere in caught["message"]) == ("try_later", True, True)


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_an_error_reads_well_as_a_text_and_as_json(scene) -> None:
    scene.tab.run("() => session.logout()")
    said = scene.tab.run("() => session.fetch('/api/echo').catch((error) => [String(error), JSON.stringify(error)])")
    assert said[0] == "UnbrokenError session_over: please log in again"
    assert {"name": "UnbrokenError", "code": "session_over", "reason": "logged_out"}.items() <= json.loads(
        said[1]
    ).items()
    assert json.loads(said[1])["message"] == "please log in again"


def test_a_refused_login_says_it_in_the_servers_words(shop, tab) -> None:
    page = tab(shop())
    page.start()
    caught = page.attempt("() => session.login('ada', 'wrong')")
    assert caught["error"] == "access_denied"
    assert "status" not in caught["message"]


@pytest.mark.parametrize("shape", [BearerJson, CodeIn200])
def test_handlers_of_axios_errors_find_response_and_config(stage, shape) -> None:
    scene = stage(shape())
    scene.backend.end_sessions()
    handler = """() => instance.get("/api/echo?x=1").catch((error) => {
        const { data, config, status } = error.response;
        return [error.code, status, typeof data, config.url, error.config.url, axios.isAxiosError(error)];
    })"""
    for _ in range(2):
        code, status, data, *configs, is_axios = scene.tab.run(handler)
        assert (code, configs, is_axios) == ("session_over", ["/api/echo?x=1"] * 2, False)
        assert (status in (200, 401), data in ("string", "object")) == (True, True)


@pytest.mark.parametrize("thing", ["{}", "null", "() => {}", "{ create: () => ({}), interceptors: {} }"])
def test_what_is_no_axios_is_told_when_it_is_attached(scene, thing) -> None:
    assert scene.tab.attempt(f"() => session.attach({thing})")["error"] == "misconfigured"


def test_an_axios_without_headers_of_its_own_is_told_when_it_is_attached(scene) -> None:
    script = """() => session.attach({
        create: () => ({ defaults: {}, request: ({ adapter, ...config }) => adapter(config) }),
        interceptors: { request: { use() {}, eject() {} } },
    })"""
    assert scene.tab.attempt(script)["error"] == "misconfigured"


def test_a_cancel_token_frees_a_waiter_at_once(stage) -> None:
    scene = stage(BearerJson())
    scene.backend.expire()
    scene.backend.spoil(Fault(held=True))
    script = """async () => {
        const source = axios.CancelToken.source();
        delete axios.CancelToken.prototype.toAbortSignal;
        const asked = instance.get("/api/echo", { cancelToken: source.token }).catch((error) => axios.isCancel(error));
        setTimeout(() => source.cancel(), 100);
        return await Promise.race([asked, new Promise((done) => setTimeout(done, 3000, "late"))]);
    }"""
    assert scene.tab.run(script) is True
    scene.backend.go_on.set()


def test_a_stream_of_axios_is_whole_although_its_challenge_was_looked_for(stage) -> None:
    scene = stage(CodeIn200())
    scene.backend.expire()
    script = """async () => {
        const { data } = await instance.get("/api/echo", { responseType: "stream", adapter: "fetch" });
        return JSON.parse(await new Response(data).text()).user;
    }"""
    assert scene.tab.run(script) == "ada"


# ---- what is left behind ---------------------------------------------------------------------------------------------


def test_waiters_leave_no_listeners_behind(stage) -> None:
    counted = """
        window.signals = 0;
        const { addEventListener, removeEventListener } = AbortSignal.prototype;
        const counting = (step, call) => function (...about) { signals += step; return call.apply(this, about); };
        AbortSignal.prototype.addEventListener = counting(1, addEventListener);
        AbortSignal.prototype.removeEventListener = counting(-1, removeEventListener);
    """
    scene = stage(BearerJson(), before=counted)
    scene.backend.expire()
    assert statuses(scene.together(20)) == [200] * 20
    assert scene.tab.run("() => signals") == 0


def test_only_the_last_hundred_tokens_are_known(scene) -> None:
    script = """async () => {
        for (let n = 0; n < 150; n++) session.importTokens({ accessToken: `own${n}`, refreshToken: "r" });
        const headers = { authorization: "Bearer own10" };
        return (await session.fetch("/api/echo", { headers })).status;
    }"""
    assert scene.tab.run(script) == 401
    assert scene.backend.seen[-1].value == "Bearer own10"


def test_a_page_without_channels_has_a_session(stage) -> None:
    scene = stage(BearerJson(), before="delete window.BroadcastChannel;")
    scene.backend.expire()
    assert scene.get()["status"] == 200
