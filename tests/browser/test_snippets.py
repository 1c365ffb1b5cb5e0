"""The widespread snippets, as printed, break in a real page as their defects say; our module, there, does not.

Each scene is played twice, with a backend and a page of its own: by the snippet, and by our module on the same axios.
What counts is counted at the backend.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import PAGE
from tests.browser.dialects import dialect_of
from tests.browser.plays import SCRIPTS, SET_UP, SLOW, SNIPPETS, Play
from tests.interop.backends.base import Backend, Fault
from tests.interop.backends.shapes import BearerJson, CodeIn200, KeptRefresh, OwnHeader, StatusInBody
from tests.support.npm import node_modules


@pytest.fixture(scope="module")
def scripts() -> list[Path]:
    return [node_modules(PAGE) / script for script in SCRIPTS]


@pytest.fixture
def both(run, tab, scripts):
    """The two plays of one scene, the snippet's first: ``both(shape, **config_of_axios)``; ada is logged in."""
    text = (PAGE / "snippets.js").read_text()

    def play(shape: type[Backend], config: dict[str, Any], *, ours: bool) -> Play:
        backend = run(shape())
        page = tab(backend)
        for script in scripts:
            page.page.add_script_tag(path=script)
        options = {**dialect_of(backend), "storage": "localStorage", "exchangeTimeout": 5}
        page.run(SET_UP, text, "" if ours else SNIPPETS[shape], options, config)
        one = Play(page, backend, ours)
        one.log_in()
        return one

    return lambda shape, **config: tuple(play(shape, config, ours=ours) for ours in (False, True))


# ---- a queue and a flag ----------------------------------------------------------------------------------------------


def test_old_posts_are_sent_again_at_the_next_expiry_s0_6(both) -> None:
    printed, ours = both(StatusInBody)
    for play in (printed, ours):
        play.backend.expire()
        play.backend.spoil(Fault(seconds=SLOW))
        assert play.ask("POST", count=3) == [200] * 3
        assert play.posts() == 6
        play.backend.expire()
        assert play.ask() == [200]
    printed.tab.until(lambda: printed.posts() == 8)
    assert ours.posts() == 6


def test_a_refused_exchange_hangs_all_for_ever_s0_3(both) -> None:
    printed, ours = both(StatusInBody)
    for play in (printed, ours):
        play.backend.end_sessions()
        play.send(count=3)
    assert printed.came(3, hangs=True) == ["waits"] * 3
    assert printed.ask(count=2, hangs=True) == ["waits"] * 2, "whatever is asked for later hangs too"
    assert printed.tab.run("() => alerts") == []
    assert ours.came(3) == ["error session_over"] * 3
    assert [play.backend.exchanges for play in (printed, ours)] == [1, 1]


def test_what_fails_during_an_exchange_is_sent_again_s0_2(both) -> None:
    printed, ours = both(StatusInBody)
    for play in (printed, ours):
        play.backend.expire()
        play.backend.spoil(Fault(seconds=SLOW))
        play.send()
        play.until_exchanging()
        play.send("POST", "/api/error/500")
    assert (printed.came(2), printed.posts()) == ([200, 500], 2)
    assert (ours.came(2), ours.posts()) == ([200, "error 500"], 1)


def test_an_error_is_a_success_s0_7(both) -> None:
    printed, ours = both(StatusInBody)
    assert printed.ask("GET", "/api/error/500") == [500]
    assert ours.ask("GET", "/api/error/500") == ["error 500"]


# ---- a list of callbacks ---------------------------------------------------------------------------------------------


def test_a_server_that_is_down_is_an_answer_without_anything_and_a_dead_queue_s1_1_s1_3(both) -> None:
    printed, ours = both(CodeIn200)
    for play in (printed, ours):
        play.backend.expire()
        play.backend.spoil(Fault(seconds=SLOW, status=503, headers={"retry-after": "30"}))
        play.send(count=3)
    assert sorted(printed.came(3, hangs=True)) == ["nothing", "waits", "waits"]
    assert ours.came(3) == ["error try_later"] * 3
    assert [play.backend.exchanges for play in (printed, ours)] == [1, 1]


def test_the_end_of_a_session_is_no_error_s1_2(both) -> None:
    printed, ours = both(CodeIn200)
    for play in (printed, ours):
        play.backend.end_sessions()
    assert (printed.ask(), printed.tab.run("() => left")) == (["nothing"], ["/login"])
    assert ours.ask() == ["error session_over"]


def test_a_payment_of_one_user_is_sent_for_the_next_s1_4(both) -> None:
    printed, ours = both(CodeIn200)
    for play in (printed, ours):
        play.backend.expire()
        play.backend.spoil(Fault(seconds=SLOW, status=503, headers={"retry-after": "30"}))
        play.send("POST", count=2)
        play.until_exchanging()
        play.tab.until(lambda play=play: play.posts() == 2)
        play.came(2, hangs=True)
        play.log_in("bob")
        play.backend.expire()
        assert play.ask() == [200]
    printed.tab.until(lambda: printed.posts("bob") == 1)
    assert ours.posts("bob") == 0


# ---- a promise and a mark --------------------------------------------------------------------------------------------


def test_a_server_that_is_down_logs_out_s2_1_once_for_each_request_s2_2(both) -> None:
    printed, ours = both(BearerJson)
    for play in (printed, ours):
        play.backend.expire()
        play.backend.spoil(Fault(seconds=SLOW, status=503, headers={"retry-after": "30"}))
        play.send(count=3)
    assert printed.came(3) == ["error 503"] * 3
    assert printed.tab.run("() => [localStorage.getItem('refresh'), left]") == [None, ["/login"] * 3]
    assert ours.came(3) == ["error try_later"] * 3
    assert ours.tab.stored["tokens"]["refresh"] == ours.backend.issued[0].refresh


def test_a_logout_during_an_exchange_is_undone_s2_5(both) -> None:
    printed, ours = both(BearerJson)
    for play in (printed, ours):
        play.backend.expire()
        play.backend.spoil(Fault(seconds=SLOW))
        play.send()
        play.until_exchanging()
        play.log_out()
        play.came(1)
        play.tab.until(lambda play=play: len(play.backend.issued) == 2)
    assert printed.ask() == [200], "ada is logged in again, by nobody"
    assert ours.ask() == ["error session_over"]


def test_a_late_challenge_costs_another_exchange_s2_6(both) -> None:
    printed, ours = both(BearerJson)
    for play in (printed, ours):
        play.backend.expire()
        play.backend.held = True
        play.send("GET", "/api/late")
        play.tab.until(lambda play=play: play.backend.requests_to("/api/late"))
        assert play.ask() == [200]
        play.backend.held = False
        assert play.came(1) == [200]
    assert [play.backend.exchanges for play in (printed, ours)] == [2, 1]


# ---- a header of its own ---------------------------------------------------------------------------------------------

EVERY = {"validateStatus": None}  # answers of any status are answers, or the snippet's code for 400 is never reached


def test_a_challenge_renews_nothing_s3_1(both) -> None:
    printed, ours = both(OwnHeader)
    for play in (printed, ours):
        play.backend.expire()
    assert (printed.ask(), printed.backend.exchanges) == (["error"], 0)
    assert (ours.ask(), ours.backend.exchanges) == ([200], 1)


def test_a_function_is_presented_for_a_token_s3_6_beside_the_old_one_s3_7_and_the_queue_hangs_s3_5(both) -> None:
    printed, ours = both(OwnHeader, **EVERY)
    for play in (printed, ours):
        play.backend.expire()
        play.backend.spoil(Fault(seconds=SLOW))
        play.send(count=3)
    [old] = printed.backend.issued
    assert sorted(printed.came(3, hangs=True)) == ["error", "waits", "waits"]
    assert [presented[:23] for presented in printed.backend.presented] == ["function refreshToken()"]
    assert [beside["token"] for beside in printed.backend.beside] == [old.access]
    assert printed.shown() == ["登录已过期,请重新登录"]
    assert ours.came(3) == [200] * 3
    assert ours.backend.presented == [ours.backend.issued[0].refresh]
    assert ["token" in beside for beside in ours.backend.beside] == [False]


def test_an_exchange_that_is_challenged_waits_for_itself_s3_4(both) -> None:
    printed, ours = both(OwnHeader, **EVERY)
    for play in (printed, ours):
        play.backend.expire()
        play.backend.spoil(Fault(status=400, body=b'{"code": 401}', headers={"retry-after": "30"}))
    assert printed.ask(hangs=True) == ["waits"]
    assert printed.ask(hangs=True) == ["waits"], "and so does whatever is challenged from then on"
    assert ours.ask() == ["error try_later"]
    assert ours.tab.status["renewing"] is False


# ---- a mark ----------------------------------------------------------------------------------------------------------


def test_each_challenge_costs_an_exchange_and_that_sets_off_the_alarm_s4_1(both) -> None:
    printed, ours = both(KeptRefresh)
    for play in (printed, ours):
        play.backend.expire()
        play.backend.spoil(Fault(seconds=0.1), times=3)
        play.send(count=3)
    assert "error 401" in printed.came(3)
    assert (printed.backend.exchanges, printed.backend.alarms > 0) == (3, True)
    assert (ours.came(3), ours.backend.exchanges, ours.backend.alarms) == ([200] * 3, 1, 0)


def test_the_new_refresh_token_is_lost_and_the_second_expiry_ends_the_session_s4_2(both) -> None:
    printed, ours = both(KeptRefresh)
    for play in (printed, ours):
        play.backend.expire()
        assert play.ask() == [200]
        play.backend.expire()
    assert (printed.ask(), printed.backend.alarms) == (["error 401"], 1)
    assert (ours.ask(), ours.backend.alarms) == ([200], 0)


def test_the_end_is_noticed_by_nobody_and_every_request_exchanges_again_s4_4(both) -> None:
    printed, ours = both(KeptRefresh)
    for play in (printed, ours):
        play.backend.end_sessions()
    assert [printed.ask() for _ in range(3)] == [["error 401"]] * 3
    assert [ours.ask() for _ in range(3)] == [["error session_over"]] * 3
    assert [play.backend.exchanges for play in (printed, ours)] == [3, 1]
