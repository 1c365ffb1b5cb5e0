"""The command itself. What it needs is imported when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["demo"]


def demo(
    seconds: Annotated[
        float, typer.Option(envvar="UNBROKEN_SECONDS", min=4, max=3600, help="How long, up to the theft.")
    ] = 20,
    workers: Annotated[
        int, typer.Option(envvar="UNBROKEN_WORKERS", min=1, max=1000, help="Tasks that call the API.")
    ] = 50,
    as_json: Annotated[
        bool, typer.Option("--json", envvar="UNBROKEN_JSON", help="The summary as JSON on stdout.")
    ] = False,
    page: Annotated[
        bool, typer.Option("--page", envvar="UNBROKEN_PAGE", help="Show it in a browser instead, until Ctrl-C.")
    ] = False,
    port: Annotated[
        int, typer.Option(envvar="UNBROKEN_PORT", min=0, max=65535, help="Port of the page; 0 takes a free one.")
    ] = 8400,
    open_browser: Annotated[
        bool, typer.Option("--open", envvar="UNBROKEN_OPEN", help="Open the page in the browser.")
    ] = False,
) -> int:
    """Break everything around one session, and show that it holds. Exit status 1 if it does not."""
    if page or open_browser:
        from unbroken.cli.demo.hosting import show_page  # noqa: PLC0415  # other commands do not pay for it

        return show_page(port, open_browser=open_browser)
    from unbroken.cli.demo.play import play  # noqa: PLC0415

    return play(seconds, workers, as_json=as_json)
