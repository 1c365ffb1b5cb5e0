"""``scripts/screenshot``: a picture of the demo page, as a visitor sees it shortly after the access token has died."""

from __future__ import annotations

import sys

from starlette.applications import Starlette

from tests.browser.chromium import chromium
from tests.support.backend import running
from unbroken.cli.demo.site import Site

__all__: list[str] = []

SEEN_FIRST = 5_000  # milliseconds: so that the waterfall is full
SEEN_AFTER = 1_800
MARGIN = 24


def take(file: str) -> None:
    app = Starlette(routes=Site("http://127.0.0.1").routes())
    with running(app) as port, chromium() as browser:
        page = browser.new_page(viewport={"width": 1200, "height": 900}, color_scheme="light")
        page.goto(f"http://127.0.0.1:{port}/demo#still")
        page.wait_for_selector("body[data-ready]")
        page.wait_for_timeout(SEEN_FIRST)
        page.get_by_role("button", name="Expire now").click()
        page.wait_for_selector("[aria-disabled=true]", state="detached")
        page.get_by_role("heading", level=1).hover()
        page.wait_for_timeout(SEEN_AFTER)
        legend = page.locator(".legend").bounding_box()
        clip = {"x": 0, "y": 64, "width": 1200, "height": legend["y"] + legend["height"] + MARGIN - 64}
        page.screenshot(path=file, clip=clip)


if __name__ == "__main__":
    take(*sys.argv[1:])
