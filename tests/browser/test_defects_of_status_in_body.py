"""The defects of a queue and a flag, in a page of a backend that repeats the status in the body."""

from __future__ import annotations

import pytest

from tests.browser.scene import DOWN, LOST, errors, statuses
from tests.interop.backends.base import PASSWORD, Fault
from tests.interop.backends.shapes import StatusInBody

BROKEN = ("TypeError", "ERR_NETWORK")


@pytest.fixture
def scene(stage):
    return stage(StatusInBody())


def test_a_broken_connection_arrives_as_the_clients_own_error_s0_1(scene) -> None:
    assert scene.get("/api/torn")["error"] in BROKEN
    assert scene.backend.exchanges == 0
    assert scene.get()["status"] == 200


def test_any_error_during_a_renewal_is_not_replayed_s0_2(scene) -> None:
    scene.backend.held = True
    begun = {status: scene.tab.begin(f"/api/error/{status}", method="POST", body="once") for status in (500, 404, 403)}
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=0.5))
    waits = scene.tab.begin("/api/echo")
    scene.tab.until(lambda: scene.backend.exchanges)
    later = scene.tab.begin("/api/raw/500", method="POST", body="once")
    for status, numbers in begun.items():
        assert scene.tab.outcome(numbers)["status"] == status
        assert len(scene.backend.requests_to(f"/api/error/{status}")) == 1
    assert (scene.tab.outcome(later)["status"], len(scene.backend.requests_to("/api/raw/500"))) == (500, 1)
    assert not scene.tab.is_done(waits), "the errors came while the renewal was under way"
    assert scene.tab.outcome(waits)["status"] == 200


@pytest.mark.parametrize("status", [401, 500])
def test_a_renewal_that_is_answered_by_an_error_does_not_wait_for_itself_s0_3(scene, status) -> None:
    scene.backend.expire()
    body = b'{"statusCode": %d}' % status
    scene.backend.spoil(Fault(status=status, body=body, headers={"retry-after": "30"}))
    assert scene.get()["error"] == ("session_over" if status == 401 else "try_later")
    assert scene.tab.status["renewing"] is False


def test_a_renewal_that_fails_leaves_no_flag_behind_s0_4(scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(LOST, times=3)
    assert scene.get()["error"] == "try_later"
    assert scene.tab.status["renewing"] is False
    scene.tab.pass_(60)
    assert scene.get()["status"] == 200


def test_all_who_wait_hear_of_a_failure_s0_5(scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=0.1, status=503, headers={"retry-after": "30"}))
    assert errors(scene.together(20)) == ["try_later"] * 20
    assert scene.backend.exchanges == 1


def test_the_next_renewal_sends_no_old_request_again_s0_6(scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=0.1))
    assert statuses(scene.tab.together(5, "/api/echo", method="POST", body="a")) == [200] * 5
    sent = len(scene.backend.seen)
    scene.backend.expire()
    assert scene.get()["status"] == 200
    assert [seen.method for seen in scene.backend.seen[sent:]] == ["GET", "GET"]


@pytest.mark.parametrize("status", [400, 403, 404, 500, 503])
def test_an_error_stays_an_error_s0_7(scene, status) -> None:
    answer = scene.get(f"/api/error/{status}")
    assert (answer["status"], answer["json"]["statusCode"]) == (status, status)


@pytest.mark.parametrize(("query", "body"), [("", ""), ("?body=null&type=application/json", "null")])
def test_a_401_without_a_code_is_handed_over_as_a_401_s0_8(scene, query, body) -> None:
    answer = scene.get(f"/api/raw/401{query}")
    assert (answer["status"], answer["text"]) == (401, body)
    assert scene.backend.exchanges == 0


def test_an_endpoint_that_always_challenges_makes_no_loop_s0_9(scene) -> None:
    assert [scene.get("/api/never")["status"] for _ in range(20)] == [401] * 20
    assert scene.backend.exchanges == 1
    assert len(scene.backend.requests_to("/api/never")) == 21
    assert scene.get()["status"] == 200


def test_a_late_challenge_is_answered_without_an_exchange_s0_10(scene) -> None:
    scene.backend.expire()
    scene.backend.held = True
    late = scene.tab.begin("/api/late")
    scene.tab.until(lambda: scene.backend.requests_to("/api/late"))
    assert scene.get()["status"] == 200
    scene.backend.held = False
    assert scene.tab.outcome(late)["status"] == 200
    assert (scene.backend.exchanges, scene.backend.alarms) == (1, 0)


def test_a_wrong_password_renews_nothing_and_only_the_exchange_itself_is_exempt_s0_11(scene) -> None:
    assert scene.tab.attempt("() => session.login('ada', 'wrong')")["error"] == "access_denied"
    about = {"headers": {"Content-Type": "application/json"}}
    wrong = scene.post('{"username": "ada", "password": "wrong"}', "/login", **about)
    assert (wrong["status"], scene.backend.exchanges) == (401, 0)
    assert "error" not in scene.tab.attempt("(word) => session.login('ada', word)", PASSWORD), "the right one works"
    scene.backend.expire()
    assert scene.get("/x/user/refresher")["status"] == 200
    assert scene.backend.exchanges == 1


def test_the_end_is_told_once_and_the_tokens_are_gone_s0_12(scene) -> None:
    scene.backend.end_sessions()
    assert errors(scene.together(10)) == ["session_over"] * 10
    assert scene.tab.heard("over") == [{"reason": "invalid_grant", "here": True}]
    assert "tokens" not in scene.tab.stored


def test_new_requests_wait_for_the_renewal_and_tokens_stay_with_their_origin_s0_13(stage, run) -> None:
    scene = stage(StatusInBody(lifetime=1800))
    other = run(StatusInBody())
    old = scene.backend.issued[0].access
    scene.tab.pass_(1800)
    scene.backend.spoil(Fault(seconds=0.2))
    assert statuses(scene.together(10)) == [200] * 10
    assert len(scene.backend.seen) == 10, "none was sent with the old token first"
    assert not any(old in seen.value for seen in scene.backend.seen)
    scene.get(other.url + "/api/echo")
    assert [seen.value for seen in other.seen] == [""]


def test_many_requests_share_one_exchange_s0_14(scene) -> None:
    scene.backend.expire()
    assert statuses(scene.together(30)) == [200] * 30
    assert (scene.backend.exchanges, scene.backend.alarms) == (1, 0)


def test_the_one_who_asked_first_does_not_stand_behind_the_others_s0_15(scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=0.2))
    first = scene.tab.begin("/api/echo")
    scene.tab.until(lambda: scene.backend.exchanges)
    other = scene.tab.begin("/api/late")
    scene.tab.until(lambda: scene.backend.requests_to("/api/late"))
    scene.backend.held = True
    assert scene.tab.outcome(first)["status"] == 200
    assert not scene.tab.is_done(other)
    scene.backend.held = False
    assert scene.tab.outcome(other)["status"] == 200


def test_a_server_that_is_down_for_a_while_is_survived(scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(DOWN)
    caught = scene.get()
    assert caught["error"] == "try_later"
    assert caught["retryAfter"] == pytest.approx(30, abs=1)
    scene.tab.pass_(31)
    assert scene.get()["status"] == 200
