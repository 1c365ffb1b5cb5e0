"""Three of the widespread snippets, as printed, break in a real page of the backend at which our module does not."""

from __future__ import annotations

import pytest

from tests.backends.base import PASSWORD, Fault
from tests.backends.shapes import BearerJson, KeptRefresh, StatusInBody
from tests.browser.chromium import PAGE
from tests.browser.scene import DOWN

SNIPPETS = (PAGE / "snippets.js").read_text()


@pytest.fixture
def snippet(run, tab):
    """A page with a snippet that is logged in, and its backend."""

    def build(name, backend):
        page = tab(run(backend))
        script = """async (text, name, body) => {
            const { snippets } = await import("data:text/javascript," + encodeURIComponent(text));
            window.mine = axios.create();
            const keep = snippets[name](mine, axios);
            const headers = { "Content-Type": "application/json" };
            keep(await (await fetch("/login", { method: "POST", headers, body: JSON.stringify(body) })).json());
        }"""
        page.run(script, SNIPPETS, name, {"username": "ada", "password": PASSWORD})
        return page

    return build


ALL = """async (method, count) => {
    const asked = Array.from({ length: count }, (_, n) => mine[method](`/api/echo?${n}`, method === "post" ? "a" : {}));
    return (await Promise.allSettled(asked)).map(({ status, value }) => value?.status ?? status);
}"""


def test_many_challenges_alarm_the_server_by_the_snippet_with_a_mark(snippet) -> None:
    backend = KeptRefresh()
    page = snippet("kept_refresh", backend)
    backend.expire()
    backend.spoil(Fault(seconds=0.1), times=3)
    assert "rejected" in page.run(ALL, "get", 3)
    assert (backend.exchanges, backend.alarms > 0) == (3, True)


def test_a_server_that_is_down_logs_out_by_the_snippet_with_a_promise(snippet) -> None:
    backend = BearerJson()
    page = snippet("bearer_json", backend)
    backend.expire()
    backend.spoil(DOWN)
    assert page.run(ALL, "get", 3) == ["rejected"] * 3
    assert page.run("() => [localStorage.getItem('refresh'), window.left]") == [None, 3]


def test_old_posts_are_sent_again_by_the_snippet_with_a_queue(snippet) -> None:
    backend = StatusInBody()
    page = snippet("status_in_body", backend)
    backend.expire()
    backend.spoil(Fault(seconds=0.3), times=2)
    assert page.run(ALL, "post", 3) == [200] * 3
    before = len(backend.seen)
    backend.expire()
    assert page.run(ALL, "get", 1) == [200]
    page.until(lambda: [seen.method for seen in backend.seen[before:]].count("POST") == 2)


def test_an_error_is_a_success_by_the_snippet_with_a_queue(snippet) -> None:
    page = snippet("status_in_body", StatusInBody())
    assert page.run("async () => (await mine.get('/api/error/500')).status") == 500
