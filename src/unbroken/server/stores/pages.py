"""Pages of sessions: their order, and the cursors between them.

The order is by absolute expiry, the latest first, and then by sid: no refresh changes it. A cursor is the place of the
last session of a page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from unbroken.server.core.rotation import SessionRow

__all__ = ["next_page_cursor", "page_position", "place_of"]

FIRST = (math.inf, "")


def place_of(row: SessionRow) -> tuple[float, str]:
    """Return the place of *row* in the order of all."""
    return row.expires_at, row.sid


def page_position(cursor: str) -> tuple[float, str]:
    """Return the place after which a page begins. Raise ValueError for a malformed *cursor*."""
    if not cursor:
        return FIRST
    time, separator, sid = cursor.partition("_")
    place = float(time), sid
    if not separator or not math.isfinite(place[0]):
        raise ValueError(cursor)
    return place


def next_page_cursor(rows: Sequence[SessionRow], limit: int) -> str:
    """Return the cursor after a page; "" if it is the last."""
    return "" if len(rows) < limit else f"{rows[-1].expires_at!r}_{rows[-1].sid}"
