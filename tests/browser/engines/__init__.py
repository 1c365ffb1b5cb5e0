"""Three engines of browsers behind one interface, that of Playwright as far as the tests of all engines need it.

browser.new_context()                      cookies and storage of one user; close()
context.new_page()                         a window
page.goto(url)  page.reload()  page.close()
page.evaluate(function, argument)          what an async function comes to, through JSON
page.wait_for_function(expression)  page.wait_for_timeout(milliseconds)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.browser.chromium import chromium
from tests.browser.engines.firefox import firefox
from tests.browser.engines.webkit import webkit

__all__ = ["ENGINES", "running"]

ENGINES = {"chromium": chromium, "firefox": firefox, "webkit": webkit}


@contextmanager
def running(engine: str) -> Iterator[Any]:
    """A running browser of *engine*."""
    with ENGINES[engine]() as browser:
        yield browser
