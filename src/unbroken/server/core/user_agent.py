"""What a ``User-Agent`` header says of a program: a name for people, and the short text that a row stores."""

from __future__ import annotations

import re

__all__ = ["MAX_USER_AGENT_CHARS", "compact_user_agent", "device_name"]

MAX_USER_AGENT_CHARS = 400
MAX_DEVICE_CHARS = 40

# The first match counts: browsers name each other, and Android and ChromeOS name Linux.
BROWSERS = {
    "Edg/": "Edge",
    "EdgA/": "Edge",
    "EdgiOS/": "Edge",
    "Edge/": "Edge",
    "OPR/": "Opera",
    "SamsungBrowser/": "Samsung Internet",
    "Firefox/": "Firefox",
    "FxiOS/": "Firefox",
    "CriOS/": "Chrome",
    "Chrome/": "Chrome",
    "Safari/": "Safari",
}
SYSTEMS = {
    "iPhone": "iPhone",
    "iPad": "iPad",
    "Android": "Android",
    "Windows": "Windows",
    "CrOS": "ChromeOS",
    "Mac OS X": "macOS",
    "Linux": "Linux",
}
BROWSER_PREFIXES = ("Mozilla/", *BROWSERS)  # how a User-Agent of a browser begins: as sent, and as a row stores it


def device_name(user_agent: str) -> str:
    """Return a ``User-Agent`` for people, without versions: ``Firefox on Linux``, or the first word of another program.

    Empty for an empty header. A client can send any header.
    """
    browser, system = _first_match(BROWSERS, user_agent), _first_match(SYSTEMS, user_agent)
    if not browser:
        return user_agent.partition("/")[0].partition(" ")[0][:MAX_DEVICE_CHARS]
    return f"{BROWSERS[browser]} on {SYSTEMS[system]}" if system else BROWSERS[browser]


def compact_user_agent(user_agent: str) -> str:
    """Return a ``User-Agent`` as a row stores it: without what every browser sends, as there are millions of rows.

    ``device_name`` gives the same for the stored text as for the header.
    """
    browser = _first_match(BROWSERS, user_agent)
    version = re.search(rf"{browser}\d{{1,9}}", user_agent) if browser else None
    if version is None:
        return user_agent[:MAX_USER_AGENT_CHARS]
    system = _first_match(SYSTEMS, user_agent)
    return f"{version[0]} ({system})" if system else version[0]


def _first_match(signs: dict[str, str], user_agent: str) -> str:
    """Return the first of *signs* that a browser's *user_agent* contains; empty if none, or for another program."""
    if not user_agent.startswith(BROWSER_PREFIXES):
        return ""
    return next((sign for sign in signs if sign in user_agent), "")
