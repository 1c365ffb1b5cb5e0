"""One browser for the run, one context a test, real servers on loopback with the pages beside their API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest
from starlette.responses import HTMLResponse, Response

from tests.browser.chromium import PAGE, chromium
from tests.browser.demo import Demo, Server
from tests.browser.dialects import dialect_of
from tests.browser.scene import Scene
from tests.browser.shop import Shop
from tests.browser.tabs import Tab
from tests.interop.backends.base import Backend
from tests.interop.backends.shapes import BearerJson
from tests.support.backend import running
from tests.support.npm import node_modules
from unbroken.server.http.static import PARTS, module_source

HTML = '<meta charset="utf-8"><title>page</title><script type="module" src="/harness.js"></script>'


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """Open for the tests of this folder only: Playwright keeps an event loop running, beside which no other can run."""
    with chromium() as running_browser:
        yield running_browser


@pytest.fixture
def context_options() -> dict[str, Any]:
    """Options of Playwright for the context; a test file may override them."""
    return {}


@pytest.fixture
def context(browser: Any, context_options: dict[str, Any]) -> Iterator[Any]:
    """Cookies and storage of one user, for the pages of one test."""
    made = browser.new_context(**context_options)
    made.set_default_timeout(20_000)
    yield made
    made.close()


class PageServer:
    """A server that runs for all tests: pages, and behind them the backend of one test.

    *trusting*: pages of all origins may send it whatever they like, and read the answers.
    """

    def __init__(self, files_: dict[str, bytes], *, trusting: bool = False) -> None:
        self._files, self._trusting, self.app, self.url = files_, trusting, None, ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        if path == "/page":
            first = parse_qs(scope["query_string"].decode()).get("before", [""])[0]
            await HTMLResponse(f"<!doctype html><script>{first}</script>{HTML}")(scope, receive, send)
        elif path in self._files:
            await Response(self._files[path], media_type="text/javascript")(scope, receive, send)
        elif self.app is None:
            await Response(status_code=404)(scope, receive, send)
        elif self._trusting and scope["method"] == "OPTIONS":
            await Response(headers=TRUST)(scope, receive, send)
        else:
            await self.app(scope, receive, self._opened(send) if self._trusting else send)

    def _opened(self, send: Any) -> Any:
        async def opened(message: Any) -> None:
            if message["type"] == "http.response.start":
                trust = [(name.encode(), value.encode()) for name, value in TRUST.items()]
                message["headers"] = [*message["headers"], *trust]
            await send(message)

        return opened


TRUST = {"access-control-allow-origin": "*", "access-control-allow-headers": "authorization, token, *"}


@pytest.fixture(scope="session")
def modules() -> dict[str, bytes]:
    """What pages load, by its path."""
    return {
        **{f"/{part}": module_source(part) for part in PARTS},
        "/harness.js": (PAGE / "harness.js").read_bytes(),
        "/axios.js": (node_modules(PAGE) / "axios" / "dist" / "esm" / "axios.js").read_bytes(),
    }


@pytest.fixture(scope="session")
def page_servers(modules: dict[str, bytes]) -> Iterator[list[PageServer]]:
    """Two of them: some tests need another origin, one that would take any token."""
    made = [PageServer(modules), PageServer(modules, trusting=True)]
    with ExitStack() as opened:
        for server in made:
            server.url = f"http://127.0.0.1:{opened.enter_context(running(server))}"
        yield made


@pytest.fixture
def run(page_servers: list[PageServer]) -> Callable[[Any], Any]:
    """Runs a backend; two at most in one test."""
    free = iter(page_servers)

    def start(backend: Any) -> Any:
        server = next(free)
        server.app, backend.url = backend.app(), server.url
        return backend

    return start


@pytest.fixture
def tab(context: Any) -> Callable[..., Tab]:
    """Opens a page of a backend: ``tab(backend, client="axios")``, in which a script ran *before* everything else."""

    def open_(backend: Any, client: str = "fetch", *, before: str = "") -> Tab:
        page = context.new_page()
        if before and hasattr(page, "add_init_script"):
            page.add_init_script(before)
        page.goto(backend.url + "/page" + (f"?{urlencode({'before': before})}" if before else ""))
        page.wait_for_function("window.ready")
        return Tab(page, client)

    return open_


@pytest.fixture(params=["fetch", "axios"])
def client(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def stage(run: Callable[[Any], Any], tab: Callable[..., Tab], client: str) -> Callable[..., Scene]:
    """Sets a scene: a backend of ``tests/interop/backends``, and a tab that is logged in there."""

    def build(backend: Backend, *, tabs: int = 1, before: str = "", **options: Any) -> Scene:
        run(backend)
        options = {**dialect_of(backend), "storage": "localStorage", "refreshTimeout": 2, **options}
        opened = [tab(backend, client, before=before) for _ in range(tabs)]
        for one in opened:
            one.start(**options)
        scene = Scene(backend, opened, options)
        scene.log_in()
        return scene

    return build


@pytest.fixture
def scene(stage: Callable[..., Scene]) -> Scene:
    """A scene for tests that need nothing special of the backend."""
    return stage(BearerJson())


@pytest.fixture
def shop(run: Callable[[Any], Any], tmp_path: Path) -> Iterator[Callable[..., Shop]]:
    """Runs unbroken's own server: ``shop(cookies=…)``."""
    made: list[Shop] = []

    def build(**about: Any) -> Shop:
        made.append(Shop(tmp_path, **about))
        return run(made[-1])

    yield build
    for one in made:
        one.close()


@pytest.fixture
def at_shop(tab: Callable[..., Tab], client: str) -> Callable[..., list[Tab]]:
    """Tabs that are logged in at a shop: ``at_shop(shop, tabs=5, storage="cookie")``."""

    def build(
        shop: Shop, *, tabs: int = 1, storage: str = "localStorage", user: str = "ada", **options: Any
    ) -> list[Tab]:
        opened = [tab(shop, client) for _ in range(tabs)]
        for one in opened:
            one.start(storage=storage, refreshTimeout=2, **options)
        opened[0].log_in(user)
        for one in opened:
            one.until(lambda one=one: storage in ("memory", "sessionStorage") or one.status["version"])
        return opened

    return build


@pytest.fixture
def demo(context: Any) -> Iterator[Demo]:
    server = Server()
    with running(server) as port:
        made = Demo(context.new_page(), server, f"http://127.0.0.1:{port}")
        yield made
        made.page.close()
