"""Django's requests and responses as the values that the endpoints know, and who sends a request. No decisions."""

from __future__ import annotations

from http.cookies import SimpleCookie
from typing import cast

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse
from django.http.request import UnreadablePostError

from unbroken._sync import run_sync
from unbroken.django.runtime import runtime
from unbroken.errors import ConfigurationError, Refused, TryLater
from unbroken.server.http.messages import MAX_BODY_BYTES, Request, Response, challenge, error_response
from unbroken.server.keys.access_token import Claims

__all__ = ["claims_or_refusal", "find", "require_scope", "to_request", "to_request_with_body", "to_response"]

FOUND = "_unbroken_found"  # on a request: Claims, the Response that refuses it, or None without a token


def to_request(request: HttpRequest, body: bytes = b"") -> Request:
    """*request* with this *body*. The client's address is the connection's."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    if "cookie" in headers and (
        scope := getattr(request, "scope", None)
    ):  # HTTP/2 may split it; Django joins by commas
        headers["cookie"] = "; ".join(value.decode("latin-1") for name, value in scope["headers"] if name == b"cookie")
    ip, query = request.META.get("REMOTE_ADDR", ""), request.META.get("QUERY_STRING", "")
    return Request(request.method or "", request.path, headers, body, ip, query)


def to_request_with_body(request: HttpRequest) -> Request | None:
    """*request* with its body, or as much of it as is enough to be refused; None if the client has hung up."""
    try:
        length = int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        length = 0
    try:  # a small body is kept, for whoever looks at it later, such as a middleware that logs
        body = request.body if 0 < length <= MAX_BODY_BYTES else request.read(MAX_BODY_BYTES + 1)
    except UnreadablePostError:
        return None
    except RequestDataTooBig:  # for the project, which may set a smaller limit
        body = bytes(MAX_BODY_BYTES + 1)
    return to_request(request, body)


def to_response(value: Response) -> HttpResponse:
    """*value* as Django's response."""
    response = HttpResponse(value.body, status=value.status)
    del response["content-type"]
    for name, text in value.headers.items():
        response[name] = text
    for cookie in value.cookies:
        _add_cookie(response, cookie)
    return response


async def claims_or_refusal(request: HttpRequest) -> Claims | Response | None:
    """Who sends *request*, or the response that refuses it; None if it has no token. Looked at once."""
    if not hasattr(request, FOUND):
        setattr(request, FOUND, await _looked_at(request))
    return cast("Claims | Response | None", getattr(request, FOUND))


def find(request: HttpRequest) -> Claims | Response | None:
    """``found`` without an event loop."""
    return run_sync(claims_or_refusal(request))


def require_scope(who: Claims | Response | None, scope: str) -> Claims | Response:
    """*who* if it is a session with *scope*, the response that refuses it otherwise (RFC 6750 §3)."""
    if isinstance(who, Claims) and not who.has_scope(scope):
        return challenge(None, scope=scope)
    return challenge(None) if who is None else who


async def _looked_at(request: HttpRequest) -> Claims | Response | None:
    try:
        return await runtime().callers.claims(to_request(request))
    except (Refused, TryLater, ConfigurationError) as error:
        return error_response(error)


def _add_cookie(response: HttpResponse, header: str) -> None:
    """Adds a ``Set-Cookie``. Django keeps cookies by name; two of one name differ by their paths."""
    for name, morsel in SimpleCookie(header).items():
        dict.__setitem__(response.cookies, f"{name};{morsel['path']}", morsel)
