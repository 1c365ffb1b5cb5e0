"""The defects of a shared promise, in a page of a backend with plain 401 and an exchange by JSON."""

from __future__ import annotations

import hashlib
import time

import pytest

from tests.browser.scene import DOWN, JUNK, LOST, errors, statuses
from tests.interop.backends.base import Fault
from tests.interop.backends.shapes import BearerJson

FAULTS = {"503": DOWN, "500": Fault(status=500), "429": Fault(status=429), "junk": JUNK, "lost": LOST}


@pytest.fixture
def scene(stage):
    return stage(BearerJson())


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_renewal_that_fails_logs_nobody_out_s2_1(scene, fault) -> None:
    before = scene.tab.stored["tokens"]
    scene.backend.expire()
    scene.backend.spoil(fault, times=3)
    assert scene.get()["error"] == "try_later"
    assert (scene.tab.stored["tokens"], scene.tab.heard("over")) == (before, [])
    scene.backend.faults.clear()
    scene.tab.pass_(60)
    assert scene.get()["status"] == 200


def test_one_end_is_told_once_however_many_wait_s2_2(scene) -> None:
    scene.backend.end_sessions()
    scene.backend.spoil(Fault(seconds=0.1))
    assert errors(scene.together(20)) == ["session_over"] * 20
    assert (len(scene.tab.heard("over")), scene.backend.exchanges) == (1, 1)


def test_only_the_owner_of_a_renewal_ends_it_s2_3(stage) -> None:
    scene = stage(BearerJson(), tabs=2, window=None)
    for _ in range(4):
        scene.backend.expire()
        for tab in scene.tabs:
            tab.pass_(31)
        assert statuses(scene.together(10)) == [200] * 20
    assert (scene.backend.exchanges, len(set(scene.backend.presented)), scene.backend.alarms) == (4, 4, 0)


def test_an_answer_without_a_refresh_token_keeps_the_old_one_s2_4(stage) -> None:
    scene = stage(BearerJson(rotates=False))
    for _ in range(3):
        scene.backend.expire()
        assert scene.get()["status"] == 200
    assert scene.backend.presented == [scene.backend.issued[0].refresh] * 3


def test_a_logout_during_a_renewal_stays_a_logout_s2_5(scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=0.3))
    waits = scene.tab.begin("/api/echo")
    scene.tab.until(lambda: scene.backend.exchanges)
    scene.tab.run("() => session.logout()")
    assert scene.tab.outcome(waits)["reason"] == "logged_out"
    scene.tab.until(lambda: len(scene.backend.issued) == 2)
    scene.tab.until(lambda: not scene.tab.status["renewing"])
    assert "tokens" not in scene.tab.stored
    assert scene.tab.status["reason"] == "logged_out"


def test_a_late_challenge_is_answered_without_an_exchange_s2_6(scene) -> None:
    scene.backend.expire()
    scene.backend.held = True
    late = scene.tab.begin("/api/late", count=4)
    scene.tab.until(lambda: len(scene.backend.requests_to("/api/late")) == 4)
    assert scene.get()["status"] == 200
    scene.backend.held = False
    assert statuses(scene.tab.outcomes(late)) == [200] * 4
    assert scene.backend.exchanges == 1


def test_requests_on_an_expired_token_are_held_and_sent_once_s2_7(stage) -> None:
    scene = stage(BearerJson(lifetime=1800))
    scene.backend.expire()
    scene.tab.pass_(1800)
    scene.backend.spoil(Fault(seconds=0.2))
    assert statuses(scene.together(10)) == [200] * 10
    fresh = scene.backend.issued[-1].access
    assert [seen.value for seen in scene.backend.seen] == [f"Bearer {fresh}"] * 10


def test_an_exchange_that_is_never_answered_holds_nobody_s2_8(stage) -> None:
    scene = stage(BearerJson(), exchangeTimeout=0.2)
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=3, lost=True), times=3)
    began = time.monotonic()
    assert errors(scene.together(10)) == ["try_later"] * 10
    assert time.monotonic() - began < 3
    assert scene.tab.stored["tokens"]


def test_a_wrong_password_is_told_as_such_even_through_the_same_client_s2_9(scene) -> None:
    assert scene.tab.attempt("() => session.login('ada', 'wrong')")["error"] == "access_denied"
    about = {"headers": {"Content-Type": "application/json"}}
    assert scene.post('{"username": "ada", "password": "wrong"}', "/login", **about)["status"] == 401
    assert (scene.backend.exchanges, scene.tab.heard("over")) == (0, [])
    assert scene.get()["json"]["user"] == "ada", "and who was logged in still is"


def test_the_end_is_an_event_and_the_page_is_left_to_the_application_s2_10(scene) -> None:
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


def test_without_a_refresh_token_nothing_is_asked_for_s2_11(scene) -> None:
    token = scene.backend.issued[0].access
    scene.tab.run("(accessToken) => session.import_tokens({ accessToken, expires_in: 60 })", token)
    assert scene.get()["status"] == 200
    scene.tab.pass_(61)
    assert scene.get()["reason"] == "no_refresh_token"
    assert scene.backend.presented == []


def test_the_same_request_is_renewed_for_each_time_it_is_sent_s2_12(scene) -> None:
    script = """async (client) => {
        const init = { method: "POST", headers: { "x-mark": "7" }, body: "a" };
        window.again ??= init;
        return [(await ask(client, "/api/echo", again)).status, JSON.stringify(again) === JSON.stringify(init)];
    }"""
    for _ in range(3):
        scene.backend.expire()
        assert scene.tab.run(script, scene.tab.client) == [200, True]
    assert scene.backend.exchanges == 3


@pytest.mark.parametrize("client", ["axios"])
def test_what_axios_gives_back_of_a_request_can_be_sent_again(stage, client) -> None:
    scene = stage(BearerJson(), window=None)
    keep = """async () => {
        const ok = await instance.post("/api/echo", { a: 1 });
        const bad = await instance.post("/api/never", { a: 1 }).catch((error) => error);
        window.kept = [ok.config, { ...bad.config, url: "/api/echo" }, { ...bad.response.config, url: "/api/echo" }];
    }"""
    scene.tab.run(keep)
    for number in range(3):
        scene.tab.pass_(31)
        scene.backend.seen.clear()
        scene.backend.expire()
        before = scene.backend.exchanges
        assert scene.tab.run("async (number) => (await instance.request(kept[number])).status", number) == 200
        first, again = scene.backend.seen
        assert (first.sha256, scene.backend.exchanges) == (again.sha256, before + 1)


@pytest.mark.parametrize("client", ["axios"])
def test_who_waits_can_leave_by_a_cancel_token_too(stage, client) -> None:
    scene = stage(BearerJson())
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=1.0))
    begin = """() => {
        window.source = axios.CancelToken.source();
        window.left = instance.get("/api/echo", { cancelToken: source.token }).catch(axios.isCancel);
    }"""
    scene.tab.run(begin)
    scene.tab.until(lambda: scene.backend.exchanges)
    assert scene.tab.run("() => { source.cancel(); return left; }") is True
    assert len(scene.backend.issued) == 1, "before the exchange was answered"


def test_a_repeated_request_is_the_same_but_for_its_token_s2_13(scene) -> None:
    scene.backend.expire()
    upload, headers = "x" * 100_000, {"x-mark": "7", "content-type": "image/x-pixels"}
    assert scene.post(upload, headers=headers)["status"] == 200
    first, again = scene.backend.seen
    assert first.sha256 == again.sha256 == hashlib.sha256(upload.encode()).hexdigest()
    assert {**first.headers, "authorization": ""} == {**again.headers, "authorization": ""}
    assert again.headers["x-mark"] == "7"
