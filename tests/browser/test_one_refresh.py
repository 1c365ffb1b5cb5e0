"""One refresh per expiry, however many requests, tabs, sessions and clients there are."""

from __future__ import annotations

import time

import pytest

from tests.browser.scene import errors, statuses
from tests.interop.backends.base import Fault
from tests.interop.backends.shapes import BearerJson

# ---- one tab ---------------------------------------------------------------------------------------------------------


def test_many_requests_with_an_expired_token_share_one_refresh(shop, at_shop) -> None:
    server = shop()
    [tab] = at_shop(server)
    server.expire()
    assert statuses(tab.together(50, "/echo", method="POST", body="x")) == [200] * 50
    assert (server.refreshes, server.alarms(), len(server.bodies)) == (1, 0, 50)


@pytest.mark.defect("C11")
def test_two_axios_instances_and_fetch_share_one_refresh(scene) -> None:
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
    assert (scene.backend.refreshes, scene.backend.alarms) == (1, 0)


def test_two_sessions_with_one_key_in_one_page_share_one_refresh(scene) -> None:
    scene.tab.run("(options) => (window.twin = createSession(options))", scene.options)
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=0.1))
    script = """async () => (await Promise.all([1, 2, 3].flatMap((n) =>
        [session.fetch(`/api/echo?a=${n}`), twin.fetch(`/api/echo?b=${n}`)]))).map(({ status }) => status)"""
    assert scene.tab.run(script) == [200] * 6
    assert (scene.backend.refreshes, scene.backend.alarms) == (1, 0)


# ---- several tabs ----------------------------------------------------------------------------------------------------


@pytest.mark.defect("C1")
def test_three_tabs_of_another_backend_share_one_refresh(stage) -> None:
    scene = stage(BearerJson(), tabs=3)
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=0.2))
    assert statuses(scene.together(5)) == [200] * 15
    assert (scene.backend.refreshes, scene.backend.alarms) == (1, 0)


@pytest.mark.defect("P1")
def test_five_tabs_share_one_refresh(shop, at_shop) -> None:
    server = shop()
    tabs = at_shop(server, tabs=5)
    server.expire()
    server.spoil(Fault(seconds=0.1))
    begun = [(tab, tab.begin("/echo", count=10)) for tab in tabs]
    assert [statuses(tab.outcomes(numbers)) for tab, numbers in begun] == [[200] * 10] * 5
    assert (server.refreshes, server.alarms()) == (1, 0)
    assert len({tab.run("() => session.token()") for tab in tabs}) == 1


@pytest.mark.defect("I1")
def test_three_tabs_refresh_once_per_expiry(stage) -> None:
    scene = stage(BearerJson(), tabs=3, window=None)
    for round_ in range(1, 4):
        scene.backend.expire()
        for tab in scene.tabs:
            tab.pass_(31)
        assert statuses(scene.together(8)) == [200] * 24
        assert (scene.backend.refreshes, scene.backend.alarms) == (round_, 0)


def test_five_tabs_wait_no_longer_than_their_refresh_takes(stage) -> None:
    scene = stage(BearerJson(), tabs=5)
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=0.2))
    began = time.monotonic()
    assert statuses(scene.together(8)) == [200] * 40
    assert time.monotonic() - began < 10
    assert (scene.backend.refreshes, scene.backend.alarms) == (1, 0)


@pytest.mark.defect("P13")
def test_a_failing_refresh_is_tried_at_most_three_times_by_all_tabs_together(stage) -> None:
    scene = stage(BearerJson(), tabs=3)
    scene.backend.expire()
    scene.backend.spoil(Fault(status=503, headers={"retry-after": "30"}), times=9)
    began = time.monotonic()
    assert errors(scene.together(5)) == ["try_later"] * 15
    assert scene.backend.refreshes <= 3
    assert time.monotonic() - began < 10


# ---- a lost response, a lost tab -------------------------------------------------------------------------------------


@pytest.mark.defect("P18")
def test_a_refresh_whose_response_is_lost_is_repeated_with_its_idempotency_key(shop, at_shop) -> None:
    server = shop(grace=0.0)
    [tab] = at_shop(server)
    server.expire()
    server.spoil(Fault(lost=True, used=True))
    assert statuses(tab.together(5, "/echo")) == [200] * 5
    assert (server.refreshes, server.alarms(), len(set(server.idempotency_keys))) == (2, 0, 1)


def test_another_tab_finishes_the_refresh_of_a_closed_tab_with_its_idempotency_key(shop, at_shop) -> None:
    server = shop(grace=0.0)
    tabs = at_shop(server, tabs=2)
    server.expire()
    server.spoil(Fault(seconds=0.3, used=True, lost=True))
    tabs[0].begin("/echo")
    tabs[1].until(lambda: server.refreshes)
    tabs[0].page.close()
    assert tabs[1].ask("/echo")["status"] == 200
    assert (server.alarms(), len(set(server.idempotency_keys))) == (0, 1)


# ---- locks -----------------------------------------------------------------------------------------------------------


@pytest.mark.defect("I11")
def test_tabs_without_web_locks_share_the_idempotency_key_and_cause_no_reuse_alarm(shop, tab, client) -> None:
    server = shop()
    tabs = [tab(server, client, before="delete Navigator.prototype.locks;") for _ in range(3)]
    for one in tabs:
        one.start(storage="localStorage")
    tabs[0].log_in()
    tabs[2].until(lambda: tabs[2].status["state"] == "good")
    server.expire()
    server.spoil(Fault(seconds=0.2), times=3)
    begun = [(one, one.begin("/echo", count=5)) for one in tabs]
    assert [statuses(one.outcomes(numbers)) for one, numbers in begun] == [[200] * 5] * 3
    assert server.alarms() == 0
    assert server.refreshes <= 3


@pytest.mark.defect("I11", "P2")
def test_a_refresh_waits_only_a_limited_time_for_a_lock_that_is_never_released(stage) -> None:
    scene = stage(BearerJson(), refreshTimeout=0.3, key="the lock")
    scene.tab.run("() => void navigator.locks.request('the lock', () => new Promise(() => {}))")
    scene.backend.expire()
    assert scene.get()["status"] == 200
    assert scene.backend.refreshes == 1


@pytest.mark.defect("I11")
def test_the_lock_is_held_only_during_a_refresh(stage) -> None:
    scene = stage(BearerJson())
    held = (
        "async () => { const { held, pending } = await navigator.locks.query(); return held.length + pending.length; }"
    )
    assert scene.get()["status"] == 200
    assert scene.tab.run(held) == 0
    scene.backend.expire()
    assert scene.get()["status"] == 200
    scene.tab.until(lambda: scene.tab.run(held) == 0)
