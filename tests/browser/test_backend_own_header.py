"""A backend with its own header and a 400 for everything; and the defects of an interceptor that responds by itself."""

from __future__ import annotations

import hashlib
from urllib.parse import urlencode

import pytest

from tests.browser.scene import BROKEN, DOWN, JUNK, errors, statuses
from tests.interop.backends.base import Fault
from tests.interop.backends.shapes import OwnHeader


@pytest.fixture
def scene(stage):
    return stage(OwnHeader())


@pytest.mark.defect("S3.1")
def test_a_challenge_in_a_400_is_found(scene) -> None:
    scene.backend.expire()
    assert scene.get()["status"] == 200
    assert (scene.backend.refreshes, len(scene.backend.seen)) == (1, 2)


@pytest.mark.defect("S3.2")
def test_an_error_keeps_its_response_and_a_broken_connection_its_type(scene) -> None:
    response = scene.get("/api/error/400")
    assert (response["status"], response["json"]) == (400, {"code": 400, "msg": "no"})
    assert scene.get("/api/torn")["error"] in BROKEN
    assert scene.backend.refreshes == 0


@pytest.mark.defect("S3.3")
def test_each_refresh_repeats_only_its_own_requests(scene) -> None:
    for round_ in (1, 2):
        scene.backend.expire()
        scene.backend.spoil(Fault(seconds=0.1))
        assert statuses(scene.tab.together(3, "/api/echo", method="POST", body="a")) == [200] * 3
        good = [seen for seen in scene.backend.seen if seen.value == scene.backend.issued[-1].access]
        assert len(good) == 3, round_


@pytest.mark.defect("S3.4")
def test_a_refresh_that_is_challenged_itself_does_not_wait_for_itself(scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(Fault(status=400, body=b'{"code": 401}', headers={"retry-after": "30"}))
    assert scene.get()["error"] == "try_later"
    assert scene.tab.status["refreshing"] is False
    assert scene.tab.stored["tokens"], "only the code 402 says that the session is over"


@pytest.mark.defect("S3.5")
def test_the_end_of_a_session_reaches_all_waiting_requests_and_clears_the_tokens(scene) -> None:
    scene.backend.end_sessions()
    scene.backend.spoil(Fault(seconds=0.1))
    assert errors(scene.together(20)) == ["session_over"] * 20
    assert ("tokens" in scene.tab.stored, len(scene.tab.heard("over"))) == (False, 1)


@pytest.mark.defect("S3.6")
def test_a_refresh_presents_the_refresh_token(scene) -> None:
    scene.backend.expire()
    scene.get()
    assert scene.backend.presented == [scene.backend.issued[0].refresh]


@pytest.mark.defect("S3.7")
def test_a_request_can_opt_out_of_its_token_and_a_refresh_never_has_one(scene, client) -> None:
    body = '{"a": 1}'
    response = scene.post(body, "/api/raw/200", skip=True)
    [seen] = scene.backend.seen
    assert (response["status"], seen.value) == (200, "")
    assert seen.sha256 == hashlib.sha256(body.encode()).hexdigest(), "no control field went along"
    assert "unbroken" not in seen.headers
    scene.backend.expire()
    assert scene.get()["status"] == 200
    assert "token" not in scene.backend.beside[0]


def everything_said(scene) -> str:
    """Return all that the console, errors and events say about one refresh that fails and one that works."""
    said: list[str] = []
    scene.tab.page.on("console", lambda message: said.append(message.text))
    scene.backend.expire()
    scene.backend.spoil(JUNK, times=3)
    failure = scene.get()
    scene.tab.pass_(60)
    assert scene.get()["status"] == 200
    heard = scene.tab.heard("refresh")
    assert [one["state"] for one in heard] == ["started", "failed", "started"]
    own = [line for line in said if not line.startswith("Failed to load resource")]  # the browser's own line
    return f"{failure}{own}{heard}{scene.tab.heard('tokens')}"


@pytest.mark.defect("S3.8")
def test_a_refresh_token_in_a_query_appears_in_no_log_error_or_event(scene) -> None:
    said = everything_said(scene)
    assert len(scene.backend.presented) == 4
    assert not any(secret in said for secret in scene.backend.presented)


@pytest.mark.defect("S3.9")
def test_a_token_response_appears_in_no_log_error_or_event(scene) -> None:
    said = everything_said(scene)
    [_, fresh] = scene.backend.issued
    assert fresh.access not in said
    assert str(fresh.refresh) not in said


@pytest.mark.defect("S3.10")
@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("application/json", "null"),
        ("application/json", "[401]"),
        ("application/json", "{"),
        ("image/png", '{"code":401}'),
    ],
)
def test_a_400_of_any_other_form_is_returned_unchanged(scene, media_type, body) -> None:
    response = scene.get("/api/raw/400?" + urlencode({"type": media_type, "body": body}))
    assert response["status"] == 400
    assert response["text"] == body or response["json"] == [401]
    assert scene.backend.refreshes == 0


@pytest.mark.defect("S3.11")
def test_new_tokens_are_stored_and_the_next_refresh_uses_them(scene) -> None:
    for _ in range(3):
        scene.backend.expire()
        assert scene.get()["status"] == 200
    assert scene.backend.presented == [pair.refresh for pair in scene.backend.issued[:3]]
    newest, tokens = scene.backend.issued[-1], scene.tab.stored["tokens"]
    assert (tokens["access"], tokens["refresh"]) == (newest.access, newest.refresh)


@pytest.mark.defect("S3.12")
def test_a_late_challenge_needs_no_refresh_and_a_rejecting_endpoint_causes_no_loop(scene) -> None:
    scene.backend.expire()
    late = scene.hold()
    assert scene.get()["status"] == 200
    scene.release()
    assert scene.tab.outcome(late)["status"] == 200
    assert scene.backend.refreshes == 1
    assert statuses([scene.get("/api/never") for _ in range(10)]) == [400] * 10
    assert scene.backend.refreshes == 2


@pytest.mark.parametrize("client", ["axios"])
@pytest.mark.parametrize("kind", ["blob", "arraybuffer"])
def test_axios_finds_a_challenge_in_a_body_of_every_response_type(stage, kind, client) -> None:
    scene = stage(OwnHeader())
    scene.backend.expire()
    assert scene.get(responseType=kind)["status"] == 200
    assert scene.backend.refreshes == 1


@pytest.mark.parametrize("client", ["fetch", "request", "axios"])
def test_a_redirect_that_the_caller_handles_is_returned(stage, run, client) -> None:
    scene, other = stage(OwnHeader()), run(OwnHeader())
    manual = {"redirect": "manual"}
    wish = {"fetchOptions": manual} if client == "axios" else manual
    redirected = scene.get(f"/api/redirect?to={other.url}/api/echo", **wish)
    assert redirected["status"] == 0, "as the platform shows it"
    assert (len(scene.backend.seen), other.seen) == (1, [])
    assert scene.get()["status"] == 200


def test_the_response_of_a_failed_refresh_is_not_the_response_to_the_request(scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(DOWN)
    assert scene.post("a")["error"] == "try_later"
    assert len(scene.backend.seen) == 1
