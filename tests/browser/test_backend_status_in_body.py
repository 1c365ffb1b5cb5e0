"""A backend that repeats the status in the body; and the defects of a queue and a flag."""

from __future__ import annotations

import pytest

from tests.browser.scene import BROKEN, DOWN, LOST, errors, statuses
from tests.interop.backends.base import PASSWORD, Fault
from tests.interop.backends.shapes import StatusInBody


@pytest.fixture
def scene(stage):
    return stage(StatusInBody())


@pytest.mark.defect("S0.1")
def test_a_broken_connection_is_the_http_clients_own_error(scene) -> None:
    assert scene.get("/api/torn")["error"] in BROKEN
    assert scene.backend.refreshes == 0
    assert scene.get()["status"] == 200


@pytest.mark.defect("S0.2")
def test_no_error_response_during_a_refresh_is_sent_again(scene) -> None:
    scene.backend.held = True
    begun = {status: scene.tab.begin(f"/api/error/{status}", method="POST", body="once") for status in (500, 404, 403)}
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=0.5))
    waits = scene.tab.begin("/api/echo")
    scene.tab.until(lambda: scene.backend.refreshes)
    later = scene.tab.begin("/api/raw/500", method="POST", body="once")
    for status, numbers in begun.items():
        assert scene.tab.outcome(numbers)["status"] == status
        assert len(scene.backend.requests_to(f"/api/error/{status}")) == 1
    assert (scene.tab.outcome(later)["status"], len(scene.backend.requests_to("/api/raw/500"))) == (500, 1)
    assert not scene.tab.is_done(waits), "the errors came during the refresh"
    assert scene.tab.outcome(waits)["status"] == 200


@pytest.mark.defect("S0.3")
@pytest.mark.parametrize("status", [401, 500])
def test_a_refresh_with_an_error_response_does_not_wait_for_itself(scene, status) -> None:
    scene.backend.expire()
    body = b'{"statusCode": %d}' % status
    scene.backend.spoil(Fault(status=status, body=body, headers={"retry-after": "30"}))
    assert scene.get()["error"] == ("session_over" if status == 401 else "try_later")
    assert scene.tab.status["refreshing"] is False


@pytest.mark.defect("S0.4")
def test_a_failed_refresh_does_not_block_the_next_one(scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(LOST, times=3)
    assert scene.get()["error"] == "try_later"
    assert scene.tab.status["refreshing"] is False
    scene.tab.pass_(60)
    assert scene.get()["status"] == 200


@pytest.mark.defect("S0.5", "P5")
def test_all_waiting_requests_fail_with_the_refresh(scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=0.1, status=503, headers={"retry-after": "30"}))
    assert errors(scene.together(20)) == ["try_later"] * 20
    assert scene.backend.refreshes == 1


@pytest.mark.defect("S0.6")
def test_the_next_refresh_repeats_no_request_of_the_one_before(scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=0.1))
    assert statuses(scene.tab.together(5, "/api/echo", method="POST", body="a")) == [200] * 5
    sent = len(scene.backend.seen)
    scene.backend.expire()
    assert scene.get()["status"] == 200
    assert [seen.method for seen in scene.backend.seen[sent:]] == ["GET", "GET"]


@pytest.mark.defect("S0.7")
@pytest.mark.parametrize("status", [400, 403, 404, 500, 503])
def test_an_error_response_keeps_its_status_and_body(scene, status) -> None:
    response = scene.get(f"/api/error/{status}")
    assert (response["status"], response["json"]["statusCode"]) == (status, status)


@pytest.mark.defect("S0.8")
@pytest.mark.parametrize(("query", "body"), [("", ""), ("?body=null&type=application/json", "null")])
def test_a_401_without_a_code_in_its_body_is_no_challenge(scene, query, body) -> None:
    response = scene.get(f"/api/raw/401{query}")
    assert (response["status"], response["text"]) == (401, body)
    assert scene.backend.refreshes == 0


@pytest.mark.defect("S0.9", "P7")
def test_an_endpoint_that_always_challenges_causes_one_refresh(scene) -> None:
    assert [scene.get("/api/never")["status"] for _ in range(20)] == [401] * 20
    assert scene.backend.refreshes == 1
    assert len(scene.backend.requests_to("/api/never")) == 21
    assert scene.get()["status"] == 200


@pytest.mark.defect("S0.10")
def test_a_late_challenge_needs_no_refresh(scene) -> None:
    scene.backend.expire()
    late = scene.hold()
    assert scene.get()["status"] == 200
    scene.release()
    assert scene.tab.outcome(late)["status"] == 200
    assert (scene.backend.refreshes, scene.backend.alarms) == (1, 0)


@pytest.mark.defect("S0.11")
def test_a_wrong_password_causes_no_refresh_and_only_session_endpoints_are_excluded(scene) -> None:
    assert scene.tab.attempt("() => session.login('ada', 'wrong')")["error"] == "access_denied"
    about = {"headers": {"Content-Type": "application/json"}}
    wrong = scene.post('{"username": "ada", "password": "wrong"}', "/login", **about)
    assert (wrong["status"], scene.backend.refreshes) == (401, 0)
    assert "error" not in scene.tab.attempt("(word) => session.login('ada', word)", PASSWORD), "the right one works"
    scene.backend.expire()
    assert scene.get("/x/user/refresher")["status"] == 200
    assert scene.backend.refreshes == 1


@pytest.mark.defect("S0.12")
def test_a_session_that_is_over_is_one_event_and_its_tokens_are_gone(scene) -> None:
    scene.backend.end_sessions()
    assert errors(scene.together(10)) == ["session_over"] * 10
    assert scene.tab.heard("over") == [{"reason": "invalid_grant", "here": True}]
    assert "tokens" not in scene.tab.stored


@pytest.mark.defect("S0.13")
def test_new_requests_wait_for_the_refresh_and_tokens_stay_with_their_origin(stage, run) -> None:
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


@pytest.mark.defect("S0.14", "P4")
def test_many_challenged_requests_share_one_refresh(scene) -> None:
    scene.backend.expire()
    assert statuses(scene.together(30)) == [200] * 30
    assert (scene.backend.refreshes, scene.backend.alarms) == (1, 0)


@pytest.mark.defect("S0.15")
def test_the_request_that_caused_a_refresh_does_not_wait_for_the_others(scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(Fault(held=True))
    first = scene.tab.begin("/api/echo")
    scene.tab.until(lambda: scene.backend.refreshes)
    other = scene.tab.begin("/api/late")
    scene.tab.until(lambda: scene.backend.requests_to("/api/late"))
    scene.backend.held = True
    scene.backend.go_on.set()
    assert scene.tab.outcome(first)["status"] == 200
    assert not scene.tab.is_done(other)
    scene.release()
    assert scene.tab.outcome(other)["status"] == 200


def test_a_session_survives_a_server_that_is_down(scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(DOWN)
    caught = scene.get()
    assert caught["error"] == "try_later"
    assert caught["retryAfter"] == pytest.approx(30, abs=1)
    scene.tab.pass_(31)
    assert scene.get()["status"] == 200
