"""``unbroken exec``."""

from __future__ import annotations

import signal

from tests.cli.client.shell import Shell


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
