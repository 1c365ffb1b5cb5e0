"""The endpoints in OpenAPI: their bodies, their responses, and the header that guards cookies against CSRF.

1. Bodies are declared once, in ``server/http/bodies.py``: the schemas are made from these declarations.
2. The endpoints read and write JSON by themselves, the same in every framework: FastAPI only describes them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, NotRequired, get_args, get_origin, get_type_hints, is_typeddict

from pydantic import BaseModel, ConfigDict, Field, create_model
from starlette.responses import JSONResponse, Response

from unbroken.server.http import bodies
from unbroken.server.http.cookies import Cookies
from unbroken.server.http.messages import Route
from unbroken.server.session_admin import DEFAULT_PAGE_SESSIONS, MAX_PAGE_SESSIONS

__all__ = ["needs_access_token", "route_description"]

RESPONSES: dict[str, type] = {
    "login": bodies.TokenBody,
    "login_step": bodies.TokenBody,
    "token": bodies.TokenBody,
    "refresh": bodies.TokenBody,
    "introspect": bodies.IntrospectionBody,
    "session": bodies.ClaimsBody,
    "my_sessions": bodies.SessionsBody,
    "rename_session": bodies.SessionBody,
    "revoke_others": bodies.RevokedBody,
    "ticket": bodies.TicketBody,
    "revocations": bodies.RevocationsBody,
    "health": bodies.HealthBody,
    "health_ready": bodies.HealthBody,
}
REQUESTS: dict[str, type] = {
    "login": bodies.LoginRequest,
    "login_step": bodies.CodeRequest,
    "rename_session": bodies.RenameRequest,
    "refresh": bodies.RefreshRequest,
    "logout": bodies.LogoutRequest,
}
FORMS = {
    "token": ("grant_type", "refresh_token", "username", "password", "scope", "client_id", "device_token"),
    "revoke": ("token", "token_type_hint"),
    "introspect": ("token", "token_type_hint"),
}  # the first field is required
EXTENSIBLE = (bodies.SessionBody, bodies.IntrospectionBody)  # bodies with further fields
ACCESS_TOKEN = (
    "introspect",
    "session",
    "my_sessions",
    "rename_session",
    "end_session",
    "revoke_others",
    "ticket",
    "logout",
    "revocations",
)
SCOPED = ("my_sessions", "rename_session", "end_session", "revoke_others", "ticket", "revocations")
COOKIES = ("login", "login_step", "refresh", "logout")  # with any cookies; in mode "both" all of ACCESS_TOKEN too
LOGINS = ("login", "login_step", "token")
PROOFS = ("login", "login_step", "token", "refresh", "revoke")  # and all that need an access token
PUBLIC = ("jwks", "metadata", "health", "health_ready", "browser_module", "browser_module_map")
EMPTY = {"logout": 204, "end_session": 204, "revoke": 200}
MEDIA_TYPES = {"browser_module": "text/javascript"}  # of responses that are not JSON


def needs_access_token(route: Route) -> bool:
    """Return whether the endpoint needs an access token."""
    return route.name in ACCESS_TOKEN


def route_description(route: Route, cookies: Cookies | None) -> dict[str, Any]:
    """Return the keyword arguments for FastAPI's ``add_api_route`` that describe *route*."""
    name, with_cookies = route.name, _takes_cookies(route, cookies)
    extra: dict[str, Any] = {"parameters": _parameters(route, with_cookies=with_cookies)}
    if body := _request_body(name, with_cookies=with_cookies):
        optional = name == "logout" or (name == "refresh" and with_cookies)
        extra["requestBody"] = {"content": body, "required": not optional}
    if name == "logout":
        extra["security"] = [{}]  # beside the schemes that FastAPI lists: a token in the body is enough
    return {
        "name": name,
        "summary": name.replace("_", " ").capitalize(),
        "status_code": EMPTY.get(name, 200),
        "response_model": None,
        "response_class": Response if name in EMPTY or name in MEDIA_TYPES else JSONResponse,
        "responses": _responses(name, with_cookies=with_cookies),
        "openapi_extra": extra,
        "include_in_schema": route.method != "OPTIONS",
    }


def _takes_cookies(route: Route, cookies: Cookies | None) -> bool:
    """Return whether the endpoint takes cookies, which need the CSRF header beside them."""
    if cookies is None or route.method == "GET":
        return False
    return route.name in COOKIES or (cookies.mode == "both" and route.name in ACCESS_TOKEN)


def _parameters(route: Route, *, with_cookies: bool) -> list[dict[str, Any]]:
    string = {"schema": {"type": "string"}}
    parameters = [{"name": "sid", "in": "path", "required": True, **string}] if "{sid}" in route.path else []
    if route.name == "revocations":
        schema = {"type": "integer", "minimum": 0, "default": 0}
        after = {"name": "after", "in": "query", "required": False, "schema": schema}
        parameters.append(after | {"description": "the cursor of the previous response"})
    if route.name == "my_sessions":
        limit = {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_SESSIONS, "default": DEFAULT_PAGE_SESSIONS}
        query: dict[str, Any] = {"in": "query", "required": False}
        parameters.append({"name": "limit", **query, "schema": limit, "description": "sessions of a page at most"})
        parameters.append({"name": "cursor", **query, **string, "description": "`next` of the page before"})
    if route.name in PROOFS or needs_access_token(route):
        header = {"name": "DPoP", "in": "header", "required": False, **string}
        purpose = (
            "binds the session to its key" if route.name in LOGINS else "needed where the session is bound to a key"
        )
        parameters.append(header | {"description": f"a proof of the client's key (RFC 9449): {purpose}"})
    if with_cookies:
        purpose = "asks for tokens in cookies" if route.name in LOGINS else "required where the token is in a cookie"
        header = {"name": "X-Unbroken", "in": "header", "required": False, **string}
        parameters.append(header | {"description": f"1: {purpose}"})
    return parameters


def _responses(name: str, *, with_cookies: bool) -> dict[int | str, dict[str, Any]]:
    error = {"model": _model(bodies.ErrorBody)}
    responses: dict[int | str, dict[str, Any]] = {EMPTY.get(name, 200): _success(name, with_cookies=with_cookies)}
    if name in SCOPED:
        responses[403] = error | {"description": "The token has not the scope that this needs"}
    if with_cookies or name == "login":
        responses[403] = error | {"description": "A code is required, or another site may have sent the request"}
    if name in LOGINS:
        responses[429] = error | {"description": "Too many wrong passwords; try again after Retry-After"}
    if name not in PUBLIC:
        responses[400] = error
        responses[413] = error | {"description": "The body is longer than 64 KiB"}
        responses[503] = error | {"description": "The store does not respond; try again after Retry-After"}
    if name == "health_ready":
        responses[503] = {"model": _model(bodies.HealthBody), "description": "The store does not respond"}
    if name in ACCESS_TOKEN or name in ("login", "login_step"):
        responses[401] = error
    if name in ("rename_session", "end_session"):
        responses[404] = error | {"description": "The caller has no such session"}
    return responses


def _success(name: str, *, with_cookies: bool) -> dict[str, Any]:
    if name in MEDIA_TYPES:
        content = {MEDIA_TYPES[name]: {"schema": {"type": "string"}}}
        return {"description": "The text of the module", "content": content}
    if name not in RESPONSES:
        return {"description": "Done"}
    body: Any = _model(RESPONSES[name])
    if with_cookies and RESPONSES[name] is bodies.TokenBody:
        body = body | _model(bodies.CookieTokenBody)
    return {"model": body}


def _request_body(name: str, *, with_cookies: bool) -> dict[str, Any] | None:
    """Return the media types and schemas of a request; None for one without a body."""
    if name in REQUESTS:
        request = bodies.CookieRefreshRequest if name == "refresh" and with_cookies else REQUESTS[name]
        return {"application/json": {"schema": _model(request).model_json_schema()}}
    if name not in FORMS:
        return None
    properties = {field: {"type": "string"} for field in FORMS[name]}
    schema = {"type": "object", "properties": properties, "required": FORMS[name][:1]}
    return {"application/x-www-form-urlencoded": {"schema": schema}}


@lru_cache
def _model(body: type) -> type[BaseModel]:
    """Return the pydantic model of a ``TypedDict`` (rule 1)."""
    fields: Any = {name: _field(hint) for name, hint in get_type_hints(body, include_extras=True).items()}
    config = ConfigDict(extra="allow" if body in EXTENSIBLE else "ignore")
    return create_model(body.__name__, __config__=config, __doc__=body.__doc__, **fields)


def _field(hint: Any) -> tuple[Any, Any]:
    """Return the type and the pydantic field of one entry of a ``TypedDict``."""
    required = get_origin(hint) is not NotRequired
    if not required:
        (hint,) = get_args(hint)
    constraint = bodies.Constraint()
    if get_origin(hint) is Annotated:
        hint, constraint = get_args(hint)
    default: Any = ... if required else (False if hint is bool else "")
    if is_typeddict(hint):
        return _model(hint), Field(... if required else None, description=constraint.description)
    if get_origin(hint) is list and is_typeddict(get_args(hint)[0]):
        hint = list[_model(get_args(hint)[0])]  # type: ignore[misc]  # a type that is made at run time
    return hint, Field(default, description=constraint.description, max_length=constraint.max_length)
