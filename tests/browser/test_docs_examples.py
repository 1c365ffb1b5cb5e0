"""The examples of docs/browser.md that are not run elsewhere (tickets, MFA): each runs as it stands there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.browser.build import BUILT, DOCS
from tests.browser.chromium import PAGE
from tests.browser.shop import PASSWORD
from tests.docs.pages import ROOT, examples, run
from tests.support.npm import node_modules
from unbroken.server.http.static import module_integrity, module_url

HOST = "https://shop.example.com"
FIRST, INSTALLED, WORKERS, NATIVE, LEAVE, GUARD, *_ = JS = examples(DOCS, "js")
[UPLOAD] = [code for code in JS if "XMLHttpRequest" in code]
[OTHER_BACKEND] = [code for code in JS if "endsSession" in code]
BOUND, BOUND_BY_MODULE, PROVEN = [code for code in JS if "dpop" in code or "session.proof" in code]
[IMPORT_MAP] = examples(DOCS, "html")
[INSTALL] = examples(DOCS, "sh")
[PYTHON] = examples(DOCS, "python")
ELSEWHERE = [code for code in JS if "session.ticket()" in code or "mfa_required" in code]


@pytest.fixture
def client() -> str:
    return "fetch"


def as_module(code: str, **names: str) -> str:
    """A script that runs *code* as a module, in a page where nothing else is, and what becomes of its *names*."""
    assert all(name in code for name in names.values())
    kept = ", ".join(f"{key}: {value}" for key, value in names.items())
    return f'<script type="module">{code}\nwindow.came = {{ {kept} }};</script>'


def test_every_javascript_example_is_run_here_or_elsewhere() -> None:
    here = [FIRST, INSTALLED, WORKERS, NATIVE, LEAVE, GUARD, UPLOAD, OTHER_BACKEND, BOUND, BOUND_BY_MODULE, PROVEN]
    assert sorted([*here, *ELSEWHERE]) == sorted(JS)


def test_the_first_example_logs_in_and_requests(shop, tab) -> None:
    page = tab(shop()).page
    code = FIRST.replace('"/auth/unbroken.js"', f'"{module_url()}"').replace("/orders", "/echo")
    page.set_content(as_module(code, orders="orders", session="session"))
    page.wait_for_function("window.came")
    assert page.evaluate("came.orders.user") == "ada"
    assert page.evaluate("came.session.status.state") == "good"


def test_the_example_for_workers_keeps_a_session_in_a_database(shop, tab) -> None:
    page = tab(shop()).page
    for _ in range(2):
        page.set_content(as_module(WORKERS, session="session"))
        page.wait_for_function("window.came")
        before = page.evaluate("came.session.ready.then(({ state }) => state)")
        page.evaluate("(password) => came.session.login('ada', password)", PASSWORD)
        page.reload()
        page.wait_for_function("window.ready")
    assert before == "good"


def test_the_example_for_react_native_keeps_the_session(tmp_path: Path) -> None:
    node = shutil.which("node")
    node_modules(PAGE)  # says how to get npm where it is missing
    native = tmp_path / "node_modules" / "@react-native-async-storage" / "async-storage"
    native.mkdir(parents=True)
    (native / "package.json").write_text('{"name": "@react-native-async-storage/async-storage", "main": "index.js"}')
    (native / "index.js").write_text(
        "const kept = new Map(); module.exports = { getItem: async (key) => kept.get(key) ?? null,"
        " setItem: async (key, text) => void kept.set(key, text), removeItem: async (key) => void kept.delete(key) };"
    )
    (tmp_path / "node_modules" / "unbroken-session").symlink_to(BUILT)
    (tmp_path / "use.mjs").write_text(
        NATIVE + "session.importTokens({ access_token: 'a', refresh_token: 'r' });"
        "const again = createSession({ url: 'https://shop.example.com/auth', store });"
        "console.log((await again.ready).state);"
    )
    done = subprocess.run([node, "use.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "good\n"


def test_the_guard_example_knows_who_is_there(shop, at_shop) -> None:
    [tab] = at_shop(shop())
    tab.page.add_script_tag(content=GUARD)
    assert tab.run("() => guard()") == "welcome, ada"
    assert tab.run("() => session.logout().then(guard)") == "/login"


def test_the_upload_example_shows_its_progress(shop, at_shop) -> None:
    server = shop()
    [tab] = at_shop(server)
    tab.page.add_script_tag(content=UPLOAD)
    server.expire()
    script = (
        "() => upload('/echo', 'x'.repeat(1000), ({ loaded }) => (window.loaded = loaded)).then(({ status }) => status)"
    )
    assert (tab.run(script), tab.run("() => loaded"), server.refreshes) == (200, 1000, 1)


def test_the_examples_for_bound_sessions_prove_their_key(shop, tab, client) -> None:
    server = shop()
    page = tab(server, client)
    assert page.run(f"() => {BOUND.strip().removesuffix(';')}.status.state") == "over"
    given = BOUND_BY_MODULE.replace("createSession(", "window.session = createSession(")
    page.page.add_script_tag(content=given, type="module")
    page.page.wait_for_function("window.session")
    page.log_in()
    page.page.add_script_tag(content=PROVEN.replace("/orders", "/echo"))
    assert page.run("() => readOrders().then(({ status }) => status)") == 200
    assert all(info.jkt for info in server.sessions.list_sessions())


def test_the_listener_example_remembers_the_whole_address(shop, at_shop) -> None:
    [tab] = at_shop(shop())
    tab.page.evaluate("history.replaceState(null, '', '/page?a=1#b')")
    tab.page.add_script_tag(content=LEAVE)
    tab.page.route("**/login*", lambda route: route.fulfill(body="the login page"))
    with tab.page.expect_navigation():
        tab.run("() => void session.logout()")
    assert tab.page.url.endswith("/login?back=%2Fpage%3Fa%3D1%23b")


def test_the_example_for_another_backend_is_accepted(scene) -> None:
    assert scene.tab.run(f"() => {OTHER_BACKEND.strip().removesuffix(';')}.status.state") == "over"


def test_the_python_example_returns_the_url_and_the_integrity_value(tmp_path: Path) -> None:
    done = run(PYTHON.replace("module_url()  #", "print(module_url())  #") + "print(module_integrity())", tmp_path)
    assert (done.stderr, done.stdout.split()) == ("", [module_url(), module_integrity()])


@pytest.mark.parametrize("is_genuine", [True, False], ids=["genuine", "changed"])
def test_the_import_map_example_loads_the_genuine_module_only(shop, tab, is_genuine) -> None:
    page = tab(shop()).page
    page.route(
        f"{HOST}/**",
        lambda route: route.fulfill(
            body=httpx2.get(page.url.replace("/page", "/auth/unbroken.js"), timeout=30).text
            + ("" if is_genuine else " "),
            headers={"content-type": "text/javascript", "access-control-allow-origin": "*"},
        ),
    )
    begin = '<script type="module">import("unbroken-session").then((it) => (window.came = typeof it.createSession),'
    page.set_content(IMPORT_MAP + begin + '() => (window.came = "refused"));</script>')
    page.wait_for_function("window.came")
    assert page.evaluate("came") == ("function" if is_genuine else "refused")


def test_the_install_example_gives_the_module_to_node_by_its_name(tmp_path: Path) -> None:
    node = shutil.which("node")
    node_modules(PAGE)  # says how to get npm where it is missing
    (tmp_path / "package.json").write_text('{"private": true, "type": "module"}')
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    command = ["sh", "-ec", INSTALL.replace("npm install", "npm install --offline --no-package-lock --no-audit")]
    subprocess.run(command, cwd=tmp_path, env=environment, timeout=60, check=True, capture_output=True)
    (tmp_path / "use.js").write_text(INSTALLED + "console.log(createSession().status.state);")
    done = subprocess.run([node, "use.js"], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "over\n"
