"""Every defect that was found in five widespread snippets is tested for in a real page; those common to all come first.

S0 … S4 are the snippets, one for each shape of backend; C1 … C11 are common to all. A test's name ends in its id.
"""

from __future__ import annotations

import importlib
import time

import pytest

from tests.browser.scene import DOWN, errors, statuses
from tests.interop.backends.base import Fault
from tests.interop.backends.shapes import BearerJson, CodeIn200, KeptRefresh, OwnHeader, StatusInBody

SHAPES = ["status_in_body", "code_in_200", "bearer_json", "own_header", "kept_refresh"]
COUNTS = {"s0": 15, "s1": 12, "s2": 13, "s3": 12, "s4": 7}
IDS = [f"{of}_{n}" for of, count in COUNTS.items() for n in range(1, count + 1)] + [f"c{n}" for n in range(1, 12)]


def names_of_tests() -> list[str]:
    modules = ["test_defects", *(f"test_defects_of_{shape}" for shape in SHAPES)]
    return [name for module in modules for name in dir(importlib.import_module(f"tests.browser.{module}"))]


@pytest.mark.parametrize("id_", IDS)
def test_every_defect_is_tested_for(id_) -> None:
    assert len([name for name in names_of_tests() if name.startswith("test_") and name.endswith(f"_{id_}")]) == 1


def test_the_list_is_whole() -> None:
    assert (len(IDS), sum(COUNTS.values())) == (70, 59)


@pytest.fixture
def scene(stage):
    return stage(BearerJson())


def test_tabs_share_one_exchange_c1(stage) -> None:
    scene = stage(BearerJson(), tabs=3)
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=0.2))
    assert statuses(scene.together(5)) == [200] * 15
    assert (scene.backend.exchanges, scene.backend.alarms) == (1, 0)


@pytest.mark.parametrize("shape", [BearerJson, OwnHeader])
def test_tokens_go_to_no_other_origin_not_even_by_a_redirect_c2(stage, run, shape) -> None:
    scene, other = stage(shape()), run(shape())
    refused = other.challenge().status_code
    assert scene.get(other.url + "/api/echo")["status"] == refused
    redirected = scene.get(f"/api/redirect?to={other.url}/api/echo")
    if shape is OwnHeader:  # browsers take every header but Authorization along: so no redirect is followed
        assert redirected["error"] in ("TypeError", "ERR_NETWORK")
    else:
        assert redirected["status"] == refused
    assert [seen.value for seen in other.seen] == [""] * (1 if shape is OwnHeader else 2)
    assert scene.backend.exchanges == 0, "a challenge of another origin is not about our token"
    assert scene.get()["status"] == 200


def test_who_waits_can_leave_at_once_and_waits_no_longer_than_it_may_c3(stage) -> None:
    scene = stage(BearerJson(), waitTimeout=0.2)
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=1.0))
    leaves, stays = scene.tab.begin("/api/echo"), scene.tab.begin("/api/echo")
    scene.tab.until(lambda: scene.backend.exchanges)
    scene.tab.run("(number) => begun[number].leave.abort()", leaves[0])
    left = scene.tab.outcome(leaves)
    assert left["error"] in ("AbortError", "ERR_CANCELED", 20)
    assert left["cancelled"] is (scene.tab.client == "axios")
    assert scene.tab.outcome(stays)["error"] == "try_later"
    assert len(scene.backend.issued) == 1, "both left before the exchange was answered"
    scene.tab.until(lambda: not scene.tab.status["renewing"])
    assert scene.get()["status"] == 200
    assert scene.backend.exchanges == 1, "the renewal went on without anybody waiting"


def test_an_exchange_has_an_end_and_the_next_one_waits_a_while_c4(stage) -> None:
    scene = stage(BearerJson(), exchangeTimeout=0.2)
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=3, lost=True), times=3)
    assert scene.get()["error"] == "try_later"
    for _ in range(5):
        caught = scene.get()
        assert caught["error"] == "try_later"
        assert caught["retryAfter"] > 0
    assert scene.backend.exchanges == 3
    scene.tab.pass_(60)
    assert scene.get()["status"] == 200


def test_tokens_are_in_no_storage_by_default_and_elsewhere_in_one_text_c5(stage) -> None:
    scene = stage(BearerJson(), storage="memory")
    secret = scene.backend.issued[0].refresh
    everything = "() => JSON.stringify([localStorage, sessionStorage, document.cookie, Object.keys(window)])"
    assert scene.get()["status"] == 200
    assert secret not in scene.tab.run(everything)
    scene.tab.start(**scene.options, key="one text")
    scene.tab.start(**(scene.options | {"storage": "localStorage"}), key="one text")
    scene.log_in()
    assert scene.tab.run("() => Object.keys(localStorage)") == ["one text"]


def test_renewal_is_ahead_of_time_and_survives_sleep_c6(stage) -> None:
    scene = stage(BearerJson(lifetime=1800))
    scene.tab.pass_(1785)
    assert scene.get()["status"] == 200
    scene.tab.until(lambda: len(scene.backend.issued) == 2)
    scene.tab.until(lambda: not scene.tab.status["renewing"])
    scene.backend.expire()
    scene.tab.pass_(8 * 3600)
    scene.tab.run("() => window.dispatchEvent(new Event('pageshow'))")
    scene.tab.until(lambda: len(scene.backend.issued) == 3)
    assert scene.get()["status"] == 200
    assert (scene.backend.exchanges, len(scene.backend.seen)) == (2, 2), "no request was challenged"


def test_what_waits_for_one_user_is_never_sent_for_the_next_c7(stage) -> None:
    scene = stage(BearerJson(), tabs=2)
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=0.4))
    waits = [(tab, tab.begin("/api/echo", method="POST", body="pay")) for tab in scene.tabs]
    scene.tab.until(lambda: scene.backend.exchanges and len(scene.backend.seen) == 2)
    scene.log_in("bob", scene.tabs[1])
    assert [tab.outcome(numbers)["reason"] for tab, numbers in waits] == ["other_login"] * 2
    assert len(scene.backend.seen) == 2
    assert [tab.ask("/api/echo")["json"]["user"] for tab in scene.tabs] == ["bob"] * 2
    assert [len(tab.heard("over")) for tab in scene.tabs] == [1, 0], "the other tab is told that the user is another"


def test_errors_have_codes_and_the_end_is_one_event_a_tab_c8(stage) -> None:
    scene = stage(BearerJson(), tabs=3)
    scene.backend.expire()
    scene.backend.spoil(DOWN)
    assert scene.get()["error"] == "try_later"
    scene.tab.pass_(60)
    scene.backend.end_sessions()
    assert scene.get()["error"] == "session_over"
    for tab in scene.tabs:
        tab.until(lambda tab=tab: tab.heard("over"))
    heard = [tab.heard("over") for tab in scene.tabs]
    assert [[event["reason"] for event in one] for one in heard] == [["invalid_grant"]] * 3
    assert [event["here"] for [event] in heard] == [True, False, False]


@pytest.mark.parametrize("client", ["fetch"])
@pytest.mark.parametrize("shape", [StatusInBody, CodeIn200, BearerJson, OwnHeader, KeptRefresh])
def test_a_stream_is_sent_neither_twice_nor_empty_c9(stage, shape, client) -> None:
    # Over HTTP/1.1 Chromium sends no stream at all, and axios tries none: the page's fetch stands in for the wire.
    before = """
        const wire = window.fetch;
        window.streams = [];
        window.fetch = async (input, init = {}) => {
            if (!(init.body instanceof ReadableStream)) return wire(input, init);
            streams.push(await new Response(init.body).text());
            return wire(input, { ...init, body: streams.at(-1) });
        };
    """
    scene = stage(shape(), before=before)
    scene.backend.expire()
    answer = scene.tab.ask("/api/echo", method="POST", kind="stream")
    challenge = scene.backend.challenge()
    assert (answer["status"], answer["notReplayed"]) == (challenge.status_code, "not_replayable")
    assert answer["text"] == challenge.body.decode(), "the server's own answer"
    assert scene.tab.run("() => streams") == ["streamed body"]
    assert scene.tab.ask("/api/echo", method="POST", kind="stream")["json"]["user"] == "ada"
    assert (scene.backend.exchanges, len(scene.backend.seen)) == (1, 2), "the session was renewed for the next request"


def test_a_session_can_let_go_of_its_page_c10(scene) -> None:
    scene.tab.run("() => (session.dispose(), session.dispose(), detach(), detach())")
    scene.backend.expire()
    assert scene.tab.run("async () => (await instance.get('/api/echo').catch((error) => error.response)).status") == 401
    assert scene.backend.exchanges == 0, "axios is on its own again"
    scene.tab.pass_(9000)
    scene.tab.run("() => window.dispatchEvent(new Event('online'))")
    assert [seen.value for seen in scene.backend.seen] == [""]


def test_two_axios_instances_and_fetch_share_one_renewal_c11(scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=0.1))
    script = """async () => {
        const second = axios.create({ baseURL: "/api" });
        session.attach(second);
        const asked = Array.from({ length: 5 }, (_, n) => [
            instance.get(`/api/echo?a=${n}`), second.get(`/echo?b=${n}`), session.fetch(`/api/echo?c=${n}`)]);
        return (await Promise.all(asked.flat())).map(({ status }) => status);
    }"""
    assert scene.tab.run(script) == [200] * 15
    assert (scene.backend.exchanges, scene.backend.alarms) == (1, 0)


def test_sessions_of_one_name_in_one_page_share_one_renewal(scene) -> None:
    scene.tab.run("(options) => (window.twin = createSession(options))", scene.options)
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=0.1))
    script = """async () => (await Promise.all([1, 2, 3].flatMap((n) =>
        [session.fetch(`/api/echo?a=${n}`), twin.fetch(`/api/echo?b=${n}`)]))).map(({ status }) => status)"""
    assert scene.tab.run(script) == [200] * 6
    assert (scene.backend.exchanges, scene.backend.alarms) == (1, 0)


def test_a_hidden_failure_costs_one_series_of_tries_for_all_tabs(stage) -> None:
    scene = stage(BearerJson(), tabs=3)
    scene.backend.expire()
    scene.backend.spoil(Fault(status=503, headers={"retry-after": "30"}), times=9)
    began = time.monotonic()
    assert errors(scene.together(5)) == ["try_later"] * 15
    assert scene.backend.exchanges <= 3
    assert time.monotonic() - began < 10
