"""Attacks on what hands tokens to local programs: the broker's socket, and the file of ``token --watch``."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.cli.client.background import Background, background, unix_client
from tests.cli.client.shell import Shell, one_line
from tests.support.attacks import Attacks
from tests.support.backend import PASSWORD, Backend
from unbroken import ConfigurationError
from unbroken.cli.client.local_socket import listening
from unbroken.cli.client.watch import TokenFile
from unbroken.client.profile_session import ProfileSession
from unbroken.client.profiles import Profile, save_profile, token_store

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


@pytest.fixture
def api(tmp_path: Path, server: Backend, monkeypatch: pytest.MonkeyPatch) -> Shell:
    shell = Shell(tmp_path)
    monkeypatch.setenv("UNBROKEN_HOME", str(shell.folder))
    profile = Profile(name="api", url=server.url, user="ada")
    save_profile(profile)
    ProfileSession(profile, token_store("api")).login("ada", PASSWORD)
    return shell


@pytest.fixture
def place(api: Shell) -> Path:
    return api.home / "b.sock"


@pytest.fixture
def broker(api: Shell, place: Path) -> Iterator[Background]:
    with background(api, "broker", "--socket", str(place)) as started:
        yield started


def connected(place: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(20)
    sock.connect(str(place))
    return sock


def everything(sock: socket.socket) -> bytes:
    """What comes until the end; a reset is an end too."""
    got = b""
    with suppress(ConnectionError):
        while piece := sock.recv(65536):
            got += piece
    return got


# ---- the socket ------------------------------------------------------------------------------------------------------

ASK = """
import socket, sys
sock = socket.socket(socket.AF_UNIX)
try:
    sock.connect(sys.argv[1])
    sock.sendall(b"GET /api/token HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n")
    print(sock.recv(65536))
except OSError as error:
    print(type(error).__name__)
"""


@as_root
def test_another_user_gets_nothing_also_with_the_socket_wide_open(
    broker: Background, api: Shell, place: Path, attacks: Attacks
) -> None:
    for mode in (0o600, 0o666):
        for folder in [api.home, *api.home.parents][:-2]:
            folder.chmod(folder.stat().st_mode | 0o011)
        place.chmod(mode)
        attacks.try_one()
        done = subprocess.run(
            ["/usr/bin/env", "python3", "-c", ASK, str(place)],
            capture_output=True,
            text=True,
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            check=False,
            timeout=30,
        )
        expected = {"PermissionError\n"} if mode == 0o600 else {"b''\n", "ConnectionResetError\n", "BrokenPipeError\n"}
        assert done.stdout in expected, done.stderr
    with unix_client(place) as client:
        assert client.get("/api/token").status_code == 200


PLANTED = {
    "a file": lambda path: path.write_text("x"),
    "a folder": lambda path: path.mkdir(),
    "a link to a file": lambda path: path.symlink_to(path.parent / "target"),
    "a pipe": os.mkfifo,
}


@pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED)
def test_what_is_no_socket_is_not_replaced(
    api: Shell, place: Path, attacks: Attacks, plant: Callable[[Path], object]
) -> None:
    (api.home / "target").write_text("precious")
    plant(place)
    attacks.try_one()
    with pytest.raises(ConfigurationError, match="is not a socket of this user's"), listening(place):
        pass
    assert os.path.lexists(place)
    assert (api.home / "target").read_text() == "precious"


def test_a_folder_that_others_may_write_to_is_refused(api: Shell, attacks: Attacks) -> None:
    (api.home / "open").mkdir()
    (api.home / "open").chmod(0o777)
    attacks.try_one()
    with pytest.raises(ConfigurationError, match="run `chmod go-w"), listening(api.home / "open" / "b.sock"):
        pass
    attacks.try_one()
    with pytest.raises(ConfigurationError, match="run `chmod go-w"):
        TokenFile(api.home / "open" / "token")
    assert list((api.home / "open").iterdir()) == []


@as_root
def test_a_socket_of_another_users_is_not_replaced(api: Shell, place: Path, attacks: Attacks) -> None:
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(place))
        os.chown(place, NOBODY, NOBODY)
        attacks.try_one()
        with pytest.raises(ConfigurationError, match="is not a socket of this user's"), listening(place):
            pass


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_the_socket_of_another_program_is_not_replaced(
    api: Shell, place: Path, attacks: Attacks, kind: socket.SocketKind
) -> None:
    """An agent's, or the session bus: named by mistake, or by a variable that means something else."""
    with socket.socket(socket.AF_UNIX, kind) as foreign:
        foreign.bind(str(place))
        if kind == socket.SOCK_STREAM:
            foreign.listen(0)
        before = place.lstat()
        for _ in range(3):  # also when its backlog is full
            attacks.try_one()
            with pytest.raises(ConfigurationError, match="another program listens"), listening(place):
                pass
        assert os.path.samestat(place.lstat(), before)
    with listening(place):  # now it is a left-over
        place.unlink()
        place.write_text("precious")
    assert place.read_text() == "precious", "what came later stays"


JUNK = {
    "no HTTP": b"\x00\x16\x03\x01" * 500 + b"\r\n\r\n",
    "headers without end": b"GET /api/token HTTP/1.1\r\n" + b"x: y\r\n" * 100_000,
    "a line without end": b"GET /" + b"a" * 1_000_000,
    "a body without end": b"POST /api/token HTTP/1.1\r\nhost: x\r\ncontent-length: 9999999999\r\n\r\n" + b"t" * 100_000,
    "chunks without end": b"POST /api/token HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    + b"10\r\n0123456789abcdef\r\n" * 5000,
    "two lengths": b"POST /api/token HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
    "a path out of the folder": b"GET /..%2f..%2fetc/token HTTP/1.1\r\nhost: x\r\n\r\n",
    "a name with a slash": b"GET /../token HTTP/1.1\r\nhost: x\r\n\r\n",
    "bytes above ASCII": "GET /äpi/token HTTP/1.1\r\nhost: x\r\n\r\n".encode(),
    "a token with a line break": b"POST /api/token HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\na\r\nb\n",
}


def test_junk_gets_an_error_and_the_next_program_its_token(
    broker: Background, api: Shell, place: Path, attacks: Attacks
) -> None:
    secrets = [secret.encode() for secret in api.secrets()]
    for data in JUNK.values():
        attacks.try_one()
        with connected(place) as sock:
            with suppress(ConnectionError):
                sock.sendall(data)
            got = everything(sock)
        assert got == b"" or got.startswith(b"HTTP/1.1 4"), got[:100]
        assert not any(secret in got for secret in secrets)
    with unix_client(place) as client:
        assert client.get("/api/token").text.encode() == secrets[0] + b"\n"
    assert broker.end() == (0, "")


def test_connections_without_a_request_do_not_keep_others_out_for_long(
    broker: Background, place: Path, attacks: Attacks, size: Callable[[int, int], int]
) -> None:
    with ExitStack() as open_ones:
        for _ in range(size(200, 900)):
            attacks.try_one()
            with suppress(ConnectionError, BlockingIOError):  # the second: the system keeps it out by itself
                open_ones.enter_context(connected(place)).sendall(b"GET /api")
        began, status = time.monotonic(), 0
        while status != 200 and time.monotonic() < began + 20:
            with suppress(httpx2.TransportError), unix_client(place) as client:
                status = client.get("/api/token").status_code
            time.sleep(0.1)
        assert status == 200
        assert time.monotonic() - began < 10
    memory = Path(f"/proc/{broker.process.pid}/status")
    if memory.exists():
        [resident] = [line for line in memory.read_text().splitlines() if line.startswith("VmRSS")]
        assert int(resident.split()[1]) < 120_000


def test_no_response_has_a_refresh_token(broker: Background, api: Shell, place: Path, attacks: Attacks) -> None:
    with unix_client(place) as client:
        for path in ("/api/token", "/api/header", "/api/refresh_token", "/api.tokens/token", "/api.json/token", "/"):
            for accept in ("*/*", "application/json"):
                attacks.try_one()
                assert api.secrets()[1] not in client.get(path, headers={"accept": accept}).text


# ---- the file --------------------------------------------------------------------------------------------------------


def test_no_link_is_followed_and_no_file_of_others_replaced(api: Shell, attacks: Attacks) -> None:
    target = api.home / "target"
    target.write_text("precious")
    target.chmod(0o600)
    (api.home / "link").symlink_to(target)
    attacks.try_one()
    assert "links are not followed" in one_line(api("token", "api", "--watch", "link"))
    assert target.read_text() == "precious"
    if os.geteuid() == 0:
        os.chown(target, NOBODY, NOBODY)
        attacks.try_one()
        with pytest.raises(ConfigurationError, match="belongs to"):
            TokenFile(target)
        assert target.read_text() == "precious"


OTHERS = {
    "one line": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA user@host\n",
    "one word": "hunter2",
    "a token of another program": "ghp_0123456789abcdefghijklmnopqrstuvwxyz\n",
    "an empty line": "\n",
    "several lines": "milk\nbread\n",
    "bytes": "\x00\xff",
}


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
def test_a_file_that_no_watcher_has_written_stays_as_it_is(api: Shell, attacks: Attacks, content: str) -> None:
    file = api.home / "notes"
    file.write_text(content)
    file.chmod(0o600)
    attacks.try_one()
    assert "name another file, or remove it" in one_line(api("token", "api", "--watch", "notes"))
    assert file.read_text() == content
    file.unlink()
    with background(api, "token", "api", "--watch", "notes") as watcher:
        attacks.try_one()
        (api.home / "new").write_text(content)
        (api.home / "new").chmod(0o600)
        os.rename(api.home / "new", file)  # while it runs
        status, errors = watcher.wait()
    assert (status, file.read_text()) == (2, content)
    assert "name another file, or remove it" in errors


def test_a_token_that_was_copied_elsewhere_is_another_programs(api: Shell, attacks: Attacks) -> None:
    with background(api, "token", "api", "--watch", "token") as watcher:
        (api.home / "copy").write_text((api.home / "token").read_text())
        (api.home / "copy").chmod(0o600)
        attacks.try_one()
        assert "name another file" in one_line(api("token", "api", "--watch", "copy"))
        assert (api.home / "copy").exists()
        assert watcher.end() == (0, "")
    assert not (api.home / "token").exists()
    assert list(api.folder.glob("*.watched")) == [], "no record is left"


def test_a_link_that_is_planted_while_it_runs_ends_the_watch(api: Shell, attacks: Attacks) -> None:
    target, file = api.home / "target", api.home / "token"
    target.write_text("")
    with background(api, "token", "api", "--watch", "token") as watcher:
        attacks.try_one()
        (api.home / "planted").symlink_to(target)
        os.rename(api.home / "planted", file)
        status, errors = watcher.wait()
    assert (status, target.read_text()) == (2, "")
    assert "links are not followed" in errors


def test_the_file_is_never_readable_for_others(api: Shell, attacks: Attacks, server: Any) -> None:
    watch = "token", "api", "--watch", "token"
    command = ["sh", "-c", 'umask 0; exec "$@"', "sh", sys.executable, "-m", "unbroken.cli", *watch]
    process = subprocess.Popen(command, env=api.environment(), cwd=api.home, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        attacks.try_one()
        process.stdout.readline()
        modes = {stat.S_IMODE(path.lstat().st_mode) for path in api.home.iterdir() if "token" in path.name}
        assert modes == {0o600}
    finally:
        process.terminate()
        process.communicate(timeout=30)


# ---- helpers of other programs ---------------------------------------------------------------------------------------

EVIL = "protocol=https\nhost=evil.example\n"
FOR_ELSEWHERE = {  # what git sends for URLs that a stranger has written, also a git that does not look into them
    **{
        f"a line in {where}, after {ending!r}": f"{EVIL}{where}=x{ending}host={{host}}{ending}protocol=http\n\n"
        for where in ("path", "username", "wwwauth[]")
        for ending in ("\r", "\v", "\x85", "\u2028")
    },
    "two hosts": "protocol=http\nhost=evil.example\nhost={host}\n\n",
    "two hosts, ours first": "protocol=http\nhost={host}\nhost=evil.example\n\n",
    **{f"a host with {sign}": f"protocol=http\nhost={{host}}{sign}.evil.example\n\n" for sign in "/?#\\@%\t"},
    "a host with a user": "protocol=http\nhost={host}@evil.example\n\n",
    "a protocol with a host": "protocol=http://{host}/?\nhost=evil.example\n\n",
}


@pytest.mark.parametrize("request_text", FOR_ELSEWHERE.values(), ids=FOR_ELSEWHERE)
def test_git_gets_no_token_for_a_host_that_a_url_has_smuggled_in(
    api: Shell, server: Backend, attacks: Attacks, request_text: str
) -> None:
    attacks.try_one()
    done = api("credential", "git", "api", "get", given=request_text.replace("{host}", server.url.partition("://")[2]))
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(
    "rest", ["?.evil.example", "#.evil.example", "\\.evil.example", "@evil.example", "\r.evil.example"]
)
def test_docker_and_kubectl_get_no_token_for_an_address_with_two_meanings(
    api: Shell, server: Backend, attacks: Attacks, rest: str
) -> None:
    for address in (server.url + rest, server.url.partition("://")[2] + rest):
        attacks.try_one()
        assert "Secret" not in api("credential", "docker", "api", "get", given=address).stdout
        attacks.try_one()
        about = json.dumps({"spec": {"cluster": {"server": address}}})
        asked = api("credential", "kubectl", "api", KUBERNETES_EXEC_INFO=about)
        assert api.secrets()[0] not in asked.stdout
