"""The device flow: a code that a person enters on another device (RFC 8628). Pure.

1. The interval of the server is kept, and grows by five seconds with each ``slow_down`` (§3.5), or to what the server
   says with it. A request without a response doubles it.
2. ``authorization_pending`` and ``slow_down`` count under any status, 200 included.
3. What the user sees is short, has no control characters, and leads to https only, unless this server itself is used
   without.
4. The server is asked no longer than the code lives.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from unbroken._http import HttpRequest, HttpResponse, is_safe_in_header, is_secure, origin_of
from unbroken.client.core.dialect import Dialect, _oauth_error, _readable
from unbroken.client.core.token_request import error_of, login_endpoints, read_token_response, token_request
from unbroken.errors import BadResponse, ConfigurationError
from unbroken.tokens import TokenResponse, number_field, value_at

__all__ = ["DeviceCode", "device_code_request", "poll_request", "read_device_code", "read_poll", "slower"]

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"
DEFAULT_INTERVAL_SECONDS = 5.0
MAX_INTERVAL_SECONDS = 60.0
MIN_INTERVAL_SECONDS = 1.0
SLOW_DOWN_SECONDS = 5.0
DEFAULT_CODE_SECONDS = 600.0  # the server must state it; some do not
MAX_CODE_SECONDS = 3600.0
MAX_USER_CODE_CHARS = 64


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """What the user does: open ``verification_uri`` on any device, and enter ``user_code``.

    ``verification_uri_complete`` has the code in it, for a picture to scan; empty if the server has none. The code
    lives for ``expires_in`` seconds; ``interval`` is how often the server may be asked, in seconds.
    """

    user_code: str
    verification_uri: str
    verification_uri_complete: str = ""
    expires_in: float = DEFAULT_CODE_SECONDS
    interval: float = DEFAULT_INTERVAL_SECONDS
    device_code: str = field(default="", repr=False)


def device_code_request(dialect: Dialect, scope: str) -> HttpRequest:
    """Return the device authorization request (§3.1). Raise ConfigurationError if there is no endpoint for it."""
    endpoints = login_endpoints(dialect)
    if not endpoints.device_authorization_endpoint or dialect.login is None:
        raise ConfigurationError("this server has no device authorization endpoint: log in with a browser instead")
    if not endpoints.client_id:
        raise ConfigurationError("a login with a code needs the client_id that the server has given to this program")
    extra = {name: value for name, value in dialect.login.extra.items() if name != "grant_type"}
    extra |= {"client_id": endpoints.client_id}
    template = replace(dialect.login, url=endpoints.device_authorization_endpoint, extra=extra)
    wanted = endpoints.scope_with(scope)
    return template.build({"scope": wanted} if wanted else {})


def read_device_code(dialect: Dialect, response: HttpResponse) -> DeviceCode:
    """Return the code in *response* to a device authorization request. Raise as ``read_token_response`` does."""
    body = response.parsed()
    allow_plain_http = login_endpoints(dialect).device_authorization_endpoint.startswith(
        "http:"
    )  # the session allows it
    device_code, user_code = value_at(body, "device_code"), value_at(body, "user_code")
    if _oauth_error(response) or not 200 <= response.status < 300:
        raise error_of(response)
    if not isinstance(body, dict) or not isinstance(device_code, str) or not is_safe_in_header(device_code):
        raise BadResponse("the response of the server has no device code", field="device_code")
    if not isinstance(user_code, str) or not user_code or len(user_code) > MAX_USER_CODE_CHARS:
        raise BadResponse("the response of the server has no code for the user", field="user_code")
    uri = body.get("verification_uri") or body.get("verification_url")  # Google
    return DeviceCode(
        user_code=_readable(user_code),
        verification_uri=_url(uri, "verification_uri", allow_plain_http),
        verification_uri_complete=_complete(body, allow_plain_http),
        expires_in=min(_seconds(body, "expires_in", DEFAULT_CODE_SECONDS), MAX_CODE_SECONDS),
        interval=_bounded(_seconds(body, "interval", DEFAULT_INTERVAL_SECONDS)),
        device_code=device_code,
    )


def poll_request(dialect: Dialect, code: DeviceCode) -> HttpRequest:
    """Return the token request that asks whether the user has entered the code (§3.4)."""
    return token_request(dialect, GRANT_TYPE, {"device_code": code.device_code})


def read_poll(dialect: Dialect, response: HttpResponse, code: DeviceCode, interval: float) -> TokenResponse | float:
    """Return the tokens, or the seconds to wait before the next request; *interval* is what was waited before this one.

    Raise LoginRefused if the user has denied the login or the code has expired, or as ``read_token_response`` does.
    """
    error = _oauth_error(response)
    if error == "authorization_pending":  # rule 2
        return interval
    if error == "slow_down":
        said = _seconds(response.parsed(), "interval", 0.0)
        return _bounded(max(interval + SLOW_DOWN_SECONDS, said))  # rule 1
    if not error and (response.status == 429 or response.status >= 500):
        return slower(interval)
    return read_token_response(dialect, response, secrets=(code.device_code,))


def slower(interval: float) -> float:
    """Return the interval after a request without a response (rule 1)."""
    return _bounded(2 * interval)


def _bounded(seconds: float) -> float:
    return min(max(seconds, MIN_INTERVAL_SECONDS), MAX_INTERVAL_SECONDS)


def _seconds(body: object, name: str, default: float) -> float:
    try:
        return (number_field(body, name) if isinstance(body, dict) else None) or default
    except BadResponse:
        return default


def _complete(body: dict[str, object], allow_plain_http: bool) -> str:
    """Return the URL with the code in it; empty text for one that cannot be used, because the other one can."""
    try:
        return _url(body.get("verification_uri_complete"), "", allow_plain_http)
    except BadResponse:
        return ""


def _url(value: object, name: str, allow_plain_http: bool) -> str:
    """Return *value*. Raise BadResponse if it is not safe to open (rule 3)."""
    try:
        if isinstance(value, str) and value.isprintable() and (is_secure(origin_of(value)) or allow_plain_http):
            return value
    except ConfigurationError:
        pass
    raise BadResponse("the server names no page, with https, where the user enters the code", field=name)
