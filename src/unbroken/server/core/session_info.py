"""What may be told of a session: to its user, to the application, to an operator. No secret is in it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import NamedTuple

from unbroken.server.core.rotation import SessionRow

__all__ = ["MAX_USER_AGENT_CHARS", "Caller", "SessionInfo", "compact_user_agent", "device_name", "session_info"]

MAX_USER_AGENT_CHARS = 400  # characters of a User-Agent that anybody needs

# What stands first is looked for first: browsers name each other, and their systems' forebears.
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


BY_BROWSERS = ("Mozilla/", *BROWSERS)  # how they begin: as they were sent, and as a row keeps them


class Caller(NamedTuple):
    """Who makes a request, as far as the connection tells: the address, and the ``User-Agent``."""

    ip: str = ""
    user_agent: str = ""


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """One session, for "your devices". Times are seconds since the Unix epoch.

    ``user_agent`` is what the row keeps of it: of a browser ``Chrome/142 (Windows)``, of others 400 characters.
    """

    sid: str
    subject: str
    client_id: str
    scope: str
    label: str
    ip: str
    user_agent: str
    created_at: float
    used_at: float
    idle_expires_at: float
    expires_at: float
    revoked_at: float | None = None
    revoked_why: str | None = None

    def to_json(self, *, current: bool = False) -> dict[str, object]:
        """The session as a JSON object; *current* marks the one that asks."""
        return {**asdict(self), "device": device_name(self.user_agent), "current": current}


def session_info(row: SessionRow, used_at: float | None = None, idle_expires_at: float | None = None) -> SessionInfo:
    """*row* for people; with *used_at* and *idle_expires_at*, as a refresh is about to leave it."""
    return SessionInfo(
        row.sid,
        row.subject,
        row.client_id,
        row.scope,
        row.label,
        row.ip,
        row.user_agent,
        row.created_at,
        row.used_at if used_at is None else used_at,
        row.idle_expires_at if idle_expires_at is None else idle_expires_at,
        row.expires_at,
        row.revoked_at,
        row.revoked_why,
    )


def device_name(user_agent: str) -> str:
    """A ``User-Agent`` for people, without versions: ``Firefox on Linux``; of other programs, the name they begin with.

    Anybody can send any. Empty if there is none.
    """
    browser, system = _first(BROWSERS, user_agent), _first(SYSTEMS, user_agent)
    if not browser:
        return user_agent.partition("/")[0].partition(" ")[0][:40]
    return f"{BROWSERS[browser]} on {SYSTEMS[system]}" if system else BROWSERS[browser]


def compact_user_agent(user_agent: str) -> str:
    """A ``User-Agent`` as a row keeps it: a million of them are read and written, so without what every browser says.

    ``device_of`` says the same of what was kept as of what was sent.
    """
    browser = _first(BROWSERS, user_agent)
    found = re.search(rf"{browser}\d{{1,9}}", user_agent) if browser else None
    if found is None:
        return user_agent[:MAX_USER_AGENT_CHARS]
    system = _first(SYSTEMS, user_agent)
    return f"{found[0]} ({system})" if system else found[0]


def _first(signs: dict[str, str], user_agent: str) -> str:
    """The first of *signs* that is in a browser's *user_agent*; empty if none is, or if another program sent it."""
    if not user_agent.startswith(BY_BROWSERS):
        return ""
    return next((sign for sign in signs if sign in user_agent), "")
