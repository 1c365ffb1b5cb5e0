"""The server's endpoints, and the claims of a request, for Flask.

    auth = Auth(sessions, authenticate)
    app = Flask(__name__)
    auth.init_app(app)                             # or app.register_blueprint(auth.blueprint)

    @app.get("/orders")
    @auth.required                                 # or @auth.required(scope="read")
    def orders():
        return {"orders of": current_claims.subject}

    @auth.required(scope="write", claims={"role": "admin"}, now=True)   # of now, whatever the token says

    @app.get("/callback")                          # somebody else has authenticated the user
    def callback():
        return auth.log_in(redirect("/"), subject)

A service that only verifies tokens has ``Bearer(verifier)`` in place of ``Auth``: the same without endpoints.

1. A request without a good token gets an RFC 6750 challenge. It is the ``response`` of a werkzeug HTTPException, so an
   error handler of the application can replace it.
2. Everything runs in the thread of the request, without an event loop, also before an async view.
3. The address of a client is that of the connection. Behind a proxy, wrap the application in werkzeug's ``ProxyFix``.
4. ``MAX_CONTENT_LENGTH`` applies to the endpoints too, where it is less than their own limit of 64 KiB.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar, Unpack, cast, overload

try:
    from flask import Blueprint, Flask, after_this_request, current_app, request
except ModuleNotFoundError as error:
    message = "unbroken.flask needs Flask: pip install 'unbroken[flask]'"
    raise ModuleNotFoundError(message, name=error.name) from error

from flask.blueprints import BlueprintSetupState
from flask.wrappers import Response as FlaskResponse
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge, default_exceptions
from werkzeug.local import LocalProxy
from werkzeug.test import EnvironBuilder, run_wsgi_app

from unbroken._arguments import checked_class
from unbroken._concurrency import run_sync
from unbroken.errors import ConfigurationError, InvalidRequest, Refused, TryLater
from unbroken.server.core.proof import raw_path_of
from unbroken.server.http.authentication import Needs, RequestAuthenticator, TokenVerifier
from unbroken.server.http.cookies import Cookies
from unbroken.server.http.cors_check import CorsCheck, Preflight
from unbroken.server.http.endpoints import Endpoints
from unbroken.server.http.messages import MAX_BODY_BYTES, NO_STORE, Request, Response, Route, error_response
from unbroken.server.http.own_logins import LoginOptions
from unbroken.server.http.settings import EndpointOptions
from unbroken.server.keys.access_token import Claims
from unbroken.server.login.authenticator import Authenticate
from unbroken.server.sessions import Sessions

__all__ = ["Auth", "Bearer", "current_claims"]

View = TypeVar("View", bound=Callable[..., Any])
# Keys of the WSGI environ:
VERIFIED = "unbroken.verified"  # for each Bearer: Claims, or the Response that refuses the request
CLAIMS = "unbroken.claims"  # the claims that were required last
SPENT_PROOFS = "unbroken.spent_proofs"


@checked_class("required", own=("verifier",))
class Bearer:
    """``required``: a decorator for views. ``claims``: the ``Claims`` of the request's access token, by *verifier*.

    *cookies* and *origins* are those of the endpoints, if access tokens are in cookies.
    """

    def __init__(self, verifier: TokenVerifier, *, cookies: Cookies | None = None, origins: Sequence[str] = ()) -> None:
        self._authenticator = RequestAuthenticator(verifier, cookies=cookies, origins=origins)

    def init_app(self, app: Flask) -> None:
        """Make ``current_claims`` use this object in *app*."""
        app.extensions.setdefault("unbroken", self)

    @property
    def claims(self) -> Claims:
        """The claims of the current request's access token. Without a good token the request is refused."""
        return self.require()

    def require(self, *, scope: str = "", claims: Needs | None = None, now: bool = False) -> Claims:
        """Return the claims of the current request's access token.

        Without a good token the client gets a 401 challenge (RFC 6750 §3), without *scope* or *claims*
        (``{"role": "admin"}``) a 403. With *now* they are those that the subject has now, whatever the token says; this
        costs a query.
        """
        verified = request.environ.setdefault(VERIFIED, {})
        if self not in verified:
            sent = _to_request()
            verified[self] = self._authenticator.authenticate_blocking(sent)  # rule 2
            if isinstance(verified[self], Claims) and (nonce := self._authenticator.next_nonce(sent)):
                after_this_request(lambda response: _with_nonce(response, nonce))
        found = run_sync(self._authenticator.check(verified[self], scope=scope, claims=claims, now=now))
        if isinstance(found, Response):
            raise _to_http_exception(found)
        request.environ[CLAIMS] = found
        return found

    @overload
    def required(self, view: View) -> View: ...

    @overload
    def required(
        self, *, scope: str = "", claims: Needs | None = None, now: bool = False
    ) -> Callable[[View], View]: ...

    def required(
        self, view: View | None = None, *, scope: str = "", claims: Needs | None = None, now: bool = False
    ) -> View | Callable[[View], View]:
        """Decorate a plain or async view that needs a good access token, with what ``require`` takes."""
        self._authenticator.check_need(now=now)
        if view is None:
            return functools.partial(self._with_claims, scope=scope, claims=claims, now=now)
        return self._with_claims(view, scope=scope, claims=claims, now=now)

    def _with_claims(self, view: View, *, scope: str, claims: Needs | None, now: bool) -> View:
        @functools.wraps(view)
        def with_claims(*args: Any, **kwargs: Any) -> Any:
            self.require(scope=scope, claims=claims, now=now)
            return current_app.ensure_sync(view)(*args, **kwargs)

        # Flask calls every view as a plain function, so a plain one may replace an async one.
        return with_claims  # type: ignore[return-value]


@checked_class(own=("sessions", "authenticate"))
class Auth(Bearer):
    """A ``Bearer`` over *sessions*, with the endpoints as ``blueprint``.

    Parameters as those of ``unbroken.server.Endpoints``. Functions among them must be plain: there is no event loop.
    """

    def __init__(
        self,
        sessions: Sessions,
        authenticate: Authenticate,
        **options: Unpack[EndpointOptions],
    ) -> None:
        self._endpoints = Endpoints(sessions, authenticate, **options)
        self._authenticator = self._endpoints.authenticator
        self.blueprint = Blueprint("unbroken", __name__)
        self.blueprint.record(self._on_register)
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
        """Register the endpoints in *app*."""
        app.register_blueprint(self.blueprint)

    def log_in(self, response: FlaskResponse | None, subject: str, **options: Unpack[LoginOptions]) -> FlaskResponse:
        """Return *response* with the cookies of a new session of *subject*, whom you have authenticated.

        Without a *response* it is that of ``/login``: tokens in cookies if the request asks for them, or in the body.
        """
        logins = self._endpoints.own_logins
        made = _or_raise(logins.log_in(_to_request(), subject, **options, may_have_body=response is None))
        return _put_into(response, made)

    def log_out(self, response: FlaskResponse | None, *, everywhere: bool = False) -> FlaskResponse:
        """End the session of the request, with *everywhere* all of its subject's; return *response*, or a 204."""
        return _put_into(response, _or_raise(self._endpoints.own_logins.log_out(_to_request(), everywhere=everywhere)))

    def _on_register(self, state: BlueprintSetupState) -> None:
        state.app.extensions.setdefault("unbroken", self)


def _current_claims() -> Claims:
    claims: Claims | None = request.environ.get(CLAIMS)
    if claims is not None:
        return claims
    if "unbroken" not in current_app.extensions:
        raise RuntimeError("current_claims needs a verifier: call auth.init_app(app)")
    auth: Bearer = current_app.extensions["unbroken"]
    return auth.claims


current_claims: Claims = LocalProxy(_current_claims)  # type: ignore[assignment]  # a proxy of Claims, as in Flask itself


def _view(endpoints: Endpoints, route: Route) -> Callable[..., FlaskResponse]:
    def view(sid: str = "") -> FlaskResponse:
        body = _body()
        if body is None:
            return _to_flask(error_response(InvalidRequest("the body cannot be read")))
        asked = _to_request(body)
        response = run_sync(endpoints.respond(route, asked, sid))
        if preflight := endpoints.cors_check.due(route, asked, response):
            _check_cors(endpoints.cors_check, preflight)
        return _to_flask(response)

    return view


def _check_cors(check: CorsCheck, asked: Preflight) -> None:
    """Send the application the preflight of the page's first refresh (``http/cors_check.py``)."""
    path = asked.path.removeprefix(request.root_path.rstrip("/"))
    try:
        builder = EnvironBuilder(path, request.url_root, method="OPTIONS", headers=list(asked.headers.items()))
        _, status, headers = run_wsgi_app(current_app.wsgi_app, builder.get_environ())
        check.report(asked, int(status.split()[0]), {name.lower(): value for name, value in headers.items()})
    except Exception as error:  # noqa: BLE001  # of the application: a check breaks nothing
        check.failed(asked, error)


def _to_request(body: bytes = b"") -> Request:
    headers = {name.lower(): value for name, value in request.headers.items()}  # WSGI has joined repeated ones
    path = request.root_path.rstrip("/") + request.path  # as browsers see it
    query = request.query_string.decode("latin-1")
    raw = raw_path_of(_target(), path) if "dpop" in headers else ""  # only a proof needs it
    spent = request.environ.setdefault(SPENT_PROOFS, set())
    return Request(request.method, path, headers, body, request.remote_addr or "", query, raw, spent)


def _target() -> str:
    return str(request.environ.get("RAW_URI") or request.environ.get("REQUEST_URI") or "")


def _with_nonce(response: FlaskResponse, nonce: str) -> FlaskResponse:
    response.headers["dpop-nonce"] = nonce
    return response


def _body() -> bytes | None:
    """Return the body, or the first bytes of one that is too long; None if it is incomplete or badly framed."""
    try:
        if (request.content_length or MAX_BODY_BYTES + 1) <= MAX_BODY_BYTES:
            return request.get_data()
        body = bytearray()
        while len(body) <= MAX_BODY_BYTES and (chunk := request.stream.read(MAX_BODY_BYTES + 1 - len(body))):
            body += chunk
    except RequestEntityTooLarge:  # rule 4
        return bytes(MAX_BODY_BYTES + 1)
    except OSError:
        return None
    return bytes(body)


def _to_http_exception(response: Response) -> HTTPException:
    return default_exceptions[response.status](response=_to_flask(response))  # rule 1


def _or_raise(work: Coroutine[Any, Any, Response]) -> Response:
    try:
        return run_sync(work)
    except (Refused, TryLater, ConfigurationError) as error:
        raise _to_http_exception(error_response(error)) from error


def _put_into(response: Any, made: Response) -> FlaskResponse:
    """Return *response* with the cookies of *made*, not to be stored; or *made* where the application has none."""
    if response is None:
        return _to_flask(made)
    response.headers.update(NO_STORE)
    for cookie in made.cookies:
        response.headers.add("set-cookie", cookie)
    return cast("FlaskResponse", response)


def _to_flask(response: Response) -> FlaskResponse:
    result = FlaskResponse(response.body, response.status)
    del result.headers["content-type"]
    result.headers.update(response.headers)  # the response to HEAD has the length of the body it lacks
    for cookie in response.cookies:
        result.headers.add("set-cookie", cookie)
    return result
