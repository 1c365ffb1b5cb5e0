"""Sessions that are bound to a key: what a login, a refresh, a logout and a request need, and what nobody gets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.clock import ServerClock
from tests.support.proofs import ClientKey
from unbroken.errors import ConfigurationError, InvalidGrant, InvalidProof, InvalidToken, NonceRequired
from unbroken.server import (
    MemorySessionStore,
    ProofPolicy,
    RequestProof,
    Sessions,
    SqliteSessionStore,
    VerifiedProof,
)
from unbroken.server.events import KeyNotProven, ReuseDetected, ServerEvent
from unbroken.tokens import TokenResponse

URL = "https://id.example.com"
KEY, OTHER_KEY = ClientKey("Ed25519"), ClientKey("Ed25519")


class Server:
    """Sessions with a clock that stands still, and what a client asks of them."""

    def __init__(self, store: Any, **settings: Any) -> None:
        self.clock, self.events = ServerClock(), list[ServerEvent]()
        self.sessions = Sessions(store, issuer=URL, on_event=self.events.append, clock=self.clock, **settings)

    def request(self, key: ClientKey, method: str = "POST", path: str = "/auth/token", **changed: Any) -> RequestProof:
        text = key.proof(method, URL + path, **{"iat": int(self.clock.now), **changed})
        return RequestProof(text, method, path)

    def proven(self, key: ClientKey, **changed: Any) -> VerifiedProof:
        return self.sessions.verify_proof(self.request(key, **changed))

    def bound(self, **more: Any) -> TokenResponse:
        return self.sessions.create("ada", proof=self.proven(KEY), **more)

    def verify(self, token: str, key: ClientKey = KEY, **changed: Any) -> Any:
        return self.sessions.verify(token, self.request(key, "GET", "/orders", access_token=token, **changed))

    def of(self, kind: type[ServerEvent]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return MemorySessionStore() if request.param == "memory" else SqliteSessionStore(tmp_path / "store.db")


@pytest.fixture
def server(store: Any) -> Iterator[Server]:
    made = Server(store)
    with closing(made.sessions):
        yield made


def test_a_login_with_a_proof_is_bound_to_its_key(server: Server) -> None:
    tokens = server.bound()
    assert tokens.token_type == "DPoP"
    assert server.verify(tokens.access_token).jkt == KEY.jkt
    [info] = server.sessions.list_sessions("ada")
    assert (info.jkt, info.to_json()["bound"]) == (KEY.jkt, True)
    assert server.sessions.inspect_access(tokens.access_token).jkt == KEY.jkt
    assert server.sessions.create("bob").token_type == "Bearer"


def test_a_refresh_of_the_same_key_goes_on(server: Server) -> None:
    tokens = server.bound()
    for seq in (1, 2, 3):
        tokens = server.sessions.refresh(tokens.refresh_token or "", proof=server.proven(KEY))
        assert (tokens.refresh_seq, tokens.token_type) == (seq, "DPoP")
    assert server.verify(tokens.access_token).jkt == KEY.jkt


def test_a_session_that_another_process_has_made_is_refreshed_too(store: Any, server: Server) -> None:
    tokens = server.bound()
    with closing(Sessions(store, issuer=URL, clock=server.clock)) as other:
        proof = other.verify_proof(server.request(KEY))
        assert other.refresh(tokens.refresh_token or "", proof=proof).token_type == "DPoP"
        with pytest.raises(InvalidGrant, match="another key"):
            other.refresh(tokens.refresh_token or "", proof=other.verify_proof(server.request(OTHER_KEY)))


@pytest.mark.parametrize("coordinated", [False, True])
@pytest.mark.parametrize("used_up", [False, True], ids=["the newest token", "a used token"])
def test_a_stolen_refresh_token_without_the_key_buys_nothing_and_ends_nothing(
    server: Server, *, coordinated: bool, used_up: bool
) -> None:
    stolen = tokens = server.bound(coordinated=coordinated)
    for _ in range(3 * used_up):
        tokens = server.sessions.refresh(tokens.refresh_token or "", proof=server.proven(KEY))
    for _ in range(5):
        with pytest.raises(InvalidProof) as refused:
            server.sessions.refresh(stolen.refresh_token or "")
        assert refused.value.reason == "missing"
        with pytest.raises(InvalidGrant) as rejected:
            server.sessions.refresh(stolen.refresh_token or "", proof=server.proven(OTHER_KEY))
        assert rejected.value.reason == "wrong_key"
    assert [(event.subject, event.reason) for event in server.of(KeyNotProven)] == [("ada", "missing")], "once a minute"
    assert not server.of(ReuseDetected)
    assert server.sessions.refresh(tokens.refresh_token or "", proof=server.proven(KEY)).token_type == "DPoP"


def test_with_the_key_reuse_is_what_it_was(server: Server) -> None:
    stolen = tokens = server.bound(coordinated=True)
    for _ in range(2):
        tokens = server.sessions.refresh(tokens.refresh_token or "", proof=server.proven(KEY))
    with pytest.raises(InvalidGrant) as rejected:
        server.sessions.refresh(stolen.refresh_token or "", proof=server.proven(KEY))
    assert rejected.value.reason == "reuse"
    assert server.of(ReuseDetected)


def test_a_copied_refresh_request_is_refused_on_every_node_and_ends_nothing(store: Any, server: Server) -> None:
    stolen = server.bound(coordinated=True)
    copied = server.request(KEY)
    sessions = server.sessions
    tokens = sessions.refresh(stolen.refresh_token or "", proof=sessions.verify_proof(copied))
    tokens = sessions.refresh(tokens.refresh_token or "", proof=server.proven(KEY))
    with closing(Sessions(store, issuer=URL, clock=server.clock)) as other:
        for node in (sessions, other):
            with pytest.raises(InvalidProof) as refused:
                node.refresh(stolen.refresh_token or "", proof=node.verify_proof(copied))
            assert refused.value.reason == "replayed"
    assert sessions.refresh(tokens.refresh_token or "", proof=server.proven(KEY)).refresh_seq == 3


def test_a_refresh_cannot_bind_a_session_that_is_not_bound(server: Server) -> None:
    tokens = server.sessions.create("ada")
    again = server.sessions.refresh(tokens.refresh_token or "", proof=server.proven(OTHER_KEY))
    assert again.token_type == "Bearer", "a thief would bind it to his own key"
    assert server.sessions.refresh(again.refresh_token or "").refresh_seq == 2


def test_a_bound_token_is_no_bearer_token(server: Server) -> None:
    token = server.bound().access_token
    assert server.verify(token).subject == "ada"
    for _ in range(2):  # whether or not it is cached
        assert server.sessions.verify_cached(token) is None
        with pytest.raises(InvalidToken) as refused:
            server.sessions.verify(token)
        assert refused.value.reason == "bound"
        with pytest.raises(InvalidToken):
            server.sessions.ticket(token)


def test_a_bearer_token_is_not_taken_with_a_proof(server: Server) -> None:
    token = server.sessions.create("ada").access_token
    with pytest.raises(InvalidToken) as refused:
        server.verify(token)
    assert refused.value.reason == "not_bound"


def test_a_proof_of_another_key_uses_no_token(server: Server) -> None:
    token = server.bound().access_token
    with pytest.raises(InvalidToken) as refused:
        server.verify(token, OTHER_KEY)
    assert refused.value.reason == "wrong_key"


def test_a_ticket_that_was_bought_with_a_proof_opens_a_connection_without_one(server: Server) -> None:
    claims = server.verify(server.bound().access_token)
    ticket = server.sessions.ticket(claims)
    assert server.sessions.redeem(ticket.text) == claims


def test_only_the_key_logs_out(server: Server) -> None:
    tokens = server.bound()
    for given in ({"access_token": tokens.access_token}, {"refresh_token": tokens.refresh_token}):
        with pytest.raises(InvalidProof, match="a proof is required"):
            server.sessions.logout(**given)
        with pytest.raises(InvalidProof, match="another key"):
            server.sessions.logout(**given, proof=server.proven(OTHER_KEY))
    assert server.verify(tokens.access_token)
    assert server.sessions.logout(refresh_token=tokens.refresh_token, proof=server.proven(KEY))
    assert server.sessions.list_sessions("ada") == []


def test_a_policy_may_let_any_token_log_out(store: Any) -> None:
    server = Server(store, proofs=ProofPolicy(revoke_without_proof=True))
    assert server.sessions.logout(refresh_token=server.bound().refresh_token)


def test_a_client_may_have_to_be_bound(store: Any) -> None:
    before, server = Server(store), Server(store, proofs=ProofPolicy(clients={"app": "required"}))
    old = before.sessions.create("ada", client_id="app")
    with pytest.raises(InvalidProof, match="a proof is required"):
        server.sessions.create("ada", client_id="app")
    assert server.sessions.create("ada").token_type == "Bearer"
    assert server.bound(client_id="app").token_type == "DPoP"
    with pytest.raises(InvalidProof):
        server.sessions.refresh(old.refresh_token or "", client_id="app")
    with pytest.raises(InvalidGrant) as rejected:
        server.sessions.refresh(old.refresh_token or "", client_id="app", proof=server.proven(KEY))
    assert rejected.value.reason == "not_bound"
    assert before.sessions.refresh(old.refresh_token or "", client_id="app").refresh_seq == 1, "it lives on"


def test_with_nonces_a_proof_needs_the_newest_and_no_clock(store: Any) -> None:
    server = Server(store, proofs=ProofPolicy(require_nonce=True))
    with pytest.raises(NonceRequired) as first:
        server.bound()
    wrong_clock = {"nonce": first.value.nonce, "iat": int(server.clock.now) - 86400}
    assert server.sessions.create("ada", proof=server.proven(KEY, **wrong_clock)).token_type == "DPoP"
    server.clock.now += 61.0
    with pytest.raises(NonceRequired) as later:
        server.proven(KEY, nonce=first.value.nonce)
    assert server.proven(KEY, nonce=later.value.nonce)


def test_a_bound_session_stays_bound_when_the_policy_turns_proofs_off(store: Any) -> None:
    tokens = Server(store).bound()
    server = Server(store, proofs="off")
    with pytest.raises(InvalidProof):
        server.sessions.refresh(tokens.refresh_token or "")
    with pytest.raises(InvalidToken):
        server.sessions.verify(tokens.access_token)


def test_a_proof_of_a_wrong_type_is_named(server: Server) -> None:
    tokens, raw = server.bound(), server.request(KEY)
    sessions: Any = server.sessions
    for call in (
        lambda: sessions.create("ada", proof=raw),
        lambda: sessions.refresh(tokens.refresh_token, proof=raw),
        lambda: sessions.logout(refresh_token=tokens.refresh_token, proof="proof"),
        lambda: sessions.verify(tokens.access_token, "proof"),
        lambda: sessions.verify_proof(raw.text),
    ):
        with pytest.raises(ConfigurationError, match="proof must be"):
            call()
