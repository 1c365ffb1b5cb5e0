"""Requests that wait for a refresh: each ends, in time, whatever happens to the refresh."""

from __future__ import annotations

import pytest

from tests.browser.scene import JUNK, LOST, errors, statuses
from tests.interop.backends.base import Fault
from tests.interop.backends.shapes import BearerJson


@pytest.mark.defect("C3")
def test_an_aborted_request_stops_waiting_at_once_and_others_after_the_wait_timeout(stage) -> None:
    scene = stage(BearerJson(), waitTimeout=0.2)
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=1.0))
    leaves, stays = scene.tab.begin("/api/echo"), scene.tab.begin("/api/echo")
    scene.tab.until(lambda: scene.backend.refreshes)
    scene.tab.run("(number) => begun[number].leave.abort()", leaves[0])
    left = scene.tab.outcome(leaves)
    assert left["error"] in ("AbortError", "ERR_CANCELED", 20)
    assert left["cancelled"] is (scene.tab.client == "axios")
    assert scene.tab.outcome(stays)["error"] == "try_later"
    assert len(scene.backend.issued) == 1, "both left before the response to the refresh"
    scene.tab.until(lambda: not scene.tab.status["refreshing"])
    assert scene.get()["status"] == 200
    assert scene.backend.refreshes == 1, "the refresh went on without a request"


@pytest.mark.parametrize("client", ["axios"])
def test_an_axios_cancel_token_ends_the_wait_at_once(stage, client) -> None:
    scene = stage(BearerJson())
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=1.0))
    begin = """() => {
        window.source = axios.CancelToken.source();
        window.left = instance.get("/api/echo", { cancelToken: source.token }).catch(axios.isCancel);
    }"""
    scene.tab.run(begin)
    scene.tab.until(lambda: scene.backend.refreshes)
    assert scene.tab.run("() => { source.cancel(); return left; }") is True
    assert len(scene.backend.issued) == 1, "before the response to the refresh"


@pytest.mark.defect("C4")
def test_a_refresh_without_a_response_ends_and_is_not_repeated_during_the_pause(stage) -> None:
    scene = stage(BearerJson(), refreshTimeout=0.2)
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=3, lost=True), times=3)
    assert scene.get()["error"] == "try_later"
    for _ in range(5):
        caught = scene.get()
        assert caught["error"] == "try_later"
        assert caught["retryAfter"] > 0
    assert scene.backend.refreshes == 3
    scene.tab.pass_(60)
    assert scene.get()["status"] == 200


RESPONSES = {
    "500": (Fault(status=500), "try_later"),
    "junk": (JUNK, "try_later"),
    "lost": (LOST, "try_later"),
    "hangs": (Fault(seconds=3, lost=True), "try_later"),
    "no tokens": (Fault(status=200, body=b"{}"), "bad_answer"),
    "null": (Fault(status=200, body=b"null"), "try_later"),
    "refused": (Fault(status=401), "session_over"),
}


@pytest.mark.defect("I2")
@pytest.mark.parametrize(("fault", "error"), RESPONSES.values(), ids=RESPONSES)
def test_every_waiting_request_settles_whatever_the_refresh_response_is(stage, fault, error) -> None:
    scene = stage(BearerJson(), refreshTimeout=0.3)
    scene.backend.expire()
    scene.backend.spoil(fault, times=9)
    assert set(errors(scene.together(10))) == {error}
    assert scene.tab.status["refreshing"] is False


@pytest.mark.defect("I2", "P3")
def test_a_listener_that_throws_or_sends_requests_does_not_disturb_a_refresh(stage) -> None:
    scene = stage(BearerJson())
    scene.tab.run("() => void session.on('tokens', () => { throw new Error('mine'); })")
    scene.tab.run("() => void session.on('tokens', () => (window.asked = session.fetch('/api/echo?asked')))")
    scene.backend.expire()
    assert statuses(scene.together(5)) == [200] * 5
    assert scene.tab.run("async () => (await asked).status") == 200
    assert scene.backend.refreshes == 1
