"""Files that somebody else may have put there, changed or read; and secrets in the arguments of commands.

Modules: _private_files.py.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.client.shell import Shell
from tests.support.attacks import Attacks
from tests.support.backend import Backend
from unbroken import FileStore, Session
from unbroken._encryption import keys_from_file, new_key
from unbroken._private_files import file_lock
from unbroken.cli.app import run
from unbroken.cli.settings import read_settings
from unbroken.client.core.token_store import EMPTY, StoredSession
from unbroken.client.stores import open_token_store
from unbroken.errors import ConfigurationError, StoreUnavailable
from unbroken.server import open_store
from unbroken.tokens import Tokens

RECORD = StoredSession(7, 2, Tokens("the-access-token", "the-refresh-token", version=7, epoch=2))
STRANGER = 54321


def use_file_store(path: Path) -> object:
    store = FileStore(path)
    found = store.load()
    return store.save(StoredSession(found.version + 1, 2), found)


def use_client_sqlite(path: Path) -> object:
    return open_token_store(f"sqlite:///{path}").load()


def use_server_sqlite(path: Path) -> object:
    store = open_store(f"sqlite:///{path}")
    store.close()
    return store


def use_key_file(path: Path) -> object:
    if not path.exists() and not path.is_symlink():
        path.write_text(new_key())
        path.chmod(0o600)
    return keys_from_file(path)


def use_lock(path: Path) -> object:
    with file_lock(str(path), 1.0):
        return path


KINDS = {
    "token file": use_file_store,
    "lock": use_lock,
    "SQLite of the client": use_client_sqlite,
    "SQLite of the server": use_server_sqlite,
    "key file": use_key_file,
}
KEPT_PRIVATE = ["token file", "lock", "SQLite of the client", "SQLite of the server"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "ours"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def give_away(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Returns what gives a file to another user; who is not root becomes another user instead."""

    def give(path: Path) -> None:
        if os.geteuid() == 0:
            os.lchown(path, STRANGER, STRANGER)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: STRANGER)

    return give


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", [0o777, 0o757, 0o702, 0o770])
def test_a_folder_that_others_may_write_to_is_refused(folder: Path, kind: str, mode: int, attacks: Attacks) -> None:
    KINDS[kind](folder / "file")
    folder.chmod(mode)
    if mode == 0o770 and os.geteuid() != 0:
        pytest.skip("the group of a user may be its own")
    if mode == 0o770:
        os.chown(folder, 0, STRANGER)
    attacks.try_one()
    with pytest.raises(ConfigurationError, match=r"other users may write to the folder .*: run `chmod go-w "):
        KINDS[kind](folder / "file")


@pytest.mark.parametrize("kind", ["token file", "lock", "key file"])
def test_a_sticky_folder_is_good_for_our_own_files(folder: Path, kind: str, attacks: Attacks) -> None:
    folder.chmod(0o1777)
    attacks.try_one()
    KINDS[kind](folder / "file")
    KINDS[kind](folder / "file")


@pytest.mark.parametrize("kind", ["SQLite of the client", "SQLite of the server"])
def test_no_sticky_folder_is_good_for_sqlite_which_reads_what_lies_beside_its_file(
    folder: Path, kind: str, attacks: Attacks
) -> None:
    """Whoever writes FILE-wal writes the database, and reads what it gets next."""
    KINDS[kind](folder / "file")
    folder.chmod(0o1777)
    for name in ("file", "new"):
        attacks.try_one()
        with pytest.raises(ConfigurationError, match=r"other users may put files into .*: use a folder of your own"):
            KINDS[kind](folder / name)
    assert not (folder / "new").exists()


def test_a_log_that_another_user_puts_beside_a_token_store_is_not_read(
    folder: Path, tmp_path: Path, give_away: Callable[[Path], None], attacks: Attacks
) -> None:
    if os.geteuid() != 0:
        pytest.skip("gives files away")
    Session("https://a.example", open_token_store(f"sqlite:///{folder}/ours")).import_tokens({"access_token": "ours"})
    other = Session("https://a.example", open_token_store(f"sqlite:///{tmp_path}/other"))
    with closing(sqlite3.connect(tmp_path / "other")) as reader:
        reader.execute("SELECT * FROM unbroken_tokens").fetchall()
        other.import_tokens({"access_token": "planted"})
        reader.execute("VACUUM")  # every page is in the log
        (folder / "ours-wal").write_bytes((tmp_path / "other-wal").read_bytes())
    folder.chmod(0o1777)
    give_away(folder / "ours-wal")
    attacks.try_one()
    with pytest.raises(ConfigurationError, match="other users may put files into"):
        open_token_store(f"sqlite:///{folder}/ours").load()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", [0o700, 0o1777])
def test_a_file_that_another_user_has_planted_is_refused(
    folder: Path, kind: str, mode: int, give_away: Callable[[Path], None], attacks: Attacks
) -> None:
    KINDS[kind](folder / "file")
    folder.chmod(mode)
    give_away(folder / "file")
    attacks.try_one()
    with pytest.raises(ConfigurationError, match=r"belongs to .*: run this as|use a folder of your own"):
        KINDS[kind](folder / "file")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "lock"])
def test_a_link_of_another_user_on_the_way_to_the_folder_is_not_followed(
    folder: Path, tmp_path: Path, kind: str, give_away: Callable[[Path], None], attacks: Attacks
) -> None:
    """It could lead to the tokens that another program of this user has."""
    KINDS[kind](folder / "file")
    public = tmp_path / "public"
    (public / "theirs").mkdir(parents=True)
    (public / "game").symlink_to(folder)
    (public / "theirs" / "game").symlink_to(folder)
    KINDS[kind](public / "game" / "file")
    public.chmod(0o1777)
    give_away(public / "game")
    give_away(public / "theirs" / "game")
    for link in (public / "game", public / "theirs" / "game"):
        attacks.try_one()
        with pytest.raises(ConfigurationError, match="a link of another user: name its folder itself"):
            KINDS[kind](link / "file")


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_another_user_is_refused(
    folder: Path, kind: str, give_away: Callable[[Path], None], attacks: Attacks
) -> None:
    """This is root, too, on the files of a user."""
    KINDS[kind](folder / "file")
    give_away(folder)
    attacks.try_one()
    with pytest.raises(ConfigurationError, match=r"belongs to .*: run this as"):
        KINDS[kind](folder / "file")


@pytest.mark.parametrize("kind", ["lock", "token file", "SQLite of the client", "SQLite of the server", "key file"])
def test_a_link_that_another_user_has_put_is_not_followed(
    folder: Path, tmp_path: Path, kind: str, give_away: Callable[[Path], None], attacks: Attacks
) -> None:
    target, link = tmp_path / "target", folder / "file"
    target.write_text("precious")
    target.chmod(0o600)
    link.symlink_to(target)
    folder.chmod(0o1777)
    give_away(link)
    attacks.try_one()
    with pytest.raises(ConfigurationError, match=r"link|belongs to|use a folder of your own"):
        KINDS[kind](link)
    assert target.read_text() == "precious"


@contextmanager
def using(store: FileStore, suffix: str) -> Iterator[None]:
    """The lock file with *suffix*, as a refresh or a save takes it."""
    if suffix == ".write":
        store.save(RECORD, EMPTY)
        yield
    else:
        with store.lock(1.0):
            yield


@pytest.mark.parametrize("suffix", [".refresh", ".write"])
@pytest.mark.parametrize("target", ["file", "nothing", "folder", "itself"])
def test_a_link_in_the_place_of_a_lock_is_not_followed(
    folder: Path, tmp_path: Path, suffix: str, target: str, attacks: Attacks
) -> None:
    store = FileStore(folder / "tokens.json")
    victim = {"file": tmp_path / "victim", "nothing": tmp_path / "new", "folder": tmp_path}.get(target)
    (tmp_path / "victim").write_text("precious")
    lock = Path(f"{store.path}{suffix}")
    lock.symlink_to(victim or lock)
    attacks.try_one()
    with pytest.raises(ConfigurationError, match="links are not followed"), using(store, suffix):
        pass
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_link_that_comes_after_the_store_was_opened_is_not_followed(
    folder: Path, tmp_path: Path, attacks: Attacks
) -> None:
    store = FileStore(folder / "tokens.json")
    (tmp_path / "planted.json").write_text("{}")
    store.path.symlink_to(tmp_path / "planted.json")
    attacks.try_one()
    with pytest.raises(ConfigurationError, match="links are not followed"):
        store.load()


@pytest.mark.parametrize("kind", KEPT_PRIVATE)
def test_a_pipe_in_the_place_of_a_file_blocks_nobody(folder: Path, kind: str, attacks: Attacks) -> None:
    os.mkfifo(folder / "file", 0o600)
    attacks.try_one()
    with pytest.raises((ConfigurationError, StoreUnavailable)):
        KINDS[kind](folder / "file")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", [0o602, 0o620, 0o622, 0o666])
def test_a_file_that_others_may_change_is_refused(folder: Path, kind: str, mode: int, attacks: Attacks) -> None:
    KINDS[kind](folder / "file")
    (folder / "file").chmod(mode)
    attacks.try_one()
    with pytest.raises(ConfigurationError, match=r"other users may change .*: run `chmod 600 "):
        KINDS[kind](folder / "file")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_file_that_others_may_read_is_used_with_a_warning(
    folder: Path, kind: str, mode: int, attacks: Attacks, caplog: pytest.LogCaptureFixture
) -> None:
    KINDS[kind](folder / "file")
    folder.chmod(0o755)
    (folder / "file").chmod(mode)
    attacks.try_one()
    KINDS[kind](folder / "file")
    assert f"run `chmod 600 {folder / 'file'}`" in caplog.text


@pytest.mark.parametrize("kind", KEPT_PRIVATE)
def test_a_new_file_is_closed_from_its_first_byte_on(folder: Path, kind: str, attacks: Attacks) -> None:
    folder.chmod(0o755)
    before = os.umask(0)
    attacks.try_one()
    try:
        KINDS[kind](folder / "file")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} <= {0o600}


def test_secrets_of_a_container_are_read_through_their_links(
    folder: Path, monkeypatch: pytest.MonkeyPatch, attacks: Attacks
) -> None:
    """They are links on a read-only mount, where nobody can put any."""
    (folder / "..data").mkdir()
    (folder / "..data" / "key").write_text(new_key())
    (folder / "key").symlink_to("..data/key")
    (folder / "..data" / "key").chmod(0o444)
    real = os.statvfs

    def read_only(path: Any) -> Any:
        found = list(real(path))
        found[8] |= os.ST_RDONLY
        return os.statvfs_result(found)

    monkeypatch.setattr(os, "statvfs", read_only)
    attacks.try_one()
    assert len(keys_from_file(folder / "key")) == 1


# ---- the command line ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_the_command_line_refuses_what_belongs_to_another_user(
    tmp_path: Path, server: Backend, attacks: Attacks
) -> None:
    """Profile, tokens, locks, folder: whatever another user could have put there, root's command does not use."""
    shell = Shell(tmp_path)
    shell.login(server.url)
    files = sorted(shell.folder.iterdir())
    assert {"api.json", "api.tokens.json"} <= {path.name for path in files}
    for path in (shell.folder / "api.json", shell.folder / "api.tokens.json", shell.folder):
        for command in (["token", "api"], ["credential", "kubectl", "api"], ["credential", "git", "api", "get"]):
            os.chown(path, STRANGER, STRANGER)
            attacks.try_one()
            done = shell(*command)
            os.chown(path, 0, 0)
            assert (done.returncode, done.stdout) == (2, "")
            assert "belongs to" in done.stderr


@pytest.mark.parametrize(("name", "command"), [("api.json", "token"), ("api.tokens.json.write", "logout")])
def test_the_command_line_follows_no_link_in_its_folder(
    tmp_path: Path, server: Backend, name: str, command: str, attacks: Attacks
) -> None:
    shell = Shell(tmp_path)
    shell.login(server.url)
    place, aside = shell.folder / name, tmp_path / "aside"
    place.rename(aside)
    place.symlink_to(aside)
    attacks.try_one()
    done = shell(command, "api")
    assert done.returncode == 2, done
    assert "links are not followed" in done.stderr


STORES_WITH_PASSWORDS = [
    "postgresql://ada:hunter2@db.example/unbroken",
    "postgres://ada:hun%2Fter2@db.example/unbroken",
    "postgresql://ada:hunter/2@db.example/unbroken",
    "postgresql://db.example/unbroken?user=ada&password=hunter2",
    "postgresql://db.example/unbroken?sslpassword=hunter2",
    "redis://:hunter2@db.example/0",
    "rediss://ada:hunter2@db.example:6380/0",
    "redis://db.example/0?password=hunter2",
    "unix://:hunter2@/run/redis.sock",
    "host=db.example password=hunter2",
]


@pytest.mark.parametrize("url", STORES_WITH_PASSWORDS)
def test_a_password_on_the_command_line_is_refused(url: str, attacks: Attacks) -> None:
    attacks.try_one()
    [problem] = read_settings({"store": url}, {}).problems
    assert "UNBROKEN_STORE" in problem
    assert "--config" in problem
    assert "hun" not in problem
    assert read_settings({}, {"UNBROKEN_STORE": url}).problems == (), "there it may stand"


@pytest.mark.parametrize(
    "command", [["serve"], ["users", "list"], ["users", "add", "ada"], ["sessions", "list"], ["keys", "list"],
                ["db", "check"], ["check"]],
)  # fmt: skip
def test_every_command_refuses_a_store_url_with_a_password(
    command: list[str], attacks: Attacks, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    attacks.try_one()
    assert run([*command, "--store", STORES_WITH_PASSWORDS[0]]) != 0
    told = capsys.readouterr()
    assert "UNBROKEN_STORE" in told.out + told.err
    assert "hunter2" not in told.out + told.err


@pytest.mark.parametrize(
    "url", ["postgresql://ada@db.example/unbroken", "sqlite:///unbroken.db", "redis://db.example/0"]
)
def test_a_store_url_without_a_password_is_taken_from_the_command_line(url: str, attacks: Attacks) -> None:
    attacks.try_one()
    assert read_settings({"store": url}, {}).problems == ()


def test_a_webhook_url_with_a_password_is_refused_on_the_command_line(attacks: Attacks) -> None:
    attacks.try_one()
    [problem] = read_settings({"webhook_url": "https://ada:hunter2@hooks.example/"}, {}).problems
    assert "UNBROKEN_WEBHOOK_URL" in problem


def test_serve_refuses_a_database_of_another_user(
    folder: Path, give_away: Callable[[Path], None], attacks: Attacks
) -> None:
    if os.geteuid() != 0:
        pytest.skip("gives files away")
    use_server_sqlite(folder / "unbroken.db")
    give_away(folder / "unbroken.db")
    attacks.try_one()
    command = [
        sys.executable,
        "-m",
        "unbroken.cli",
        "serve",
        "--port",
        "0",
        "--store",
        f"sqlite:///{folder}/unbroken.db",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=60, check=False)
    assert done.returncode == 2
    assert "belongs to" in done.stderr
