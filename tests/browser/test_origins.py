"""Where tokens go: to allowed origins only, over https or to this machine."""

from __future__ import annotations

import pytest

from tests.interop.backends.shapes import BearerJson, OwnHeader


@pytest.mark.defect("C2")
@pytest.mark.parametrize("shape", [BearerJson, OwnHeader])
def test_no_token_reaches_another_origin_not_even_by_a_redirect(stage, run, shape) -> None:
    scene, other = stage(shape()), run(shape())
    refused = other.challenge().status_code
    assert scene.get(other.url + "/api/echo")["status"] == refused
    redirected = scene.get(f"/api/redirect?to={other.url}/api/echo")
    if shape is OwnHeader:  # browsers take every header but Authorization along: so no redirect is followed
        assert redirected["error"] in ("TypeError", "ERR_NETWORK")
    else:
        assert redirected["status"] == refused
    assert [seen.value for seen in other.seen] == [""] * (1 if shape is OwnHeader else 2)
    assert scene.backend.refreshes == 0, "a challenge of another origin is not about our token"
    assert scene.get()["status"] == 200


@pytest.mark.defect("I8")
def test_tokens_reach_an_allowed_origin_and_none_that_looks_like_it(stage, run) -> None:
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


def test_listed_origins_replace_that_of_the_refresh_endpoint(stage, run) -> None:
    scene, api = stage(BearerJson()), run(BearerJson())
    scene.tab.start(**scene.options, origins=[api.url])
    [pair] = scene.backend.issued
    assert scene.get(api.url + "/api/echo")["status"] == 401
    assert {seen.value for seen in api.seen} >= {f"Bearer {pair.access}"}
    assert scene.get()["status"] == 401
    assert [seen.value for seen in scene.backend.seen] == [""]


ORIGINS = {
    "https://shop.example": True,
    "https://localhost.shop.example:8443": True,
    "http://localhost": True,
    "http://localhost:8000": True,
    "http://127.0.0.1:8000": True,
    "http://127.8.9.1": True,
    "http://[::1]": True,
    "http://[::1]:8000": True,
    "http://shop.example": False,
    "http://localhost.evil.example": False,
    "http://localhost.evil.example:8000": False,
    "http://localhosts": False,
    "http://127.evil.example": False,
    "http://127.0.0.1.evil.example": False,
    "http://localhost:80@evil.example": False,
    "http://[2001:db8::1]": False,
    "ws://localhost": False,
    "http://evil.example/http://localhost": False,
}


@pytest.mark.parametrize("client", ["fetch"])
@pytest.mark.parametrize("option", ["url", "origins", "refresh", "login"])
def test_only_loopback_is_allowed_without_https(stage, client, option) -> None:
    scene = stage(BearerJson())
    script = """(option, places) => places.map((place) => {
        const safe = { url: "https://shop.example", refresh: { url: "/refresh" }, origins: ["https://shop.example"] };
        const asks = { refresh: { url: place + "/refresh" }, login: { url: place + "/login" } };
        const own = { url: { url: place, refresh: undefined, origins: undefined }, origins: { origins: [place] } };
        try {
            createSession({ ...safe, ...(own[option] ?? { [option]: asks[option] }) }).dispose();
            return true;
        } catch ({ code }) {
            return code !== "misconfigured";
        }
    })"""
    allowed = scene.tab.run(script, option, list(ORIGINS))
    assert dict(zip(ORIGINS, allowed, strict=True)) == ORIGINS
