"""What OpenAPI says of the endpoints: what they take, what they answer, and which header keeps other sites away.

The endpoints read and write JSON by themselves, so that every framework has the same; these models only describe it.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from unbroken.server.http.cookies import Cookies
from unbroken.server.http.messages import Route

__all__ = ["described", "needs_token"]


class LoginForm(BaseModel):
    """What ``/login`` takes."""

    username: str
    password: str
    scope: str | None = ""
    label: str | None = Field("", description="a name for this device")
    client_id: str | None = ""
    coordinated: bool = Field(False, description="the client stores and shares its attempt ids")


class StepForm(BaseModel):
    """What ``/login/step`` takes."""

    mfa_token: str
    code: str
    client_id: str | None = ""


class LabelForm(BaseModel):
    """What renaming a session takes."""

    label: str = Field(max_length=200)


class RefreshForm(BaseModel):
    """What ``/refresh`` takes."""

    refresh_token: str


class LogoutForm(BaseModel):
    """What ``/logout`` takes, and ``/refresh`` where there may be a cookie."""

    refresh_token: str | None = ""


class TokenResponse(BaseModel):
    """RFC 6749 §5.1, and what refreshing needs to know."""

    access_token: str
    token_type: str
    expires_in: int
    refresh_token: str
    refresh_expires_in: int
    refresh_seq: int
    scope: str = ""


class CookieResponse(BaseModel):
    """The same for a client with cookies: what is in a cookie is not here."""

    access_token: str = ""
    token_type: str = ""
    expires_in: int
    refresh_expires_in: int
    refresh_seq: int
    sid: str
    scope: str = ""


class Refusal(BaseModel):
    """RFC 6749 §5.2; ``reason`` is more exact than ``error``."""

    error: str
    error_description: str = ""
    reason: str = ""


class Who(BaseModel):
    """Whom an access token belongs to."""

    sub: str
    sid: str
    client_id: str
    scope: str
    iss: str
    aud: str
    iat: int
    exp: int


class Device(BaseModel):
    """One session of the caller."""

    model_config = ConfigDict(extra="allow")

    sid: str
    label: str
    client_id: str
    created_at: float
    used_at: float
    current: bool


class Devices(BaseModel):
    """The caller's sessions."""

    sessions: list[Device]


class Revocation(BaseModel):
    """A session that was revoked, and until when its access tokens might live."""

    sid: str
    until: float


class Revocations(BaseModel):
    """What was revoked since the cursor that was asked after."""

    cursor: int
    revoked: list[Revocation]


class Introspection(BaseModel):
    """RFC 7662 §2.2."""

    model_config = ConfigDict(extra="allow")

    active: bool


class Count(BaseModel):
    """How many sessions were ended."""

    revoked: int


class TicketResponse(BaseModel):
    """A ticket for one connection, as ``?ticket=`` in its URL."""

    ticket: str
    expires_in: int


class Health(BaseModel):
    """How the server is."""

    status: str


RESPONSES: dict[str, type[BaseModel] | None] = {
    "login": TokenResponse,
    "login_step": TokenResponse,
    "token": TokenResponse,
    "refresh": TokenResponse,
    "introspect": Introspection,
    "session": Who,
    "my_sessions": Devices,
    "rename_session": Device,
    "revoke_others": Count,
    "ticket": TicketResponse,
    "revocations": Revocations,
    "health": Health,
    "health_ready": Health,
}
BEARER = (
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
BY_COOKIE = ("login", "login_step", "refresh", "logout")  # with any cookies; in mode "both", all that BEARER names too
LOGINS = ("login", "login_step", "token")
PUBLIC = ("jwks", "metadata", "health", "health_ready", "browser_module", "browser_module_map")
EMPTY = {"logout": 204, "end_session": 204, "revoke": 200}
TEXT = {"browser_module": "text/javascript"}  # what is not JSON


def needs_token(route: Route) -> bool:
    """Whether the endpoint is for those who have an access token."""
    return route.name in BEARER


def described(route: Route, cookies: Cookies | None) -> dict[str, Any]:
    """What FastAPI's ``add_api_route`` is to be told of *route*, at a server with these *cookies*."""
    name, by_cookie = route.name, _by_cookie(route, cookies)
    extra: dict[str, Any] = {"parameters": _parameters(route, by_cookie=by_cookie)}
    if body := _body(name, by_cookie=by_cookie):
        optional = name == "logout" or (name == "refresh" and by_cookie)
        extra["requestBody"] = {"content": body, "required": not optional}
    if name == "logout":
        extra["security"] = [{}]  # nothing is needed where the body has a token: added to what FastAPI lists
    return {
        "name": name,
        "summary": name.replace("_", " ").capitalize(),
        "status_code": EMPTY.get(name, 200),
        "response_model": None,
        "response_class": Response if name in EMPTY or name in TEXT else JSONResponse,
        "responses": _responses(name, by_cookie=by_cookie),
        "openapi_extra": extra,
        "include_in_schema": route.method != "OPTIONS",
    }


def _by_cookie(route: Route, cookies: Cookies | None) -> bool:
    """Whether the endpoint wants the header that shows that no other site is behind a cookie."""
    if cookies is None or route.method == "GET":
        return False
    return route.name in BY_COOKIE or (cookies.mode == "both" and route.name in BEARER)


def _parameters(route: Route, *, by_cookie: bool) -> list[dict[str, Any]]:
    text = {"schema": {"type": "string"}}
    found = [{"name": "sid", "in": "path", "required": True, **text}] if "{sid}" in route.path else []
    if route.name == "revocations":
        schema = {"type": "integer", "minimum": 0, "default": 0}
        about = "the cursor of the answer before"
        found.append({"name": "after", "in": "query", "required": False, "description": about, "schema": schema})
    if by_cookie:
        asks = "asks for tokens in cookies" if route.name in LOGINS else "needed where the token is in a cookie"
        found.append({"name": "X-Unbroken", "in": "header", "required": False, "description": f"1: {asks}", **text})
    return found


def _responses(name: str, *, by_cookie: bool) -> dict[int | str, dict[str, Any]]:
    model: Any = RESPONSES.get(name)
    if by_cookie and model is TokenResponse:
        model = TokenResponse | CookieResponse
    answers: dict[int | str, dict[str, Any]] = {
        EMPTY.get(name, 200): {"model": model} if model else {"description": "Done"}
    }
    if name in TEXT:
        answers[200] = {"description": "Its text", "content": {TEXT[name]: {"schema": {"type": "string"}}}}
    if by_cookie or name == "login":
        answers[403] = {"model": Refusal, "description": "One more step is needed, or another site may be behind this"}
    if name in LOGINS:
        answers[429] = {"model": Refusal, "description": "Too many wrong passwords; try again after Retry-After"}
    if name not in PUBLIC:
        answers[400] = {"model": Refusal}
        answers[413] = {"model": Refusal, "description": "The body is longer than 64 KiB"}
        answers[503] = {"model": Refusal, "description": "The store does not answer; try again after Retry-After"}
    if name == "health_ready":
        answers[503] = {"model": Health, "description": "The store does not answer: send nobody here"}
    if name in BEARER or name in ("login", "login_step"):
        answers[401] = {"model": Refusal}
    if name in ("rename_session", "end_session"):
        answers[404] = {"model": Refusal, "description": "The caller has no such session"}
    return answers


def _body(name: str, *, by_cookie: bool) -> dict[str, Any] | None:
    """The request body in OpenAPI; the endpoints read it themselves."""
    refresh = LogoutForm if by_cookie else RefreshForm
    models: dict[str, type[BaseModel]] = {"login": LoginForm, "login_step": StepForm, "rename_session": LabelForm}
    models |= {"refresh": refresh, "logout": LogoutForm}
    if name in models:
        return {"application/json": {"schema": models[name].model_json_schema()}}
    fields = {"token": ["grant_type", "refresh_token", "username", "password", "scope", "client_id"]}
    fields |= {"revoke": ["token", "token_type_hint"], "introspect": ["token", "token_type_hint"]}
    if name not in fields:
        return None
    schema = {"type": "object", "properties": {field: {"type": "string"} for field in fields[name]}}
    return {"application/x-www-form-urlencoded": {"schema": {**schema, "required": fields[name][:1]}}}
