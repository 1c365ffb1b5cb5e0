"""An OAuth 2.0 server in which a person logs in, with the manners of well-known servers. It speaks nothing of ours.

``agree`` and ``deny`` are what the person does: ``agree`` opens a URL as a browser would, and follows it to the end.
"""

from __future__ import annotations

import secrets
import threading
import time
import urllib.error
import urllib.request
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.support.backend import running
from unbroken import HttpRequest, HttpResponse
from unbroken._transport import http_sender

__all__ = ["GITHUB", "GOOGLE", "KEYCLOAK", "MICROSOFT", "Browser", "Manners", "OAuthServer", "open_as_browser"]

DEVICE = "urn:ietf:params:oauth:grant-type:device_code"


@dataclass(frozen=True)
class Manners:
    """How a server behaves where the standards leave it open, or are not kept."""

    rotates: bool = True
    refresh_tokens: str = "always"  # or "offline_access", "access_type", "never"
    new_refresh_token: bool = True  # in the response to a refresh
    forms: bool = False  # unless JSON is asked for
    errors_in_200: bool = False
    returns_issuer: bool = True
    secret: str = ""
    authorize: str = "/authorize"
    token: str = "/token"
    device: str = "/device"
    verification: str = "verification_uri"
    pending_status: int = 400
    slow_down_status: int = 400
    tells_interval: bool = False  # with slow_down
    denied: str = "access_denied"
    lifetime: int | None = 3600
    redirect_host: str = "127.0.0.1"


GOOGLE = Manners(
    rotates=False,
    refresh_tokens="access_type",
    new_refresh_token=False,
    returns_issuer=False,
    secret="hush",
    authorize="/o/oauth2/v2/auth",
    token="/token",
    device="/device/code",
    verification="verification_url",
    pending_status=428,
    slow_down_status=403,
)
GITHUB = Manners(
    forms=True,
    errors_in_200=True,
    returns_issuer=False,
    secret="hush",
    authorize="/login/oauth/authorize",
    token="/login/oauth/access_token",
    device="/login/device/code",
    tells_interval=True,
)
MICROSOFT = Manners(
    rotates=True,
    refresh_tokens="offline_access",
    returns_issuer=False,
    authorize="/common/oauth2/v2.0/authorize",
    token="/common/oauth2/v2.0/token",
    device="/common/oauth2/v2.0/devicecode",
    denied="authorization_declined",
    redirect_host="localhost",
)
KEYCLOAK = Manners(
    rotates=False,
    authorize="/realms/shop/protocol/openid-connect/auth",
    token="/realms/shop/protocol/openid-connect/token",
    device="/realms/shop/protocol/openid-connect/auth/device",
)


@dataclass
class OAuthServer:
    """The state of the server. ``url`` is set while it runs."""

    manners: Manners = Manners()
    url: str = ""
    interval: float = 0.2
    slow_interval: float = 6  # with slow_down
    names_itself: str = ""  # in its redirects, if not by its URL
    asked: list[dict[str, str]] = field(default_factory=list)  # authorization requests
    forms: list[dict[str, str]] = field(default_factory=list)  # of the token endpoint
    polled_at: list[float] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)  # errors that come before anything else
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    devices: dict[str, str] = field(default_factory=dict)  # device code → what the person has done
    refresh_tokens: set[str] = field(default_factory=set)
    access_tokens: set[str] = field(default_factory=set)
    change_redirect: dict[str, str | None] = field(default_factory=dict)

    @contextmanager
    def run(self) -> Iterator[OAuthServer]:
        with running(self.app()) as port:
            self.url = f"http://127.0.0.1:{port}"
            yield self

    def app(self) -> Starlette:
        manners = self.manners
        return Starlette(
            routes=[
                Route("/.well-known/oauth-authorization-server", self._metadata),
                Route(manners.authorize, self._authorize),
                Route(manners.token, self._token, methods=["POST"]),
                Route(manners.device, self._device, methods=["POST"]),
                Route("/api", self._api),
            ]
        )

    def send(self, *hosts: str) -> Any:
        """Return a sender to which this server is at the names *hosts* too, which are those of a server elsewhere."""
        own = http_sender()

        def send(request: HttpRequest, timeout: float) -> HttpResponse:
            return own(replace(request, url=self.local(request.url, *hosts)), timeout)

        return send

    def local(self, url: str, *hosts: str) -> str:
        """Return *url*, here instead of at one of *hosts*."""
        for host in hosts:
            url = url.replace(f"https://{host}/", self.url + "/", 1) if url.startswith(f"https://{host}/") else url
        return url

    def agree(self) -> None:
        """The person enters every code that waits."""
        self.devices.update(dict.fromkeys(self.devices, "agreed"))

    def deny(self) -> None:
        self.devices.update(dict.fromkeys(self.devices, "denied"))

    # ---- endpoints ---------------------------------------------------------------------------------------------

    async def _metadata(self, request: Request) -> Response:
        url = self.url
        return JSONResponse({
            "issuer": url,
            "authorization_endpoint": url + self.manners.authorize,
            "token_endpoint": url + self.manners.token,
            "device_authorization_endpoint": url + self.manners.device,
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": self.manners.returns_issuer,
        })  # fmt: skip

    async def _authorize(self, request: Request) -> Response:
        asked, code = dict(request.query_params), secrets.token_urlsafe(8)
        self.asked.append(asked)
        self.codes[code] = asked
        back: dict[str, str | None] = {"code": code, "state": asked["state"]}
        back |= {"iss": self.names_itself or self.url} if self.manners.returns_issuer else {}
        back |= self.change_redirect
        query = urlencode({name: value for name, value in back.items() if value is not None})
        return RedirectResponse(f"{asked['redirect_uri']}?{query}", 302)

    async def _device(self, request: Request) -> Response:
        self.asked.append({name: str(value) for name, value in (await request.form()).items()})
        code, user_code = secrets.token_urlsafe(16), secrets.token_hex(4).upper()
        self.devices[code] = "waits"
        return JSONResponse({
            "device_code": code, "user_code": user_code, self.manners.verification: self.url + "/enter",
            "expires_in": 60, "interval": self.interval,
        })  # fmt: skip

    async def _token(self, request: Request) -> Response:
        form = {name: str(value) for name, value in (await request.form()).items()}
        self.forms.append(form | {"accept": request.headers.get("accept", "")})
        if self.manners.secret and not self._is_known(request, form):
            return self._error(request, "invalid_client", 401)
        match form.get("grant_type"):
            case "authorization_code":
                asked = self.codes.pop(form.get("code", ""), {})
                challenge = urlsafe_b64encode(sha256(form.get("code_verifier", "").encode()).digest()).decode()
                is_right = asked.get("code_challenge") == challenge.rstrip("=")
                is_right = is_right and asked.get("redirect_uri") == form.get("redirect_uri")
                return self._tokens(request, asked) if is_right else self._error(request, "invalid_grant")
            case "refresh_token":
                return self._refresh(request, form.get("refresh_token", ""))
            case "client_credentials":
                return self._tokens(request, {}, refresh=False)
            case grant if grant == DEVICE:
                return self._poll(request, form.get("device_code", ""))
        return self._error(request, "unsupported_grant_type")

    def _is_known(self, request: Request, form: dict[str, str]) -> bool:
        return form.get("client_secret") == self.manners.secret or "authorization" in request.headers

    def _poll(self, request: Request, code: str) -> Response:
        self.polled_at.append(time.monotonic())
        if self.answers:
            return self._error(request, self.answers.pop(0))
        state = self.devices.get(code)
        if state == "agreed":
            del self.devices[code]
            return self._tokens(request, self.asked[-1])
        words = {"waits": "authorization_pending", "denied": self.manners.denied, None: "expired_token"}
        return self._error(request, words[state], self.manners.pending_status if state == "waits" else 400)

    def _refresh(self, request: Request, token: str) -> Response:
        if token not in self.refresh_tokens:
            return self._error(request, "invalid_grant" if not self.manners.errors_in_200 else "bad_refresh_token")
        if self.manners.rotates:
            self.refresh_tokens.discard(token)
        return self._tokens(request, {}, refresh=self.manners.new_refresh_token, asked_again=True)

    def _tokens(
        self, request: Request, asked: dict[str, str], *, refresh: bool = True, asked_again: bool = False
    ) -> Response:
        kind, scope = self.manners.refresh_tokens, asked.get("scope", "")
        is_offline = {"always": True, "never": False, "offline_access": "offline_access" in scope.split()}.get(
            kind, asked.get("access_type") == "offline" or "device_code" in str(self.forms[-1])
        )
        access = secrets.token_urlsafe(12)
        self.access_tokens = {access}
        body: dict[str, object] = {"access_token": access, "token_type": "bearer"}
        body |= {"expires_in": self.manners.lifetime} if self.manners.lifetime else {}
        if refresh and (is_offline or asked_again):
            body["refresh_token"] = secrets.token_urlsafe(12)
            self.refresh_tokens.add(str(body["refresh_token"]))
        return self._respond(request, body, 200)

    def _error(self, request: Request, error: str, status: int = 400) -> Response:
        status = self.manners.slow_down_status if error == "slow_down" else status
        body: dict[str, object] = {"error": error, "error_description": f"it is {error}"}
        body |= {"interval": self.slow_interval} if error == "slow_down" and self.manners.tells_interval else {}
        return self._respond(request, body, 200 if self.manners.errors_in_200 else status)

    def _respond(self, request: Request, body: dict[str, object], status: int) -> Response:
        if self.manners.forms and "json" not in request.headers.get("accept", ""):
            return Response(urlencode(body), status, media_type="application/x-www-form-urlencoded")
        return JSONResponse(body, status)

    async def _api(self, request: Request) -> Response:
        token = request.headers.get("authorization", "").partition(" ")[2]
        return Response("ok") if token in self.access_tokens else Response(status_code=401)


def open_as_browser(url: str) -> tuple[int, str]:
    """Return status and page of *url*, behind its redirects."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Browser:
    """A browser that opens what it is given in the background, and keeps the pages."""

    def __init__(self, change: Any = lambda url: url) -> None:
        self.opened: list[str] = []
        self.pages: list[tuple[int, str]] = []
        self._change, self._threads = change, list[threading.Thread]()

    def __call__(self, url: str) -> None:
        self.opened.append(url)
        thread = threading.Thread(target=lambda: self.pages.append(open_as_browser(self._change(url))), daemon=True)
        self._threads.append(thread)
        thread.start()

    def page(self) -> tuple[int, str]:
        for thread in self._threads:
            thread.join(10)
        return self.pages[-1]
