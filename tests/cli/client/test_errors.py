"""What people type wrongly, and every option as an environment variable."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.client.shell import Shell, one_line
from tests.support.backend import PASSWORD, Backend

LOGIN = ["login", "https://example.org", "--as", "x"]
MISTAKES: dict[str, tuple[list[str], str]] = {
    "an unknown name": (["token", "hunter2"], "there is no session of that name; known are: api"),
    "an unknown name to fetch with": (["fetch", "hunter2", "https://example.org"], "known are: api"),
    "an unknown name to look at": (["status", "hunter2"], "known are: api"),
    "an unknown name to log out": (["logout", "hunter2"], "known are: api"),
    "an unknown name to ask for": (["credential", "kubectl", "hunter2"], "known are: api"),
    "a password as an argument": ([*LOGIN, "hunter2"], "login takes one URL and no secrets"),
    "a password as an option": ([*LOGIN, "--password=hunter2"], "--password-stdin"),
    "a code as an option": ([*LOGIN, "--code=hunter2"], "--code-stdin"),
    "a client secret as an option": ([*LOGIN, "--client-secret=hunter2"], "--client-secret-stdin"),
    "a token as an argument": (["token", "api", "hunter2"], "unexpected argument"),
    "a password in the URL": (["login", "https://ada:hunter2@example.org", "--as", "x"], "must not contain a user"),
    "a password in the URL to fetch": (["fetch", "api", "https://ada:hunter2@example.org"], "must not contain a user"),
    "a password for a URL": (["login", "hunter2", "--as", "x"], "URL must start with https://"),
    "half an address": (["login", "http://[hunter2", "--as", "x"], "URL must start with https://"),
    "half another address": ([*LOGIN, "--origin", "http://[hunter2"], "--origin must start with https://"),
    "no name": (["login", "https://example.org"], "--as"),
    "in the clear": (["login", "http://example.org", "--as", "x", "--user", "a", "--password-stdin"], "use https"),
    "nobody to ask": ([*LOGIN, "--user", "a"], "--password-stdin"),
    "nobody to ask for a name": (LOGIN, "--user"),
    "an empty password": ([*LOGIN, "--user", "a", "--password-stdin"], "the password is empty"),
    "an empty token": ([*LOGIN, "--paste"], "the refresh token is empty"),
    "a client without an endpoint": ([*LOGIN, "--client-id", "x"], "--token-endpoint"),
    "a header that is none": (["fetch", "api", "https://example.org", "-H", "hunter2"], "'Name: value'"),
    "a header of two lines": (["fetch", "api", "https://example.org", "-H", "A: hunter2\nB: c"], "control characters"),
    "two bodies": (["fetch", "api", "https://example.org", "-d", "a", "--json", "b"], "one body"),
    "a body of no file": (["fetch", "api", "https://example.org", "-d", "@no/file"], "no/file"),
    "a file in no folder": (["fetch", "api", "URL/stream", "-o", "no/file"], "no/file cannot be written"),
    "nobody there": (["fetch", "api", "http://127.0.0.1:1/"], "cannot be reached"),
    "nobody there, said plainly": (["fetch", "api", "http://127.0.0.1:1/"], "cannot be reached: Connection refused"),
    "a scheme that is none": (["fetch", "api", "ftp://example.org"], "the URL must be a path, or start with https://"),
    "a time that is none": (["fetch", "api", "https://example.org", "--max-time", "x"], "is not a duration"),
    "no command": (["exec", "api"], "COMMAND"),
    "a variable that is none": (["exec", "api", "--env", "A=B", "--", "true"], "the name of a variable"),
    "an unknown action of docker": (["credential", "docker", "api", "frob"], "docker's actions are"),
    "junk from kubectl": (["credential", "kubectl", "api"], "KUBERNETES_EXEC_INFO is not JSON"),
}


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shell, str]]:
    """One login for all mistakes, which change nothing, and the server's address."""
    with Backend() as built:
        shell = Shell(tmp_path_factory.mktemp("home"))
        shell.login(built.url)
        yield shell, built.url


@pytest.mark.parametrize(("arguments", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_gets_one_clear_line_without_a_secret(
    mistaken: tuple[Shell, str], arguments: list[str], says: str
) -> None:
    shell, url = mistaken
    junk = {"KUBERNETES_EXEC_INFO": "{" if says.startswith("KUBERNETES") else ""}
    done = shell(*(word.replace("URL", url) for word in arguments), **junk)
    assert says in one_line(done)
    assert "hunter2" not in done.stderr + done.stdout


def test_every_option_is_an_environment_variable_too(shell: Shell, server: Backend) -> None:
    login = {"UNBROKEN_AS": "api", "UNBROKEN_USER": "ada", "UNBROKEN_PASSWORD_STDIN": "1", "UNBROKEN_LABEL": "x y"}
    assert shell("login", server.url, given=PASSWORD, **login).returncode == 0
    assert server.sessions.list_sessions("ada")[0].label == "x y"
    assert shell("exec", "api", "--", "sh", "-c", 'test "$T"', UNBROKEN_ENV="T").returncode == 0
    for command, names in EXPECTED.items():
        text = shell(*command.split(), "--help").stdout
        missing = [name for name in names.split() if f"UNBROKEN_{name}" not in text]
        assert missing == [], command


EXPECTED = {
    "login": "AS USER PASSWORD_STDIN CODE_STDIN PASTE SCOPE LABEL PREFIX TOKEN_ENDPOINT REVOCATION_ENDPOINT CLIENT_ID "
    "CLIENT_SECRET_STDIN ORIGIN ALLOW_PLAIN_HTTP REPLACE",
    "fetch": "REQUEST HEADER DATA DATA_RAW JSON_DATA OUTPUT INCLUDE HEAD FAIL LOCATION MAX_TIME",
    "status": "JSON",
    "exec": "ENV",
    "credential git": "USERNAME",
    "credential docker": "USERNAME",
}
