"""The current session in FastAPI, and OpenAPI as the docs page reads it. Endpoints: tests/wire.

Modules: testing/overrides.py.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import Depends, FastAPI, Security
from openapi_spec_validator import validate

from tests.support.backend import running
from unbroken.fastapi import Auth, Bearer
from unbroken.server import Claims, Cookies, MemorySessionStore, Sessions

PASSWORD = "correct horse"


def authenticate(name: str, password: str) -> str | None:
    return name if password == PASSWORD else None


def application(*, password_grant: bool = True, issuer: str = "https://id.example.org") -> tuple[FastAPI, Auth]:
    sessions = Sessions(MemorySessionStore(), issuer=issuer)
    auth = Auth(
        sessions,
        authenticate,
        password_grant=password_grant,
        scopes_of=lambda _: ["read"],
        scopes={"read": "Read orders", "write": "Write orders"},
    )
    app = FastAPI()
    app.include_router(auth.router)

    @app.get("/orders")
    async def orders(claims: Annotated[Claims, Depends(auth.claims)]) -> dict[str, str]:
        return {"sub": claims.subject}

    @app.get("/write")
    async def write(claims: Annotated[Claims, Security(auth.claims, scopes=["write"])]) -> dict[str, str]:
        return {"sub": claims.subject}

    return app, auth


@pytest.fixture(scope="module")
def http() -> Iterator[httpx2.Client]:
    app, _ = application()
    with running(app) as port, httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        yield client


def authorized(http: httpx2.Client, **how: Any) -> dict[str, str]:
    """What the docs page does when its user presses Authorize."""
    flow = http.get("/openapi.json").json()["components"]["securitySchemes"]["OAuth2PasswordBearer"]["flows"][
        "password"
    ]
    form = {"grant_type": "password", "username": "ada", "password": PASSWORD, **how.pop("fields", {})}
    answer = http.post(flow["tokenUrl"], data=form, **how)
    assert answer.status_code == 200, answer.text
    return {"authorization": f"{answer.json()['token_type']} {answer.json()['access_token']}"}


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"fields": {"scope": ""}},
        {"fields": {"scope": "read"}},
        {"fields": {"client_id": "docs"}},
        {"fields": {"client_id": "docs", "client_secret": ""}},
        {"headers": {"authorization": "Basic Og=="}},
        {"headers": {"authorization": "Basic ZG9jczo="}},
    ],
    ids=["bare", "empty scope", "scope", "client id", "empty secret", "empty Basic", "Basic"],
)
def test_the_authorize_button_works(http: httpx2.Client, how: dict[str, Any]) -> None:
    headers = authorized(http, **how)
    assert http.get("/orders", headers=headers).json() == {"sub": "ada"}
    assert http.get("/auth/session", headers=headers).json()["sub"] == "ada"


def test_a_refusal_carries_the_challenge_and_its_reason(http: httpx2.Client) -> None:
    answer = http.get("/orders", headers={"authorization": "Bearer nonsense"})
    assert (answer.status_code, answer.json()["detail"]["reason"]) == (401, "malformed")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert http.get("/orders").headers["www-authenticate"] == 'Bearer realm="unbroken", DPoP algs="ES256 Ed25519 EdDSA"'


def test_too_little_scope_is_403_and_says_what_is_missing(http: httpx2.Client) -> None:
    answer = http.get("/write", headers=authorized(http))
    assert (answer.status_code, answer.json()["detail"]["error"]) == (403, "insufficient_scope")
    assert 'scope="write"' in answer.headers["www-authenticate"]


def test_a_bearer_of_another_service_takes_the_cookie_and_knows_the_origins() -> None:
    sessions, cookies, app = Sessions(MemorySessionStore()), Cookies("both"), FastAPI()
    auth = Bearer(sessions, cookies=cookies, origins=["https://app.example.com"])

    @app.post("/orders")
    async def orders(claims: Annotated[Claims, Depends(auth.claims)]) -> dict[str, str]:
        return {"sub": claims.subject}

    cookie = {"cookie": f"{cookies.access_name}={sessions.create('ada').access_token}"}
    script = {**cookie, "x-unbroken": "1", "sec-fetch-site": "cross-site"}
    with running(app) as port, httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
        allowed = http.post("/orders", headers={**script, "origin": "https://app.example.com"})
        assert (allowed.status_code, allowed.json()) == (200, {"sub": "ada"})
        for headers in ({**script, "origin": "https://evil.example"}, cookie):
            assert http.post("/orders", headers=headers).status_code == 403
    assert "SessionCookie" in app.openapi()["components"]["securitySchemes"]


def test_a_test_may_put_another_session_in_place() -> None:
    app, auth = application()
    somebody = Claims("grace", "sid", "app", "write", "iss", "aud", 0.0, 0.0, "jti")
    app.dependency_overrides[auth.claims] = lambda: somebody
    with running(app) as port:
        assert httpx2.get(f"http://127.0.0.1:{port}/write", timeout=30).json() == {"sub": "grace"}


# ---- OpenAPI ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("password_grant", [True, False])
@pytest.mark.parametrize("issuer", ["https://id.example.org", "https://id.example.org/tenant"])
def test_the_document_is_valid_and_has_every_route(password_grant: bool, issuer: str) -> None:
    app, auth = application(password_grant=password_grant, issuer=issuer)
    document = app.openapi()
    validate(document)
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    for route in auth.router.routes:
        assert {(method, route.path) for method in route.methods - {"HEAD"}} <= described  # type: ignore[attr-defined]
    assert [route.name for route in auth.router.routes].count("metadata") == 1 + issuer.endswith("tenant")  # type: ignore[attr-defined]
    names = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(names) == len(set(names))


def test_every_bearer_operation_names_the_scheme_and_no_other_does() -> None:
    for password_grant, name in ((True, "OAuth2PasswordBearer"), (False, "HTTPBearer")):
        document = application(password_grant=password_grant)[0].openapi()
        secured = {path for path, item in document["paths"].items() for one in item.values() if "security" in one}
        assert secured == {
            "/auth/logout", "/auth/introspect", "/auth/session", "/auth/sessions", "/auth/sessions/revoke-others",
            "/auth/sessions/{sid}", "/auth/ticket", "/auth/revocations", "/orders", "/write",
        }  # fmt: skip
        assert document["paths"]["/write"]["get"]["security"] == [{name: ["write"]}, {"DPoP": ["write"]}]


def test_the_schemes_are_what_the_docs_page_needs() -> None:
    flows = application()[0].openapi()["components"]["securitySchemes"]["OAuth2PasswordBearer"]["flows"]
    assert (flows["password"]["tokenUrl"], flows["password"]["refreshUrl"]) == ("/auth/token", "/auth/token")
    assert flows["password"]["scopes"].keys() == {"read", "write"}
    plain = application(password_grant=False)[0].openapi()["components"]["securitySchemes"]
    assert plain.pop("DPoP").items() >= {"type": "http", "scheme": "DPoP"}.items()
    assert plain == {"HTTPBearer": {"type": "http", "scheme": "bearer"}}


def test_requests_responses_and_refusals_are_described() -> None:
    paths = application()[0].openapi()["paths"]
    login = paths["/auth/login"]["post"]
    assert login["requestBody"]["content"]["application/json"]["schema"]["required"] == ["username", "password"]
    assert login["responses"].keys() >= {"200", "400", "401", "413", "503"}
    assert login["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/TokenBody")
    form = paths["/auth/token"]["post"]["requestBody"]["content"]
    assert form.keys() == {"application/x-www-form-urlencoded"}
    assert paths["/auth/sessions/{sid}"]["delete"]["responses"].keys() >= {"204", "401", "404"}
    assert "422" not in str(paths["/auth/login"]["post"]["responses"].keys())
