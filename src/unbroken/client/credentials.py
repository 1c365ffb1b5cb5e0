"""Credentials that refresh a session whose server gives no refresh token, and that begin it.

1. They are asked for when they are needed, in the thread of the refresh, and kept nowhere: not in the store of the
   tokens, not in an error, a log or a repr.
2. They go to the token endpoint of the dialect alone, and along with no redirect.
3. Only a definite response refuses them. It ends the session (``wrong_credentials``, ``invalid_client`` and other words
   of the server); a function that has none left (None) ends it too (``no_credentials``). What one of them raises is for
   later, as is a server that does not respond.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from unbroken._arguments import checked_class
from unbroken._http import HttpRequest, HttpResponse, NotSent, ResponseLost
from unbroken.client.core.dialect import Dialect, MfaChallenge, _oauth_error
from unbroken.client.core.proof import PROOF_ERRORS
from unbroken.client.core.refresh_rules import GrantRejected, Indeterminate, RefreshOutcome
from unbroken.client.core.token_request import read_token_response, token_request
from unbroken.errors import BadResponse, ConfigurationError, InvalidRequest, LoginRefused, TryLater
from unbroken.tokens import TokenResponse

__all__ = ["ClientCredentials", "Credentials", "PasswordCredentials", "to_credentials", "use_credentials"]

MISSING = GrantRejected("no_credentials")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One use of credentials: the request, the texts that no error repeats; whether they are a name and a password."""

    request: HttpRequest
    secrets: tuple[str, ...] = field(default=(), repr=False)
    is_password: bool = False

    def read(self, dialect: Dialect, response: HttpResponse) -> TokenResponse | MfaChallenge:
        """Return what *response* says. Raise as ``read_token_response`` does."""
        if self.is_password:
            return dialect.read_login_response(response, secrets=self.secrets)
        return read_token_response(dialect, response, secrets=self.secrets)


@checked_class()
@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """The program logs in as itself, with the client id and secret of the dialect (RFC 6749 §4.4).

    *parameters* go along with each request (``{"audience": "api"}``).
    """

    scope: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)

    def _attempt(self, dialect: Dialect, _device_token: str) -> Attempt | None:
        """Return one use of them. Raise ConfigurationError for a dialect that is not one of OAuth 2.0."""
        values = {name: value for name, value in {"scope": self.scope, **self.parameters}.items() if value}
        return Attempt(token_request(dialect, "client_credentials", values), tuple(self.parameters.values()))


@checked_class()
@dataclass(frozen=True, slots=True)
class PasswordCredentials:
    """A user name, and a function that returns the password, or None if there is none (any more).

    *parameters* go along with each login (``{"label": "nightly"}``).
    """

    username: str
    password: Callable[[], str | None] = field(repr=False)
    parameters: Mapping[str, object] = field(default_factory=dict, repr=False)

    @classmethod
    def from_keyring(cls, service: str, username: str) -> PasswordCredentials:
        """Return those whose password the system's secret store keeps for *service* and *username*.

        Raise ConfigurationError without ``keyring``.
        """
        try:
            import keyring  # noqa: PLC0415  # an extra
        except ImportError:
            raise ConfigurationError(
                "the system's secret store needs keyring: pip install 'unbroken[keyring]'"
            ) from None
        return cls(username, lambda: keyring.get_password(service, username))

    def _attempt(self, dialect: Dialect, device_token: str) -> Attempt | None:
        """Return one use of them; None without a password. Raise ConfigurationError if the dialect has no login."""
        password = self.password()
        if password is None:
            return None
        if not isinstance(password, str):
            raise ConfigurationError(f"the function of a password must return a text, not {type(password).__name__}")
        extra = {**({"device_token": device_token} if device_token else {}), **self.parameters}
        secrets = (password, *(value for value in extra.values() if isinstance(value, str)))
        return Attempt(dialect.login_request(self.username, password, extra), secrets, is_password=True)


Credentials = ClientCredentials | PasswordCredentials


def to_credentials(given: object) -> Credentials | None:
    """Return *given* if a session can use it. Raise ConfigurationError."""
    if given is None or isinstance(given, ClientCredentials | PasswordCredentials):
        return given
    raise ConfigurationError(
        "credentials must be ClientCredentials(scope=…), PasswordCredentials(name, function) or None, "
        f"not {type(given).__name__}"
    )


def use_credentials(
    credentials: Credentials, dialect: Dialect, device_token: str, send: Callable[[HttpRequest], HttpResponse]
) -> RefreshOutcome:
    """Return what a login with *credentials* brings (rule 3). Raise ConfigurationError for a dialect without one."""
    try:
        attempt = credentials._attempt(dialect, device_token)
    except ConfigurationError:
        raise
    except Exception as error:  # noqa: BLE001  # a function of the user's may raise anything
        return Indeterminate(f"the credentials cannot be had: {type(error).__name__}", cause=error, may_retry=False)
    if attempt is None:
        return MISSING
    try:
        return _read(attempt, dialect, send(attempt.request))
    except NotSent as error:
        return Indeterminate(str(error), cause=error)
    except ResponseLost as error:
        return Indeterminate(str(error), lost=True, cause=error)
    except Exception as error:  # noqa: BLE001  # so may a sender
        return Indeterminate(f"the login failed: {type(error).__name__}", lost=True, cause=error)


def _read(attempt: Attempt, dialect: Dialect, response: HttpResponse) -> RefreshOutcome:
    try:
        result = attempt.read(dialect, response)
    except LoginRefused as error:
        return GrantRejected("wrong_credentials" if attempt.is_password else error.reason, str(error))
    except TryLater as error:
        return Indeterminate(str(error), response.status in (502, 504), error.retry_after)
    except BadResponse as error:
        return Indeterminate(str(error), cause=error, may_retry=False)
    except ConfigurationError as error:  # the server does not know this client, or its secret
        if _oauth_error(response) in PROOF_ERRORS:
            return Indeterminate(str(error), cause=error, may_retry=False)
        return GrantRejected(_oauth_error(response) or "invalid_client", str(error))
    except InvalidRequest as error:  # perhaps not even the server's response
        return Indeterminate(str(error), may_retry=False)
    if isinstance(result, MfaChallenge):
        return GrantRejected("mfa_required")
    return result
