"""What a request is to be, as a value between the command line and whoever sends it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Asked"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asked for. ``data``: texts, ``@FILE``, ``@-``; None without a body. ``raw``: only texts."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    data: tuple[str, ...] | None
    raw: tuple[str, ...]
    output: str
    include: bool
    fail: bool
    follow: bool
