"""A page that comes back from the back/forward cache, in a browser with one: by default Playwright switches it off.

Chromium throws a page out of this cache as soon as another tab sends it a message, and loads it anew on return. So the
other tab here has let go of its page, and with it of the channel: what it does is found in the storage alone.
"""

from __future__ import annotations

import pytest

from tests.browser.chromium import launched
from tests.interop.backends.shapes import BearerJson


@pytest.fixture
def context(browser):
    with launched(browser.browser_type, ignore_default_args=["--disable-back-forward-cache"]) as keeping:
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


def test_a_page_that_comes_back_from_the_cache_adopts_what_happened_meanwhile_i12(stage) -> None:
    scene = stage(BearerJson(), tabs=2)
    other, tab = scene.tabs
    other.run("() => session.dispose()")
    tab.run("() => void heard.splice(0)")

    def renew() -> None:
        scene.backend.expire()
        assert other.ask("/api/echo")["status"] == 200

    there_and_back(tab, renew)
    tab.until(lambda: tab.heard("tokens") == [{"here": False}])
    assert tab.ask("/api/echo")["status"] == 200
    assert (scene.backend.exchanges, len(scene.backend.seen)) == (1, 3)


def test_a_page_that_comes_back_from_the_cache_renews_an_old_token_i12(stage) -> None:
    scene = stage(BearerJson(lifetime=1800))
    scene.tab.pass_(7200)
    there_and_back(scene.tab)
    scene.tab.until(lambda: len(scene.backend.issued) == 2)
    assert scene.get()["status"] == 200
    assert (scene.backend.exchanges, len(scene.backend.seen)) == (1, 1)
