"""The module as users get it from the server; and the vectors that it shares with Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import httpx2
import pytest

from tests.browser.chromium import PAGE
from tests.browser.tabs import Tab
from tests.support.npm import node_modules
from unbroken.server import Cookies
from unbroken.server.http.static import module_source, module_url

VECTORS = Path(__file__).parents[1] / "contract" / "frameworks" / "vectors"

# ---- how it is shipped -----------------------------------------------------------------------------------------------


def test_a_page_imports_the_module_from_its_server(shop, tab) -> None:
    server = shop(cookies=Cookies("both", secure=False))
    assert httpx2.get(server.url + module_url(), timeout=30).content == module_source()
    page = tab(server)
    script = "async (url) => { const { createSession } = await import(url); return createSession().status.state; }"
    assert page.run(script, module_url()) == "over"


def test_the_module_can_be_imported_in_node_where_there_is_no_page(tmp_path) -> None:
    node = shutil.which("node")
    node_modules(PAGE)
    (tmp_path / "unbroken.mjs").write_bytes(module_source())
    (tmp_path / "on_a_server.mjs").write_text(
        "import { createSession } from './unbroken.mjs';\n"
        "const session = createSession({ storage: 'localStorage' });\n"
        "await session.fetch('/x').catch((error) => console.log(error.code, session.status.state));\n"
    )
    environment = {"PATH": os.environ["PATH"]}
    command = [node, "on_a_server.mjs"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "session_over over\n"


# ---- what it reads like Python ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def blank(browser, page_servers):
    """A page without a backend, for all tests of this file."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(page_servers[0].url + "/page")
        yield Tab(page)


@pytest.mark.parametrize("vector", json.loads((VECTORS / "challenges.json").read_text()), ids=lambda v: v["name"])
def test_challenges_are_read_as_in_python(blank, vector) -> None:
    header = {} if vector["header"] is None else {"www-authenticate": vector["header"]}
    status = vector["status"]
    script = """async ([status, headers]) => {
        let refreshes = 0;
        window.fetch = async (url) => `${url}`.endsWith("/refresh")
            ? (refreshes++, new Response("{}", { status: 500 })) : new Response("", { status, headers });
        const session = createSession();
        window.fetch = platform.fetch;
        session.importTokens({ access_token: "a", refresh_token: "r" });
        await session.fetch("/x").catch(() => {});
        return refreshes > 0;
    }"""
    blank.run("() => (window.setTimeout = (work) => work())")  # so that a refresh that fails is repeated at once
    assert blank.run(script, [status, header]) is vector["refresh"]


@pytest.mark.parametrize("vector", json.loads((VECTORS / "token_responses.json").read_text()), ids=lambda v: v["name"])
def test_token_responses_are_read_as_in_python(blank, vector) -> None:
    blank.run("() => (localStorage.clear(), start({ storage: 'localStorage' }))")
    came = blank.attempt("(response) => session.importTokens(response)", vector["body"])
    if "bad_field" in vector:
        assert (came["error"], came["field"] or "") == ("bad_answer", vector["bad_field"])
        return
    stored, wanted = blank.stored["tokens"], vector["tokens"]
    names = {"access_token": "access", "refresh_token": "refresh", "expires_in": "lifetime", "refresh_seq": "seq"}
    assert {key: stored.get(names[key]) for key in wanted if key in names} == {
        key: value for key, value in wanted.items() if key in names
    }
