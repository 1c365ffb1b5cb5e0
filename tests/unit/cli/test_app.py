"""The tree of commands: what each one imports, what its help says, and how a shell completes it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from unbroken.cli.app import COMMANDS, run, unbroken
from unbroken.client.profile_session import ProfileSession
from unbroken.client.profiles import Profile, save_profile, token_store
from unbroken.tokens import Tokens

SERVER_ONLY = {"joserfc", "cryptography", "starlette", "uvicorn", "argon2", "anyio"}
NEVER = {"typer", "pydantic", "rich", "psycopg", "redis"}
SLOW = {"asyncio", "http", "email", "sqlite3"}  # of the standard library


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with one session, ``api``, whose access token is good for an hour."""
    for name in [name for name in os.environ if name.startswith("UNBROKEN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("UNBROKEN_HOME", str(tmp_path / "home"))
    profile = Profile(name="api", url="https://api.example.com", user="ada")
    save_profile(profile)
    ProfileSession(profile, token_store("api")).import_tokens(Tokens("a-token", "a-refresh-token", expires_in=3600.0))
    return tmp_path


def imported_by(folder: Path, *arguments: str) -> set[str]:
    """The top-level packages that a new process has imported after this command, and the modules of unbroken."""
    code = (
        "import sys; from unbroken.cli.app import run; status = run(sys.argv[1:]);"
        "print(status, *sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=folder)
    status, *modules = done.stderr.splitlines()[-1].split()
    assert status == "0", done.stderr
    return {name if name.startswith("unbroken") else name.partition(".")[0] for name in modules}


@pytest.mark.parametrize("arguments", [["token", "api"], ["status"], ["--version"], ["--help"]], ids=" ".join)
def test_a_clients_command_imports_neither_a_server_nor_an_http_library(home: Path, arguments: list[str]) -> None:
    modules = imported_by(home, *arguments)
    assert modules & (SERVER_ONLY | NEVER | {"httpx2", "httpx", "requests", "aiohttp"}) == set()
    assert modules & SLOW == ({"email"} if arguments == ["--version"] else set())  # importlib.metadata needs it
    assert not any(name.startswith("unbroken.server") for name in modules)
    assert not modules & {"unbroken.cli.settings", "unbroken.cli.serve", "unbroken.cli.client.fetch"}


def test_version_and_help_import_no_command(home: Path) -> None:
    for arguments in (["--version"], ["--help"]):
        ours = {name for name in imported_by(home, *arguments) if f"{name}.".startswith("unbroken.cli.")}
        assert ours == {"unbroken.cli", "unbroken.cli.app", "unbroken.cli.terminal"}, arguments


def test_a_servers_command_imports_no_settings_library(home: Path) -> None:
    assert imported_by(home, "keys", "list") & NEVER == set()


def test_the_summary_of_a_command_is_the_beginning_of_its_help() -> None:
    context = click.Context(unbroken)
    for name, entry in COMMANDS.items():
        command = unbroken.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert " ".join((command.help or "").split()).startswith(entry.summary), name


def commands_of(group: click.Command, context: click.Context, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(group, click.Group):
        return [words]
    found = [words]
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found += commands_of(command, context, (*words, name))
    return found


ALL = commands_of(unbroken, click.Context(unbroken))


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_help_at_80_columns_shows_every_option_whole(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "…" not in re.sub("(postgresql|redis)://…", "", shown)
    assert all(len(line) <= 80 for line in shown.splitlines()), words
    command: click.Command = unbroken
    for word in words:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), word)
        assert found is not None
        command = found
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert all(name in shown for name in parameter.opts), words
            if isinstance(parameter.envvar, str):
                assert parameter.envvar in shown, words


def completions(*words: str) -> list[str]:
    environment = {
        **os.environ,
        "_UNBROKEN_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["unbroken", *words]),
        "COMP_CWORD": str(len(words)),
    }
    code = "from unbroken.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_a_shell_completes_commands_options_and_names(home: Path) -> None:
    assert completions("cre") == ["credential"]
    assert completions("token", "a") == ["api"]
    assert completions("credential", "git", "") == ["api"]
    assert "--password-stdin" in completions("login", "--pass")
    assert "--encryption-key-file" in completions("serve", "--enc")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_for_this_program(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"_UNBROKEN_COMPLETE={shell}_complete" in script
