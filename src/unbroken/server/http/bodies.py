"""The JSON bodies of the endpoints. The type checker holds the endpoints to them where they build a body themselves;
OpenAPI describes the endpoints by them; the contract tests compare both with what is sent.

1. A field that is ``NotRequired`` may be absent; in a request its default is empty or false.
2. What else a field must satisfy, and what it means, is a ``Constraint`` in its ``Annotated`` type.

This file has no ``from __future__ import annotations``: with it, ``NotRequired`` would not be seen at run time.
"""

from typing import Annotated, NamedTuple, NotRequired, TypedDict

from unbroken.server.core.session_info import MAX_LABEL_CHARS

__all__ = [
    "ClaimsBody",
    "CodeRequest",
    "ConfirmationBody",
    "Constraint",
    "CookieRefreshRequest",
    "CookieTokenBody",
    "ErrorBody",
    "HealthBody",
    "IntrospectionBody",
    "LoginRequest",
    "LogoutRequest",
    "MfaRequiredBody",
    "RefreshRequest",
    "RenameRequest",
    "RevocationBody",
    "RevocationsBody",
    "RevokedBody",
    "SessionBody",
    "SessionsBody",
    "TicketBody",
    "TokenBody",
]


class Constraint(NamedTuple):
    """What the type of a field does not say."""

    description: str | None = None
    max_length: int | None = None


# ---- requests --------------------------------------------------------------------------------------------------------


class LoginRequest(TypedDict):
    """The body of ``/login``."""

    username: str
    password: str
    scope: NotRequired[str | None]
    label: NotRequired[Annotated[str | None, Constraint("a name for this device")]]
    client_id: NotRequired[str | None]
    coordinated: NotRequired[Annotated[bool, Constraint("the client stores and shares its idempotency keys")]]
    device_token: NotRequired[Annotated[str | None, Constraint("what this client got with its last login")]]


class CodeRequest(TypedDict):
    """The body of ``/login/step``."""

    mfa_token: str
    code: str
    client_id: NotRequired[str | None]


class RefreshRequest(TypedDict):
    """The body of ``/refresh``."""

    refresh_token: str
    client_id: NotRequired[Annotated[str | None, Constraint("that of the login")]]


class CookieRefreshRequest(TypedDict):
    """The body of ``/refresh`` where a cookie may take the place of the token."""

    refresh_token: NotRequired[str | None]
    client_id: NotRequired[Annotated[str | None, Constraint("that of the login")]]


class LogoutRequest(TypedDict):
    """The body of ``/logout``."""

    refresh_token: NotRequired[str | None]


class RenameRequest(TypedDict):
    """The body that renames a session."""

    label: Annotated[str, Constraint(max_length=MAX_LABEL_CHARS)]


# ---- responses -------------------------------------------------------------------------------------------------------


class ErrorBody(TypedDict):
    """RFC 6749 §5.2. ``reason`` is more specific than ``error``."""

    error: str
    error_description: NotRequired[str]
    reason: NotRequired[str]


class MfaRequiredBody(ErrorBody):
    """The password is right, and a code is required: send ``mfa_token`` and the code to ``/login/step``."""

    mfa_token: str
    expires_in: int
    challenge_type: str
    hint: NotRequired[str]


class TokenBody(TypedDict):
    """RFC 6749 §5.1, and what a client needs to know to refresh."""

    access_token: str
    token_type: str
    expires_in: int
    refresh_token: str
    refresh_expires_in: int
    refresh_seq: int
    scope: NotRequired[str]
    device_token: NotRequired[Annotated[str, Constraint("of a login: for the next login of this client")]]


class CookieTokenBody(TypedDict):
    """A token response to a client with cookies, without the tokens that are in cookies."""

    access_token: NotRequired[str]
    token_type: NotRequired[str]
    expires_in: int
    refresh_expires_in: int
    refresh_seq: int
    sid: str
    scope: NotRequired[str]


ConfirmationBody = TypedDict("ConfirmationBody", {"jkt": NotRequired[str], "x5t#S256": NotRequired[str]})
"""What a token is bound to: the thumbprint of a key (RFC 9449 §6.1), the hash of a certificate (RFC 8705 §3.1)."""


class ClaimsBody(TypedDict):
    """The claims of an access token. ``cnf``: what it is bound to."""

    sub: str
    sid: str
    client_id: str
    scope: str
    iss: str
    aud: str
    iat: int
    exp: int
    cnf: NotRequired[ConfirmationBody]


class IntrospectionBody(TypedDict):
    """RFC 7662 §2.2: ``active``, and for an active token its claims."""

    active: bool


class SessionBody(TypedDict):
    """One session of the caller."""

    sid: str
    label: str
    client_id: str
    created_at: float
    used_at: float
    current: bool


class SessionsBody(TypedDict):
    """The sessions of the caller."""

    sessions: list[SessionBody]
    next: NotRequired[Annotated[str, Constraint("there are more: the next page has ?cursor= and this")]]


class RevokedBody(TypedDict):
    """How many sessions were revoked."""

    revoked: int


class RevocationBody(TypedDict):
    """A revoked session, and the time until which its access tokens may live."""

    sid: str
    until: float


class RevocationsBody(TypedDict):
    """What was revoked after the cursor of the request."""

    cursor: int
    revoked: list[RevocationBody]


class TicketBody(TypedDict):
    """A ticket for one connection, as ``?ticket=`` in its URL."""

    ticket: str
    expires_in: int


class HealthBody(TypedDict):
    """Whether the server can work."""

    status: str
