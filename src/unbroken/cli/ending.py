"""The end of a command while a refresh is under way.

A server that rotates has used the refresh token up: the new tokens are in the response alone. So the command waits for
it, as every program does (``_single_flight.py``, rule 4), but it says so, and who does not want to wait need not.
"""

from __future__ import annotations

import os
import sys

from unbroken._single_flight import flights_under_way

__all__ = ["WAITING", "finish_refreshes"]

WAITING = "waiting for the response to a refresh, which has the next tokens; Ctrl-C ends it"
QUIET_SECONDS = 0.5


def finish_refreshes(status: int) -> int:
    """Return *status* when no refresh is under way any more; a second Ctrl-C ends the process with it."""
    try:
        for thread in flights_under_way():
            thread.join(QUIET_SECONDS)
        if left := flights_under_way():
            print(f"unbroken: {WAITING}", file=sys.stderr, flush=True)
        for thread in left:
            thread.join()
    except KeyboardInterrupt:
        sys.stdout.flush()
        os._exit(status)
    return status
