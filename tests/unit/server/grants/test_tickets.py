"""Tickets: what they say, that each is used once on all nodes, and what is not taken for one. Over all four stores."""

from __future__ import annotations

import hmac
import json
import secrets
import threading
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from unbroken._concurrency import run_sync
from unbroken.errors import ConfigurationError, InvalidToken, Refused, StoreUnavailable, TryLater
from unbroken.server import Claims, MemorySessionStore, MfaRequired, Policy, Sessions, open_store
from unbroken.server.core.session_info import NewSession
from unbroken.server.grants.tickets import MAX_TICKET_CHARS, TICKET_TOKEN
from unbroken.server.keys.access_token import AccessTokenVerifier
from unbroken.server.keys.keyring import Keyring
from unbroken.server.login.mfa import MfaTokens
from unbroken.server.stores import StoreWrapper


class Clock:
    def __init__(self, ahead: float = 0.0) -> None:
        self.ahead = ahead
        self.now = time.time()

    def __call__(self) -> float:
        return self.now + self.ahead


def claims_hook(_: object) -> dict[str, object]:
    return {"tenant": "acme", "roles": ["till", {"of": 3}]}


@dataclass
class Nodes:
    """Two processes over one store, as far as one process can play them."""

    here: Sessions
    there: Sessions
    clock: Clock
    there_clock: Clock


@pytest.fixture(params=["memory", "sqlite", "postgres", "redis"])
def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Nodes]:
    kind: str = request.param
    urls = {"memory": "memory:", "sqlite": f"sqlite:///{tmp_path}/s.db"}
    url = urls.get(kind) or request.getfixturevalue(kind).url
    store = open_store(url)
    other = store if kind == "memory" else open_store(url)
    clock, there_clock = Clock(), Clock()
    here = Sessions(store, clock=clock, claims=claims_hook)
    there = Sessions(other, clock=there_clock)
    yield Nodes(here, there, clock, there_clock)
    here.close()
    there.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    return Sessions(MemorySessionStore(), clock=clock, claims=claims_hook)


def bought(sessions: Sessions, name: str = "ada", **more: Any) -> str:
    return sessions.ticket(sessions.create(name, **more).access_token).text


def refused(sessions: Sessions, ticket: Any) -> str:
    with pytest.raises(InvalidToken) as caught:
        sessions.redeem(ticket)
    return caught.value.reason


def outcome(sessions: Sessions, ticket: str) -> str:
    try:
        return sessions.redeem(ticket).subject
    except InvalidToken as error:
        return error.reason


# ---- what it says ----------------------------------------------------------------------------------------------------


def test_a_ticket_says_on_another_node_all_that_its_access_token_said(nodes: Nodes) -> None:
    token = nodes.here.create("ada", scope="read write", client_id="web").access_token
    ticket = nodes.here.ticket(token)
    claims = nodes.there.redeem(ticket.text)
    assert claims == nodes.here.verify(token)
    assert (claims.subject, claims.scope, claims.client_id) == ("ada", "read write", "web")
    assert claims.extra == {"tenant": "acme", "roles": ["till", {"of": 3}]}
    with pytest.raises(TypeError):
        claims.extra["tenant"] = "evil"  # type: ignore[index]
    assert ticket.to_response() == {"ticket": ticket.text, "expires_in": 30}


def test_a_ticket_is_redeemed_in_an_event_loop(nodes: Nodes, anyio_backend: str) -> None:
    async def both() -> tuple[Claims, Claims, str]:
        token = (await nodes.here.acreate("ada")).access_token
        ticket = await nodes.here.aticket(token)
        claims = await nodes.here.aredeem(ticket.text)
        with pytest.raises(InvalidToken) as caught:
            await nodes.here.aredeem(ticket.text)
        return claims, await nodes.here.averify(token), caught.value.reason

    said, verified, again = anyio.run(both, backend=anyio_backend)
    assert said == verified
    assert again == "used"


def test_a_ticket_is_safe_in_urls_and_hidden_from_reprs(sessions: Sessions) -> None:
    ticket = sessions.ticket(sessions.create("ada").access_token)
    assert ticket.text.replace("-", "").replace("_", "").replace(".", "").isalnum()
    assert ticket.text.isascii()
    assert ticket.text not in repr(ticket)


def test_a_ticket_is_issued_for_verified_claims(sessions: Sessions) -> None:
    claims = sessions.verify(sessions.create("ada").access_token)
    assert sessions.redeem(sessions.ticket(claims).text) == claims


def test_each_ticket_is_different_and_good_once(sessions: Sessions) -> None:
    token = sessions.create("ada").access_token
    tickets = [sessions.ticket(token).text for _ in range(3)]
    assert [outcome(sessions, ticket) for ticket in tickets * 2] == ["ada"] * 3 + ["used"] * 3


# ---- once ------------------------------------------------------------------------------------------------------------


def test_a_second_use_is_refused_here_and_on_other_nodes(nodes: Nodes) -> None:
    ticket = bought(nodes.here)
    assert nodes.here.redeem(ticket).subject == "ada"
    assert [refused(node, ticket) for node in (nodes.here, nodes.there)] == ["used"] * 2


def test_of_sixteen_at_once_on_two_nodes_exactly_one_wins(nodes: Nodes) -> None:
    ticket, gate = bought(nodes.here), threading.Barrier(16)

    def redeem(number: int) -> str:
        gate.wait(10)
        return outcome((nodes.here, nodes.there)[number % 2], ticket)

    with ThreadPoolExecutor(16) as pool:
        outcomes = sorted(pool.map(redeem, range(16)))
    assert outcomes == ["ada"] + ["used"] * 15


@pytest.mark.parametrize("later", [0.0, 1.0, 28.9, 29.0, 29.5, 29.99])
def test_a_used_ticket_stays_used_until_it_expires(nodes: Nodes, later: float) -> None:
    ticket = bought(nodes.here)
    nodes.here.redeem(ticket)
    for clock in (nodes.clock, nodes.there_clock):
        clock.ahead += later
    assert refused(nodes.there, ticket) == "used"


@pytest.mark.parametrize("apart", [-25.0, 25.0])
def test_nodes_whose_clocks_differ_do_not_redeem_a_ticket_twice(nodes: Nodes, apart: float) -> None:
    ticket = bought(nodes.here)
    nodes.there_clock.ahead = apart
    assert nodes.there.redeem(ticket).subject == "ada"
    for _ in range(29):
        nodes.clock.ahead += 1.0
        assert refused(nodes.here, ticket) == "used"


# ---- how long --------------------------------------------------------------------------------------------------------


def test_a_ticket_lives_for_thirty_seconds(sessions: Sessions, clock: Clock) -> None:
    early, late = bought(sessions), bought(sessions)
    clock.ahead += 29.9
    assert sessions.redeem(early).subject == "ada"
    clock.ahead += 0.2
    assert refused(sessions, late) == "expired"


def test_a_ticket_does_not_outlive_its_access_token(clock: Clock) -> None:
    sessions = Sessions(MemorySessionStore(), clock=clock, policy=Policy(access_ttl=60.0))
    claims = sessions.verify(sessions.create("ada").access_token)
    clock.ahead += 50.0
    ticket = sessions.ticket(claims)
    assert 9.0 < ticket.expires_in < 11.5
    assert sessions.redeem(sessions.ticket(claims).text).expires_at == claims.expires_at
    clock.ahead += 11.5
    assert refused(sessions, ticket.text) == "expired"
    with pytest.raises(InvalidToken, match="expired"):
        sessions.ticket(claims)


@pytest.mark.parametrize("how", ["logout", "revoke", "others", "all"])
def test_a_ticket_dies_with_its_session(nodes: Nodes, how: str) -> None:
    granted = nodes.here.create(f"eve {secrets.token_hex(4)}")
    claims = nodes.here.verify(granted.access_token)
    ticket = nodes.here.ticket(granted.access_token).text
    {
        "logout": lambda: nodes.here.logout(access_token=granted.access_token),
        "revoke": lambda: nodes.here.revoke(claims.sid),
        "others": lambda: nodes.here.revoke_others(claims.subject, keep="another"),
        "all": lambda: nodes.here.revoke_subject(claims.subject),
    }[how]()
    assert refused(nodes.here, ticket) == "revoked"
    nodes.there.keyring()  # looks at the store, as every node does twice a second
    assert refused(nodes.there, ticket) == "revoked"
    with pytest.raises(InvalidToken):
        nodes.here.ticket(granted.access_token)


def test_a_ticket_survives_new_keys_and_dies_with_a_retired_key(sessions: Sessions) -> None:
    first, second = bought(sessions), bought(sessions)
    [old] = [record for record in sessions.keyring().records if record.use == "mac"]
    sessions.rotate_keys(publish_ahead=0.0)
    assert sessions.redeem(first).subject == "ada"
    sessions.retire_key(old.kid)
    assert refused(sessions, second) == "malformed"


def test_a_node_learns_of_a_key_by_the_first_ticket_it_signed(nodes: Nodes) -> None:
    nodes.there.keyring()
    nodes.here.rotate_keys(publish_ahead=0.0)
    assert nodes.there.redeem(bought(nodes.here)).subject == "ada"


# ---- what is no ticket -----------------------------------------------------------------------------------------------


def test_an_access_token_is_no_ticket_and_a_ticket_is_no_access_token(sessions: Sessions) -> None:
    granted = sessions.create("ada")
    assert refused(sessions, granted.access_token) == "malformed"
    assert refused(sessions, granted.refresh_token) == "malformed"
    ticket = sessions.ticket(granted.access_token).text
    with pytest.raises(InvalidToken) as caught:
        sessions.verify(ticket)
    assert caught.value.reason == "malformed"
    assert sessions.logout(access_token=ticket, refresh_token=ticket) is False
    assert sessions.inspect_refresh(ticket) is None


def parts(token: str) -> list[dict[str, Any]]:
    return [json.loads(urlsafe_b64decode(part + "==")) for part in token.split(".")[:2]]


def mac_of(sessions: Sessions) -> bytes:
    return sessions.keyring().mac(sessions.clock()).secret


def b64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


def forged(sessions: Sessions, key: bytes = b"", header: Any = (), said: Any = (), digest: str = "sha256") -> str:
    """A ticket with a header and claims that are not all those of a real one, by a key that is right by default."""
    head, body = parts(bought(sessions))
    shown = [json.dumps({**head, **dict(header)}), json.dumps({**body, **dict(said)})]
    message = ".".join(b64(part.encode()) for part in shown)
    return f"{message}.{b64(hmac.digest(key or ticket_key(sessions), message.encode(), digest))}"


def ticket_key(sessions: Sessions) -> bytes:
    return TICKET_TOKEN.key(mac_of(sessions)).raw_value


def test_a_forged_ticket_is_refused_for_what_was_forged(sessions: Sessions) -> None:
    assert sessions.redeem(forged(sessions)).subject == "ada"


@pytest.mark.parametrize("typ", ["at+jwt", "JWT", "TICKET+JWT", "login-step+jwt", "", None, 3])
def test_a_token_of_another_type_is_no_ticket_even_if_we_signed_it(sessions: Sessions, typ: str | None) -> None:
    assert parts(bought(sessions))[0]["typ"] == TICKET_TOKEN.typ
    assert refused(sessions, forged(sessions, header={"typ": typ})) == "malformed"


def test_another_key_of_this_server_makes_no_ticket(sessions: Sessions) -> None:
    signing = sessions.keyring().signing[0]
    for secret in (
        mac_of(sessions),
        signing.kid.encode(),
        hmac.digest(mac_of(sessions), b"unbroken login step", "sha256"),
    ):
        assert refused(sessions, forged(sessions, secret)) == "malformed"


def test_mfa_tokens_and_tickets_do_not_stand_for_each_other(sessions: Sessions) -> None:
    steps = MfaTokens(sessions)
    step = run_sync(steps.issue(MfaRequired("ada", "totp"), b"account", b"spelling", NewSession()))
    assert refused(sessions, step) == "malformed"
    with pytest.raises(Refused):
        run_sync(steps.read(bought(sessions)))


@pytest.mark.parametrize("header", [{"kid": "99"}, {"kid": "x"}, {"kid": None}, {"kid": "9" * 5000}, {"crit": ["exp"]}])
def test_a_ticket_under_an_unknown_key_is_malformed(sessions: Sessions, header: dict[str, Any]) -> None:
    assert refused(sessions, forged(sessions, header=header)) == "malformed"


@pytest.mark.parametrize(
    ("alg", "digest"), [("HS512", "sha512"), ("HS384", "sha384"), ("EdDSA", "sha256"), (None, "sha256")]
)
def test_a_ticket_with_another_algorithm_is_malformed(sessions: Sessions, alg: str | None, digest: str) -> None:
    assert refused(sessions, forged(sessions, header={"alg": alg}, digest=digest)) == "malformed"


def test_a_ticket_without_a_signature_is_refused(sessions: Sessions) -> None:
    head, body, _ = bought(sessions).split(".")
    none = "eyJhbGciOiJub25lIiwidHlwIjoidGlja2V0K2p3dCIsImtpZCI6IjEifQ"
    for text in (f"{head}.{body}.", f"{none}.{body}.", f"{none}.{body}", f"{head}.{body}"):
        assert refused(sessions, text) == "malformed"


@pytest.mark.parametrize("said", [{"iss": "https://evil.example"}, {"aud": "bank"}, {"aud": ["unbroken"]}, {"jti": 3},
                                  {"exp": None}, {"access": {}}, {"access": None}])  # fmt: skip
def test_a_ticket_for_claims_of_another_issuer_is_refused(sessions: Sessions, said: dict[str, Any]) -> None:
    assert refused(sessions, forged(sessions, said=said)) == "malformed"


@pytest.mark.parametrize("about", [{"audience": "bank"}, {"issuer": "https://bank.example"}])
def test_another_issuer_on_the_same_store_refuses_the_ticket(sessions: Sessions, about: dict[str, str]) -> None:
    other = Sessions(sessions.store, **about)
    ticket = bought(sessions)
    assert refused(other, ticket) == "malformed"
    assert sessions.redeem(ticket).subject == "ada", "nothing was spent"


def test_a_ticket_with_a_changed_character_is_refused(sessions: Sessions) -> None:
    ticket = bought(sessions)
    for place in range(len(ticket) - 1):  # the last one of a signature has bits that say nothing
        other = "A" if ticket[place] != "A" else "B"
        assert refused(sessions, ticket[:place] + other + ticket[place + 1 :]) == "malformed"
    assert sessions.redeem(ticket).subject == "ada"


def test_another_spelling_of_a_ticket_is_the_same_ticket_or_refused(sessions: Sessions) -> None:
    ticket = bought(sessions)
    sessions.redeem(ticket)
    for spelling in (ticket + "=", ticket + "==", ticket + "\n", " " + ticket, ticket[:-1] + chr(ord(ticket[-1]) + 1)):
        assert outcome(sessions, spelling) in ("malformed", "used")


@pytest.mark.parametrize(
    "rubbish", ["", "x", "a.b.c", "..", "ü", "\ud800", "é" * 20000, "a" * (MAX_TICKET_CHARS + 1), None, 3, b"x"]
)
def test_rubbish_is_refused_and_the_store_is_not_asked(sessions: Sessions, rubbish: Any) -> None:
    asked: list[str] = []

    class Watched(StoreWrapper):
        def __getattr__(self, name: str) -> Any:
            asked.append(name)
            return super().__getattr__(name)

    watched = Sessions(Watched(sessions.store), encryption_key="none")
    watched.keyring()
    asked.clear()
    assert refused(watched, rubbish) == "malformed"
    assert asked == []


# ---- trouble ---------------------------------------------------------------------------------------------------------


async def away(*_: object) -> float:
    raise StoreUnavailable("the store does not respond")


def test_a_store_that_is_down_refuses_tickets_and_spends_none(
    nodes: Nodes, monkeypatch: Any, anyio_backend: str
) -> None:
    ticket = bought(nodes.here)
    with monkeypatch.context() as patch:
        patch.setattr(nodes.here.store, "advance_marker", away)
        with pytest.raises(TryLater):
            nodes.here.redeem(ticket)
        with pytest.raises(TryLater):
            anyio.run(nodes.here.aredeem, ticket, backend=anyio_backend)
    assert nodes.here.redeem(ticket).subject == "ada"


def test_more_claims_than_a_url_takes_are_the_operators_to_know(clock: Clock) -> None:
    sessions = Sessions(MemorySessionStore(), clock=clock, claims=lambda _: {"much": "x" * 4600})
    token = sessions.create("ada").access_token
    with pytest.raises(ConfigurationError, match="claims"):
        sessions.ticket(token)


def test_a_ticket_is_refused_by_verifiers_that_ignore_the_type(sessions: Sessions) -> None:
    """Nothing that is published has signed it."""
    ticket = bought(sessions)
    kid = parts(ticket)[0]["kid"]
    published: Any = sessions.jwks()["keys"]
    assert kid not in {key["kid"] for key in published}
    keyring: Keyring = sessions.keyring()
    with pytest.raises(InvalidToken):
        AccessTokenVerifier(sessions.issuer, sessions.audience).verify(ticket, keyring, (), sessions.clock())
