"""What may be told of a session: to its user, to the application, to an operator. No secret is in it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from unbroken.server.rotation import Row

__all__ = ["SessionInfo", "device_of", "info_of"]

# What stands first is looked for first: browsers name each other, and their systems' forebears.
BROWSERS = {
    "Edg": "Edge",
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


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """One session, for "your devices". Times are seconds since the Unix epoch."""

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
        return {**asdict(self), "device": device_of(self.user_agent), "current": current}


def info_of(row: Row, used_at: float | None = None, idle_expires_at: float | None = None) -> SessionInfo:
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


def device_of(user_agent: str) -> str:
    """A ``User-Agent`` for people, without versions: ``Firefox on Linux``; of other programs, the name they begin with.

    Anybody can send any. Empty if there is none.
    """
    browser = next((name for sign, name in BROWSERS.items() if sign in user_agent), "")
    system = next((name for sign, name in SYSTEMS.items() if sign in user_agent), "")
    if browser and user_agent.startswith("Mozilla/"):
        return f"{browser} on {system}" if system else browser
    return user_agent.partition("/")[0].partition(" ")[0][:40]
