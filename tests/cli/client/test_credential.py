"""``unbroken credential``: by hand, and asked by the real git, docker and kubectl.

Each protocol is spoken by hand in a test that always runs. The real docker and kubectl are in no system that the tests
are run on by default: where they are missing, it is their own reading of our answers that is not proven.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import shutil
import sys
import time
from http.server import BaseHTTPRequestHandler

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.cli.client.shell import Done, Shell, one_line, serving
from tests.cli.client.tls import certified
from tests.support.backend import Backend, running
from tests.support.services import unavailable


def host_of(url: str) -> str:
    return url.partition("://")[2]


def test_git_gets_a_token_for_the_sessions_host_only(api: Shell, server: Backend) -> None:
    ask = "protocol={}\nhost={}\npath=a/b.git\n\n"
    done = api("credential", "git", "api", "get", given=ask.format("http", host_of(server.url)))
    answer = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert (answer["username"], answer["password"]) == ("oauth2", api.secrets()[0])
    assert 1700 < int(answer["password_expiry_utc"]) - time.time() <= 1800
    for protocol, host in (("https", host_of(server.url)), ("http", "127.0.0.1"), ("http", "x.org"), ("", "[")):
        done = api("credential", "git", "api", "get", given=ask.format(protocol, host))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for action in ("store", "erase", "something-new"):
        done = api("credential", "git", "api", action, given=ask.format("http", host_of(server.url)) + "password=x\n")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def git(shell: Shell, *arguments: str, given: str) -> Done:
    helper = f"!'{sys.executable}' -m unbroken.cli credential git api"
    command = ["git", "-c", "credential.helper=", "-c", f"credential.helper={helper}", *arguments]
    quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "SSH_ASKPASS": "", "GIT_CONFIG_NOSYSTEM": "1"}
    done = shell.raw(command, given.encode(), **quiet)
    return Done(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_the_real_git_asks_us(api: Shell, server: Backend) -> None:
    if not shutil.which("git"):
        unavailable("git", "apt-get install git")
    api.age(3600)
    filled = git(api, "credential", "fill", given=f"protocol=http\nhost={host_of(server.url)}\nusername=ada\n\n")
    assert f"password={api.secrets()[0]}\n" in filled.stdout, filled.stderr
    assert "username=ada\n" in filled.stdout
    assert server.refreshes == 1
    for action in ("approve", "reject"):
        assert git(api, "credential", action, given=filled.stdout).returncode == 0
    assert api("token", "api").stdout.strip() == api.secrets()[0]
    other = git(api, "credential", "fill", given="protocol=https\nhost=example.org\n\n")
    assert other.returncode != 0
    assert "password" not in other.stdout


def test_docker_gets_a_token_for_the_sessions_host_only(api: Shell, server: Backend) -> None:
    for address in (server.url, host_of(server.url), server.url + "/v1/"):
        done = api("credential", "docker", "api", "get", "--username", "<token>", given=address + "\n")
        assert json.loads(done.stdout) == {
            "ServerURL": address,
            "Username": "<token>",
            "Secret": api.secrets()[0],
        }
    for address in ("registry.example.org", "https://index.docker.io/v1/", "127.0.0.1", "["):
        done = api("credential", "docker", "api", "get", given=address)
        assert (done.returncode, done.stdout) == (1, "credentials not found in native keychain\n")
    done = api("credential", "docker", "api", "get")
    assert (done.returncode, done.stdout) == (1, "no credentials server URL\n")
    assert json.loads(api("credential", "docker", "api", "list").stdout) == {server.url: "oauth2"}
    secret = json.dumps({"ServerURL": server.url, "Username": "ada", "Secret": "x"})
    assert api("credential", "docker", "api", "store", given=secret).returncode == 0
    assert api("credential", "docker", "api", "erase", given=server.url).returncode == 0


def test_docker_reads_our_error_where_it_looks_for_it(api: Shell, server: Backend) -> None:
    server.sessions.revoke_subject("ada")
    api.age(3600)
    done = api("credential", "docker", "api", "get", given=server.url)
    assert "--as api --user ada`" in one_line(done)
    assert "--as api --user ada`" in done.stdout


@pytest.mark.skipif(not shutil.which("docker"), reason="no docker here; the tests named docker_ speak its protocol")
def test_the_real_docker_asks_us(shell: Shell, server: Backend) -> None:
    came: list[str] = []

    async def registry(request: Request) -> Response:
        came.append(request.headers.get("authorization", ""))
        if came[-1]:
            return Response(status_code=404)
        return Response(status_code=401, headers={"www-authenticate": 'Basic realm="registry"'})

    with running(Starlette(routes=[Route("/{path:path}", registry)])) as port:
        shell.login(server.url, "api", "--origin", f"http://127.0.0.1:{port}")
        helper = shell.home / "docker-credential-unbroken"
        helper.write_text(f"#!/bin/sh\nexec '{sys.executable}' -m unbroken.cli credential docker api \"$@\"\n")
        helper.chmod(0o700)
        (shell.home / "config.json").write_text(json.dumps({"credHelpers": {f"127.0.0.1:{port}": "unbroken"}}))
        image = f"127.0.0.1:{port}/some/image:latest"
        command = ["docker", "--config", str(shell.home), "manifest", "inspect", "--insecure", image]
        done = shell.raw(command, PATH=f"{shell.home}:{os.environ['PATH']}")
    basic = base64.b64encode(f"oauth2:{shell.secrets()[0]}".encode()).decode()
    assert f"Basic {basic}" in came, done.stderr


def test_kubectl_gets_an_exec_credential(api: Shell, server: Backend) -> None:
    told = json.loads(api("credential", "kubectl", "api").stdout)
    assert (told["apiVersion"], told["kind"]) == ("client.authentication.k8s.io/v1", "ExecCredential")
    assert told["status"]["token"] == api.secrets()[0]
    ends = dt.datetime.strptime(told["status"]["expirationTimestamp"], "%Y-%m-%dT%H:%M:%S%z")
    assert 1700 < ends.timestamp() - time.time() <= 1800
    for cluster, status in ((server.url, 0), ("https://other.example.org", 2)):
        asked = {"apiVersion": "client.authentication.k8s.io/v1beta1", "spec": {"cluster": {"server": cluster}}}
        done = api("credential", "kubectl", "api", KUBERNETES_EXEC_INFO=json.dumps(asked))
        assert done.returncode == status
        assert ('"apiVersion": "client.authentication.k8s.io/v1beta1"' in done.stdout) is (status == 0)


@pytest.mark.skipif(not shutil.which("kubectl"), reason="no kubectl here; the test named kubectl_ speaks its protocol")
def test_the_real_kubectl_asks_us(shell: Shell, server: Backend) -> None:
    came: list[str] = []

    class Cluster(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            came.append(self.headers.get("authorization", ""))
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    tls, authority = certified(shell.home)
    with serving(Cluster, tls) as port:
        cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(authority)}
        shell.login(server.url, "api", "--origin", cluster["server"])
        plugin = {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": ["-m", "unbroken.cli", "credential", "kubectl", "api"],
            "interactiveMode": "Never",
            "provideClusterInfo": True,
        }
        config = {
            "clusters": [{"name": "here", "cluster": cluster}],
            "users": [{"name": "ada", "user": {"exec": plugin}}],
            "contexts": [{"name": "it", "context": {"cluster": "here", "user": "ada"}}],
            "current-context": "it",
        }
        (shell.home / "config.json").write_text(json.dumps(config))
        done = shell.raw(["kubectl", "--kubeconfig", str(shell.home / "config.json"), "get", "--raw", "/version"])
    assert done.stdout == b"ok", done.stderr
    assert set(came) == {f"Bearer {shell.secrets()[0]}"}
