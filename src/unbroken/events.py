"""The events of a client session, which ``on_event`` and ``Session.add_listener`` get; see docs/observability.md."""

from unbroken.client.core.events import (
    ClientEvent,
    LateChallenge,
    LateTokensDiscarded,
    LoggedIn,
    LoggedOut,
    RefreshFailed,
    RefreshFinished,
    RefreshJoined,
    RefreshStarted,
    RefreshStormStopped,
    RequestNotReplayed,
    RequestReplayed,
    RequestWaited,
    SessionEnded,
    TokensAdopted,
    TokensRefreshed,
)

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
