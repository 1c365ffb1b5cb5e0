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
        options = {**dialect_of(backend), "storage": "localStorage", "refreshTimeout": 5}
        page.run(SET_UP, text, "" if ours else SNIPPETS[shape], options, config)
        one = Play(page, backend, ours)
        one.log_in()
        return one

    return lambda shape, **config: tuple(play(shape, config, ours=ours) for ours in (False, True))


# ---- a queue and a flag ----------------------------------------------------------------------------------------------


@pytest.mark.defect("S0.6")
def test_the_queue_sends_old_posts_again_at_the_next_expiry(both) -> None:
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


@pytest.mark.defect("S0.3")
def test_the_flag_hangs_every_request_after_a_refused_refresh(both) -> None:
    printed, ours = both(StatusInBody)
    for play in (printed, ours):
        play.backend.end_sessions()
        play.send(count=3)
    assert printed.came(3, hangs=True) == ["waits"] * 3
    assert printed.ask(count=2, hangs=True) == ["waits"] * 2, "whatever is asked for later hangs too"
    assert printed.tab.run("() => alerts") == []
    assert ours.came(3) == ["error session_over"] * 3
    assert [play.backend.refreshes for play in (printed, ours)] == [1, 1]


@pytest.mark.defect("S0.2")
def test_the_queue_sends_failed_requests_again_during_a_refresh(both) -> None:
    printed, ours = both(StatusInBody)
    for play in (printed, ours):
        play.backend.expire()
        play.backend.spoil(Fault(seconds=SLOW))
        play.send()
        play.until_refreshing()
        play.send("POST", "/api/error/500")
    assert (printed.came(2), printed.posts()) == ([200, 500], 2)
    assert (ours.came(2), ours.posts()) == ([200, "error 500"], 1)


@pytest.mark.defect("S0.7")
def test_the_interceptor_turns_an_error_response_into_a_success(both) -> None:
    printed, ours = both(StatusInBody)
    assert printed.ask("GET", "/api/error/500") == [500]
    assert ours.ask("GET", "/api/error/500") == ["error 500"]


# ---- a list of callbacks ---------------------------------------------------------------------------------------------


@pytest.mark.defect("S1.1", "S1.3")
def test_the_callbacks_hang_and_return_nothing_when_the_server_is_down(both) -> None:
    printed, ours = both(CodeIn200)
    for play in (printed, ours):
        play.backend.expire()
        play.backend.spoil(Fault(seconds=SLOW, status=503, headers={"retry-after": "30"}))
        play.send(count=3)
    assert sorted(printed.came(3, hangs=True)) == ["nothing", "waits", "waits"]
    assert ours.came(3) == ["error try_later"] * 3
    assert [play.backend.refreshes for play in (printed, ours)] == [1, 1]


@pytest.mark.defect("S1.2")
def test_the_callbacks_return_nothing_when_the_session_is_over(both) -> None:
    printed, ours = both(CodeIn200)
    for play in (printed, ours):
        play.backend.end_sessions()
    assert (printed.ask(), printed.tab.run("() => left")) == (["nothing"], ["/login"])
    assert ours.ask() == ["error session_over"]


@pytest.mark.defect("S1.4")
def test_the_callbacks_send_a_payment_of_one_user_for_the_next(both) -> None:
    printed, ours = both(CodeIn200)
    for play in (printed, ours):
        play.backend.expire()
        play.backend.spoil(Fault(seconds=SLOW, status=503, headers={"retry-after": "30"}))
        play.send("POST", count=2)
        play.until_refreshing()
        play.tab.until(lambda play=play: play.posts() == 2)
        play.came(2, hangs=True)
        play.log_in("bob")
        play.backend.expire()
        assert play.ask() == [200]
    printed.tab.until(lambda: printed.posts("bob") == 1)
    assert ours.posts("bob") == 0


# ---- a promise and a mark --------------------------------------------------------------------------------------------


@pytest.mark.defect("S2.1", "S2.2")
def test_the_shared_promise_logs_out_once_per_request_when_the_server_is_down(both) -> None:
    printed, ours = both(BearerJson)
    for play in (printed, ours):
        play.backend.expire()
        play.backend.spoil(Fault(seconds=SLOW, status=503, headers={"retry-after": "30"}))
        play.send(count=3)
    assert printed.came(3) == ["error 503"] * 3
    assert printed.tab.run("() => [localStorage.getItem('refresh'), left]") == [None, ["/login"] * 3]
    assert ours.came(3) == ["error try_later"] * 3
    assert ours.tab.stored["tokens"]["refresh"] == ours.backend.issued[0].refresh


@pytest.mark.defect("S2.5")
def test_the_shared_promise_undoes_a_logout_during_a_refresh(both) -> None:
    printed, ours = both(BearerJson)
    for play in (printed, ours):
        play.backend.expire()
        play.backend.spoil(Fault(seconds=SLOW))
        play.send()
        play.until_refreshing()
        play.log_out()
        play.came(1)
        play.tab.until(lambda play=play: len(play.backend.issued) == 2)
    assert printed.ask() == [200], "ada is logged in again without a login"
    assert ours.ask() == ["error session_over"]


@pytest.mark.defect("S2.6")
def test_the_shared_promise_refreshes_again_for_a_late_challenge(both) -> None:
    printed, ours = both(BearerJson)
    for play in (printed, ours):
        play.backend.expire()
        play.backend.held = True
        play.send("GET", "/api/late")
        play.tab.until(lambda play=play: play.backend.requests_to("/api/late"))
        assert play.ask() == [200]
        play.backend.held = False
        assert play.came(1) == [200]
    assert [play.backend.refreshes for play in (printed, ours)] == [2, 1]


# ---- a header of its own ---------------------------------------------------------------------------------------------

EVERY = {"validateStatus": None}  # otherwise the snippet's code for 400 is never reached


@pytest.mark.defect("S3.1")
def test_the_own_header_snippet_never_refreshes(both) -> None:
    printed, ours = both(OwnHeader)
    for play in (printed, ours):
        play.backend.expire()
    assert (printed.ask(), printed.backend.refreshes) == (["error"], 0)
    assert (ours.ask(), ours.backend.refreshes) == ([200], 1)


@pytest.mark.defect("S3.5", "S3.6", "S3.7")
def test_the_own_header_snippet_presents_a_function_as_its_refresh_token_and_hangs(both) -> None:
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


@pytest.mark.defect("S3.4")
def test_the_own_header_snippet_waits_for_itself_when_its_refresh_is_challenged(both) -> None:
    printed, ours = both(OwnHeader, **EVERY)
    for play in (printed, ours):
        play.backend.expire()
        play.backend.spoil(Fault(status=400, body=b'{"code": 401}', headers={"retry-after": "30"}))
    assert printed.ask(hangs=True) == ["waits"]
    assert printed.ask(hangs=True) == ["waits"], "and so does whatever is challenged from then on"
    assert ours.ask() == ["error try_later"]
    assert ours.tab.status["refreshing"] is False


# ---- a mark ----------------------------------------------------------------------------------------------------------


@pytest.mark.defect("S4.1")
def test_the_mark_refreshes_per_challenge_and_causes_a_reuse_alarm(both) -> None:
    printed, ours = both(KeptRefresh)
    for play in (printed, ours):
        play.backend.expire()
        play.backend.spoil(Fault(seconds=0.1), times=3)
        play.send(count=3)
    assert "error 401" in printed.came(3)
    assert (printed.backend.refreshes, printed.backend.alarms > 0) == (3, True)
    assert (ours.came(3), ours.backend.refreshes, ours.backend.alarms) == ([200] * 3, 1, 0)


@pytest.mark.defect("S4.2")
def test_the_mark_loses_the_new_refresh_token_and_the_second_expiry_ends_the_session(both) -> None:
    printed, ours = both(KeptRefresh)
    for play in (printed, ours):
        play.backend.expire()
        assert play.ask() == [200]
        play.backend.expire()
    assert (printed.ask(), printed.backend.alarms) == (["error 401"], 1)
    assert (ours.ask(), ours.backend.alarms) == ([200], 0)


@pytest.mark.defect("S4.4")
def test_the_mark_refreshes_for_every_request_after_the_session_is_over(both) -> None:
    printed, ours = both(KeptRefresh)
    for play in (printed, ours):
        play.backend.end_sessions()
    assert [printed.ask() for _ in range(3)] == [["error 401"]] * 3
    assert [ours.ask() for _ in range(3)] == [["error session_over"]] * 3
    assert [play.backend.refreshes for play in (printed, ours)] == [3, 1]
