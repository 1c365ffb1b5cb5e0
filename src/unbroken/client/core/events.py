"""What a session tells about itself: small frozen values, handed to ``on_event``. None of them holds a secret."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "Adopted",
    "Event",
    "Joined",
    "LateChallenge",
    "LateTokensDropped",
    "LoggedIn",
    "LoggedOut",
    "NotReplayed",
    "RenewalFailed",
    "RenewalOver",
    "RenewalStarted",
    "Renewed",
    "Replayed",
    "SessionEnded",
    "StormStopped",
    "Waited",
]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to the session; ``version`` is that of the tokens it happened to."""

    version: int = 0


@dataclass(frozen=True, slots=True)
class LoggedIn(Event):
    """New tokens came from a login, or were handed in by ``adopt``."""


@dataclass(frozen=True, slots=True)
class LoggedOut(Event):
    """The session was logged out here. ``told_server``: whether the server answered so."""

    told_server: bool = False


@dataclass(frozen=True, slots=True)
class RenewalStarted(Event):
    """A renewal has begun, because of ``why``: ``ageing``, ``expired``, ``challenge`` or ``asked``."""

    why: str = "expired"


@dataclass(frozen=True, slots=True)
class Joined(Event):
    """A request waits for a renewal that is already under way."""


@dataclass(frozen=True, slots=True)
class Renewed(Event):
    """One exchange brought new tokens, now saved; ``tries`` counts the requests it took."""

    tries: int = 1


@dataclass(frozen=True, slots=True)
class Adopted(Event):
    """Somebody else who shares the store had renewed already: no exchange was needed."""


@dataclass(frozen=True, slots=True)
class RenewalFailed(Event):
    """The renewal did not work; the tokens are kept. ``error`` is the error's code."""

    error: str = "try_later"
    retry_after: float = 0.0


@dataclass(frozen=True, slots=True)
class RenewalOver(Event):
    """A renewal took ``seconds``; ``outcome``: ``renewed``, ``adopted``, ``failed``, or ``ended`` with the session."""

    outcome: str = "renewed"
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Waited(Event):
    """A request waited ``seconds`` for a renewal, whatever came of it."""

    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class LateChallenge(Event):
    """A challenge to older tokens than the current ones was answered without an exchange."""


@dataclass(frozen=True, slots=True)
class StormStopped(Event):
    """A renewal was refused, because there were too many in a short time."""


@dataclass(frozen=True, slots=True)
class LateTokensDropped(Event):
    """New tokens arrived after a logout, another login, or newer tokens: they were not stored."""


@dataclass(frozen=True, slots=True)
class SessionEnded(Event):
    """The server ended the session; told once."""

    reason: str = "invalid_grant"


@dataclass(frozen=True, slots=True)
class Replayed(Event):
    """A challenged request is sent again, with newer tokens; whether that took an exchange, ``Renewed`` tells."""


@dataclass(frozen=True, slots=True)
class NotReplayed(Event):
    """A challenged request was not sent again, because ``why``; its caller got the server's answer."""

    why: str = ""
