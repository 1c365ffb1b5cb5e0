"""The demo page in a browser, and the server behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette

from tests.browser.tabs import until
from unbroken.cli.demo.site import Site

__all__ = ["ACTION", "Demo", "Server"]

ACTION = 20_000  # milliseconds that a button's play may take
TROUBLE = ("/demo/api/", "/demo/auth/refresh")  # what may be refused here: browsers write a line about each


class Server:
    """The demo's server. It can be started anew at its address: then it knows nothing of what was before."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.site = Site("http://127.0.0.1")
        self._app = Starlette(routes=self.site.routes())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)


class Demo:
    """The page in a browser, and the server behind it."""

    def __init__(self, page: Any, server: Server, url: str) -> None:
        self.page, self.server, self.url = page, server, url
        self.errors: list[str] = []
        self.requested: set[str] = set()
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.requested.add("{0.scheme}://{0.netloc}".format(urlsplit(request.url))))

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning") and not any(part in message.location["url"] for part in TROUBLE):
            self.errors.append(message.text)

    def open(self, path: str = "/demo#still") -> Demo:
        self.page.goto(self.url + path)
        if path.startswith("/demo#"):
            self.page.wait_for_selector("body[data-ready]")
            self.wait_for(lambda: all(self.counts(lane)["served"] for lane in ("naive", "unbroken")))
        return self

    def wait_for(self, condition: Callable[[], object]) -> None:
        until(condition, pause=lambda: self.page.wait_for_timeout(20))

    def press(self, name: str) -> str:
        """Presses a button by its name; what the page says when all is over."""
        self.page.get_by_role("button", name=name, exact=True).click()
        return self.outcome()

    def outcome(self) -> str:
        self.page.wait_for_selector("[aria-disabled=true]", state="detached", timeout=ACTION)
        return self.said

    @property
    def said(self) -> str:
        return self.page.get_by_role("status").inner_text()

    def counts(self, lane: str) -> dict[str, int]:
        script = "all => Object.fromEntries(all.map(one => [one.dataset.count, Number(one.textContent)]))"
        return self.page.eval_on_selector_all(f"#{lane} [data-count]", script)

    def state(self, lane: str) -> str:
        return self.page.inner_text(f"#{lane} .state")

    def ended(self) -> list[str]:
        """Why sessions have ended, by the server."""
        return [
            info.revoked_why
            for info in self.server.site.sessions.list_sessions(include_revoked=True)
            if info.revoked_why
        ]
