"""What every backend gets, whatever its shape: one refresh for all, one end for all, and nothing lost in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.interop.backends.base import Backend, Fault
from tests.interop.backends.scene import DOWN, JUNK, LOST, Scene, Stage, statuses
from tests.interop.backends.shapes import BearerJson, CodeIn200, KeptRefresh, OwnHeader, StatusInBody
from tests.support.adapters import Client
from unbroken import BadResponse, Session, SessionOver, TryLater

SHAPES: dict[str, Callable[..., Backend]] = {
    "status_in_body": StatusInBody,
    "code_in_200": CodeIn200,
    "bearer_json": BearerJson,
    "own_header": OwnHeader,
    "kept_refresh": lambda **about: KeptRefresh(rotates=False, **about),
    "kept_refresh_that_rotates": KeptRefresh,
}
ELSEWHERE = "data.somewhere.else"


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> Callable[..., Backend]:
    return SHAPES[request.param]


@pytest.fixture
def scene(stage: Stage, shape: Callable[..., Backend]) -> Scene:
    return stage(shape())


def misreading(scene: Scene) -> Session:
    """Another session on the same tokens, whose dialect looks for the access token in the wrong place."""
    right = scene.session.dialect
    wrong = replace(right, tokens=replace(right.tokens, access_token=ELSEWHERE))
    return Session(wrong, scene.session.store, clock=scene.clock)


def test_a_login_that_was_done_elsewhere_is_taken_over(scene: Scene) -> None:
    assert (scene.get().status, scene.get().json["user"]) == (200, "ada")
    assert scene.backend.refreshes == 0


def test_a_challenged_request_is_sent_again_byte_for_byte(scene: Scene) -> None:
    scene.backend.expire()
    response = scene.client.request("PUT", scene.backend.url + "/api/echo", content=b"pixels" * 1000)
    first, again = scene.backend.seen
    assert response.json["sha256"] == first.sha256 == again.sha256
    assert (first.method, again.method, scene.backend.refreshes) == ("PUT", "PUT", 1)
    assert first.value != again.value


def test_each_refresh_presents_the_newest_refresh_token(scene: Scene) -> None:
    issued = [pair.refresh for pair in scene.backend.issued]
    for _ in range(3):
        scene.backend.expire()
        scene.clock.advance(60)
        assert scene.get().json["user"] == "ada"
        issued += [pair.refresh or issued[-1] for pair in scene.backend.issued[-1:]]
    assert scene.backend.presented == issued[:3]
    assert scene.backend.alarms == 0


def test_fifty_requests_at_once_make_one_refresh(scene: Scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=0.1))
    assert statuses(scene.together(50)) == [200] * 50
    assert (scene.backend.refreshes, scene.backend.alarms) == (1, 0)


def test_a_refused_refresh_ends_the_session_once_for_all_who_wait(scene: Scene) -> None:
    scene.backend.end_sessions()
    scene.backend.spoil(Fault(seconds=0.1))
    outcomes = scene.together(20)
    assert [type(outcome) for outcome in outcomes] == [SessionOver] * 20
    assert (scene.backend.refreshes, scene.ended()) == (1, ["invalid_grant"])
    assert scene.stored is None
    assert len(scene.backend.seen) <= 20, "no request was sent again"


@pytest.mark.parametrize("fault", [DOWN, JUNK, LOST], ids=["503", "junk", "lost"])
def test_only_a_definite_refusal_ends_the_session(scene: Scene, fault: Fault) -> None:
    before = scene.stored
    scene.backend.expire()
    scene.backend.spoil(fault, times=3)
    with pytest.raises(TryLater):
        scene.get()
    assert scene.stored == before
    scene.backend.faults.clear()
    scene.clock.advance(60)
    assert scene.get().json["user"] == "ada"
    assert (scene.over, scene.backend.alarms) == ([], 0)
    assert len(set(scene.backend.presented)) == 1


def test_one_lost_request_is_not_noticed(scene: Scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(LOST)
    assert scene.get().json["user"] == "ada"
    assert (scene.backend.refreshes, scene.backend.alarms) == (2, 0)


def test_a_wrong_description_is_named_at_the_login_and_hurts_no_session(scene: Scene) -> None:
    before = scene.stored
    with pytest.raises(BadResponse, match=f"'{ELSEWHERE}'") as caught:
        misreading(scene).import_tokens(scene.login_answer("bob"))
    assert caught.value.field == ELSEWHERE
    assert scene.stored == before
    assert scene.get().json["user"] == "ada"


def test_a_wrong_description_is_named_at_the_refresh_and_sets_off_no_alarm(
    scene: Scene, adapter: Callable[[Session], Client]
) -> None:
    before = scene.stored
    wrong = adapter(misreading(scene))
    scene.backend.expire()
    for _ in range(3):
        with pytest.raises(BadResponse) as caught:
            wrong.request("GET", scene.backend.url + "/api/echo")
        assert caught.value.field == ELSEWHERE
    assert scene.stored == before
    assert (scene.backend.refreshes, scene.backend.alarms) == (1, 0), "it is not asked again for what it has said"


@pytest.mark.parametrize("head", ["Bearer ", "Bearer", "JWT ", ""])
def test_what_stands_before_the_token_is_taken_to_the_letter(stage: Stage, head: str) -> None:
    scene = stage(CodeIn200(head=head))
    scene.backend.expire()
    assert scene.get().json["user"] == "ada"
    assert [seen.value for seen in scene.backend.seen] == [head + pair.access for pair in scene.backend.issued]


@pytest.mark.parametrize("status", [401, 403])
def test_a_refresh_may_be_refused_by_either_status(stage: Stage, status: int) -> None:
    scene = stage(BearerJson(status=status))
    scene.backend.end_sessions()
    with pytest.raises(SessionOver):
        scene.get()
    assert scene.stored is None
