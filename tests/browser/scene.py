"""A scene: one backend that runs, and tabs in one browser that are logged in there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.browser.tabs import Tab
from tests.interop.backends.base import PASSWORD, Backend, Fault

__all__ = ["BROKEN", "DOWN", "JUNK", "LOST", "Scene", "errors", "statuses"]

# Responses to a refresh that say nothing definite: the session lives on.
DOWN = Fault(status=503, headers={"retry-after": "30"})
JUNK = Fault(status=200, body=b"<html>come back later</html>")
LOST = Fault(lost=True)
BROKEN = ("TypeError", "ERR_NETWORK")  # how fetch and axios report a connection that broke


@dataclass
class Scene:
    """What a test has before it. ``tab`` is the first tab; most tests have no other."""

    backend: Backend
    tabs: list[Tab]
    options: dict[str, Any]

    @property
    def tab(self) -> Tab:
        return self.tabs[0]

    def get(self, path: str = "/api/echo", **about: Any) -> dict[str, Any]:
        return self.tab.ask(path, **about)

    def post(self, body: Any, path: str = "/api/echo", **about: Any) -> dict[str, Any]:
        return self.tab.ask(path, method="POST", body=body, **about)

    def log_in(self, user: str = "ada", tab: Tab | None = None) -> None:
        """Log in by a plain request and import its tokens; return when all tabs have noticed it."""
        script = """async (username, password) => {
            const headers = { "Content-Type": "application/json" };
            const body = JSON.stringify({ username, password });
            session.importTokens(await (await platform.fetch("/login", { method: "POST", headers, body })).json());
        }"""
        (tab or self.tab).run(script, user, PASSWORD)
        version = (tab or self.tab).status["version"]
        for one in self.tabs if self.options["storage"] == "localStorage" else []:
            one.until(lambda one=one: one.status["version"] >= version)

    def hold(self, path: str = "/api/late", *, count: int = 1, tab: Tab | None = None) -> list[int]:
        """Send requests whose responses the backend holds back until ``release``; their numbers."""
        self.backend.held = True
        before = len(self.backend.requests_to(path))
        numbers = (tab or self.tab).begin(path, count=count)
        self.tab.until(lambda: len(self.backend.requests_to(path)) == before + count)
        return numbers

    def release(self) -> None:
        """Let the backend send what it has held back."""
        self.backend.held = False

    def together(self, count: int, path: str = "/api/echo") -> list[dict[str, Any]]:
        """What *count* requests at once came to, in each of the tabs."""
        begun = [(tab, tab.begin(path, count=count)) for tab in self.tabs]
        return [one for tab, numbers in begun for one in tab.outcomes(numbers)]


def statuses(outcomes: list[dict[str, Any]]) -> list[int]:
    """The statuses of *outcomes*, every one of which is a response."""
    assert all("status" in outcome for outcome in outcomes), outcomes
    return [outcome["status"] for outcome in outcomes]


def errors(outcomes: list[dict[str, Any]]) -> list[str]:
    """The words of *outcomes*, every one of which is an error."""
    assert all("error" in outcome for outcome in outcomes), outcomes
    return [outcome["error"] for outcome in outcomes]
