"""What holds whatever happens: one test, or a few, for each promise that the module makes to a page.

The promises are I1 … I12; the name of a test ends in that of its promise.
"""

from __future__ import annotations

import time
from urllib.parse import urlencode

import pytest

from tests.browser.scene import DOWN, JUNK, LOST, errors, statuses
from tests.browser.tabs import until
from tests.interop.backends.base import PASSWORD, Fault
from tests.interop.backends.shapes import BearerJson, OwnHeader


@pytest.mark.parametrize("promise", [f"i{number}" for number in range(1, 13)])
def test_every_promise_is_tested(promise) -> None:
    assert [name for name in globals() if name.startswith("test_") and name.endswith(f"_{promise}")]


# ---- one refresh per expiry, however many requests, tabs and clients -------------------------------------------------


def test_expiry_after_expiry_each_costs_one_exchange_in_three_tabs_i1(stage) -> None:
    scene = stage(BearerJson(), tabs=3, window=None)
    for round_ in range(1, 4):
        scene.backend.expire()
        for tab in scene.tabs:
            tab.pass_(31)
        assert statuses(scene.together(8)) == [200] * 24
        assert (scene.backend.exchanges, scene.backend.alarms) == (round_, 0)


# ---- every promise settles -------------------------------------------------------------------------------------------

ANSWERS = {
    "500": (Fault(status=500), "try_later"),
    "junk": (JUNK, "try_later"),
    "lost": (LOST, "try_later"),
    "hangs": (Fault(seconds=3, lost=True), "try_later"),
    "no tokens": (Fault(status=200, body=b"{}"), "bad_answer"),
    "null": (Fault(status=200, body=b"null"), "try_later"),
    "refused": (Fault(status=401), "session_over"),
}


@pytest.mark.parametrize(("fault", "error"), ANSWERS.values(), ids=ANSWERS)
def test_every_request_settles_whatever_the_exchange_brings_i2(stage, fault, error) -> None:
    scene = stage(BearerJson(), exchangeTimeout=0.3)
    scene.backend.expire()
    scene.backend.spoil(fault, times=9)
    assert set(errors(scene.together(10))) == {error}
    assert scene.tab.status["renewing"] is False


def test_a_listener_that_fails_or_asks_back_hurts_nobody_i2(stage) -> None:
    scene = stage(BearerJson())
    scene.tab.run("() => void session.on('tokens', () => { throw new Error('mine'); })")
    scene.tab.run("() => void session.on('tokens', () => (window.asked = session.fetch('/api/echo?asked')))")
    scene.backend.expire()
    assert statuses(scene.together(5)) == [200] * 5
    assert scene.tab.run("async () => (await asked).status") == 200
    assert scene.backend.exchanges == 1


# ---- a late challenge costs nothing, a second one is final -----------------------------------------------------------


def test_a_late_challenge_in_another_tab_costs_no_exchange_i3(stage) -> None:
    scene = stage(BearerJson(), tabs=2)
    scene.backend.expire()
    scene.backend.held = True
    late = scene.tabs[1].begin("/api/late")
    scene.tab.until(lambda: scene.backend.requests_to("/api/late"))
    assert scene.get()["status"] == 200
    scene.backend.held = False
    assert scene.tabs[1].outcome(late)["status"] == 200
    assert scene.backend.exchanges == 1


def test_the_second_challenge_is_the_answer_i3(stage) -> None:
    scene = stage(BearerJson())
    assert scene.get("/api/never")["status"] == 401
    assert (scene.backend.exchanges, len(scene.backend.requests_to("/api/never"))) == (1, 2)


# ---- only a definite answer ends a session ---------------------------------------------------------------------------


def test_offline_ends_nothing_and_online_goes_on_i4(stage, context) -> None:
    scene = stage(BearerJson(lifetime=1800))
    scene.tab.pass_(1800)
    context.set_offline(True)
    assert scene.get()["error"] in ("try_later", "ERR_NETWORK", "TypeError")
    assert scene.tab.heard("over") == []
    context.set_offline(False)
    scene.tab.until(lambda: len(scene.backend.issued) == 2)
    assert scene.get()["status"] == 200


def test_a_refusal_is_no_end_if_another_tab_was_faster_i4(stage) -> None:
    scene = stage(BearerJson(), tabs=2, before="delete Navigator.prototype.locks;")
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=0.3, status=401))
    slow = scene.tab.begin("/api/echo")
    scene.tab.until(lambda: scene.backend.exchanges == 1)
    assert scene.tabs[1].ask("/api/echo")["status"] == 200
    assert scene.tab.outcome(slow)["status"] == 200
    assert [tab.heard("over") for tab in scene.tabs] == [[], []]


def test_a_token_that_is_still_good_is_used_while_the_server_cannot_renew_it_i4(stage) -> None:
    scene = stage(BearerJson(lifetime=1800))
    scene.backend.spoil(DOWN, times=9)
    scene.tab.pass_(1795)
    assert scene.get()["status"] == 200
    assert scene.backend.exchanges == 1


# ---- the end of a login counts at once, in all tabs ------------------------------------------------------------------


def test_a_logout_in_one_tab_frees_those_who_wait_in_another_at_once_i5(stage) -> None:
    scene = stage(BearerJson(), tabs=2)
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=1.5))
    waits = scene.tabs[1].begin("/api/echo", count=3, method="POST", body="pay")
    scene.tab.until(lambda: scene.backend.exchanges)
    scene.tab.run("() => session.logout()")
    assert [one["reason"] for one in scene.tabs[1].outcomes(waits)] == ["logged_out"] * 3
    assert len(scene.backend.issued) == 1, "nobody waited for the exchange"
    until(lambda: len(scene.backend.issued) == 2)
    scene.tab.until(lambda: not scene.tabs[1].status["renewing"])
    assert "tokens" not in scene.tab.stored, "and its late tokens are dropped"


def test_requests_after_the_end_are_refused_unless_visitors_are_welcome_i5(stage) -> None:
    scene = stage(BearerJson())
    scene.tab.run("() => session.logout()")
    assert scene.get()["reason"] == "logged_out"
    assert scene.backend.seen == []
    scene.tab.start(**scene.options, visitors=True)
    assert scene.get()["status"] == 401
    assert [seen.value for seen in scene.backend.seen] == [""]
    assert scene.backend.exchanges == 0


# ---- what is no challenge passes through untouched -------------------------------------------------------------------


def test_other_answers_are_the_very_objects_of_the_client_i6(stage, client) -> None:
    scene = stage(BearerJson())
    script = """async () => {
        let mine;
        const wire = window.fetch;
        window.fetch = async (...about) => (mine = await wire(...about));
        const own = createSession({ ...options, key: "own" });
        own.import_tokens({ accessToken: stored().tokens.access, refreshToken: "r" });
        const [answer, bad] = [await own.fetch("/api/echo"), await own.fetch("/api/error/500")];
        window.fetch = wire;
        return [answer.constructor === Response, bad === mine, answer.bodyUsed, bad.status];
    }"""
    scene.tab.run("(options) => (window.options = options)", scene.options)
    assert scene.tab.run(script) == [True, True, False, 500]
    refused = (
        "() => instance.get('/api/error/500').catch((error) => [error.constructor === axios.AxiosError, error.code])"
    )
    assert scene.tab.run(refused) == [True, "ERR_BAD_RESPONSE"]


@pytest.mark.parametrize("client", ["fetch"])  # axios itself waits for the end of an answer
@pytest.mark.parametrize("kind", ["application/x-ndjson", "application/json-seq", "application/jsonl", "text/plain"])
def test_an_answer_without_an_end_is_handed_over_at_its_beginning_i6(shop, at_shop, kind, client) -> None:
    [tab] = at_shop(shop(), challenge={"status": [200, 401], "field": "code", "values": [401]})
    script = """async (url) => {
        const answer = await session.fetch(url, { signal: AbortSignal.timeout(5000) });
        const { value } = await answer.body.getReader().read();
        return new TextDecoder().decode(value);
    }"""
    assert tab.run(script, f"/lines?type={kind}") == '{"code": 200}\n'


JSON_TYPES = ["application/json", "application/json;charset=utf-8", "Application/JSON ; a=b", "application/vnd.a+json"]


@pytest.mark.parametrize("kind", JSON_TYPES)
def test_a_challenge_in_json_is_seen_whatever_its_type_is_called_i6(stage, kind) -> None:
    scene = stage(OwnHeader())
    body = "/api/raw/400?" + urlencode({"type": kind, "body": '{"code": 401}'})
    assert scene.get(body)["status"] == 400
    assert scene.backend.exchanges == 1


@pytest.mark.parametrize("header", ["Bearer mine", "Basic abc"])
def test_a_header_of_ones_own_is_left_alone_i6(stage, header) -> None:
    scene = stage(BearerJson())
    assert scene.get(headers={"Authorization": header})["status"] == 401
    assert [seen.value for seen in scene.backend.seen] == [header]
    assert scene.backend.exchanges == 0


def test_a_header_that_is_our_own_old_token_is_replaced_i6(stage) -> None:
    scene = stage(BearerJson())
    old = f"Bearer {scene.backend.issued[0].access}"
    assert scene.get()["status"] == 200
    scene.backend.expire()
    assert scene.get()["status"] == 200
    assert scene.get(headers={"authorization": old})["status"] == 200
    assert scene.backend.exchanges == 1


# ---- the exchange is the library's own -------------------------------------------------------------------------------


def test_the_exchange_is_bound_to_nobody_and_intercepted_by_nobody_i7(stage) -> None:
    scene = stage(BearerJson())
    scene.tab.run(
        """() => {
            window.caught = 0;
            const platform = window.fetch;
            window.fetch = (...about) => (caught++, session.fetch(...about));
            instance.interceptors.request.use((config) => (caught++, config));
        }"""
    )
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=0.3))
    first = scene.tab.begin("/api/echo")
    second = scene.tab.begin("/api/echo")
    scene.tab.until(lambda: scene.backend.exchanges)
    scene.tab.run("(number) => begun[number].leave.abort()", first[0])
    assert "error" in scene.tab.outcome(first)
    assert scene.tab.outcome(second)["status"] == 200
    [beside] = scene.backend.beside
    assert "authorization" not in beside
    assert scene.tab.run("() => caught") == (2 if scene.tab.client == "axios" else 0), "once a request, not once a try"


# ---- tokens go to allowed origins only -------------------------------------------------------------------------------


def test_tokens_go_to_an_origin_that_is_allowed_and_to_none_that_looks_like_it_i8(stage, run) -> None:
    scene, other = stage(BearerJson()), run(BearerJson())
    [pair] = scene.backend.issued
    scene.tab.start(**scene.options, origins=[scene.backend.url, other.url.replace("127.0.0.1", "localhost")])
    assert scene.get(other.url + "/api/echo")["status"] == 401
    assert scene.get(other.url.replace("127.0.0.1", "127.0.0.1:1@127.0.0.1") + "/api/echo").get("status") != 200
    assert {seen.value for seen in other.seen} == {""}
    assert scene.get()["status"] == 200
    assert [seen.value for seen in scene.backend.seen] == [f"Bearer {pair.access}"]
    scene.get(other.url.replace("127.0.0.1", "localhost") + "/api/echo")
    assert other.seen[-1].value.startswith("Bearer "), "the one that is allowed"


# ---- bad answers damage nothing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b'{"accessToken": 7}', b'{"refreshToken": "r"}', b'{"accessToken": "a\\n"}', b"[]"])
def test_a_partial_answer_leaves_the_stored_tokens_whole_i9(stage, body) -> None:
    scene = stage(BearerJson())
    before = scene.tab.stored["tokens"]
    scene.backend.expire()
    scene.backend.spoil(Fault(status=200, body=body), times=3)
    assert scene.get()["error"] in ("bad_answer", "try_later")
    assert scene.tab.stored["tokens"] == before
    scene.backend.faults.clear()
    scene.tab.pass_(60)
    assert scene.get()["status"] == 200


# ---- margins shrink with the lifetime --------------------------------------------------------------------------------


@pytest.mark.parametrize("lifetime", [2, 5, 60])
def test_a_short_lifetime_makes_no_loop_i10(stage, lifetime) -> None:
    scene = stage(BearerJson(lifetime=lifetime))
    assert statuses([scene.get() for _ in range(10)]) == [200] * 10
    assert scene.backend.exchanges <= 2


@pytest.mark.parametrize("wrong", [-86400, 86400])
def test_a_wrong_clock_makes_no_loop_i10(stage, wrong) -> None:
    scene = stage(BearerJson(lifetime=1800))
    scene.tab.pass_(wrong)
    assert statuses([scene.get() for _ in range(10)]) == [200] * 10
    assert scene.backend.exchanges <= 1


# ---- locks -----------------------------------------------------------------------------------------------------------


def test_without_locks_tabs_still_share_the_attempt_and_set_off_no_alarm_i11(shop, tab, client) -> None:
    server = shop()
    tabs = [tab(server, client, before="delete Navigator.prototype.locks;") for _ in range(3)]
    for one in tabs:
        one.start(storage="localStorage")
    tabs[0].run("(word) => session.login('ada', word)", PASSWORD)
    tabs[2].until(lambda: tabs[2].status["state"] == "good")
    server.expire()
    server.spoil(Fault(seconds=0.2), times=3)
    begun = [(one, one.begin("/echo", count=5)) for one in tabs]
    assert [statuses(one.outcomes(numbers)) for one, numbers in begun] == [[200] * 5] * 3
    assert server.alarms() == 0
    assert server.exchanges <= 3


def test_a_lock_that_is_never_freed_is_waited_for_a_bounded_time_i11(stage) -> None:
    scene = stage(BearerJson(), exchangeTimeout=0.3, key="the lock")
    scene.tab.run("() => void navigator.locks.request('the lock', () => new Promise(() => {}))")
    scene.backend.expire()
    assert scene.get()["status"] == 200
    assert scene.backend.exchanges == 1


def test_no_lock_is_held_but_around_the_exchange_i11(stage) -> None:
    scene = stage(BearerJson())
    held = (
        "async () => { const { held, pending } = await navigator.locks.query(); return held.length + pending.length; }"
    )
    assert scene.get()["status"] == 200
    assert scene.tab.run(held) == 0
    scene.backend.expire()
    assert scene.get()["status"] == 200
    scene.tab.until(lambda: scene.tab.run(held) == 0)


# ---- waking ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", ["pageshow", "online", "focus", "visibilitychange"])
def test_what_wakes_a_page_renews_an_old_token_i12(stage, event) -> None:
    scene = stage(BearerJson(lifetime=1800), tabs=2)
    for tab in scene.tabs:
        tab.pass_(7200)
    where = "document" if event == "visibilitychange" else "window"
    for tab in scene.tabs:
        tab.run(f"(event) => void {where}.dispatchEvent(new Event(event, {{ bubbles: true }}))", event)
    scene.tab.until(lambda: len(scene.backend.issued) == 2)
    assert statuses([tab.ask("/api/echo") for tab in scene.tabs]) == [200, 200]
    assert (scene.backend.exchanges, len(scene.backend.seen)) == (1, 2)


def test_a_tab_that_dies_in_a_renewal_is_finished_by_another_with_the_same_attempt(shop, at_shop) -> None:
    server = shop(grace=0.0)
    tabs = at_shop(server, tabs=2)
    server.expire()
    server.spoil(Fault(seconds=0.3, used=True, lost=True))
    tabs[0].begin("/echo")
    tabs[1].until(lambda: server.exchanges)
    tabs[0].page.close()
    assert tabs[1].ask("/echo")["status"] == 200
    assert (server.alarms(), len(set(server.attempts))) == (0, 1)


# ---- time ------------------------------------------------------------------------------------------------------------


def test_five_tabs_are_not_slower_than_their_exchange(stage) -> None:
    scene = stage(BearerJson(), tabs=5)
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=0.2))
    began = time.monotonic()
    assert statuses(scene.together(8)) == [200] * 40
    assert time.monotonic() - began < 10
    assert (scene.backend.exchanges, scene.backend.alarms) == (1, 0)
