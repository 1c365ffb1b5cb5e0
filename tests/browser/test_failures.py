"""A refresh that fails loses nothing: only a definite response ends a session."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from tests.browser.scene import DOWN
from tests.interop.backends.base import Fault
from tests.interop.backends.shapes import BearerJson, OwnHeader


@pytest.mark.defect("I4", "P10")
def test_a_session_survives_a_time_offline(stage, context) -> None:
    scene = stage(BearerJson(lifetime=1800))
    scene.tab.pass_(1800)
    context.set_offline(True)
    assert scene.get()["error"] in ("try_later", "ERR_NETWORK", "TypeError")
    assert scene.tab.heard("over") == []
    context.set_offline(False)
    scene.tab.until(lambda: len(scene.backend.issued) == 2)
    assert scene.get()["status"] == 200


@pytest.mark.defect("I4")
def test_a_refused_refresh_does_not_end_a_session_that_another_tab_has_refreshed(stage) -> None:
    scene = stage(BearerJson(), tabs=2, before="delete Navigator.prototype.locks;")
    scene.backend.expire()
    scene.backend.spoil(Fault(held=True, status=401))
    slow = scene.tab.begin("/api/echo")
    scene.tab.until(lambda: scene.backend.refreshes == 1)
    assert scene.tabs[1].ask("/api/echo")["status"] == 200
    scene.backend.go_on.set()
    assert scene.tab.outcome(slow)["status"] == 200
    assert [tab.heard("over") for tab in scene.tabs] == [[], []]


@pytest.mark.defect("I4")
def test_a_token_that_has_not_expired_is_used_while_the_server_cannot_refresh(stage) -> None:
    scene = stage(BearerJson(lifetime=1800))
    scene.backend.spoil(DOWN, times=9)
    scene.tab.pass_(1795)
    assert scene.get()["status"] == 200
    assert scene.backend.refreshes == 1


@pytest.mark.defect("I9")
@pytest.mark.parametrize("body", [b'{"accessToken": 7}', b'{"refreshToken": "r"}', b'{"accessToken": "a\\n"}', b"[]"])
def test_an_incomplete_token_response_leaves_the_stored_tokens_as_they_were(stage, body) -> None:
    scene = stage(BearerJson())
    before = scene.tab.stored["tokens"]
    scene.backend.expire()
    scene.backend.spoil(Fault(status=200, body=body), times=3)
    assert scene.get()["error"] in ("bad_answer", "try_later")
    assert scene.tab.stored["tokens"] == before
    scene.backend.faults.clear()
    scene.tab.pass_(60)
    assert scene.get()["status"] == 200


def test_a_third_rejected_token_in_thirty_seconds_is_a_renewal_storm(stage) -> None:
    scene = stage(BearerJson(), window={"attempts": 2, "interval": 30})
    for _ in range(2):
        scene.backend.expire()
        assert scene.get()["status"] == 200
    scene.backend.expire()
    assert scene.get()["status"] == 401, "the server's own response"
    assert scene.backend.refreshes == 2
    assert scene.tab.heard("refresh")[-1] == {"state": "failed", "code": "renewal_storm"}
    scene.tab.pass_(31)
    assert scene.get()["status"] == 200


def test_a_retry_after_of_hours_is_cut_to_one_hour(stage) -> None:
    scene = stage(BearerJson())
    scene.backend.expire()
    scene.backend.spoil(Fault(status=503, headers={"retry-after": "7200"}))
    assert scene.get()["retryAfter"] == 3600
    scene.tab.pass_(3500)
    caught = scene.get()
    assert (caught["error"], scene.backend.refreshes) == ("try_later", 1)
    assert caught["retryAfter"] == pytest.approx(100, abs=20)
    scene.tab.pass_(101)
    assert scene.get()["status"] == 200


@pytest.mark.parametrize(("ahead", "wait"), [(60, 60), (100_000, 3600), (-60, 1)])
def test_a_retry_after_date_is_read_against_the_servers_own_date(stage, ahead, wait) -> None:
    scene = stage(BearerJson())
    scene.backend.expire()
    scene.tab.pass_(5000)
    until = formatdate(time.time() + ahead, usegmt=True)
    scene.backend.spoil(Fault(status=503, headers={"retry-after": until}), times=3)
    caught = scene.get()
    assert (caught["error"], caught["retryAfter"]) == ("try_later", pytest.approx(wait, abs=3))


CODES = {
    "tokens in the clear": ("() => createSession({ url: 'http://shop.example/auth' })", "misconfigured"),
    "in the clear on purpose": ("() => createSession({ url: 'http://shop.example/auth', allowPlainHttp: true })", None),
    "no URL for a login": ("() => session.login('ada', 'word')", "misconfigured"),
    "a response without tokens": ("() => session.importTokens({})", "bad_answer"),
    "no response": ("() => session.importTokens(null)", "bad_answer"),
    "nobody is logged in": ("async () => { await session.logout(); await session.token(); }", "session_over"),
}


@pytest.mark.parametrize("client", ["fetch"])
@pytest.mark.parametrize(("script", "code"), CODES.values(), ids=CODES)
def test_a_mistake_has_its_error_code(stage, client, script, code) -> None:
    scene = stage(OwnHeader())  # whose dialect has no login
    assert scene.tab.attempt(script).get("error") == code


# ---- an OAuth error in a 200, as GitHub sends it ---------------------------------------------------------------------

OAUTH = {"status": [200, 400, 401], "field": "error", "values": ["invalid_grant"]}  # the module's default


def test_a_dead_token_in_a_200_ends_the_session(stage) -> None:
    scene = stage(BearerJson(), endsSession=OAUTH)
    scene.backend.expire()
    body = b'{"error": "invalid_grant", "error_description": "the token is incorrect or expired"}'
    scene.backend.spoil(Fault(status=200, body=body), times=3)
    assert scene.get()["error"] == "session_over"
    assert [one["reason"] for one in scene.tab.heard("over")] == ["invalid_grant"]
    assert scene.backend.refreshes == 1


def test_another_error_in_a_200_keeps_the_session_and_is_repeated_in_its_own_words(stage) -> None:
    scene = stage(BearerJson(), endsSession=OAUTH)
    before = scene.tab.stored["tokens"]
    scene.backend.expire()
    body = b'{"error": "temporarily_unavailable", "error_description": "come back at noon"}'
    scene.backend.spoil(Fault(status=200, body=body), times=9)
    failed = scene.get()
    assert failed["error"] in ("bad_answer", "try_later")
    assert "temporarily_unavailable: come back at noon" in failed["message"]
    assert scene.tab.heard("over") == []
    assert scene.tab.stored["tokens"] == before
    scene.backend.faults.clear()
    scene.tab.pass_(60)
    assert scene.get()["status"] == 200
