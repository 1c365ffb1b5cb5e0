"""Discovery of authorization servers and resources: at real servers on loopback, and with prepared responses.

Modules: client/core/metadata.py, client/core/backends.py.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.support.backend import Backend, running
from tests.support.strict_server import StrictServer
from unbroken import (
    AuthorizationServer,
    BadResponse,
    ConfigurationError,
    HttpRequest,
    HttpResponse,
    NotSent,
    Session,
    TryLater,
    oauth2,
)
from unbroken.client.core.metadata import resource_metadata_url, server_metadata_urls, well_known_urls_of_resource
from unbroken.server import MemorySessionStore, Sessions
from unbroken.starlette import routes

ISSUER = "https://auth.example.com"
API = "https://api.example.com"
SERVER = {"issuer": ISSUER, "token_endpoint": ISSUER + "/token", "revocation_endpoint": ISSUER + "/revoke"}


class Web:
    """Responses by URL, and the requests that came."""

    def __init__(self, pages: dict[str, Any], headers: dict[str, dict[str, str]] | None = None) -> None:
        self.pages, self.headers, self.came = pages, headers or {}, list[HttpRequest]()

    def __call__(self, request: HttpRequest, timeout: float) -> HttpResponse:
        self.came.append(request)
        page = self.pages.get(request.url, 404)
        if isinstance(page, Exception):
            raise page
        status = page if isinstance(page, int) else 200
        body = b"" if isinstance(page, int) else json.dumps(page).encode()
        return HttpResponse(status, self.headers.get(request.url, {}), body)


WELL_KNOWN = ISSUER + "/.well-known/oauth-authorization-server"


# ---- where it is -----------------------------------------------------------------------------------------------------


def test_the_well_known_path_is_inserted_before_that_of_the_issuer() -> None:
    assert server_metadata_urls("https://x.example/tenant/1") == [
        "https://x.example/.well-known/oauth-authorization-server/tenant/1",
        "https://x.example/.well-known/openid-configuration/tenant/1",
        "https://x.example/tenant/1/.well-known/openid-configuration",
    ]
    assert server_metadata_urls("https://x.example/") == [
        "https://x.example/.well-known/oauth-authorization-server",
        "https://x.example/.well-known/openid-configuration",
    ]
    assert well_known_urls_of_resource("https://x.example/mcp/") == [
        "https://x.example/.well-known/oauth-protected-resource/mcp",
        "https://x.example/.well-known/oauth-protected-resource",
    ]


@pytest.mark.parametrize("issuer", ["https://x.example?a=1", "https://x.example/#a", "x.example", "https://a:b@x/", ""])
def test_what_cannot_be_an_issuer_is_refused(issuer: str) -> None:
    with pytest.raises(ConfigurationError):
        oauth2.discover(issuer, send=Web({}))


def test_plain_http_is_for_this_machine() -> None:
    web = Web({})
    for ask in (oauth2.discover, oauth2.discover_resource):
        with pytest.raises(ConfigurationError, match=r"use https for x.example, or say allow_plain_http=True"):
            ask("http://x.example", send=web)
    assert web.came == []
    plain = {"issuer": "http://x.example", "token_endpoint": "http://x.example/token"}
    web = Web({"http://x.example/.well-known/oauth-authorization-server": plain})
    assert oauth2.discover("http://x.example", send=web, allow_plain_http=True).token_endpoint


# ---- an authorization server -----------------------------------------------------------------------------------------


def test_the_metadata_of_a_server_is_a_dialect() -> None:
    web = Web({WELL_KNOWN: {**SERVER, "code_challenge_methods_supported": ["S256"], "x": 1}})
    server = oauth2.discover(ISSUER, send=web)
    assert isinstance(server, AuthorizationServer)
    assert (server.token_endpoint, server.code_challenge_methods, server.metadata["x"]) == (
        ISSUER + "/token",
        ("S256",),
        1,
    )
    expected = oauth2(ISSUER + "/token", client_id="app", revocation_endpoint=ISSUER + "/revoke", origins=(API,))
    assert server.dialect(client_id="app", origins=(API,)) == expected
    assert [dict(request.headers) for request in web.came] == [{"accept": "application/json"}]


def test_openid_connect_is_the_fallback() -> None:
    tenant = ISSUER + "/tenant"
    web = Web({tenant + "/.well-known/openid-configuration": {"issuer": tenant, "token_endpoint": ISSUER + "/t"}})
    assert oauth2.discover(tenant, send=web).token_endpoint == ISSUER + "/t"
    assert len(web.came) == 3


def test_a_client_secret_goes_as_the_server_takes_it() -> None:
    def form(methods: list[str] | None) -> tuple[str, str]:
        page = SERVER if methods is None else {**SERVER, "token_endpoint_auth_methods_supported": methods}
        dialect = oauth2.discover(ISSUER, send=Web({WELL_KNOWN: page})).dialect(client_id="app", client_secret="hush")
        request = dialect.refresh.build({"refresh_token": "r"})
        return request.headers.get("authorization", ""), (request.body or b"").decode()

    assert form(None) == form(["client_secret_post", "client_secret_basic"])
    assert form(None)[0].startswith("Basic ")
    assert form(["client_secret_post"]) == (
        "",
        "refresh_token=r&grant_type=refresh_token&client_id=app&client_secret=hush",
    )
    with pytest.raises(ConfigurationError, match="takes no client secret; it knows private_key_jwt"):
        form(["private_key_jwt"])


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "another issuer": ({"issuer": ISSUER + "/"}, "calls itself 'https://auth.example.com/': pass exactly the name"),
    "no issuer": ({"issuer": None}, "has no issuer"),
    "no token endpoint": ({"token_endpoint": None}, "has no token_endpoint"),
    "plain http": ({"token_endpoint": "http://auth.example.com/token"}, "token_endpoint is not https"),
    "this machine": ({"token_endpoint": "http://127.0.0.1/token"}, "token_endpoint is on this machine"),
    "a name in the URL": ({"revocation_endpoint": "https://a:b@auth.example.com/"}, "user name or a password"),
    "no URL": ({"jwks_uri": "javascript:alert(1)"}, "is not an absolute http"),
    "a number": ({"token_endpoint": 5}, "token_endpoint is not text"),
    "a text for a list": ({"grant_types_supported": "password"}, "grant_types_supported is not a list"),
    "no texts": ({"scopes_supported": [1]}, "scopes_supported is not a list of texts"),
}


@pytest.mark.parametrize(("fields", "words"), BAD.values(), ids=BAD)
def test_metadata_that_cannot_be_trusted_is_an_error_that_names_the_field(fields: dict[str, Any], words: str) -> None:
    page = {name: value for name, value in {**SERVER, **fields}.items() if value is not None}
    with pytest.raises(BadResponse, match=words) as refused:
        oauth2.discover(ISSUER, send=Web({WELL_KNOWN: page}))
    assert refused.value.field == next(iter(fields))


def test_a_server_without_metadata_and_one_that_is_ill() -> None:
    with pytest.raises(ConfigurationError, match=r"publishes no metadata \(tried https://auth.*name its endpoints"):
        oauth2.discover(ISSUER, send=Web({}))
    with pytest.raises(TryLater, match="responded with 503"):
        oauth2.discover(ISSUER, send=Web({WELL_KNOWN: 503}))
    with pytest.raises(TryLater, match="cannot be reached"):
        oauth2.discover(ISSUER, send=Web({WELL_KNOWN: NotSent("auth.example.com cannot be reached")}))
    with pytest.raises(BadResponse, match="is not a JSON object"):
        oauth2.discover(ISSUER, send=Web({WELL_KNOWN: ["a list"]}))


# ---- a resource ------------------------------------------------------------------------------------------------------

RESOURCE = {"resource": API, "authorization_servers": [ISSUER, "https://other.example"], "scopes_supported": ["read"]}
AT = API + "/.well-known/oauth-protected-resource"


def challenged(url: str = AT) -> dict[str, dict[str, str]]:
    return {API + "/orders": {"www-authenticate": f'Bearer realm="x", resource_metadata="{url}"'}}


def test_a_challenge_names_the_metadata_of_an_api() -> None:
    elsewhere = "https://metadata.example/api"
    web = Web({API + "/orders": 401, elsewhere: RESOURCE, WELL_KNOWN: SERVER}, challenged(elsewhere))
    found = oauth2.discover_resource(API + "/orders", send=web)
    assert (found.resource, found.scopes, found.server.issuer) == (API, ("read",), ISSUER)
    dialect = found.dialect(client_id="app")
    assert dialect.origins == (API,)
    assert b"resource=https%3A%2F%2Fapi.example.com" in (dialect.refresh.build({}).body or b"")
    Session(dialect)


def test_without_a_challenge_the_well_known_urls_are_tried() -> None:
    web = Web({API + "/orders": 200, AT: RESOURCE, WELL_KNOWN: SERVER})
    assert oauth2.discover_resource(API + "/orders", send=web).server.issuer == ISSUER
    with pytest.raises(ConfigurationError, match=r"publishes no metadata: use oauth2.discover"):
        oauth2.discover_resource(API + "/orders", send=Web({}))


def test_one_of_several_authorization_servers_is_chosen() -> None:
    other = "https://other.example"
    page = {"issuer": other, "token_endpoint": other + "/token"}
    web = Web({AT: RESOURCE, other + "/.well-known/oauth-authorization-server": page})
    assert oauth2.discover_resource(API, issuer=other, send=web).server.issuer == other
    with pytest.raises(ConfigurationError, match="issues no tokens for"):
        oauth2.discover_resource(API, issuer="https://third.example", send=web)


BAD_RESOURCES: dict[str, tuple[dict[str, Any], str]] = {
    "another host": ({"resource": "https://bank.example"}, "the metadata is that of 'https://bank.example'"),
    "another path": ({"resource": API + "/ord"}, "the metadata is that of"),
    "no resource": ({"resource": ""}, "the metadata is that of ''"),
    "no server": ({"authorization_servers": []}, "names no authorization server"),
    "a server in the clear": ({"authorization_servers": ["http://x.example"]}, "is not https"),
    "a server on this machine": ({"authorization_servers": ["http://localhost"]}, "is on this machine"),
}


@pytest.mark.parametrize(("fields", "words"), BAD_RESOURCES.values(), ids=BAD_RESOURCES)
def test_metadata_of_a_resource_that_cannot_be_trusted(fields: dict[str, Any], words: str) -> None:
    web = Web({API + "/orders": 401, AT: {**RESOURCE, **fields}, WELL_KNOWN: SERVER}, challenged())
    with pytest.raises(BadResponse, match=words):
        oauth2.discover_resource(API + "/orders", send=web)


def test_a_remote_api_does_not_send_us_to_this_machine() -> None:
    web = Web({API + "/orders": 401}, challenged("http://127.0.0.1:8080/metadata"))
    with pytest.raises(BadResponse, match="names metadata on this machine"):
        oauth2.discover_resource(API + "/orders", send=web)
    assert len(web.came) == 1


@pytest.mark.parametrize(
    ("header", "url"),
    [
        ('Bearer resource_metadata="https://x/y"', "https://x/y"),
        ('Basic realm="a, b", DPoP algs="ES256", resource_metadata="https://x/y"', "https://x/y"),
        ("Bearer", ""),
        ("", ""),
    ],
)
def test_the_url_is_found_in_any_challenge(header: str, url: str) -> None:
    assert resource_metadata_url(header) == url


# ---- on the wire -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/tenant/one"])
def test_our_own_server_is_discovered_from_its_name_and_from_an_api(path: str) -> None:
    app: list[Any] = []

    async def handle(scope: Any, receive: Any, send: Any) -> None:
        await app[0](scope, receive, send)

    with running(handle) as port:
        from starlette.applications import Starlette

        issuer = f"http://127.0.0.1:{port}{path}"
        sessions = Sessions(MemorySessionStore(), issuer=issuer)
        app.append(Starlette(routes=routes(sessions, lambda name, password: name, password_grant=True)))
        server = oauth2.discover(issuer)
        found = oauth2.discover_resource(issuer + "/orders")
        assert found.server == server == asyncio.run(oauth2.adiscover(issuer))
        assert asyncio.run(oauth2.adiscover_resource(issuer + "/orders")) == found
        assert found.resource == f"http://127.0.0.1:{port}"
        assert oauth2.discover_resource(issuer).resource == issuer
        session = Session(found.dialect())
        session.login("ada", "pw")
        assert sessions.verify(session.newer_token(session.token())).subject == "ada"
        assert session.logout()


def test_a_strict_server_that_is_discovered_is_refreshed_and_logged_out() -> None:
    with StrictServer().run() as server:
        session = Session(oauth2.discover(server.url).dialect(origins=(server.url,)))
        session.import_tokens(server.log_in())
        session.newer_token(session.token())
    assert (server.refreshes, server.reuses) == (1, 0)


def test_redirects_stay_within_their_origin() -> None:
    def redirecting(target: Callable[[Request], str]) -> Route:
        async def respond(request: Request) -> Response:
            if request.url.path == "/here":
                return JSONResponse({"issuer": str(request.base_url).rstrip("/"), "token_endpoint": "http://[::1]/t"})
            return RedirectResponse(target(request))

        return Route("/{path:path}", respond)

    from starlette.applications import Starlette

    def issuer_of(target: Callable[[Request], str]) -> Any:
        return running(Starlette(routes=[redirecting(target)]))

    with issuer_of(lambda request: "/here") as port:
        assert oauth2.discover(f"http://127.0.0.1:{port}").token_endpoint
    elsewhere = issuer_of(lambda request: f"http://localhost:{request.url.port}/here")
    with elsewhere as port, pytest.raises(BadResponse, match="redirects discovery to another origin"):
        oauth2.discover(f"http://127.0.0.1:{port}")
    with issuer_of(lambda request: "/loop") as port, pytest.raises(BadResponse, match="more than 3 times"):
        oauth2.discover(f"http://127.0.0.1:{port}")


def test_a_long_response_is_refused_by_its_length(server: Backend) -> None:
    async def long(request: Request) -> Response:
        return Response(b'{"x": "' + b"x" * (1 << 20) + b'"}', media_type="application/json")

    from starlette.applications import Starlette

    with (
        running(Starlette(routes=[Route("/{path:path}", long)])) as port,
        pytest.raises(BadResponse, match="is not read: it is longer than 1048576 bytes"),
    ):
        oauth2.discover(f"http://127.0.0.1:{port}")


def test_a_server_that_drips_has_no_more_than_the_timeout() -> None:
    async def dripping() -> AsyncIterator[bytes]:
        yield b"{"
        while True:
            await asyncio.sleep(0.05)
            yield b" "

    async def respond(request: Request) -> Response:
        return StreamingResponse(dripping(), media_type="application/json")

    from starlette.applications import Starlette

    with running(Starlette(routes=[Route("/{path:path}", respond)])) as port:
        began = time.monotonic()
        with pytest.raises(TryLater, match="timeout"):
            oauth2.discover(f"http://127.0.0.1:{port}", timeout=0.5)
        assert time.monotonic() - began < 5.0


@pytest.mark.parametrize("arguments", [{"issuer": None}, {"issuer": 5}, {"tls": "x"}, {"send": 4}, {"timeout": "x"}])
def test_an_argument_of_a_wrong_type_is_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(arguments))):
        oauth2.discover(**{"issuer": "https://auth.example.com", **arguments})
    with pytest.raises(ConfigurationError, match="url"):
        oauth2.discover_resource(None)  # type: ignore[arg-type]
