"""Users who are gone, or whose password is new: what their old sessions, logins and names are still good for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from argon2 import PasswordHasher

from tests.support.attacks import Attacks
from tests.support.commands import unbroken
from unbroken._concurrency import run_sync
from unbroken.errors import InvalidGrant, InvalidToken, LoginRefused
from unbroken.server import Accounts, Endpoints, MfaRequired, Sessions
from unbroken.server.core.session_info import NewSession
from unbroken.server.http.messages import Request, Response
from unbroken.server.login.mfa import MfaTokens
from unbroken.server.stores import open_store
from unbroken.server.stores.encrypted_keys import new_key

JSON = {"content-type": "application/json"}
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture(params=["memory", "sqlite", "postgres", "redis"])
def sessions(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sessions]:
    urls = {"memory": "memory:", "sqlite": f"sqlite:///{tmp_path}/s.db"}
    store = open_store(urls.get(request.param) or request.getfixturevalue(request.param).url)
    found = Sessions(store, issuer="https://id.example.com", audience="shop")
    yield found
    found.close()


def new_password(accounts: Accounts, name: str) -> None:
    accounts.set_password(name, "two")


def the_same_password(accounts: Accounts, name: str) -> None:
    accounts.set_password(name, "one")


def removed(accounts: Accounts, name: str) -> None:
    accounts.remove(name)


def given_again(accounts: Accounts, name: str) -> None:
    accounts.remove(name)
    accounts.add(name, "one")


CHANGES = [new_password, the_same_password, removed, given_again]
Change = Callable[[Accounts, str], None]


def post(endpoints: Endpoints, path: str, **fields: str) -> Response:
    body = json.dumps(fields).encode()
    response = endpoints.handle_blocking(Request("POST", path, JSON, body, f"address {uuid4()}"))
    assert response is not None
    return response


@pytest.mark.parametrize("by_store", [True, False])
@pytest.mark.parametrize("change", CHANGES)
def test_no_session_outlives_its_password_or_its_account(
    sessions: Sessions, change: Change, by_store: bool, attacks: Attacks
) -> None:
    accounts, name = Accounts(sessions.store if by_store else sessions, CHEAP), f"Ada {uuid4().hex[:8]}"
    accounts.add(name, "one")
    endpoints = Endpoints(sessions, accounts.authenticate)
    granted = json.loads(post(endpoints, "/auth/login", username=name.upper(), password="one").body)
    change(accounts, name)
    attacks.try_one()
    response = post(endpoints, "/auth/refresh", refresh_token=granted["refresh_token"])
    assert (response.status, json.loads(response.body)["error"]) == (400, "invalid_grant")
    if not by_store:
        attacks.try_one()
        with pytest.raises(InvalidToken):
            sessions.verify(granted["access_token"])


@pytest.mark.parametrize("change", CHANGES)
def test_no_login_that_waits_for_a_code_outlives_its_password_or_its_account(
    sessions: Sessions, change: Change, attacks: Attacks
) -> None:
    accounts, name = Accounts(sessions, CHEAP), f"ada-{uuid4().hex[:8]}"
    accounts.add(name, "one")

    def authenticate(username: str, password: str) -> MfaRequired | None:
        subject = accounts.authenticate(username, password)
        return MfaRequired(subject) if subject else None

    endpoints = Endpoints(sessions, authenticate, verify_mfa=lambda *_: True)
    token = json.loads(post(endpoints, "/auth/login", username=name, password="one").body)["mfa_token"]
    change(accounts, name)
    attacks.try_one()
    assert post(endpoints, "/auth/login/step", mfa_token=token, code="1").status == 401


def test_whoever_gets_a_name_again_is_somebody_else_everywhere(sessions: Sessions, attacks: Attacks) -> None:
    accounts, name = Accounts(sessions, CHEAP), f"ada-{uuid4().hex[:8]}"
    subjects: list[str] = []
    for spelling in (name, name.upper(), name.title(), name):
        accounts.add(spelling, "one")
        attacks.try_one()
        subject = accounts.authenticate(name, "one") or ""
        assert sessions.verify(sessions.create(subject).access_token).subject == subject
        assert [accounts.is_active(one) for one in (*subjects, subject)] == [False] * len(subjects) + [True]
        subjects.append(subject)
        accounts.remove(name)
    assert len(set(subjects)) == 4


@pytest.mark.parametrize("command", ["passwd", "remove"])
def test_the_users_commands_end_the_sessions_of_a_removed_or_changed_account(
    command: str, tmp_path: Path, attacks: Attacks
) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    sessions = Sessions(url)
    Accounts(sessions, CHEAP).add("ada", "one")
    granted = sessions.create("ada")
    extra = ["--password-stdin"] if command == "passwd" else []
    done = unbroken(tmp_path, "users", command, "ada", "--store", url, *extra, given="two\n")
    assert done.returncode == 0, done.stderr
    assert "revoked 1 session" in done.stdout
    attacks.try_one()
    with pytest.raises(InvalidGrant):
        sessions.refresh(granted.refresh_token or "")
    sessions.close()


@pytest.mark.parametrize("by_store", [True, False])
def test_a_new_password_spares_one_session_and_no_other(sessions: Sessions, by_store: bool, attacks: Attacks) -> None:
    """Also not one of another service on the same store, nor a login that waits for a code."""
    elsewhere = Sessions(sessions.store, issuer="https://other.example.com", audience="admin")
    accounts, name = Accounts(sessions.store if by_store else sessions, CHEAP), f"ada{uuid4().hex[:8]}"
    accounts.add(name, "one")
    mine, thief, there = (one.create(name).refresh_token or "" for one in (sessions, sessions, elsewhere))
    found = sessions.inspect_refresh(mine)
    assert found is not None
    waiting = run_sync(MfaTokens(sessions).issue(MfaRequired(name), b"", b"", NewSession()))
    attacks.try_many(3)
    assert accounts.set_password(name, "two", keep=found.session.sid) == 2
    for place, token in ((sessions, thief), (elsewhere, there)):
        with pytest.raises(InvalidGrant):
            place.refresh(token)
    with pytest.raises(LoginRefused):
        run_sync(MfaTokens(sessions).read(waiting))
    assert sessions.refresh(mine).refresh_seq == 1


def test_a_store_whose_key_is_elsewhere_ends_the_sessions_too(tmp_path: Path, attacks: Attacks) -> None:
    store = open_store(f"sqlite:///{tmp_path}/s.db")
    sessions = Sessions(store, issuer="https://id.example.com", encryption_key=new_key())
    accounts = Accounts(store, CHEAP)
    accounts.add("ada", "one")
    token = sessions.create("ada").refresh_token or ""
    attacks.try_one()
    assert accounts.set_password("ada", "two") == 1
    with pytest.raises(InvalidGrant):
        sessions.refresh(token)


def test_a_login_during_the_removal_leaves_no_session(sessions: Sessions, attacks: Attacks) -> None:
    accounts, name = Accounts(sessions, CHEAP), f"ada-{uuid4().hex[:8]}"
    accounts.add(name, "one")
    changes: list[Any] = [lambda: accounts.remove(name)]

    def authenticate(username: str, password: str) -> str | None:
        subject = accounts.authenticate(username, password)
        while changes:
            changes.pop()()
        return subject

    attacks.try_one()
    assert post(Endpoints(sessions, authenticate), "/auth/login", username=name, password="one").status == 401
    assert sessions.list_sessions(name) == []


# ---- passwords that are changed behind the server's back -------------------------------------------------------------


def test_a_password_that_another_program_changes_ends_the_sessions_at_their_next_refresh(
    sessions: Sessions, attacks: Attacks
) -> None:
    ada, bob = uuid4().hex, uuid4().hex
    stamps = {ada: "one", bob: "one"}
    endpoints = Endpoints(
        sessions, lambda name, password: name if password == stamps[name] else None, security_stamp=stamps.get
    )

    def tokens(name: str) -> str:
        return str(
            json.loads(post(endpoints, "/auth/login", username=name, password=stamps[name]).body)["refresh_token"]
        )

    thief, others, own = tokens(ada), tokens(bob), sessions.create(ada).refresh_token or ""
    again = json.loads(post(endpoints, "/auth/refresh", refresh_token=thief).body)["refresh_token"]
    stamps[ada] = "two"
    newer = tokens(ada)
    for token in (again, thief):
        attacks.try_one()
        response = post(endpoints, "/auth/refresh", refresh_token=token)
        assert (response.status, json.loads(response.body)["reason"]) == (400, "revoked")
    del stamps[bob]  # the directory has no stamp for now
    for token in (others, newer, own):  # the last one was begun by the application, without a stamp
        assert post(endpoints, "/auth/refresh", refresh_token=token).status == 200


def test_a_code_for_a_password_that_was_changed_behind_the_servers_back_opens_nothing(
    sessions: Sessions, attacks: Attacks
) -> None:
    ada = uuid4().hex
    stamps = {ada: "one"}
    endpoints = Endpoints(
        sessions,
        lambda name, _password: MfaRequired(name),
        verify_mfa=lambda _subject, _kind, code: code == "42",
        security_stamp=stamps.get,
    )
    waiting = json.loads(post(endpoints, "/auth/login", username=ada, password="one").body)["mfa_token"]
    stamps[ada] = "two"
    attacks.try_one()
    response = post(endpoints, "/auth/login/step", mfa_token=waiting, code="42")
    assert (response.status, json.loads(response.body)["reason"]) == (401, "mfa_token")
    assert sessions.list_sessions(ada) == []


def test_a_stamp_that_changes_during_the_login_ends_the_session_at_its_refresh_at_the_latest(
    sessions: Sessions, attacks: Attacks
) -> None:
    ada = uuid4().hex
    stamps = {ada: "one"}

    def authenticate(name: str, _password: str) -> str:
        return name

    def stamp(subject: str) -> str:
        found, stamps[ada] = stamps[subject], "two"
        return found

    endpoints = Endpoints(sessions, authenticate, security_stamp=stamp)
    token = json.loads(post(endpoints, "/auth/login", username=ada, password="one").body)["refresh_token"]
    attacks.try_one()
    assert json.loads(post(endpoints, "/auth/refresh", refresh_token=token).body)["reason"] == "revoked"


@pytest.mark.parametrize("answer", [7, b"bytes", ["list"], RuntimeError("the directory is down")])
def test_a_stamp_that_cannot_be_taken_ends_and_begins_nothing(
    sessions: Sessions, attacks: Attacks, answer: Any
) -> None:
    ada, answers = uuid4().hex, list[Any](["one"])

    def stamp(_subject: str) -> Any:
        if isinstance(answers[-1], Exception):
            raise answers[-1]
        return answers[-1]

    endpoints = Endpoints(sessions, lambda name, _password: name, security_stamp=stamp)
    token = json.loads(post(endpoints, "/auth/login", username=ada, password="one").body)["refresh_token"]
    answers.append(answer)
    for path, fields in (
        ("/auth/refresh", {"refresh_token": token}),
        ("/auth/login", {"username": ada, "password": "one"}),
    ):
        attacks.try_one()
        assert post(endpoints, path, **fields).status == 503
    assert len(sessions.list_sessions(ada)) == 1
    answers.append("one")
    assert post(endpoints, "/auth/refresh", refresh_token=token).status == 200
