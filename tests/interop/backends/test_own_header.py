"""The defects of an interceptor that responds by itself, against a backend with its own header and 400 for all."""

from __future__ import annotations

import hashlib
import logging
from urllib.parse import urlencode

import pytest

from tests.interop.backends.base import Fault
from tests.interop.backends.scene import DOWN, JUNK, Scene, Stage, statuses
from tests.interop.backends.shapes import OwnHeader
from tests.support.waiting import until
from unbroken import SessionOver, TryLater


@pytest.fixture
def scene(stage: Stage) -> Scene:
    return stage(OwnHeader())


@pytest.mark.defect("S3.1")
def test_a_challenge_in_a_400_is_seen(scene: Scene) -> None:
    scene.backend.expire()
    assert scene.get().status == 200
    assert (scene.backend.refreshes, len(scene.backend.seen)) == (1, 2)


@pytest.mark.defect("S3.2")
def test_an_error_keeps_its_response_and_a_broken_connection_its_type(scene: Scene) -> None:
    response = scene.get("/api/error/400")
    assert (response.status, response.json) == (400, {"code": 400, "msg": "no"})
    with pytest.raises(scene.client.broken):
        scene.get("/api/torn")
    assert scene.backend.refreshes == 0


@pytest.mark.defect("S3.3")
def test_the_next_refresh_sends_no_old_request_again(scene: Scene) -> None:
    for round_ in (1, 2):
        scene.backend.expire()
        scene.backend.spoil(Fault(seconds=0.1))
        posts = [scene.begin(scene.post, b"a") for _ in range(3)]
        assert statuses([post.result(10) for post in posts]) == [200] * 3
        good = [seen for seen in scene.backend.seen if seen.value == scene.backend.issued[-1].access]
        assert len(good) == 3, round_


@pytest.mark.defect("S3.4")
def test_a_refresh_that_is_challenged_itself_does_not_wait_for_itself(scene: Scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(Fault(status=400, body=b'{"code": 401}', headers={"retry-after": "30"}))
    with pytest.raises(TryLater):
        scene.begin(scene.get).result(20)
    assert not scene.session.status.refreshing
    assert scene.stored is not None, "only the code 402 says that the session is over"


@pytest.mark.defect("S3.5")
def test_the_end_reaches_all_who_wait_and_clears_the_tokens(scene: Scene) -> None:
    scene.backend.end_sessions()
    scene.backend.spoil(Fault(seconds=0.1))
    assert [type(outcome) for outcome in scene.together(20)] == [SessionOver] * 20
    assert (scene.stored, scene.ended()) == (None, ["invalid_grant"])


@pytest.mark.defect("S3.6")
def test_a_refresh_presents_the_refresh_token(scene: Scene) -> None:
    scene.backend.expire()
    scene.get()
    assert scene.backend.presented == [scene.backend.issued[0].refresh]


@pytest.mark.defect("S3.7")
def test_a_request_can_go_without_its_token_and_the_refresh_always_does(scene: Scene) -> None:
    body = b'{"a": 1}'
    response = scene.post(body, "/api/raw/200", skip=True)
    [seen] = scene.backend.seen
    assert (response.status, seen.value) == (200, "")
    assert seen.sha256 == hashlib.sha256(body).hexdigest(), "no control field went along"
    scene.backend.expire()
    assert scene.get().status == 200
    assert "token" not in scene.backend.beside[0]


def told(scene: Scene, caplog: pytest.LogCaptureFixture) -> str:
    """All that is logged about one refresh that fails and one that works."""
    caplog.set_level(logging.DEBUG)
    scene.backend.expire()
    scene.backend.spoil(JUNK, times=3)
    with pytest.raises(TryLater):
        scene.get()
    scene.clock.advance(60)
    assert scene.get().status == 200
    assert "RefreshFailed" in caplog.text
    assert "TokensRefreshed" in caplog.text
    return caplog.text + repr(scene.events)


@pytest.mark.defect("S3.8")
def test_the_refresh_token_in_a_query_is_logged_nowhere(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    log = told(scene, caplog)
    assert len(scene.backend.presented) == 4
    assert not any(secret in log for secret in scene.backend.presented)


@pytest.mark.defect("S3.9")
def test_the_response_with_the_tokens_is_logged_nowhere(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    log = told(scene, caplog)
    [_, fresh] = scene.backend.issued
    assert fresh.access not in log
    assert str(fresh.refresh) not in log


@pytest.mark.defect("S3.10")
@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("application/json", "null"),
        ("application/json", "[401]"),
        ("application/json", "{"),
        ("image/png", '{"code":401}'),
    ],
)
def test_a_400_of_any_other_form_is_handed_over_as_it_is(scene: Scene, media_type: str, body: str) -> None:
    response = scene.get("/api/raw/400?" + urlencode({"type": media_type, "body": body}))
    assert (response.status, response.body) == (400, body.encode())
    assert scene.backend.refreshes == 0


@pytest.mark.defect("S3.11")
def test_the_new_tokens_are_stored_and_the_next_refresh_uses_them(scene: Scene) -> None:
    for _ in range(3):
        scene.backend.expire()
        assert scene.get().status == 200
    assert scene.backend.presented == [pair.refresh for pair in scene.backend.issued[:3]]
    assert scene.stored is not None
    newest = scene.backend.issued[-1]
    assert (scene.stored.access_token, scene.stored.refresh_token) == (newest.access, newest.refresh)


@pytest.mark.defect("S3.12")
def test_late_challenges_and_loops_have_an_end(scene: Scene) -> None:
    scene.backend.expire()
    scene.backend.held = True
    late = scene.begin(scene.get, "/api/late")
    until(lambda: scene.backend.requests_to("/api/late"))
    assert scene.get().status == 200
    scene.backend.held = False
    assert late.result(10).status == 200
    assert scene.backend.refreshes == 1
    assert statuses([scene.get("/api/never") for _ in range(10)]) == [400] * 10
    assert scene.backend.refreshes == 2


def test_a_refresh_that_fails_is_not_a_response_to_the_request(scene: Scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(DOWN)
    with pytest.raises(TryLater):
        scene.post(b"a")
    assert len(scene.backend.seen) == 1
