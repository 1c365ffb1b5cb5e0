"""One profile, many programs: commands and Python programs of both styles use one session at a strict server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

from tests.cli.client.shell import Shell, one_line
from tests.support.backend import PASSWORD, Backend
from tests.support.paths import ROOT
from tests.support.strict_server import StrictServer
from unbroken.client.stores.codec import new_key

PROGRAM = ROOT / "tests" / "support" / "visitor.py"
KINDS = ["sync"] * 4 + ["async"] * 3 + ["cli"] * 3
SECONDS = 5.0


def test_ten_programs_of_three_kinds_share_one_login_at_a_strict_server(shell: Shell) -> None:
    with StrictServer(lifetime=1.0).run() as server:
        done = shell(
            *("login", server.url, "--as", "api", "--token-endpoint", server.url + "/token", "--user", "ada"),
            "--password-stdin",
            given="pw\n",
        )
        assert done.returncode == 0, done.stderr
        programs = [
            subprocess.Popen(
                [sys.executable, str(PROGRAM), kind, "api", server.url + "/api", str(SECONDS)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=shell.environment(),
                cwd=shell.home,
                text=True,
            )
            for kind in KINDS
        ]
        said = [program.communicate(timeout=120) for program in programs]
        assert [program.returncode for program in programs] == [0] * len(KINDS), [error for _, error in said]
        by_kind = {kind: Counter[str]() for kind in KINDS}
        for kind, (output, _) in zip(KINDS, said, strict=True):
            by_kind[kind] += Counter(json.loads(output))
        assert {kind: set(seen) for kind, seen in by_kind.items()} == {kind: {"200"} for kind in KINDS}
        assert (server.reuses, server.logins) == (0, 1)
        refreshes = [form for form in server.forms if form["grant_type"] == "refresh_token"]
        assert len(refreshes) == server.refreshes, "each was accepted: one for each generation"
        assert server.refreshes >= 3


def test_tokens_in_the_keyring_whose_profile_is_lost_go_to_no_server(api: Shell, server: Backend) -> None:
    keyring = {"PYTHON_KEYRING_BACKEND": "keyrings.alt.file.PlaintextKeyring"}
    login = ["--as", "lost", "--user", "ada", "--password-stdin", "--keep", "keyring"]
    assert api("login", server.url, *login, given=PASSWORD, **keyring).returncode == 0
    old = api("token", "lost", **keyring).stdout.strip()
    (api.folder / "lost.json").unlink()
    with StrictServer().run() as other:
        endpoints = ["--token-endpoint", other.url + "/token", "--revocation-endpoint", other.url + "/token"]
        done = api("login", other.url, *login, *endpoints, given=PASSWORD, **keyring)
        assert done.returncode == 0, done.stderr
        assert [form["grant_type"] for form in other.forms] == ["password"]
        assert api("token", "lost", **keyring).stdout.strip() != old


def test_a_login_says_where_the_tokens_are_kept_and_all_programs_look_there(api: Shell, server: Backend) -> None:
    key = {"UNBROKEN_STORE_KEY": new_key()}
    login = ["login", server.url, "--as", "secret", "--user", "ada", "--password-stdin"]
    assert api(*login, "--keep", "encrypted", given=PASSWORD, **key).returncode == 0
    assert b"unbroken-encrypted:" in (api.folder / "secret.tokens.json").read_bytes()
    program = [sys.executable, "-c", "import unbroken; print(unbroken.Session.open('secret').token())"]
    said = api.raw(program, **key).stdout
    assert said.decode() == api("token", "secret", **key).stdout
    assert "UNBROKEN_STORE_KEY is not set" in one_line(api("token", "secret"))
    assert "kept by --keep encrypted: log it out first" in one_line(api(*login, "--keep", "file", given="", **key))
    assert api(*login, given=PASSWORD, **key).returncode == 0, "the next login keeps them where they are"
    assert b"unbroken-encrypted:" in (api.folder / "secret.tokens.json").read_bytes()
