"""What R1 makes of a row that nobody has read: half of it follows from the token, the statement gives the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unbroken.server.rotation import Presented, Row

__all__ = ["REST", "row_after"]

# In this order, what ``row_after`` is given.
REST = "sid, subject, created_at, expires_at, client_id, scope, coordinated, at2, b2, label, ip, user_agent"


def row_after(key: bytes, token: Presented, now: float, refresh_ttl: float, rest: Sequence[Any]) -> Row:
    """The row that ``rotation.rotate`` gives, out of the ``REST`` of it."""
    sid, subject, created_at, expires_at, client_id, scope, coordinated, at2, b2, label, ip, user_agent = rest
    return Row(
        key=key,
        sid=sid,
        subject=subject,
        created_at=created_at,
        used_at=now,
        idle_expires_at=min(now + refresh_ttl, expires_at),
        expires_at=expires_at,
        client_id=client_id,
        scope=scope,
        coordinated=bool(coordinated),
        g=token.g + 1,
        b=0,
        at1=now,
        b1=token.b,
        at2=at2,
        b2=b2,
        attempt=token.attempt,
        label=label,
        ip=ip,
        user_agent=user_agent,
    )
