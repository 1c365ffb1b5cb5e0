"""The page about frameworks: each of its applications logs somebody in, and knows who asks."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.pages import ROOT, page, run
from unbroken.server.endpoints import EndpointSettings

ASK = """
from starlette.testclient import TestClient

def asked(client, data):
    login = client.post("/auth/login", json={"username": "ada", "password": "correct horse"})
    token = data(login)["access_token"]
    assert client.get("/orders").status_code == 401
    return data(client.get("/orders", headers={"Authorization": f"Bearer {token}"}))

for client, data in (
    (TestClient(starlette_app), lambda answer: answer.json()),
    (TestClient(fastapi_app), lambda answer: answer.json()),
    (flask_app.test_client(), lambda answer: answer.get_json()),
):
    assert asked(client, data) == {"orders of": "ada"}, client
"""


def test_each_application_of_the_page_works(tmp_path: Path) -> None:
    done = run(page("frameworks.md") + ASK, tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_page_names_every_setting_of_the_endpoints() -> None:
    text = (ROOT / "docs" / "frameworks.md").read_text()
    table = text[text.index("| setting |") : text.index("`Policy(")]
    assert set(re.findall(r"`(\w+)`", table)) >= set(EndpointSettings.__annotations__)
