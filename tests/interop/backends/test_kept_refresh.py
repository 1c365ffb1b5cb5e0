"""The defects of a mark on each request, against a backend that may keep the refresh token or rotate it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.backends.base import Fault
from tests.interop.backends.scene import Scene, Stage, statuses
from tests.interop.backends.shapes import KeptRefresh
from tests.support.adapters import Client
from tests.support.waiting import until
from unbroken import FileStore, Session, SessionOver, TokenResponse, TryLater


@pytest.fixture
def scene(stage: Stage) -> Scene:
    return stage(KeptRefresh())


@pytest.mark.defect("S4.1")
def test_many_challenges_make_one_refresh_and_no_alarm(scene: Scene) -> None:
    scene.backend.expire()
    assert statuses(scene.together(30)) == [200] * 30
    assert (scene.backend.refreshes, scene.backend.alarms) == (1, 0)


@pytest.mark.defect("S4.2")
@pytest.mark.parametrize("rotates", [True, False])
def test_a_rotated_refresh_token_is_kept_and_so_is_one_that_stays(stage: Stage, rotates: bool) -> None:
    scene = stage(KeptRefresh(rotates=rotates))
    for _ in range(4):
        scene.backend.expire()
        assert scene.get().status == 200
    assert len(set(scene.backend.presented)) == (4 if rotates else 1)
    assert scene.backend.alarms == 0


@pytest.mark.defect("S4.3")
def test_a_broken_connection_arrives_as_the_librarys_own_error(scene: Scene) -> None:
    with pytest.raises(scene.client.broken):
        scene.get("/api/torn")
    assert scene.backend.refreshes == 0


@pytest.mark.defect("S4.4")
def test_after_the_session_is_over_no_request_is_sent(scene: Scene) -> None:
    scene.backend.end_sessions()
    for _ in range(4):
        with pytest.raises(SessionOver):
            scene.get()
    assert (scene.backend.refreshes, scene.ended(), scene.stored) == (1, ["invalid_grant"], None)
    assert len(scene.backend.seen) == 1, "without tokens nothing is sent"


@pytest.mark.defect("S4.5")
def test_no_refresh_token_is_never_sent_and_silence_has_an_end(stage: Stage) -> None:
    scene = stage(KeptRefresh(), refresh_timeout=0.1)
    scene.backend.expire()
    scene.backend.spoil(Fault(held=True, lost=True), times=3)
    with pytest.raises(TryLater):
        scene.begin(scene.get).result(20)
    scene.backend.go_on.set()
    until(lambda: scene.backend.refreshes == 3)  # all of the refresh that was given up, and of its repetitions
    asked = scene.backend.refreshes
    scene.session.import_tokens(TokenResponse("dead"))
    assert scene.get().status == 401
    assert scene.backend.refreshes == asked


@pytest.mark.defect("S4.6")
def test_late_challenges_need_no_refresh_and_new_requests_are_held(stage: Stage) -> None:
    scene = stage(KeptRefresh(lifetime=1800))
    scene.backend.expire()
    scene.backend.held = True
    late = scene.begin(scene.get, "/api/late")
    until(lambda: scene.backend.requests_to("/api/late"))
    scene.clock.advance(1800)
    scene.backend.spoil(Fault(seconds=0.2))
    assert statuses(scene.together(5)) == [200] * 5
    scene.backend.held = False
    assert late.result(10).status == 200
    assert (scene.backend.refreshes, scene.backend.alarms) == (1, 0)
    assert len(scene.backend.requests_to("/api/echo")) == 5, "each was sent once, with the new token"


@pytest.mark.defect("S4.7")
def test_two_holders_of_one_session_set_off_no_alarm(
    stage: Stage, adapter: Callable[[Session], Client], tmp_path: Path
) -> None:
    scene = stage(KeptRefresh(), store=FileStore(tmp_path / "tokens"))
    twin = adapter(Session(scene.session.dialect, FileStore(tmp_path / "tokens")))
    url = scene.backend.url + "/api/echo"
    for _ in range(3):
        scene.backend.expire()
        both = [scene.begin(client.request, "GET", url) for client in (scene.client, twin)]
        assert statuses([one.result(10) for one in both]) == [200, 200]
    assert (scene.backend.refreshes, scene.backend.alarms) == (3, 0)
