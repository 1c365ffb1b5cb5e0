"""The servers among the examples, run as a reader would: as programs, with a user made at the command line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.support.paths import ROOT
from unbroken import Session
from unbroken.httpx2 import SessionAuth

PASSWORD = "correct horse"
UVICORN = ["uvicorn", "--port", "0"]
SERVERS = {
    "starlette": [*UVICORN, "examples.server_starlette:app"],
    "fastapi": [*UVICORN, "examples.server_fastapi:app"],
    "flask": ["flask", "--app", "examples.server_flask", "run", "--port", "0"],
    "django": [*UVICORN, "examples.server_django:app"],
}


def an_account(environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "unbroken.cli", "users", "add", "ada", "--password-stdin"]
    subprocess.run(command, cwd=ROOT, env=environment, input=PASSWORD, text=True, check=True, timeout=60)


def a_django_user(environment: dict[str, str]) -> None:
    user = {
        "DJANGO_SUPERUSER_USERNAME": "ada",
        "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
        "DJANGO_SUPERUSER_EMAIL": "ada@example.com",
    }
    for command in (["migrate", "-v", "0"], ["createsuperuser", "--noinput", "-v", "0"]):
        program = [sys.executable, "examples/server_django.py", *command]
        subprocess.run(program, cwd=ROOT, env=environment | user, check=True, timeout=60)


@contextmanager
def served(command: list[str], environment: dict[str, str]) -> Iterator[str]:
    """The address that a server says it listens on."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        said = []
        for line in process.stderr or ():
            said.append(line)
            if found := re.search(r"[Rr]unning on (http://127\.0\.0\.1:\d+)", line):
                yield found[1]
                return
        pytest.fail("the server did not start:\n" + "".join(said))
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.mark.parametrize("name", SERVERS)
def test_an_example_serves_users_over_many_refreshes(name: str, tmp_path: Path) -> None:
    environment = os.environ | {
        "UNBROKEN_STORE": f"sqlite:///{tmp_path}/sessions.db",
        "USERS": str(tmp_path / "users.db"),
        "PYTHONUNBUFFERED": "1",
    }
    makes: Callable[[dict[str, str]], None] = a_django_user if name == "django" else an_account
    makes(environment)
    with served(SERVERS[name], environment) as url:
        session = Session(url)
        session.login("ada", PASSWORD)
        with httpx2.Client(base_url=url, auth=SessionAuth(session), timeout=30) as http:
            for _ in range(3):
                assert http.get("/orders").json() == {"orders of": "ada"}
                session.newer_token(session.token())
        assert (
            httpx2.get(url + "/orders", timeout=30).headers["www-authenticate"]
            == 'Bearer realm="unbroken", DPoP algs="ES256 Ed25519 EdDSA"'
        )


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_example_is_short(name: str) -> None:
    assert len((ROOT / "examples" / f"server_{name}.py").read_text().splitlines()) <= 45
