"""``open_token_store``: which store a path or a URL opens.

Modules: client/stores/__init__.py.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from unbroken import ConfigurationError, FileStore, MemoryStore, Session, StoredSession, TokenStore, open_token_store
from unbroken.client.stores.codec import new_key
from unbroken.client.stores.keyring import KeyringStore
from unbroken.client.stores.postgres import PostgresStore
from unbroken.client.stores.redis import RedisStore
from unbroken.client.stores.sqlite import SqliteStore

URL = "https://api.example"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_path_opens_a_file(folder: Path) -> None:
    for location in ("tokens.json", folder / "tokens.json", "~/tokens.json", "./tokens.json"):
        store = open_token_store(location)
        assert isinstance(store, FileStore)
        assert store.path == folder / "tokens.json"


def test_a_sqlite_url_opens_a_sqlite_file(folder: Path) -> None:
    for location in ("sqlite:///a.db", f"sqlite:///{folder}/a.db"):
        store = open_token_store(location, "ada")
        assert isinstance(store, SqliteStore)
        assert (store.path, store.name) == (folder / "a.db", "ada")


@pytest.mark.parametrize("location", ["redis://127.0.0.1:1/0", "rediss://127.0.0.1:1", "unix:///run/redis.sock"])
def test_a_redis_url_opens_a_redis_store(location: str) -> None:
    store = open_token_store(location, "ada")
    assert isinstance(store, RedisStore)
    assert store.name == "ada"


@pytest.mark.parametrize("location", ["postgresql://127.0.0.1:1/db", "postgres://127.0.0.1:1/db"])
def test_a_postgresql_url_opens_a_postgresql_store(location: str) -> None:
    assert isinstance(open_token_store(location), PostgresStore)


def test_a_keyring_service_opens_the_secret_store_of_the_system(folder: Path) -> None:
    store = open_token_store("keyring:my-app", "ada")
    assert isinstance(store, KeyringStore)
    assert (store.service, store.name) == ("my-app", "ada")


def test_memory_opens_a_store_in_memory() -> None:
    assert isinstance(open_token_store("memory:"), MemoryStore)


@pytest.mark.parametrize(
    "location",
    [
        "",
        "mysql://ada:s3cret@db/x",
        "https://api.example",
        "sqlite://a.db",
        "sqlite:///",
        "sqlite:///:memory:",
        "keyring:",
    ],
)
def test_an_unknown_location_names_the_known_ones_and_shows_no_secret(location: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"no token store is known for .*: use a path, sqlite:///PATH"
    ) as caught:
        open_token_store(location)
    assert "s3cret" not in str(caught.value)


def test_a_misspelled_scheme_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ConfigurationError, match="for 'redi:': did you mean redis"):
        open_token_store("redi://cache.example.com/0")


def test_a_store_without_its_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, "unbroken.client.stores.redis")
    with pytest.raises(ConfigurationError, match=r"pip install 'unbroken\[redis\]'"):
        open_token_store("redis://127.0.0.1")


def test_a_key_encrypts_what_is_stored(folder: Path) -> None:
    empty, record = StoredSession(over="not_logged_in"), StoredSession(1, 1, None, over="logged_out")
    for location in ("tokens.json", "sqlite:///a.db"):
        store = open_token_store(location, key=new_key())
        assert store.save(record, empty)
        with pytest.raises(ConfigurationError, match="encrypted"):
            open_token_store(location).load()


@pytest.mark.parametrize("location", ["tokens.json", Path("tokens.json"), "sqlite:///a.db", "memory:"])
def test_a_session_opens_its_store_by_the_same_text(folder: Path, location: Any) -> None:
    Session(URL, location).import_tokens({"access_token": "A"})
    if location != "memory:":
        assert Session(URL, location).token() == "A"


def test_every_store_is_a_token_store() -> None:
    stores: list[TokenStore] = [MemoryStore(), open_token_store("redis://127.0.0.1:1")]
    assert all(callable(store.lock) for store in stores)
