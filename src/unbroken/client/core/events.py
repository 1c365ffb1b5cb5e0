"""The events of a client session: small frozen values without secrets, passed to ``on_event`` and listeners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "ClientEvent",
    "LateChallenge",
    "LateTokensDiscarded",
    "LoggedIn",
    "LoggedOut",
    "RefreshFailed",
    "RefreshFinished",
    "RefreshJoined",
    "RefreshReason",
    "RefreshResult",
    "RefreshStarted",
    "RefreshStormStopped",
    "RequestNotReplayed",
    "RequestReplayed",
    "RequestWaited",
    "SessionEnded",
    "TokensAdopted",
    "TokensRefreshed",
]

RefreshReason = Literal["ageing", "expired", "challenge"]
RefreshResult = Literal["refreshed", "adopted", "failed", "over"]


@dataclass(frozen=True, slots=True)
class ClientEvent:
    """Something that happened to the session; ``version`` is that of the tokens concerned."""

    version: int = 0


@dataclass(frozen=True, slots=True)
class LoggedIn(ClientEvent):
    """New tokens came from a login, or from ``import_tokens``."""


@dataclass(frozen=True, slots=True)
class LoggedOut(ClientEvent):
    """The session was logged out here. ``told_server``: whether the server confirmed the logout."""

    told_server: bool = False


@dataclass(frozen=True, slots=True)
class RefreshStarted(ClientEvent):
    """A refresh has begun. ``why``: the token is ``ageing`` or ``expired``, or a ``challenge`` rejected it."""

    why: RefreshReason = "expired"


@dataclass(frozen=True, slots=True)
class RefreshJoined(ClientEvent):
    """A request needs a refresh that is already under way."""


@dataclass(frozen=True, slots=True)
class TokensRefreshed(ClientEvent):
    """A refresh brought new tokens, now stored; ``tries`` counts the requests that it took."""

    tries: int = 1


@dataclass(frozen=True, slots=True)
class TokensAdopted(ClientEvent):
    """Another client of the same store had refreshed already; its tokens are used, and no request was sent."""


@dataclass(frozen=True, slots=True)
class RefreshFailed(ClientEvent):
    """A refresh failed with the code ``error``; the tokens are kept. No refresh is sent for ``retry_after`` seconds."""

    error: str = "try_later"
    retry_after: float = 0.0


@dataclass(frozen=True, slots=True)
class RefreshFinished(ClientEvent):
    """A refresh ended after ``seconds``, with this ``outcome``; ``over`` means that the session is over."""

    outcome: RefreshResult = "refreshed"
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class RequestWaited(ClientEvent):
    """A request waited ``seconds`` for a refresh, successful or not."""

    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class LateChallenge(ClientEvent):
    """A challenge rejected older tokens than the current ones, so that no refresh was needed."""


@dataclass(frozen=True, slots=True)
class RefreshStormStopped(ClientEvent):
    """A refresh was refused, because there were too many in a short time."""


@dataclass(frozen=True, slots=True)
class LateTokensDiscarded(ClientEvent):
    """New tokens arrived after a logout, another login, or newer tokens; they were not stored."""


@dataclass(frozen=True, slots=True)
class SessionEnded(ClientEvent):
    """The server ended the session, for ``reason``; emitted once."""

    reason: str = "invalid_grant"


@dataclass(frozen=True, slots=True)
class RequestReplayed(ClientEvent):
    """A challenged request is sent again with newer tokens. A refresh, if it took one, has emitted its own events."""


@dataclass(frozen=True, slots=True)
class RequestNotReplayed(ClientEvent):
    """A challenged request was not sent again, because ``why``; its caller got the response of the server."""

    why: str = ""
