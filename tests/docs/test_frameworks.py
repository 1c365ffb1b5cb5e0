"""The page about frameworks: each of its applications logs somebody in, and knows who asks."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path

from tests.docs.pages import ROOT, page, run
from unbroken.server import Endpoints, MemorySessionStore, Policy, Sessions
from unbroken.server.http.settings import EndpointSettings

ASK = """
from starlette.testclient import TestClient

accounts.add("ada", "correct horse")

def asked(client, data):
    login = client.post("/auth/login", json={"username": "ada", "password": "correct horse"})
    token = data(login)["access_token"]
    assert client.get("/orders").status_code == 401
    return data(client.get("/orders", headers={"Authorization": f"Bearer {token}"}))

for client, data in (
    (TestClient(starlette_app), lambda response: response.json()),
    (TestClient(fastapi_app), lambda response: response.json()),
    (flask_app.test_client(), lambda response: response.get_json()),
):
    assert asked(client, data) == {"orders of": "ada"}, client
"""


def test_each_application_of_the_page_works(tmp_path: Path) -> None:
    done = run(page("frameworks.md") + ASK, tmp_path)
    assert done.returncode == 0, done.stderr


TICKETS = """
accounts.add("ada", "correct horse")
from starlette.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse

def ticket(client, data):
    login = client.post("/auth/login", json={"username": "ada", "password": "correct horse"})
    bearer = {"Authorization": f"Bearer {data(login)['access_token']}"}
    return data(client.post("/auth/ticket", headers=bearer))["ticket"]

for app in (starlette_app, fastapi_app):
    client = TestClient(app)
    bought = ticket(client, lambda response: response.json())
    with client.websocket_connect(f"/live?ticket={bought}") as socket:
        assert socket.receive_text() == "hello ada"
    try:
        with client.websocket_connect(f"/live?ticket={bought}"):
            raise AssertionError("a ticket was used twice")
    except WebSocketDenialResponse as refused:
        assert refused.status_code == 401

events = client.get("/events", params={"ticket": ticket(client, lambda response: response.json())})
assert events.text == "data: hello ada\\n\\n"
assert client.get("/events").status_code == 401
client = flask_app.test_client()
bought = ticket(client, lambda response: response.get_json())
assert [client.get(f"/report?ticket={bought}").status_code for _ in range(2)] == [200, 401]
assert client.get("/report").status_code == 401
"""


def test_the_routes_of_the_page_that_take_tickets_work(tmp_path: Path) -> None:
    done = run(page("frameworks.md") + TICKETS, tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_page_names_every_setting_of_the_endpoints() -> None:
    text = (ROOT / "docs" / "frameworks.md").read_text()
    table = text[text.index("| setting |") : text.index("`Policy(")]
    assert set(re.findall(r"`(\w+)`", table)) >= set(EndpointSettings.__annotations__)


def test_the_page_names_every_setting_of_sessions_and_of_the_policy() -> None:
    text = (ROOT / "docs" / "frameworks.md").read_text()
    table = text.partition("`Sessions(store, ...)` takes")[2].partition("\n## ")[0]
    names = set(inspect.signature(Sessions).parameters) - {"store"} | {field.name for field in fields(Policy)}
    assert {name for name in names if not re.search(rf"\b{name}\b", table)} == set()


def test_the_page_names_every_setting_of_django() -> None:
    from unbroken.django import conf

    text = (ROOT / "docs" / "frameworks.md").read_text()
    paragraph = text.partition("Django's `UNBROKEN` also has")[2].partition("\n## ")[0]
    names = {*conf.OWN, *conf.POLICY, *conf.SESSIONS}
    assert {name for name in names if f"`{name}`" not in paragraph} == set()


def test_the_frameworks_page_names_every_endpoint() -> None:
    endpoints = Endpoints(Sessions(MemorySessionStore()), lambda name, password: None, verify_mfa=lambda *_: True)
    text = (ROOT / "docs" / "frameworks.md").read_text()
    table = text.partition("## The endpoints")[2].partition("\n## ")[0].replace("SID", "{sid}")
    shown = {name for row in re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE) for name in re.findall(r"`(.*?)`", row)}
    served = {f"{route.method} {endpoints.path(route)}" for route in endpoints.routes if route.method != "OPTIONS"}
    assert {name.partition("?")[0] for name in shown} == served
