"""Events of sessions and logins: frozen values for the listeners of ``Sessions``. None of them holds a secret.

1. ``kind`` is a stable word for programs: it names the event in logs and webhooks.
2. A refused login has no subject yet, and its event does not hold the user name, because people type passwords there.
   ``account`` stands for the name: the same word for the same name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal

__all__ = [
    "EventListener",
    "KeyNotProven",
    "LoginFailed",
    "LoginRateLimited",
    "RefreshRejected",
    "ReuseDetected",
    "ReuseSuspected",
    "ServerEvent",
    "SessionCreated",
    "SessionRefreshed",
    "SessionRevoked",
    "VerdictWord",
]

VerdictWord = Literal["rotated", "healed", "converged", "retried", "branched"]


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """What happened to a session. ``sid`` and ``subject`` are empty where no session is known."""

    kind: ClassVar[str] = "event"
    sid: str
    subject: str

    def to_json(self) -> dict[str, object]:
        """Return the fields as a JSON object; ``kind`` is not among them."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class SessionCreated(ServerEvent):
    """A session was created. ``new_device``: the subject's first login within a year by this client and device, as the
    ``User-Agent`` names it.
    """

    kind: ClassVar[str] = "login.accepted"
    client_id: str = ""
    ip: str = ""
    user_agent: str = ""
    new_device: bool = False


@dataclass(frozen=True, slots=True)
class LoginFailed(ServerEvent):
    """A login was refused. ``why`` is ``password``, ``code``, or the application's own word."""

    kind: ClassVar[str] = "login.refused"
    sid: str = ""
    subject: str = ""
    account: str = ""
    why: str = "password"
    ip: str = ""
    user_agent: str = ""


@dataclass(frozen=True, slots=True)
class LoginRateLimited(ServerEvent):
    """A login met the rate limit. At most one event a minute for one account at one address."""

    kind: ClassVar[str] = "login.throttled"
    sid: str = ""
    subject: str = ""
    account: str = ""
    retry_after: float = 0.0
    ip: str = ""
    user_agent: str = ""


@dataclass(frozen=True, slots=True)
class SessionRefreshed(ServerEvent):
    """A session was refreshed. ``verdict`` is that of ``rotation.present``, ``seq`` the newest generation."""

    kind: ClassVar[str] = "session.refreshed"
    verdict: VerdictWord = "rotated"
    seq: int = 0


@dataclass(frozen=True, slots=True)
class RefreshRejected(ServerEvent):
    """A refresh token was refused; ``reason`` is that of ``InvalidGrant``. No session is named: any client can send any
    token.
    """

    kind: ClassVar[str] = "session.refresh_refused"
    sid: str = ""
    subject: str = ""
    reason: str = "malformed"
    ip: str = ""
    user_agent: str = ""


@dataclass(frozen=True, slots=True)
class ReuseDetected(ServerEvent):
    """A refresh token came back (reuse): two parties hold the session. It was revoked; investigate it.

    ``evidence`` names the generations and branches; ``age_ms`` is the time since the newest generation was made, in
    milliseconds.
    """

    kind: ClassVar[str] = "session.reuse_detected"
    evidence: str = ""
    age_ms: int | None = None
    ip: str = ""
    user_agent: str = ""


@dataclass(frozen=True, slots=True)
class ReuseSuspected(ServerEvent):
    """A used refresh token got tokens again, in a way that a second holder may have caused. The session lives on.

    *verdict* is ``branched``, or ``converged`` or ``retried`` for another party than that of the newest token.
    ``party`` is the network and the program of this request, ``presenter`` those for which the newest token was made.
    ``shared_generations`` counts the generations in a row, with this one, that went to two parties.
    """

    kind: ClassVar[str] = "session.reuse_suspected"
    verdict: VerdictWord = "branched"
    seq: int = 0
    evidence: str = ""
    party: str = ""
    presenter: str = ""
    shared_generations: int = 0
    ip: str = ""
    user_agent: str = ""


@dataclass(frozen=True, slots=True)
class KeyNotProven(ServerEvent):
    """The refresh token of a session that is bound to a key came without a proof of this key: it was copied, or the
    client has lost its key. It got nothing, and the session lives on. At most one event a minute for one session.

    ``reason`` is ``missing`` (there was no proof) or ``wrong_key``.
    """

    kind: ClassVar[str] = "session.key_not_proven"
    reason: str = "missing"
    ip: str = ""
    user_agent: str = ""


@dataclass(frozen=True, slots=True)
class SessionRevoked(ServerEvent):
    """A session was revoked. ``why`` is ``logged_out``, ``revoked``, ``limit`` (a login beyond the limit), or the word
    that ``Sessions.revoke`` was given.
    """

    kind: ClassVar[str] = "session.ended"
    why: str = "revoked"


EventListener = Callable[[ServerEvent], object]  # called in the thread of the request: it must not block
