"""Django's requests and responses as the values of the endpoints, and back. It decides nothing."""

from __future__ import annotations

from http.cookies import SimpleCookie
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse
from django.http.request import UnreadablePostError

from unbroken.server.core.proof import raw_path_of
from unbroken.server.http.messages import MAX_BODY_BYTES, Request, Response

__all__ = ["add_cookie", "to_request", "to_request_with_body", "to_response"]

SPENT_PROOFS = "_unbroken_spent_proofs"  # attribute of a request


def to_request(request: HttpRequest, body: bytes = b"") -> Request:
    """Return *request* as a value with this *body*. The address of the client is that of the connection."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    scope = getattr(request, "scope", None)
    if scope and "cookie" in headers:  # HTTP/2 may split the header, and Django joins the parts by commas
        headers["cookie"] = "; ".join(value.decode("latin-1") for name, value in scope["headers"] if name == b"cookie")
    ip, query = request.META.get("REMOTE_ADDR", ""), request.META.get("QUERY_STRING", "")
    spent = vars(request).setdefault(SPENT_PROOFS, set())
    raw = _raw_path(request) if "dpop" in headers else ""  # only a proof needs it
    return Request(request.method or "", request.path, headers, body, ip, query, raw, spent)


def _raw_path(request: HttpRequest) -> str:
    """Return the path as the client has sent it; empty where the server does not tell it."""
    scope: dict[str, Any] = getattr(request, "scope", {})
    target = scope.get("raw_path") or request.META.get("RAW_URI") or request.META.get("REQUEST_URI") or ""
    return raw_path_of(target.decode("latin-1") if isinstance(target, bytes) else str(target), request.path)


def to_request_with_body(request: HttpRequest) -> Request | None:
    """Return *request* with its body, or with the first bytes of one that is too long; None if the client is gone."""
    try:
        length = int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        length = 0
    try:  # ``request.body`` keeps a small body for other readers, such as a middleware that logs
        body = request.body if 0 < length <= MAX_BODY_BYTES else request.read(MAX_BODY_BYTES + 1)
    except UnreadablePostError:
        return None
    except RequestDataTooBig:  # the project may set a smaller limit
        body = bytes(MAX_BODY_BYTES + 1)
    return to_request(request, body)


def to_response(value: Response) -> HttpResponse:
    """Return *value* as Django's response."""
    response = HttpResponse(value.body, status=value.status)
    del response["content-type"]
    for name, text in value.headers.items():
        response[name] = text
    for cookie in value.cookies:
        add_cookie(response, cookie)
    return response


def add_cookie(response: HttpResponse, header: str) -> None:
    """Add a ``Set-Cookie``. Django keeps cookies by name, and ours may have one name and two paths."""
    for name, morsel in SimpleCookie(header).items():
        dict.__setitem__(response.cookies, f"{name};{morsel['path']}", morsel)
