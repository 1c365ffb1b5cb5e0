"""The endpoints of the server: their requests, their responses, and their statuses.

Bodies are those of ``server/http/bodies.py``; statuses and headers are those that FastAPI's OpenAPI document has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, NotRequired, get_args, get_origin, get_type_hints, is_typeddict

from scripts.reference.markdown import NOTE, cell, code, prose, table
from unbroken._openapi import (
    EMPTY,
    FORMS,
    MEDIA_TYPES,
    REQUESTS,
    RESPONSES,
    SCOPED,
    needs_access_token,
    route_description,
)
from unbroken.server import Cookies, Endpoints, MemorySessionStore, Sessions
from unbroken.server.http import bodies
from unbroken.server.http.messages import Route

__all__ = ["page"]

INTRODUCTION = """Each endpoint with what it takes and gives. The paths begin with the [prefix](settings.md#endpoints),
`/auth`; those below `/.well-known` do not. `openapi.json` of a FastAPI application has the same for programs.

An access token is sent as `Authorization: Bearer …`, in a [cookie](../cookies.md), or as `Authorization: DPoP …` with a
[proof](../bound-sessions.md). What a status means beyond this page, and every `reason`, is in
[the index of errors](errors.md#http)."""
BODIES = ("ErrorBody", "MfaRequiredBody", "CookieTokenBody", "ConfirmationBody", "RevocationBody", "SessionBody")


def page() -> str:
    """Return the page: a section for each endpoint, then the bodies that several have."""
    cookies = Cookies()
    sessions = Sessions(MemorySessionStore(), issuer="https://api.example.com")
    endpoints = Endpoints(sessions, lambda _name, _password: None, verify_mfa=lambda *_: True, cookies=cookies)
    parts = ["# HTTP: all endpoints", NOTE, INTRODUCTION]
    for route in endpoints.routes:
        if route.method != "OPTIONS" and not route.path.endswith((".js", ".map")):
            parts += [f"## {route.method} {endpoints.path(route)}", *_route(route, cookies)]
    parts += ["## The browser module", _module_files(endpoints), "## Bodies"]
    for name in BODIES:
        parts += [f"### {name}", *_body(getattr(bodies, name))]
    return "\n\n".join(parts) + "\n"


def _route(route: Route, cookies: Cookies) -> Iterator[str]:
    described = route_description(route, cookies)
    if doc := prose(route.handler.__doc__):
        yield doc.split("\n\n")[0]
    yield _needs(route)
    if route.name in REQUESTS:
        yield "**Request**: JSON."
        yield _fields(REQUESTS[route.name])
    elif route.name in FORMS:
        first, *others = (code(field) for field in FORMS[route.name])
        yield f"**Request**: a form with {first}, and as needed {', '.join(others)}."
    if headers := [one for one in described["openapi_extra"]["parameters"] if one["name"] != "sid"]:
        rows = [(code(one["name"]), one["in"], cell(one.get("description", ""))) for one in headers]
        yield table(("parameter", "in", "meaning"), rows)
    yield from _response(route)
    yield table(("status", "when"), [(str(status), _when(status, what)) for status, what in _statuses(described)])


def _needs(route: Route) -> str:
    if route.name == "logout":
        return "Needs an access token, a refresh token in the body, or cookies: one is enough."
    if route.name in SCOPED:
        return "Needs an access token of the user's own, or one with the scope that the error names."
    return "Needs an access token." if needs_access_token(route) else "Needs no access token."


def _response(route: Route) -> Iterator[str]:
    if route.name in EMPTY:
        yield "**Response**: no body."
    elif route.name in RESPONSES:
        yield "**Response**: JSON."
        yield _fields(RESPONSES[route.name])
    elif route.name in MEDIA_TYPES:
        yield f"**Response**: `{MEDIA_TYPES[route.name]}`."


def _statuses(described: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    return sorted((int(status), what) for status, what in described["responses"].items())


WHEN = {
    200: "done",
    204: "done",
    400: "the request cannot be understood, or the token in it is rejected: [`ErrorBody`](#errorbody)",
    401: "no access token, a rejected one, or wrong credentials: [`ErrorBody`](#errorbody)",
}


def _when(status: int, what: dict[str, Any]) -> str:
    text = cell(what.get("description", ""))
    text = text[:1].lower() + text[1:]
    return WHEN.get(status, f"{text}: [`ErrorBody`](#errorbody)")


def _module_files(endpoints: Endpoints) -> str:
    paths = [endpoints.path(route) for route in endpoints.routes if route.path.endswith((".js", ".map"))]
    files = ", ".join(code(f"GET {path}") for path in paths)
    return f"{files}: [the browser module](../browser.md), compressed for clients that accept gzip, with an `ETag`."


def _body(body: type) -> Iterator[str]:
    yield prose(body.__doc__)
    yield _fields(body)


def _fields(body: type) -> str:
    hints = get_type_hints(body, include_extras=True)
    if not hints:
        return "Any fields."
    return table(("field", "type", "", "meaning"), [_field(name, hint) for name, hint in hints.items()])


def _field(name: str, hint: Any) -> tuple[str, str, str, str]:
    is_optional = get_origin(hint) is NotRequired
    if is_optional:
        (hint,) = get_args(hint)
    constraint = bodies.Constraint()
    if get_origin(hint) is Annotated:
        hint, constraint = get_args(hint)
    most = f"at most {constraint.max_length} characters" if constraint.max_length else ""
    meaning = "; ".join(text for text in (constraint.description, most) if text)
    return code(name), _type(hint), "optional" if is_optional else "", cell(meaning)


TYPES = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def _type(hint: Any) -> str:
    if get_origin(hint) is list:
        return f"list of {_type(get_args(hint)[0])}"
    if is_typeddict(hint):
        return f"[`{hint.__name__}`](#{hint.__name__.lower()})"
    kinds = [one for one in get_args(hint) if one is not type(None)] or [hint]
    return " or ".join(TYPES.get(one, str(one)) for one in kinds) + (
        " or null" if len(get_args(hint)) > len(kinds) else ""
    )
