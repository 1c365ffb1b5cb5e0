"""The pages about frameworks: what they show is in the examples, which are driven elsewhere, or is run here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.browser.build import BUILT, ROOT, SOURCES
from tests.browser.project import FRAMEWORKS, bundled, install, running
from tests.docs.pages import examples
from tests.interop.backends.base import PASSWORD, Backend, Fault
from tests.interop.backends.shapes import BearerJson, CodeIn200, KeptRefresh, OwnHeader, StatusInBody
from tests.support.commands import clean_environment, serving, unbroken
from tests.support.npm import node_modules
from tests.support.services import free_port

DOCS = ROOT / "docs"
WEB = ROOT / "examples" / "web"
AFTER = dict(
    zip(
        (StatusInBody, CodeIn200, BearerJson, OwnHeader, KeptRefresh),
        examples(DOCS / "from-an-interceptor.md", "js"),
        strict=True,
    )
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    return install(folder / "project")


@pytest.mark.parametrize("name", ["vue", "react"])
def test_what_a_page_shows_is_in_its_example(name: str) -> None:
    sources = "\n".join(file.read_text() for file in (WEB / name / "src").iterdir())
    shown = [*examples(DOCS / f"{name}.md", "js"), *examples(DOCS / f"{name}.md", "jsx")]
    assert len(shown) >= 7
    assert [code for code in shown if code not in sources] == []


@pytest.mark.parametrize("shape", AFTER, ids=lambda shape: shape.__name__)
def test_what_takes_the_place_of_an_interceptor_works(run: Any, tab: Any, project: Path, shape: type[Backend]) -> None:
    backend = run(shape())
    code = AFTER[shape].replace("https://api.example.com", backend.url)
    client = next(name for name in ("apiClient", "request", "axios") if f"attach({name})" in code)
    (project / "entries").mkdir(exist_ok=True)
    entry = project / "entries" / f"{shape.__name__}.js"
    entry.write_text(f"{code}\nObject.assign(window, {{ session, client: {client} }});")
    page = tab(backend)
    page.page.add_script_tag(content="window.goLogin = () => {}; window.Message = { error() {} };")
    page.page.add_script_tag(content=bundled(project, entry))
    body = json.dumps({"username": "ada", "password": PASSWORD})
    page.run(
        """async (body) => {
            const headers = { "Content-Type": "application/json" };
            session.importTokens(await (await fetch("/login", { method: "POST", headers, body })).json());
        }""",
        body,
    )
    for _ in range(2):
        backend.expire()
        backend.spoil(Fault(seconds=0.1))
        script = "(url) => Promise.all(Array.from({ length: 20 }, (_, n) => client.get(`${url}/api/echo?${n}`)))"
        came = page.run(f"(url) => ({script})(url).then((all) => all.map(({{ status }}) => status))", backend.url)
        assert came == [200] * 20
    assert (backend.refreshes, backend.alarms) == (2, 0)
    lines = [line for line in code.splitlines() if line]
    assert len(lines) <= 15


def test_tokens_that_an_interceptor_had_stored_can_be_imported(run: Any, tab: Any, project: Path) -> None:
    [code, *_] = examples(DOCS / "from-an-interceptor.md", "javascript")
    backend = run(BearerJson())
    entry = project / "entries" / "import.js"
    entry.parent.mkdir(exist_ok=True)
    entry.write_text(f"{AFTER[BearerJson].replace('export default', 'void')}\n{code}\nwindow.request = request;")
    page = tab(backend)
    body = json.dumps({"username": "ada", "password": PASSWORD})
    page.run(
        """async (body) => {
            const headers = { "Content-Type": "application/json" };
            const { refreshToken } = await (await fetch("/login", { method: "POST", headers, body })).json();
            localStorage.setItem("refreshToken", refreshToken);
        }""",
        body,
    )
    page.page.add_script_tag(content=bundled(project, entry))
    assert page.run("() => request.get('/api/echo').then(({ status }) => status)") == 200
    assert page.run("() => localStorage.getItem('refreshToken')") is None
    assert (backend.refreshes, backend.alarms) == (1, 0)


def test_the_examples_of_angular_compile(project: Path) -> None:
    config, more = examples(DOCS / "angular-next-nuxt.md", "ts")[:2]
    (project / "app.config.ts").write_text(config)
    (project / "more.ts").write_text(more)
    settings = {"extends": str(SOURCES / "tsconfig.json"), "include": ["*.ts"], "exclude": []}
    (project / "tsconfig.json").write_text(json.dumps({**settings, "compilerOptions": {"skipLibCheck": True}}))
    tsc = [node_modules(SOURCES) / ".bin" / "tsc", "-p", project]
    done = subprocess.run(tsc, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == ""


# ---- pages that a server renders -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cookies(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A real server with the settings of the page: its URL, and the cookies of a login."""
    folder = tmp_path_factory.mktemp("auth")
    [settings] = examples(DOCS / "angular-next-nuxt.md", "toml")
    (folder / "unbroken.toml").write_text(settings + "secure = false\n")
    done = unbroken(folder, "users", "add", "ada", "--password-stdin", given=PASSWORD + "\n")
    assert done.returncode == 0, done.stderr
    with serving(folder) as auth:
        body = {"username": "ada", "password": PASSWORD}

        def log_in() -> dict[str, str]:
            response = auth.http.post("/auth/login", json=body, headers={"X-Unbroken": "1"})
            auth.http.cookies.clear()
            lines = response.headers.get_list("set-cookie")
            assert all("SameSite=Lax" in line for line in lines)
            return dict(re.match(r"unbroken-(\w+)=([^;]+)", line).groups() for line in lines)

        yield auth.url, log_in


def rendered(project: Path, name: str, code: str, url: str, script: str) -> Any:
    """What a program prints as JSON that imports the example *code*, whose server is at *url*."""
    esbuild = project / "node_modules" / ".bin" / "esbuild"
    (project / f"{name}.ts").write_text(code.replace("http://127.0.0.1:8400", url))
    (project / f"{name}-main.ts").write_text(script)
    build = [esbuild, f"{name}-main.ts", "--bundle", "--platform=node", "--format=esm", f"--outfile={name}.mjs"]
    subprocess.run([str(word) for word in build], cwd=project, capture_output=True, timeout=60, check=True)
    done = subprocess.run(["node", f"{name}.mjs"], cwd=project, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_example_of_nuxt_renders_with_good_cookies(project: Path, cookies: Any) -> None:
    url, log_in = cookies
    refresh = log_in()["refresh"]
    code = examples(DOCS / "angular-next-nuxt.md", "ts")[3]
    script = f"""
import {{ createServer }} from "node:http";
import {{ createApp, defineEventHandler, toNodeListener }} from "h3";
import session from "./nuxt";
const app = createApp().use(session).use(defineEventHandler((event) => event.node.req.headers.cookie ?? ""));
const server = createServer(toNodeListener(app)).listen(0, "127.0.0.1", async () => {{
    const headers = {{ cookie: "theme=dark; unbroken-refresh={refresh}" }};
    const response = await fetch(`http://127.0.0.1:${{server.address().port}}/orders`, {{ headers }});
    const asset = await fetch(`http://127.0.0.1:${{server.address().port}}/_nuxt/a.js`, {{ headers }});
    console.log(JSON.stringify([await response.text(), response.headers.getSetCookie().length, await asset.text()]));
    process.exit();
}});
"""
    text, sets, asset = rendered(project, "nuxt", code, url, script)
    assert text.startswith("theme=dark; unbroken-refresh=")
    assert "unbroken-access=" in text
    assert refresh not in text
    assert sets == 2
    assert refresh in asset


STAND_IN = """
export class NextResponse extends Response {
  static redirect(url) {
    return new NextResponse(null, { status: 307, headers: { location: String(url) } });
  }
  static next({ request }) {
    return new NextResponse(request.headers.get("cookie"));
  }
}
"""


def test_the_example_of_next_renders_with_good_cookies(project: Path, cookies: Any) -> None:
    """With a stand-in for Next's response, whose headers and body show what Next is told."""
    url, log_in = cookies
    refresh = log_in()["refresh"]
    (project / "node_modules" / "next").mkdir()
    (project / "node_modules" / "next" / "server.js").write_text(STAND_IN)
    (project / "node_modules" / "next" / "package.json").write_text('{"name": "next", "type": "module"}')
    script = f"""
import {{ proxy }} from "./next";
const url = "http://shop.example/orders?x=1";
const request = (cookie) => ({{ headers: new Headers({{ cookie }}), nextUrl: new URL(url), url }});
const came = async (cookie) => {{
    const response = await proxy(request(cookie));
    const {{ status, headers }} = response;
    return [status, await response.text(), headers.getSetCookie().length, headers.get("location")];
}};
console.log(JSON.stringify([await came("unbroken-refresh={refresh}"), await came("theme=dark")]));
"""
    code = examples(DOCS / "angular-next-nuxt.md", "ts")[2]
    (status, text, sets, _), visitor = rendered(project, "next", code, url, script)
    assert (status, "unbroken-access=" in text, refresh in text, sets) == (200, True, False, 2)
    assert visitor == [307, "", 0, "http://shop.example/login?back=%2Forders%3Fx%3D1"]


def test_next_itself_renders_with_good_cookies(
    tmp_path: Path, browser: Any, cookies: Any, request: pytest.FixtureRequest
) -> None:
    if not request.config.getoption("--chaos-full"):
        pytest.skip("Next has 340 MB and is built in ten seconds: --chaos-full")
    url, log_in = cookies
    made = tmp_path / "app"
    node_modules(FRAMEWORKS / "next")
    # Next looks for packages below its own folder only, so nothing is a link
    shutil.copytree(node_modules(FRAMEWORKS / "next"), made / "node_modules", symlinks=True)
    shutil.copytree(BUILT, made / "node_modules" / "unbroken-session")
    shutil.copytree(FRAMEWORKS / "next", made, dirs_exist_ok=True)
    code = examples(DOCS / "angular-next-nuxt.md", "ts")[2]
    (made / "proxy.ts").write_text(code.replace("http://127.0.0.1:8400", url))
    program = str(made / "node_modules" / ".bin" / "next")
    environment = {**clean_environment(), "AUTH": url, "NEXT_TELEMETRY_DISABLED": "1"}
    done = subprocess.run([program, "build"], cwd=made, env=environment, capture_output=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout
    start = [program, "start", "--hostname", "127.0.0.1", "--port", str(free_port())]
    with running(start, made, "Local", AUTH=url, NEXT_TELEMETRY_DISABLED="1") as site, browser.new_context() as context:
        page, said = context.new_page(), []
        page.on("console", lambda message: said.append(message.text))
        page.goto(f"{site}/orders")
        assert page.url == f"{site}/login?back=%2Forders"
        for name, value in log_in().items():
            if name == "refresh":  # the access token has died
                context.add_cookies([{"name": f"unbroken-{name}", "value": value, "url": site, "httpOnly": True}])
        page.goto(f"{site}/orders")
        assert page.locator("#server").inner_text() == "good"
        page.locator("#client", has_text="ada").wait_for()
        assert said == []
