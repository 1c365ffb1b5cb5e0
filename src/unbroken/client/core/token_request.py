"""The request that turns a grant into tokens, and what its response means (RFC 6749 §4 and §5). Pure.

1. The client authenticates as it does at a refresh: the dialect knows how.
2. An error under any status is one, 200 included; its message has the server's own words, and none of our secrets.
3. What only the person can change is LoginRefused; what the program has wrong is ConfigurationError; the rest is for
   later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from unbroken._http import HttpRequest, HttpResponse, retry_after_seconds
from unbroken.client.core.dialect import (
    TEMPORARY_ERRORS,
    Dialect,
    _describe_error,
    _oauth_error,
    _readable,
    proof_refused,
    secrets_of,
)
from unbroken.client.core.login_endpoints import LoginEndpoints
from unbroken.client.core.proof import PROOF_ERRORS
from unbroken.errors import BadResponse, ConfigurationError, InvalidRequest, LoginRefused, TryLater, UnbrokenError
from unbroken.tokens import TokenResponse

__all__ = ["error_of", "login_endpoints", "read_token_response", "refusal", "token_request"]

REFUSED = {
    "access_denied": "the login was denied",
    "authorization_declined": "the login was denied",  # Microsoft
    "expired_token": "the code expired before it was entered",
    "invalid_grant": "the server did not accept the code",
    "bad_verification_code": "the server did not accept the code",  # GitHub, Microsoft
    "login_required": "the server wants the user to log in first",
    "consent_required": "the server wants the user to agree first",
    "interaction_required": "the server wants something of the user first",
}
MISCONFIGURED = frozenset({
    "invalid_client", "unauthorized_client", "unsupported_grant_type", "unsupported_response_type", "invalid_scope",
    "invalid_target",  # RFC 8707
    "incorrect_client_credentials", "redirect_uri_mismatch", "device_flow_disabled", "application_suspended",  # GitHub
})  # fmt: skip


def login_endpoints(dialect: Dialect) -> LoginEndpoints:
    """Return where a person logs in. Raise ConfigurationError if *dialect* does not say it."""
    if dialect.login_endpoints is None:
        raise ConfigurationError(
            "this dialect does not say where a person logs in: use oauth2.discover(issuer).dialect(client_id=…), "
            "or oauth2(token_endpoint, authorization_endpoint=…)"
        )
    return dialect.login_endpoints


def token_request(dialect: Dialect, grant_type: str, values: Mapping[str, object]) -> HttpRequest:
    """Return the token request with a grant of *grant_type* (rule 1). Raise ConfigurationError without an endpoint."""
    if dialect.login is None or "grant_type" not in dialect.login.extra:
        raise ConfigurationError("this dialect is not one of OAuth 2.0: it takes no grant but a name and a password")
    return replace(dialect.login, extra={**dialect.login.extra, "grant_type": grant_type}).build(values)


def read_token_response(dialect: Dialect, response: HttpResponse, *, secrets: tuple[str, ...] = ()) -> TokenResponse:
    """Return the tokens in *response* to a token request. No error repeats *secrets*.

    Raise LoginRefused, TryLater, InvalidRequest or ConfigurationError (BadResponse).
    """
    error = _oauth_error(response)
    if dialect.succeeded.matches(response):
        try:
            return TokenResponse.from_response(response.parsed(), dialect.tokens)
        except BadResponse:
            if not error:  # rule 2
                raise
    raise error_of(response, secrets + secrets_of(dialect.login))


def error_of(response: HttpResponse, secrets: tuple[str, ...] = ()) -> UnbrokenError:
    """Return what *response*, which has no tokens, means for a login (rule 3)."""
    error, said = _oauth_error(response), _describe_error(response, secrets)
    if response.status == 429 or response.status >= 500 or error in TEMPORARY_ERRORS:
        return TryLater(said, retry_after=retry_after_seconds(response))
    return proof_refused(said) if error in PROOF_ERRORS else refusal(error, said)


def refusal(error: str, said: str) -> UnbrokenError:
    """Return the exception for the OAuth *error*; *said* is what the server told, in words."""
    if error in TEMPORARY_ERRORS:
        return TryLater(f"the server cannot log users in now: {_readable(said)}")
    if error in REFUSED:
        return LoginRefused(f"{REFUSED[error]} ({_readable(said)})", reason=error)
    if error in MISCONFIGURED:
        return ConfigurationError(f"the server does not let this client log in like that: {_readable(said)}")
    return InvalidRequest(f"the server did not understand the login: {_readable(said)}")
