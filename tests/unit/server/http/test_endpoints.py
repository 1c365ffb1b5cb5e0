"""The endpoints as values: no framework, no socket. What goes over the wire is in tests/wire."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from unbroken.errors import ConfigurationError, StoreUnavailable
from unbroken.server import Endpoints, MemorySessionStore, Sessions
from unbroken.server.http.messages import MAX_BODY_BYTES, Request, Response

pytestmark = pytest.mark.anyio
JSON = {"content-type": "application/json"}
LOGIN = {"username": "ada", "password": "x"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


def anybody(name: str, _: str) -> str | None:
    return name


def endpoints_of(authenticate: Any = anybody, issuer: str = "https://id.example.org", **more: Any) -> Endpoints:
    return Endpoints(Sessions(MemorySessionStore(), issuer=issuer), authenticate, **more)


async def post(endpoints: Endpoints, path: str, bearer: str = "", **fields: Any) -> tuple[int, dict[str, Any]]:
    headers = JSON | ({"authorization": f"Bearer {bearer}"} if bearer else {})
    response = await endpoints.handle(Request("POST", path, headers, json.dumps(fields).encode(), "192.0.2.1"))
    assert response is not None
    return response.status, json.loads(response.body or b"{}")


async def get(endpoints: Endpoints, path: str, method: str = "GET") -> Response | None:
    return await endpoints.handle(Request(method, path))


async def test_a_path_that_is_none_of_ours_is_left_to_others() -> None:
    endpoints = endpoints_of()
    for path in ("/", "/auth", "/auth/", "/auth/login/", "/auth/sessions/a/b", "/login", "/xauth/login", "/auth.login"):
        assert await get(endpoints, path) is None


async def test_every_route_is_found_at_its_path_and_refuses_other_methods() -> None:
    endpoints = endpoints_of(prefix="/id/v1/")
    for route in endpoints.routes:
        path = endpoints.path(route).replace("{sid}", "abc")
        assert route.rooted or path.startswith("/id/v1/")
        assert (await get(endpoints, path, route.method)) is not None
        refused = await get(endpoints, path, "BREW")
        assert refused is not None
        assert refused.status == 405
        assert route.method in refused.headers["allow"].split(", ")


async def test_head_is_get_without_the_body() -> None:
    endpoints = endpoints_of()
    asked, got = [await get(endpoints, "/auth/health", method) for method in ("HEAD", "GET")]
    assert asked is not None
    assert got is not None
    assert (asked.status, asked.body, asked.headers["content-length"]) == (200, b"", str(len(got.body)))
    refused = await get(endpoints, "/auth/login", "HEAD")
    assert refused is not None
    assert (refused.status, refused.headers["allow"]) == (405, "POST")


async def test_a_prefix_may_be_empty() -> None:
    status, _ = await post(endpoints_of(prefix=""), "/login", username="ada", password="x")
    assert status == 200


async def test_a_plain_authenticate_runs_in_a_thread_and_an_async_one_in_the_loop() -> None:
    threads: list[int] = []

    def plain(name: str, _: str) -> str:
        threads.append(threading.get_ident())
        return name

    async def in_the_loop(name: str, _: str) -> str:
        return plain(name, _)

    class Directory:
        async def __call__(self, name: str, _: str) -> str:
            return plain(name, _)

    for authenticate in (plain, in_the_loop, Directory()):
        assert (await post(endpoints_of(authenticate), "/auth/login", username="ada", password="x"))[0] == 200
    here = threading.get_ident()
    assert [thread == here for thread in threads] == [False, True, True]


@pytest.mark.parametrize("nobody", [None, ""])
async def test_no_subject_is_a_refused_login(nobody: str | None) -> None:
    endpoints = endpoints_of(lambda _name, _password: nobody)
    assert await post(endpoints, "/auth/login", username="ada", password="x") == (
        401,
        {"error": "access_denied", "error_description": "wrong user name or password"},
    )
    assert endpoints.sessions.list_sessions() == []


def as_async(function: Callable[[str], Any]) -> Any:
    async def scopes_of(subject: str) -> Any:
        return function(subject)

    return scopes_of


@pytest.mark.parametrize("spelling", [lambda function: function, as_async], ids=["plain", "async"])
async def test_a_login_gets_the_part_of_its_scope_that_is_allowed_and_without_one_all_of_it(spelling: Any) -> None:
    endpoints = endpoints_of(scopes_of=spelling(lambda subject: ["read", f"is:{subject}"]))
    for scope, granted in (
        ("", "read is:ada"),
        ("read", "read"),
        ("is:ada read", "is:ada read"),
        ("read admin", "read"),
        ("is:eve admin", None),
    ):
        status, body = await post(endpoints, "/auth/login", username="ada", password="x", scope=scope)
        assert (status, body.get("scope")) == ((400, None) if granted is None else (200, granted)), scope


async def test_without_scopes_of_a_login_has_no_scope() -> None:
    status, body = await post(endpoints_of(), "/auth/login", username="ada", password="x", scope="introspect")
    assert (status, body["error"]) == (400, "invalid_scope")


async def test_the_password_grant_is_off_unless_switched_on() -> None:
    body = b"grant_type=password&username=ada&password=x"
    for on, status, error in ((False, 400, "unsupported_grant_type"), (True, 200, None)):
        endpoints = endpoints_of(password_grant=on)
        response = await endpoints.handle(Request("POST", "/auth/token", FORM, body))
        facts = await get(endpoints, "/.well-known/oauth-authorization-server")
        assert response is not None
        assert facts is not None
        assert (response.status, json.loads(response.body).get("error")) == (status, error)
        assert ("password" in json.loads(facts.body)["grant_types_supported"]) is on


@pytest.mark.parametrize("issuer", ["https://example.org/tenant/one", "https://example.org/tenant/one/"])
async def test_the_metadata_of_an_issuer_with_a_path_is_also_where_rfc_8414_looks(issuer: str) -> None:
    endpoints = endpoints_of(issuer=issuer)
    plain = await get(endpoints, "/.well-known/oauth-authorization-server")
    inserted = await get(endpoints, "/.well-known/oauth-authorization-server/tenant/one")
    assert plain is not None
    assert inserted == plain
    facts = json.loads(plain.body)
    assert (facts["issuer"], facts["token_endpoint"]) == (issuer, "https://example.org/auth/token")


async def test_an_issuer_without_a_path_has_one_place_for_its_metadata() -> None:
    places = [route.path for route in endpoints_of(issuer="https://example.org/").routes if route.name == "metadata"]
    assert places == ["/.well-known/oauth-authorization-server"]


async def test_a_body_may_be_64_kib_and_no_longer() -> None:
    endpoints = endpoints_of()
    for length, status in ((MAX_BODY_BYTES, 400), (MAX_BODY_BYTES + 1, 413)):
        response = await endpoints.handle(Request("POST", "/auth/login", JSON, b" " * length))
        assert response is not None
        assert response.status == status


async def test_a_store_that_does_not_respond_is_503_and_says_when_to_come_back(monkeypatch: Any) -> None:
    endpoints = endpoints_of()
    _, tokens = await post(endpoints, "/auth/login", username="ada", password="x")

    async def dead(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("the database is locked", retry_after=2.2)

    for name in ("rotate", "rotate_returning"):
        monkeypatch.setattr(endpoints.sessions.store, name, dead)
    request = Request("POST", "/auth/refresh", JSON, json.dumps({"refresh_token": tokens["refresh_token"]}).encode())
    response = await endpoints.handle(request)
    assert response is not None
    assert (response.status, response.headers["retry-after"], response.headers["cache-control"]) == (
        503,
        "3",
        "no-store",
    )
    assert json.loads(response.body)["error"] == "temporarily_unavailable"


async def test_a_server_that_is_set_up_wrongly_is_503_and_its_log_says_why(monkeypatch: Any, caplog: Any) -> None:
    endpoints = endpoints_of()
    _, tokens = await post(endpoints, "/auth/login", username="ada", password="x")

    def no_key(_: float) -> None:
        raise ConfigurationError("no key may make tokens now")

    monkeypatch.setattr(await endpoints.sessions.akeyring(), "signer", no_key)
    for path, fields in (("/auth/refresh", {"refresh_token": tokens["refresh_token"]}), ("/auth/login", LOGIN)):
        status, body = await post(endpoints, path, **fields)
        assert (status, body["error"]) == (503, "temporarily_unavailable")
    assert "no key may make tokens now" in caplog.text
    monkeypatch.undo()
    assert (await post(endpoints, "/auth/refresh", refresh_token=tokens["refresh_token"]))[0] == 200, "nothing is spent"


async def test_the_address_kept_is_the_connections_and_not_a_headers() -> None:
    endpoints = endpoints_of()
    body = json.dumps({"username": "ada", "password": "x"}).encode()
    headers = JSON | {"x-forwarded-for": "203.0.113.9", "user-agent": "probe"}
    await endpoints.handle(Request("POST", "/auth/login", headers, body, "192.0.2.1"))
    [info] = endpoints.sessions.list_sessions()
    assert (info.ip, info.user_agent) == ("192.0.2.1", "probe")


def test_a_request_and_a_response_show_no_secret() -> None:
    request = Request("POST", "/auth/login", {"authorization": "Bearer SECRET"}, b"SECRET")
    assert "SECRET" not in repr(request) + repr(Response(200, {}, b"SECRET"))


@pytest.mark.parametrize(
    ("key", "echoed"), [("7c9e", True), ('"7c9e"', True), ("", False), ('"open', False), ("k" * 201, False)]
)
async def test_the_response_to_a_refresh_repeats_the_idempotency_key_that_counted(key: str, echoed: bool) -> None:
    endpoints = endpoints_of()
    _, tokens = await post(endpoints, "/auth/login", **LOGIN)
    for path, headers, body in (
        ("/auth/refresh", JSON, '{{"refresh_token": "{}"}}'),
        ("/auth/token", FORM, "grant_type=refresh_token&refresh_token={}"),
    ):
        sent = headers | ({"idempotency-key": key} if key else {})
        response = await endpoints.handle(Request("POST", path, sent, body.format(tokens["refresh_token"]).encode()))
        assert response is not None
        assert response.status == 200
        assert response.headers.get("idempotency-key") == (key if echoed else None)
        tokens = json.loads(response.body)
