"""A backend that may keep the refresh token or rotate it; and the defects of a mark on each request."""

from __future__ import annotations

import time

import pytest

from tests.browser.scene import BROKEN, errors, statuses
from tests.interop.backends.base import Fault
from tests.interop.backends.shapes import KeptRefresh


@pytest.fixture
def scene(stage):
    return stage(KeptRefresh())


@pytest.mark.defect("S4.1")
def test_many_challenges_share_one_refresh_and_cause_no_reuse_alarm(scene) -> None:
    scene.backend.expire()
    assert statuses(scene.together(30)) == [200] * 30
    assert (scene.backend.refreshes, scene.backend.alarms) == (1, 0)


@pytest.mark.defect("S4.2")
@pytest.mark.parametrize("rotates", [True, False])
def test_a_rotated_refresh_token_replaces_the_old_one_and_a_kept_one_stays(stage, rotates) -> None:
    scene = stage(KeptRefresh(rotates=rotates))
    for _ in range(4):
        scene.backend.expire()
        assert scene.get()["status"] == 200
    assert len(set(scene.backend.presented)) == (4 if rotates else 1)
    assert scene.backend.alarms == 0


@pytest.mark.defect("S4.3")
def test_a_broken_connection_keeps_the_http_clients_error(scene) -> None:
    assert scene.get("/api/torn")["error"] in BROKEN
    assert scene.backend.refreshes == 0


@pytest.mark.defect("S4.4")
def test_no_request_refreshes_after_the_end_of_the_session(scene) -> None:
    scene.backend.end_sessions()
    assert errors([scene.get() for _ in range(4)]) == ["session_over"] * 4
    assert (scene.backend.refreshes, len(scene.tab.heard("over")), "tokens" in scene.tab.stored) == (1, 1, False)
    assert len(scene.backend.seen) == 1, "without tokens nothing is sent"


@pytest.mark.defect("S4.5")
def test_a_silent_server_is_given_up_and_a_missing_refresh_token_is_never_sent(stage) -> None:
    scene = stage(KeptRefresh(), refreshTimeout=0.2)
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=3, lost=True), times=3)
    began = time.monotonic()
    assert scene.get()["error"] == "try_later"
    assert time.monotonic() - began < 3
    asked = scene.backend.refreshes
    scene.tab.run("() => session.importTokens({ accessToken: 'dead' })")
    assert scene.get()["reason"] == "no_refresh_token"
    assert scene.backend.refreshes == asked


@pytest.mark.defect("S4.6")
def test_late_challenges_need_no_refresh_and_new_requests_wait(stage) -> None:
    scene = stage(KeptRefresh(lifetime=1800))
    scene.backend.expire()
    late = scene.hold()
    scene.tab.pass_(1800)
    scene.backend.spoil(Fault(seconds=0.2))
    assert statuses(scene.together(4)) == [200] * 4
    scene.release()
    assert scene.tab.outcome(late)["status"] == 200
    assert (scene.backend.refreshes, scene.backend.alarms) == (1, 0)
    assert len(scene.backend.requests_to("/api/echo")) == 4, "each was sent once, with the new token"
