"""``unbroken exec``."""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path

from tests.cli.client.background import background
from tests.cli.client.shell import Shell, one_line
from tests.support.services import unavailable
from tests.support.strict_server import StrictServer
from tests.support.waiting import until


def test_exec_gives_the_token_and_passes_the_exit_status_through(api: Shell) -> None:
    done = api("exec", "api", "--", "sh", "-c", 'echo "$UNBROKEN_TOKEN $0"; cat; exit 7', "x y", given="in")
    assert (done.returncode, done.stdout) == (7, f"{api.secrets()[0]} x y\nin")
    renamed = api("exec", "api", "--env", "TOKEN", "--", "sh", "-c", 'echo "$TOKEN$UNBROKEN_TOKEN"')
    assert renamed.stdout.strip() == api.secrets()[0]
    assert api("exec", "api", "--", "sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM


def test_exec_leaves_signals_as_a_shell_would(api: Shell) -> None:
    done = api("exec", "api", "--", "sh", "-c", "kill -PIPE $$; echo 'SIGPIPE is ignored'")
    assert (done.returncode, done.stdout) == (-signal.SIGPIPE, "")


def test_exec_of_a_missing_or_not_executable_command_is_one_line_with_status_127_or_126(api: Shell) -> None:
    (api.home / "text").write_text("no program")
    for command, status in (("no-such-command", 127), ("./text", 126)):
        done = api("exec", "api", "--", command)
        assert done.returncode == status
        assert done.stderr.startswith(f"unbroken: {command} cannot be run: ")
        assert len(done.stderr.splitlines()) == 1


ASK = 'curl -sf --unix-socket "$UNBROKEN_BROKER" "http://broker/$UNBROKEN_SESSION/token"'


def test_a_long_command_gets_good_tokens_from_a_broker_of_its_own(shell: Shell) -> None:
    if shutil.which("curl") is None:
        unavailable("curl", "apt-get install curl")
    with StrictServer(lifetime=1.0).run() as server:
        login = ["login", server.url, "--as", "api", "--token-endpoint", server.url + "/token", "--user", "ada"]
        assert shell(*login, "--password-stdin", given="pw").returncode == 0
        use = f"curl -s -o /dev/null -w '%{{http_code}} ' -H \"Authorization: Bearer $({ASK})\" {server.url}/api"
        script = f"for i in 1 2 3 4 5 6; do {use}; sleep 0.4; done; echo $UNBROKEN_BROKER; exit 7"
        done = shell("exec", "api", "--broker", "--", "sh", "-c", script)
        *codes, socket = done.stdout.split()
        assert (done.returncode, codes, done.stderr) == (7, ["200"] * 6, "")
        assert server.reuses == 0
        assert server.refreshes >= 2
        until(lambda: not Path(socket).parent.exists(), "the broker ends with the command", 10)


def test_a_command_that_ends_in_mid_refresh_does_not_cut_it_off(shell: Shell) -> None:
    if shutil.which("curl") is None:
        unavailable("curl", "apt-get install curl")
    with StrictServer(lifetime=1.0).run() as server:
        login = ["login", server.url, "--as", "api", "--token-endpoint", server.url + "/token", "--user", "ada"]
        assert shell(*login, "--password-stdin", given="pw").returncode == 0
        changed = Path(shell.home, "changed")
        script = f"echo $UNBROKEN_BROKER; touch {changed}; sleep 1.2; {ASK} --max-time 0.5"
        with background(shell, "exec", "api", "--broker", "--", "sh", "-c", script) as command:
            until(changed.exists)
            server.delay = 6.0
            assert command.wait() == (28, "")
        until(lambda: not Path(command.ready.strip()).parent.exists(), "the broker ends", 15)
        server.delay = 0.0
        assert shell("token", "api").returncode == 0
        assert server.reuses == 0


def test_the_broker_of_a_command_is_no_child_of_it_and_ends_with_it(api: Shell) -> None:
    waits = "import os; print(os.environ['UNBROKEN_BROKER']); os.wait()"
    done = api("exec", "api", "--broker", "--", sys.executable, "-c", waits)
    assert "ChildProcessError" in done.stderr, "there is no child to wait for"
    until(lambda: not Path(done.stdout.strip()).exists(), "the socket is gone", 10)
    done = api("exec", "api", "--broker", "--", "sh", "-c", 'echo "$UNBROKEN_BROKER"; kill -9 $$')
    assert done.returncode == -signal.SIGKILL
    until(lambda: not Path(done.stdout.strip()).exists(), "the socket is gone", 10)


def test_a_broker_that_cannot_start_is_one_line(api: Shell) -> None:
    assert "no session of that name" in one_line(api("exec", "nobody", "--broker", "--", "true"))
    long = api.home / ("x" * 120)
    long.mkdir()
    assert "too long for a socket" in one_line(api("exec", "api", "--broker", "--", "true", XDG_RUNTIME_DIR=str(long)))
    assert list(long.iterdir()) == []
