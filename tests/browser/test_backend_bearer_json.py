"""A backend with a plain 401 and a refresh by JSON; and the defects of a shared promise."""

from __future__ import annotations

import hashlib
import time

import pytest

from tests.browser.scene import DOWN, JUNK, LOST, errors, statuses
from tests.interop.backends.base import Fault
from tests.interop.backends.shapes import BearerJson

FAULTS = {"503": DOWN, "500": Fault(status=500), "429": Fault(status=429), "junk": JUNK, "lost": LOST}


@pytest.mark.defect("S2.1")
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_failed_refresh_does_not_log_out(scene, fault) -> None:
    before = scene.tab.stored["tokens"]
    scene.backend.expire()
    scene.backend.spoil(fault, times=3)
    assert scene.get()["error"] == "try_later"
    assert (scene.tab.stored["tokens"], scene.tab.heard("over")) == (before, [])
    scene.backend.faults.clear()
    scene.tab.pass_(60)
    assert scene.get()["status"] == 200


@pytest.mark.defect("S2.2")
def test_a_session_that_is_over_is_one_event_however_many_requests_wait(scene) -> None:
    scene.backend.end_sessions()
    scene.backend.spoil(Fault(seconds=0.1))
    assert errors(scene.together(20)) == ["session_over"] * 20
    assert (len(scene.tab.heard("over")), scene.backend.refreshes) == (1, 1)


@pytest.mark.defect("S2.3")
def test_repeated_expiries_in_two_tabs_present_each_refresh_token_once(stage) -> None:
    scene = stage(BearerJson(), tabs=2, window=None)
    for _ in range(4):
        scene.backend.expire()
        for tab in scene.tabs:
            tab.pass_(31)
        assert statuses(scene.together(10)) == [200] * 20
    assert (scene.backend.refreshes, len(set(scene.backend.presented)), scene.backend.alarms) == (4, 4, 0)


@pytest.mark.defect("S2.4")
def test_a_response_without_a_refresh_token_keeps_the_old_one(stage) -> None:
    scene = stage(BearerJson(rotates=False))
    for _ in range(3):
        scene.backend.expire()
        assert scene.get()["status"] == 200
    assert scene.backend.presented == [scene.backend.issued[0].refresh] * 3


@pytest.mark.defect("S2.5", "P17")
def test_a_logout_during_a_refresh_is_final(scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(Fault(held=True))
    waits = scene.tab.begin("/api/echo")
    scene.tab.until(lambda: scene.backend.refreshes)
    scene.tab.run("() => session.logout()")
    scene.backend.go_on.set()
    assert scene.tab.outcome(waits)["reason"] == "logged_out"
    scene.tab.until(lambda: len(scene.backend.issued) == 2)
    scene.tab.until(lambda: not scene.tab.status["refreshing"])
    assert "tokens" not in scene.tab.stored
    assert scene.tab.status["reason"] == "logged_out"


@pytest.mark.defect("S2.6")
def test_late_challenges_need_no_refresh(scene) -> None:
    scene.backend.expire()
    late = scene.hold(count=4)
    assert scene.get()["status"] == 200
    scene.release()
    assert statuses(scene.tab.outcomes(late)) == [200] * 4
    assert scene.backend.refreshes == 1


@pytest.mark.defect("S2.7", "P9")
def test_requests_with_an_expired_token_wait_and_are_sent_once(stage) -> None:
    scene = stage(BearerJson(lifetime=1800))
    scene.backend.expire()
    scene.tab.pass_(1800)
    scene.backend.spoil(Fault(seconds=0.2))
    assert statuses(scene.together(10)) == [200] * 10
    fresh = scene.backend.issued[-1].access
    assert [seen.value for seen in scene.backend.seen] == [f"Bearer {fresh}"] * 10


@pytest.mark.defect("S2.8")
def test_a_refresh_without_a_response_blocks_no_request(stage) -> None:
    scene = stage(BearerJson(), refreshTimeout=0.2)
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=3, lost=True), times=3)
    began = time.monotonic()
    assert errors(scene.together(10)) == ["try_later"] * 10
    assert time.monotonic() - began < 3
    assert scene.tab.stored["tokens"]


@pytest.mark.defect("S2.9")
def test_a_wrong_password_is_reported_as_such_by_the_same_client(scene) -> None:
    assert scene.tab.attempt("() => session.login('ada', 'wrong')")["error"] == "access_denied"
    about = {"headers": {"Content-Type": "application/json"}}
    assert scene.post('{"username": "ada", "password": "wrong"}', "/login", **about)["status"] == 401
    assert (scene.backend.refreshes, scene.tab.heard("over")) == (0, [])
    assert scene.get()["json"]["user"] == "ada", "and who was logged in still is"


@pytest.mark.defect("S2.10")
def test_a_session_that_is_over_does_not_navigate_the_page_and_workers_have_none(scene) -> None:
    scene.backend.end_sessions()
    before = scene.tab.page.url
    assert scene.get()["error"] == "session_over"
    assert scene.tab.page.url == before
    worker = """() => new Promise((resolve, reject) => {
        const text = `import { createSession } from "${location.origin}/unbroken.js";
            const session = createSession({ url: "${location.origin}" });
            session.fetch("${location.origin}/api/echo").catch((error) => postMessage([error.code, typeof window]));`;
        const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
        const worker = new Worker(url, { type: "module" });
        worker.onmessage = ({ data }) => resolve(data);
        worker.onerror = reject;
    })"""
    assert scene.tab.run(worker) == ["session_over", "undefined"]


@pytest.mark.defect("S2.11")
def test_without_a_refresh_token_no_refresh_is_sent(scene) -> None:
    token = scene.backend.issued[0].access
    scene.tab.run("(accessToken) => session.importTokens({ accessToken, expires_in: 60 })", token)
    assert scene.get()["status"] == 200
    scene.tab.pass_(61)
    assert scene.get()["reason"] == "no_refresh_token"
    assert scene.backend.presented == []


@pytest.mark.defect("S2.12")
def test_the_same_request_object_is_refreshed_for_each_time_it_is_sent(scene) -> None:
    script = """async (client) => {
        const init = { method: "POST", headers: { "x-mark": "7" }, body: "a" };
        window.again ??= init;
        return [(await ask(client, "/api/echo", again)).status, JSON.stringify(again) === JSON.stringify(init)];
    }"""
    for _ in range(3):
        scene.backend.expire()
        assert scene.tab.run(script, scene.tab.client) == [200, True]
    assert scene.backend.refreshes == 3


@pytest.mark.defect("S2.13", "P14")
def test_a_request_that_is_sent_again_differs_only_in_its_token(scene) -> None:
    scene.backend.expire()
    upload, headers = "x" * 100_000, {"x-mark": "7", "content-type": "image/x-pixels"}
    assert scene.post(upload, headers=headers)["status"] == 200
    first, again = scene.backend.seen
    assert first.sha256 == again.sha256 == hashlib.sha256(upload.encode()).hexdigest()
    assert {**first.headers, "authorization": ""} == {**again.headers, "authorization": ""}
    assert again.headers["x-mark"] == "7"
