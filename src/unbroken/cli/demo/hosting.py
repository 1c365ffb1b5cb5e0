"""``unbroken demo --page``: the demo page on loopback, until Ctrl-C."""

from __future__ import annotations

import threading
import webbrowser

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.routing import Route

from unbroken.cli.demo.site import PREFIX, Site
from unbroken.cli.serve import listen, run_server

__all__ = ["show_page"]


def show_page(port: int, *, open_browser: bool) -> int:
    """Serve the page and return the exit status. Raise ConfigurationError if the port is taken."""
    listener = listen("127.0.0.1", port)
    listener.listen()  # from now on a fast browser waits instead of being refused
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    print(f"unbroken: {address}{PREFIX} shows the demo; press Ctrl-C to stop", flush=True)
    if open_browser:
        # In a thread, because a text browser would block, and nothing would serve it.
        threading.Thread(target=webbrowser.open, args=(address + PREFIX,), daemon=True).start()
    app = Starlette(routes=[Route("/", _redirect), *Site(address).routes()])
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=1
    )
    return run_server(config, listener)


async def _redirect(_: Request) -> RedirectResponse:
    """Lead from the bare address to the page."""
    return RedirectResponse(PREFIX)
