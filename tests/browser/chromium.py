"""A real Chromium. Without it tests fail in CI, and are skipped elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.services import unavailable

__all__ = ["PAGE", "chromium", "launched", "program"]

PAGE = Path(__file__).parent / "page"
WHOLE = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ENGINE = "chromium-headless-shell"  # no windows and no pages of its own: a page costs a fifth


def program(*, whole: bool = False) -> str | None:
    """Where a Chromium of the system is, if there is one: the engine alone, or a *whole* browser."""
    return next(filter(None, map(shutil.which, WHOLE if whole else (ENGINE, *WHOLE))), None)


def launched(browser_type: Any, *, whole: bool = False, **more: Any) -> Any:
    """A browser of Playwright's *browser_type*, by the system's Chromium; *more* goes to ``launch``."""
    found = program(whole=whole)
    if found is None:
        unavailable("Chromium", "apt-get install chromium")
    return browser_type.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"], **more)


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser, by Playwright."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        unavailable("Playwright", "pip install -r requirements/dev.txt")
    with sync_playwright() as playwright:
        browser = launched(playwright.chromium)
        try:
            yield browser
        finally:
            browser.close()
