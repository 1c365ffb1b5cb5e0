"""The deployment guide: its commands run as they stand there, its tables leave nothing out, its files are in order."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.docs.pages import ROOT, examples, page, run
from tests.support.commands import PASSWORD, serving, unbroken
from tests.support.services import Service, free_port, unavailable
from unbroken.cli.build import conflicts
from unbroken.cli.check import CODES
from unbroken.cli.options import environment_variable
from unbroken.cli.settings import read_settings, setting_definitions
from unbroken.server.metrics import COUNTERS
from unbroken.server.stores.encrypted_keys import new_key

GUIDE = ROOT / "docs" / "deployment.md"
DEPLOY = ROOT / "deploy"
NODE = ("--access-log", "--issuer=http://127.0.0.1", "--cookies-mode=refresh", "--no-cookies-secure")
NGINX = """
daemon off; user root; worker_processes 1; pid nginx.pid; error_log error.log;
events {{}}
http {{
access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
scgi_temp_path scgi;
{guide}
}}
"""


def test_the_commands_of_the_guide_run_in_their_order(tmp_path: Path) -> None:
    for program, package in {"curl": "curl", "sqlite3": "sqlite3"}.items():
        if shutil.which(program) is None:
            unavailable(program, f"apt-get install {package}")
    (tmp_path / "unbroken").write_text(f"#!/bin/sh\nexec '{sys.executable}' -m unbroken.cli \"$@\"\n")
    (tmp_path / "unbroken").chmod(0o700)
    (tmp_path / "password").write_text("correct horse\n")
    port = str(free_port())
    commands = page("deployment.md", language="sh").replace("8400", port)
    done = run(f"set -e\nexport UNBROKEN_PORT={port}\n{commands}", tmp_path, "sh")
    assert done.returncode == 0, done.stderr
    assert '{"status":"ok"}' in done.stdout
    assert "added ada" in done.stdout
    assert "encrypted 4 keys" in done.stdout
    assert done.stdout.count("no problems with unbroken.toml") == 2
    assert (tmp_path / "backup.db").stat().st_size > 0
    assert not (tmp_path / "encryption-key.old").exists()


def test_all_other_commands_of_the_guide_are_well_formed(tmp_path: Path) -> None:
    for commands in examples(GUIDE, "bash"):
        (tmp_path / "commands").write_text(commands)
        done = subprocess.run(["sh", "-n", "commands"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_guide_names_every_word_of_check_and_every_counter() -> None:
    text = GUIDE.read_text()
    assert {code for code in CODES if f"`{code}`" not in text} == set()
    assert {name for name in COUNTERS if f"_{name}_total" not in text} == set()


def test_the_settings_that_the_guide_shows_are_good(tmp_path: Path) -> None:
    for number, toml in enumerate(examples(GUIDE, "toml")):
        file = tmp_path / f"{number}.toml"
        file.write_text(toml)
        found = read_settings({}, {"UNBROKEN_ENCRYPTION_KEY": new_key()}, str(file))
        assert found.problems == ()
        assert list(conflicts(found.settings)) == []


ENCRYPTED = """
from unbroken.server.stores.encrypted_keys import count_unencrypted

sessions.create("ada")
assert sessions.keyring() and count_unencrypted(store) == 0
"""


def test_the_server_of_ones_own_encrypts_its_keys(tmp_path: Path) -> None:
    key = f'import os\nos.environ["UNBROKEN_ENCRYPTION_KEY"] = "{new_key()}"\n'
    done = run(key + page("deployment.md") + ENCRYPTED, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["Containerfile", "compose.yaml", "unbroken.service", ".env.example"])
def test_every_variable_in_the_files_for_deployment_is_one_of_ours(name: str) -> None:
    known = {environment_variable(setting) for setting in setting_definitions()} | {"UNBROKEN_CONFIG"}
    used = set(re.findall(r"\bUNBROKEN_[A-Z_]+", (DEPLOY / name).read_text()))
    assert used
    assert used - known == set()


def test_the_extras_that_are_installed_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for text in (GUIDE.read_text(), (DEPLOY / "Containerfile").read_text()):
        [named] = set(re.findall(r"\[(cli[a-z,]*)\]", text))
        assert set(named.split(",")) <= set(extras)


def test_the_image_installs_exact_versions_with_their_hashes() -> None:
    container = (DEPLOY / "Containerfile").read_text()
    assert re.search(r"^ARG PYTHON=\d+\.\d+\.\d+-", container, re.MULTILINE)
    for name in ("requirements.txt", "requirements-build.txt"):
        assert f"--require-hashes -r {name}" in container
        pinned = [one for one in re.split(r"\n(?=[a-z])", (DEPLOY / name).read_text()) if not one.startswith("#")]
        assert pinned
        for one in pinned:
            assert re.match(r"[a-z0-9-]+==[\w.]+ ", one), one
            assert "--hash=sha256:" in one
            assert "://" not in one
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = {"cli", "postgres", "redis", "prometheus", "starlette", "httpx2", "server"}
    names = {re.split(r"[\[>;]", one)[0] for extra in wanted for one in project[extra]} - {"unbroken"}
    assert names <= set(re.findall(r"^([a-z0-9-]+)==", (DEPLOY / "requirements.txt").read_text(), re.MULTILINE))


def test_the_unit_is_one_that_systemd_understands(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        unavailable("systemd-analyze", "apt-get install systemd")
    # The program is not installed here: one that is takes its place.
    unit = (DEPLOY / "unbroken.service").read_text().replace("/opt/unbroken/bin/unbroken", "/bin/true")
    (tmp_path / "unbroken.service").write_text(unit)
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "unbroken.service")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "unbroken.service" not in done.stderr, done.stderr


@contextmanager
def nginx_of_the_guide(folder: Path, nodes: list[str]) -> Iterator[str]:
    """The URL of a real nginx, as the guide sets it up, but for addresses and https."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin") or ""
    if not program:
        unavailable("nginx", "apt-get install nginx-light")
    port, [guide] = free_port(), examples(GUIDE, "nginx")
    shown = re.findall(r"server (\S+:8400)", guide)
    assert len(shown) == len(nodes)
    for address, node in zip(shown, nodes, strict=True):
        guide = guide.replace(address, node.removeprefix("http://"))
    assert "listen 443 ssl;" in guide
    settings = folder / "nginx.conf"
    settings.write_text(NGINX.format(guide=guide.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")))
    nginx = Service(f"http://127.0.0.1:{port}", [program, "-p", str(folder), "-c", str(settings)], port)
    nginx.start()
    try:
        yield nginx.url
    finally:
        nginx.stop()


def test_behind_the_nginx_of_the_guide_a_killed_node_fails_no_request(tmp_path: Path) -> None:
    unbroken(tmp_path, "users", "add", "ada", "--password-stdin", given=PASSWORD + "\n")
    given = {"UNBROKEN_FORWARDED_ALLOW_IPS": "127.0.0.1"}
    with (
        serving(tmp_path, *NODE, **given) as one,
        serving(tmp_path, *NODE, **given) as two,
        nginx_of_the_guide(tmp_path, [one.url, two.url]) as url,
        httpx2.Client(base_url=url, timeout=30) as http,
    ):
        ada = {"username": "ada", "password": PASSWORD}
        assert http.post("/auth/login", json=ada, headers={"Origin": url, "X-Unbroken": "1"}).status_code == 200
        http.cookies.clear()
        token = http.post("/auth/login", json=ada).json()["refresh_token"]
        for number in range(60):
            if number == 30:
                assert "/auth/refresh" in one.errors.read_text()
                one.stop(signal.SIGKILL)
            response = http.post("/auth/refresh", json={"refresh_token": token})
            assert response.status_code == 200, response.text
            token = response.json()["refresh_token"]
        assert "/auth/refresh" in two.errors.read_text()


def test_two_nodes_of_the_compose_file_have_what_a_node_needs() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: pip install PyYAML")
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services = compose["services"]
    assert set(services) == {"postgres", "node-1", "node-2", "proxy"}
    assert services["node-1"] == services["node-2"]
    node = services["node-1"]
    assert (DEPLOY / node["build"]["context"] / node["build"]["dockerfile"]).resolve() == DEPLOY / "Containerfile"
    for service in services.values():
        assert set(service["networks"]) <= set(compose["networks"])
        for other in service.get("depends_on", {}):
            assert "healthcheck" in services[other] or services[other].get("build"), f"{other} can be waited for"
    asked = set(re.findall(r"\$\{([A-Z_]+)", (DEPLOY / "compose.yaml").read_text()))
    offered = set(re.findall(r"^([A-Z_]+)=", (DEPLOY / ".env.example").read_text(), re.MULTILINE))
    assert asked == offered
    for name in ("node-1", "node-2"):  # a password is no part of a URL: it need not be escaped
        assert "$" not in services[name]["environment"]["UNBROKEN_STORE"]
        assert services[name]["environment"]["PGPASSWORD"] == services["postgres"]["environment"]["POSTGRES_PASSWORD"]
    probe = services["postgres"]["healthcheck"]["test"]  # while it is made, PostgreSQL listens on its socket only
    assert probe[probe.index("-h") + 1] == "127.0.0.1"
    mounted = [one.split(":")[0] for service in services.values() for one in service.get("volumes", ())]
    assert {one for one in mounted if not one.startswith(".")} == set(compose["volumes"])
    assert all((DEPLOY / one).exists() for one in mounted if one.startswith("."))
