"""The defects of a list of callbacks, against a backend that responds 200 to everything."""

from __future__ import annotations

import logging
import threading
import traceback
from pathlib import Path

import pytest

from tests.interop.backends.base import PASSWORD, Fault
from tests.interop.backends.scene import DOWN, JUNK, LOST, Scene, Stage, statuses
from tests.interop.backends.shapes import CodeIn200
from tests.support.waiting import until
from unbroken import BadResponse, FileStore, SessionOver, TokenResponse, TryLater

CODE_500 = Fault(status=200, body=b'{"code": 500, "data": null}')
NO_DATA = Fault(status=200, body=b'{"code": 200, "data": null}')


@pytest.fixture
def scene(stage: Stage) -> Scene:
    return stage(CodeIn200())


@pytest.mark.defect("S1.1")
@pytest.mark.parametrize(
    ("fault", "error"),
    [(DOWN, TryLater), (LOST, TryLater), (CODE_500, TryLater), (NO_DATA, BadResponse)],
    ids=["503", "lost", "code 500", "no data"],
)
def test_a_refresh_that_fails_is_raised_and_is_no_response(scene: Scene, fault: Fault, error: type[Exception]) -> None:
    scene.backend.expire()
    scene.backend.spoil(fault, times=3)
    with pytest.raises(error):
        scene.get()
    assert (scene.over, scene.stored is None) == ([], False)


@pytest.mark.defect("S1.2")
@pytest.mark.parametrize("code", [401, 402, 403])
def test_a_refused_refresh_is_raised_and_is_no_response(scene: Scene, code: int) -> None:
    scene.backend.expire()
    scene.backend.spoil(Fault(status=200, body=b'{"code": %d, "data": null}' % code))
    with pytest.raises(SessionOver):
        scene.get()
    assert (scene.backend.refreshes, scene.ended(), scene.stored) == (1, ["invalid_grant"], None)


@pytest.mark.defect("S1.3")
@pytest.mark.parametrize("fault", [DOWN, JUNK, LOST, CODE_500], ids=["503", "junk", "lost", "code 500"])
def test_every_waiting_request_raises_try_later_when_the_refresh_fails(scene: Scene, fault: Fault) -> None:
    scene.backend.expire()
    scene.backend.spoil(fault, times=60)
    assert [type(outcome) for outcome in scene.together(20)] == [TryLater] * 20
    assert scene.backend.refreshes <= 3, "a failure is remembered: it is not repeated for everybody"


@pytest.mark.defect("S1.4")
def test_nothing_left_over_is_sent_after_another_login(scene: Scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(DOWN)
    with pytest.raises(TryLater):
        scene.post(b"pay")
    scene.log_in("bob")
    scene.backend.expire()
    assert scene.get().json["user"] == "bob"
    assert [seen.method for seen in scene.backend.seen].count("POST") == 1


@pytest.mark.defect("S1.5")
def test_a_challenge_just_after_a_refresh_finds_no_dead_queue(stage: Stage) -> None:
    scene = stage(CodeIn200(), window=None)
    stop = threading.Event()

    def work() -> int:
        done = 0
        while not stop.is_set():
            assert scene.get().json["code"] in (200, 401)
            done += 1
        return done

    def refreshed(times: int) -> bool:
        scene.clock.advance(31)  # an endpoint that was challenged twice in a row is asked again
        return len(scene.backend.issued) > times

    workers = [scene.pool.submit(work) for _ in range(8)]
    try:
        for times in range(1, 6):
            scene.backend.expire()
            until(lambda at_least=times: refreshed(at_least))
    finally:
        stop.set()
    assert all(worker.result(10) for worker in workers)
    scene.clock.advance(31)
    assert scene.get().json["code"] == 200
    assert scene.backend.alarms == 0


@pytest.mark.defect("S1.6")
def test_a_repeated_request_that_is_challenged_again_blocks_no_other(scene: Scene) -> None:
    scene.backend.expire()
    stubborn = [scene.begin(scene.get, "/api/never") for _ in range(5)]
    assert [response.json["code"] for response in map(scene.get, ["/api/echo"] * 5)] == [200] * 5
    assert [one.result(10).json["code"] for one in stubborn] == [401] * 5
    assert not scene.session.status.refreshing


def everything_said(error: BaseException, caplog: pytest.LogCaptureFixture) -> str:
    return "".join(traceback.format_exception(error)) + caplog.text


@pytest.mark.defect("S1.7")
def test_the_query_of_a_refresh_is_shown_nowhere(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    scene.backend.expire()
    scene.backend.spoil(LOST, times=3)
    with pytest.raises(TryLater) as caught:
        scene.get()
    said = everything_said(caught.value, caplog) + repr((scene.session, scene.events, scene.stored))
    [secret] = set(scene.backend.presented)
    assert secret == scene.backend.issued[0].refresh
    assert secret not in said
    assert "cache-control" not in scene.backend.beside[0], "nothing in between is asked to keep the response"


@pytest.mark.defect("S1.8")
def test_no_refresh_token_is_not_sent_and_an_odd_one_arrives_whole(stage: Stage) -> None:
    scene = stage(CodeIn200(tail="&x=1 +/%20#?~"))
    scene.backend.expire()
    assert scene.get().json["code"] == 200
    assert scene.backend.presented == [scene.backend.issued[0].refresh]
    scene.session.import_tokens(TokenResponse(scene.backend.issued[-1].access, token_type="Bearer "))
    scene.backend.expire()
    assert scene.get().json["code"] == 401
    assert scene.backend.refreshes == 1


@pytest.mark.defect("S1.9")
@pytest.mark.parametrize(
    ("data", "field"),
    [('{"tokenHead": "Bearer "}', "data.token"), ('{"token": "x"}', "data.tokenHead"), ('{"token": 7}', "data.token")],
)
def test_a_missing_field_is_named_and_the_tokens_are_kept(scene: Scene, data: str, field: str) -> None:
    before = scene.stored
    scene.backend.expire()
    scene.backend.spoil(Fault(status=200, body=b'{"code": 200, "data": %s}' % data.encode()), times=3)
    with pytest.raises(BadResponse) as caught:
        scene.get()
    assert caught.value.field == field
    assert (scene.stored, scene.backend.refreshes) == (before, 1)
    scene.backend.faults.clear()
    scene.clock.advance(60)
    assert scene.get().json["code"] == 200


@pytest.mark.defect("S1.10")
def test_a_challenge_by_status_counts_as_well_as_one_by_code(stage: Stage) -> None:
    scene = stage(CodeIn200(status=401))
    scene.backend.expire()
    assert scene.get().status == 200
    assert scene.backend.refreshes == 1


@pytest.mark.defect("S1.11")
def test_the_tokens_of_two_pairs_are_never_mixed(stage: Stage, tmp_path: Path) -> None:
    scene = stage(CodeIn200(), store=FileStore(tmp_path / "tokens"), window=None)
    elsewhere, seen, stop = FileStore(tmp_path / "tokens"), set[tuple[str, str | None]](), threading.Event()

    def look() -> None:
        while not stop.is_set():
            tokens = elsewhere.load().tokens
            assert tokens is not None
            seen.add((tokens.access_token, tokens.refresh_token))

    looking = scene.pool.submit(look)
    try:
        for _ in range(10):
            scene.backend.expire()
            assert scene.get().json["code"] == 200
    finally:
        stop.set()
    looking.result(10)
    assert len(seen) > 1
    assert seen <= {(pair.access, pair.refresh) for pair in scene.backend.issued}


@pytest.mark.defect("S1.12")
def test_late_challenges_loops_and_silence_all_have_an_end(stage: Stage) -> None:
    scene = stage(CodeIn200(), refresh_timeout=0.5)
    scene.backend.expire()
    scene.backend.held = True
    late = scene.begin(scene.get, "/api/late")
    until(lambda: scene.backend.requests_to("/api/late"))
    assert scene.get().json["code"] == 200
    scene.backend.held = False
    assert late.result(10).json["code"] == 200
    assert scene.backend.refreshes == 1, "a late challenge needs none"
    assert [scene.get("/api/never").json["code"] for _ in range(10)] == [401] * 10
    assert scene.backend.refreshes == 2, "nor does an endpoint that always challenges, after the first time"
    scene.backend.expire()
    scene.backend.spoil(Fault(held=True, lost=True), times=3)
    with pytest.raises(TryLater):
        scene.begin(scene.get).result(20)
    scene.backend.go_on.set()


def test_a_login_through_the_client_itself_refreshes_nothing(scene: Scene) -> None:
    asked = {"username": "ada", "password": PASSWORD}
    response = scene.client.request("POST", scene.backend.url + "/login", json=asked, skip=True)
    assert (response.json["code"], scene.backend.refreshes) == (200, 0)
    assert statuses(scene.together(3)) == [200] * 3
