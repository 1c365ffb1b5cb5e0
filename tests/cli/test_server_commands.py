"""The operator's commands on a store: what is typed wrongly is one line, and names are names in any spelling.

Modules: cli/store_commands.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from unbroken._concurrency import run_sync
from unbroken.cli.app import run
from unbroken.server import Accounts, Sessions, SqliteSessionStore
from unbroken.server.keys.keyring import new_signing_key

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def store(tmp_path: Path) -> SqliteSessionStore:
    return SqliteSessionStore(tmp_path / "s.db")


@pytest.fixture
def command(store: SqliteSessionStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    def type_in(*words: str) -> tuple[int, str, str]:
        status = run([*words, "--store", f"sqlite:///{tmp_path / 's.db'}"])
        said = capsys.readouterr()
        return status, said.out, said.err

    return type_in


@pytest.mark.parametrize(
    "words",
    [
        ("users", "remove", "\udcff"),
        ("users", "passwd", "\udcff"),
        ("users", "scope", "\udcff"),
        ("users", "scope", "ada", "\udcff"),
        ("sessions", "revoke", "\udcff"),
        ("sessions", "revoke", "--user", "\udcff"),
        ("sessions", "list", "--user", "\udcff"),
        ("keys", "retire", "\udcff"),
    ],
    ids=" ".join,
)
def test_bytes_that_are_no_text_are_refused_in_one_line(command: Command, words: tuple[str, ...]) -> None:
    status, out, err = command(*words)
    assert (status, out) == (2, "")
    assert err.startswith("unbroken: ")
    assert err.count("\n") == 1


def test_no_key_is_published_for_longer_than_a_calendar(command: Command, store: SqliteSessionStore) -> None:
    for absurd in ("99999999999999d", "9" * 400, "36526d"):
        status, _, err = command("keys", "rotate", "--publish-ahead", absurd)
        assert status == 2
        assert "a hundred years" in err
    assert run_sync(store.keys()) == []


def test_a_key_from_beyond_the_calendar_is_listed(command: Command, store: SqliteSessionStore) -> None:
    Sessions(store).keyring()
    run_sync(store.save_keys([new_signing_key("EdDSA", time.time(), 1e19)]))
    status, out, _ = command("keys", "list")
    assert status == 0
    assert "never" in out


def test_the_first_keys_are_listed_as_signing_since_they_were_made(command: Command) -> None:
    _, out, _ = command("keys", "list")
    assert "1970" not in out
    assert time.strftime("%Y-") in out


@pytest.mark.parametrize("spelling", ["Ada", "ADA", "ada", "\uff21da"])
def test_a_user_is_meant_by_any_spelling_of_the_name(
    command: Command, store: SqliteSessionStore, spelling: str
) -> None:
    Accounts(store).add("Ada", "x")
    Sessions(store).create("Ada")
    assert "Ada" in command("sessions", "list", "--user", spelling)[1]
    assert command("sessions", "revoke", "--user", spelling)[:2] == (0, "revoked 1 session\n")


def test_a_subject_of_the_applications_own_is_taken_literally(command: Command, store: SqliteSessionStore) -> None:
    Sessions(store).create("user-17")
    assert command("sessions", "revoke", "--user", "USER-17")[0] == 1
    assert command("sessions", "revoke", "--user", "user-17")[0] == 0
