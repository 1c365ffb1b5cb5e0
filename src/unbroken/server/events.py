"""What the server tells about its sessions: frozen values for ``on_event``. None of them holds a secret."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Event", "LoggedIn", "Refreshed", "ReuseDetected", "SessionEnded"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a session."""

    sid: str
    subject: str


@dataclass(frozen=True, slots=True)
class LoggedIn(Event):
    """A session began."""

    client_id: str = ""
    ip: str = ""


@dataclass(frozen=True, slots=True)
class Refreshed(Event):
    """A refresh token was exchanged; ``verdict`` is that of ``rotation.present``, ``seq`` the newest generation."""

    verdict: str = "rotated"
    seq: int = 0


@dataclass(frozen=True, slots=True)
class ReuseDetected(Event):
    """A refresh token came back that only a second holder can have: the session was ended, and should be looked at.

    ``evidence`` names the places; ``age_ms`` is how long ago the token before the newest was exchanged.
    """

    evidence: str = ""
    age_ms: int | None = None
    ip: str = ""
    user_agent: str = ""


@dataclass(frozen=True, slots=True)
class SessionEnded(Event):
    """A session was ended by a logout or a revocation, for the reason ``why``."""

    why: str = "revoked"
