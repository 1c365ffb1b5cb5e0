"""The bindings in their frameworks, in a page: Vue 3 with Pinia and vue-router, React with TanStack Query, Angular."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.dialects import dialect_of
from tests.browser.project import FRAMEWORKS, bundled, install
from tests.browser.tabs import Tab
from tests.interop.backends.base import PASSWORD, Fault
from tests.interop.backends.shapes import CodeIn200, OwnHeader
from unbroken.server import Cookies

LOCAL = {"storage": "localStorage"}
IN_COOKIES = {"storage": "cookie"}
BOTH = Cookies("both", secure=False)


@pytest.fixture
def client() -> str:
    return "fetch"


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The script of an application of ``frameworks``, built once."""
    folder = tmp_path_factory.mktemp("apps")
    project = install(folder / "project")
    made: dict[str, str] = {}

    def app(name: str) -> str:
        if name not in made:
            made[name] = bundled(project, FRAMEWORKS / f"{name}_app.js")
        return made[name]

    return app


@pytest.fixture
def page(tab: Callable[..., Tab], apps: Callable[[str], str]) -> Callable[..., Tab]:
    """Opens a page of a server with an application in it: ``page("vue", server, options)``."""

    def build(name: str, server: Any, options: dict[str, Any], *more: Any) -> Tab:
        opened = tab(server)
        opened.page.add_script_tag(content=apps(name))
        opened.run(f"(...about) => start{name.title()}(...about)", options, *more)
        return opened

    return build


def log_in(tab: Tab, user: str = "ada") -> None:
    tab.run("(...who) => session.login(...who)", user, PASSWORD)


# ---- Vue -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [LOCAL, IN_COOKIES], ids=["localStorage", "cookie"])
def test_vue_shows_the_session_in_components_and_in_its_store(shop, page, options) -> None:
    server = shop(cookies=BOTH) if options is IN_COOKIES else shop()
    here, there = page("vue", server, options), page("vue", server, options)
    assert set(here.run("() => facts()")) == {"false expired nobody" if options is IN_COOKIES else "false over nobody"}
    log_in(here)
    for one in (here, there):
        one.until(lambda one=one: set(one.run("() => facts()")) == {"true good ada"})
    here.run("() => useStore().logout()")
    for one in (here, there):
        one.until(lambda one=one: set(one.run("() => facts()")) == {"false over nobody"})
    assert here.run("() => JSON.stringify(pinia.state.value)") == '{"session":{}}', "no plugin stores it again"


def test_vue_subscribes_once_for_all_components(shop, page) -> None:
    tab = page("vue", shop(), LOCAL, {"parts": 30})
    assert tab.run("() => subscribed()") == 2, "the plugin and the store"
    tab.run("() => app.unmount()")
    assert tab.run("() => subscribed()") == 1
    tab.run("() => useStore().$dispose()")
    assert tab.run("() => subscribed()") == 0


def path_of(tab: Tab) -> str:
    return tab.run("() => location.pathname + location.search + location.hash")


@pytest.mark.parametrize("options", [LOCAL, IN_COOKIES], ids=["localStorage", "cookie"])
def test_the_guard_of_vue_leads_to_the_login_page_and_back_in_all_tabs(shop, page, options) -> None:
    server = shop(cookies=BOTH) if options is IN_COOKIES else shop()
    here, there = page("vue", server, options), page("vue", server, options)
    for one in (here, there):
        one.run("() => router.push('/orders/1?x=1#y')")
        assert path_of(one) == "/login?back=/orders/1?x=1%23y"
    log_in(here)
    for one in (here, there):
        one.until(lambda one=one: path_of(one) == "/orders/1?x=1#y")
    here.run("() => router.push('/login')")
    assert path_of(here) == "/", "there is nothing to do at the login page"
    there.run("() => session.logout()")
    there.until(lambda: path_of(there) == "/login?back=/orders/1?x=1%23y")
    here.run("() => session.ready")
    assert path_of(here) == "/", "this page needs no login"
    here.run("() => stopGuard()")
    here.run("() => router.push('/orders/2')")
    assert path_of(here) == "/orders/2"


def test_a_page_that_needs_a_login_waits_until_it_is_known_whether_there_is_one(shop, page) -> None:
    server = shop(cookies=BOTH)
    log_in(page("vue", server, IN_COOKIES))
    tab = page("vue", server, {**IN_COOKIES, "key": "another"})
    tab.run("() => router.push('/orders/3')")
    assert path_of(tab) == "/orders/3"
    assert tab.run("() => facts()[0]") == "true good ada"


def test_vue_says_what_is_missing(shop, page) -> None:
    tab = page("vue", shop(), LOCAL)
    said = tab.run("""() => {
        const message = (work) => { try { work(); } catch (error) { return error.message; } };
        const app = createApp({ render: () => null });
        return [message(() => app.use(sessionPlugin)), message(() => app.runWithContext(() => useSession()))];
    }""")
    assert ["app.use(sessionPlugin, session)" in one for one in said] == [True, True]


# ---- React -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [LOCAL, IN_COOKIES], ids=["localStorage", "cookie"])
def test_react_shows_the_session_and_twenty_queries_cause_one_refresh(shop, page, options) -> None:
    server = shop(cookies=BOTH) if options is IN_COOKIES else shop()
    tab = page("react", server, options)
    tab.until(lambda: tab.run("() => text('u')"))
    assert tab.run("() => text('u')") == "%2Fpage", "where the login leads back to"
    log_in(tab)
    tab.until(lambda: tab.run("() => text('i')") == " ".join(["ada"] * 20))
    assert tab.run("() => text('b')") == "true good ada"
    before = server.refreshes
    server.expire()
    tab.run("() => client.invalidateQueries()")
    assert (server.refreshes - before, server.alarms()) == (1, 0)
    assert tab.run("() => text('i')") == " ".join(["ada"] * 20)
    assert tab.run("() => complaints") == []


def test_after_a_logout_nothing_of_a_user_is_left_in_react(shop, page) -> None:
    server = shop()
    tab = page("react", server, LOCAL, {"count": 3})
    log_in(tab)
    tab.until(lambda: tab.run("() => text('i')") == "ada ada ada")
    tab.run("() => client.setQueryData(['secret'], 1)")
    tab.run("() => session.logout()")
    tab.until(lambda: tab.run("() => text('u')"))
    left = "() => client.getQueryCache().getAll().filter(({ state }) => state.data !== undefined).length"
    assert tab.run(left) == 0
    log_in(tab, "bob")
    tab.until(lambda: tab.run("() => text('i')") == "bob bob bob")
    assert tab.run("() => complaints") == []


def test_queries_of_a_page_without_a_guard_are_sent_anew_after_a_login(shop, page) -> None:
    tab = page("react", shop(), LOCAL, {"count": 2, "isGuarded": False})
    tab.until(lambda: tab.run("() => text('i')") == "session_over session_over")
    assert tab.run("() => asked") == 2, "no request is sent again for a session that is over"
    for user in ("ada", "bob"):
        log_in(tab, user)
        tab.until(lambda user=user: tab.run("() => text('i')") == f"{user} {user}")
        tab.run("() => session.logout()")
        tab.until(lambda: tab.run("() => text('i')") == "session_over session_over")
    assert tab.run("() => complaints") == []


def test_a_login_in_the_place_of_another_shows_nothing_of_the_first_user(shop, page) -> None:
    server = shop()
    here, there = (page("react", server, LOCAL, {"count": 2, "isGuarded": False}) for _ in range(2))
    log_in(here)
    for tab in (here, there):
        tab.until(lambda tab=tab: tab.run("() => text('i')") == "ada ada")
        tab.run("() => client.setQueryData(['secret'], 'of ada')")
    before = here.run("() => asked")
    server.expire()
    here.run("() => session.fetch('/echo')")
    assert here.run("() => asked") == before, "a refresh forgets nothing"
    log_in(here, "bob")
    for tab in (here, there):
        tab.until(lambda tab=tab: tab.run("() => text('i')") == "bob bob")
        assert tab.run("() => client.getQueryData(['secret']) ?? null") is None


def test_a_response_of_the_last_user_that_comes_late_is_not_kept(shop, page) -> None:
    tab = page("react", shop(), LOCAL, {"count": 1, "isGuarded": False})
    log_in(tab)
    tab.until(lambda: tab.run("() => text('i')") == "ada")
    tab.run("""() => {
        window.answers = [];
        const queryFn = () => new Promise((done) => answers.push(done));
        void client.fetchQuery({ queryKey: ["late"], queryFn }).catch(() => {});
        return session.logout();
    }""")
    tab.run("() => answers.forEach((answer) => answer('of ada'))")
    assert tab.run("() => client.getQueryData(['late']) ?? null") is None


def test_queries_are_retried_where_that_may_help(shop, page) -> None:
    tab = page("react", shop(), LOCAL, {"count": 1})
    retry = """(count, error) => {
        const { retry, retryDelay } = client.getDefaultOptions().queries;
        return [retry(count, error), retryDelay(count, error)];
    }"""
    ours = {"name": "UnbrokenError", "code": "try_later", "retryAfter": 7}
    assert tab.run(retry, 0, ours) == [True, 7000]
    assert tab.run(retry, 3, ours)[0] is False
    assert tab.run(retry, 0, {**ours, "code": "session_over", "retryAfter": 0})[0] is False
    assert tab.run(retry, 2, {"name": "Error"}) == [True, 4000]


def test_the_guard_of_react_waits_until_it_is_known_whether_there_is_a_session(shop, page) -> None:
    server = shop(cookies=BOTH)
    log_in(page("react", server, IN_COOKIES, {"count": 1}))
    server.spoil(Fault(seconds=0.5))
    tab = page("react", server, {**IN_COOKIES, "key": "another"}, {"count": 1})
    tab.until(lambda: tab.run("() => text('s')") == "?")
    assert tab.run("() => [text('u'), text('i')]") == [None, None]
    tab.until(lambda: tab.run("() => text('i')") == "ada")
    assert tab.run("() => complaints") == []


def test_the_guard_of_react_leaves_the_page_where_there_is_no_router(shop, page) -> None:
    server = shop()
    tab = page("react", server, LOCAL, {"count": 1})
    tab.page.route("**/enter*", lambda route: route.fulfill(body="the login page"))
    tab.run("() => root.unmount()")
    tab.page.evaluate("history.replaceState(null, '', '/page?a=1#b')")
    tab.run("(options) => startReact(options, { login: '/enter' })", LOCAL)
    tab.until(lambda: tab.page.url.endswith("/enter?back=%2Fpage%3Fa%3D1%23b"))


# ---- Angular ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "how"), [(LOCAL, "xhr"), (IN_COOKIES, "fetch")], ids=["xhr", "fetch"])
def test_twenty_requests_of_angular_on_a_dead_token_cause_one_refresh(shop, page, options, how) -> None:
    server = shop(cookies=BOTH) if options is IN_COOKIES else shop()
    tab = page("angular", server, options, how)
    log_in(tab)
    before = server.refreshes
    server.expire()
    script = "() => Promise.all(Array.from({ length: 20 }, (_, n) => watch('GET', '/echo', { params: { n } })))"
    came = tab.run(script)
    assert [one["events"][0]["user"] for one in came] == ["ada"] * 20
    assert (server.refreshes - before, server.alarms()) == (1, 0)
    assert tab.run("() => signalled().state") == "good"
    tab.run("() => session.logout()")
    assert tab.run("() => signalled().state") == "over"


def test_an_upload_of_angular_tells_its_progress_and_is_sent_whole(shop, page) -> None:
    server = shop()
    tab = page("angular", server, LOCAL, "xhr")
    log_in(tab)
    server.expire()
    script = """(size) => watch("POST", "/echo", {
        body: new Blob(["x".repeat(size)]), reportProgress: true, observe: "events",
    })"""
    events = tab.run(script, 300_000)["events"]
    assert events[-1]["body"]["length"] == 300_000
    assert [one["type"] for one in events].count(4) == 1, "one response"
    assert max(one["loaded"] for one in events if one["type"] == 1) == 300_000


def test_errors_of_angular_stay_what_they_are(shop, page) -> None:
    server = shop()
    tab = page("angular", server, LOCAL)
    log_in(tab)
    came = tab.run("() => watch('GET', '/nowhere')")
    assert (came["error"]["name"], came["error"]["status"]) == ("HttpErrorResponse", 404)
    came = tab.run("() => watch('GET', '/echo', { context: without })")
    assert (came["error"]["name"], came["error"]["status"]) == ("HttpErrorResponse", 401)
    tab.run("() => session.logout()")
    assert tab.run("() => watch('GET', '/echo')")["error"]["code"] == "session_over"


def test_a_request_of_angular_that_is_left_waits_for_nothing(shop, page) -> None:
    server = shop()
    tab = page("angular", server, LOCAL)
    log_in(tab)
    server.expire()
    server.spoil(Fault(seconds=1))
    before = len(server.seen)
    tab.run("() => { watch('GET', '/echo'); setTimeout(() => leave.unsubscribe(), 100); }")
    tab.until(lambda: tab.status["refreshing"])
    tab.until(lambda: not tab.status["refreshing"])
    tab.page.wait_for_timeout(100)
    assert len(server.seen) == before + 1, "it was challenged, and not sent again"


@pytest.mark.parametrize("shape", [CodeIn200, OwnHeader])
def test_a_challenge_in_a_body_is_found_behind_angular(run, page, shape) -> None:
    backend = run(shape())
    tab = page("angular", backend, {**dialect_of(backend), **LOCAL})
    body = {"username": "ada", "password": PASSWORD}
    tab.run(
        "async (body) => session.importTokens(await (await fetch('/login', { method: 'POST', body, "
        "headers: { 'Content-Type': 'application/json' } })).json())",
        json.dumps(body),
    )
    backend.expire()
    came = tab.run("() => Promise.all([1, 2, 3].map(() => watch('GET', '/api/echo')))")
    assert ["error" in one for one in came] == [False] * 3, came
    assert backend.refreshes == 1


def test_angular_sends_a_header_of_its_own_only_where_it_can_stop_redirects(run, page) -> None:
    backend = run(OwnHeader())
    tab = page("angular", backend, {**dialect_of(backend), **LOCAL}, "xhr")
    tab.run("() => session.importTokens({ data: { accessToken: 'a', refreshToken: 'r' } })")
    came = tab.run("() => watch('GET', '/api/echo')")
    assert came["error"]["code"] == "misconfigured"
    assert backend.requests_to("/api/echo") == []
