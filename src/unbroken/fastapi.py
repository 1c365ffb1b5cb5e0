"""The server's endpoints and the current session for FastAPI, right in OpenAPI.

    auth = Auth(sessions, authenticate)
    app = FastAPI()
    app.include_router(auth.router)

    @app.get("/orders")
    async def orders(session: Annotated[Claims, Depends(auth.session)]): ...

    @app.get("/reports")
    async def reports(session: Annotated[Claims, Security(auth.session, scopes=["reports"])]): ...

With ``password_grant=True`` the docs page's Authorize button asks for name and password; without, for a token.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Unpack

from fastapi import APIRouter, Depends, HTTPException
from fastapi.security import HTTPBearer, OAuth2PasswordBearer, SecurityScopes
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request as StarletteRequest

from unbroken.server.access_token import Claims
from unbroken.server.endpoints import Authenticate, Endpoints, EndpointSettings, Route
from unbroken.server.sessions import Sessions
from unbroken.starlette import demanded, endpoint_of, found

__all__ = ["Auth"]


class LoginForm(BaseModel):
    """What ``/login`` takes."""

    username: str
    password: str
    scope: str = ""
    label: str = Field("", description="a name for this device")
    client_id: str = ""
    coordinated: bool = Field(False, description="the client stores and shares its attempt ids")


class RefreshForm(BaseModel):
    """What ``/refresh`` takes."""

    refresh_token: str


class TokenResponse(BaseModel):
    """RFC 6749 §5.1, and what refreshing needs to know."""

    access_token: str
    token_type: str
    expires_in: int
    refresh_token: str
    refresh_expires_in: int
    refresh_seq: int
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


class Introspection(BaseModel):
    """RFC 7662 §2.2."""

    model_config = ConfigDict(extra="allow")

    active: bool


class Count(BaseModel):
    """How many sessions were ended."""

    revoked: int


RESPONSES: dict[str, type[BaseModel] | None] = {
    "login": TokenResponse,
    "token": TokenResponse,
    "refresh": TokenResponse,
    "introspect": Introspection,
    "session": Who,
    "my_sessions": Devices,
    "revoke_others": Count,
}
BEARER = ("introspect", "session", "my_sessions", "end_session", "revoke_others", "logout")
EMPTY = {"logout": 204, "end_session": 204}


class Auth:
    """The endpoints as ``router``, and ``session``, a dependency that gives the ``Claims`` of the caller.

    Parameters as those of ``unbroken.server.Endpoints``; *scopes* describes the words of scope, for the docs page.
    Set *prefix* here, not at ``include_router``: the metadata and the docs page name the endpoints by it.
    """

    def __init__(
        self,
        sessions: Sessions,
        authenticate: Authenticate,
        *,
        scopes: dict[str, str] | None = None,
        **settings: Unpack[EndpointSettings],
    ) -> None:
        endpoints = Endpoints(sessions, authenticate, **settings)
        password_grant = endpoints.password_grant
        self.scheme = _scheme(endpoints, scopes or {}) if password_grant else HTTPBearer(auto_error=False)
        # One object for ever: FastAPI knows a dependency, and what overrides it in tests, by its identity.
        self.session = _dependency(sessions, self.scheme)
        self.router = APIRouter(tags=["auth"])
        for route in endpoints.routes:
            self._add(route, endpoints.path(route), endpoint_of(endpoints, route))

    def _add(self, route: Route, path: str, endpoint: Any) -> None:
        name = route.name
        extra: dict[str, Any] = {}
        if body := _body(name):
            extra["requestBody"] = {"content": body, "required": name != "logout"}
        if name == "end_session":
            extra["parameters"] = [{"name": "sid", "in": "path", "required": True, "schema": {"type": "string"}}]
        self.router.add_api_route(
            path,
            endpoint,
            methods=[route.method],
            name=name,
            status_code=EMPTY.get(name, 200),
            response_model=None,
            responses=_responses(name),
            openapi_extra=extra,
            dependencies=[Depends(self.scheme)] if name in BEARER else [],
            summary=name.replace("_", " ").capitalize(),
        )


def _dependency(sessions: Sessions, scheme: Any) -> Callable[..., Awaitable[Claims]]:
    async def session(request: StarletteRequest, scopes: SecurityScopes, _: Any = Depends(scheme)) -> Claims:
        """The session that sends *request*; answers 401 or 403 with an RFC 6750 challenge otherwise."""
        who = demanded(await found(sessions, request), scopes.scope_str)
        if isinstance(who, Claims):
            return who
        headers = {name: value for name, value in who.headers.items() if name != "content-type"}
        raise HTTPException(who.status, json.loads(who.body), headers)

    return session


def _scheme(endpoints: Endpoints, scopes: dict[str, str]) -> OAuth2PasswordBearer:
    token = endpoints.prefix + "/token"
    return OAuth2PasswordBearer(tokenUrl=token, refreshUrl=token, scopes=scopes, auto_error=False)


def _responses(name: str) -> dict[int | str, dict[str, Any]]:
    model = RESPONSES.get(name)
    answers: dict[int | str, dict[str, Any]] = {
        EMPTY.get(name, 200): {"model": model} if model else {"description": "Done"}
    }
    if name not in ("jwks", "metadata"):
        answers[400] = {"model": Refusal}
        answers[413] = {"model": Refusal, "description": "The body is longer than 64 KiB"}
        answers[503] = {"model": Refusal, "description": "The store does not answer; try again after Retry-After"}
    if name in BEARER or name == "login":
        answers[401] = {"model": Refusal}
    if name == "end_session":
        answers[404] = {"model": Refusal, "description": "The caller has no such session"}
    return answers


def _body(name: str) -> dict[str, Any] | None:
    """The request body in OpenAPI; the endpoints read it themselves."""
    models: dict[str, type[BaseModel]] = {"login": LoginForm, "refresh": RefreshForm, "logout": RefreshForm}
    if name in models:
        return {"application/json": {"schema": models[name].model_json_schema()}}
    fields = {"token": ["grant_type", "refresh_token", "username", "password", "scope", "client_id"]}
    fields |= {"revoke": ["token", "token_type_hint"], "introspect": ["token", "token_type_hint"]}
    if name not in fields:
        return None
    schema = {"type": "object", "properties": {field: {"type": "string"} for field in fields[name]}}
    return {"application/x-www-form-urlencoded": {"schema": {**schema, "required": fields[name][:1]}}}
