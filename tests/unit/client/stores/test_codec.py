"""Encrypted records, and where keys come from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import keyring
import pytest
from keyrings.alt.file import PlaintextKeyring

from unbroken import ConfigurationError, FileStore
from unbroken.client.core.token_store import EMPTY, StoredSession
from unbroken.client.stores.codec import CorruptRecord, SessionCodec, key_from_environment, key_from_keyring, new_key
from unbroken.tokens import Tokens

TOKENS = Tokens("the access token", "the refresh token", 60.0, 1000.0, version=7, epoch=2)


RECORD = StoredSession(7, 2, TOKENS)


def test_an_encrypted_token_file_holds_no_token_in_clear(tmp_path: Path) -> None:
    FileStore(tmp_path / "t", key=new_key()).save(RECORD, EMPTY)
    written = (tmp_path / "t").read_bytes()
    assert b"token" not in written.removeprefix(b"unbroken-encrypted:")


def test_a_wrong_encryption_key_is_refused_and_leaves_the_tokens_as_they_are(tmp_path: Path) -> None:
    key = new_key()
    FileStore(tmp_path / "t", key=key).save(RECORD, EMPTY)
    for wrong in (None, new_key()):
        with pytest.raises(ConfigurationError, match="encrypted"):
            FileStore(tmp_path / "t", key=wrong).load()
    assert FileStore(tmp_path / "t", key=key).load() == RECORD


def test_keys_can_be_changed_and_what_lay_unencrypted_is_encrypted_next_time(tmp_path: Path) -> None:
    old, new = new_key(), new_key()
    FileStore(tmp_path / "t").save(RECORD, EMPTY)
    with_old = FileStore(tmp_path / "t", key=old)
    assert with_old.load() == RECORD
    assert with_old.save(StoredSession(8, 3, None, over="logged_out"), RECORD)
    with_both = FileStore(tmp_path / "t", key=[new, old])
    assert with_both.save(RECORD, with_both.load())
    assert FileStore(tmp_path / "t", key=new).load() == RECORD


def test_a_malformed_key_is_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="create one with"):
        FileStore(tmp_path / "t", key="password")


def test_keys_come_from_the_environment_or_the_keyring(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="UNBROKEN_STORE_KEY"):
        key_from_environment()
    monkeypatch.setenv("UNBROKEN_STORE_KEY", "one, two")
    assert key_from_environment() == ["one", "two"]
    before, kept = keyring.get_keyring(), PlaintextKeyring()
    kept.file_path = str(tmp_path / "secrets")
    keyring.set_keyring(kept)
    try:
        key = key_from_keyring("unbroken tests")
        assert key_from_keyring("unbroken tests") == key
        assert FileStore(tmp_path / "t", key=key).load() == EMPTY
    finally:
        keyring.set_keyring(before)


def test_a_refresh_under_way_is_kept_with_who_began_it_and_when() -> None:
    codec = SessionCodec("here")
    begun = StoredSession(7, 2, replace(TOKENS, idempotent=True), "key", begun_by="a machine", begun_at=1000.0)
    assert codec.decode(codec.encode(begun)) == begun


@pytest.mark.parametrize("wrong", [{"begun_by": 7}, {"begun_by": "a\nb"}, {"begun_at": "now"}, {"begun_at": -1.0}])
def test_what_cannot_have_begun_a_refresh_is_no_record(wrong: dict[str, object]) -> None:
    codec = SessionCodec("here")
    fields = json.loads(codec.encode(RECORD)) | wrong
    with pytest.raises(CorruptRecord):
        codec.decode(json.dumps(fields).encode())


def test_a_record_without_the_newer_fields_is_read() -> None:
    codec = SessionCodec("here")
    fields = json.loads(codec.encode(RECORD))
    del fields["begun_by"], fields["begun_at"], fields["tokens"]["idempotent"]
    assert codec.decode(json.dumps(fields).encode()) == RECORD
