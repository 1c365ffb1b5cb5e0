"""The command line. Every option is also an environment variable, ``UNBROKEN_…``; every error is one line."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Runs ``unbroken``. Exits with 0, 1 (a promise was broken, or nothing was found), or 2 (it could not be done)."""
    try:
        from unbroken.cli.app import run  # noqa: PLC0415  # so that a missing extra is a clear line
    except ModuleNotFoundError as missing:
        sys.exit(f"unbroken: the command line needs {missing.name}: install 'unbroken[cli]'")
    sys.exit(run(sys.argv[1:]))
