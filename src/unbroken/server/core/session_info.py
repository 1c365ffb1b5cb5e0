"""What a session shows to its user, to the application and to an operator, and what a login gives it. No secrets."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import NamedTuple

from unbroken import _base64
from unbroken.server.core.rotation import FIRST_PARTY, SessionRow, hour_of
from unbroken.server.core.user_agent import device_name

__all__ = [
    "MAX_IP_CHARS",
    "MAX_LABEL_CHARS",
    "Caller",
    "NewSession",
    "RefreshInspection",
    "Revocation",
    "RevocationPage",
    "SessionInfo",
    "SessionPage",
    "session_info",
]

MAX_LABEL_CHARS = 200
MAX_IP_CHARS = 64
NOT_SHOWN = ("issuer", "audience", "used_earlier_at", "coordinated", "jkt")


class Caller(NamedTuple):
    """Where a request comes from: the IP address, and the ``User-Agent`` header."""

    ip: str = ""
    user_agent: str = ""


class NewSession(NamedTuple):
    """What a login asks its session to be.

    *coordinated*: the client stores the idempotency key of a refresh before it sends it, and shares it between its
    processes, as unbroken's own client does. Then an old refresh token is accepted only with the same key, and not for
    ``Policy.grace`` seconds. *jkt*: the RFC 7638 thumbprint of the key that the session is bound to; empty for none.
    """

    client_id: str = FIRST_PARTY
    scope: str = ""
    label: str = ""
    coordinated: bool = False
    jkt: str = ""


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """One session, as a page of the user's devices shows it. Times are seconds since the Unix epoch.

    ``user_agent`` is stored short: ``Chrome/142 (Windows)`` of a browser, 400 characters of any other program.
    ``revoked_why`` is ``logged_out``, ``revoked``, ``reuse``, ``limit``, or the word that ``Sessions.revoke`` was
    given. ``issuer`` and ``audience`` say whose session it is; they are empty until its first refresh, if an older
    version created it. ``jkt`` is the RFC 7638 thumbprint of the key that it is bound to; empty if it is bound to none.
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
    used_earlier_at: float | None = field(default=None, compare=False, repr=False)  # for ``for_user``
    coordinated: bool = False
    jkt: str = ""

    def is_of(self, issuer: str, audience: str) -> bool:
        """Return whether this session belongs to *issuer* and *audience*; so does one that belongs to none yet."""
        return not self.issuer or (self.issuer, self.audience) == (issuer, audience)

    def to_json(self, *, current: bool = False) -> dict[str, object]:
        """Return the session as a JSON object; *current* marks the session of the caller.

        Without the issuer and the audience, which are the caller's own.
        """
        shown = {name: value for name, value in asdict(self).items() if name not in NOT_SHOWN}
        return {**shown, "device": device_name(self.user_agent), "bound": bool(self.jkt), "current": current}

    def for_user(self, now: float, refresh_ttl: float) -> SessionInfo:
        """Return the session as its own tokens may see it: as it was when this hour began.

        A thief of a token could otherwise watch for the moment of a refresh, and come within the grace.
        """
        used_at = self.used_at
        if used_at >= hour_of(now):
            used_at = self.created_at if self.used_earlier_at is None else self.used_earlier_at
        used_at = max(self.created_at, hour_of(used_at))
        return replace(self, used_at=used_at, idle_expires_at=min(used_at + refresh_ttl, self.expires_at))


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
        row.used_earlier_at,
        row.coordinated,
        "" if row.jkt is None else _base64.encode(row.jkt),
    )
