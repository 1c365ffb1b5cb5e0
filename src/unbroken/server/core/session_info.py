"""What a session shows to its user, to the application and to an operator, and what a login gives it. No secrets."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import NamedTuple

from unbroken.server.core.rotation import FIRST_PARTY, SessionRow

__all__ = [
    "MAX_IP_CHARS",
    "MAX_LABEL_CHARS",
    "MAX_USER_AGENT_CHARS",
    "Caller",
    "NewSession",
    "RefreshInspection",
    "Revocation",
    "RevocationPage",
    "SessionInfo",
    "SessionPage",
    "compact_user_agent",
    "device_name",
    "session_info",
]

MAX_LABEL_CHARS = 200
MAX_IP_CHARS = 64
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


class Caller(NamedTuple):
    """Where a request comes from: the IP address, and the ``User-Agent`` header."""

    ip: str = ""
    user_agent: str = ""


class NewSession(NamedTuple):
    """What a login asks its session to be.

    *coordinated*: the client stores the idempotency key of a refresh before it sends it, and shares it between its
    processes, as unbroken's own client does. Then an old refresh token is accepted only with the same key, and not for
    ``Policy.grace`` seconds.
    """

    client_id: str = FIRST_PARTY
    scope: str = ""
    label: str = ""
    coordinated: bool = False


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """One session, as a page of the user's devices shows it. Times are seconds since the Unix epoch.

    ``user_agent`` is stored short: ``Chrome/142 (Windows)`` of a browser, 400 characters of any other program.
    ``revoked_why`` is ``logged_out``, ``revoked``, ``reuse``, ``limit``, or the word that ``Sessions.revoke`` was
    given. ``issuer`` and ``audience`` say whose session it is; they are empty until its first refresh, if an older
    version created it.
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
    issuer: str = ""
    audience: str = ""

    def is_of(self, issuer: str, audience: str) -> bool:
        """Return whether this session belongs to *issuer* and *audience*; so does one that belongs to none yet."""
        return not self.issuer or (self.issuer, self.audience) == (issuer, audience)

    def to_json(self, *, current: bool = False) -> dict[str, object]:
        """Return the session as a JSON object; *current* marks the session of the caller.

        Without the issuer and the audience, which are the caller's own.
        """
        shown = {name: value for name, value in asdict(self).items() if name not in ("issuer", "audience")}
        return {**shown, "device": device_name(self.user_agent), "current": current}


class SessionPage(NamedTuple):
    """Some sessions, and the cursor to ask for the next ones with; empty after the last page."""

    sessions: list[SessionInfo]
    next: str


class RefreshInspection(NamedTuple):
    """The session of a genuine refresh token. *is_usable*: a refresh with this token would succeed now."""

    session: SessionInfo
    is_usable: bool


class Revocation(NamedTuple):
    """A revoked session. Its access tokens may live until *until*, in seconds since the Unix epoch."""

    sid: str
    until: float


class RevocationPage(NamedTuple):
    """The revocations since a cursor, and the cursor to ask with next."""

    cursor: int
    revoked: list[Revocation]


def session_info(row: SessionRow, used_at: float | None = None, idle_expires_at: float | None = None) -> SessionInfo:
    """Return what *row* shows; with *used_at* and *idle_expires_at*, as a refresh is about to leave the row."""
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
        row.issuer,
        row.audience,
    )


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
