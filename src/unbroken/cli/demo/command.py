"""The command ``unbroken demo``. The demos are imported when one of them runs."""

from __future__ import annotations

import click

from unbroken.cli.options import option

__all__ = ["demo"]


@click.command()
@option("--seconds", type=click.FloatRange(4, 3600), default=20, show_default=True, help="Duration, until the theft.")
@option("--workers", type=click.IntRange(1, 1000), default=50, show_default=True, help="Tasks that call the API.")
@option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@option(
    "--theft", is_flag=True, help="Steal the tokens of two sessions instead, one of them bound to a key: in a second."
)
@option("--page", is_flag=True, help="Show the demo in a browser instead, until Ctrl-C.")
@option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8400,
    show_default=True,
    help="Port of the page; 0 picks a free one.",
)
@option("--open", "open_browser", is_flag=True, help="Show the page, and open it in the browser.")
def demo(seconds: float, workers: int, as_json: bool, theft: bool, page: bool, port: int, open_browser: bool) -> int:
    """Break everything around one session, and show that it holds. Exit status 1 if it does not."""
    if theft:
        from unbroken.cli.demo.theft import play_theft  # noqa: PLC0415

        return play_theft(as_json=as_json)
    if page or open_browser:
        from unbroken.cli.demo.hosting import show_page  # noqa: PLC0415

        return show_page(port, open_browser=open_browser)
    from unbroken.cli.demo.scenario import play  # noqa: PLC0415

    return play(seconds, workers, as_json=as_json)
