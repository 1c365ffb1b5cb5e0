"""How a service that only verifies tokens learns that a session was revoked, and what it does when it cannot."""

from __future__ import annotations

import json
import threading

import anyio
import pytest

from tests.support.identity import FEED, INTROSPECT, Identity
from tests.support.waiting import until
from tests.unit.test_verifier import refused
from unbroken._single_flight import flights_under_way
from unbroken.errors import ConfigurationError, InvalidToken, TryLater
from unbroken.testing import ManualClock
from unbroken.verifier import Introspection, RevocationFeed, Verifier


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def introspecting(
    identity: Identity, clock: ManualClock, on_unavailable: str = "reject", **settings: object
) -> Verifier:
    asks = Introspection(
        identity.url + INTROSPECT, identity.service(), on_unavailable=on_unavailable, clock=clock, **settings
    )
    return identity.verifier(clock=clock, revocation=asks)


def fed(identity: Identity, clock: ManualClock, on_unavailable: str = "reject", **settings: object) -> Verifier:
    feed = RevocationFeed(
        identity.url + FEED, identity.service(), on_unavailable=on_unavailable, clock=clock, **settings
    )
    return identity.verifier(clock=clock, revocation=feed)


def test_without_a_choice_a_revoked_session_lives_as_long_as_its_token(identity: Identity) -> None:
    token, verifier = identity.token(), identity.verifier(revocation="none")
    identity.sessions.logout(access_token=token)
    assert verifier.verify(token).subject == "ada"


@pytest.mark.parametrize("kind", [Introspection, RevocationFeed])
def test_a_revocation_check_without_on_unavailable_is_refused(kind: type[RevocationFeed | Introspection]) -> None:
    with pytest.raises(TypeError, match="on_unavailable"):
        kind("https://id.example.org/x", lambda: "t")  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match="'reject' or 'accept'"):
        kind("https://id.example.org/x", lambda: "t", on_unavailable="maybe")
    with pytest.raises(ConfigurationError, match="https"):
        kind("http://id.example.org/x", lambda: "t", on_unavailable="reject")


def test_a_revocation_check_given_as_text_is_refused(identity: Identity) -> None:
    with pytest.raises(ConfigurationError, match="'feed'"):
        identity.verifier(revocation="feed")


# ---- introspection ---------------------------------------------------------------------------------------------------


def test_introspection_finds_a_revoked_session_within_seconds(identity: Identity, clock: ManualClock) -> None:
    token, verifier = identity.token(), introspecting(identity, clock)
    for _ in range(20):
        assert verifier.verify(token).subject == "ada"
    assert identity.hits[INTROSPECT] == 1
    identity.sessions.logout(access_token=token)
    clock.advance(5)
    assert [refused(verifier, token) for _ in range(20)] == ["revoked"] * 20
    assert identity.hits[INTROSPECT] == 2


def test_tokens_that_are_not_genuine_cause_no_introspection(identity: Identity, clock: ManualClock) -> None:
    token, verifier = identity.token(), introspecting(identity, clock)
    clock.advance(1801)
    assert (refused(verifier, token), refused(verifier, "a.b.c")) == ("expired", "malformed")
    assert identity.hits[INTROSPECT] == 0


@pytest.mark.anyio
async def test_tasks_and_threads_share_one_introspection_of_a_token(identity: Identity, clock: ManualClock) -> None:
    token, verifier, found = identity.token(), introspecting(identity, clock), []
    await verifier.averify(identity.token())
    identity.hangs(INTROSPECT)

    async def one() -> None:
        found.append((await verifier.averify(token)).subject)

    thread = threading.Thread(target=lambda: found.append(verifier.verify(token).subject))
    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(one)
        thread.start()
        while identity.hits[INTROSPECT] < 2:  # noqa: ASYNC110  # it is the server's counter, in another thread
            await anyio.sleep(0.005)
        identity.well()
    thread.join(10)
    assert (found, identity.hits[INTROSPECT]) == (["ada"] * 51, 2)


def test_many_tokens_at_once_are_asked_about_by_a_few(identity: Identity, clock: ManualClock) -> None:
    tokens, verifier, found = [identity.token(f"u{n}") for n in range(60)], introspecting(identity, clock), []
    threads = [threading.Thread(target=lambda t=token: found.append(verifier.verify(t).subject)) for token in tokens]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(found) == sorted(f"u{n}" for n in range(60))


@pytest.mark.parametrize("fault", ["503", "junk", "hangs", "redirect", "silent"])
@pytest.mark.parametrize("on_unavailable", ["reject", "accept"])
def test_on_unavailable_decides_when_introspection_fails(
    identity: Identity, clock: ManualClock, fault: str, on_unavailable: str
) -> None:
    token, verifier = identity.token(), introspecting(identity, clock, on_unavailable, timeout=0.3)
    {
        "503": lambda: identity.responds(INTROSPECT, 503),
        "junk": lambda: identity.responds(INTROSPECT, body=b"<html>"),
        "silent": lambda: identity.responds(INTROSPECT, body=b'{"active": "true"}'),
        "hangs": lambda: identity.hangs(INTROSPECT),
        "redirect": lambda: identity.redirects(INTROSPECT, identity.url + "/x"),
    }[fault]()
    for _ in range(20):
        if on_unavailable == "accept":
            assert verifier.verify(token).subject == "ada"
        else:
            with pytest.raises(TryLater):
                verifier.verify(token)
    assert identity.hits[INTROSPECT] == 1, "while it does not respond, it is not asked"
    identity.well()
    identity.sessions.logout(access_token=token)
    clock.advance(10)
    assert refused(verifier, token) == "revoked"


def test_a_service_refreshes_its_own_token_when_it_is_refused(identity: Identity, clock: ManualClock) -> None:
    service = identity.service()
    asks = Introspection(identity.url + INTROSPECT, service, on_unavailable="reject", clock=clock)
    verifier = identity.verifier(clock=clock, revocation=asks)
    [old] = identity.sessions.keyring().signing
    identity.sessions.rotate_keys(publish_ahead=0.0)
    identity.sessions.retire_key(old.kid)
    assert verifier.verify(identity.token()).subject == "ada"
    assert (identity.hits[INTROSPECT], identity.hits["/auth/refresh"]) == (2, 1)


def test_a_service_without_a_session_says_so_in_its_log(
    identity: Identity, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    service = identity.service()
    service.logout()
    asks = Introspection(identity.url + INTROSPECT, service, on_unavailable="reject", clock=clock)
    with pytest.raises(TryLater):
        identity.verifier(revocation=asks).verify(identity.token())
    assert "the service's own session cannot be used" in caplog.text


def test_a_function_may_give_the_token_and_may_fail(identity: Identity, clock: ManualClock) -> None:
    own = identity.token("service", scope="introspect")
    good = Introspection(identity.url + INTROSPECT, lambda: own, on_unavailable="reject")
    assert identity.verifier(revocation=good).verify(identity.token()).subject == "ada"
    bad = Introspection(identity.url + INTROSPECT, lambda: str(1 / 0), on_unavailable="reject")
    with pytest.raises(TryLater):
        identity.verifier(revocation=bad).verify(identity.token())


# ---- the feed --------------------------------------------------------------------------------------------------------


def test_one_request_in_half_a_second_reads_all_revocations(identity: Identity, clock: ManualClock) -> None:
    tokens, verifier = [identity.token(f"u{n}") for n in range(20)], fed(identity, clock)
    assert [verifier.verify(token).subject for token in tokens] == [f"u{n}" for n in range(20)]
    assert identity.hits[FEED] == 1
    identity.sessions.logout(access_token=tokens[7])
    clock.advance(0.5)
    verifier.verify(tokens[0])  # behind it, the feed is asked
    until(lambda: identity.hits[FEED] == 2)
    until(lambda: not flights_under_way())
    assert refused(verifier, tokens[7]) == "revoked"
    assert verifier.verify(tokens[8]).subject == "u8"
    assert identity.hits[FEED] == 2


def test_after_a_pause_the_first_request_waits_for_the_revocation_list(identity: Identity, clock: ManualClock) -> None:
    token, verifier = identity.token(), fed(identity, clock)
    verifier.verify(token)
    identity.sessions.logout(access_token=token)
    clock.advance(60)
    assert refused(verifier, token) == "revoked"
    assert identity.hits[FEED] == 2


def test_the_revocation_list_is_read_from_the_cursor_and_after_a_pause_from_the_start(
    identity: Identity, clock: ManualClock
) -> None:
    gone, token, verifier = identity.token(), identity.token(), fed(identity, clock)
    identity.sessions.logout(access_token=gone)
    for pause, after in ((0, 0), (2, 1), (29, 1), (31, 0)):
        clock.advance(pause)
        verifier.verify(token)
        assert identity.asked[-1] == f"{FEED}?after={after}"


def test_a_session_that_was_revoked_before_the_service_began_is_known(identity: Identity, clock: ManualClock) -> None:
    token = identity.token()
    identity.sessions.logout(access_token=token)
    assert refused(fed(identity, clock), token) == "revoked"


@pytest.mark.parametrize("on_unavailable", ["reject", "accept"])
def test_on_unavailable_decides_when_the_revocation_list_is_lost(
    identity: Identity, clock: ManualClock, on_unavailable: str, caplog: pytest.LogCaptureFixture
) -> None:
    token, gone, verifier = identity.token(), identity.token(), fed(identity, clock, on_unavailable, lost_after=10.0)
    identity.sessions.logout(access_token=gone)
    assert verifier.verify(token).subject == "ada"
    identity.responds(FEED, 503)
    clock.advance(3)
    assert verifier.verify(token).subject == "ada", "it is not lost yet"
    until(lambda: "the list of revoked sessions cannot be fetched" in caplog.text)
    clock.advance(10)
    for _ in range(30):
        if on_unavailable == "accept":
            assert verifier.verify(token).subject == "ada"
        else:
            with pytest.raises(TryLater):
                verifier.verify(token)
    assert identity.hits[FEED] <= 3
    until(lambda: not flights_under_way())
    if on_unavailable == "accept":
        assert refused(verifier, gone) == "revoked", "what was known stays known"
    identity.well()
    identity.sessions.logout(access_token=token)
    clock.advance(60)
    until(lambda: _is_refused(verifier, token))


def _is_refused(verifier: Verifier, token: str) -> bool:
    try:
        verifier.verify(token)
    except InvalidToken as error:
        return error.reason == "revoked"
    except TryLater:
        pass
    return False


def test_a_server_that_counts_from_the_beginning_again_is_asked_for_all(identity: Identity, clock: ManualClock) -> None:
    token, verifier = identity.token(), fed(identity, clock)
    identity.responds(FEED, body=b'{"cursor": 7000, "revoked": []}')
    verifier.verify(token)
    identity.well()
    identity.sessions.logout(access_token=token)
    clock.advance(2)
    assert refused(verifier, token) == "revoked"


@pytest.mark.parametrize(
    "response", ["<html>", "[]", "{}", '{"cursor": true, "revoked": []}', '{"cursor": 1, "revoked": [{"sid": "x"}]}']
)
def test_a_malformed_revocation_list_is_refused(identity: Identity, clock: ManualClock, response: str) -> None:
    verifier = fed(identity, clock)
    identity.responds(FEED, body=response.encode())
    with pytest.raises(TryLater):
        verifier.verify(identity.token())


def test_a_service_without_the_scope_cannot_read_the_revocation_list(identity: Identity, clock: ManualClock) -> None:
    feed = RevocationFeed(identity.url + FEED, identity.service("read"), on_unavailable="reject")
    with pytest.raises(TryLater) as error:
        identity.verifier(revocation=feed).verify(identity.token())
    assert "responded with status 403" in str(error.value.__cause__)


def test_what_was_revoked_is_forgotten_when_no_token_can_live(identity: Identity, clock: ManualClock) -> None:
    now = clock.wall()
    revoked = [{"sid": "old", "until": now - 100}, {"sid": "new", "until": now + 50}]
    identity.responds(FEED, body=json.dumps({"cursor": 3, "revoked": revoked}).encode())
    token, verifier = identity.token(), fed(identity, clock)
    verifier.verify(token)
    assert set(verifier._revocation._state._value.revoked) == {"new"}  # type: ignore[attr-defined]
    identity.responds(FEED, body=b'{"cursor": 3, "revoked": []}')
    clock.advance(100)
    verifier.verify(token)
    assert set(verifier._revocation._state._value.revoked) == set()  # type: ignore[attr-defined]
