"""The demo page, as a visitor uses it: what it shows, what it says, and that everybody can use it.

Modules: cli/demo/hosting.py, cli/demo/server.py, cli/demo/site.py, cli/demo/visitors.py.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.browser.demo import ACTION, Demo


def test_only_the_naive_client_fails_when_the_access_token_expires(demo: Demo) -> None:
    demo.page.goto(demo.url)  # and who only looks sees it without a click
    assert demo.page.url == demo.url + "/demo"
    demo.page.get_by_text("s the access token expires: watch both").wait_for()
    demo.page.get_by_text("The access token expired.").wait_for(timeout=ACTION)
    said, ours, naive = demo.said, demo.counts("unbroken"), demo.counts("naive")
    assert (ours["failed"], ours["refreshes"], ours["logouts"]) == (0, 1, 0)
    assert naive["refreshes"] > 1 or naive["failed"]
    assert "unbroken: 1 refresh, no request failed, still logged in." in said
    assert demo.state("unbroken") == "Logged in"
    assert demo.errors == []
    assert demo.requested == {demo.url}
    # All that is said can be read, in either scheme, also what tells of failures.
    for scheme in ("light", "dark"):
        demo.page.emulate_media(color_scheme=scheme)
        assert demo.page.evaluate(FAINT) == []
    bars = demo.page.eval_on_selector_all("#unbroken [role=listitem]", "all => all.map(one => one.ariaLabel)")
    assert any("waiting for new tokens" in one for one in bars)
    assert all(bars)


def test_a_lost_response_logs_out_only_the_naive_client_and_tab_reaches_every_button(demo: Demo) -> None:
    demo.open()
    names = []
    for _ in range(12):
        demo.page.keyboard.press("Tab")
        names.append(demo.page.evaluate("document.activeElement.textContent.trim()"))
        assert demo.page.evaluate("document.activeElement.matches(':focus-visible')")
        if names[-1] == "Pause":
            break
    buttons = [
        "Expire now",
        "Lose the next response",
        "Open another tab",
        "Go offline",
        "Steal the token",
        "Start again",
    ]
    assert names[-7:] == [*buttons, "Pause"]
    for _ in range(5):
        demo.page.keyboard.press("Shift+Tab")
    demo.page.keyboard.press("Enter")
    assert "unbroken: 2 refreshes, no request failed, still logged in." in demo.outcome()
    assert demo.page.evaluate("document.activeElement.textContent") == "Lose the next response"
    assert demo.counts("naive")["logouts"] == 1
    assert demo.said.endswith("“Start again” logs in again.")
    assert demo.page.locator("[data-action=again].first").count() == 1
    failed = demo.page.eval_on_selector_all(
        "#naive [role=listitem]", "all => all.filter(one => one.ariaLabel.includes('failed')).map(one => one.innerHTML)"
    )
    assert failed
    assert all("cross" in one for one in failed)


def test_a_connection_lost_during_a_refresh_logs_out_only_the_naive_client(demo: Demo) -> None:
    demo.open().page.get_by_role("button", name="Go offline").click()
    demo.page.get_by_role("button", name="Go online").click()
    said = demo.outcome()
    assert "Naive client: 0 refreshes" in said
    assert "unbroken: 1 refresh, no request failed, still logged in." in said
    assert demo.state("naive").endswith("Logged out")
    assert demo.state("unbroken").endswith("Logged in")


def test_a_stolen_refresh_token_is_detected_and_its_session_revoked(demo: Demo) -> None:
    said = demo.open().press("Steal the token")
    assert "Naive client: the user was logged out and has logged in again." in said
    assert "unbroken: the server saw two parties use one token, and revoked the session." in said
    assert "Logged in · thief out after" in demo.state("unbroken")
    assert demo.state("naive").endswith("Logged in · the thief is still in")
    assert [demo.counts(lane)["logouts"] for lane in ("naive", "unbroken")] == [1, 1]
    assert demo.ended() == ["reuse"]
    demo.page.get_by_text("theft noticed: a refresh token came back that had been used before").wait_for()
    for lane in ("naive", "unbroken"):  # both users work on
        served = demo.counts(lane)["served"]
        demo.wait_for(lambda lane=lane, served=served: demo.counts(lane)["served"] > served + 2)
    labels = demo.page.eval_on_selector_all("#naive [role=listitem]", "all => all.map(one => one.ariaLabel)")
    assert any(label.startswith("Request of the thief: served") for label in labels)
    demo.press("Start again")
    demo.wait_for(lambda: demo.counts("unbroken")["served"] > 2)
    assert demo.counts("unbroken")["logouts"] == 0
    assert demo.state("naive").endswith("Logged in")
    assert demo.errors == []


def test_two_demo_tabs_share_one_refresh(demo: Demo) -> None:
    demo.open()
    with demo.page.context.expect_page() as opened:
        demo.page.get_by_role("link", name="Open another tab").click()
    other = Demo(opened.value, demo.server, demo.url)
    other.page.wait_for_selector("body[data-ready]")
    assert other.said.startswith("This tab has joined the other one")
    assert demo.said == "Another tab has joined: both tabs share the two sessions."
    other.wait_for(lambda: other.counts("unbroken")["served"] > 8)
    assert "no request failed, still logged in." in other.press("Expire now")
    for tab in (demo, other):
        assert (tab.counts("unbroken")["refreshes"], tab.counts("unbroken")["failed"]) == (1, 0)
        assert tab.errors == []
    other.page.close()


def test_the_devices_page_revokes_one_session_and_all_others(demo: Demo) -> None:
    demo.open().open("/demo/devices")
    demo.page.get_by_role("button", name="Log out Phone").wait_for()
    assert demo.page.inner_text("#devices li:first-child h2") == "This page, by unbroken this session"
    assert demo.page.get_by_text("Firefox on Windows · 198.51.100.8 · last used 5 days ago").count() == 1
    for scheme in ("light", "dark"):
        demo.page.emulate_media(color_scheme=scheme)
        assert demo.page.evaluate(FAINT) == []
    demo.page.get_by_role("button", name="Log out Phone").press("Enter")
    demo.page.get_by_text("Logged out: Phone. You are logged in with 3 sessions.").wait_for()
    assert demo.ended() == ["revoked"]
    assert demo.page.evaluate("document.activeElement.textContent") == "Log out"
    demo.page.get_by_role("button", name="Log out all others").click()
    demo.page.get_by_text("Logged out 2 sessions. You are logged in with 1 session.").wait_for()
    assert demo.ended() == ["revoked"] * 3
    assert demo.errors == []
    demo.page.evaluate("localStorage.clear()")
    demo.page.reload()
    demo.page.get_by_text("You are not logged in.").wait_for()


def test_the_demo_pages_fit_a_narrow_screen_and_respect_reduced_motion(demo: Demo) -> None:
    demo.page.set_viewport_size({"width": 360, "height": 740})
    demo.page.emulate_media(reduced_motion="reduce")
    demo.open()
    moves = demo.page.evaluate(MOVES)
    assert moves <= 1
    for path in ("/demo#still", "/demo/devices"):
        demo.page.goto(demo.url + path)
        demo.page.get_by_role("heading", level=1).wait_for()
        assert demo.page.evaluate("document.documentElement.scrollWidth") == 360
        assert demo.page.evaluate(NAMELESS) == []
        assert demo.page.evaluate("document.documentElement.lang") == "en"


def test_demo_visitors_can_break_only_their_own_sessions_and_are_limited(demo: Demo) -> None:
    with httpx2.Client(base_url=demo.url, timeout=30) as client:
        who = client.post("/demo/start").json()
        made = client.post("/demo/auth/login", json={"username": who["username"], "password": who["password"]}).json()
        bearer = {"authorization": f"Bearer {made['access_token']}"}
        for key in ("", who["username"], f"{who['username']}.wrong", f"x.{who['password']}"):
            assert client.post("/demo/expire", headers={"demo-key": key}).status_code == 404
            assert client.get("/demo/events", headers={"demo-key": key}).json() == {"events": []}
        assert client.get("/demo/api/0", headers=bearer).status_code == 200
        own = {"demo-key": f"{who['username']}.{who['password']}"}
        assert client.post("/demo/expire", headers=own).status_code == 204
        refused = client.get("/demo/api/0", headers=bearer)
        assert (refused.status_code, 'reason="expired"' in refused.headers["www-authenticate"]) == (401, True)
        assert client.get("/demo/auth/session", headers=bearer).status_code == 200
        statuses = {client.post("/demo/start").status_code for _ in range(70)}
        assert statuses == {200, 429}
        policy = client.get("/demo").headers["content-security-policy"]
        assert policy.startswith("default-src 'none';")
        assert "unsafe" not in policy


@pytest.mark.parametrize("arguments", [["demo", "--page"], ["serve", "--demo"]], ids=" ".join)
def test_the_demo_commands_serve_the_page_until_they_are_interrupted(tmp_path: Path, arguments: list[str]) -> None:
    command = [sys.executable, "-m", "unbroken.cli", *arguments, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        assert process.stdout is not None
        address = "{0.scheme}://{0.netloc}".format(urlsplit(process.stdout.readline().split()[1]))
        with httpx2.Client(transport=httpx2.HTTPTransport(retries=5)) as client:
            if arguments == ["demo", "--page"]:
                assert client.get(address).headers["location"] == "/demo"
            assert "<h1>When the access token expires</h1>" in client.get(address + "/demo").text
            assert client.get(address + "/demo/auth/health").status_code == 200
            begun = client.post(address + "/demo/start").json()
            about = {"username": begun["username"], "password": begun["password"]}
            token = client.post(address + "/demo/auth/login", json=about).json()["access_token"]
            elsewhere = client.get(address + "/auth/session", headers={"authorization": f"Bearer {token}"})
            assert elsewhere.status_code == (401 if arguments == ["serve", "--demo"] else 404)
    finally:
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in out + errors


def test_the_demo_refuses_several_workers(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "unbroken.cli", "serve", "--demo", "--workers", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (2, "unbroken: the demo needs one worker, and the path /demo for itself\n")


# Texts whose contrast with what is behind them is less than 4.5 (WCAG 2.2, 1.4.3).
FAINT = """() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = numbers(color).map((part) => linear(part / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if ((numbers(color)[3] ?? 1) === 1) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const texts = [...document.body.querySelectorAll("*")].filter(
    (one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim()) && one.getClientRects().length,
  );
  if (texts.length < 15) throw new Error("there is nothing to look at");
  const ratio = (one) => {
    const style = getComputedStyle(one);
    const ink = one instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(ink), light(behind(one))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  return texts.filter((one) => ratio(one) < 4.5).map((one) => `${one.textContent.trim()}: ${ratio(one).toFixed(2)}`);
}"""

# How often a bar that has ended is moved within half a second.
MOVES = """async () => {
  const seen = new Set();
  const bar = () => document.querySelector("#unbroken [role=listitem] rect.served")?.getAttribute("x");
  for (const until = performance.now() + 500; performance.now() < until; ) {
    await new Promise(requestAnimationFrame);
    if (bar()) seen.add(bar());
  }
  return seen.size - 1;
}"""

# What can be used or looked at, but has no name.
NAMELESS = """() => [...document.querySelectorAll("button, a, [role=group], [role=list], ul, svg:not([aria-hidden])")]
  .filter((one) => !(one.ariaLabel || one.getAttribute("aria-labelledby") || one.textContent.trim()))
  .map((one) => one.outerHTML)"""


def test_labels_of_events_do_not_overlap(demo: Demo) -> None:
    demo.open().page.set_viewport_size({"width": 1000, "height": 900})
    for _ in range(3):
        demo.page.get_by_role("button", name="Expire now").click()
        demo.outcome()
    demo.press("Steal the token")
    assert demo.page.evaluate(OVERLAPS) == []


def test_before_the_login_neither_client_counts_as_logged_in_or_out(demo: Demo) -> None:
    demo.page.route("**/demo/start", lambda route: None)  # which never gets a response
    demo.page.goto(demo.url + "/demo#still", wait_until="domcontentloaded")
    for lane in ("naive", "unbroken"):
        assert demo.state(lane) == "Not logged in yet"
        assert demo.page.get_attribute(f"#{lane}", "data-state") is None


# Labels of one lane that cover each other.
OVERLAPS = """() => ["naive", "unbroken"].flatMap((lane) => {
  const labels = [...document.querySelectorAll(`#${lane} text.mark`)];
  if (labels.length < 2) throw new Error("there is nothing to compare");
  const boxes = labels.map((label) => ({ text: label.textContent, box: label.getBoundingClientRect() }));
  const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom - 2 && b.top < a.bottom - 2;
  const others = (one, at) => boxes.slice(at + 1).filter((other) => meet(one.box, other.box));
  return boxes.flatMap((one, at) => others(one, at).map((other) => `${one.text} / ${other.text}`));
})"""
