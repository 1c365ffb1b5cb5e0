"""The defects of a mark on each request, in a page of a backend that may keep the refresh token or rotate it."""

from __future__ import annotations

import time

import pytest

from tests.browser.scene import Scene, errors, statuses
from tests.browser.tabs import Tab
from tests.interop.backends.base import Fault
from tests.interop.backends.shapes import KeptRefresh

BROKEN = ("TypeError", "ERR_NETWORK")


@pytest.fixture
def scene(stage):
    return stage(KeptRefresh())


def test_many_challenges_make_one_exchange_and_no_alarm_s4_1(scene) -> None:
    scene.backend.expire()
    assert statuses(scene.together(30)) == [200] * 30
    assert (scene.backend.exchanges, scene.backend.alarms) == (1, 0)


@pytest.mark.parametrize("rotates", [True, False])
def test_a_rotated_refresh_token_is_kept_and_so_is_one_that_stays_s4_2(stage, rotates) -> None:
    scene = stage(KeptRefresh(rotates=rotates))
    for _ in range(4):
        scene.backend.expire()
        assert scene.get()["status"] == 200
    assert len(set(scene.backend.presented)) == (4 if rotates else 1)
    assert scene.backend.alarms == 0


def test_a_broken_connection_arrives_as_the_clients_own_error_s4_3(scene) -> None:
    assert scene.get("/api/torn")["error"] in BROKEN
    assert scene.backend.exchanges == 0


def test_after_the_end_no_request_asks_again_s4_4(scene) -> None:
    scene.backend.end_sessions()
    assert errors([scene.get() for _ in range(4)]) == ["session_over"] * 4
    assert (scene.backend.exchanges, len(scene.tab.heard("over")), "tokens" in scene.tab.stored) == (1, 1, False)
    assert len(scene.backend.seen) == 1, "without tokens nothing is sent"


def test_no_refresh_token_is_never_sent_and_silence_has_an_end_s4_5(stage) -> None:
    scene = stage(KeptRefresh(), exchangeTimeout=0.2)
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=3, lost=True), times=3)
    began = time.monotonic()
    assert scene.get()["error"] == "try_later"
    assert time.monotonic() - began < 3
    asked = scene.backend.exchanges
    scene.tab.run("() => session.import_tokens({ accessToken: 'dead' })")
    assert scene.get()["reason"] == "no_refresh_token"
    assert scene.backend.exchanges == asked


def test_late_challenges_need_no_exchange_and_new_requests_are_held_s4_6(stage) -> None:
    scene = stage(KeptRefresh(lifetime=1800))
    scene.backend.expire()
    scene.backend.held = True
    late = scene.tab.begin("/api/late")
    scene.tab.until(lambda: scene.backend.requests_to("/api/late"))
    scene.tab.pass_(1800)
    scene.backend.spoil(Fault(seconds=0.2))
    assert statuses(scene.together(4)) == [200] * 4
    scene.backend.held = False
    assert scene.tab.outcome(late)["status"] == 200
    assert (scene.backend.exchanges, scene.backend.alarms) == (1, 0)
    assert len(scene.backend.requests_to("/api/echo")) == 4, "each was sent once, with the new token"


def duplicate(scene: Scene) -> Tab:
    """A tab that has a copy of what the first one has in its sessionStorage."""
    with scene.tab.page.expect_popup() as opened:
        scene.tab.run("() => void window.open('/page')")
    copy = Tab(opened.value, scene.tab.client)
    copy.page.wait_for_function("window.ready")
    copy.start(**scene.options)
    return copy


def test_a_duplicated_tab_sets_off_no_alarm_s4_7(stage) -> None:
    scene = stage(KeptRefresh(), storage="sessionStorage")
    copy = duplicate(scene)
    assert copy.ask("/api/echo")["status"] == 200, "a copy of the tokens came along"
    scene.backend.expire()
    assert scene.get()["status"] == 200
    assert copy.ask("/api/echo")["reason"] == "other_tab"
    assert (scene.backend.exchanges, scene.backend.alarms, scene.get()["status"]) == (1, 0, 200)


def test_a_duplicated_tab_is_found_out_beside_a_tab_with_a_login_of_its_own(stage, tab) -> None:
    scene = stage(KeptRefresh(), storage="sessionStorage")
    copies = [duplicate(scene), duplicate(scene)]
    other = tab(scene.backend, scene.tab.client)
    other.start(**scene.options)
    scene.log_in("bob", other)
    scene.backend.expire()
    assert scene.get()["json"]["user"] == "ada"
    assert other.ask("/api/echo")["json"]["user"] == "bob"
    assert [copy.ask("/api/echo")["reason"] for copy in copies] == ["other_tab"] * 2
    assert (scene.backend.exchanges, scene.backend.alarms) == (2, 0)
    assert [one.ask("/api/echo")["status"] for one in (scene.tab, other)] == [200, 200]


def test_of_logins_in_single_tabs_nothing_is_left_behind(stage) -> None:
    scene = stage(KeptRefresh(), storage="sessionStorage")
    for _ in range(2):
        scene.backend.expire()
        assert scene.get()["status"] == 200
    [mark] = scene.tab.run("() => Object.values(localStorage)")
    assert mark.isdigit(), "how new the tokens are, for duplicated tabs"
    scene.tab.run("() => session.logout()")
    assert scene.tab.run("() => Object.keys(localStorage)") == []
    scene.log_in()
    scene.backend.end_sessions()
    assert scene.get()["error"] == "session_over"
    assert scene.tab.run("() => Object.keys(localStorage)") == []
