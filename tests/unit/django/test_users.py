"""Django's users as the accounts: who may log in, and what ends their sessions.

Modules: django/backends.py, django/lazy_user.py, django/signals.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from asgiref.sync import async_to_sync
from django.contrib import auth
from django.contrib.auth.hashers import make_password
from django.db import OperationalError, connection, transaction
from django.http import HttpRequest
from django.test import Client, RequestFactory, override_settings
from django.test.utils import CaptureQueriesContext

from tests.support.django_project import PASSWORD, chosen
from tests.support.proofs import ClientKey
from tests.unit.django.conftest import JSON, LOGIN, User, alive, login, token_of
from tests.unit.django.pages import PAGES
from unbroken.django import sessions
from unbroken.django.runtime import runtime
from unbroken.errors import StoreUnavailable
from unbroken.server import RequestProof


def test_a_user_logs_in_and_is_known_by_the_primary_key(http: httpx2.Client, ada: Any) -> None:
    headers = login(http, scope="write")
    expected = {"sub": str(ada.pk), "user": "ada"}
    assert http.get("/orders", headers=headers).json() == expected
    assert http.get("/later", headers=headers).json() == expected


@pytest.mark.parametrize(("name", "password"), [("ada", "wrong"), ("nobody", PASSWORD), ("inactive", PASSWORD)])
def test_every_refused_login_gets_the_same_response(http: httpx2.Client, name: str, password: str) -> None:
    User.objects.create_user("inactive", password=PASSWORD, is_active=False)
    response = http.post("/auth/login", json={"username": name, "password": password})
    assert (response.status_code, response.json()["error"]) == (401, "access_denied")


def test_a_backend_gets_the_request_that_the_login_came_by(http: httpx2.Client) -> None:
    with override_settings(AUTHENTICATION_BACKENDS=[f"{__name__}.Curious"]):
        Curious.heard = []
        assert http.post("/auth/login", json=LOGIN, headers={"user-agent": "curious"}).status_code == 401
    assert Curious.heard == ["curious"]


class Curious:
    """A backend that needs the request, and lets nobody in."""

    heard: list[str]

    def authenticate(self, request: HttpRequest, username: str = "", password: str = "") -> None:
        self.heard.append(request.headers["user-agent"])


def test_an_old_hash_is_replaced_at_login_and_no_session_ends_by_it(http: httpx2.Client, ada: Any) -> None:
    headers = login(http)
    User.objects.filter(pk=ada.pk).update(password=make_password(PASSWORD, hasher="pbkdf2_sha256"))
    login(http)
    ada.refresh_from_db()
    assert ada.password.startswith("md5$")
    assert http.get("/orders", headers=headers).status_code == 200


def test_another_field_may_name_the_user() -> None:
    with chosen(*PAGES, STORE="memory:", SUBJECT_FIELD="username"):
        token = Client().post("/auth/login", LOGIN, **JSON).json()["access_token"]
        assert Client().get("/orders", headers={"authorization": f"Bearer {token}"}).json()["sub"] == "ada"


def test_the_setting_authenticate_replaces_the_user_model() -> None:
    with chosen(*PAGES, STORE="memory:", AUTHENTICATE=f"{__name__}.anybody"):
        token = Client().post("/auth/login", {"username": "eve", "password": "x"}, **JSON).json()["access_token"]
        response = Client().get("/orders", headers={"authorization": f"Bearer {token}"})
        assert response.json() == {"sub": "eve", "user": ""}


def anybody(name: str, password: str) -> str:
    return name


def test_users_that_cannot_be_looked_up_are_try_later_and_named_in_the_log(
    http: httpx2.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def dead(*_: Any, **__: Any) -> None:
        raise OperationalError("no route to host")

    monkeypatch.setattr("django.contrib.auth.authenticate", dead)
    response = http.post("/auth/login", json=LOGIN)
    assert (response.status_code, response.json()["error"]) == (503, "temporarily_unavailable")
    assert "the database of the users does not respond" in caplog.text


def test_connections_are_looked_after_where_django_does_not(
    http: httpx2.Client, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[int] = []
    monkeypatch.setattr("unbroken.django.users.close_old_connections", lambda: closed.append(1))
    login(http)
    assert bool(closed) == (request.node.callspec.params["http"] == "asgi"), "under WSGI the request's own are used"


def test_a_password_that_changes_while_it_is_checked_begins_no_session(
    ada: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = sessions().acreate_unless

    async def meanwhile(*args: Any, **kwargs: Any) -> Any:
        ada.set_password("another")
        ada.save()
        return await begin(*args, **kwargs)

    monkeypatch.setattr(sessions(), "acreate_unless", meanwhile)
    assert Client().post("/auth/login", LOGIN, **JSON).status_code == 401
    assert alive() == 0


# ---- what ends sessions ----------------------------------------------------------------------------------------------


def new_password(user: Any) -> None:
    user.set_password("another")
    user.save()


def new_password_alone(user: Any) -> None:
    user.set_password("another")
    user.save(update_fields=["password"])


def new_hash(user: Any) -> None:
    user.password = make_password("another")
    user.save()


def no_password(user: Any) -> None:
    user.set_unusable_password()
    user.save()


def deactivated(user: Any) -> None:
    user.is_active = False
    user.save()


def deleted(user: Any) -> None:
    user.delete()


def deleted_in_bulk(user: Any) -> None:
    User.objects.filter(pk=user.pk).delete()


@pytest.mark.parametrize(
    "change", [new_password, new_password_alone, new_hash, no_password, deactivated, deleted, deleted_in_bulk]
)
def test_what_takes_a_user_away_ends_all_sessions_of_that_user_alone(ada: Any, change: Callable[[Any], None]) -> None:
    other = User.objects.create_user("grace", password=PASSWORD)
    mine, others = token_of(ada), token_of(other)
    change(ada)
    assert Client().get("/orders", headers=mine).json()["reason"] == "revoked"
    assert Client().get("/orders", headers=others).status_code == 200


def renamed(user: Any) -> None:
    user.first_name = "Ada"
    user.save()


def seen(user: Any) -> None:
    user.save(update_fields=["last_login"])


def activated(user: Any) -> None:
    User.objects.filter(pk=user.pk).update(is_active=False)
    user.is_active = True
    user.save()


@pytest.mark.parametrize("change", [renamed, seen, activated])
def test_changes_of_other_fields_of_a_user_end_no_session(ada: Any, change: Callable[[Any], None]) -> None:
    headers = token_of(ada)
    change(ada)
    assert Client().get("/orders", headers=headers).status_code == 200


def test_a_user_by_another_name_is_another_user() -> None:
    with chosen(*PAGES, STORE="memory:", SUBJECT_FIELD="username"):
        sessions().create("ada")
        user = User.objects.get(username="ada")
        user.username = "augusta"
        user.save(update_fields=["username"])
        assert alive() == 0


def test_a_new_password_that_is_rolled_back_ends_no_session(ada: Any) -> None:
    headers = token_of(ada)
    with transaction.atomic():
        new_password(ada)
        assert Client().get("/orders", headers=headers).status_code == 200, "it is not committed yet"
        transaction.set_rollback(True)
    assert Client().get("/orders", headers=headers).status_code == 200


def test_a_user_deactivated_without_a_signal_is_refused(http: httpx2.Client, ada: Any) -> None:
    headers = token_of(ada, "read write")
    User.objects.filter(pk=ada.pk).update(is_active=False)
    assert http.get("/public", headers=headers).json()["user"] == "AnonymousUser"
    for path in ("/orders", "/later", "/rest"):
        response = http.get(path, headers=headers)
        assert (response.status_code, response.json()["reason"]) == (401, "revoked"), path
        assert 'reason="revoked"' in response.headers["www-authenticate"]
    assert http.post("/class", headers=headers).status_code == 401


def in_bulk(user: Any) -> None:
    user.is_active = False
    User.objects.bulk_update([user], ["is_active"])


def updated(user: Any) -> None:
    User.objects.filter(pk=user.pk).update(is_active=False)


def taken_away(user: Any) -> None:
    User.objects.filter(pk=user.pk)._raw_delete(using="default")


@pytest.mark.parametrize("change", [in_bulk, updated, taken_away])
@pytest.mark.parametrize("path", ["/auth/refresh", "/auth/token"])
def test_a_user_deactivated_without_a_signal_is_logged_out_by_the_next_refresh(
    http: httpx2.Client, ada: Any, change: Callable[[Any], None], path: str
) -> None:
    other = User.objects.create_user("grace", password=PASSWORD)
    mine, others = (sessions().create(str(user.pk)).refresh_token for user in (ada, other))
    change(ada)
    refused, granted = (refresh(http, path, token) for token in (mine, others))
    assert (refused.status_code, refused.json()["error"], refused.json()["reason"]) == (400, "invalid_grant", "revoked")
    assert granted.status_code == 200
    assert [info.subject for info in sessions().list_sessions()] == [str(other.pk)]


def refresh(http: httpx2.Client, path: str, token: str | None) -> httpx2.Response:
    fields = {"refresh_token": token}
    if path == "/auth/refresh":
        return http.post(path, json=fields)
    return http.post(path, data={"grant_type": "refresh_token", **fields})


def test_while_the_users_cannot_be_looked_up_nothing_is_refused_for_good(
    http: httpx2.Client, ada: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    granted = sessions().create(str(ada.pk))

    def dead(*_: Any, **__: Any) -> None:
        raise OperationalError("no route to host")

    with monkeypatch.context() as patch:
        patch.setattr(type(runtime().users), "get", dead)
        view = http.get("/orders", headers={"authorization": f"Bearer {granted.access_token}"})
        refused = refresh(http, "/auth/refresh", granted.refresh_token)
    for response in (view, refused):
        assert (response.status_code, response.json()["error"]) == (503, "temporarily_unavailable")
    assert refresh(http, "/auth/refresh", granted.refresh_token).json()["refresh_seq"] == 1


def test_a_view_that_asks_for_the_user_too_looks_it_up_once(ada: Any) -> None:
    headers = token_of(ada)
    with CaptureQueriesContext(connection) as asked:
        assert Client().get("/orders", headers=headers).json()["user"] == "ada"
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"AUTHENTICATE": f"{__name__}.anybody"}, 200),
        ({"AUTHENTICATE": f"{__name__}.anybody", "IS_ACTIVE": "unbroken.django.is_active_user"}, 401),
        ({"IS_ACTIVE": None}, 200),
        ({}, 401),
    ],
)
def test_subjects_may_be_others_than_django_users(setting: Any, expected: int) -> None:
    with chosen(*PAGES, STORE="memory:", **setting):
        granted = sessions().create("31337")
        headers = {"authorization": f"Bearer {granted.access_token}"}
        assert Client().get("/orders", headers=headers).status_code == expected
        response = Client().post("/auth/refresh", {"refresh_token": granted.refresh_token}, **JSON)
        assert response.status_code == (200 if expected == 200 else 400)


@pytest.mark.parametrize("change", [new_password, deactivated, deleted])
def test_a_store_that_is_down_does_not_undo_a_change_and_the_log_says_what_to_run(
    ada: Any, change: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    subject, before = str(ada.pk), ada.password
    token_of(ada)

    async def away(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("the store does not respond")

    with monkeypatch.context() as patch:
        patch.setattr(sessions().store, "revoke", away)
        change(ada)
    assert f"unbroken sessions revoke --user {subject}" in caplog.text
    assert f"the sessions of {subject!r}" in caplog.text
    assert not User.objects.filter(pk=subject, is_active=True, password=before).exists(), "it is committed"


def test_a_token_is_a_credential_for_djangos_own_authenticate(ada: Any) -> None:
    granted, other = sessions().create(str(ada.pk)), sessions().create("31337")
    with override_settings(AUTHENTICATION_BACKENDS=BACKENDS):
        assert auth.authenticate(None, token=granted.access_token) == ada
        assert auth.authenticate(None, username="ada", password=PASSWORD) == ada
        for token in ("", "nonsense", granted.refresh_token, other.access_token):
            assert auth.authenticate(None, token=token) is None
        assert async_to_sync(auth.aauthenticate)(None, token=granted.access_token) == ada
        sessions().logout(access_token=granted.access_token)
        assert auth.authenticate(None, token=granted.access_token) is None


def test_a_bound_token_is_a_user_with_the_proof_of_its_request_alone(ada: Any) -> None:
    key, host, url = ClientKey("Ed25519"), "127.0.0.1:8400", "http://127.0.0.1:8400"
    proof = RequestProof(key.proof("POST", url + "/auth/login"), "POST", "/auth/login", host)
    token = sessions().create(str(ada.pk), proof=sessions().verify_proof(proof)).access_token

    def user(scheme: str, key: ClientKey) -> Any:
        proof = key.proof("GET", url + "/feed", token)
        headers = {"authorization": f"{scheme} {token}", "dpop": proof, "host": host}
        return auth.authenticate(RequestFactory().get("/feed", headers=headers), token=token)

    with override_settings(AUTHENTICATION_BACKENDS=BACKENDS):
        assert user("DPoP", key) == ada
        assert user("DPoP", ClientKey("Ed25519")) is None
        assert user("Bearer", key) is None
        assert auth.authenticate(None, token=token) is None


BACKENDS = ["unbroken.django.backends.AccessTokenBackend", "django.contrib.auth.backends.ModelBackend"]


def test_who_came_by_a_token_can_have_a_session_of_djangos_own_as_long_as_active(ada: Any) -> None:
    with override_settings(AUTHENTICATION_BACKENDS=BACKENDS):
        client = Client()
        client.force_login(ada, backend=BACKENDS[0])
        assert client.get("/public").json() == {"user": "ada", "auth": None}
        User.objects.filter(pk=ada.pk).update(is_active=False)
        assert client.get("/public").json()["user"] == "AnonymousUser"
