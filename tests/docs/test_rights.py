"""The page about rights: the same three routes in each framework, and a person who is demoted."""

from __future__ import annotations

from pathlib import Path

from tests.docs.pages import ROOT, page, run

DEMOTE = """
from starlette.testclient import TestClient

def body(response):
    return response.get_json() if hasattr(response, "get_json") else response.json()

def statuses(client, token):
    headers = {"Authorization": f"Bearer {token}"}
    return [client.get(path, headers=headers).status_code for path in ("/write", "/report", "/delete")]

for client in (TestClient(starlette_app), TestClient(fastapi_app), flask_app.test_client()):
    people["ada"] = {"role": "admin", "scopes": ["read", "write"]}
    login = {"username": "ada", "password": "correct horse"}
    tokens = body(client.post("/auth/login", json=login))
    assert tokens["scope"] == "read write"
    assert statuses(client, tokens["access_token"]) == [200, 200, 200]
    assert body(client.get("/write", headers={"Authorization": "Bearer " + tokens["access_token"]})) == {"by": "ada"}
    bob = body(client.post("/auth/login", json={"username": "bob", "password": "correct horse"}))
    assert statuses(client, bob["access_token"]) == [403, 403, 403]
    people["ada"] = {"role": "clerk", "scopes": []}
    assert statuses(client, tokens["access_token"]) == [200, 200, 403], "only what is looked up has changed"
    tokens = body(client.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]}))
    assert tokens["scope"] == ""
    assert statuses(client, tokens["access_token"]) == [403, 403, 403]
    assert client.get("/write").status_code == 401
"""


def test_the_applications_of_the_page_follow_the_person(tmp_path: Path) -> None:
    done = run(page("rights.md") + DEMOTE, tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_page_says_what_django_has() -> None:
    import unbroken.django

    text = (ROOT / "docs" / "rights.md").read_text()
    assert all(f"`{name}`" in text for name in ("permissions_of", "groups_of"))
    assert {"permissions_of", "groups_of"} <= set(unbroken.django.__all__)
