"""What is particular to files: permissions, crashes, damage, other processes."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from unbroken import ConfigurationError, FileStore, StoreBusy, StoreUnavailable, Tokens
from unbroken.client.core.token_store import EMPTY, StoredSession

RECORD = StoredSession(7, 2, Tokens("access", "refresh", version=7, epoch=2))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "tokens.json"


def test_the_file_and_its_locks_are_its_owners_alone(file: Path) -> None:
    os.umask(os.umask(0))
    store = FileStore(file)
    store.save(RECORD, EMPTY)
    with store.lock(1):
        pass
    for path in file.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_the_lock_files_of_a_file_store_are_never_deleted(file: Path) -> None:
    store = FileStore(file)
    with store.lock(1):
        inode = os.stat(str(file) + ".refresh").st_ino
    with store.lock(1):
        assert os.stat(str(file) + ".refresh").st_ino == inode


def test_nothing_is_left_beside_a_write_that_fails(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FileStore(file)
    store.save(RECORD, EMPTY)

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(StoreUnavailable, match="No space left"):
        store.save(StoredSession(8, 2), RECORD)
    monkeypatch.undo()
    assert store.load() == RECORD
    assert [path.name for path in file.parent.glob(".*")] == []


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"null", b'{"unbroken": 1}', b"\xff\xfe", b'{"unbroken": 1, "version": "x"}',
     b'{"unbroken":1,"version":1,"epoch":1,"tokens":{"access_token":7},"idempotency_key":null,"over":""}',
     b'{"unbroken":1,"version":1,"epoch":1,"tokens":{"access_token":"a","expires_in":"x","version":1},"idempotency_key":null,"over":""}'],
)  # fmt: skip
def test_a_damaged_file_is_set_aside_with_a_warning(
    file: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    store = FileStore(file)
    file.write_bytes(damage)
    assert store.load() == EMPTY
    [aside] = file.parent.glob("tokens.json.damaged-*")
    assert aside.read_bytes() == damage
    assert "set aside" in caplog.text
    assert str(aside) in caplog.text
    assert store.save(RECORD, EMPTY) is True


def test_a_file_from_the_future_is_refused_and_left_alone(file: Path) -> None:
    store = FileStore(file)
    store.save(RECORD, EMPTY)
    form = json.loads(file.read_text()) | {"unbroken": 99}
    file.write_text(json.dumps(form))
    with pytest.raises(ConfigurationError, match="newer version"):
        store.load()
    with pytest.raises(ConfigurationError):
        store.save(RECORD, EMPTY)
    assert json.loads(file.read_text()) == form


def test_paths_that_cannot_be_written_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file" / "tokens.json", tmp_path):
        with pytest.raises(ConfigurationError) as caught:
            FileStore(path)
        assert "\n" not in str(caught.value)


def test_a_symbolic_link_is_followed_and_kept(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    FileStore(tmp_path / "link.json").save(RECORD, EMPTY)
    assert (tmp_path / "link.json").is_symlink()
    assert FileStore(tmp_path / "real.json").load() == RECORD


def test_a_holder_that_is_killed_frees_the_lock(file: Path) -> None:
    store = FileStore(file)
    code = """
import sys, time
from unbroken import FileStore
with FileStore(sys.argv[1]).lock(5):
    print("held", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(StoreBusy), store.lock(0.05):
        pass
    process.kill()
    process.communicate()
    with store.lock(20):
        pass
