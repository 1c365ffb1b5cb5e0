"""Keys that are encrypted in the store: with the encryption key they serve as before, without it one clear line.

Modules: _encryption.py, server/stores/key_file.py.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.commands import PASSWORD, serving, unbroken
from tests.support.services import new_store
from unbroken._concurrency import run_sync
from unbroken._encryption import Encryptor
from unbroken.errors import ConfigurationError
from unbroken.server import MemorySessionStore, Sessions, open_store
from unbroken.server.keys.keyring import ENCRYPTED_PREFIX, KeyRecord
from unbroken.server.stores import SessionStore
from unbroken.server.stores.encrypted_keys import (
    count_unencrypted,
    encrypted_keys,
    keys_from_environment,
    keys_from_file,
    new_key,
    reencrypt_keys,
)


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty store on the server that the test's parameter names."""
    return new_store(request.getfixturevalue(request.param))


@pytest.fixture(params=["memory", "sqlite", "postgres", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SessionStore]:
    urls = {"memory": "memory:", "sqlite": f"sqlite:///{tmp_path}/s.db"}
    opened = open_store(urls.get(request.param) or new_store(request.getfixturevalue(request.param)))
    yield opened
    opened.close()


def records(store: SessionStore) -> list[KeyRecord]:
    return run_sync(store.keys())


def test_what_lies_in_the_store_is_encrypted_and_sessions_are_as_ever(store: SessionStore) -> None:
    sessions = Sessions(encrypted_keys(store, new_key()))
    granted = sessions.create("ada")
    assert sessions.verify(sessions.refresh(granted.refresh_token).access_token).subject == "ada"
    assert len(records(store)) == 2
    for record in records(store):
        assert record.secret.startswith(ENCRYPTED_PREFIX)
        assert '"d"' not in record.secret


def test_encrypted_keys_without_the_encryption_key_are_one_clear_line(store: SessionStore) -> None:
    key = new_key()
    granted = Sessions(encrypted_keys(store, key)).create("ada")
    for opened, says in ((store, "the keys in the store are encrypted: set encryption_key"),
                         (encrypted_keys(store, new_key()), "was encrypted with another encryption key")):  # fmt: skip
        with pytest.raises(ConfigurationError, match=says) as caught:
            Sessions(opened).refresh(granted.refresh_token)
        assert key not in str(caught.value)
    assert Sessions(encrypted_keys(store, key)).refresh(granted.refresh_token).refresh_seq == 1


def test_keys_that_lie_unencrypted_are_used_and_are_encrypted_when_that_is_asked_for(store: SessionStore) -> None:
    granted = Sessions(store, encryption_key="none").create("ada")
    key = new_key()
    opened = encrypted_keys(store, key)
    sessions = Sessions(opened)
    granted = sessions.refresh(granted.refresh_token)
    assert count_unencrypted(opened) == count_unencrypted(store) == 2
    assert reencrypt_keys(opened) == 2
    assert count_unencrypted(opened) == 0
    assert reencrypt_keys(opened) == 0
    assert sessions.verify(granted.access_token).subject == "ada"
    assert Sessions(encrypted_keys(store, key)).refresh(granted.refresh_token).refresh_seq == 2


def test_the_encryption_key_is_changed_by_putting_a_new_one_before_it(store: SessionStore) -> None:
    old, new = new_key(), new_key()
    granted = Sessions(encrypted_keys(store, old)).create("ada")
    both = encrypted_keys(store, [new, old])
    granted = Sessions(both).refresh(granted.refresh_token)
    assert reencrypt_keys(both) == 2
    granted = Sessions(encrypted_keys(store, new)).refresh(granted.refresh_token)
    with pytest.raises(ConfigurationError, match="another encryption key"):
        Sessions(encrypted_keys(store, old)).keyring()


def test_a_rotation_and_a_retirement_keep_everything_encrypted(store: SessionStore) -> None:
    sessions = Sessions(encrypted_keys(store, new_key()))
    granted = sessions.create("ada")
    sessions.rotate_keys(publish_ahead=0.0)
    kid = next(record.kid for record in records(store) if record.verifies_until and record.use == "sign")
    sessions.retire_key(kid)
    assert count_unencrypted(store) == 0
    assert sessions.refresh(granted.refresh_token).refresh_seq == 1
    ends = {record.kid: record.verifies_until for record in records(store)}
    assert ends[kid] is not None


def test_an_unencrypted_secret_never_takes_the_place_of_a_encrypted_one(store: SessionStore) -> None:
    opened = encrypted_keys(store, new_key())
    Sessions(opened).keyring()
    encrypted = records(store)
    run_sync(store.save_keys([replace(record, secret="x", token_ttl=10**7) for record in run_sync(opened.keys())]))
    after = records(store)
    assert [record.secret for record in after] == [record.secret for record in encrypted]
    assert {record.token_ttl for record in after} == {10**7}


def test_no_key_can_be_put_in_anothers_place() -> None:
    store = MemorySessionStore()
    key = new_key()
    Sessions(encrypted_keys(store, key)).rotate_keys(publish_ahead=0.0)
    first, second = [record for record in records(store) if record.use == "mac"]
    store._keys[first.kid] = replace(first, secret=second.secret)
    with pytest.raises(ConfigurationError, match=f"key {first.kid} in the store was encrypted with another"):
        Sessions(encrypted_keys(store, key)).keyring()


@pytest.mark.parametrize("change", [lambda text: text[:-2] + "AA", lambda text: text[:8], lambda text: "", str.upper])
def test_what_was_changed_is_not_opened(change: Callable[[str], str]) -> None:
    sealer = Encryptor(new_key())
    assert sealer.decrypt(sealer.encrypt("text")) == "text"
    assert sealer.decrypt(change(sealer.encrypt("a longer text"))) is None


def test_keys_come_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = new_key(), new_key()
    monkeypatch.setenv("SOME_KEY", f"{one}, {two}")
    assert keys_from_environment("SOME_KEY") == [one, two]
    (tmp_path / "key").write_text(f"{one}\n{two}\n")
    assert keys_from_file(tmp_path / "key") == [one, two]
    (tmp_path / "empty").write_text("\n")
    for wrong, says in ((tmp_path / "empty", "is empty"), (tmp_path / "none", "cannot be read")):
        with pytest.raises(ConfigurationError, match=says):
            keys_from_file(wrong)
    monkeypatch.delenv("SOME_KEY")
    with pytest.raises(ConfigurationError, match="SOME_KEY is not set"):
        keys_from_environment("SOME_KEY")
    for bad in ("x", [], ["x"], b""):
        with pytest.raises(ConfigurationError, match="an encryption key is 32 bytes"):
            encrypted_keys(MemorySessionStore(), bad)


def test_the_keys_commands_encrypt_and_reencrypt_the_keyring(tmp_path: Path) -> None:
    old, new = (unbroken(tmp_path, "keys", "new-encryption-key").stdout.strip() for _ in range(2))
    assert unbroken(tmp_path, "keys", "list", UNBROKEN_ENCRYPTION_KEY=old).returncode == 0
    (tmp_path / "encryption-key").write_text(f"{new}\n{old}\n")
    assert unbroken(tmp_path, "keys", "encrypt", UNBROKEN_ENCRYPTION_KEY=old).stdout == "encrypted 0 keys\n"
    with sqlite3.connect(tmp_path / "unbroken.db") as db:
        for kid, secret in db.execute("SELECT kid, secret FROM key").fetchall():
            plain = Encryptor(old).decrypt(secret.removeprefix("encrypted:")).partition("\n")[2]
            db.execute("UPDATE key SET secret = ? WHERE kid = ?", (plain, kid))
    db.close()
    assert unbroken(tmp_path, "keys", "encrypt", UNBROKEN_ENCRYPTION_KEY=old).stdout == "encrypted 2 keys\n"
    assert (
        unbroken(tmp_path, "keys", "encrypt", "--encryption-key-file", "encryption-key").stdout == "encrypted 2 keys\n"
    )
    for command in (("keys", "list"), ("serve", "--port", "0"), ("users", "remove", "x"), ("keys", "rotate")):
        done = unbroken(tmp_path, *command)
        if command[0] != "users":
            assert "are encrypted: set encryption_key" in done.stderr, command
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        wrong = unbroken(tmp_path, *command, UNBROKEN_ENCRYPTION_KEY=old)
        assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    with sqlite3.connect(tmp_path / "unbroken.db") as db:
        secrets = [secret for (secret,) in db.execute("SELECT secret FROM key")]
    db.close()
    assert all(secret.startswith("encrypted:") for secret in secrets)


@pytest.mark.parametrize("url", ["postgres", "redis"], indirect=True)
def test_sessions_survive_a_rotation_of_keys_on_two_processes(url: str, tmp_path: Path) -> None:
    key = new_key()
    environment = {"UNBROKEN_STORE": url, "UNBROKEN_ENCRYPTION_KEY": key}
    unbroken(tmp_path, "users", "add", "ada", "--password-stdin", given=PASSWORD, **environment)
    with serving(tmp_path, "--issuer", "https://id.example", **environment) as one, serving(
        tmp_path, "--issuer", "https://id.example", **environment
    ) as two:  # fmt: skip
        granted = one.login()
        for _ in range(2):
            done = unbroken(tmp_path, "keys", "rotate", "--now", **environment)
            assert done.returncode == 0, done.stderr
            for here, there in ((one, two), (two, one)):
                response = here.refresh(granted["refresh_token"])
                assert response.status_code == 200, response.text
                granted = response.json()
                who = there.http.get("/auth/session", headers={"authorization": f"Bearer {granted['access_token']}"})
                assert who.status_code == 200, who.text
        kids = {key["kid"] for key in two.http.get("/.well-known/jwks.json").json()["keys"]}
        assert len(kids) == 3
        assert json.loads(one.http.get("/auth/health/ready").text) == {"status": "ok"}
        assert [one.stop(), two.stop()] == [0, 0]


def test_a_encrypted_secret_that_was_opened_once_cannot_take_another_keys_place() -> None:
    store = MemorySessionStore()
    encrypted = encrypted_keys(store, new_key())
    Sessions(encrypted).rotate_keys(publish_ahead=0.0)
    first, second = (key for key in run_sync(store.keys()) if key.use == "mac")
    run_sync(encrypted.keys())
    run_sync(store.save_keys([replace(second, secret=first.secret)]))
    with pytest.raises(ConfigurationError, match="encrypted with another"):
        run_sync(encrypted.keys())
