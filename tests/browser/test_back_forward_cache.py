"""A page that comes back from the back/forward cache, in a browser with one: by default Playwright switches it off.

Chromium drops a page from this cache as soon as another tab sends it a message, and loads it anew on return. So the
other tab here has been disposed of, and with it the channel: what it does is found in the storage alone.
"""

from __future__ import annotations

import pytest

from tests.browser.chromium import launched
from tests.interop.backends.shapes import BearerJson


@pytest.fixture
def context(browser):
    with launched(browser.browser_type, whole=True, ignore_default_args=["--disable-back-forward-cache"]) as keeping:
        yield keeping.new_context()


def there_and_back(tab, between=lambda: None) -> None:
    """Leaves the page of *tab* for another one, and comes back to it as it was."""
    page = tab.page
    page.evaluate("window.addEventListener('pageshow', (event) => (window.persisted = event.persisted))")
    page.goto(page.url + "?elsewhere")
    between()
    page.go_back(wait_until="commit")  # a page that was kept is not loaded again
    page.wait_for_function("'persisted' in window")
    assert page.evaluate("window.persisted") is True


@pytest.mark.defect("I12")
def test_a_page_from_the_back_forward_cache_notices_a_refresh_of_another_tab(stage) -> None:
    scene = stage(BearerJson(), tabs=2)
    other, tab = scene.tabs
    other.run("() => session.dispose()")
    tab.run("() => void heard.splice(0)")

    def refresh() -> None:
        scene.backend.expire()
        assert other.ask("/api/echo")["status"] == 200

    there_and_back(tab, refresh)
    tab.until(lambda: tab.heard("tokens") == [{"here": False}])
    assert tab.ask("/api/echo")["status"] == 200
    assert (scene.backend.refreshes, len(scene.backend.seen)) == (1, 3)


@pytest.mark.defect("I12")
def test_a_page_from_the_back_forward_cache_refreshes_an_expired_token(stage) -> None:
    scene = stage(BearerJson(lifetime=1800))
    scene.tab.pass_(7200)
    there_and_back(scene.tab)
    scene.tab.until(lambda: len(scene.backend.issued) == 2)
    assert scene.get()["status"] == 200
    assert (scene.backend.refreshes, len(scene.backend.seen)) == (1, 1)
