"""What the server tells about its sessions and logins: frozen values for ``on_event``. None of them holds a secret.

``kind`` is a stable word for programs: it names the event in logs and webhooks. A login that is refused has no subject
yet, and the name that was typed is not told, because people type passwords there: ``account`` stands for it, and is the
same word for the same name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import ClassVar

__all__ = [
    "LoginFailed",
    "LoginRateLimited",
    "RefreshRejected",
    "ReuseDetected",
    "ServerEvent",
    "SessionCreated",
    "SessionRefreshed",
    "SessionRevoked",
]


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """Something that happened to a session, or on the way to one: then ``sid`` and ``subject`` are empty."""

    kind: ClassVar[str] = "event"
    sid: str
    subject: str

    def to_json(self) -> dict[str, object]:
        """What it tells, as a JSON object; ``kind`` is not in it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class SessionCreated(ServerEvent):
    """A session began. ``new_device``: not within a year has this subject logged in from this client and device before,
    as the ``User-Agent`` names it.
    """

    kind: ClassVar[str] = "login.accepted"
    client_id: str = ""
    ip: str = ""
    user_agent: str = ""
    new_device: bool = False


@dataclass(frozen=True, slots=True)
class LoginFailed(ServerEvent):
    """A login was refused: ``why`` is ``password`` or ``code``, or the application's own word."""

    kind: ClassVar[str] = "login.refused"
    sid: str = ""
    subject: str = ""
    account: str = ""
    why: str = "password"
    ip: str = ""
    user_agent: str = ""


@dataclass(frozen=True, slots=True)
class LoginRateLimited(ServerEvent):
    """A login came too soon after wrong ones. Told at most once a minute for one account at one address."""

    kind: ClassVar[str] = "login.throttled"
    sid: str = ""
    subject: str = ""
    account: str = ""
    retry_after: float = 0.0
    ip: str = ""
    user_agent: str = ""


@dataclass(frozen=True, slots=True)
class SessionRefreshed(ServerEvent):
    """A refresh token was exchanged; ``verdict`` is that of ``rotation.present``, ``seq`` the newest generation."""

    kind: ClassVar[str] = "session.refreshed"
    verdict: str = "rotated"
    seq: int = 0


@dataclass(frozen=True, slots=True)
class RefreshRejected(ServerEvent):
    """A refresh token was refused; ``reason`` is that of ``InvalidGrant``. It may be anybody's: no session is named."""

    kind: ClassVar[str] = "session.refresh_refused"
    sid: str = ""
    subject: str = ""
    reason: str = "malformed"
    ip: str = ""
    user_agent: str = ""


@dataclass(frozen=True, slots=True)
class ReuseDetected(ServerEvent):
    """A refresh token came back that only a second holder can have: the session was ended, and should be looked at.

    ``evidence`` names the places; ``age_ms`` is how long ago the token before the newest was exchanged.
    """

    kind: ClassVar[str] = "session.reuse_detected"
    evidence: str = ""
    age_ms: int | None = None
    ip: str = ""
    user_agent: str = ""


@dataclass(frozen=True, slots=True)
class SessionRevoked(ServerEvent):
    """A session was ended by a logout or a revocation, for the reason ``why``."""

    kind: ClassVar[str] = "session.ended"
    why: str = "revoked"


EventListener = Callable[[ServerEvent], object]
