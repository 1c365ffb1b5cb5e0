"""Verifying tokens without the server's store: its published keys, over real HTTP, with everything that goes wrong.

Modules: _verify/cached.py, server/keys/remote_jwks.py.
"""

from __future__ import annotations

import base64
import json
import os
import threading
import time
from typing import Any

import anyio
import pytest
from joserfc.jwk import ECKey, OKPKey, RSAKey

from tests.support.identity import AUDIENCE, JWKS, Identity
from tests.support.waiting import until
from unbroken._single_flight import flights_under_way
from unbroken.errors import ConfigurationError, InvalidToken, TryLater
from unbroken.testing import ManualClock
from unbroken.verifier import Verifier


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def refused(verifier: Verifier, token: str) -> str:
    with pytest.raises(InvalidToken) as error:
        verifier.verify(token)
    return error.value.reason


def of_unknown_key(token: str, number: int = 0) -> str:
    """*token* as if another key had signed it."""
    head = base64.urlsafe_b64encode(json.dumps({"alg": "EdDSA", "kid": f"k{number}", "typ": "at+jwt"}).encode())
    return ".".join([head.rstrip(b"=").decode(), *token.split(".")[1:]])


# ---- what is verified ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alg", ["EdDSA", "ES256"])
def test_a_thousand_tokens_cost_one_request_for_the_keys(alg: str) -> None:
    with Identity(alg) as identity:
        verifier = identity.verifier()
        for number in range(100):
            token = identity.token(f"user {number}", scope="read")
            for _ in range(10):
                claims = verifier.verify(token)
            assert (claims.subject, claims.scope, claims.issuer) == (f"user {number}", "read", identity.url)
        assert identity.hits[JWKS] == 1


def test_the_claims_are_those_that_the_server_sees(identity: Identity) -> None:
    token = identity.token()
    assert identity.verifier().verify(token) == identity.sessions.verify(token)


def test_what_is_wrong_with_a_token_is_invalid_token(identity: Identity, clock: ManualClock) -> None:
    token, verifier = identity.token(), identity.verifier(clock=clock)
    head, body, signature = token.split(".")
    assert refused(verifier, f"{head}.{body}.{signature[::-1]}") == "malformed"
    assert [refused(verifier, junk) for junk in ("", "x", "a.b.c", token + "=", token * 100)] == ["malformed"] * 5
    assert refused(Verifier(identity.url + JWKS, issuer=identity.url, audience="bank"), token) == "malformed"
    assert refused(Verifier(identity.url + JWKS, issuer="https://evil", audience=AUDIENCE), token) == "malformed"
    clock.advance(1801)
    assert refused(verifier, token) == "expired"


def test_a_leeway_is_for_clocks_that_are_ahead(identity: Identity, clock: ManualClock) -> None:
    token = identity.token()
    clock.advance(1803)
    assert identity.verifier(clock=clock, leeway=5.0).verify(token).subject == "ada"
    with pytest.raises(ConfigurationError, match="set the clock right"):
        identity.verifier(leeway=61.0)


# ---- one request for all ---------------------------------------------------------------------------------------------


def test_threads_that_come_at_once_share_one_request(identity: Identity) -> None:
    token, verifier, found = identity.token(), identity.verifier(), []
    identity.hangs(JWKS)
    threads = [threading.Thread(target=lambda: found.append(verifier.verify(token).subject)) for _ in range(20)]
    for thread in threads:
        thread.start()
    until(lambda: identity.hits[JWKS])
    identity.well()
    for thread in threads:
        thread.join(10)
    assert (found, identity.hits[JWKS]) == (["ada"] * 20, 1)


@pytest.mark.anyio
async def test_tasks_that_come_at_once_share_one_request(identity: Identity) -> None:
    token, verifier, found = identity.token(), identity.verifier(), []
    identity.hangs(JWKS)

    async def one() -> None:
        found.append((await verifier.averify(token)).subject)

    async with anyio.create_task_group() as group:
        for _ in range(200):
            group.start_soon(one)
        while not identity.hits[JWKS]:  # noqa: ASYNC110  # it is the server's counter, in another thread
            await anyio.sleep(0.005)
        identity.well()
    assert (found, identity.hits[JWKS]) == (["ada"] * 200, 1)


@pytest.mark.anyio
async def test_who_is_cancelled_leaves_the_request_to_the_others(identity: Identity) -> None:
    token, verifier = identity.token(), identity.verifier()
    identity.hangs(JWKS)
    with anyio.move_on_after(0.05) as scope:
        await verifier.averify(token)
    assert scope.cancelled_caught
    identity.well()
    assert (await verifier.averify(token)).subject == "ada"
    assert identity.hits[JWKS] == 1


def test_a_forked_child_asks_for_itself(identity: Identity) -> None:
    token, verifier = identity.token(), identity.verifier(timeout=8.0)
    identity.hangs(JWKS)
    parent = threading.Thread(target=lambda: verifier.verify(token))
    parent.start()
    until(lambda: identity.hits[JWKS])  # the parent's thread asks
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if verifier.verify(token).subject == "ada" else 1)
        except BaseException:  # noqa: BLE001  # the child says so by its status
            os._exit(2)
    until(lambda: identity.hits[JWKS] == 2)
    identity.well()
    _, status = os.waitpid(child, 0)
    parent.join(10)
    assert os.waitstatus_to_exitcode(status) == 0


# ---- keys that change ------------------------------------------------------------------------------------------------


def test_keys_are_refreshed_in_the_backgrounds_before_they_go_stale(identity: Identity, clock: ManualClock) -> None:
    token, verifier = identity.token(), identity.verifier(clock=clock)
    verifier.verify(token)
    clock.advance(0.6 * 300)
    verifier.verify(token)
    assert identity.hits[JWKS] == 1
    clock.advance(0.3 * 300)  # the server said max-age=300
    identity.hangs(JWKS)
    for _ in range(10):
        assert verifier.verify(token).subject == "ada"
    until(lambda: identity.hits[JWKS] == 2)
    identity.well()
    until(lambda: not flights_under_way())
    verifier.verify(token)
    assert identity.hits[JWKS] == 2


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("", 300), ("max-age=60", 60), ("public, max-age=999999", 3600), ("max-age=0", 10), ("no-store", 10)],
)
def test_how_long_keys_are_fresh_says_the_server_within_bounds(
    identity: Identity, clock: ManualClock, said: str, seconds: float
) -> None:
    published = json.dumps(identity.sessions.jwks()).encode()
    identity.responds(JWKS, body=published, **{"cache-control": said})
    token, verifier = identity.token(), identity.verifier(clock=clock, keep=7200.0)
    verifier.verify(token)
    for age, hits in ((0.6, 1), (0.35, 2)):
        clock.advance(age * seconds)
        clock.set(-age * seconds)  # only the keys age here, not the token
        verifier.verify(token)
        until(lambda hits=hits: identity.hits[JWKS] == hits)


def test_a_new_key_is_asked_for_when_its_first_token_comes(identity: Identity, clock: ManualClock) -> None:
    verifier = identity.verifier(clock=clock)
    verifier.verify(identity.token())
    identity.sessions.rotate_keys(publish_ahead=0.0)
    clock.advance(5)
    assert verifier.verify(identity.token()).subject == "ada"
    assert identity.hits[JWKS] == 2


def test_tokens_of_unknown_keys_cause_no_storm(identity: Identity, clock: ManualClock) -> None:
    good, verifier = identity.token(), identity.verifier(clock=clock)
    verifier.verify(good)
    for round_ in range(3):
        clock.advance(5)
        for number in range(300):
            assert refused(verifier, of_unknown_key(good, 300 * round_ + number)) == "malformed"
        assert identity.hits[JWKS] == 2 + round_
    assert verifier.verify(good).subject == "ada"


def test_a_token_of_an_unknown_key_is_try_later_while_the_server_is_down(
    identity: Identity, clock: ManualClock
) -> None:
    good, verifier = identity.token(), identity.verifier(clock=clock)
    verifier.verify(good)
    clock.advance(5)
    identity.responds(JWKS, 503, retry_after="7")
    for _ in range(50):
        with pytest.raises(TryLater) as error:
            verifier.verify(of_unknown_key(good))
    assert 0 < error.value.retry_after <= 7
    assert identity.hits[JWKS] == 2
    assert verifier.verify(good).subject == "ada"


def test_a_withdrawn_key_counts_no_more_not_even_for_tokens_seen_before(identity: Identity, clock: ManualClock) -> None:
    token, verifier = identity.token(), identity.verifier(clock=clock)
    verifier.verify(token)
    [key] = identity.sessions.keyring().signing
    identity.sessions.retire_key(key.kid)
    clock.advance(301)  # nobody was there to refresh the keys behind: so this request waits for them
    assert refused(verifier, token) == "malformed"
    assert verifier.verify(identity.token()).subject == "ada"


# ---- a server that does not respond ----------------------------------------------------------------------------------


def test_keys_stay_in_use_for_a_bounded_time_while_the_server_is_down(identity: Identity, clock: ManualClock) -> None:
    token, verifier = identity.token(), identity.verifier(clock=clock, keep=1200.0)
    verifier.verify(token)
    identity.responds(JWKS, 500)
    for _ in range(11):
        clock.advance(100)
        assert verifier.verify(token).subject == "ada"
    until(lambda: not flights_under_way())
    clock.advance(101)
    with pytest.raises(TryLater, match="cannot be fetched now"):
        verifier.verify(token)
    identity.well()
    clock.advance(60)
    assert verifier.verify(token).subject == "ada"


def test_a_service_that_starts_while_the_server_is_down_asks_now_and_then(
    identity: Identity, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    token, verifier = identity.token(), identity.verifier(clock=clock)
    identity.stop()
    for _ in range(100):
        with pytest.raises(TryLater) as error:
            verifier.verify(token)
        assert error.value.retry_after > 0
    assert str(error.value.__cause__).endswith("cannot be reached (connection refused)")
    keys = f"{identity.url}{JWKS}"
    assert [record.message for record in caplog.records] == [
        f"the keys at {keys} cannot be fetched: {keys} cannot be reached (connection refused)"
    ]


def test_a_server_that_hangs_costs_one_wait_and_not_one_a_request(identity: Identity) -> None:
    token, verifier = identity.token(), identity.verifier(timeout=0.3)
    identity.hangs(JWKS)
    for _ in range(50):
        with pytest.raises(TryLater):
            verifier.verify(token)
    assert identity.hits[JWKS] == 1


def test_no_request_waits_again_for_new_keys_while_the_old_ones_will_do(identity: Identity, clock: ManualClock) -> None:
    token, verifier = identity.token(), identity.verifier(clock=clock)
    verifier.verify(token)
    identity.responds(JWKS, 500)
    clock.advance(301)
    verifier.verify(token)
    identity.hangs(JWKS)
    clock.advance(5)
    begun = time.monotonic()
    for _ in range(20):
        assert verifier.verify(token).subject == "ada"
    assert time.monotonic() - begun < 5
    assert flights_under_way()


GOOD = {"use": "sig", "alg": "EdDSA", "kid": "k"}
ED = OKPKey.generate_key("Ed25519")
PRIVATE, OPEN = ED.as_dict(private=True) | GOOD, ED.as_dict(private=False) | GOOD
USELESS: dict[str, Any] = {
    "no JSON": b"<html>it works</html>",
    "no object": [],
    "no keys": {"keys": []},
    "keys are no list": {"keys": {"k": OPEN}},
    "keys are no objects": {"keys": ["k", None, 1]},
    "a private key": {"keys": [PRIVATE]},
    "a shared secret": {"keys": [{"kty": "oct", "k": "AAAA", "alg": "HS256", "kid": "k"}]},
    "a shared secret that calls itself EdDSA": {"keys": [OPEN | {"kty": "oct", "k": "AAAA"}]},
    "an RSA key": {"keys": [RSAKey.generate_key(2048).as_dict(private=False) | {"alg": "RS256", "kid": "k"}]},
    "no alg": {"keys": [{name: value for name, value in OPEN.items() if name != "alg"}]},
    "the alg none": {"keys": [OPEN | {"alg": "none"}]},
    "an alg of another kind": {"keys": [OPEN | {"alg": "ES256"}]},
    "another curve": {"keys": [ECKey.generate_key("P-384").as_dict(private=False) | {"alg": "ES256", "kid": "k"}]},
    "a point that is on no curve": {
        "keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "alg": "ES256", "kid": "k"}]
    },
    "for encryption": {"keys": [OPEN | {"use": "enc"}]},
    "for signing only": {"keys": [OPEN | {"key_ops": ["sign"]}]},
    "without a name": {"keys": [{name: value for name, value in OPEN.items() if name != "kid"}]},
    "a name that is no text": {"keys": [OPEN | {"kid": ["k"]}]},
    "two of one name": {"keys": [OPEN, OPEN]},
    "too many": {"keys": [OPEN | {"kid": f"k{number}"} for number in range(101)]},
    "too long": {"keys": [OPEN], "more": "x" * (256 * 1024)},
}


@pytest.mark.parametrize("what", USELESS.values(), ids=USELESS)
def test_a_useless_set_of_keys_is_try_later(identity: Identity, what: Any) -> None:
    identity.responds(JWKS, body=what if isinstance(what, bytes) else json.dumps(what).encode())
    with pytest.raises(TryLater):
        identity.verifier().verify(of_unknown_key(identity.token()))


def test_useless_keys_do_no_harm_beside_good_ones(identity: Identity, caplog: pytest.LogCaptureFixture) -> None:
    both = [*identity.sessions.jwks()["keys"], PRIVATE]
    identity.responds(JWKS, body=json.dumps({"keys": both}).encode())
    assert identity.verifier().verify(identity.token()).subject == "ada"
    assert "the key 'k' is published with its private part" in caplog.text
    assert PRIVATE["d"] not in caplog.text


def test_useless_keys_do_not_replace_good_ones(identity: Identity, clock: ManualClock) -> None:
    token, verifier = identity.token(), identity.verifier(clock=clock)
    verifier.verify(token)
    identity.responds(JWKS, body=b'{"keys": []}')
    clock.advance(400)
    assert verifier.verify(token).subject == "ada"
    assert identity.hits[JWKS] == 2


def test_a_redirect_is_not_followed(identity: Identity) -> None:
    identity.redirects(JWKS, identity.url + "/elsewhere")
    with pytest.raises(TryLater) as error:
        identity.verifier().verify(identity.token())
    assert "redirects are not followed" in str(error.value.__cause__)
    assert identity.hits["/elsewhere"] == 0


@pytest.mark.parametrize("url", ["http://id.example.org/k", "id.example.org", "https://id/k?x=1", "https://a:b@id/k"])
def test_keys_come_from_plain_https_urls_only(url: str) -> None:
    with pytest.raises(ConfigurationError):
        Verifier(url, issuer="https://id.example.org", audience=AUDIENCE)
