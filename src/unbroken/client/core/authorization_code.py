"""The authorization code flow of a program on the user's machine: RFC 6749 §4.1, 7636 (PKCE), 8252, 9207. Pure.

1. Each login has a ``state`` and a code verifier of its own. A redirect with another state, or with none, is
   ignored, because any web page can send one to a port of this machine.
2. The code challenge is always S256 (RFC 7636 §4.2): a stolen or injected code is worth nothing.
3. A redirect that names another issuer than the one that was asked is refused, and so is one that names none where the
   server has promised to (RFC 9207 §2.4): its code would go to the wrong server.
4. A parameter that occurs twice makes the redirect invalid (RFC 6749 §3.1).
5. No error has a code, a state or a verifier in it.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from hmac import compare_digest
from urllib.parse import parse_qsl, urlencode

from unbroken._http import HttpRequest, is_safe_in_header
from unbroken.client.core.dialect import Dialect, _is_word, _readable
from unbroken.client.core.token_request import login_endpoints, refusal, token_request
from unbroken.errors import ConfigurationError, LoginRefused

__all__ = ["AuthorizationRequest", "authorization_request", "code_of_redirect", "code_request"]

MAX_PARAMETERS = 50  # of a redirect
MAX_CODE_CHARS = 8192
OWN_PARAMETERS = frozenset({
    "response_type", "client_id", "redirect_uri", "state", "code_challenge", "code_challenge_method",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """One login that has begun: the URL that the user opens, and what its redirect is checked with."""

    url: str = field(repr=False)
    redirect_uri: str
    state: str = field(repr=False)
    code_verifier: str = field(repr=False)


def authorization_request(
    dialect: Dialect,
    *,
    redirect_uri: str,
    state: str,
    code_verifier: str,
    scope: str = "",
    parameters: Mapping[str, str] | None = None,
) -> AuthorizationRequest:
    """Return the login at *dialect* whose redirect goes to *redirect_uri*. *parameters* go along with its URL.

    *state* and *code_verifier* are random, of at least 128 and 256 bits. Raise ConfigurationError if the dialect has no
    authorization endpoint, or *parameters* has one of the flow's own.
    """
    endpoints, given = login_endpoints(dialect), dict(parameters or {})
    if not endpoints.authorization_endpoint:
        raise ConfigurationError("this server has no authorization endpoint: it has no login with a browser")
    if not endpoints.client_id:
        raise ConfigurationError("a login with a browser needs the client_id that the server has given to this program")
    if own := sorted(OWN_PARAMETERS & given.keys()):
        raise ConfigurationError(f"a login sets {', '.join(own)} by itself")
    asked = {
        "response_type": "code",
        "client_id": endpoints.client_id,
        "redirect_uri": redirect_uri,
        "scope": endpoints.scope_with(scope),
        "state": state,  # rule 1
        "code_challenge": code_challenge(code_verifier),  # rule 2
        "code_challenge_method": "S256",
        **_resource(dialect),
        **endpoints.authorization_parameters,
        **given,
    }
    separator = "&" if "?" in endpoints.authorization_endpoint else "?"
    query = urlencode({name: value for name, value in asked.items() if value})
    return AuthorizationRequest(
        endpoints.authorization_endpoint + separator + query, redirect_uri, state, code_verifier
    )


def code_challenge(code_verifier: str) -> str:
    """Return the S256 code challenge of *code_verifier* (RFC 7636 §4.2)."""
    return urlsafe_b64encode(sha256(code_verifier.encode()).digest()).decode().rstrip("=")


def _resource(dialect: Dialect) -> dict[str, str]:
    """Return the audience of the tokens (RFC 8707), which each request of the dialect carries."""
    resource = dialect.login.extra.get("resource", "") if dialect.login else ""
    return {"resource": str(resource)} if resource else {}


def code_of_redirect(dialect: Dialect, request: AuthorizationRequest, query: str) -> str | None:
    """Return the code in the *query* of a redirect; None for one that does not belong to *request* (rule 1).

    Raise LoginRefused, TryLater, InvalidRequest or ConfigurationError for one that does, without a usable code.
    """
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_PARAMETERS, errors="replace")
    except ValueError:
        return None
    found = dict(pairs)
    if not compare_digest(found.get("state", "").encode(), request.state.encode()):
        return None
    if len(found) != len(pairs):  # rule 4
        raise LoginRefused("the redirect of the login repeats a parameter", reason="invalid_redirect")
    _check_issuer(dialect, found.get("iss"))
    if "error" in found:
        error = found["error"] if _is_word(found["error"]) else "unknown"
        raise refusal(error, ": ".join(filter(None, (error, _readable(found.get("error_description", ""))))))
    code = found.get("code", "")
    if not code or len(code) > MAX_CODE_CHARS or not is_safe_in_header(code):
        raise LoginRefused("the redirect of the login has no code", reason="invalid_redirect")
    return code


def _check_issuer(dialect: Dialect, issuer: str | None) -> None:
    """Raise LoginRefused if a redirect with *issuer* comes from another server (rule 3)."""
    endpoints = login_endpoints(dialect)
    if issuer is None and endpoints.returns_issuer:
        raise LoginRefused("the redirect does not say which server it comes from", reason="wrong_issuer")
    if issuer is not None and endpoints.issuer and issuer != endpoints.issuer:
        raise LoginRefused(
            f"the redirect comes from {_readable(issuer)}, not from {endpoints.issuer}: the code was sent to neither",
            reason="wrong_issuer",
        )


def code_request(dialect: Dialect, request: AuthorizationRequest, code: str) -> HttpRequest:
    """Return the token request for *code* (RFC 6749 §4.1.3, RFC 7636 §4.5)."""
    values = {"code": code, "redirect_uri": request.redirect_uri, "code_verifier": request.code_verifier}
    return token_request(dialect, "authorization_code", values)
