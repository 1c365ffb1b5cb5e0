"""The server's endpoints and the current session for Flask.

    auth = Auth(sessions, authenticate)
    app = Flask(__name__)
    auth.init_app(app)                             # or app.register_blueprint(auth.blueprint)

    @app.get("/orders")
    @auth.required                                 # or @auth.required(scope="read")
    def orders():
        return {"orders of": current_claims.subject}

A service that only verifies tokens has ``Bearer(verifier)`` in place of ``Auth``: the same, without endpoints.

1. Who has no good token gets an RFC 6750 challenge. It is the ``response`` of a werkzeug HTTPException, so that an
   error handler of the application may answer otherwise.
2. Everything runs in the thread of the request, without an event loop; also before an async view.
3. A client's address is the connection's. Behind a proxy, wrap the application in werkzeug's ``ProxyFix``.
4. ``MAX_CONTENT_LENGTH`` holds for the endpoints too, where it is less than their own limit of 64 KiB.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, Unpack, overload

from flask import Blueprint, Flask, current_app, request
from flask.blueprints import BlueprintSetupState
from flask.wrappers import Response as FlaskResponse
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge, default_exceptions
from werkzeug.local import LocalProxy

from unbroken._sync import run_sync
from unbroken.errors import InvalidRequest
from unbroken.server.http.authentication import RequestAuthenticator, TokenVerifier
from unbroken.server.http.cookies import Cookies
from unbroken.server.http.endpoints import Authenticate, Endpoints, EndpointSettings, Route
from unbroken.server.http.messages import MAX_BODY_BYTES, Request, Response, challenge, error_response
from unbroken.server.keys.access_token import Claims
from unbroken.server.sessions import Sessions

__all__ = ["Auth", "Bearer", "current_claims"]

F = TypeVar("F", bound=Callable[..., Any])
DEMANDED = "unbroken.session"  # in the environ: the claims that were demanded last
FOUND = "unbroken.found"  # in the environ, for each Bearer: Claims, or the Response that refuses the request


class Bearer:
    """``required``, a decorator for views; ``session``, the ``Claims`` of the caller. *verifier* knows good tokens.

    *cookies* and *origins* are those of the endpoints, if access tokens are in cookies.
    """

    def __init__(self, verifier: TokenVerifier, *, cookies: Cookies | None = None, origins: Sequence[str] = ()) -> None:
        self._callers = RequestAuthenticator(verifier, cookies=cookies, origins=origins)

    def init_app(self, app: Flask) -> None:
        """Lets ``current_claims`` know of this in *app*."""
        app.extensions.setdefault("unbroken", self)

    @property
    def session(self) -> Claims:
        """The session that sends the current request; refuses the request if there is none."""
        return self.require()

    def require(self, *, scope: str = "") -> Claims:
        """The session that sends the current request. Without a good token the client gets a 401 challenge (RFC 6750
        §3), with too little *scope* a 403.
        """
        known = request.environ.setdefault(FOUND, {})
        if self not in known:
            known[self] = run_sync(self._callers.authenticate(_heard()))
        who: Claims | Response = known[self]
        if isinstance(who, Claims) and not who.has_scope(scope):
            who = challenge(None, scope=scope)
        if isinstance(who, Response):
            raise _refused(who)
        request.environ[DEMANDED] = who
        return who

    @overload
    def required(self, view: F) -> F: ...

    @overload
    def required(self, *, scope: str = "") -> Callable[[F], F]: ...

    def required(self, view: F | None = None, *, scope: str = "") -> F | Callable[[F], F]:
        """A view, plain or async, that only a session may see: with *scope*, only one that has it."""
        if view is None:
            return functools.partial(self._guarded, scope=scope)
        return self._guarded(view, scope=scope)

    def _guarded(self, view: F, *, scope: str) -> F:
        @functools.wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            self.require(scope=scope)
            return current_app.ensure_sync(view)(*args, **kwargs)

        # A plain function stands for an async one too: whoever calls a view in Flask calls it as if it were plain.
        return guarded  # type: ignore[return-value]


class Auth(Bearer):
    """The same, and the endpoints as ``blueprint``.

    Parameters as those of ``unbroken.server.Endpoints``. Functions among them are plain ones: nobody could await here.
    """

    def __init__(
        self,
        sessions: Sessions,
        authenticate: Authenticate,
        **settings: Unpack[EndpointSettings],
    ) -> None:
        self._endpoints = Endpoints(sessions, authenticate, **settings)
        self._callers = self._endpoints.callers
        self.blueprint = Blueprint("unbroken", __name__)
        self.blueprint.record(self._registered)
        names: set[str] = set()
        for route in self._endpoints.routes:
            name = route.name if route.name not in names else f"{route.name}_{len(names)}"
            names.add(name)
            self.blueprint.add_url_rule(
                self._endpoints.path(route).replace("{sid}", "<sid>"),
                name,
                _view(self._endpoints, route),
                methods=[route.method],
                provide_automatic_options=False,
            )

    def init_app(self, app: Flask) -> None:
        """Registers the endpoints in *app*."""
        app.register_blueprint(self.blueprint)

    def _registered(self, state: BlueprintSetupState) -> None:
        state.app.extensions.setdefault("unbroken", self)


def _current() -> Claims:
    claims: Claims | None = request.environ.get(DEMANDED)
    if claims is not None:
        return claims
    if "unbroken" not in current_app.extensions:
        raise RuntimeError("call auth.init_app(app): current_claims needs to know who verifies")
    auth: Bearer = current_app.extensions["unbroken"]
    return auth.session


current_claims: Claims = LocalProxy(_current)  # type: ignore[assignment]  # it stands for the claims, as in Flask itself


def _view(endpoints: Endpoints, route: Route) -> Callable[..., FlaskResponse]:
    def view(sid: str = "") -> FlaskResponse:
        body = _body()
        if body is None:
            return _response_of(error_response(InvalidRequest("the body cannot be read")))
        return _response_of(run_sync(endpoints.answer(route, _heard(body), sid)))

    return view


def _heard(body: bytes = b"") -> Request:
    headers = {name.lower(): value for name, value in request.headers.items()}  # WSGI has joined repeated ones
    path = request.root_path.rstrip("/") + request.path  # as browsers see it
    query = request.query_string.decode("latin-1")
    return Request(request.method, path, headers, body, client_ip=request.remote_addr or "", query=query)


def _body() -> bytes | None:
    """The body, or as much of it as is enough to be refused; None if it is cut off, or its framing is wrong."""
    try:
        if (request.content_length or MAX_BODY_BYTES + 1) <= MAX_BODY_BYTES:
            return request.get_data()
        body = bytearray()
        while len(body) <= MAX_BODY_BYTES and (chunk := request.stream.read(MAX_BODY_BYTES + 1 - len(body))):
            body += chunk
    except RequestEntityTooLarge:  # for the application
        return bytes(MAX_BODY_BYTES + 1)
    except OSError:
        return None
    return bytes(body)


def _refused(value: Response) -> HTTPException:
    return default_exceptions[value.status](response=_response_of(value))


def _response_of(value: Response) -> FlaskResponse:
    response = FlaskResponse(value.body, value.status)
    del response.headers["content-type"]
    response.headers.update(value.headers)  # to HEAD, the length of the body that is not sent
    for cookie in value.cookies:
        response.headers.add("set-cookie", cookie)
    return response
