"""Which responses reject the access token, and what becomes of the request."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest

from tests.interop.backends.shapes import BearerJson, OwnHeader

# ---- refresh and send again ------------------------------------------------------------------------------------------


@pytest.mark.defect("I3", "P8")
def test_a_late_challenge_in_another_tab_needs_no_refresh(stage) -> None:
    scene = stage(BearerJson(), tabs=2)
    scene.backend.expire()
    late = scene.hold(tab=scene.tabs[1])
    assert scene.get()["status"] == 200
    scene.release()
    assert scene.tabs[1].outcome(late)["status"] == 200
    assert scene.backend.refreshes == 1


@pytest.mark.defect("I3")
def test_the_response_to_the_second_try_is_final(stage) -> None:
    scene = stage(BearerJson())
    assert scene.get("/api/never")["status"] == 401
    assert (scene.backend.refreshes, len(scene.backend.requests_to("/api/never"))) == (1, 2)


# ---- which responses -------------------------------------------------------------------------------------------------


JSON_TYPES = ["application/json", "application/json;charset=utf-8", "Application/JSON ; a=b", "application/vnd.a+json"]


@pytest.mark.defect("I6")
@pytest.mark.parametrize("kind", JSON_TYPES)
def test_a_challenge_in_a_body_is_found_in_every_json_media_type(stage, kind) -> None:
    scene = stage(OwnHeader())
    body = "/api/raw/400?" + urlencode({"type": kind, "body": '{"code": 401}'})
    assert scene.get(body)["status"] == 400
    assert scene.backend.refreshes == 1


@pytest.mark.defect("I6")
@pytest.mark.parametrize("client", ["fetch"])  # axios itself waits for the end of an response
@pytest.mark.parametrize("kind", ["application/x-ndjson", "application/json-seq", "application/jsonl", "text/plain"])
def test_a_response_without_an_end_is_returned_at_its_beginning(shop, at_shop, kind, client) -> None:
    [tab] = at_shop(shop(), challenge={"status": [200, 401], "field": "code", "values": [401]})
    script = """async (url) => {
        const response = await session.fetch(url, { signal: AbortSignal.timeout(5000) });
        const { value } = await response.body.getReader().read();
        return new TextDecoder().decode(value);
    }"""
    assert tab.run(script, f"/lines?type={kind}") == '{"code": 200}\n'


@pytest.mark.defect("I6")
def test_other_responses_and_errors_are_the_own_objects_of_the_http_client(stage, client) -> None:
    scene = stage(BearerJson())
    script = """async () => {
        let mine;
        const wire = window.fetch;
        window.fetch = async (...about) => (mine = await wire(...about));
        const own = createSession({ ...options, key: "own" });
        own.importTokens({ accessToken: stored().tokens.access, refreshToken: "r" });
        const [response, bad] = [await own.fetch("/api/echo"), await own.fetch("/api/error/500")];
        window.fetch = wire;
        return [response.constructor === Response, bad === mine, response.bodyUsed, bad.status];
    }"""
    scene.tab.run("(options) => (window.options = options)", scene.options)
    assert scene.tab.run(script) == [True, True, False, 500]
    refused = (
        "() => instance.get('/api/error/500').catch((error) => [error.constructor === axios.AxiosError, error.code])"
    )
    assert scene.tab.run(refused) == [True, "ERR_BAD_RESPONSE"]


def test_a_negated_condition_matches_every_value_but_the_listed_ones(stage) -> None:
    negated = {"status": [400], "field": "code", "values": [400, 500], "negate": True}
    scene = stage(OwnHeader(), challenge=negated)
    assert scene.get("/api/error/400")["status"] == 400
    assert scene.backend.refreshes == 0
    scene.backend.expire()
    assert scene.get()["status"] == 200, "401 is none of those"
    assert scene.backend.refreshes == 1


# ---- a header that is set by hand ------------------------------------------------------------------------------------


@pytest.mark.defect("I6")
@pytest.mark.parametrize("header", ["Bearer mine", "Basic abc"])
def test_a_header_with_a_token_of_the_caller_is_left_alone(stage, header) -> None:
    scene = stage(BearerJson())
    assert scene.get(headers={"Authorization": header})["status"] == 401
    assert [seen.value for seen in scene.backend.seen] == [header]
    assert scene.backend.refreshes == 0


@pytest.mark.defect("I6")
def test_a_header_with_an_old_token_of_the_session_gets_the_newest_one(stage) -> None:
    scene = stage(BearerJson())
    old = f"Bearer {scene.backend.issued[0].access}"
    assert scene.get()["status"] == 200
    scene.backend.expire()
    assert scene.get()["status"] == 200
    assert scene.get(headers={"authorization": old})["status"] == 200
    assert scene.backend.refreshes == 1


BY_HAND = "(token) => void (axios.defaults.headers.common.Authorization = `Bearer ${token}`)"


@pytest.fixture
def by_hand(client):
    """Sends a request with a token that the page has put into the header itself."""

    def ask(tab: Any, token: str) -> dict[str, Any]:
        if client == "fetch":
            return tab.ask("/api/echo", headers={"Authorization": f"Bearer {token}"})
        tab.run(BY_HAND, token)  # instances made from now on have it
        tab.run("() => { window.instance = axios.create(); session.attach(instance); }")
        return tab.run("() => instance.get('/api/echo').then(({ status }) => ({ status }), ({ response }) => response)")

    return ask


@pytest.mark.parametrize("source", ["imported", "requested", "after a reload", "of another tab", "refreshed since"])
def test_a_request_with_the_sessions_token_set_by_hand_is_refreshed_like_any_other(stage, by_hand, source) -> None:
    scene = stage(BearerJson(), tabs=2)
    tab, other = scene.tabs
    if source == "after a reload":
        tab.page.reload()
        tab.page.wait_for_function("window.ready")
        tab.start(**scene.options)
    if source == "of another tab":
        scene.backend.expire()
        assert other.ask("/api/echo")["status"] == 200
        tab.until(lambda: tab.status["version"] == other.status["version"])
    token = tab.run("() => session.token()") if source == "requested" else scene.backend.issued[-1].access
    if source == "refreshed since":
        scene.backend.expire()
        assert other.ask("/api/echo")["status"] == 200
    before = scene.backend.refreshes
    scene.backend.expire()
    assert by_hand(tab, token)["status"] == 200
    assert scene.backend.refreshes == before + 1
