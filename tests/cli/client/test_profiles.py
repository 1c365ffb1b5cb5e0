"""The folder of the profiles, and what is in it."""

from __future__ import annotations

import json
import stat

import pytest

from tests.cli.client.shell import COMMAND, OAuth, Shell, one_line
from tests.support.backend import PASSWORD, Backend


def test_the_folder_and_its_files_are_readable_by_their_owner_only(shell: Shell, oauth: OAuth) -> None:
    command = ["login", oauth.url, "--as", "x", "--token-endpoint", oauth.url + "/auth/token", "--client-id", "x"]
    umasked = ["sh", "-c", 'umask 0; exec "$@"', "sh", *COMMAND, *command, "--client-secret-stdin", "--user", "ada"]
    done = shell.raw([*umasked, "--password-stdin"], b"hush-hush\npw\n")
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(shell.folder.stat().st_mode) == 0o700
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in shell.folder.iterdir()}
    assert set(files.values()) == {0o600}
    assert {"x.json", "x.tokens.json"} <= set(files)
    assert "hush-hush" in (shell.folder / "x.json").read_text()


@pytest.mark.parametrize(("variable", "below"), [("UNBROKEN_HOME", "a"), ("XDG_CONFIG_HOME", "a/unbroken")])
def test_the_folder_can_be_elsewhere(shell: Shell, server: Backend, variable: str, below: str) -> None:
    elsewhere = {variable: str(shell.home / "a")}
    login = ["login", server.url, "--as", "api", "--user", "ada", "--password-stdin"]
    assert shell(*login, given=PASSWORD, **elsewhere).returncode == 0
    assert (shell.home / below / "api.json").exists()
    assert not shell.folder.exists()
    assert shell("token", "api", **elsewhere).returncode == 0
    assert shell("token", "api").returncode == 2


def test_a_folder_that_others_may_write_to_is_refused(api: Shell) -> None:
    api.folder.chmod(0o770)
    assert "other users may write to" in one_line(api("token", "api"))


def test_a_damaged_profile_is_named_and_hides_no_other(api: Shell, server: Backend) -> None:
    (api.folder / "bad.json").write_text('{"unbroken": 1, "url": 5}')
    (api.folder / "new.json").write_text('{"unbroken": 2, "url": "https://example.org"}')
    assert "is damaged" in one_line(api("token", "bad"))
    assert "upgrade this one" in one_line(api("token", "new"))
    states = {line["name"]: line["state"] for line in json.loads(api("status", "--json").stdout)}
    assert states == {"api": "good", "bad": "unreadable", "new": "unreadable"}


NAMES = {"a path": "../x", "hidden": ".x", "nothing": "", "too long": "x" * 65, "a space": "a b", "tokens": "x.tokens"}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_that_cannot_be_one_is_refused(shell: Shell, name: str) -> None:
    done = shell("login", "https://example.org", "--as", name, "--user", "ada", "--password-stdin", given="x\n")
    assert "the name of a session has" in one_line(done)
    assert "the name of a session has" in one_line(shell("token", name))
