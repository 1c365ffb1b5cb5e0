"""``unbroken login --dpop``, and what each command can give for a session that is bound to a key.

Modules: client/profile_keys.py.
"""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from tests.cli.client.background import background, unix_client
from tests.cli.client.shell import COMMAND, Shell, one_line
from tests.support.bound_api import ALGORITHMS, PASSWORD, BoundApi, bound_api, header_of
from tests.support.commands import serving, unbroken
from unbroken import FileStore

KEYRING = {"PYTHON_KEYRING_BACKEND": "keyrings.alt.file.PlaintextKeyring"}


@pytest.fixture(params=[False, True], ids=["no nonces", "nonces"])
def api(request: pytest.FixtureRequest) -> Iterator[BoundApi]:
    with bound_api(require_nonce=request.param) as made:
        yield made
        assert made.alarms() == 0


@pytest.fixture
def plain() -> Iterator[BoundApi]:
    with bound_api() as made:
        yield made


def jkt_of(shell: Shell, name: str = "api") -> str:
    tokens = FileStore(shell.folder / f"{name}.tokens.json").load().tokens
    assert tokens is not None
    return tokens.jkt


def test_a_login_binds_the_session_to_a_key_in_a_file_of_its_own(shell: Shell, api: BoundApi) -> None:
    done = shell("login", api.url, "--as", "api", "--user", "ada", "--password-stdin", "--dpop", given=PASSWORD)
    assert done.stdout.endswith("is called api, and bound to a key of this machine\n"), done.stderr
    key = shell.folder / "api.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
    assert b"PRIVATE" not in (shell.folder / "api.tokens.json").read_bytes()
    assert json.loads(shell("fetch", "api", "/me", "-f").stdout) == {"sub": "ada", "jkt": jkt_of(shell), "body": ""}
    shell.age(3600)
    assert shell("fetch", "api", "/me", "-d", "text", "-f").returncode == 0
    assert shell("fetch", "api", "/redirect?to=/me", "-L", "-f").returncode == 0
    assert shell("logout", "api").stdout == "api: logged out; the server confirmed it\n"
    assert not key.exists()
    assert api.all_proofs_differ()


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_the_algorithm_is_chosen(shell: Shell, plain: BoundApi, alg: str) -> None:
    shell.login(plain.url, "api", "--dpop", "--dpop-alg", alg)
    assert shell("fetch", "api", "/me", "-f").returncode == 0
    assert {header_of(one.proof)["alg"] for one in plain.seen} == {alg}


def test_programs_share_the_key(shell: Shell, plain: BoundApi) -> None:
    shell.login(plain.url, "api", "--dpop")
    shell.age(3600)
    program = (
        "import httpx2\nfrom unbroken import Session\nfrom unbroken.httpx2 import SessionAuth\n"
        f"with Session.open('api') as session, httpx2.Client(auth=SessionAuth(session)) as http:\n"
        f"    print(http.get('{plain.url}/me').status_code)\n"
    )
    with ThreadPoolExecutor(6) as pool:
        commands = [[COMMAND[0], "-c", program], [*COMMAND, "fetch", "api", "/me", "-f"]] * 3
        done = list(pool.map(shell.raw, commands))
    assert [one.returncode for one in done] == [0] * 6, [one.stderr for one in done]
    assert len(plain.of("/auth/refresh")) == 1
    assert plain.all_proofs_differ()


def test_a_proof_for_other_tools(shell: Shell, plain: BoundApi) -> None:
    shell.login(plain.url, "api", "--dpop")
    url = plain.url + "/me?x=1"
    done = shell("token", "api", "--proof", "GET", url)
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ["Authorization", "DPoP"]
    headers = dict(line.split(": ") for line in done.stdout.splitlines())
    assert httpx2.get(url, headers=headers, timeout=30).json()["sub"] == "ada"
    assert httpx2.get(url, headers=headers, timeout=30).status_code == 401, "it is good once"
    line = f"{' '.join(COMMAND)} token api --proof GET {url} | curl -sf -H @- {url}"
    piped = subprocess.run(["sh", "-c", line], capture_output=True, text=True, env=shell.environment(), check=False)
    assert '"sub":"ada"' in piped.stdout, piped.stderr


def test_a_nonce_for_other_tools(shell: Shell) -> None:
    with bound_api(require_nonce=True) as api:
        shell.login(api.url, "api", "--dpop")
        url, nonce = api.url + "/me", ""
        for status in (401, 200):
            done = shell("token", "api", "--proof", "GET", url, *(("--nonce", nonce) if nonce else ()))
            headers = dict(line.split(": ") for line in done.stdout.splitlines())
            response = httpx2.get(url, headers=headers, timeout=30)
            assert response.status_code == status
            nonce = response.headers.get("dpop-nonce", "")


def test_a_proof_goes_to_origins_of_the_session_only(shell: Shell, plain: BoundApi) -> None:
    shell.login(plain.url, "api", "--dpop")
    assert "is not an origin" in one_line(shell("token", "api", "--proof", "GET", "https://elsewhere.example/x"))
    assert "method" in one_line(shell("token", "api", "--proof", "no method", plain.url))
    assert "--nonce" in one_line(shell("token", "api", "--nonce", "x"))


def test_a_proof_of_an_unbound_session_is_its_token_alone(shell: Shell) -> None:
    with bound_api(binding="accepted") as api:
        shell.login(api.url)
        done = shell("token", "api", "--proof", "GET", api.url + "/me")
        assert done.stdout == f"Authorization: Bearer {shell.secrets()[0]}\n"
        assert shell("token", "api").stderr == ""


def test_a_bare_token_comes_with_a_word_of_warning(shell: Shell, plain: BoundApi) -> None:
    shell.login(plain.url, "api", "--dpop")
    for command in (("token", "api"), ("exec", "api", "--", "sh", "-c", "echo $UNBROKEN_TOKEN")):
        done = shell(*command)
        assert done.stdout.strip() == shell.secrets()[0]
        assert "worth nothing without a proof" in done.stderr
        assert "unbroken token api --proof METHOD URL" in done.stderr
    bearer = {"authorization": f"Bearer {shell.secrets()[0]}"}
    assert httpx2.get(plain.url + "/me", headers=bearer, timeout=30).status_code == 401


def test_helpers_that_cannot_prove_refuse(shell: Shell, plain: BoundApi) -> None:
    shell.login(plain.url, "api", "--dpop")
    for command in (("git", "api", "get"), ("docker", "api", "get"), ("kubectl", "api")):
        given = f"protocol=http\nhost={plain.url[7:]}\n" if command[0] == "git" else plain.url
        done = shell("credential", *command, given=given)
        assert done.returncode == 2
        assert "bound to a key" in done.stderr
        assert shell.secrets()[0] not in done.stdout
    assert "bound to a key" in one_line(shell("token", "api", "--watch", str(shell.home / "token")))


def test_a_broker_gives_proofs(shell: Shell, plain: BoundApi) -> None:
    shell.login(plain.url, "api", "--dpop")
    socket, url = shell.home / "b.sock", plain.url + "/me"
    with background(shell, "token", "api", "--watch", str(socket)), unix_client(socket) as client:
        refused = client.get("/api/header")
        assert (refused.status_code, "method=METHOD&url=URL" in refused.text) == (400, True)
        given = client.get("/api/header", params={"method": "GET", "url": url})
        headers = dict(line.split(": ") for line in given.text.splitlines())
        assert httpx2.get(url, headers=headers, timeout=30).status_code == 200
        found = client.get("/api/token", headers={"accept": "application/json"}).json()
        assert found["token_type"] == "DPoP"
        assert client.get("/api/header", params={"url": "https://elsewhere.example/"}).status_code == 404


def test_a_command_with_a_broker_gets_proofs(shell: Shell, plain: BoundApi) -> None:
    shell.login(plain.url, "api", "--dpop")
    url = plain.url + "/me"
    script = f'curl -sf -G --unix-socket "$UNBROKEN_BROKER" -d url={url} http://b/api/header | curl -sf -H @- {url}'
    done = shell("exec", "--broker", "api", "--", "sh", "-c", script)
    assert ('"sub":"ada"' in done.stdout, done.stderr) == (True, "")


def test_a_lost_key_ends_the_session_for_this_user_and_a_login_mends_it(shell: Shell, plain: BoundApi) -> None:
    shell.login(plain.url, "api", "--dpop")
    (shell.folder / "api.key").unlink()
    before = len(plain.seen)
    done = shell("fetch", "api", "/me")
    assert done.returncode != 0
    assert "another key" in done.stderr
    assert f"unbroken login {plain.url} --as api --user ada --dpop" in done.stderr
    assert len(plain.seen) == before, "nothing was sent"
    assert not (shell.folder / "api.key").exists(), "no command but a login makes a key"
    shell.login(plain.url, "api", "--dpop")
    assert shell("fetch", "api", "/me", "-f").returncode == 0


def test_another_login_keeps_the_key_and_revokes_the_old_session(shell: Shell, plain: BoundApi) -> None:
    shell.login(plain.url, "api", "--dpop")
    key = (shell.folder / "api.key").read_bytes()
    shell.login(plain.url, "api", "--dpop")
    assert (shell.folder / "api.key").read_bytes() == key
    assert [one.revoked_why for one in plain.sessions.list_sessions(include_revoked=True)].count("logged_out") == 1
    assert shell("fetch", "api", "/me", "-f").returncode == 0


def test_a_login_without_a_key_forgets_the_old_one(shell: Shell) -> None:
    with bound_api(binding="accepted") as api:
        shell.login(api.url, "api", "--dpop")
        shell.login(api.url, "api")
        assert not (shell.folder / "api.key").exists()
        assert shell("fetch", "api", "/me", "-f").returncode == 0
        assert api.of("/me")[-1].authorization.startswith("Bearer ")
        assert [one.revoked_why for one in api.sessions.list_sessions(include_revoked=True)].count("logged_out") == 1


def test_a_server_that_binds_nothing_is_refused(shell: Shell) -> None:
    with bound_api(binding="off") as api:
        login = ("login", api.url, "--as", "api", "--user", "ada", "--password-stdin", "--dpop")
        assert "does not know DPoP" in one_line(shell(*login, given=PASSWORD))
        assert [one.revoked_why for one in api.sessions.list_sessions(include_revoked=True)] == ["logged_out"]
        assert list(shell.folder.iterdir()) == []


def test_a_login_that_fails_leaves_no_key(shell: Shell, plain: BoundApi) -> None:
    done = shell("login", plain.url, "--as", "api", "--user", "ada", "--password-stdin", "--dpop", given="wrong")
    assert done.returncode != 0
    assert list(shell.folder.iterdir()) == []


def test_a_server_that_demands_a_key_says_so(shell: Shell, plain: BoundApi) -> None:
    done = shell("login", plain.url, "--as", "api", "--user", "ada", "--password-stdin", given=PASSWORD)
    assert "--dpop" in one_line(done)


def test_options_that_do_not_go_together(shell: Shell, plain: BoundApi) -> None:
    assert "--dpop" in one_line(shell("login", plain.url, "--as", "api", "--dpop-key", "file"))
    assert "refresh token" in one_line(shell("login", plain.url, "--as", "api", "--dpop", "--paste", given="x"))


def test_the_key_in_the_keyring(shell: Shell, plain: BoundApi, tmp_path: Path) -> None:
    options = ("--dpop", "--dpop-key", "keyring")
    login = ("login", plain.url, "--as", "api", "--user", "ada", "--password-stdin", *options)
    assert shell(*login, given=PASSWORD, **KEYRING).returncode == 0
    assert not (shell.folder / "api.key").exists()
    assert shell("fetch", "api", "/me", "-f", **KEYRING).returncode == 0
    assert shell(*login, given=PASSWORD, **KEYRING).returncode == 0
    assert shell("fetch", "api", "/me", "-f", **KEYRING).returncode == 0
    assert shell("logout", "api", **KEYRING).returncode == 0
    [kept] = tmp_path.rglob("keyring_pass.cfg")
    assert "proof" not in kept.read_text()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_session_of_unbroken_serve_that_demands_keys(shell: Shell, tmp_path: Path, workers: str) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    assert unbroken(folder, "users", "add", "ada", "--password-stdin", given=PASSWORD + "\n").returncode == 0
    (folder / "unbroken.toml").write_text('[proofs]\nbinding = "required"\nrequire_nonce = true\nreplays = "all"\n')
    with serving(folder, "--workers", workers) as server:
        plain = shell("login", server.url, "--as", "no", "--user", "ada", "--password-stdin", given=PASSWORD)
        assert "--dpop" in one_line(plain)
        shell.login(server.url, "api", "--dpop")
        for _ in range(3):
            done = shell("fetch", "api", "/auth/session", "-f")
            assert json.loads(done.stdout)["cnf"] == {"jkt": jkt_of(shell)}, done.stderr
            shell.age(100_000)
        assert shell("logout", "api").returncode == 0


def test_a_key_in_the_file_of_a_profile_that_is_no_key_is_left_alone(shell: Shell, plain: BoundApi) -> None:
    shell.login(plain.url, "api", "--dpop")
    (shell.folder / "api.key").write_text("a diary")
    done = shell("fetch", "api", "/me")
    assert done.returncode == 2
    assert "was left as it is" in done.stderr
    shell("logout", "api")
    assert (shell.folder / "api.key").read_text() == "a diary"
