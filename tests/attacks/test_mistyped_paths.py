"""Files of a user's own, at a path that was typed by mistake: nothing renames, replaces, deletes or changes them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.attacks.test_files import RECORD, folder, use_client_sqlite, use_server_sqlite
from tests.cli.client.shell import Shell
from tests.support.attacks import Attacks
from tests.support.backend import PASSWORD, Backend
from unbroken import FileStore, Session, open_token_store
from unbroken._encryption import new_key
from unbroken.client.core.token_store import EMPTY
from unbroken.errors import ConfigurationError, StoreUnavailable
from unbroken.server import Sessions, open_store

__all__ = ["folder"]
PRIVATE_KEY = (
    b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU=\n-----END OPENSSH PRIVATE KEY-----\n"
)
STRANGERS = {
    "key": PRIVATE_KEY,
    "text": b"precious",
    "JSON": b'{"name": "a package", "version": 1}',
    "JSON array": b'[{"unbroken": 1}]',
    "profile": b'{\n  "unbroken": 1,\n  "url": "https://example.org"\n}',
    "words": b"unbroken records of the choir",
    "binary": bytes(range(256)),
    "white space": b"\n" * 9,
    "zeros": bytes(4096),
}


def untouched(folder: Path, content: bytes) -> bool:
    """Whether the folder has the one file, with the content that it had."""
    return [path.read_bytes() for path in folder.iterdir()] == [content]


@pytest.mark.parametrize("content", STRANGERS.values(), ids=STRANGERS)
@pytest.mark.parametrize("use", [FileStore, lambda path: Session("https://example.org", str(path)), open_token_store])
def test_a_file_that_never_held_tokens_is_left_alone(
    folder: Path, content: bytes, use: Callable[[Path], object], attacks: Attacks
) -> None:
    path = folder / "id_ed25519"
    path.write_bytes(content)
    path.chmod(0o600)
    attacks.try_one()
    with pytest.raises(ConfigurationError, match="is not a token file, and was left as it is: name another file"):
        use(path)
    assert untouched(folder, content)


@pytest.mark.parametrize("content", STRANGERS.values(), ids=STRANGERS)
@pytest.mark.parametrize("act", [FileStore.load, lambda store: store.save(RECORD, EMPTY)])
def test_a_file_that_came_after_the_store_was_opened_is_left_alone(
    folder: Path, content: bytes, act: Callable[[FileStore], object], attacks: Attacks
) -> None:
    store = FileStore(folder / "tokens.json")
    store.path.write_bytes(content)
    store.path.chmod(0o600)
    attacks.try_one()
    with pytest.raises(ConfigurationError, match="is not a token file"):
        act(store)
    assert store.path.read_bytes() == content
    assert list(folder.glob("*.damaged-*")) == []


@pytest.mark.parametrize("key", [None, new_key()], ids=["plain", "encrypted"])
def test_a_token_file_of_ours_is_set_aside_wherever_it_was_cut(folder: Path, key: str | None, attacks: Attacks) -> None:
    store = FileStore(folder / "tokens.json", key=key)
    store.save(RECORD, EMPTY)
    whole = store.path.read_bytes()
    for length in range(0, len(whole), 7 if key is None else 101):
        if key is not None and length >= len(b"unbroken-encrypted:"):
            break  # it may be another key: it is refused, and kept
        store.path.write_bytes(whole[:length])
        attacks.try_one()
        assert FileStore(store.path, key=key).load() == EMPTY
        [aside] = folder.glob("*.damaged-*")
        assert aside.read_bytes() == whole[:length]
        aside.unlink()


def database_of_another_program(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE cookies (name TEXT)")
    database.close()
    path.chmod(0o600)


@pytest.mark.parametrize("use", [use_client_sqlite, use_server_sqlite])
def test_a_database_of_another_program_is_left_as_it_is(
    folder: Path, use: Callable[[Path], object], attacks: Attacks
) -> None:
    """No table is added, and its journal mode stays."""
    path = folder / "cookies.sqlite"
    database_of_another_program(path)
    before = path.read_bytes()
    attacks.try_one()
    with pytest.raises(ConfigurationError, match="is a database of another program: name another file"):
        use(path)
    assert untouched(folder, before)


@pytest.mark.parametrize("use", [use_client_sqlite, use_server_sqlite])
def test_the_stores_of_client_and_server_are_two_files(
    folder: Path, use: Callable[[Path], object], attacks: Attacks
) -> None:
    path = folder / "one.db"
    use(path)
    [other] = {use_client_sqlite, use_server_sqlite} - {use}
    attacks.try_one()
    with pytest.raises(ConfigurationError, match="is a database of another program"):
        other(path)
    use(path)


@pytest.mark.parametrize("use", [use_client_sqlite, use_server_sqlite])
@pytest.mark.parametrize("content", [PRIVATE_KEY * 9, b"precious"])
def test_a_text_in_the_place_of_a_database_is_left_as_it_is(
    folder: Path, use: Callable[[Path], object], content: bytes, attacks: Attacks
) -> None:
    (folder / "id_ed25519").write_bytes(content)
    (folder / "id_ed25519").chmod(0o600)
    attacks.try_one()
    with pytest.raises((ConfigurationError, StoreUnavailable)):
        use(folder / "id_ed25519")
    assert untouched(folder, content)


@pytest.mark.parametrize("content", [PRIVATE_KEY, b"precious"])
def test_a_file_in_the_place_of_the_key_of_a_database_is_left_as_it_is(
    folder: Path, content: bytes, attacks: Attacks
) -> None:
    """It is beside the database, and is made at the first start only where there is no file."""
    key = folder / "unbroken.db.key"
    key.write_bytes(content)
    key.chmod(0o600)
    attacks.try_one()
    with pytest.raises(ConfigurationError, match="encryption key"):
        Sessions(open_store(f"sqlite:///{folder}/unbroken.db"))
    assert key.read_bytes() == content


def test_the_command_line_neither_replaces_nor_deletes_what_is_not_its_own(
    tmp_path: Path, server: Backend, attacks: Attacks
) -> None:
    """In a folder that has files of such names, as UNBROKEN_HOME may name one: no login begins."""
    shell = Shell(tmp_path)
    shell.login(server.url)
    for name, content in (("design.tokens.json", b'{"color": "blue"}'), ("package.json", b'{"name": "a package"}')):
        (shell.folder / name).write_bytes(content)
        (shell.folder / name).chmod(0o600)
        attacks.try_one()
        login = ["login", server.url, "--as", name.partition(".")[0], "--user", "ada", "--password-stdin"]
        done = shell(*login, given=PASSWORD)
        assert (done.returncode, done.stdout) == (2, ""), done
        assert (shell.folder / name).read_bytes() == content
    assert len(server.sessions.list_sessions("ada")) == 1


def test_a_logout_deletes_only_what_held_tokens(tmp_path: Path, server: Backend, attacks: Attacks) -> None:
    shell = Shell(tmp_path)
    shell.login(server.url)
    kept = shell.folder / "api.tokens.json.damaged-by-me"
    kept.write_bytes(b"a note about it")
    attacks.try_one()
    assert shell("logout", "api").returncode == 0
    assert kept.read_bytes() == b"a note about it"
    assert not (shell.folder / "api.tokens.json").exists()
