"""Pieces of Markdown that several pages are made of."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence

__all__ = ["NOTE", "anchor", "cell", "code", "prose", "sentences", "table"]

NOTE = "<!-- Written by scripts/build-docs from the code: change the code, not this page. -->"


def prose(doc: str | None) -> str:
    """Return a docstring as Markdown: its marks for code are single backticks here."""
    return re.sub(r"``(.+?)``", r"`\1`", inspect.cleandoc(doc or ""))


def sentences(doc: str | None) -> list[str]:
    """Return the sentences of the paragraphs of a docstring, without its blocks of code."""
    paragraphs = [one for one in inspect.cleandoc(doc or "").split("\n\n") if not one.startswith("    ")]
    text = " ".join(" ".join(one.split()) for one in paragraphs)
    return [prose(one) for one in re.split(r"(?<=[.?])\s+(?=[A-Z*`\"])", text) if one]


def cell(text: object) -> str:
    """Return *text* as it may stand in a table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def code(text: object) -> str:
    """Return *text* as code in a table; nothing for an empty one."""
    return f"`{cell(text)}`" if str(text) else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table. Its cells are Markdown already."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(line.replace("|  |", "| |").replace("|  |", "| |") for line in lines)


def anchor(heading: str) -> str:
    """Return the anchor of *heading*, as GitHub and the site make it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
