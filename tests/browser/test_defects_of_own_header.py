"""The defects of an interceptor that answers for itself, in a page of a backend with its own header and 400 for all."""

from __future__ import annotations

import hashlib
from urllib.parse import urlencode

import pytest

from tests.browser.scene import DOWN, JUNK, errors, statuses
from tests.interop.backends.base import Fault
from tests.interop.backends.shapes import OwnHeader

BROKEN = ("TypeError", "ERR_NETWORK")


@pytest.fixture
def scene(stage):
    return stage(OwnHeader())


def test_a_challenge_in_a_400_is_seen_s3_1(scene) -> None:
    scene.backend.expire()
    assert scene.get()["status"] == 200
    assert (scene.backend.exchanges, len(scene.backend.seen)) == (1, 2)


def test_an_error_keeps_its_answer_and_a_broken_connection_its_type_s3_2(scene) -> None:
    answer = scene.get("/api/error/400")
    assert (answer["status"], answer["json"]) == (400, {"code": 400, "msg": "no"})
    assert scene.get("/api/torn")["error"] in BROKEN
    assert scene.backend.exchanges == 0


def test_the_next_renewal_sends_no_old_request_again_s3_3(scene) -> None:
    for round_ in (1, 2):
        scene.backend.expire()
        scene.backend.spoil(Fault(seconds=0.1))
        assert statuses(scene.tab.together(3, "/api/echo", method="POST", body="a")) == [200] * 3
        good = [seen for seen in scene.backend.seen if seen.value == scene.backend.issued[-1].access]
        assert len(good) == 3, round_


def test_a_renewal_that_is_challenged_itself_does_not_wait_for_itself_s3_4(scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(Fault(status=400, body=b'{"code": 401}', headers={"retry-after": "30"}))
    assert scene.get()["error"] == "try_later"
    assert scene.tab.status["renewing"] is False
    assert scene.tab.stored["tokens"], "only the code 402 says that the session is over"


def test_the_end_reaches_all_who_wait_and_clears_the_tokens_s3_5(scene) -> None:
    scene.backend.end_sessions()
    scene.backend.spoil(Fault(seconds=0.1))
    assert errors(scene.together(20)) == ["session_over"] * 20
    assert ("tokens" in scene.tab.stored, len(scene.tab.heard("over"))) == (False, 1)


def test_what_is_presented_is_the_refresh_token_s3_6(scene) -> None:
    scene.backend.expire()
    scene.get()
    assert scene.backend.presented == [scene.backend.issued[0].refresh]


def test_a_request_can_go_without_its_token_and_the_exchange_always_does_s3_7(scene, client) -> None:
    body = '{"a": 1}'
    answer = scene.post(body, "/api/raw/200", skip=True)
    [seen] = scene.backend.seen
    assert (answer["status"], seen.value) == (200, "")
    assert seen.sha256 == hashlib.sha256(body.encode()).hexdigest(), "no control field went along"
    assert "unbroken" not in seen.headers
    scene.backend.expire()
    assert scene.get()["status"] == 200
    assert "token" not in scene.backend.beside[0]


def told(scene) -> str:
    """All that is said in the console and to listeners about one renewal that fails and one that works."""
    said: list[str] = []
    scene.tab.page.on("console", lambda message: said.append(message.text))
    scene.backend.expire()
    scene.backend.spoil(JUNK, times=3)
    failure = scene.get()
    scene.tab.pass_(60)
    assert scene.get()["status"] == 200
    heard = scene.tab.heard("renewal")
    assert [one["state"] for one in heard] == ["begun", "failed", "begun"]
    own = [line for line in said if not line.startswith("Failed to load resource")]  # the browser's own line
    return f"{failure}{own}{heard}{scene.tab.heard('tokens')}"


def test_the_refresh_token_in_a_query_is_told_nowhere_s3_8(scene) -> None:
    said = told(scene)
    assert len(scene.backend.presented) == 4
    assert not any(secret in said for secret in scene.backend.presented)


def test_the_answer_with_the_tokens_is_told_nowhere_s3_9(scene) -> None:
    said = told(scene)
    [_, fresh] = scene.backend.issued
    assert fresh.access not in said
    assert str(fresh.refresh) not in said


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("application/json", "null"),
        ("application/json", "[401]"),
        ("application/json", "{"),
        ("image/png", '{"code":401}'),
    ],
)
def test_a_400_of_any_other_form_is_handed_over_as_it_is_s3_10(scene, media_type, body) -> None:
    answer = scene.get("/api/raw/400?" + urlencode({"type": media_type, "body": body}))
    assert answer["status"] == 400
    assert answer["text"] == body or answer["json"] == [401]
    assert scene.backend.exchanges == 0


def test_the_new_tokens_are_stored_and_the_next_renewal_uses_them_s3_11(scene) -> None:
    for _ in range(3):
        scene.backend.expire()
        assert scene.get()["status"] == 200
    assert scene.backend.presented == [pair.refresh for pair in scene.backend.issued[:3]]
    newest, tokens = scene.backend.issued[-1], scene.tab.stored["tokens"]
    assert (tokens["access"], tokens["refresh"]) == (newest.access, newest.refresh)


def test_late_challenges_and_loops_have_an_end_s3_12(scene) -> None:
    scene.backend.expire()
    scene.backend.held = True
    late = scene.tab.begin("/api/late")
    scene.tab.until(lambda: scene.backend.requests_to("/api/late"))
    assert scene.get()["status"] == 200
    scene.backend.held = False
    assert scene.tab.outcome(late)["status"] == 200
    assert scene.backend.exchanges == 1
    assert statuses([scene.get("/api/never") for _ in range(10)]) == [400] * 10
    assert scene.backend.exchanges == 2


@pytest.mark.parametrize("client", ["axios"])
@pytest.mark.parametrize("kind", ["blob", "arraybuffer"])
def test_axios_sees_a_challenge_in_a_body_of_any_response_type(stage, kind, client) -> None:
    scene = stage(OwnHeader())
    scene.backend.expire()
    assert scene.get(responseType=kind)["status"] == 200
    assert scene.backend.exchanges == 1


@pytest.mark.parametrize("client", ["fetch", "request", "axios"])
def test_a_redirect_that_the_caller_wants_to_see_is_shown_to_him(stage, run, client) -> None:
    scene, other = stage(OwnHeader()), run(OwnHeader())
    manual = {"redirect": "manual"}
    wish = {"fetchOptions": manual} if client == "axios" else manual
    redirected = scene.get(f"/api/redirect?to={other.url}/api/echo", **wish)
    assert redirected["status"] == 0, "as the platform shows it"
    assert (len(scene.backend.seen), other.seen) == (1, [])
    assert scene.get()["status"] == 200


def test_an_exchange_that_fails_is_not_an_answer_to_the_request(scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(DOWN)
    assert scene.post("a")["error"] == "try_later"
    assert len(scene.backend.seen) == 1
