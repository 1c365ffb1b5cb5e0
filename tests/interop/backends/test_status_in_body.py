"""The defects of a queue and a flag, against a backend that repeats the status in the body."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.interop.backends.base import PASSWORD, Backend, Fault
from tests.interop.backends.scene import DOWN, LOST, Scene, Stage, statuses
from tests.interop.backends.shapes import StatusInBody
from tests.support.waiting import until
from unbroken import LoginRefused, SessionOver, TryLater


@pytest.fixture
def scene(stage: Stage) -> Scene:
    return stage(StatusInBody())


@pytest.mark.defect("S0.1")
def test_a_broken_connection_arrives_as_the_librarys_own_error(scene: Scene) -> None:
    with pytest.raises(scene.client.broken):
        scene.get("/api/torn")
    assert scene.backend.refreshes == 0
    assert scene.get().status == 200


@pytest.mark.defect("S0.2")
def test_any_error_during_a_refresh_is_not_replayed(scene: Scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(Fault(held=True))
    waits = scene.begin(scene.get)
    until(lambda: scene.backend.refreshes)
    for status in (500, 404, 403):
        assert scene.post(b"once", f"/api/error/{status}").status == status
        assert len(scene.backend.requests_to(f"/api/error/{status}")) == 1
    assert not waits.done(), "the errors came while the refresh was under way"
    scene.backend.go_on.set()
    assert waits.result(10).status == 200


@pytest.mark.defect("S0.3")
@pytest.mark.parametrize("status", [401, 500])
def test_a_refresh_that_gets_an_error_does_not_wait_for_itself(scene: Scene, status: int) -> None:
    scene.backend.expire()
    body = b'{"statusCode": %d}' % status
    scene.backend.spoil(Fault(status=status, body=body, headers={"retry-after": "30"}))
    with pytest.raises(SessionOver if status == 401 else TryLater):
        scene.begin(scene.get).result(20)
    assert not scene.session.status.refreshing


@pytest.mark.defect("S0.4")
def test_a_refresh_that_fails_leaves_no_flag_behind(scene: Scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(LOST, times=3)
    with pytest.raises(TryLater):
        scene.get()
    assert not scene.session.status.refreshing
    scene.clock.advance(60)
    assert scene.get().status == 200


@pytest.mark.defect("S0.5")
def test_all_who_wait_hear_of_a_failure(scene: Scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=0.1, status=503, headers={"retry-after": "30"}))
    outcomes = scene.together(20)
    assert [type(outcome) for outcome in outcomes] == [TryLater] * 20
    assert len({id(outcome) for outcome in outcomes}) == 20, "to each its own"


@pytest.mark.defect("S0.6")
def test_the_next_refresh_sends_no_old_request_again(scene: Scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=0.1))
    posts = [scene.begin(scene.post, b"%d" % number) for number in range(5)]
    assert statuses([post.result(10) for post in posts]) == [200] * 5
    sent = len(scene.backend.seen)
    scene.backend.expire()
    assert scene.get().status == 200
    assert [seen.method for seen in scene.backend.seen[sent:]] == ["GET", "GET"]


@pytest.mark.defect("S0.7")
@pytest.mark.parametrize("status", [400, 403, 404, 500, 503])
def test_an_error_response_keeps_its_status_and_body(scene: Scene, status: int) -> None:
    response = scene.get(f"/api/error/{status}")
    assert (response.status, response.json["statusCode"]) == (status, status)


@pytest.mark.defect("S0.8")
@pytest.mark.parametrize(("query", "body"), [("", b""), ("?body=null&type=application/json", b"null")])
def test_a_401_without_a_code_is_handed_over_as_a_401(scene: Scene, query: str, body: bytes) -> None:
    response = scene.get(f"/api/raw/401{query}")
    assert (response.status, response.body) == (401, body)
    assert scene.backend.refreshes == 0


@pytest.mark.defect("S0.9")
def test_an_endpoint_that_always_challenges_makes_no_loop(scene: Scene) -> None:
    assert statuses([scene.get("/api/never") for _ in range(20)]) == [401] * 20
    assert scene.backend.refreshes == 1
    assert len(scene.backend.requests_to("/api/never")) == 21
    assert scene.get().status == 200


@pytest.mark.defect("S0.10")
def test_a_late_challenge_needs_no_refresh(scene: Scene) -> None:
    scene.backend.expire()
    scene.backend.held = True
    late = scene.begin(scene.get, "/api/late")
    until(lambda: scene.backend.requests_to("/api/late"))
    assert scene.get().status == 200
    scene.backend.held = False
    assert late.result(10).status == 200
    assert (scene.backend.refreshes, scene.backend.alarms) == (1, 0)


@pytest.mark.defect("S0.11")
def test_a_wrong_password_refreshes_nothing_and_only_the_refresh_itself_is_exempt(scene: Scene) -> None:
    with pytest.raises(LoginRefused):
        scene.session.login("ada", "wrong")
    login = scene.backend.url + "/login"
    wrong = scene.client.request("POST", login, json={"username": "ada", "password": "wrong"}, skip=True)
    assert (wrong.status, scene.backend.refreshes) == (401, 0)
    assert scene.session.login("ada", PASSWORD), "and the right one still works"
    scene.backend.expire()
    assert scene.get("/x/user/refresher").status == 200
    assert scene.backend.refreshes == 1


@pytest.mark.defect("S0.12")
def test_the_end_is_told_once_and_the_tokens_are_gone(scene: Scene) -> None:
    scene.backend.end_sessions()
    assert [type(outcome) for outcome in scene.together(10)] == [SessionOver] * 10
    assert scene.ended() == ["invalid_grant"]
    assert scene.stored is None


@pytest.mark.defect("S0.13")
def test_new_requests_wait_for_the_refresh_and_tokens_stay_with_their_origin(
    stage: Stage, run: Callable[[Backend], Backend]
) -> None:
    scene = stage(StatusInBody(lifetime=1800))
    other = run(StatusInBody())
    old = scene.backend.issued[0].access
    scene.clock.advance(1800)
    scene.backend.spoil(Fault(seconds=0.2))
    assert statuses(scene.together(10)) == [200] * 10
    assert len(scene.backend.seen) == 10, "none was sent with the old token first"
    assert not any(old in seen.value for seen in scene.backend.seen)
    assert scene.client.request("GET", other.url + "/api/echo").status == 401
    assert [seen.value for seen in other.seen] == [""]


@pytest.mark.defect("S0.14")
def test_many_requests_share_one_refresh(scene: Scene) -> None:
    scene.backend.expire()
    assert statuses(scene.together(30)) == [200] * 30
    assert (scene.backend.refreshes, scene.backend.alarms) == (1, 0)


@pytest.mark.defect("S0.15")
def test_the_request_that_caused_a_refresh_does_not_wait_for_the_others(scene: Scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(Fault(held=True))
    first = scene.begin(scene.get)
    until(lambda: scene.backend.refreshes)
    other = scene.begin(scene.get, "/api/late")
    until(lambda: scene.backend.requests_to("/api/late"))
    scene.backend.held = True
    scene.backend.go_on.set()
    assert first.result(10).status == 200
    assert not other.done()
    scene.backend.held = False
    assert other.result(10).status == 200


def test_a_server_that_is_down_for_a_while_is_survived(scene: Scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(DOWN)
    with pytest.raises(TryLater) as caught:
        scene.get()
    assert caught.value.retry_after == pytest.approx(30, abs=1)
    scene.clock.advance(31)
    assert scene.get().status == 200
