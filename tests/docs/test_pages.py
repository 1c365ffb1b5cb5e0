"""The pages about the client: their examples run against real servers, and their tables leave nothing out."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.contract.stores import test_client_stores as contract
from tests.docs.pages import API, ROOT, examples, page, run
from tests.interop.backends import shapes
from tests.interop.backends.base import Backend as Shape
from tests.interop.servers import dialects as foreign
from tests.support.adapters import ADAPTERS
from unbroken import HttpResponse, Session
from unbroken.client.core import events
from unbroken.client.core.refresh_rules import GrantRejected
from unbroken.testing import LoopbackServer, running
from unbroken.testing.server import PASSWORD


@pytest.mark.parametrize(
    "name", ["clients.md", "stores.md", "observability.md", "extend/client-store.md", "extend/http-library.md"]
)
def test_the_examples_of_a_page_run_against_a_server(name: str, api: LoopbackServer, tmp_path: Path) -> None:
    done = run(f"password = {PASSWORD!r}\n{page(name, api.url)}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert api.sessions.list_sessions("ada"), "the page has logged in here, and is still good"
    assert api.alarms() == 0


@pytest.mark.parametrize("name", ["testing.md", "extend/dialect.md"])
def test_the_tests_that_a_page_shows_pass(name: str, tmp_path: Path) -> None:
    code = page(name)
    done = run(code, tmp_path, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{code.count('def test_')} passed" in done.stdout


SHAPES: dict[str, Callable[[], Shape]] = {
    "status_in_body": shapes.StatusInBody,
    "code_in_200": shapes.CodeIn200,
    "bearer_json": shapes.BearerJson,
    "own_header": shapes.OwnHeader,
    "kept_refresh": shapes.KeptRefresh,
}


def described(url: str, folder: Path) -> dict[str, Any]:
    """All that the page about backends defines."""
    (folder / "example.py").write_text(page("backends.md", url))
    return runpy.run_path(str(folder / "example.py"), {"client_secret": "a secret with: signs & spaces"})


@pytest.mark.parametrize("name", SHAPES)
def test_the_page_about_backends_describes_each_shape(name: str, tmp_path: Path) -> None:
    backend = SHAPES[name]()
    with running(backend.app()) as port:
        backend.url = f"http://127.0.0.1:{port}"
        dialect = described(backend.url, tmp_path)[name]
        assert dialect == type(backend).dialect(backend.url)
        session = Session(dialect)
        session.import_tokens(json.loads(backend.granted(backend.issue("ada", "family")).body))
        backend.expire()
        with ADAPTERS["httpx2"](session) as client:
            assert client.request("GET", backend.url + "/api/echo").json["user"] == "ada"
        assert (backend.refreshes, backend.alarms) == (1, 0)


@pytest.mark.parametrize("name", ["oauth_toolkit", "simple_jwt", "authlib", "flask_jwt", "oidc_provider"])
def test_the_page_about_backends_has_the_lines_that_foreign_servers_are_tested_with(name: str, tmp_path: Path) -> None:
    assert described(API, tmp_path)[name] == getattr(foreign, name)(API)


def test_a_dialect_of_the_page_ends_a_session_that_a_200_reports_as_dead(tmp_path: Path) -> None:
    dialect = described(API, tmp_path)["error_in_200"]
    dead = HttpResponse(200, {}, json.dumps({"error": "bad_refresh_token"}).encode())
    assert isinstance(dialect.read_refresh_response(dead), GrantRejected)


STORE_TESTS = {
    name: test
    for name, test in vars(contract).items()
    if name.startswith("test_") and list(inspect.signature(test).parameters) == ["store"] and "pickled" not in name
}


@pytest.mark.parametrize("test", STORE_TESTS.values(), ids=STORE_TESTS)
def test_the_store_that_a_page_shows_keeps_the_contract(test: Callable[[Any], None], tmp_path: Path) -> None:
    [code] = [code for code in examples(ROOT / "docs" / "extend" / "client-store.md") if "class UserTable" in code]
    (tmp_path / "example.py").write_text(code)
    test(runpy.run_path(str(tmp_path / "example.py"))["UserTable"](tmp_path / "app.db", 7))


def test_the_page_about_events_names_them_all_with_their_fields() -> None:
    table = (ROOT / "docs" / "observability.md").read_text().partition("## Events")[2].partition("## Logging")[0]
    shown = {
        name: re.findall(r"`(\w+)`", told)[:2]
        for name, told in re.findall(r"^\| `(\w+)` \| (.*?) \|", table, re.MULTILINE)
    }
    kinds = {
        kind.__name__: kind
        for kind in vars(events).values()
        if inspect.isclass(kind) and kind.__base__ is events.ClientEvent
    }
    fields = {name: [field.name for field in dataclasses.fields(kind)] for name, kind in kinds.items()}
    fields = {name: [field for field in found if field != "version"] for name, found in fields.items()}
    assert {name: told[: len(fields[name])] for name, told in shown.items()} == fields


def test_the_page_about_metrics_names_them_all() -> None:
    from prometheus_client import CollectorRegistry

    import unbroken.prometheus

    registry = CollectorRegistry()
    unbroken.prometheus.observe(Session(API), registry=registry)
    text = (ROOT / "docs" / "observability.md").read_text().replace("…_not_replayed", "unbroken_client_not_replayed")
    made = {metric.name + ("_total" if metric.type == "counter" else "") for metric in registry.collect()}
    assert set(re.findall(r"`(unbroken_client_[a-z_]+)", text)) == made
