"""What a command says at a terminal while it waits for a refresh: for whom, and how long at most."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from unbroken._single_flight import flights_under_way

__all__ = ["telling_who_waits"]

LOOK_SECONDS, PATIENCE_LOOKS = 0.5, 6  # three seconds of one refresh pass in silence


@contextmanager
def telling_who_waits(server: str, wait_seconds: float) -> Iterator[None]:
    """Say once on standard error, if it is a terminal, that a refresh of the block does not come to its end."""
    if not sys.stderr.isatty():
        yield
        return
    ended = threading.Event()
    threading.Thread(target=_watch, args=(ended, server, wait_seconds), name="unbroken-waiting", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _watch(ended: threading.Event, server: str, wait_seconds: float) -> None:
    looks = 0
    while not ended.wait(LOOK_SECONDS):
        looks = looks + 1 if flights_under_way() else 0
        if looks == PATIENCE_LOOKS:
            left = wait_seconds - LOOK_SECONDS * PATIENCE_LOOKS
            line = f"unbroken: waiting for {server} to refresh the token, {left:.0f} seconds more at most"
            print(line, file=sys.stderr, flush=True)
            return
