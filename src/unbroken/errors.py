"""Every error of unbroken, in one tree.

    UnbrokenError
    ├── SessionOver            session_over        log in again; ``reason`` says why
    ├── TryLater               try_later           nothing is lost; ask again in ``retry_after`` seconds
    │   ├── StoreUnavailable   store_unavailable   the token store or its lock does not answer
    │   ├── StoreBusy          store_busy          somebody else holds the renewal lock for too long
    │   ├── RefreshStorm       renewal_storm       too many renewals in a short time: something rejects good tokens
    │   └── TooManyAttempts    too_many_attempts   too many wrong passwords or codes: wait before the next
    ├── NotReplayable          not_replayable      the request's body is spent and cannot be sent again
    ├── Refused                                    the server said no to this request
    │   ├── LoginRefused       access_denied       wrong name or password
    │   ├── InvalidGrant       invalid_grant       the refresh token is no good (RFC 6749 §5.2); ``reason`` says why
    │   ├── InvalidToken       invalid_token       the access token is no good (RFC 6750 §3.1); ``reason`` says why
    │   ├── InvalidScope       invalid_scope       more scope asked for than the session has (RFC 6749 §5.2)
    │   └── InvalidRequest     invalid_request     the request cannot be understood
    └── ConfigurationError     misconfigured       this program, or the server it talks to, is set up wrongly
        └── BadResponse          bad_answer          the answer is not what the dialect describes; names the field

Rules of this file:

1. ``code`` is stable: programs may compare it, messages are for people.
2. No message, argument or attribute ever holds a token, a password or a key.
3. An error that has a cause is raised ``from`` it.
"""

from __future__ import annotations

from typing import ClassVar, Self

__all__ = [
    "BadResponse",
    "ConfigurationError",
    "InvalidGrant",
    "InvalidRequest",
    "InvalidScope",
    "InvalidToken",
    "LoginRefused",
    "NotReplayable",
    "RefreshStorm",
    "Refused",
    "SessionOver",
    "StoreBusy",
    "StoreUnavailable",
    "TooManyAttempts",
    "TryLater",
    "UnbrokenError",
]


class UnbrokenError(Exception):
    """Any error of this library; ``code`` is a stable word for programs."""

    code: ClassVar[str] = "unbroken"

    def copy(self) -> Self:
        """The same error as a new object, for another waiter: a raised one belongs to whoever caught it."""
        twin = type(self).__new__(type(self), *self.args)
        twin.__dict__.update(self.__dict__)
        twin.args, twin.__cause__ = self.args, self.__cause__
        return twin

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.args, dict(self.__dict__)))


def _rebuild(kind: type[UnbrokenError], args: tuple[object, ...], state: dict[str, object]) -> UnbrokenError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


SESSION_OVER_MESSAGES = {
    "not_logged_in": "nobody is logged in",
    "logged_out": "the session was logged out",
    "other_login": "another login has replaced this session",
    "expired": "the session has expired",
    "revoked": "the session was revoked",
    "reuse": "the refresh token was used twice: it may have been stolen, so the session was ended",
    "invalid_grant": "the server no longer accepts the refresh token",
    "no_refresh_token": "the access token has expired and there is no refresh token",
}


class SessionOver(UnbrokenError):
    """The session is definitely over: only a new login helps.

    ``reason`` is one of ``not_logged_in``, ``logged_out``, ``other_login``, ``expired``, ``revoked``, ``reuse``,
    ``invalid_grant``, ``no_refresh_token``, or another word the server sent.
    """

    code = "session_over"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{SESSION_OVER_MESSAGES.get(reason, f'the session has ended ({reason})')}; log in again")


class TryLater(UnbrokenError):
    """Renewal did not work now, nothing is lost: the tokens are kept. Ask again in ``retry_after`` seconds."""

    code = "try_later"

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class StoreUnavailable(TryLater):
    """The token store, or the lock beside it, cannot be reached, read or written."""

    code = "store_unavailable"


class StoreBusy(TryLater):
    """The store answers, but somebody else has held the renewal lock for too long."""

    code = "store_busy"


class RefreshStorm(TryLater):
    """Too many renewals in a short time: good new tokens are rejected at once, so renewing does not help."""

    code = "renewal_storm"


class TooManyAttempts(TryLater):
    """Too many passwords or codes were wrong, for this account or from this address: nothing was looked at."""

    code = "too_many_attempts"


class NotReplayable(UnbrokenError):
    """The request's body could be sent only once and was sent with a token the server refused.

    The server's own answer was returned. ``renewed``: the session has new tokens, and the request can be made anew.
    """

    code = "not_replayable"

    def __init__(self, why: str, *, renewed: bool = True) -> None:
        self.renewed = renewed
        then = "the session is renewed, send it anew" if renewed else "and the session could not be renewed now"
        super().__init__(f"the request was not sent again: {why}; {then}")


class Refused(UnbrokenError):
    """The server said no; ``reason`` is a word for programs, more exact than ``code``."""

    def __init__(self, message: str, *, reason: str = "") -> None:
        self.reason = reason or self.code
        super().__init__(message)


class LoginRefused(Refused):
    """The name or the password is wrong (never says which)."""

    code = "access_denied"


class InvalidGrant(Refused):
    """The refresh token cannot be exchanged (RFC 6749 §5.2): the session it names is over.

    ``reason``: ``malformed`` (not a token of this server), ``unknown``, ``expired``, ``revoked``, ``logged_out``,
    ``reuse``, ``wrong_client``.
    """

    code = "invalid_grant"


class InvalidToken(Refused):
    """The access token is no good (RFC 6750 §3.1). ``reason``: ``malformed``, ``expired``, ``revoked``,
    ``missing`` (there was none), or ``used`` (a ticket, before).
    """

    code = "invalid_token"


class InvalidScope(Refused):
    """The scope asked for is more than the session has (RFC 6749 §5.2 and §6)."""

    code = "invalid_scope"


class InvalidRequest(Refused):
    """The request lacks a field, repeats one, or cannot be parsed (RFC 6749 §5.2)."""

    code = "invalid_request"


class ConfigurationError(UnbrokenError):
    """Something is set up wrongly; the message says what to change."""

    code = "misconfigured"


class BadResponse(ConfigurationError):
    """The server answered something the dialect does not describe; ``field`` is what was missing or wrong."""

    code = "bad_answer"

    def __init__(self, message: str, *, field: str = "") -> None:
        self.field = field
        super().__init__(message)
