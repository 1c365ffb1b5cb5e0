"""The demo page's buttons: by mouse, by keyboard, in another tab, and when its server has been away."""

from __future__ import annotations

from tests.browser.demo import Demo


def test_start_again_in_one_tab_reloads_the_other(demo: Demo) -> None:
    demo.open().press("Steal the token")
    assert "thief out after" in demo.state("unbroken")
    with demo.page.context.expect_page() as opened:
        demo.page.get_by_role("link", name="Open another tab").click()
    other = Demo(opened.value, demo.server, demo.url)
    other.page.wait_for_selector("body[data-ready]")
    with demo.page.expect_navigation():
        assert other.press("Start again") == "Started again: both clients are logged in."
    demo.page.wait_for_selector("body[data-ready]")
    assert demo.said.startswith("This tab has joined the other one")
    for tab in (demo, other):
        tab.wait_for(lambda tab=tab: all(tab.counts(lane)["served"] > 2 for lane in ("naive", "unbroken")))
        assert [tab.counts(lane)["logouts"] for lane in ("naive", "unbroken")] == [0, 0]
    other.page.close()


def test_a_pause_stops_all_requests_until_it_is_over(demo: Demo) -> None:
    sent: list[str] = []
    demo.page.on("request", lambda request: sent.append(request.url) if "/demo/api/" in request.url else None)

    def is_silent() -> bool:
        before = len(sent)
        demo.page.wait_for_timeout(1500)  # in which each of twelve slots would send one at least
        return len(sent) == before

    demo.open()
    assert not is_silent()
    assert demo.press("Pause") == "Paused: no requests are sent."
    demo.wait_for(is_silent)  # what had begun before may still be on its way to the wire
    before = len(sent)
    assert demo.press("Go on") == "Going on."
    demo.wait_for(lambda: len(sent) > before)


def test_every_button_works_by_keyboard(demo: Demo) -> None:
    demo.open()

    def typed(name: str, key: str = "Enter", role: str = "button") -> None:
        demo.page.get_by_role(role, name=name, exact=True).focus()
        demo.page.keyboard.press(key)

    typed("Pause")
    assert demo.said == "Paused: no requests are sent."
    typed("Go on", "Space")
    assert demo.said == "Going on."
    typed("Expire now", "Space")
    assert demo.outcome().startswith("The access token expired.")
    typed("Go offline")
    typed("Go online", "Space")
    assert demo.outcome().startswith("The connection broke during a refresh, and came back.")
    typed("Steal the token")
    assert "The thief is out after" in demo.outcome()
    typed("Start again", "Space")
    assert demo.outcome() == "Started again: both clients are logged in."
    typed("Lose the next response", "Space")
    assert demo.outcome().startswith("The response to a refresh was lost.")
    with demo.page.context.expect_page() as opened:
        typed("Open another tab", role="link")
    opened.value.get_by_text("This tab has joined the other one").wait_for()
    opened.value.close()


def test_the_page_reconnects_to_a_server_that_was_unreachable(demo: Demo) -> None:
    demo.open()
    failed: list[str] = []
    demo.page.on("requestfailed", lambda request: failed.append(request.url))
    demo.page.context.set_offline(True)
    demo.wait_for(lambda: any(url.endswith("/demo/events") for url in failed))
    assert demo.press("Expire now").startswith("The demo’s server does not respond")
    demo.page.context.set_offline(False)
    demo.press("Start again")
    demo.page.locator("#events").get_by_text("login").first.wait_for()


def test_the_page_says_that_its_server_was_restarted_and_can_start_again(demo: Demo) -> None:
    demo.open().server.restart()
    for name in ("Expire now", "Lose the next response", "Go offline"):
        assert demo.press(name) == "The demo’s server was restarted, and does not know this page: start again."
    demo.press("Start again")
    demo.page.locator("#events").get_by_text("login").first.wait_for()
    assert "unbroken: 1 refresh, no request failed, still logged in." in demo.press("Expire now")
