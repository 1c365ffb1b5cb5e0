"""Sessions that are bound to a key of the browser (RFC 9449): ``createSession({ dpop: true })``."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.scene import statuses
from tests.browser.tabs import Tab
from tests.browser.test_applications import WORKER
from tests.interop.backends.base import Fault
from unbroken.server import Cookies, ProofPolicy

FORGET = """() => new Promise((done, failed) => {
    const asked = indexedDB.deleteDatabase("unbroken keys");
    asked.onsuccess = done;
    asked.onerror = asked.onblocked = failed;
})"""
KEYS = """() => new Promise((done, failed) => {
    const opening = indexedDB.open("unbroken keys");
    opening.onsuccess = () => {
        const reading = opening.result.transaction("keys").objectStore("keys").getAll();
        reading.onsuccess = () => done(reading.result);
        opening.result.close();
    };
    opening.onerror = failed;
})"""
BARE = """(path, headers, method = "GET", body = undefined) =>
    fetch(path, { method, headers, body }).then(async (one) => ({ status: one.status, text: await one.text() }))"""


def requests_of(tab: Tab) -> list[tuple[str, str, bool]]:
    """What the page sends from now on: method, path, and whether a proof goes along."""
    sent: list[tuple[str, str, bool]] = []

    def note(request: Any) -> None:
        path = request.url.partition("://")[2].partition("/")[2].partition("?")[0]
        sent.append((request.method, f"/{path}", "dpop" in request.headers))

    tab.page.on("request", note)
    return sent


def jkts(server: Any) -> list[str]:
    return [info.jkt for info in server.sessions.list_sessions()]


# ---- a bound session -------------------------------------------------------------------------------------------------


def test_each_request_of_a_bound_session_has_a_proof(shop, at_shop) -> None:
    server = shop()
    [tab] = at_shop(server, dpop=True)
    sent = requests_of(tab)
    assert tab.ask("/echo?page=2#top")["status"] == 200
    server.expire()
    assert tab.ask("/echo", method="POST", body="body")["status"] == 200
    [jkt] = jkts(server)
    assert (tab.stored["tokens"]["jkt"], server.refreshes, server.alarms()) == (jkt, 1, 0)
    assert tab.run("() => session.logout()") is True
    assert sent == [
        ("GET", "/echo", True),
        ("POST", "/echo", True),
        ("POST", "/auth/refresh", True),
        ("POST", "/echo", True),
        ("POST", "/auth/logout", True),
    ]


def test_what_a_thief_copies_is_worth_nothing(shop, at_shop) -> None:
    server = shop()
    [tab] = at_shop(server, dpop=True)
    token, refresh = tab.stored["tokens"]["access"], tab.stored["tokens"]["refresh"]
    for scheme in ("Bearer", "DPoP"):
        assert tab.run(BARE, "/echo", {"Authorization": f"{scheme} {token}"})["status"] == 401
    for path in ("/auth/refresh", "/auth/logout"):
        body = f'{{"refresh_token": "{refresh}"}}'
        said = tab.run(BARE, path, {"Content-Type": "application/json"}, "POST", body)
        assert (said["status"], "invalid_dpop_proof" in said["text"]) == (400, True)
    assert tab.ask("/echo")["status"] == 200


def test_the_key_cannot_be_taken_away(shop, at_shop) -> None:
    [tab] = at_shop(shop(), dpop=True)
    script = f"""async () => {{
        const [{{ privateKey }}] = await ({KEYS})();
        const formats = ["jwk", "pkcs8", "raw"].map((format) => crypto.subtle.exportKey(format, privateKey));
        const tried = await Promise.allSettled(formats);
        return [privateKey.extractable, ...tried.map(({{ status }}) => status)];
    }}"""
    assert tab.run(script) == [False, "rejected", "rejected", "rejected"]


def test_nothing_more_is_loaded_without_the_option(shop, at_shop) -> None:
    [tab] = at_shop(shop())
    loaded = "() => performance.getEntriesByType('resource').filter(({ name }) => name.includes('dpop')).length"
    assert (tab.run(loaded), tab.ask("/echo")["status"]) == (0, 200)
    tab.start(storage="localStorage", key="another", dpop=True)
    tab.log_in()
    assert tab.run(loaded) == 1


def test_tabs_and_workers_share_the_key(shop, at_shop) -> None:
    server = shop()
    tabs = at_shop(server, tabs=3, dpop=True, window=None)
    server.expire()
    server.spoil(Fault(seconds=0.1))
    begun = [(tab, tab.begin("/echo", count=10)) for tab in tabs]
    assert [statuses(tab.outcomes(numbers)) for tab, numbers in begun] == [[200] * 10] * 3
    assert (server.refreshes, server.alarms(), len(tabs[0].run(KEYS))) == (1, 0, 1)


def test_a_worker_has_the_key_of_its_page(shop, at_shop) -> None:
    server = shop(cookies=Cookies("refresh", secure=False))
    [tab] = at_shop(server, storage="cookie", dpop=True)
    about = {"storage": "cookie", "dpop": True, "url": server.url + "/auth", "path": "/echo"}
    assert tab.run(WORKER, about) == [200] * 5
    assert tab.ask("/echo")["status"] == 200
    assert (server.alarms(), len(set(jkts(server)))) == (0, 1)


def test_a_login_that_sets_cookies_for_both_cannot_be_bound(shop, tab, client) -> None:
    page = tab(shop(cookies=Cookies("both", secure=False)), client)
    page.start(storage="cookie", dpop=True)
    assert page.attempt("() => session.login('ada', 'correct horse')")["error"] == "invalid_request"


def test_a_server_that_ignores_proofs_has_a_session_like_any_other(shop, at_shop) -> None:
    server = shop(proofs="off")
    [tab] = at_shop(server, dpop=True)
    server.expire()
    assert (tab.ask("/echo")["status"], jkts(server)) == (200, [""])


# ---- other proofs ----------------------------------------------------------------------------------------------------


def test_a_nonce_costs_one_repetition(shop, at_shop) -> None:
    server = shop(proofs=ProofPolicy(require_nonce=True))
    [tab] = at_shop(server, dpop=True)
    assert statuses(tab.together(20, "/echo")) == [200] * 20
    assert server.refreshes == 0
    tab.page.reload()
    tab.page.wait_for_function("window.ready")
    tab.start(storage="localStorage", dpop=True)
    sent = requests_of(tab)
    assert statuses([tab.ask("/echo", method="PUT", body="one"), tab.ask("/echo")]) == [200, 200]
    assert sent == [("PUT", "/echo", True), ("PUT", "/echo", True), ("GET", "/echo", True)]
    server.expire()
    assert tab.ask("/echo")["status"] == 200
    assert (server.refreshes, server.alarms()) == (1, 0)


def test_a_server_that_is_never_content_is_asked_twice(shop, at_shop) -> None:
    server = shop()
    [tab] = at_shop(server, dpop=True)
    sent = requests_of(tab)
    headers = {"www-authenticate": 'DPoP error="use_dpop_nonce"', "dpop-nonce": "another"}
    tab.page.route("**/echo", lambda route: route.fulfill(status=401, headers=headers, body=""))
    assert tab.ask("/echo")["status"] == 401
    assert (sent, server.refreshes) == ([("GET", "/echo", True)] * 2, 0)


@pytest.mark.parametrize("seconds", [-86_400, 3600])
def test_a_clock_that_is_wrong_is_learnt(shop, tab, client, seconds) -> None:
    server = shop()
    page = tab(server, client)
    page.pass_(seconds)
    page.start(storage="localStorage", dpop=True, window=None)
    page.log_in()
    assert page.ask("/echo")["status"] == 200
    server.expire()
    assert page.ask("/echo")["status"] == 200
    assert (server.alarms(), len(jkts(server))) == (0, 1)


def test_a_stream_is_not_sent_twice_for_another_proof(shop, at_shop) -> None:
    server = shop(proofs=ProofPolicy(require_nonce=True))
    [tab] = at_shop(server, dpop=True)
    sent = """async () => {
        let count = 0;
        const headers = { "WWW-Authenticate": 'DPoP error="use_dpop_nonce"', "DPoP-Nonce": "n" };
        const response = await session.send({
            url: "/echo", method: "POST", body: new ReadableStream(),
            send: async () => (count++, new Response("", { status: 401, headers })),
            head: (one) => one, read: (one) => one.text(),
        });
        return [count, response.status, response.whyNotReplayed?.code, response.whyNotReplayed?.refreshed];
    }"""
    assert tab.run(sent) == [1, 401, "not_replayable", False]


def test_a_redirect_gets_a_proof_of_its_own(shop, at_shop) -> None:
    server = shop()
    [tab] = at_shop(server, dpop=True)
    assert tab.ask("/echo/?page=2")["status"] == 200
    refused = tab.ask("/echo/", method="POST", body="once")
    assert (refused["status"], server.refreshes) == (401, 0), "nobody knows whether it is still a POST"


def test_a_request_of_an_own_client_needs_its_method(shop, at_shop) -> None:
    [tab] = at_shop(shop(), dpop=True)
    send = """(method) => session.send({ url: "/echo", method, head: (one) => one, read: (one) => one.text(),
        send: ({ url, headers }) => fetch(url, { method, headers }) }).then(({ status }) => status)"""
    assert tab.attempt(send, "GET") == {"value": 200}
    assert tab.attempt(send)["error"] == "misconfigured"


def test_a_proof_for_other_means(shop, at_shop) -> None:
    server = shop()
    [tab] = at_shop(server, dpop=True)
    script = f"""async () => {{
        const token = await session.token();
        const DPoP = await session.proof("GET", "/echo?page=2", token);
        return ({BARE})("/echo?page=2", {{ Authorization: "DPoP " + token, DPoP }});
    }}"""
    assert tab.run(script)["status"] == 200
    tab.start(key="other")
    assert tab.attempt("() => session.proof('GET', '/echo')")["error"] == "misconfigured"


# ---- what is lost, and what is wrong ---------------------------------------------------------------------------------


def test_a_lost_key_ends_the_session_without_asking_the_server(shop, at_shop) -> None:
    server = shop()
    [tab] = at_shop(server, dpop=True)
    tab.run(FORGET)
    tab.page.reload()
    tab.page.wait_for_function("window.ready")
    tab.start(storage="localStorage", dpop=True)
    sent = requests_of(tab)
    said = tab.ask("/echo")
    assert (said["error"], said["reason"], sent) == ("session_over", "wrong_key", [])
    assert [detail["reason"] for detail in tab.heard("over")] == ["wrong_key"]
    tab.log_in()
    assert (tab.ask("/echo")["status"], server.alarms()) == (200, 0)


def test_a_lost_key_beside_a_cookie_is_told_by_the_server(shop, at_shop) -> None:
    server = shop(cookies=Cookies("refresh", secure=False))
    [tab] = at_shop(server, storage="cookie", dpop=True)
    tab.run(FORGET)
    tab.run("() => localStorage.clear()")
    tab.page.reload()
    tab.page.wait_for_function("window.ready")
    tab.start(storage="cookie", dpop=True)
    said = tab.ask("/echo")
    assert (said["error"], said["reason"], server.alarms()) == ("session_over", "wrong_key", 0)


def test_a_page_that_forgets_the_option_ends_no_session(shop, at_shop) -> None:
    [tab] = at_shop(shop(), dpop=True)
    tab.start(storage="localStorage")
    said = tab.ask("/echo")
    assert (said["error"], said["field"]) == ("misconfigured", "dpop")
    tab.start(storage="localStorage", dpop=True)
    assert tab.ask("/echo")["status"] == 200


@pytest.mark.parametrize("options", [{"dpop": "true"}, {"dpop": 1}, {"dpop": {}}, {"dpop": True, "header": "token"}])
def test_a_wrong_option_is_told_at_once(shop, tab, client, options) -> None:
    page = tab(shop(), client)
    said = page.attempt("(options) => createSession(options)", options)
    assert (said["error"], said["field"]) == ("misconfigured", "header" if "header" in options else "dpop")


def test_a_part_that_does_not_load_loses_nothing(shop, at_shop) -> None:
    server = shop()
    [tab] = at_shop(server, dpop=True)
    tab.page.route("**/unbroken-dpop.js", lambda route: route.abort())
    tab.page.reload()
    tab.page.wait_for_function("window.ready")
    tab.start(storage="localStorage", dpop=True)
    assert tab.ask("/echo")["error"] == "try_later"
    tab.page.unroute("**/unbroken-dpop.js")
    tab.page.reload()
    tab.page.wait_for_function("window.ready")
    tab.start(storage="localStorage", dpop=True)
    assert (tab.ask("/echo")["status"], server.alarms()) == (200, 0)


def test_the_part_may_be_given(shop, tab, client) -> None:
    server = shop()
    page = tab(server, client)
    page.run("async () => start({ storage: 'localStorage', dpop: await import('/unbroken-dpop.js') })")
    page.log_in()
    assert page.ask("/echo")["status"] == 200
    assert all(jkts(server))


NO_WEBCRYPTO = "Object.defineProperty(crypto, 'subtle', { value: undefined });"
NO_DATABASE = "IDBFactory.prototype.open = () => { throw new DOMException('denied'); };"


def test_a_page_without_webcrypto_is_told_so(shop, tab, client) -> None:
    page = tab(shop(), client, before=NO_WEBCRYPTO)
    page.start(storage="localStorage", dpop=True)
    said = page.attempt("() => session.login('ada', 'correct horse')")
    assert (said["error"], said["field"], "https" in said["message"]) == ("misconfigured", "dpop", True)


def test_a_page_without_a_database_has_its_key_in_memory(shop, tab, client) -> None:
    server = shop()
    page = tab(server, client, before=NO_DATABASE)
    page.start(dpop=True)
    page.log_in()
    server.expire()
    assert (page.ask("/echo")["status"], server.alarms()) == (200, 0)
