"""The page about living in an application: its tests pass, and what it says of imports and of Alembic is so."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpRequest, JsonResponse
from django.urls import path

from tests.docs.pages import ROOT, examples, page, run
from tests.support import django_project
from unbroken.server import open_store

PAGE = ROOT / "docs" / "living-in-an-application.md"


def test_the_tests_that_the_page_shows_pass(tmp_path: Path) -> None:
    code = page(PAGE.name)
    done = run(code, tmp_path, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{code.count('def test_')} passed" in done.stdout


def defined(name: str) -> Any:
    [code] = [one for one in examples(PAGE, "py") if f"def {name}(" in one]
    made: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), made)
    return made[name]


def test_alembic_is_told_to_leave_our_tables_and_no_others() -> None:
    include = defined("include_object")
    assert not include(object(), "unbroken_session", "table", True, None)
    assert include(object(), "orders", "table", True, None)
    assert include(object(), "unbroken_session", "table", False, None), "the application has a table of that name"


def test_the_client_of_a_django_user_is_logged_in() -> None:
    django_project.set_up()
    from django.contrib.auth import get_user_model

    from unbroken.django import access_token_required

    @access_token_required
    def mine(request: HttpRequest) -> JsonResponse:
        return JsonResponse({"of": request.user.get_username()})

    users: Any = get_user_model().objects
    user = users.create_user("ada of the page", password="correct horse")
    with django_project.chosen(path("mine", mine), STORE="memory:", ISSUER="https://shop.example.com"):
        assert defined("client_of")(user).get("/mine").json() == {"of": "ada of the page"}
    user.delete()


@pytest.mark.parametrize("url", ["postgresql://ada@127.0.0.1:1/shop", "redis://127.0.0.1:1/0"])
def test_an_application_is_imported_while_its_store_is_down(url: str, tmp_path: Path) -> None:
    app = f"""
    from fastapi import FastAPI
    from fastapi.testclient import TestClient
    from unbroken.fastapi import Auth
    from unbroken.server import Sessions, open_store

    sessions = Sessions(open_store({url!r}), issuer="https://shop.example.com", encryption_key="none")
    auth = Auth(sessions, lambda name, password: name)
    app = FastAPI()
    app.include_router(auth.router)
    refused = TestClient(app).post("/auth/login", json={{"username": "ada", "password": "x"}})
    assert (refused.status_code, "retry-after" in refused.headers) == (503, True), refused.text
    """
    done = run("\n".join(line.removeprefix("    ") for line in app.splitlines()), tmp_path)
    assert done.returncode == 0, done.stderr
    assert open_store(url)
