"""``unbroken demo --page``: the demo page on loopback, until Ctrl-C."""

from __future__ import annotations

import threading
import webbrowser

import uvicorn
from starlette.applications import Starlette

from unbroken.cli.demo.site import PREFIX, Site
from unbroken.cli.serve import listen, run_server

__all__ = ["show_page"]


def show_page(port: int, *, open_browser: bool) -> int:
    """Serves the page; the exit status. Raises ConfigurationError if the port cannot be had."""
    listening = listen("127.0.0.1", port)
    listening.listen()  # so that a browser which is fast waits, and is not refused
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    print(f"unbroken: {address}{PREFIX} shows it; Ctrl-C ends it", flush=True)
    if open_browser:
        # A browser in the terminal would wait for the page, and the page for it.
        threading.Thread(target=webbrowser.open, args=(address + PREFIX,), daemon=True).start()
    app = Starlette(routes=Site(address).routes())
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=1
    )
    return run_server(config, listening)
