"""``unbroken token``, by one shell and by many at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.cli.client.shell import COMMAND, Shell, one_line
from tests.support.backend import Backend
from tests.support.waiting import until
from unbroken import FileStore
from unbroken.cli.ending import WAITING


@pytest.mark.parametrize("age", [3600, 1700], ids=["expired", "ageing"])
def test_shells_that_ask_at_once_cost_one_refresh(api: Shell, server: Backend, age: float) -> None:
    api.age(age)
    [old, _] = api.secrets()
    server.slow_next(0.5)
    twice = ["sh", "-c", '"$@" && "$@"', "sh", *COMMAND, "token", "api"]
    with ThreadPoolExecutor(12) as pool:
        done = list(pool.map(lambda _: api.raw(twice), range(12)))
    assert [one.returncode for one in done] == [0] * 12, done[0].stderr
    tokens = {line for one in done for line in one.stdout.decode().split()}
    assert tokens == {api.secrets()[0]}
    assert tokens != {old}
    assert (server.refreshes, server.alarms()) == (1, 0)


def waits(process: subprocess.Popen[bytes], lock: Path) -> bool:
    """Whether *process* has the lock file open: it does so when it wants to refresh, and nowhere else."""
    assert process.poll() is None, "it ended without waiting"
    folder = Path(f"/proc/{process.pid}/fd")
    with suppress(FileNotFoundError):  # a descriptor that was closed meanwhile
        return any(link.readlink() == lock for link in folder.iterdir())
    return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="who waits is seen in /proc; twelve shells are above")
def test_fifty_shells_that_wait_together_cost_one_refresh(api: Shell, server: Backend) -> None:
    """The lock is held until all of them want it, or half of them on a machine that takes half a minute for that."""
    api.age(3600)
    tokens, asked = api.folder / "api.tokens.json", subprocess.PIPE
    with FileStore(tokens).lock(5), ExitStack() as ended:
        shells = []
        for _ in range(50):
            shells.append(
                subprocess.Popen([*COMMAND, "token", "api"], stdout=asked, env=api.environment(), cwd=api.home)
            )
            ended.callback(shells[-1].kill)
        ends, waiting = time.monotonic() + 30, 0  # no shell waits for longer than 45 seconds
        while waiting < 50 and time.monotonic() < ends:
            time.sleep(0.1)
            waiting = sum(waits(shell, tokens.with_name(tokens.name + ".refresh")) for shell in shells)
        assert waiting >= 25, "too few came to wait together"
        assert server.refreshes == 0
        ended.pop_all()
    said = {shell.communicate(timeout=60)[0].decode() for shell in shells}
    assert said == {api.secrets()[0] + "\n"}
    assert [shell.returncode for shell in shells] == [0] * 50
    assert (server.refreshes, server.alarms()) == (1, 0)


def test_an_ageing_token_is_still_given_while_the_server_is_ill(api: Shell, server: Backend) -> None:
    api.age(1700)
    for _ in range(3):
        server.fail_next(500)
    done = api("token", "api")
    assert (done.returncode, done.stdout.strip()) == (0, api.secrets()[0])
    assert server.refreshes == 3


def test_a_dead_token_and_an_ill_server_are_one_line_and_lose_nothing(api: Shell, server: Backend) -> None:
    api.age(3600)
    for _ in range(3):
        server.fail_next(500)
    assert "status 500" in one_line(api("token", "api"))
    assert api("token", "api").returncode == 0
    assert server.refreshes == 4


COMMANDS: dict[str, list[str]] = {
    "token": ["token", "api"],
    "fetch": ["fetch", "api", "URL/echo"],
    "exec": ["exec", "api", "--", "echo", "never"],
    "git": ["credential", "git", "api", "get"],
    "kubectl": ["credential", "kubectl", "api"],
}


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_a_session_that_is_over_says_what_to_type(api: Shell, server: Backend, arguments: list[str]) -> None:
    server.sessions.revoke_subject("ada")
    api.age(3600)
    given = f"protocol=http\nhost={server.url.removeprefix('http://')}\n"
    done = api(*(word.replace("URL", server.url) for word in arguments), given=given)
    assert f"the session was revoked: run `unbroken login {server.url} --as api --user ada`" in one_line(done)
    assert done.stdout == ""


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_a_reader_that_has_gone_is_no_traceback(api: Shell, unbuffered: str) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    env = api.environment(PYTHONUNBUFFERED=unbuffered)
    process = subprocess.Popen([*COMMAND, "token", "api"], stdout=theirs, stderr=subprocess.PIPE, env=env, cwd=api.home)
    os.close(theirs)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (1, b"")


def test_the_token_command_does_not_load_the_server() -> None:
    code = (
        "import sys; from unbroken.cli.app import run; run(['token', 'x']);"
        "print(sorted({n.partition('.')[0] for n in sys.modules} & {'joserfc', 'starlette', 'uvicorn', 'httpx2'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    assert done.stdout == "[]\n", done.stderr


def test_ctrl_c_in_mid_refresh_says_what_is_waited_for_and_a_second_one_ends_it(api: Shell, server: Backend) -> None:
    api.age(3600)
    server.slow_next(20.0)
    command = subprocess.Popen(
        [*COMMAND, "token", "api"], stderr=subprocess.PIPE, env=api.environment(), cwd=api.home, text=True
    )
    assert command.stderr is not None
    until(lambda: server.refreshes == 1)
    command.send_signal(signal.SIGINT)
    said = ["\n", "unbroken: stopped\n", f"unbroken: {WAITING}\n"]
    assert [command.stderr.readline() for _ in said] == said
    command.send_signal(signal.SIGINT)
    assert (command.wait(5), command.stderr.read()) == (130, "")
