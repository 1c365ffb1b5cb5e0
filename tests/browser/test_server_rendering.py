"""Pages that a server renders: their cookies are refreshed before, by one refresh for all requests of all nodes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.project import install
from tests.support.commands import PASSWORD, Server, serving, unbroken

COOKIES = ("--cookies-mode", "both", "--no-cookies-secure", "--cookies-path", "/", "--log-format", "json")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendering")
    return install(folder / "project")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """Two real ``unbroken serve`` on one store, whose cookies go to every page."""
    folder = tmp_path_factory.mktemp("auth")
    done = unbroken(folder, "users", "add", "ada", "--password-stdin", given=PASSWORD + "\n")
    assert done.returncode == 0, done.stderr
    options = (*COOKIES, "--access-ttl", "10m", "--issuer", "http://127.0.0.1")
    with serving(folder, *options) as server, serving(folder, *options) as other:
        yield server, other


@pytest.fixture(scope="module")
def auth(both: tuple[Server, Server]) -> Server:
    return both[0]


def cookies_of(auth: Server) -> list[str]:
    body = {"username": "ada", "password": PASSWORD}
    response = auth.http.post("/auth/login", json=body, headers={"X-Unbroken": "1"})
    assert response.status_code == 200, response.text
    auth.http.cookies.clear()
    return response.headers.get_list("set-cookie")


def in_node(project: Path, code: str, *arguments: str, given: str = "") -> Any:
    """What a program prints, as JSON."""
    (project / "program.mjs").write_text(code)
    command = ["node", "program.mjs", *arguments]
    done = subprocess.run(command, cwd=project, input=given, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def alarms(auth: Server) -> list[str]:
    return [line for line in auth.errors.read_text().splitlines() if "reuse" in line]


def test_forty_requests_at_two_nodes_cause_one_rotation_and_the_newest_cookie_wins(
    project: Path, both: tuple[Server, Server], request: pytest.FixtureRequest
) -> None:
    trials = 1000 if request.config.getoption("--chaos-full") else 40
    code = (Path(__file__).parent / "frameworks" / "rendering.mjs").read_text()
    urls = [f"{one.url}/auth" for one in both]
    came = in_node(project, code, str(trials), *urls, given="\n".join(cookies_of(both[0])))
    assert came["failures"] == []
    assert came["won"] == trials
    assert set(came["rotations"]) <= {0, 1}, "0: an old cookie came late, and the newest was given again"
    assert came["rotations"].count(0) <= trials / 3
    assert came["mostRequests"] <= 2, "one of each node"
    assert alarms(both[0]) + alarms(both[1]) == []


USE = """
import { readFileSync } from "node:fs";
import { cookieRefresher } from "unbroken-session/server";
const [url] = process.argv.slice(2);
const lines = readFileSync(0, "utf8").trim().split("\\n").filter((line) => !line.includes("device="));
const Cookie = lines.map((line) => line.split(";")[0]).join("; ");
const without = (kind) => Cookie.split("; ").filter((one) => !one.includes(kind)).join("; ");
const about = ({ state, reason, headers, setCookie, token }) =>
    ({ state, reason, cookie: headers.get("Cookie"), set: setCookie.length, token: token.length > 0 });
const said = {};
const say = (name, outcome) => (said[name] = about(outcome));
"""


def test_what_a_page_is_rendered_with(project: Path, auth: Server) -> None:
    code = """
let asked = 0, sent, answer;
const counted = async (...request) => {
    asked++;
    sent = new Headers(request[1].headers);
    return answer ? answer(asked) : fetch(...request);
};
const make = () => cookieRefresher({ url, fetch: counted, timeout: 1 });
const headers = (Cookie) => new Headers({ Cookie: "theme=dark; " + Cookie, "User-Agent": "Firefox",
    "X-Forwarded-For": "203.0.113.9", Host: "shop" });
say("nobody", await make()(headers("")));
say("good", await make()(headers(Cookie)));
said.asked = asked;
say("refreshed", await make()(headers(without("access"))));
said.sent = [sent.get("User-Agent"), sent.get("X-Forwarded-For"), sent.get("Cookie").includes("theme")];
say("node", await make()({ cookie: without("access") }));
say("path", await make()(headers("unbroken-access=x")));
answer = () => new Response('{"error": "invalid_grant", "reason": "reuse"}', { status: 400 });
say("over", await make()(headers(without("access"))));
answer = () => new Response("busy", { status: 503 });
say("busy", await make()(headers(without("access"))));
answer = (n) => n % 2 ? Promise.reject(new TypeError("torn")) : new Response("{}", { status: 503 });
const keys = [];
const one = cookieRefresher({ url, fetch: (...request) => {
    keys.push(new Headers(request[1].headers).get("Idempotency-Key"));
    return keys.length < 3 ? Promise.reject(new TypeError("torn")) : fetch(...request);
} });
say("torn", await one(headers(without("access"))));
say("healed", await one(headers(without("access"))));
said.keys = [keys.length, new Set(keys).size];
answer = () => new Response('{"access_token": "a"}');
said.refresh = await make()(headers(without("access"))).catch(({ message }) => message);
console.log(JSON.stringify(said));
"""
    said = in_node(project, USE + code, f"{auth.url}/auth", given="\n".join(cookies_of(auth)))
    assert said["nobody"] == {
        "state": "over",
        "reason": "no_refresh_cookie",
        "cookie": "theme=dark",
        "set": 0,
        "token": False,
    }
    assert (said["good"]["state"], said["good"]["set"], said["good"]["token"], said["asked"]) == ("good", 0, True, 0)
    refreshed = said["refreshed"]
    assert (refreshed["state"], refreshed["set"], refreshed["token"]) == ("good", 2, True)
    assert refreshed["cookie"].startswith("theme=dark; ")
    assert refreshed["cookie"].count("unbroken-access=") == refreshed["cookie"].count("unbroken-refresh=") == 1
    assert said["sent"] == ["Firefox", "203.0.113.9", False]
    assert said["node"]["state"] == "good"
    assert (said["path"]["state"], said["path"]["reason"]) == ("over", "no_refresh_cookie")
    assert (said["over"]["state"], said["over"]["reason"], said["over"]["cookie"]) == ("over", "reuse", "theme=dark")
    assert (said["busy"]["state"], said["busy"]["set"]) == ("expired", 0)
    assert "unbroken-refresh=" in said["busy"]["cookie"], "nothing is lost"
    assert (said["torn"]["state"], said["torn"]["reason"], said["healed"]["state"]) == (
        "expired",
        "no_response",
        "good",
    )
    assert said["keys"] == [3, 1], "a refresh whose response was lost is repeated with its key"
    assert 'Cookies("both")' in said["refresh"]


def test_browsers_share_nothing(project: Path, auth: Server) -> None:
    """A copied cookie of another browser is the server's to judge, not this node's to answer."""
    code = """
let asked = 0;
const refresh = cookieRefresher({ url, fetch: (...request) => (asked++, fetch(...request)) });
const of = (agent, address) => refresh({ Cookie: without("access"), "User-Agent": agent, "X-Forwarded-For": address });
await of("Firefox", "203.0.113.9");
await of("Firefox", "203.0.113.9");
said.same = asked;
await of("curl", "203.0.113.9");
await of("Firefox", "198.51.100.1");
said.others = asked;
console.log(JSON.stringify(said));
"""
    said = in_node(project, USE + code, f"{auth.url}/auth", given="\n".join(cookies_of(auth)))
    assert said == {"same": 1, "others": 3}


def test_components_that_a_server_renders_leave_nothing_behind(project: Path) -> None:
    code = (Path(__file__).parent / "frameworks" / "rendered.mjs").read_text()
    react, vue = in_node(project, code)
    assert react == "false expired<!-- -->pending", "what a browser shows first, too"
    assert vue == "<p>false expired</p>"
