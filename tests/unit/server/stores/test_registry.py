"""Which store a URL names, what is said of other URLs, and how a type of store is added."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT
from unbroken.errors import ConfigurationError
from unbroken.server import MemorySessionStore, open_store
from unbroken.server.stores import StoreType, redact_url, register_store, registry, store_type, store_types
from unbroken.server.stores.migrations import schema_version, upgrade_schema

SHELF = StoreType("shelf", schemes=("shelf",), example="shelf://FOLDER", open=lambda _: MemorySessionStore())


@pytest.fixture
def own_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(registry, "_by_scheme", dict(registry._by_scheme))


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("sqlite:///a.db", "sqlite"),
        ("SQLite:///a.db", "sqlite"),
        ("postgres://h/d", "postgres"),
        ("postgresql://h/d", "postgres"),
        ("rediss+cluster://a:1,b:2", "redis"),
        ("unix:///run/redis.sock", "redis"),
        ("memory:", "memory"),
    ],
)
def test_the_scheme_of_a_url_names_the_type(url: str, name: str) -> None:
    assert store_type(url).name == name


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://ada:secret@h/d", r"unknown store 'mysql:': use sqlite:///FILE, postgresql://HOST/DATABASE, redis://"),
        ("postgre://h/d", r"unknown store 'postgre:': did you mean postgres\? use sqlite:///FILE"),
        ("sessions.db", r"unknown store 'sessions.db': use sqlite:///FILE"),
        ("", r"unknown store '': use sqlite:///FILE"),
        ("postgresql+psycopg://ada:secret@h/d", r"write postgresql://…, without the name of a driver"),
        ("sqlite+aiosqlite:///a.db", r"write sqlite://…, without the name of a driver"),
        ("sqlite://app.db", r"write sqlite:///app.db for a relative path, sqlite:////app.db for an absolute one"),
        ("sqlite:app.db", r"write sqlite:///app.db for a relative path"),
        ("sqlite:///", r"write sqlite:///FILE for a relative path"),
        ("sqlite://", r"a store in memory is memory:, a file is sqlite:///FILE"),
        ("sqlite:///:memory:", r"a store in memory is memory:"),
        ("memory:shop", r"write memory:"),
        ("redis://a:1,b:2", r"write redis\+cluster://"),
        ("redis://ada:secret@h:port", r"write redis://HOST:PORT/0"),
    ],
)
def test_another_url_is_refused_in_one_line_that_says_what_to_write(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        open_store(url)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("store", "bare"),
    [
        ("redis://:p@ss@host/0", "redis://host/0"),
        ("redis+cluster://:p@ss@a:1,b:2", "redis+cluster://a:1,b:2"),
        ("unix://ada:secret@/run/redis.sock", "unix:///run/redis.sock"),
        ("postgresql://u:s%2Fecret@h/db?password=x", "postgresql://h/db"),
        ("host=h password = secret", "host=h "),
        ("host=h password='my secret' dbname=d", "host=h  dbname=d"),
        ("sqlite:////srv/a@b/c.db", "sqlite:////srv/a@b/c.db"),
        ("shelf://ada:secret@h/x", "shelf://h/x"),
    ],
)
def test_no_part_of_a_stores_password_is_shown(store: str, bare: str) -> None:
    assert redact_url(store) == bare


@pytest.mark.usefixtures("own_types")
def test_a_type_that_is_registered_is_opened_and_named() -> None:
    register_store(SHELF)
    assert isinstance(open_store("shelf://here"), MemorySessionStore)
    assert SHELF in store_types()
    with pytest.raises(ConfigurationError, match="shelf://FOLDER"):
        open_store("mysql://h/d")


@pytest.mark.usefixtures("own_types")
def test_a_scheme_belongs_to_one_type() -> None:
    taken = StoreType("other", schemes=("other", "redis"), example="other:", open=SHELF.open)
    with pytest.raises(ConfigurationError, match="the store 'redis' has the scheme 'redis'"):
        register_store(taken)
    with pytest.raises(ConfigurationError, match="unknown store 'other:'"):
        open_store("other:")


def test_a_type_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    def entry_points(*, group: str, name: str) -> Iterator[Any]:
        known = {"shelf": f"{__name__}:SHELF", "broken": f"{__name__}:ROOT"}
        if group == "unbroken.stores" and name in known:
            yield importlib.metadata.EntryPoint(name, known[name], group)

    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    monkeypatch.setattr(registry, "entry_points", entry_points)
    assert store_type("shelf://here") is SHELF
    with pytest.raises(ConfigurationError, match="is not an unbroken StoreType"):
        store_type("broken://here")


@pytest.mark.usefixtures("own_types")
def test_a_type_without_tables_has_no_schema() -> None:
    register_store(SHELF)
    assert schema_version("shelf://here") is None
    assert upgrade_schema("shelf://here") is None


def test_the_contract_suite_takes_a_store_by_its_url(tmp_path: Path) -> None:
    environment = {"UNBROKEN_TEST_STORE": f"sqlite:///{tmp_path}/{{unique}}.db", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-k", "accounts and sqlite"]
    done = subprocess.run(
        [*command, "tests/contract/stores/test_server_stores.py"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "3 passed" in done.stdout, done.stdout + done.stderr
