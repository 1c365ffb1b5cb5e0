"""The setting ``UNBROKEN``: what it can say, what is said about a wrong one, and when a store is opened.

Modules: django/apps.py, django/conf.py, django/runtime.py.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import Client, override_settings

from tests.support import django_project
from tests.support.django_project import PASSWORD, chosen
from tests.unit.django.conftest import LOGIN, User, login
from tests.unit.django.pages import PAGES
from unbroken.django import authenticate_user, sessions, user_of
from unbroken.django.runtime import reset, route_table, runtime, setting
from unbroken.server import Cookies, MemorySessionStore, Policy, Sessions
from unbroken.server.core.events import SessionCreated
from unbroken.server.stores.encrypted_keys import count_unencrypted, new_key
from unbroken.testing import LoopbackServer
from unbroken.verifier import Verifier


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({}, "needs one of STORE"),
        ({"STORE": "memory:", "ISUER": "x"}, "did you mean ISSUER"),
        ({"STORE": "memory:", "store": "x"}, "did you mean STORE"),
        ({"STORE": "memory:", "xyzzy": 1}, "the settings are STORE"),
        ({"STORE": 5}, "must be a string"),
        ({"STORE": "memory:", "ACCESS_TTL": "soon"}, "ACCESS_TTL.*seconds"),
        ({"STORE": "memory:", "ACCESS_TTL": -1}, "ACCESS_TTL.*seconds"),
        ({"STORE": "memory:", "GRACE": True}, "GRACE.*seconds"),
        ({"STORE": "memory:", "MAX_SESSIONS_PER_SUBJECT": 2.5}, "max_sessions_per_subject must be a whole number"),
        ({"STORE": "memory:", "MAX_SHARED_GENERATIONS": True}, "max_shared_generations must be a number"),
        ({"STORE": "memory:", "ON_SUSPICION": "ignore"}, "on_suspicion must be"),
        ({"STORE": "memory:", "SCOPES_OF": "shop.nowhere"}, "SCOPES_OF.*cannot be imported"),
        ({"SESSIONS": "json.dumps"}, "SESSIONS.*must be an unbroken.server.Sessions"),
        ({"SESSIONS": Sessions(MemorySessionStore()), "ISSUER": "x", "GRACE": 1}, "set GRACE, ISSUER where"),
        ({"SESSIONS": Sessions(MemorySessionStore()), "STORE": "memory:"}, "needs one of STORE.*SESSIONS"),
        ({"STORE": "memory:", "VERIFIER": "json.dumps"}, "needs one of STORE.*SESSIONS; or VERIFIER"),
        ({"VERIFIER": "json.dumps"}, "must be an unbroken.verifier.Verifier"),
        ({"VERIFIER": "json.dumps", "ISSUER": "x", "SCOPES_OF": "y"}, "remove ISSUER, SCOPES_OF"),
        ({"STORE": "memory:", "ENCRYPTION_KEY": 5}, "ENCRYPTION_KEY.*must be a string"),
        ({"STORE": "memory:", "ENCRYPTION_KEY_FILE": "/nowhere/key"}, "ENCRYPTION_KEY_FILE.*cannot be read"),
        ({"STORE": "memory:", "ENCRYPTION_KEY": "x", "ENCRYPTION_KEY_FILE": "/nowhere/key"}, "not both"),
        ({"SESSIONS": Sessions(MemorySessionStore()), "ENCRYPTION_KEY": "x"}, "set ENCRYPTION_KEY where"),
        (["STORE"], "must be a dict"),
        ({"STORE": "mysql://x"}, "UNBROKEN: unknown store 'mysql:'"),
        ({"STORE": "memory:", "COOKIES": "all"}, "UNBROKEN: cookies must be"),
        ({"STORE": "memory:", "COOKIES": "shop.nowhere"}, "COOKIES.*cannot be imported"),
        ({"STORE": "memory:", "GUARD": None}, "did you mean RATE_LIMIT"),
        ({"STORE": "memory:", "RATE_LIMIT": 5}, "UNBROKEN: rate_limit must be a RateLimitPolicy"),
        ({"STORE": "memory:", "ORIGINS": "https://app.example.com"}, "UNBROKEN: origins must be a list"),
        ({"STORE": "memory:", "PREFIX": "auth"}, "UNBROKEN: prefix must be a path"),
        ({"STORE": "memory:", "AUTHENTICATE": "directory"}, "AUTHENTICATE.*must be a function"),
    ],
)
def test_a_wrong_setting_is_named_when_django_starts(setting: Any, words: str) -> None:
    with override_settings(UNBROKEN=setting), pytest.raises(ImproperlyConfigured, match=words):
        apps.get_app_config("unbroken").ready()


def test_a_store_that_cannot_be_opened_is_a_wrong_setting_and_its_password_is_not_shown() -> None:
    with pytest.raises(ImproperlyConfigured) as caught, chosen(STORE="nosql://ada:secret@host/db"):
        sessions()
    assert "UNBROKEN: unknown store" in str(caught.value)
    assert "secret" not in repr(caught.value) + str(caught.value)


def test_every_setting_arrives_where_it_belongs(tmp_path: Path) -> None:
    told: list[Any] = []
    url = f"sqlite:///{tmp_path}/sessions.db"
    with chosen(
        STORE=url,
        ISSUER="https://shop.example",
        AUDIENCE="shop",
        ACCESS_TTL=timedelta(minutes=5),
        GRACE=0,
        ON_EVENT=told.append,
        CLAIMS=f"{__name__}.claims",
        PASSWORD_GRANT=True,
    ):
        assert sessions().policy == Policy(access_ttl=300, grace=0)
        response = Client().generic("POST", "/auth/token", "grant_type=password&username=ada&password=correct+horse",
                                  content_type="application/x-www-form-urlencoded")  # fmt: skip
        seen = sessions().verify(response.json()["access_token"])
        assert (seen.issuer, seen.audience) == ("https://shop.example", "shop")
        assert told
        sessions().close()


@pytest.mark.parametrize(
    "fields",
    [
        {"max_sessions_per_subject": 1, "max_shared_generations": 0, "on_suspicion": "revoke"},
        {"max_sessions_per_subject": None, "max_shared_generations": None},
        {"access_ttl": 300.0, "refresh_ttl": 600.0, "max_age": 900.0, "grace": 0.0},
    ],
)
def test_every_field_of_the_policy_is_a_setting(fields: dict[str, Any]) -> None:
    with chosen(STORE="memory:", **{name.upper(): value for name, value in fields.items()}):
        assert sessions().policy == Policy(**fields)


def test_short_forms_of_the_endpoints_settings_work_here_too() -> None:
    with chosen(STORE="memory:", COOKIES=True, RATE_LIMIT=False):
        assert runtime().endpoints.settings.cookies == Cookies()
        assert runtime().endpoints.settings.rate_limit is None
    with chosen(STORE="memory:", COOKIES="both"):
        assert runtime().endpoints.settings.cookies == Cookies("both")


def claims(_: Any) -> dict[str, object]:
    return {"tenant": "north"}


def test_hooks_may_ask_the_database(http: httpx2.Client, ada: Any) -> None:
    hooks = {
        "AUTHENTICATE": f"{__name__}.not_grace",
        "SCOPES_OF": f"{__name__}.by_user",
        "ON_EVENT": [f"{__name__}.tell"],
    }
    User.objects.create_user("grace", password=PASSWORD)
    TOLD.clear()
    with chosen(*PAGES, STORE="memory:", **hooks):
        assert http.get("/rest", headers=login(http, scope="read")).json() == {"user": "ada", "sub": str(ada.pk)}
        refused = http.post("/auth/login", json={**LOGIN, "scope": "admin"})
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_scope")
        assert http.post("/auth/login", json={**LOGIN, "username": "grace"}).status_code == 401
    assert [event.subject for event in TOLD if isinstance(event, SessionCreated)] == [str(ada.pk)]


TOLD: list[Any] = []


def tell(event: Any) -> None:
    TOLD.append(event)


def not_grace(username: str, password: str) -> str | None:
    return None if username == "grace" else authenticate_user(username, password)


def by_user(subject: str) -> list[str]:
    return ["admin", "read"] if user_of(subject).is_staff else ["read"]


def test_checking_the_project_and_migrating_it_open_no_store(tmp_path: Path) -> None:
    with chosen(STORE=f"sqlite:///{tmp_path}/never/sessions.db"):
        call_command("check")
        call_command("migrate", verbosity=0)
        with pytest.raises(ImproperlyConfigured):
            sessions()


def test_a_middleware_in_the_wrong_order_is_found_by_the_check() -> None:
    *before, ours = django_project.MIDDLEWARE
    with override_settings(MIDDLEWARE=[ours, *before]), pytest.raises(SystemCheckError, match=r"unbroken\.E001"):
        call_command("check")


def test_the_check_for_deployment_names_what_is_for_trying_out(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("check", deploy=True)
    said = capsys.readouterr().err
    assert "unbroken.W001" in said
    assert "unbroken.W002" in said
    encrypted = {"ENCRYPTION_KEY": new_key(), "ISSUER": "https://shop.example"}
    with chosen(STORE="sqlite:////nowhere/sessions.db", **encrypted):
        call_command("check", deploy=True)
    assert "unbroken." not in capsys.readouterr().err


def test_keys_are_encrypted_and_the_check_says_where_they_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def unencrypted(**setting: Any) -> int:
        with chosen(STORE=f"sqlite:///{tmp_path}/{len(list(tmp_path.iterdir()))}.db", ISSUER="https://s.ex", **setting):
            sessions().create("ada")
            call_command("check", deploy=True)
            found = count_unencrypted(sessions().store)
            sessions().close()
        return found

    first, second = new_key(), new_key()
    (tmp_path / "key").write_text(f"{first}\n{second}\n")
    for one in (
        {"ENCRYPTION_KEY": first},
        {"ENCRYPTION_KEY": [first, second]},
        {"ENCRYPTION_KEY_FILE": tmp_path / "key"},
    ):
        assert unencrypted(**one) == 0
        assert "unbroken.W003" not in capsys.readouterr().err
    assert unencrypted() == 0, "the key is in a file beside the store"
    assert "unbroken.W003" not in capsys.readouterr().err
    assert unencrypted(ENCRYPTION_KEY="none") > 0
    assert "unbroken.W003" in capsys.readouterr().err


def test_a_malformed_encryption_key_is_a_wrong_setting_and_is_not_shown() -> None:
    with (
        chosen(STORE="memory:", ENCRYPTION_KEY="hush"),
        pytest.raises(ImproperlyConfigured, match="encryption key") as caught,
    ):
        sessions()
    assert "hush" not in str(caught.value) + repr(setting())


urlpatterns = PAGES  # of a service without endpoints


def test_a_service_may_verify_the_tokens_of_another(ada: Any) -> None:
    with LoopbackServer() as server:
        token = server.sessions.create("somebody", scope="write").access_token
        at = f"{server.url}/.well-known/jwks.json"
        verifier = Verifier(at, issuer=server.sessions.issuer, audience=server.sessions.audience)
        with override_settings(UNBROKEN={"VERIFIER": verifier}, ROOT_URLCONF=__name__):
            headers = {"authorization": f"Bearer {token}"}
            assert Client().get("/orders", headers=headers).json() == {"sub": "somebody", "user": ""}
            assert Client().get("/later", headers=headers).status_code == 200
            assert Client().get("/orders").status_code == 401
            apps.get_app_config("unbroken").ready()
            ada.set_password("another")
            ada.save()
            for use in (sessions, route_table):
                with pytest.raises(ImproperlyConfigured, match="with VERIFIER"):
                    use()


def test_all_of_a_process_share_one_site() -> None:
    before = runtime()
    assert runtime() is before
    reset()
    assert runtime() is not before
