"""A tab: a page with a session in it, and what a test does there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.interop.backends.base import PASSWORD

__all__ = ["Tab", "until"]


@dataclass
class Tab:
    """One page. ``client`` is the way in which it sends requests: ``fetch``, ``request`` or ``axios``."""

    page: Any = field(repr=False)
    client: str = "fetch"

    def run(self, script: str, *about: Any) -> Any:
        """What *script*, a function in JavaScript, comes to."""
        return self.page.evaluate(f"about => ({script})(...about)", list(about))

    def start(self, **options: Any) -> None:
        self.run("options => start(options)", options)

    def log_in(self, user: str = "ada", password: str = PASSWORD) -> None:
        self.run("(user, password) => session.login(user, password)", user, password)

    def ask(self, url: str, **init: Any) -> dict[str, Any]:
        """One request: its ``status``, ``text`` and ``json``, or its ``error``, a stable word."""
        return self.run("(...about) => ask(...about)", self.client, url, init)

    def together(self, count: int, url: str, **init: Any) -> list[dict[str, Any]]:
        return self.run("(...about) => together(...about)", self.client, count, url, init)

    def begin(self, url: str, *, count: int = 1, **init: Any) -> list[int]:
        """Requests that are under way; their numbers are for ``outcomes``."""
        script = "(count, ...about) => Array.from({ length: count }, () => begin(...about))"
        return self.run(script, count, self.client, url, init)

    def outcomes(self, numbers: list[int]) -> list[dict[str, Any]]:
        return self.run("(numbers) => Promise.all(numbers.map((number) => begun[number].result))", numbers)

    def outcome(self, numbers: list[int]) -> dict[str, Any]:
        [one] = self.outcomes(numbers)
        return one

    def is_done(self, numbers: list[int]) -> bool:
        return self.run("(numbers) => numbers.every((number) => begun[number].done)", numbers)

    def attempt(self, script: str, *about: Any) -> dict[str, Any]:
        """What *script* comes to, as ``value``, or its ``error``."""
        return self.run(f"(...about) => attempt(() => ({script})(...about))", *about)

    def pass_(self, seconds: float) -> None:
        """The page's clock moves on."""
        self.run("pass", seconds)

    def heard(self, kind: str) -> list[dict[str, Any]]:
        """Return what listeners got."""
        return self.run("(kind) => heard.filter(([type]) => type === kind).map(([, detail]) => detail)", kind)

    @property
    def stored(self) -> dict[str, Any] | None:
        """The record in the tab's localStorage or sessionStorage."""
        return self.run("() => stored() ?? stored(sessionStorage)")

    @property
    def status(self) -> dict[str, Any]:
        return self.run("() => session.status")

    def until(self, condition: Callable[[], object]) -> None:
        """Waits, at most 5 seconds, for *condition*, while the page goes on."""
        until(condition, pause=lambda: self.page.wait_for_timeout(5))


def until(condition: Callable[[], object], pause: Callable[[], object] = lambda: time.sleep(0.005)) -> None:
    """Waits, at most 5 seconds, for *condition*."""
    ends = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < ends, "it did not happen within 5 seconds"
        pause()
