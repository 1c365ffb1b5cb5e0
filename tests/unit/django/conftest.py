"""A project with one user, ada, and the views of ``pages.py``; by a real server, WSGI and ASGI."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from django.contrib.auth import get_user_model

from tests.support import django_project
from tests.support.backend import running
from tests.support.django_project import PASSWORD, chosen
from tests.support.faces import threaded
from tests.unit.django.pages import PAGES
from unbroken.django import sessions

User: Any = get_user_model()
LOGIN = {"username": "ada", "password": PASSWORD}
JSON = {"content_type": "application/json"}


def scopes_of(_: str) -> tuple[str, ...]:
    return ("read", "write", "pay")


@pytest.fixture(autouse=True)
def ada() -> Iterator[Any]:
    """A user of the project, which keeps its sessions in memory."""
    with chosen(*PAGES, STORE="memory:", SCOPES_OF=scopes_of):
        yield User.objects.create_user("ada", password=PASSWORD)
        User.objects.all().delete()


@pytest.fixture(params=["wsgi", "asgi"])
def http(request: pytest.FixtureRequest) -> Iterator[httpx2.Client]:
    serve = running if request.param == "asgi" else threaded
    app = django_project.application(request.param)
    with serve(app) as port, httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        yield client


def login(http: httpx2.Client, **more: str) -> dict[str, str]:
    response = http.post("/auth/login", json={**LOGIN, **more})
    assert response.status_code == 200, response.text
    return {"authorization": f"Bearer {response.json()['access_token']}"}


def token_of(user: Any, scope: str = "") -> dict[str, str]:
    return {"authorization": f"Bearer {sessions().create(str(user.pk), scope=scope).access_token}"}


def alive() -> int:
    return len(sessions().list_sessions())
