"""What applications see: a status to subscribe to, who is logged in, and stores and clients of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.browser.build import BUILT
from tests.browser.chromium import PAGE
from tests.interop.backends.base import PASSWORD
from tests.interop.backends.shapes import BearerJson
from tests.support.npm import node_modules
from unbroken.server import Cookies

OVER = "() => heard.filter(([type]) => type === 'over').map(([, detail]) => detail.reason)"


@pytest.fixture
def client() -> str:
    return "fetch"


# ---- status ----------------------------------------------------------------------------------------------------------


def test_the_status_is_the_same_object_until_something_changes(scene) -> None:
    script = """async () => {
        const before = session.status;
        const same = before === session.status && Object.isFrozen(before);
        await session.logout();
        return [same, before === session.status, session.status.state];
    }"""
    assert scene.tab.run(script) == [True, False, "over"]


def test_subscribers_hear_of_each_change_and_of_time(stage) -> None:
    scene = stage(BearerJson(lifetime=1800))
    scene.tab.run("""() => {
        window.seen = [];
        const look = ({ state, refreshing }) => seen.push(state + (refreshing ? "…" : ""));
        window.leave = session.subscribe(() => look(session.status));
    }""")
    scene.tab.pass_(1801)
    scene.tab.until(lambda: "expired" in scene.tab.run("() => seen"))
    assert scene.get()["status"] == 200
    scene.tab.until(lambda: scene.tab.run("() => seen.at(-1)") == "good")
    assert "expired…" in scene.tab.run("() => seen")
    scene.tab.run("() => { leave(); seen.length = 0; return session.logout(); }")
    assert scene.tab.run("() => seen") == []


def test_a_listener_that_fails_harms_nobody(scene) -> None:
    scene.tab.run(
        "() => { session.on('over', () => { throw new Error('mine'); }); session.on('over', () => (window.came = 1)); }"
    )
    scene.tab.run("() => session.logout()")
    assert scene.tab.run("() => came") == 1


@pytest.mark.parametrize("storage", ["memory", "localStorage", "cookie"])
def test_visitors_are_told_once_that_they_have_to_log_in(shop, tab, storage) -> None:
    page = tab(shop(cookies=Cookies("both", secure=False)) if storage == "cookie" else shop())
    page.start(storage=storage)
    assert [page.ask("/echo")["reason"] for _ in range(3)] == ["not_logged_in"] * 3
    assert page.run(OVER) == ["not_logged_in"]


@pytest.mark.parametrize("storage", ["localStorage", "cookie"])
@pytest.mark.parametrize("is_in", [True, False])
def test_a_page_can_wait_until_it_is_known_who_is_logged_in(shop, tab, at_shop, storage, is_in) -> None:
    server = shop(cookies=Cookies("both", secure=False)) if storage == "cookie" else shop()
    [page] = at_shop(server, storage=storage) if is_in else [tab(server)]
    if is_in:
        assert page.run("() => session.status.user.sub") == "ada"
    page.page.reload()
    page.page.wait_for_function("window.ready")
    page.start(storage=storage)
    found = page.run("async () => { const { state, user } = await session.ready; return [state, user?.sub ?? null]; }")
    assert found == (["good", "ada"] if is_in else ["over", None])


def test_the_servers_own_user_object_outlives_a_refresh(stage) -> None:
    scene = stage(BearerJson())
    scene.tab.run("""() => {
        const { accessToken, refreshToken } = { accessToken: "a", refreshToken: "r" };
        const other = createSession({ key: "u", refresh: { url: "/x" }, tokens: {
            access_token: "accessToken", refresh_token: "refreshToken", user: "data.me" } });
        other.importTokens({ accessToken, refreshToken, data: { me: { name: "Ada" } } });
        window.other = other;
    }""")
    assert scene.tab.run("() => other.status.user.name") == "Ada"


def test_a_logout_everywhere_ends_the_other_sessions_too(shop, tab) -> None:
    server = shop()
    here, there = tab(server), tab(server)
    for one in (here, there):
        one.start(storage="memory")
        one.log_in()
    assert here.run("() => session.logout({ everywhere: true })") is True
    server.expire()
    assert there.ask("/echo")["error"] == "session_over"
    came = here.attempt("() => createSession({ refresh: { url: '/x' } }).logout({ everywhere: true })")
    assert came["error"] == "misconfigured"


def test_decisions_are_told_without_secrets(stage) -> None:
    scene = stage(BearerJson())
    scene.tab.run(
        "(options) => { window.told = []; start({ ...options, debug: (...what) => told.push(what) }); }", scene.options
    )
    scene.backend.expire()
    assert scene.get()["status"] == 200
    scene.tab.run("() => session.fetch('http://localhost:1/x').catch(() => {})")
    said = scene.tab.run("() => JSON.stringify(told)")
    assert all(word in said for word in ("challenge", "started", "tokens", "no token"))
    assert not any(pair.access in said or str(pair.refresh) in said for pair in scene.backend.issued)


# ---- a store and a client of one's own -------------------------------------------------------------------------------


def in_node(tmp_path: Path, code: str) -> str:
    """What a program in Node prints; it has the four parts beside it and no DOM."""
    node = shutil.which("node")
    node_modules(PAGE)  # says how to get Node.js where it is missing
    for file in BUILT.glob("*.js"):
        shutil.copy(file, tmp_path / file.name.replace(".js", ".mjs"))
    without = [
        "EventTarget",
        "CustomEvent",
        "Event",
        "ReadableStream",
        "BroadcastChannel",
        "crypto",
        "Request",
        "Response",
    ]
    bare = f"void Headers;\nfor (const name of {without}) delete globalThis[name];\n"
    bare += "AbortSignal.any = AbortSignal.timeout = undefined;\n"
    (tmp_path / "program.mjs").write_text(bare + code)
    done = subprocess.run(
        [node, "program.mjs"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


OWN_FETCH = """
const issued = [];
let good = "";
const answer = (status, body) =>
    ({ status, ok: status < 300, headers: new Headers(), text: async () => JSON.stringify(body) });
let refreshes = 0;
const fetch = async (url, { headers, body }) => {
    if (`${url}`.endsWith("/refresh")) {
        refreshes++;
        const reuse = answer(400, { error: "invalid_grant", reason: "reuse" });
        if (JSON.parse(body).refresh_token !== issued.at(-1)) return reuse;
    } else if (!`${url}`.endsWith("/login")) {
        return answer(headers.get("Authorization") === `Bearer ${good}` ? 200 : 401, {});
    }
    issued.push(`r${issued.length}`);
    good = `a${issued.length}`;
    return answer(200, { access_token: good, refresh_token: issued.at(-1), expires_in: 60 });
};
"""


@pytest.mark.parametrize("part", ["unbroken", "unbroken-core"])
@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_store_and_a_fetch_of_ones_own_are_enough_without_a_dom(tmp_path, part, kind) -> None:
    store = {
        "plain": "{ getItem: (key) => kept.get(key) ?? null, setItem: (key, text) => void kept.set(key, text),"
        " removeItem: (key) => void kept.delete(key) }",
        "async": "asyncStore({ get: async (key) => { await later(); return kept.get(key) ?? null; },"
        " set: async (key, text) => { await later(); kept.set(key, text); },"
        " remove: async (key) => void kept.delete(key) })",
    }[kind]
    code = f"""
import {{ createSession }} from "./{part}.mjs";
import {{ asyncStore }} from "./unbroken-stores.mjs";
{OWN_FETCH}
const kept = new Map();
const later = () => new Promise((go) => setTimeout(go, 5));
const open = () => createSession({{ url: "https://shop.example/auth", fetch, store: {store} }});
const session = open();
await session.login("ada", "word");
good = "gone";
const responses = await Promise.all(Array.from({{ length: 20 }}, () => session.fetch("https://shop.example/x")));
console.log(responses.every(({{ status }}) => status === 200), refreshes);
const again = open();
good = "gone";
const {{ status }} = await again.fetch("https://shop.example/x");
console.log(status, refreshes, [...kept.values()][0].includes(issued.at(-1)));
await again.logout();
console.log(again.status.state, await open().token().catch(({{ reason }}) => reason));
"""
    assert in_node(tmp_path, code).split("\n")[:3] == ["true 1", "200 2 true", "over logged_out"]


def test_a_store_that_cannot_write_keeps_no_spent_token(tmp_path) -> None:
    code = f"""
import {{ createSession }} from "./unbroken.mjs";
import {{ asyncStore }} from "./unbroken-stores.mjs";
{OWN_FETCH}
const kept = new Map();
let full = false;
const store = () => asyncStore({{ get: async (key) => kept.get(key), remove: async (key) => kept.delete(key),
    set: async (key, text) => {{ if (full) throw new Error("full"); kept.set(key, text); }} }});
const open = () => createSession({{ url: "https://shop.example/auth", fetch, store: store() }});
const session = open();
await session.login("ada", "word");
full = true;
good = "gone";
console.log((await session.fetch("https://shop.example/x")).status, kept.size);
console.log(await open().token().catch(({{ reason }}) => reason), refreshes);
"""
    assert in_node(tmp_path, code) == "200 0\nnot_logged_in 1\n"


def test_an_adapter_of_ones_own_sends_what_fetch_would(stage) -> None:
    scene = stage(BearerJson())
    scene.backend.expire()
    script = """() => session.send({
        url: "/api/echo",
        send: (plan) => new Promise((done) => {
            const request = new XMLHttpRequest();
            request.open("POST", plan.url);
            for (const name in plan.headers) request.setRequestHeader(name, plan.headers[name]);
            request.onload = () => done(request);
            request.send("body");
        }),
        head: ({ status, responseURL, getResponseHeader }) =>
            ({ status, url: responseURL, headers: { get: (name) => null } }),
        read: ({ responseText }) => Promise.resolve(responseText),
    }).then(({ status }) => status)"""
    assert scene.tab.run(script) == 200
    assert scene.backend.refreshes == 1


# ---- the core alone --------------------------------------------------------------------------------------------------

CORE = """async (options) => {
    const { createSession } = await import("/unbroken-core.js");
    const { attach } = await import("/unbroken-axios.js");
    window.core = createSession(options);
    window.other = axios.create();
    attach(core, other);
}"""


@pytest.mark.parametrize("storage", ["localStorage", "cookie"])
def test_the_core_alone_refreshes_for_fetch_and_axios_in_all_tabs(shop, tab, storage) -> None:
    server = shop(cookies=Cookies("both", secure=False)) if storage == "cookie" else shop()
    tabs = [tab(server), tab(server)]
    for one in tabs:
        one.run(CORE, {"storage": storage})
    tabs[0].run("(password) => core.login('ada', password)", PASSWORD)
    for one in tabs:
        one.until(lambda one=one: one.run("() => core.status.version"))
    before = server.refreshes
    server.expire()
    script = """async () => {
        const asked = [1, 2, 3].flatMap((n) => [core.fetch(`/echo?${n}`), other.get(`/echo?${n}`)]);
        return (await Promise.all(asked)).map(({ status }) => status);
    }"""
    assert [one.run(script) for one in tabs] == [[200] * 6] * 2
    assert (server.refreshes - before, server.alarms()) == (1, 0)
    assert tabs[0].run("() => core.logout()") is True
    refused = tabs[0].run(
        "() => other.get('/echo').catch(({ code, response, config }) => [code, response.status, config.url])"
    )
    assert refused == ["session_over", 401, "/echo"]


def test_the_core_alone_says_what_it_cannot_do(shop, tab) -> None:
    page = tab(shop())
    assert page.attempt(CORE, {"refresh": {"url": "/x"}})["error"] == "misconfigured"
    page.run("() => delete Navigator.prototype.locks")
    assert "Web Locks" in page.attempt(CORE, {"storage": "localStorage"})["message"]


# ---- workers ---------------------------------------------------------------------------------------------------------

WORKER = """(options) => new Promise((done, failed) => {
    const code = `
        import { createSession } from "${location.origin}/unbroken.js";
        import { databaseStore } from "${location.origin}/unbroken-stores.js";
        const { path, ...options } = ${JSON.stringify(options)};
        if (options.store) options.store = databaseStore();
        try {
            const session = createSession(options);
            const url = "${location.origin}" + path;
            const all = [1, 2, 3, 4, 5].map((n) => session.fetch(url + "?" + n));
            postMessage((await Promise.all(all)).map(({ status }) => status));
        } catch (error) { postMessage(error.code + " " + error.message); }`;
    const worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })), { type: "module" });
    worker.onmessage = ({ data }) => done(data);
    worker.onerror = ({ message }) => failed(new Error(message));
})"""


def test_a_worker_says_that_it_has_no_storage_of_pages(scene) -> None:
    for storage in ("localStorage", "sessionStorage"):
        said = scene.tab.run(WORKER, {"storage": storage, "path": "/api/echo"})
        assert said.startswith("misconfigured a worker has no")


def test_a_worker_uses_cookies_beside_its_page(shop, at_shop) -> None:
    server = shop(cookies=Cookies("both", secure=False))
    [page] = at_shop(server, storage="cookie")
    server.expire()
    began = page.begin("/echo", count=5)
    said = page.run(WORKER, {"storage": "cookie", "url": server.url + "/auth", "path": "/echo"})
    assert said == [200] * 5
    assert [one["status"] for one in page.outcomes(began)] == [200] * 5
    assert server.alarms() == 0
