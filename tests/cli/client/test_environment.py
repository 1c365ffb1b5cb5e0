"""Whatever a command is started with: closed streams, a full disk, odd bytes, no home, a folder that is read-only."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import pytest

from tests.cli.client.shell import COMMAND, Done, Echo, Shell, one_line
from tests.support.backend import PASSWORD, Backend, running
from unbroken import FileStore


def in_shell(shell: Shell, script: str, data: bytes = b"", **environment: str) -> Done:
    """*script*, in which ``$@`` is our command."""
    done = shell.raw(["sh", "-c", script, "sh", *COMMAND], data, **environment)
    return Done(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


FULL = {"token": "token api", "status": "status", "fetch": "fetch api URL/echo", "help": "--help"}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no device that is always full")
@pytest.mark.parametrize("command", FULL.values(), ids=FULL)
def test_a_full_disk_is_one_line(api: Shell, server: Backend, command: str) -> None:
    done = in_shell(api, f'"$@" {command} >/dev/full'.replace("URL", server.url))
    assert "No space left on device" in one_line(done)


CLOSED = {
    "output": ("token api >&-", 0),
    "output of fetch": ("fetch api URL/echo >&-", 0),
    "errors": ("token nobody 2>&-", 2),
    "input of fetch": ("fetch api URL/echo -d - <&-", 0),
    "input of git": ("credential git api get <&-", 0),
    "input of docker": ("credential docker api store <&-", 0),
    "everything": ("exec api -- true <&- >&- 2>&-", 0),
}


@pytest.mark.parametrize(("command", "status"), CLOSED.values(), ids=CLOSED)
def test_streams_that_are_closed_are_as_if_they_led_nowhere(
    api: Shell, server: Backend, command: str, status: int
) -> None:
    done = in_shell(api, f'"$@" {command}'.replace("URL", server.url))
    assert (done.returncode, done.stderr) == (status, "")
    assert "unbroken:" not in done.stdout, "no error gets into what a script takes for a token"


def test_a_login_without_any_input_is_one_line(shell: Shell, server: Backend) -> None:
    login = f'"$@" login {server.url} --as api'
    assert "the password is empty" in one_line(in_shell(shell, f"{login} --user ada --password-stdin <&-"))
    assert "there is no terminal to ask for a user" in one_line(in_shell(shell, f"{login} <&-"))


def test_many_shells_that_write_into_one_pipe_write_whole_lines(api: Shell) -> None:
    script = 'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do "$@" token api & done; wait'
    done = in_shell(api, script, PYTHONUNBUFFERED="1")
    assert done.stdout.splitlines() == [api.secrets()[0]] * 12


# ---- bytes that are no text ------------------------------------------------------------------------------------------


def test_a_body_and_a_url_may_be_any_bytes(both: Shell, echo: Echo) -> None:
    done = both.raw([*COMMAND, "fetch", "api", os.fsencode(echo.url) + b"/\xff \xc3\xa4?q=\xc3\xbc", "-i"])
    assert done.returncode == 0, done.stderr
    assert echo.paths == [b"/%FF%20%C3%A4?q=%C3%BC"]
    done = both.raw([*COMMAND, "fetch", "api", echo.url + "/size", "-d", b"\xff\xfe"])
    assert done.stdout == b"2"


@pytest.mark.parametrize("encoding", ["utf-8:strict", "utf-8:surrogateescape"])
def test_a_password_that_is_no_text_is_said_so(shell: Shell, server: Backend, encoding: str) -> None:
    login = ["login", server.url, "--as", "api", "--user", "ada", "--password-stdin"]
    assert "the password is not in" in one_line(shell(*login, given=b"\xff\n", PYTHONIOENCODING=encoding))
    done = shell.raw([*COMMAND, "login", server.url, "--as", "api", "--user", b"\xff", "--password-stdin"], b"x\n")
    assert b"unbroken: the user, the scope and the label must be printable" in done.stderr
    assert server.sessions.list_sessions() == []


def test_junk_from_git_is_no_traceback(api: Shell) -> None:
    done = api("credential", "git", "api", "get", given=b"host=\xff\n", PYTHONIOENCODING="utf-8:strict")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_terminal_of_few_letters_shows_the_others_escaped(api: Shell, server: Backend) -> None:
    profile = api.folder / "api.json"
    profile.write_text(profile.read_text().replace(server.url, "https://münchen.example"))
    done = api("status", PYTHONIOENCODING="ascii")
    assert (done.returncode, "m\\xfcnchen" in done.stdout) == (0, True)


# ---- the folder ------------------------------------------------------------------------------------------------------


def test_without_a_home_it_is_said_what_to_set(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> None:
    code = (
        "import os, pwd, sys\n"
        "def nobody(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = nobody; os.environ.pop('HOME')\n"
        "from unbroken.cli.app import run; sys.exit(run(['status']))"
    )
    done = shell.raw([sys.executable, "-c", code])
    assert done.returncode == 2
    assert done.stderr.startswith(b"unbroken: this user has no home: set HOME, or UNBROKEN_HOME")
    assert not (shell.home / "~").exists()


def test_what_is_no_folder_is_not_to_be_chmodded(shell: Shell) -> None:
    (shell.home / "file").write_text("")
    for place in ("/dev/null", str(shell.home / "file")):
        assert f"{place} is not a folder" in one_line(shell("status", UNBROKEN_HOME=place))
        login = ["login", "https://example.org", "--as", "x", "--user", "a", "--password-stdin"]
        assert "is not a folder" in one_line(shell(*login, given="x", UNBROKEN_HOME=place))


@contextmanager
def mode(path: os.PathLike[str], bits: int) -> Iterator[None]:
    os.chmod(path, bits)
    try:
        yield
    finally:
        os.chmod(path, 0o700)


def plain(shell: Shell, *arguments: str) -> Done:
    """Our command, by somebody whom modes of files stop, even if that is root."""
    powers = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    done = shell.raw([*powers, *COMMAND, *arguments])
    return Done(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="nothing stops root here")
def test_a_folder_that_cannot_be_used_is_said_so(api: Shell, server: Backend) -> None:
    with mode(api.folder, 0o500):
        assert "is read-only: refreshed tokens are stored there" in one_line(plain(api, "token", "api"))
        done = plain(api, "status")
        assert done.stdout.splitlines()[1].split()[:4] == ["api", server.url, "ada", "unreadable"]
        assert "is read-only" in done.stderr
    with mode(api.folder, 0):
        assert "cannot be read: Permission denied" in one_line(plain(api, "status"))
    assert plain(api, "token", "api").returncode == 0


def test_tokens_whose_profile_is_gone_are_sent_to_no_other_server(api: Shell, server: Backend) -> None:
    [refresh_token] = api.secrets()[1:]
    (api.folder / "api.json").unlink()  # as the error for a damaged profile says
    other, came = Backend().app(), []

    async def listening(scope: Any, receive: Any, send: Any) -> None:
        came.append(scope["path"])
        await other(scope, receive, send)

    with running(listening) as port:
        login = ["login", f"http://127.0.0.1:{port}", "--as", "api", "--user", "ada", "--password-stdin"]
        assert api(*login, given=PASSWORD).returncode == 0
    assert came == ["/auth/login"], "no logout there, with the tokens of before"
    store = FileStore(api.folder / "api.tokens.json").load()
    assert store.tokens is not None
    assert store.tokens.refresh_token != refresh_token
    assert len(server.sessions.list_sessions("ada")) == 1


def test_tokens_that_were_damaged_and_set_aside_are_forgotten_too(api: Shell) -> None:
    (api.folder / "api.tokens.json").write_text("{")
    done = api("token", "api")
    assert all(line.startswith("unbroken: ") for line in done.stderr.splitlines())
    assert list(api.folder.glob("*.damaged-*")) != []
    assert api("logout", "api").returncode == 0
    assert [path.name for path in api.folder.iterdir() if "lock" not in path.name and "write" not in path.name] == []


def test_a_profile_that_would_send_tokens_in_the_clear_says_what_to_type(api: Shell) -> None:
    profile = api.folder / "api.json"
    profile.write_text('{"unbroken": 1, "url": "http://example.org"}')
    assert "log in with --allow-plain-http" in one_line(api("token", "api"))
    profile.write_text('{"unbroken": 1, "url": "http://example.org", "plain_http": "no"}')
    assert "is damaged" in one_line(api("token", "api"))
    done = api("status", "api")
    assert (done.returncode, "is damaged" in done.stderr) == (1, True)


# ---- what everybody tries first --------------------------------------------------------------------------------------


def test_help_and_version_are_where_people_look(shell: Shell) -> None:
    assert shell("--version").stdout == f"unbroken {metadata.version('unbroken')}\n"
    assert "--max-time" in shell("fetch", "-h").stdout
    assert shell("-h").returncode == 0


@pytest.mark.parametrize("prefix", ["/auth", "/auth/"])
def test_the_address_that_serve_prints_can_be_logged_in_to(shell: Shell, server: Backend, prefix: str) -> None:
    login = ["login", server.url + prefix, "--as", "api", "--user", "ada", "--password-stdin"]
    done = shell(*login, given=PASSWORD)
    assert done.stdout == f"logged in at {server.url} as ada; the session is called api\n"


@pytest.mark.parametrize("prefix", ["auth", "/auth/", "auth/"])
def test_a_prefix_may_be_written_in_any_way(shell: Shell, server: Backend, prefix: str) -> None:
    shell.login(server.url, "api", "--prefix", prefix)
    assert shell("token", "api").returncode == 0


def test_a_command_without_a_name_is_not_found(api: Shell) -> None:
    done = api("exec", "api", "--", "")
    assert (done.returncode, done.stderr) == (127, "unbroken:  cannot be run: it has no name\n")
