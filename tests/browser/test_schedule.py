"""When the module refreshes: ahead of expiry, on waking, and never in a loop."""

from __future__ import annotations

import pytest

from tests.browser.scene import statuses
from tests.interop.backends.shapes import BearerJson


@pytest.mark.defect("C6")
def test_a_token_is_refreshed_ahead_of_expiry_and_after_sleep(stage) -> None:
    scene = stage(BearerJson(lifetime=1800))
    scene.tab.pass_(1785)
    assert scene.get()["status"] == 200
    scene.tab.until(lambda: len(scene.backend.issued) == 2)
    scene.tab.until(lambda: not scene.tab.status["refreshing"])
    scene.backend.expire()
    scene.tab.pass_(8 * 3600)
    scene.tab.run("() => window.dispatchEvent(new Event('pageshow'))")
    scene.tab.until(lambda: len(scene.backend.issued) == 3)
    assert scene.get()["status"] == 200
    assert (scene.backend.refreshes, len(scene.backend.seen)) == (2, 2), "no request was challenged"


def test_the_status_goes_from_good_to_ageing_to_expired_to_over(stage) -> None:
    scene = stage(BearerJson(lifetime=1800))
    states = [scene.tab.status["state"]]
    for seconds in (1750, 45, 6):
        scene.tab.pass_(seconds)
        states.append(scene.tab.status["state"])
    scene.tab.run("() => session.logout()")
    states.append(scene.tab.status["state"])
    assert states == ["good", "ageing", "ageing", "expired", "over"]


def test_a_fresh_token_is_never_ageing_and_any_other_may_be(stage) -> None:
    scene = stage(BearerJson(lifetime=1800))
    [first] = scene.backend.issued
    token = "(about) => session.token(about)"
    assert scene.tab.run(token, {"fresh": True}) == first.access
    scene.tab.pass_(1750)
    assert scene.tab.run(token, {}) == first.access, "it is ageing; a background refresh has begun"
    scene.tab.until(lambda: len(scene.backend.issued) == 2)
    scene.tab.until(lambda: not scene.tab.status["refreshing"])
    scene.tab.pass_(1750)
    assert scene.tab.run(token, {"fresh": True}) == scene.backend.issued[-1].access
    assert len(scene.backend.issued) == 3


@pytest.mark.defect("P20")
def test_a_websocket_gets_an_access_token_that_has_not_expired(shop, at_shop) -> None:
    server = shop(access_ttl=60.0)
    [tab] = at_shop(server)
    tab.pass_(61)
    script = """async () => {
        const token = await session.token();
        const socket = new WebSocket(location.origin.replace("http", "ws") + "/socket", ["unbroken", token]);
        return new Promise((resolve, reject) => {
            socket.onmessage = ({ data }) => resolve(data);
            socket.onerror = () => reject(new Error("the socket was refused"));
        });
    }"""
    assert tab.run(script) == "ada"
    assert server.refreshes == 1


@pytest.mark.defect("I10")
@pytest.mark.parametrize("lifetime", [2, 5, 60])
def test_tokens_of_a_few_seconds_cause_no_loop(stage, lifetime) -> None:
    scene = stage(BearerJson(lifetime=lifetime))
    assert statuses([scene.get() for _ in range(10)]) == [200] * 10
    assert scene.backend.refreshes <= 2


@pytest.mark.defect("I10", "P12")
@pytest.mark.parametrize("wrong", [-86400, 86400])
def test_a_clock_that_is_a_day_off_causes_no_loop(stage, wrong) -> None:
    scene = stage(BearerJson(lifetime=1800))
    scene.tab.pass_(wrong)
    assert statuses([scene.get() for _ in range(10)]) == [200] * 10
    assert scene.backend.refreshes <= 1


@pytest.mark.defect("I12", "P11")
@pytest.mark.parametrize("event", ["pageshow", "online", "focus", "visibilitychange"])
def test_every_event_that_wakes_a_page_refreshes_an_expired_token(stage, event) -> None:
    scene = stage(BearerJson(lifetime=1800), tabs=2)
    for tab in scene.tabs:
        tab.pass_(7200)
    where = "document" if event == "visibilitychange" else "window"
    for tab in scene.tabs:
        tab.run(f"(event) => void {where}.dispatchEvent(new Event(event, {{ bubbles: true }}))", event)
    scene.tab.until(lambda: len(scene.backend.issued) == 2)
    assert statuses([tab.ask("/api/echo") for tab in scene.tabs]) == [200, 200]
    assert (scene.backend.refreshes, len(scene.backend.seen)) == (1, 2)
