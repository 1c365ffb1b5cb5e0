"""What listeners get: each event once in each tab."""

from __future__ import annotations

import pytest

from tests.browser.scene import DOWN
from tests.interop.backends.shapes import BearerJson


@pytest.mark.defect("C8")
def test_the_end_of_a_session_is_one_event_in_each_tab_and_one_error_code(stage) -> None:
    scene = stage(BearerJson(), tabs=3)
    scene.backend.expire()
    scene.backend.spoil(DOWN)
    assert scene.get()["error"] == "try_later"
    scene.tab.pass_(60)
    scene.backend.end_sessions()
    assert scene.get()["error"] == "session_over"
    for tab in scene.tabs:
        tab.until(lambda tab=tab: tab.heard("over"))
    heard = [tab.heard("over") for tab in scene.tabs]
    assert [[event["reason"] for event in one] for one in heard] == [["invalid_grant"]] * 3
    assert [event["here"] for [event] in heard] == [True, False, False]


def test_new_tokens_are_an_event_in_all_tabs_with_here_in_one(stage) -> None:
    scene = stage(BearerJson(), tabs=2)
    for tab in scene.tabs:
        tab.until(lambda tab=tab: tab.heard("tokens"))
        tab.run("() => void heard.splice(0)")
    scene.backend.expire()
    assert scene.get()["status"] == 200
    scene.tabs[1].until(lambda: scene.tabs[1].heard("tokens"))
    assert [tab.heard("tokens")[-1] for tab in scene.tabs] == [{"here": True}, {"here": False}]


def test_a_removed_listener_is_not_called(stage) -> None:
    scene = stage(BearerJson())
    scene.tab.run("() => { window.dispatched = []; session.on('tokens', (one) => dispatched.push(one))(); }")
    scene.log_in()
    assert scene.tab.heard("tokens")
    assert scene.tab.run("() => dispatched") == []
