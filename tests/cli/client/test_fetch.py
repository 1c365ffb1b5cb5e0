"""``unbroken fetch``, against a server that tells what came.

Modules: cli/client/fetch_transfer.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler

import pytest

from tests.cli.client.shell import COMMAND, Echo, Shell, one_line, serving
from tests.support.backend import Backend


def test_fetch_sends_the_token_and_writes_the_response(api: Shell, server: Backend) -> None:
    done = api("fetch", "api", server.url + "/echo")
    assert json.loads(done.stdout)["sub"] == "ada"
    assert done.stderr == ""


def test_fetch_refreshes_and_sends_a_piped_body_again(api: Shell, server: Backend) -> None:
    server.expire()
    body = os.urandom(200_000)
    done = api("fetch", "api", server.url + "/echo", "-d", "-", given=body)
    assert json.loads(done.stdout)["length"] == len(body)
    assert (server.refreshes, len(server.seen)) == (1, 2)


FORM = "application/x-www-form-urlencoded"
REQUESTS: dict[str, tuple[list[str], tuple[str, str, str | None]]] = {
    "nothing": ([], ("GET", "", None)),
    "a method": (["-X", "DELETE"], ("DELETE", "", None)),
    "a text": (["-d", "a=1"], ("POST", "a=1", FORM)),
    "fields": (["-d", "a=1", "-d", "@file"], ("POST", "a=1&from a file\n", FORM)),
    "a file": (["-d", "@file", "-X", "PUT"], ("PUT", "from a file\n", FORM)),
    "an empty text": (["-d", ""], ("POST", "", FORM)),
    "standard input": (["-d", "-"], ("POST", "piped", FORM)),
    "standard input as a file": (["-d", "@-"], ("POST", "piped", FORM)),
    "JSON": (["--json", '{"a": 1}'], ("POST", '{"a": 1}', "application/json")),
    "JSON of a file": (["--json", "@file"], ("POST", "from a file\n", "application/json")),
    "a text that looks like a file": (["--data-raw", "@file"], ("POST", "@file", FORM)),
    "both kinds of text": (["-d", "a=1", "--data-raw", "@b"], ("POST", "a=1&@b", FORM)),
    "a file, byte for byte": (["--data-binary", "@file"], ("POST", "from a file\n", FORM)),
    "quietly and not for long": (["-sS", "-m", "30"], ("GET", "", None)),
    "a type": (["-d", "x", "-H", "content-type: text/plain"], ("POST", "x", "text/plain")),
}


@pytest.mark.parametrize(("options", "sent"), REQUESTS.values(), ids=REQUESTS)
def test_fetch_sends_what_curl_would_send(
    both: Shell, echo: Echo, options: list[str], sent: tuple[str, str, str | None]
) -> None:
    (both.home / "file").write_text("from a file\n")
    done = both("fetch", "api", echo.url + "/x", *options, given="piped")
    assert done.returncode == 0, done.stderr
    [got] = echo.got
    assert (got["method"], got["body"], got["headers"].get("content-type")) == sent
    assert got["headers"]["authorization"] == f"Bearer {both.secrets()[0]}"
    assert json.loads(done.stdout) == got


def test_fetch_takes_headers_from_options_and_from_the_environment(both: Shell, echo: Echo) -> None:
    both("fetch", "api", echo.url + "/x", "-H", "X-A: one two", "-H", "X-B:three", "-H", "User-Agent: mine")
    both("fetch", "api", echo.url + "/x", UNBROKEN_HEADER="X-A: one two\nX-B: three", UNBROKEN_DATA="b")
    for got in echo.got:
        assert (got["headers"]["x-a"], got["headers"]["x-b"]) == ("one two", "three")
    assert [got["headers"]["user-agent"] for got in echo.got] == ["mine", "unbroken"]
    assert [got["body"] for got in echo.got] == ["", "b"]


def test_fetch_leaves_out_what_is_named_without_a_value(both: Shell, echo: Echo) -> None:
    both("fetch", "api", echo.url + "/x", "-d", "b", "-H", "User-Agent:", "-H", "content-type:", "-H", "X-Empty:")
    [got] = echo.got
    assert not {"user-agent", "content-type"} & got["headers"].keys()
    assert (got["headers"]["x-empty"], got["headers"]["accept"]) == ("", "*/*")


def test_fetch_of_the_head_alone(api: Shell, server: Backend) -> None:
    done = api("fetch", "api", server.url + "/echo", "-I")
    assert done.stdout.startswith("HTTP/1.1 200 OK")
    assert "content-length: " in done.stdout
    assert "ada" not in done.stdout
    assert "one body" in one_line(api("fetch", "api", server.url + "/echo", "-I", "-d", "x"))


def test_fetch_writes_to_a_file_with_the_head(both: Shell, echo: Echo) -> None:
    done = both("fetch", "api", echo.url + "/x", "-i", "-o", "response")
    assert (done.returncode, done.stdout) == (0, "")
    head, _, body = (both.home / "response").read_bytes().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"x-echo: yes" in head
    assert json.loads(body)["method"] == "GET"


def test_fetch_with_fail_exits_nonzero_for_an_http_error(both: Shell, echo: Echo) -> None:
    kind = both("fetch", "api", echo.url + "/missing")
    assert (kind.returncode, kind.stdout) == (0, "what?")
    done = both("fetch", "api", echo.url + "/missing", "--fail", "-o", "response")
    assert (done.returncode, done.stdout) == (22, "")
    assert done.stderr == "unbroken: the server responded with status 404\n"
    assert not (both.home / "response").exists()


def test_fetch_follows_redirects_if_told_to_and_sends_the_body_again(both: Shell, echo: Echo) -> None:
    (both.home / "file").write_text("from a file\n")
    url = f"{echo.url}/moved?to=/x"
    assert both("fetch", "api", url, "-d", "@file").stdout == ""
    assert echo.got == []
    assert both("fetch", "api", url, "-d", "@file", "-L").returncode == 0
    assert [(got["body"], "authorization" in got["headers"]) for got in echo.got] == [("from a file\n", True)]


def test_fetch_hands_a_final_challenge_over(api: Shell, server: Backend) -> None:
    done = api("fetch", "api", server.url + "/never", "-i")
    assert done.returncode == 0
    assert done.stdout.startswith("HTTP/1.1 401 ")
    assert (server.refreshes, len(server.seen)) == (1, 2)


def test_fetch_sends_no_token_to_another_origin(api: Shell, server: Backend, echo: Echo) -> None:
    assert api("fetch", "api", echo.url + "/x").returncode == 0
    assert api("fetch", "api", f"{server.url}/redirect?to={echo.url}/x", "-L").returncode == 0
    assert ["authorization" in got["headers"] for got in echo.got] == [False, False]
    other = server.url.replace("127.0.0.1", "localhost") + "/echo"
    done = api("fetch", "api", other)
    assert "sent without a token" in done.stderr
    assert server.seen[-1] == ("/echo", "")


def test_fetch_writes_each_part_of_a_response_as_it_arrives(api: Shell) -> None:
    """The first half of the response is out while the server still waits to send the second."""
    go_on = threading.Event()

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "8")
            self.end_headers()
            self.wfile.write(b"half")
            go_on.wait(20)
            self.wfile.write(b"half")

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with serving(Slow) as port:
        command = [*COMMAND, "fetch", "api", f"http://127.0.0.1:{port}/"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=api.environment(), cwd=api.home)
        try:
            assert process.stdout is not None
            assert os.read(process.stdout.fileno(), 100) == b"half"
            go_on.set()
            assert process.stdout.read() == b"half"
            assert process.wait(20) == 0
        finally:
            go_on.set()
            process.kill()
            process.communicate()


def test_fetch_ends_when_its_time_is_over(api: Shell) -> None:
    class Dripping(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                try:
                    self.wfile.write(b".")
                except OSError:
                    return
                time.sleep(0.1)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with serving(Dripping) as port:
        done = api("fetch", "api", f"http://127.0.0.1:{port}/", "--max-time", "5s")
    assert "not finished within 5 seconds" in one_line(done)
    assert set(done.stdout) == {"."}


def test_fetch_fails_when_the_response_breaks_off(api: Shell) -> None:
    class Short(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "100")
            self.end_headers()
            self.wfile.write(b"half")

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with serving(Short) as port:
        done = api("fetch", "api", f"http://127.0.0.1:{port}/")
    assert "broke off" in one_line(done)
    assert done.stdout == "half"


def test_a_path_is_one_of_the_sessions_server(api: Shell, server: Backend) -> None:
    done = api("fetch", "api", "/echo?x=1")
    assert json.loads(done.stdout)["sub"] == "ada"
    assert server.seen[-1][0] == "/echo"
