"""Our client against oidc-provider, unmodified, which binds all tokens to keys (RFC 9449) and wants nonces: logins in a
browser and by a device, requests, refreshes, a logout, and what a thief without the key can do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin

import httpx2
import pytest

from tests.interop.servers.conftest import SERVERS, Foreign, Running, process
from tests.interop.servers.dialects import oidc_provider
from tests.interop.servers.test_servers import Watch, ask
from tests.support.npm import node_modules
from unbroken import DeviceCode, LoginRefused, ProofKey, Session, SessionOver, oauth2
from unbroken.client.core import device_flow
from unbroken.httpx2 import SessionAuth

ALGORITHMS = ["ES256", "Ed25519", "EdDSA"]
FORMS = {"login": {"prompt": "login", "login": "ada", "password": "any"}, "consent": {"prompt": "consent"}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "node_modules").symlink_to(node_modules(SERVERS))
    foreign = Foreign("oidc_provider.mjs", oidc_provider, True)
    with process(["node", str(SERVERS / foreign.script), "0", str(folder), "dpop"], folder) as port:
        yield Running(foreign, port)


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture(params=ALGORITHMS)
def key(request: pytest.FixtureRequest) -> ProofKey:
    return ProofKey.in_memory(request.param)


def session_at(server: Running, key: ProofKey | None, watch: Watch | None = None, **settings: Any) -> Session:
    dialect = oauth2.discover(server.url).dialect(client_id="app")
    clock = {} if watch is None else {"clock": watch.clock}
    return Session(dialect, proof_key=key, **clock, **settings)


def log_in(session: Session) -> None:
    session.login_in_browser(scope="openid offline_access", prompt="consent", open_url=Person(), show=lambda _: None)


class Person:
    """Fills in the forms that a browser shows, until it is sent to the program."""

    def __init__(self) -> None:
        self.http = httpx2.Client(timeout=30)

    def __call__(self, url: str) -> None:
        answer = self.http.get(url)
        while (there := answer.headers.get("location")) or "<form" in answer.text:
            answer = self.http.get(urljoin(str(answer.url), there)) if there else self._submit(answer)

    def _submit(self, answer: httpx2.Response) -> httpx2.Response:
        fields = dict(re.findall(r'name="(\w+)"[^>]*value="([^"]*)"', answer.text))
        name = next(iter(re.findall(r'name="prompt" value="(\w+)"', answer.text)), "")
        action = re.findall(r'action="([^"]*)"', answer.text)[0]
        filled = FORMS.get(name) or fields | {"confirm": "yes"}
        return self.http.post(urljoin(str(answer.url), action), data=filled)


def stored(session: Session) -> Any:
    return session.store.load().tokens


def test_the_metadata_name_the_algorithms(server: Running) -> None:
    assert oauth2.discover(server.url).proof_algorithms == ("ES256", "Ed25519", "EdDSA")


def test_a_login_in_a_browser_is_bound_used_refreshed_and_ended(server: Running, key: ProofKey, watch: Watch) -> None:
    session = session_at(server, key, watch, require_bound=True)
    log_in(session)
    assert (stored(session).token_type, stored(session).jkt) == ("DPoP", key.thumbprint)
    with httpx2.Client(auth=SessionAuth(session), timeout=30) as client:
        assert client.get(server.me).json()["sub"] == "ada"
        for turn in range(3):
            server.expire()
            if turn:
                watch.expire()  # else the server's challenge tells
            assert client.get(server.me).json()["sub"] == "ada"
    held = stored(session)
    assert session.logout()
    thief = session_at(server, key)
    thief.import_tokens(held)
    with pytest.raises(SessionOver):
        thief.newer_token(held.access_token)


@pytest.mark.anyio
async def test_a_hundred_requests_at_once_cost_one_refresh(server: Running, watch: Watch) -> None:
    session = session_at(server, ProofKey.in_memory(), watch)
    log_in(session)
    before = server.count()["refreshes"]
    server.expire()
    assert await ask(server, session, 100) == [(200, "ada")] * 100
    assert server.count()["refreshes"] - before in (1, 2), "one, and one repetition if the nonce has changed meanwhile"


def test_a_login_by_a_device_is_bound(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_flow, "MIN_INTERVAL_SECONDS", 0.1)
    monkeypatch.setattr(device_flow, "DEFAULT_INTERVAL_SECONDS", 0.2)
    session = session_at(server, ProofKey.in_memory(), require_bound=True)

    def show(code: DeviceCode) -> None:
        Person()(code.verification_uri_complete)

    session.login_by_device(scope="openid offline_access", show=show)
    assert stored(session).token_type == "DPoP"
    assert session.newer_token(session.token())


def test_whoever_has_the_tokens_and_not_the_key_gets_nothing(server: Running, watch: Watch) -> None:
    session = session_at(server, ProofKey.in_memory())
    log_in(session)
    held = stored(session)
    for scheme in ("Bearer", "DPoP"):
        headers = {"authorization": f"{scheme} {held.access_token}"}
        assert httpx2.get(server.me, headers=headers, timeout=30).status_code in (400, 401)
    form = {"grant_type": "refresh_token", "refresh_token": held.refresh_token, "client_id": "app"}
    assert httpx2.post(server.url + "/token", data=form, timeout=30).status_code == 400
    assert session.newer_token(held.access_token) != held.access_token, "the session lives on"


def test_another_key_is_noticed_before_anything_is_sent(server: Running) -> None:
    session = session_at(server, ProofKey.in_memory())
    log_in(session)
    other = session_at(server, ProofKey.in_memory(), store=session.store)
    before = server.count()["refreshes"]
    with pytest.raises(SessionOver, match="another key"):
        other.token()
    assert server.count()["refreshes"] == before
    assert session.token(), "and its tokens are still there"


def test_a_login_without_a_key_is_refused_by_this_server(server: Running) -> None:
    with pytest.raises(LoginRefused):
        log_in(session_at(server, None))


def test_an_old_token_ends_the_family(server: Running, watch: Watch) -> None:
    key = ProofKey.in_memory()
    session = session_at(server, key, watch)
    log_in(session)
    old = stored(session)
    for _ in range(2):
        watch.expire()
        session.token()
    thief = Session(server.dialect, proof_key=key)
    thief.import_tokens(old)
    with pytest.raises(SessionOver):
        thief.newer_token(old.access_token)
    watch.expire()
    with pytest.raises(SessionOver):
        session.token()
