"""What a session tells about itself: small frozen values, handed to ``on_event``. None of them holds a secret."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "ClientEvent",
    "LateChallenge",
    "LateTokensDiscarded",
    "LoggedIn",
    "LoggedOut",
    "RefreshFailed",
    "RefreshFinished",
    "RefreshJoined",
    "RefreshStarted",
    "RefreshStormStopped",
    "RequestNotReplayed",
    "RequestReplayed",
    "RequestWaited",
    "SessionEnded",
    "TokensAdopted",
    "TokensRefreshed",
]


@dataclass(frozen=True, slots=True)
class ClientEvent:
    """Something that happened to the session; ``version`` is that of the tokens it happened to."""

    version: int = 0


@dataclass(frozen=True, slots=True)
class LoggedIn(ClientEvent):
    """New tokens came from a login, or were handed in by ``import_tokens``."""


@dataclass(frozen=True, slots=True)
class LoggedOut(ClientEvent):
    """The session was logged out here. ``told_server``: whether the server answered so."""

    told_server: bool = False


@dataclass(frozen=True, slots=True)
class RefreshStarted(ClientEvent):
    """A renewal has begun, because of ``why``: ``ageing``, ``expired``, ``challenge`` or ``asked``."""

    why: str = "expired"


@dataclass(frozen=True, slots=True)
class RefreshJoined(ClientEvent):
    """A request waits for a renewal that is already under way."""


@dataclass(frozen=True, slots=True)
class TokensRefreshed(ClientEvent):
    """One exchange brought new tokens, now saved; ``tries`` counts the requests it took."""

    tries: int = 1


@dataclass(frozen=True, slots=True)
class TokensAdopted(ClientEvent):
    """Somebody else who shares the store had renewed already: no exchange was needed."""


@dataclass(frozen=True, slots=True)
class RefreshFailed(ClientEvent):
    """The renewal did not work; the tokens are kept. ``error`` is the error's code."""

    error: str = "try_later"
    retry_after: float = 0.0


@dataclass(frozen=True, slots=True)
class RefreshFinished(ClientEvent):
    """A renewal took ``seconds``; ``outcome``: ``renewed``, ``adopted``, ``failed``, or ``ended`` with the session."""

    outcome: str = "renewed"
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class RequestWaited(ClientEvent):
    """A request waited ``seconds`` for a renewal, whatever came of it."""

    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class LateChallenge(ClientEvent):
    """A challenge to older tokens than the current ones was answered without an exchange."""


@dataclass(frozen=True, slots=True)
class RefreshStormStopped(ClientEvent):
    """A renewal was refused, because there were too many in a short time."""


@dataclass(frozen=True, slots=True)
class LateTokensDiscarded(ClientEvent):
    """New tokens arrived after a logout, another login, or newer tokens: they were not stored."""


@dataclass(frozen=True, slots=True)
class SessionEnded(ClientEvent):
    """The server ended the session; told once."""

    reason: str = "invalid_grant"


@dataclass(frozen=True, slots=True)
class RequestReplayed(ClientEvent):
    """A challenged request is sent again, with newer tokens; whether that took an exchange, ``Renewed`` tells."""


@dataclass(frozen=True, slots=True)
class RequestNotReplayed(ClientEvent):
    """A challenged request was not sent again, because ``why``; its caller got the server's answer."""

    why: str = ""
