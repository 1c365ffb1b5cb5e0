"""The module as a file: its types, its size, how it is served and shipped, and the vectors it shares with Python."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import httpx2
import pytest

from tests.browser.chromium import PAGE
from tests.interop.backends.base import Fault
from tests.interop.backends.shapes import BearerJson
from tests.support.npm import node_modules
from unbroken.server import Cookies, Endpoints, MemorySessionStore, Sessions
from unbroken.server.http.messages import Request
from unbroken.server.http.static import module_url, served, squeezed

FOLDER = Path(str(files("unbroken").joinpath("browser")))
VECTORS = Path(__file__).parents[1] / "contract" / "frameworks" / "vectors"
LIMIT = 6 * 1024  # bytes, as it goes over the wire


def tsc(tmp_path: Path, **options: object) -> subprocess.CompletedProcess[str]:
    program = node_modules(PAGE) / ".bin" / "tsc"
    strict = {"allowJs": True, "checkJs": True, "strict": True, "target": "es2024", "types": []}
    config = {
        "compilerOptions": {**strict, "module": "esnext", "lib": ["es2024", "dom", "dom.iterable"], **options},
        "files": [str(FOLDER / "unbroken.js")],
    }
    (tmp_path / "tsconfig.json").write_text(json.dumps(config))
    command = [str(program), "-p", str(tmp_path / "tsconfig.json")]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_its_types_are_strict(tmp_path) -> None:
    done = tsc(tmp_path, noEmit=True)
    assert done.returncode == 0, done.stdout


def test_the_declarations_beside_it_are_what_its_comments_say(tmp_path) -> None:
    folder = {"rootDir": str(FOLDER), "outDir": str(tmp_path / "out")}
    assert tsc(tmp_path, declaration=True, emitDeclarationOnly=True, **folder).returncode == 0
    assert (tmp_path / "out" / "unbroken.d.ts").read_text() == (FOLDER / "unbroken.d.ts").read_text()


def test_it_is_small() -> None:
    assert len(gzip.compress(served(), 9)) <= LIMIT


def test_it_needs_nothing() -> None:
    source = (FOLDER / "unbroken.js").read_text()
    assert "import(" not in source
    assert not any(line.startswith("import ") for line in source.splitlines())


def test_it_can_be_published_as_it_stands(tmp_path) -> None:
    npm = shutil.which("npm")
    node_modules(PAGE)  # says how to get npm where it is missing
    done = subprocess.run(
        [npm, "pack", "--dry-run", "--json", str(FOLDER)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = json.loads(done.stdout)
    [packed] = found if isinstance(found, list) else found.values()
    assert {file["path"] for file in packed["files"]} == {"package.json", "unbroken.js", "unbroken.d.ts"}


def test_squeezing_changes_no_text_and_no_expression() -> None:
    source = 'const a = "x // y  z"; // gone\n/* gone\n */ let b = `${a}  ${a + +a}`;'
    source += '\nreturn typeof b.replace(/ [/ ]+/g, "");'
    kept = 'const a="x // y  z";let b=`${a}  ${a + +a}`;return typeof b.replace(/ [/ ]+/g,"");'
    assert squeezed(source) == kept
    assert squeezed("a + +b - -c") == "a+ +b- -c"
    assert squeezed("if (a) { b(); c(); }\nfor (;;) {}") == "if(a){b();c()}for(;;){}"
    assert squeezed("f([\n  a,\n  b, // c\n]);") == "f([a,b]);"


def test_the_endpoints_serve_it_with_a_tag_for_all_who_may_call_them() -> None:
    endpoints = Endpoints(Sessions(MemorySessionStore()), lambda name, word: None, origins=["https://app.example.com"])
    path = module_url("/auth").partition("?")[0]
    answer = endpoints.handle_blocking(Request("GET", path, {"origin": "https://app.example.com"}))
    assert answer is not None
    assert (answer.status, answer.body) == (200, served())
    assert answer.headers["content-type"].startswith("text/javascript")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
    again = endpoints.handle_blocking(Request("GET", path, {"if-none-match": f"W/{answer.headers['etag']}"}))
    assert again is not None
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize("vector", json.loads((VECTORS / "challenges.json").read_text()), ids=lambda v: v["name"])
def test_challenges_are_read_as_in_python(blank, vector) -> None:
    header = {} if vector["header"] is None else {"www-authenticate": vector["header"]}
    status = vector["status"]
    script = """async ([status, headers]) => {
        let renewals = 0;
        window.fetch = async (url) => `${url}`.endsWith("/refresh")
            ? (renewals++, new Response("{}", { status: 500 })) : new Response("", { status, headers });
        const session = createSession();
        window.fetch = platform.fetch;
        session.import_tokens({ access_token: "a", refresh_token: "r" });
        await session.fetch("/x").catch(() => {});
        return renewals > 0;
    }"""
    blank.run("() => (window.setTimeout = (work) => work())")  # a renewal that fails tries again, here at once
    assert blank.run(script, [status, header]) is vector["renew"]


@pytest.mark.parametrize("vector", json.loads((VECTORS / "token_responses.json").read_text()), ids=lambda v: v["name"])
def test_token_responses_are_read_as_in_python(blank, vector) -> None:
    blank.run("() => (localStorage.clear(), start({ storage: 'localStorage' }))")
    came = blank.attempt("(answer) => session.import_tokens(answer)", vector["body"])
    if "bad_field" in vector:
        assert (came["error"], came["field"] or "") == ("bad_answer", vector["bad_field"])
        return
    stored, wanted = blank.stored["tokens"], vector["tokens"]
    names = {"access_token": "access", "refresh_token": "refresh", "expires_in": "lifetime", "refresh_seq": "seq"}
    assert {key: stored.get(names[key]) for key in wanted if key in names} == {
        key: value for key, value in wanted.items() if key in names
    }


@pytest.fixture(scope="module")
def blank(browser, doors):
    """A page without a backend, for all tests of this file."""
    from tests.browser.tabs import Tab

    with browser.new_context() as context:
        page = context.new_page()
        page.goto(doors[0].url + "/page")
        yield Tab(page)


def test_a_page_loads_it_from_the_server_and_another_origin_may_too(shop, tab) -> None:
    server = shop(cookies=Cookies("both", secure=False))
    assert httpx2.get(server.url + module_url()).content == served()
    page = tab(server)
    script = "async (url) => { const { createSession } = await import(url); return createSession().status.state; }"
    assert page.run(script, module_url()) == "over"


def test_storage_that_refuses_everything_is_memory(stage, client) -> None:
    scene = stage(BearerJson(), before="Storage.prototype.setItem = () => { throw new DOMException('full'); };")
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=0.1))
    assert scene.get()["status"] == 200
    assert scene.backend.exchanges == 1


@pytest.mark.parametrize("storage", ["localStorage", "sessionStorage"])
def test_storage_that_cannot_even_be_looked_at_is_memory(stage, client, storage) -> None:
    denied = (
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('', 'SecurityError'); } });"
    )
    scene = stage(BearerJson(), before=denied, storage=storage)
    for _ in range(2):
        scene.backend.expire()
        assert scene.get()["status"] == 200
    assert (scene.backend.exchanges, scene.backend.alarms) == (2, 0)
    assert scene.tab.run("() => sessionStorage.length") == 0


def test_it_can_be_imported_where_there_is_no_page(tmp_path) -> None:
    node = shutil.which("node")
    node_modules(PAGE)
    (tmp_path / "unbroken.mjs").write_bytes(served())
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
