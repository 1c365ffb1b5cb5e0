"""The defects of a shared promise, against a backend with plain 401 and a refresh by JSON."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.interop.backends.base import Fault
from tests.interop.backends.scene import DOWN, JUNK, LOST, Scene, Stage, statuses
from tests.interop.backends.shapes import BearerJson
from tests.support.waiting import until
from unbroken import LoginRefused, MemoryStore, SessionOver, TokenResponse, TryLater
from unbroken.client.core.token_store import StoredSession


@pytest.fixture
def scene(stage: Stage) -> Scene:
    return stage(BearerJson())


FAULTS = {"503": DOWN, "500": Fault(status=500), "429": Fault(status=429), "junk": JUNK, "lost": LOST}


@pytest.mark.defect("S2.1")
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_refresh_that_fails_ends_no_session(scene: Scene, fault: Fault) -> None:
    before = scene.stored
    scene.backend.expire()
    scene.backend.spoil(fault, times=3)
    with pytest.raises(TryLater):
        scene.get()
    assert (scene.stored, scene.over) == (before, [])
    scene.backend.faults.clear()
    scene.clock.advance(60)
    assert scene.get().status == 200


@pytest.mark.defect("S2.2")
def test_one_end_is_told_once_however_many_wait(scene: Scene) -> None:
    scene.backend.end_sessions()
    scene.backend.spoil(Fault(seconds=0.1))
    assert [type(outcome) for outcome in scene.together(20)] == [SessionOver] * 20
    assert (scene.ended(), scene.backend.refreshes) == (["invalid_grant"], 1)


class SlowStore(MemoryStore):
    """Memory that takes its time."""

    def load(self) -> StoredSession:
        time.sleep(0.005)
        return super().load()

    def save(self, record: StoredSession, expected: StoredSession) -> bool:
        time.sleep(0.005)
        return super().save(record, expected)

    @contextmanager
    def lock(self, timeout: float) -> Iterator[None]:
        time.sleep(0.005)
        with super().lock(timeout):
            yield


@pytest.mark.defect("S2.3")
def test_only_the_owner_of_a_refresh_ends_it_even_over_a_slow_store(stage: Stage) -> None:
    scene = stage(BearerJson(), store=SlowStore())
    for _ in range(4):
        scene.backend.expire()
        assert statuses(scene.together(20)) == [200] * 20
    assert scene.backend.refreshes == 4
    assert len(set(scene.backend.presented)) == 4
    assert scene.backend.alarms == 0


@pytest.mark.defect("S2.4")
def test_a_response_without_a_refresh_token_keeps_the_old_one(stage: Stage) -> None:
    scene = stage(BearerJson(rotates=False))
    for _ in range(3):
        scene.backend.expire()
        assert scene.get().status == 200
    assert scene.backend.presented == [scene.backend.issued[0].refresh] * 3


@pytest.mark.defect("S2.5")
def test_a_logout_during_a_refresh_stays_a_logout(scene: Scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(Fault(held=True))
    waits = scene.begin(scene.get)
    until(lambda: scene.backend.refreshes)
    scene.session.logout()
    scene.backend.go_on.set()
    assert isinstance(waits.exception(10), SessionOver)
    until(lambda: len(scene.backend.issued) == 2)
    assert scene.stored is None
    assert scene.session.status.reason == "logged_out"


@pytest.mark.defect("S2.6")
def test_a_late_challenge_needs_no_refresh(scene: Scene) -> None:
    scene.backend.expire()
    scene.backend.held = True
    late = [scene.begin(scene.get, "/api/late") for _ in range(5)]
    until(lambda: len(scene.backend.requests_to("/api/late")) == 5)
    assert scene.get().status == 200
    scene.backend.held = False
    assert statuses([one.result(10) for one in late]) == [200] * 5
    assert scene.backend.refreshes == 1


@pytest.mark.defect("S2.7")
def test_requests_on_an_expired_token_are_held_and_sent_once(stage: Stage) -> None:
    scene = stage(BearerJson(lifetime=1800))
    scene.backend.expire()
    scene.clock.advance(1800)
    scene.backend.spoil(Fault(seconds=0.2))
    assert statuses(scene.together(10)) == [200] * 10
    fresh = scene.backend.issued[-1].access
    assert [seen.value for seen in scene.backend.seen] == [f"Bearer {fresh}"] * 10


@pytest.mark.defect("S2.8")
def test_a_refresh_that_is_never_responded_to_blocks_no_request(stage: Stage) -> None:
    scene = stage(BearerJson(), refresh_timeout=0.1)
    scene.backend.expire()
    scene.backend.spoil(Fault(held=True, lost=True), times=3)
    assert [type(outcome) for outcome in scene.together(10)] == [TryLater] * 10
    scene.backend.go_on.set()
    assert scene.stored is not None


@pytest.mark.defect("S2.9")
def test_a_wrong_password_is_told_as_such(scene: Scene) -> None:
    with pytest.raises(LoginRefused):
        scene.session.login("ada", "wrong")
    assert (scene.backend.refreshes, scene.over) == (0, [])
    assert scene.get().json["user"] == "ada", "and who was logged in still is"


@pytest.mark.defect("S2.11")
def test_without_a_refresh_token_nothing_is_asked_for(scene: Scene) -> None:
    scene.session.import_tokens(TokenResponse(scene.backend.issued[0].access, expires_in=60))
    assert scene.get().status == 200
    scene.backend.expire()
    assert scene.get().status == 401
    scene.clock.advance(61)
    with pytest.raises(SessionOver) as caught:
        scene.get()
    assert (caught.value.reason, scene.backend.presented) == ("no_refresh_token", [])


@pytest.mark.defect("S2.12")
def test_the_same_request_gets_new_tokens_each_time_it_is_sent(scene: Scene) -> None:
    about = {"headers": {"x-mark": "7"}, "json": {"a": 1}}
    for _ in range(3):
        scene.backend.expire()
        assert scene.client.request("POST", scene.backend.url + "/api/echo", **about).status == 200
    assert scene.backend.refreshes == 3
    assert about == {"headers": {"x-mark": "7"}, "json": {"a": 1}}


@pytest.mark.defect("S2.13")
def test_a_repeated_request_is_the_same_but_for_its_token(scene: Scene) -> None:
    scene.backend.expire()
    upload, headers = bytes(range(256)) * 500, {"x-mark": "7", "content-type": "image/x-pixels"}
    assert scene.post(upload, headers=headers).status == 200
    first, again = scene.backend.seen
    assert first.sha256 == again.sha256 == hashlib.sha256(upload).hexdigest()
    assert {**first.headers, "authorization": ""} == {**again.headers, "authorization": ""}
    assert again.headers["x-mark"] == "7"
