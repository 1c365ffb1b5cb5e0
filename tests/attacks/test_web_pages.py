"""Attacks on pages: links to the login page that lead elsewhere, and copied cookies at servers that render pages."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from tests.browser.build import SOURCES
from tests.browser.project import FRAMEWORKS, install
from tests.support.attacks import Attacks
from tests.support.commands import PASSWORD, serving, unbroken
from tests.support.npm import node_modules

OWN = "https://shop.example"
ELSEWHERE = (
    "https://evil.example/",
    "HTTPS:evil.example",
    "//evil.example/",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "\t//evil.example",
    "/\n/evil.example",
    "/.//evil.example",
    "/..//evil.example",
    "/a/../..//evil.example",
    "/%2e//evil.example",
    "http://own@evil.example/",
    "http://own//evil.example",
    "http://own:80@evil.example/",
    "javascript:alert(1)",
    " javascript:alert(1)",
    "data:text/html,x",
    "blob:https://shop.example/x",
    "",
    "https://[",
)
HERE = {"/orders?x=1#y": "/orders?x=1#y", "/": "/", "/a//b": "/a//b", "/订单": "/%E8%AE%A2%E5%8D%95"}
ODD = ("null", "undefined", "7", '["/a", "/b"]', "{}")


def test_no_link_to_the_login_page_leads_to_another_site(attacks: Attacks) -> None:
    node_modules(FRAMEWORKS)  # says how to get Node.js where it is missing
    code = """
import { wayBack } from "./src/bindings/shared.js";
const { strings, odd } = JSON.parse(process.argv[1]);
const resolved = (one) => new URL(wayBack(one, "/home"), "https://shop.example").href;
const read = (text) => (text === "undefined" ? undefined : JSON.parse(text));
console.log(JSON.stringify([...strings.map((one) => [one, wayBack(one, "/home"), resolved(one)]),
    ...odd.map((one) => [one, wayBack(read(one), "/home"), resolved(read(one))])]));
"""
    about = json.dumps({"strings": [*ELSEWHERE, *HERE], "odd": ODD})
    command = ["node", "--input-type=module", "-e", code, about]
    done = subprocess.run(command, cwd=SOURCES, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    for given, way, resolved in json.loads(done.stdout):
        attacks.try_one()
        assert f"{urlsplit(resolved).scheme}://{urlsplit(resolved).netloc}" == OWN, given
        assert urlsplit(resolved).path[:2] != "//", given
        assert "evil" not in way or given in ODD, given
        assert way == HERE.get(given, way), given


RENDER = """
import { cookieRefresher } from "unbroken-session/server";
const [url, cookies] = process.argv.slice(2);
const nodes = [1, 2].map(() => cookieRefresher({ url }));
const of = (lines) => lines.map((line) => line.split(";")[0]).filter((one) => one.includes("refresh=")).join("");
const ask = (node, Cookie, agent) => nodes[node]({ Cookie, "User-Agent": agent });
const stolen = of(JSON.parse(cookies));
const first = await ask(0, stolen, "Firefox");
const second = await ask(1, of(first.setCookie), "Firefox");
await new Promise((done) => setTimeout(done, 700)); // longer than the server's grace
const thieves = await Promise.all([0, 1].map((node) => ask(node, stolen, "curl")));
const victim = await ask(0, of(second.setCookie), "Firefox");
console.log(JSON.stringify([...thieves, victim].map(({ state, reason, token, setCookie }) =>
    [state, reason, token, setCookie.length])));
"""


def test_a_copied_cookie_is_found_behind_servers_that_render_pages(attacks: Attacks, tmp_path: Path) -> None:
    project = install(tmp_path / "project")
    done = unbroken(tmp_path, "users", "add", "ada", "--password-stdin", given=PASSWORD + "\n")
    assert done.returncode == 0, done.stderr
    options = ("--cookies-mode", "both", "--no-cookies-secure", "--cookies-path", "/", "--grace", "0.5s")
    with serving(tmp_path, *options) as auth:
        body = {"username": "ada", "password": PASSWORD}
        cookies = auth.http.post("/auth/login", json=body, headers={"X-Unbroken": "1"}).headers.get_list("set-cookie")
        (project / "render.mjs").write_text(RENDER)
        attacks.try_one()
        command = ["node", "render.mjs", f"{auth.url}/auth", json.dumps(cookies)]
        came = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=60, check=False)
    assert came.returncode == 0, came.stderr
    thief, other, victim = json.loads(came.stdout)
    assert (thief, other) == (["over", "reuse", "", 0], ["over", "reuse", "", 0]), "no node answers for the server"
    assert victim[0] == "over", "the session has two holders, so it has ended"
