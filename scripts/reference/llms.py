"""``llms.txt``: the pages with a line about each, for programs that read documentation (llmstxt.org)."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["page"]

ABOUT = """# unbroken

> Two-token sessions that never break: the client, the server and the browser module, for Python. However many tasks,
> threads and processes share a session, no request fails because an access token expired.
"""
ROW = re.compile(r"^\| \[(?P<title>.*?)\]\((?P<target>.*?)\) \| (?P<about>.*?) \|$", re.MULTILINE)


def page(index: Path) -> str:
    """Return the text, from the tables of *index*."""
    sections = re.split(r"^\*\*(.+?)\*\*.*$", index.read_text("utf-8"), flags=re.MULTILINE)[1:]
    parts = [ABOUT]
    for title, text in zip(sections[::2], sections[1::2], strict=True):
        if rows := [f"- [{row['title']}]({row['target']}): {row['about']}" for row in ROW.finditer(text)]:
            parts.append(f"## {title}\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)
