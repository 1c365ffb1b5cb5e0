"""Logins of two steps: what a step token is good for, and when it no longer is."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from unbroken._concurrency import run_sync
from unbroken.errors import InvalidToken, TryLater
from unbroken.server import Accounts, Endpoints, MemorySessionStore, MfaRequired, Sessions, SqliteSessionStore
from unbroken.server.http.messages import Request, Response
from unbroken.server.login.accounts import Subject
from unbroken.server.login.authenticator import Identity
from unbroken.server.stores.markers import MFA_TOKEN_SECONDS

JSON = {"content-type": "application/json"}
HOME, FAR = "192.0.2.1", "203.0.113.9"


class Place:
    """Endpoints where ``ada`` needs the code 42, and everybody else needs none."""

    def __init__(self, store: Any = None, verify_mfa: Any = None, authenticate: Any = None, **more: Any) -> None:
        self.now = 1_800_000_000.0
        self.sessions = Sessions(store or MemorySessionStore(), clock=lambda: self.now)
        self.endpoints = Endpoints(
            self.sessions,
            authenticate or self.authenticate,
            verify_mfa=verify_mfa or (lambda _subject, _kind, code: code == "42"),
            scopes_of=lambda _: ["read"],
            **more,
        )

    @staticmethod
    def authenticate(name: str, password: str) -> Any:
        if password != "right":
            return None
        return MfaRequired(name, "totp") if name.startswith("ada") else name

    def post(self, path: str, ip: str = HOME, **fields: Any) -> tuple[int, dict[str, Any]]:
        return facts(self.endpoints.handle_blocking(request(path, ip, **fields)))

    def token(self, name: str = "ada", **more: Any) -> str:
        status, body = self.post("/auth/login", username=name, password="right", **more)
        assert (status, body["error"]) == (403, "mfa_required")
        return body["mfa_token"]

    def step(self, token: str, code: str = "42", **more: Any) -> tuple[int, str]:
        status, body = self.post("/auth/login/step", mfa_token=token, code=code, **more)
        return status, body.get("reason", "")


def request(path: str, ip: str = HOME, **fields: Any) -> Request:
    return Request("POST", path, JSON, json.dumps(fields).encode(), ip)


def facts(response: Response | None) -> tuple[int, dict[str, Any]]:
    assert response is not None
    return response.status, json.loads(response.body)


@pytest.fixture
def place() -> Place:
    return Place()


DONE, BEGIN_AGAIN, WRONG = (200, ""), (401, "mfa_token"), (401, "code")


# ---- what it is good for ---------------------------------------------------------------------------------------------


def test_what_was_requested_with_the_password_is_granted_with_the_code(place: Place) -> None:
    token = place.token(scope="read read", label="phone", client_id="app", coordinated=True)
    assert place.step(token) == DONE
    [row] = run_sync(place.sessions.store.sessions())
    assert (row.scope, row.label, row.client_id, row.coordinated) == ("read", "phone", "app", True)


def test_a_scope_that_the_subject_may_not_have_is_refused_with_the_password(place: Place) -> None:
    status, body = place.post("/auth/login", username="ada", password="right", scope="admin")
    assert (status, body["error"]) == (400, "invalid_scope")


def test_an_mfa_token_lives_for_five_minutes(place: Place) -> None:
    token = place.token()
    place.now += MFA_TOKEN_SECONDS - 1
    assert place.step(token, "wrong") == WRONG
    place.now += 1
    assert place.step(token) == BEGIN_AGAIN


def test_an_mfa_token_is_bound_to_its_client(place: Place) -> None:
    token = place.token(client_id="app")
    assert place.step(token, client_id="other") == BEGIN_AGAIN
    assert place.step(token, client_id="app") == DONE


def test_an_mfa_token_ends_with_all_sessions_of_its_subject(place: Place) -> None:
    tokens = [place.token(), place.token("ada two")]
    place.sessions.revoke_subject("ada")
    assert [place.step(token) for token in tokens] == [BEGIN_AGAIN, DONE]
    place.now += 1
    assert place.step(place.token()) == DONE


def test_the_code_of_a_login_that_was_ended_is_not_verified() -> None:
    asked: list[str] = []
    place = Place(verify_mfa=lambda _subject, _kind, code: asked.append(code))
    token = place.token()
    place.sessions.revoke_subject("ada")
    assert (place.step(token), asked) == (BEGIN_AGAIN, [])


def test_an_mfa_token_ends_when_its_user_ends_all_other_sessions(place: Place) -> None:
    token = place.token()
    place.sessions.revoke_others("ada", keep="this one")
    assert place.step(token) == BEGIN_AGAIN


def test_a_session_that_begins_while_all_are_ended_does_not_live() -> None:
    def second_factor(subject: str, _kind: str, _code: str) -> bool:
        town.sessions.revoke_subject(subject)
        return True

    town = Place(verify_mfa=second_factor)
    assert town.step(town.token()) == BEGIN_AGAIN
    assert town.sessions.list_sessions("ada") == []


def test_no_mfa_token_is_issued_for_a_password_that_changes_meanwhile() -> None:
    store = MemorySessionStore()
    accounts = Accounts(store)
    accounts.add("ada", "old")

    def authenticate(name: str, password: str) -> MfaRequired | None:
        subject = accounts.authenticate(name, password)
        if subject:
            accounts.set_password("ada", "new")
        return MfaRequired(subject) if subject else None

    place = Place(store, authenticate=authenticate)
    assert place.post("/auth/login", username="ada", password="old")[0] == 401


# ---- what it is not --------------------------------------------------------------------------------------------------


def test_an_mfa_token_with_a_changed_character_is_refused(place: Place) -> None:
    token = place.token()
    others = [token[:n] + ("A" if token[n] != "A" else "B") + token[n + 1 :] for n in range(0, len(token), 7)]
    assert {place.step(other) for other in others} == {BEGIN_AGAIN}
    assert place.step(token) == DONE


def test_mfa_tokens_and_access_tokens_do_not_stand_for_each_other(place: Place) -> None:
    token = place.token()
    with pytest.raises(InvalidToken):
        place.sessions.verify(token)
    granted = place.sessions.create("ada")
    assert place.step(granted.access_token) == BEGIN_AGAIN
    assert place.step(granted.refresh_token) == BEGIN_AGAIN


def test_an_mfa_token_under_the_bare_key_or_of_another_issuer_is_refused(place: Place) -> None:
    token = place.token()
    mac = place.sessions.keyring().mac(place.now)
    said = {"aud": place.sessions.issuer + "#login", "sub": "ada", "kind": "totp", "iat": place.now, "jti": "x",
            "exp": place.now + 99, "account": "00", "about": {"client_id": "app", "coordinated": False}}  # fmt: skip
    header = {"alg": "HS256", "typ": "login-step+jwt", "kid": str(mac.number)}
    assert place.step(jwt.encode(header, said, OctKey.import_key(mac.secret), algorithms=["HS256"])) == BEGIN_AGAIN
    other = Place(place.sessions.store)
    other.endpoints = Endpoints(Sessions(place.sessions.store, issuer="https://other.example", clock=lambda: place.now),
                                place.authenticate, verify_mfa=lambda *_: True)  # fmt: skip
    assert other.step(token) == BEGIN_AGAIN


def test_a_retired_key_takes_its_mfa_tokens_with_it(place: Place) -> None:
    token = place.token()
    [mac] = [record for record in place.sessions.keyring().records if record.use == "mac"]
    place.sessions.retire_key(mac.kid)
    assert place.step(token) == BEGIN_AGAIN
    assert place.step(place.token()) == DONE


# ---- once ------------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_of_right_codes_at_once_one_begins_a_session(kind: str, tmp_path: Path) -> None:
    async def second_factor(_subject: str, _kind: str, code: str) -> bool:
        await anyio.lowlevel.checkpoint()
        return code == "42"

    place = Place(MemorySessionStore() if kind == "memory" else SqliteSessionStore(tmp_path / "s.db"), second_factor)
    _, body = facts(await place.endpoints.handle(request("/auth/login", username="ada", password="right")))
    statuses: list[int] = []

    async def one() -> None:
        response = await place.endpoints.handle(request("/auth/login/step", mfa_token=body["mfa_token"], code="42"))
        statuses.append(facts(response)[0])

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(one)
    assert sorted(statuses) == [200] + [401] * 7
    assert len(place.sessions.list_sessions("ada")) == 1


@pytest.mark.parametrize("later", [0.0, 1.0, 100.0, 200.0, 298.9])
def test_a_spent_mfa_token_stays_spent_until_it_expires(place: Place, later: float) -> None:
    token = place.token()
    place.now += 1
    assert place.step(token) == DONE
    place.now += later
    assert place.step(token) == BEGIN_AGAIN
    assert len(place.sessions.list_sessions("ada")) == 1


def test_of_right_codes_in_threads_at_once_one_begins_a_session(tmp_path: Path) -> None:
    place, begin = Place(SqliteSessionStore(tmp_path / "s.db")), threading.Barrier(8)
    token, statuses = place.token(), []

    def work() -> None:
        begin.wait(10)
        statuses.append(place.step(token)[0])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(statuses) == [200] + [401] * 7


# ---- guesses ---------------------------------------------------------------------------------------------------------


def test_the_right_password_alone_forgives_nothing(place: Place) -> None:
    for _ in range(9):
        assert place.post("/auth/login", username="ada", password="wrong")[0] == 401
    for _ in range(5):
        place.token()
    assert place.post("/auth/login", username="ada", password="wrong")[0] == 401
    assert place.post("/auth/login", username="ada", password="wrong")[0] == 429


def test_codes_are_counted_by_subject_and_forgiven_by_a_right_one(place: Place) -> None:
    for _ in range(3):
        assert [place.step(place.token(), "wrong") for _ in range(9)] == [WRONG] * 9
        assert place.step(place.token()) == DONE
    assert [place.step(place.token(), "wrong")[0] for _ in range(10)] == [401] * 10  # the share of this network
    assert [place.step(place.token(), "wrong")[0] for _ in range(11)] == [401] * 10 + [429]  # and the account's


def test_a_network_without_a_login_by_code_has_only_the_accounts_share_of_codes(place: Place) -> None:
    assert [place.step(place.token(), "wrong")[0] for _ in range(11)] == [401] * 10 + [429]


def test_codes_of_a_known_network_cost_the_account_nothing(place: Place) -> None:
    def step_far() -> int:
        return place.post("/auth/login/step", FAR, mfa_token=place.token(), code="wrong")[0]

    assert place.step(place.token()) == DONE
    assert [place.step(place.token(), "wrong") for _ in range(10)] == [WRONG] * 10
    assert [step_far() for _ in range(11)] == [401] * 10 + [429]
    reserve = [place.step(place.token(), "wrong")[0] for _ in range(3)]
    assert reserve == [401, 401, 429], "both shares are used up; the account's reserve takes two from each network"


def test_after_password_and_code_the_address_is_known_to_the_account(place: Place) -> None:
    assert place.step(place.token()) == DONE
    for _ in range(12):
        place.post("/auth/login", FAR, username="ada", password="wrong")
    assert place.post("/auth/login", FAR, username="ada", password="right")[0] == 429
    assert place.step(place.token()) == DONE


@pytest.mark.parametrize("error", [OSError("down"), TryLater("later")])
def test_a_code_that_could_not_be_verified_costs_nothing(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    def second_factor(*_: str) -> bool:
        raise error

    place: Place = Place(verify_mfa=second_factor)
    token = place.token()
    assert {place.step(token)[0] for _ in range(15)} == {503}
    assert ("verify_mfa raised an error" in caplog.text) is isinstance(error, OSError)


def test_a_long_code_is_refused_unread(place: Place) -> None:
    assert place.post("/auth/login/step", mfa_token=place.token(), code="1" * 1025)[1]["error"] == "invalid_request"


# ---- how it is set up ------------------------------------------------------------------------------------------------


def test_mfa_required_without_verify_mfa_is_503_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    endpoints = Endpoints(Sessions(MemorySessionStore()), Place.authenticate)
    response = endpoints.handle_blocking(request("/auth/login", username="ada", password="right"))
    assert facts(response)[0] == 503
    assert "verify_mfa" in caplog.text


def test_a_user_without_mfa_logs_in_by_password_alone(place: Place) -> None:
    assert place.post("/auth/login", username="bob", password="right")[0] == 200


def test_an_identity_keeps_what_the_account_table_knows() -> None:
    store = MemorySessionStore()
    accounts = Accounts(store)
    accounts.add("ada", "right")

    def authenticate(name: str, password: str) -> Identity | None:
        subject = accounts.authenticate(name, password)
        assert subject is None or isinstance(subject, Subject)
        return Identity(subject, label="till 3") if subject else None

    place = Place(store, authenticate=authenticate)
    assert place.post("/auth/login", username="Ada", password="right")[0] == 200
    assert [info.label for info in place.sessions.list_sessions("ada")] == ["till 3"]
