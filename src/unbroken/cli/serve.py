"""``unbroken serve``, the command. Who serves is imported when it runs: other commands do not pay for it."""

from __future__ import annotations

from unbroken.cli.options import with_settings
from unbroken.cli.settings import Settings

__all__ = ["serve"]


@with_settings()
def serve(settings: Settings) -> int:
    """Serve the endpoints. Accounts are made with `unbroken users add`; `unbroken check` looks at the settings."""
    from unbroken.cli.runner import run_server  # noqa: PLC0415

    return run_server(settings)
