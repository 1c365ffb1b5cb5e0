"""Every error of unbroken, in one tree.

    UnbrokenError
    ├── SessionOver            session_over        log in again; ``reason`` says why
    ├── TryLater               try_later           nothing is lost; retry in ``retry_after`` seconds
    │   ├── StoreUnavailable   store_unavailable   the store or its lock cannot be reached, read or written
    │   ├── StoreBusy          store_busy          another process has held the lock for too long
    │   ├── RefreshStorm       renewal_storm       too many refreshes in a short time: new tokens are rejected
    │   └── TooManyAttempts    too_many_attempts   too many wrong passwords or codes
    ├── NotReplayable          not_replayable      the body of the request is spent and cannot be sent again
    ├── Refused                                    the server refused this request
    │   ├── LoginRefused       access_denied       wrong name or password
    │   ├── InvalidGrant       invalid_grant       the refresh token is rejected (RFC 6749 §5.2); ``reason`` says why
    │   ├── InvalidToken       invalid_token       the access token is rejected (RFC 6750 §3.1); ``reason`` says why
    │   ├── InvalidProof       invalid_dpop_proof  the proof of the client's key is rejected (RFC 9449 §5); ``reason``
    │   │   └── NonceRequired  use_dpop_nonce      the proof needs the server's newest nonce (RFC 9449 §8 and §9)
    │   ├── InvalidScope       invalid_scope       more scope was requested than the session has (RFC 6749 §5.2)
    │   └── InvalidRequest     invalid_request     the request cannot be understood
    └── ConfigurationError     misconfigured       this program, or the server that it uses, is set up wrongly
        └── BadResponse        bad_answer          the response is not what the dialect describes; names the field

1. ``code`` is stable: programs compare it, people read the message.
2. No message, argument or attribute holds a token, a password or a key.
3. An error that has a cause is raised ``from`` it.
"""

from __future__ import annotations

from typing import ClassVar, Self

__all__ = [
    "BadResponse",
    "ConfigurationError",
    "InvalidGrant",
    "InvalidProof",
    "InvalidRequest",
    "InvalidScope",
    "InvalidToken",
    "LoginRefused",
    "NonceRequired",
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
        """Return an equal error. Each waiter gets its own, because raising one changes its traceback."""
        twin = type(self).__new__(type(self), *self.args)
        twin.__dict__.update(self.__dict__)
        twin.args, twin.__cause__ = self.args, self.__cause__
        return twin

    def __reduce__(self) -> tuple[object, ...]:
        # The arguments of a constructor are not those of Exception, which pickle would pass to it.
        return (_rebuild, (type(self), self.args, dict(self.__dict__)))


def _rebuild(kind: type[UnbrokenError], args: tuple[object, ...], state: dict[str, object]) -> UnbrokenError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


SESSION_OVER_MESSAGES = {
    "not_logged_in": "no one is logged in",
    "wrong_key": "the session is bound to another key than this client has",
    "not_bound": "the session is bound to no key, and it must be",
    "logged_out": "the session was logged out",
    "other_login": "another login has replaced this session",
    "expired": "the session has expired",
    "revoked": "the session was revoked",
    "limit": "a newer login has ended the session: there are too many of them",
    "reuse": "the refresh token was used twice: it may have been stolen, so the session was revoked",
    "invalid_grant": "the server no longer accepts the refresh token",
    "no_refresh_token": "the access token has expired and there is no refresh token",
    "wrong_credentials": "the server does not accept the credentials",
    "invalid_client": "the server does not accept this client, or its secret",
    "no_credentials": "there are no credentials any more",
    "mfa_required": "the server wants a code too, which the credentials do not have",
}


class SessionOver(UnbrokenError):
    """The session is definitely over: only a new login helps.

    ``reason`` is one of ``not_logged_in``, ``logged_out``, ``other_login``, ``expired``, ``revoked``, ``limit``,
    ``reuse``, ``invalid_grant``, ``no_refresh_token``, ``wrong_key``, ``not_bound``, or another word that the server
    sent; where credentials log in, also ``wrong_credentials``, ``invalid_client``, ``no_credentials``,
    ``mfa_required``. *why* says more in words.
    """

    code = "session_over"

    def __init__(self, reason: str, why: str = "") -> None:
        self.reason = reason
        message = SESSION_OVER_MESSAGES.get(reason, f"the session is over ({reason})")
        super().__init__(f"{message}; log in again" + (f" ({why})" if why else ""))


class TryLater(UnbrokenError):
    """It does not work now, and nothing is lost: the tokens are kept. Retry in ``retry_after`` seconds."""

    code = "try_later"

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class StoreUnavailable(TryLater):
    """The store, or its lock, cannot be reached, read or written."""

    code = "store_unavailable"


class StoreBusy(TryLater):
    """The store responds, but another process has held the lock for too long."""

    code = "store_busy"


class RefreshStorm(TryLater):
    """Too many refreshes in a short time: new tokens are rejected at once, so another refresh does not help."""

    code = "renewal_storm"


class TooManyAttempts(TryLater):
    """Too many wrong passwords or codes for this account or from this address: this one was not checked."""

    code = "too_many_attempts"


class NotReplayable(UnbrokenError):
    """The server rejected the access token of a request whose body can be sent only once.

    Or it asked for another proof of the client's key. The response of the server was returned. ``refreshed``: the
    program can make the request anew, because the session has newer tokens, or knows what to prove. *then* is what the
    message ends with.
    """

    code = "not_replayable"

    def __init__(self, why: str, *, refreshed: bool = True, then: str = "") -> None:
        self.refreshed = refreshed
        failed = "and the session could not be refreshed now"
        then = then or ("the session was refreshed, make it anew" if refreshed else failed)
        super().__init__(f"the request was not sent again: {why}; {then}")


class Refused(UnbrokenError):
    """The server refused the request; ``reason`` is a word for programs, more exact than ``code``."""

    def __init__(self, message: str, *, reason: str = "") -> None:
        self.reason = reason or self.code
        super().__init__(message)


class LoginRefused(Refused):
    """The name or the password is wrong; the error does not say which."""

    code = "access_denied"


class InvalidGrant(Refused):
    """The server rejects the refresh token (RFC 6749 §5.2): the session that it names is over.

    ``reason``: ``malformed`` (not a token of this server), ``unknown``, ``expired``, ``revoked``, ``logged_out``,
    ``reuse``, ``wrong_client``, ``wrong_audience``, ``wrong_key`` (the session is bound to another key than the one
    that was proven), ``not_bound`` (this client's sessions must be bound to a key, and this one is not).
    """

    code = "invalid_grant"


class InvalidToken(Refused):
    """The server rejects the access token (RFC 6750 §3.1).

    ``reason``: ``missing``, ``malformed``, ``expired``, ``revoked``, or ``used`` (a ticket that was redeemed before);
    ``bound`` (a token that is bound to a key came without a proof), ``not_bound`` (a proof came with a token that is
    bound to no key), ``wrong_key`` (the token is bound to another key). ``scheme`` is that of the challenge.
    """

    code = "invalid_token"
    scheme: str = "Bearer"


class InvalidProof(Refused):
    """The server rejects the proof that the client has its key (RFC 9449 §4.3). The session lives on.

    ``reason``: ``missing``, ``malformed``, ``algorithm``, ``private_key``, ``signature``, ``method``, ``url``,
    ``access_token``, ``too_old``, ``too_new``, ``replayed``, ``wrong_key``. ``at_resource``: it came with an access
    token.
    """

    code = "invalid_dpop_proof"
    at_resource: bool = False


class NonceRequired(InvalidProof):
    """The proof needs the server's nonce, which ``nonce`` is: sign another proof with it (RFC 9449 §8 and §9)."""

    code = "use_dpop_nonce"

    def __init__(self, nonce: str) -> None:
        super().__init__("sign a proof with the nonce of this response", reason="nonce")
        self.nonce = nonce


class InvalidScope(Refused):
    """The requested scope exceeds that of the session (RFC 6749 §5.2 and §6)."""

    code = "invalid_scope"


class InvalidRequest(Refused):
    """The request lacks a parameter, repeats one, or cannot be parsed (RFC 6749 §5.2)."""

    code = "invalid_request"


class ConfigurationError(UnbrokenError):
    """Something is set up wrongly; the message says what to change."""

    code = "misconfigured"


class BadResponse(ConfigurationError):
    """The response is not what the dialect describes; ``field`` is what was missing or wrong."""

    code = "bad_answer"

    def __init__(self, message: str, *, field: str = "") -> None:
        self.field = field
        super().__init__(message)
