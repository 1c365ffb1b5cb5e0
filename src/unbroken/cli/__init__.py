"""The command line. Every option is an environment variable too, ``UNBROKEN_…``; every error is one line."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run ``unbroken`` and exit: 0 for success, 1 for a negative result (a problem, a failed demo), 2 for an error."""
    try:
        from unbroken.cli.app import run  # noqa: PLC0415  # so that a missing extra is one line
    except ModuleNotFoundError as missing:
        sys.exit(f"unbroken: the command line needs {missing.name}: install 'unbroken[cli]'")
    sys.exit(run(sys.argv[1:]))
