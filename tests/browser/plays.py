"""A scene that is played twice in real pages: by a widespread snippet and by our module on the same axios."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.browser.tabs import Tab
from tests.interop.backends.base import PASSWORD, Backend
from tests.interop.backends.shapes import BearerJson, CodeIn200, KeptRefresh, OwnHeader, StatusInBody

__all__ = ["SCRIPTS", "SET_UP", "SLOW", "SNIPPETS", "Play"]

SNIPPETS = {
    StatusInBody: "status_in_body",
    CodeIn200: "code_in_200",
    BearerJson: "bearer_json",
    OwnHeader: "own_header",
    KeptRefresh: "kept_refresh",
}
# What the snippets' pages have, for scripts without modules.
SCRIPTS = ("vue/dist/vue.min.js", "vuex/dist/vuex.min.js", "element-ui/lib/index.js")
SLOW = 1.0  # seconds of a refresh in which everything else happens

SET_UP = """async (text, name, options, config) => {
    window.mine = axios.create(config);
    window.sent = [];
    window.alerts = [];
    window.left = [];  // where the page was sent to
    const parts = {
        alert: (text) => alerts.push(text),
        goLogin: () => left.push("/login"),
        window: { location: { set href(url) { left.push(url); } } },
        store: new Vuex.Store({ state: { user: { accessToken: "" } } }),
        Message: ELEMENT.Message,
    };
    let keep = (granted) => session.importTokens(granted);
    if (name) {
        const { snippets } = await import("data:text/javascript," + encodeURIComponent(text));
        keep = snippets[name](mine, axios, parts);
    } else {
        start(options);
        session.attach(mine);
    }
    window.logIn = async (body) => {
        const headers = { "Content-Type": "application/json" };
        keep(await (await platform.fetch("/login", { method: "POST", headers, body })).json());
    };
}"""

# Browsers send equal requests one after the other, so each has a number.
SEND = """(method, url, count) => {
    const came = (response) => response?.data?.code ?? response?.status ?? "nothing";
    const said = ({ name, code, response }) => (name !== "UnbrokenError" && response?.status) || (code ?? "");
    const failed = (error) => `error ${said(error)}`.trim();
    for (let n = 0; n < count; n++) {
        const data = method === "POST" ? "a" : undefined;
        sent.push(mine.request({ method, url: `${url}?${sent.length}`, data }).then(came, failed));
    }
}"""

CAME = """(last, seconds) => {
    const late = new Promise((done) => setTimeout(done, seconds * 1000, "waits"));
    return Promise.all(sent.splice(-last).map((one) => Promise.race([one, late])));
}"""

# How many refresh responses the page has.
RESPONDED = "(path) => performance.getEntriesByType('resource').filter(({ name }) => name.includes(path)).length"


@dataclass
class Play:
    """One page, and its backend. ``ours``: the page has our module, not the snippet."""

    tab: Tab
    backend: Backend
    ours: bool

    def log_in(self, user: str = "ada") -> None:
        self.tab.run("(user, password) => logIn(JSON.stringify({ username: user, password }))", user, PASSWORD)

    def log_out(self) -> None:
        """As a snippet that shows no logout would do it: the tokens are forgotten."""
        self.tab.run("() => session.logout()" if self.ours else "() => localStorage.clear()")

    def send(self, method: str = "GET", path: str = "/api/echo", count: int = 1) -> None:
        self.tab.run(SEND, method, path, count)

    def came(self, last: int, *, hangs: bool = False) -> list[Any]:
        """What the last requests came to: code or status, an error's word, ``nothing``, or that the request ``waits``.

        ``hangs``: some of the snippet's never end. They are given half a second more than the refresh took.
        """
        if not hangs or self.ours:
            return self.tab.run(CAME, last, 20.0)
        self.until_refreshing()
        self.tab.until(lambda: self.tab.run(RESPONDED, self.backend.refresh[1]) == self.backend.refreshes)
        return self.tab.run(CAME, last, 0.5)

    def ask(self, method: str = "GET", path: str = "/api/echo", count: int = 1, *, hangs: bool = False) -> list[Any]:
        self.send(method, path, count)
        return self.came(count, hangs=hangs)

    def until_refreshing(self) -> None:
        """Wait until a refresh has reached the backend, and all that was sent before it."""
        self.tab.until(lambda: self.backend.refreshes)

    def posts(self, user: str = "") -> int:
        """How many POSTs have reached the API, with a token of *user*."""
        tokens = [pair.access for pair in self.backend.issued if pair.user == user]
        return sum(
            seen.method == "POST" and (not user or any(token in seen.value for token in tokens))
            for seen in self.backend.seen
        )

    def shown(self) -> list[str]:
        """The messages on the page."""
        return self.tab.page.locator(".el-message").all_inner_texts()
