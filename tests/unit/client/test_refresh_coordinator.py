"""Whether to refresh, to wait or to go on: cool-downs, sessions on one store, endpoints that reject every token."""

from __future__ import annotations

import logging

import pytest

from tests.support.requests_of_adapters import tokens_after_challenge, tokens_for_request
from tests.support.token_endpoint import URL, TokenEndpoint, json_response, logged_in_at
from unbroken import BadResponse, Leeway, MemoryStore, RefreshStorm, Session, SessionOver, Tokens, TryLater
from unbroken.client.core.schedule import ActiveTokens
from unbroken.client.refresh_coordinator import SessionState
from unbroken.testing import ManualClock


def test_tokens_that_died_in_the_store_are_not_adopted_but_refreshed(
    endpoint: TokenEndpoint, clock: ManualClock
) -> None:
    store = MemoryStore()
    mine = logged_in_at(endpoint, clock, store)
    theirs = Session(URL, store, send=endpoint, clock=clock)
    clock.advance(1800)
    theirs.token()
    clock.advance(8 * 3600)
    assert mine.token() == "A3"


def test_what_a_sibling_has_refreshed_is_adopted_without_the_lock(
    endpoint: TokenEndpoint, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, locks = MemoryStore(), []
    one = logged_in_at(endpoint, clock, store)
    other = Session(URL, store, send=endpoint, clock=clock)
    old = other.token()
    new = one.newer_token(old)
    lock = store.lock
    monkeypatch.setattr(store, "lock", lambda timeout: locks.append(timeout) or lock(timeout))
    assert other.newer_token(old) == new
    assert (locks, endpoint.count("refresh")) == ([], 1)
    other.newer_token(new)
    assert (len(locks), endpoint.count("refresh")) == (1, 2)


def test_a_cool_down_does_not_hide_what_a_sibling_has_refreshed(endpoint: TokenEndpoint, clock: ManualClock) -> None:
    store = MemoryStore()
    mine, theirs = logged_in_at(endpoint, clock, store), Session(URL, store, send=endpoint, clock=clock)
    clock.advance(1800)
    endpoint.next = [lambda: json_response({}, 503, **{"retry-after": "3600"})]
    with pytest.raises(TryLater):
        mine.token()
    clock.advance(10)
    assert theirs.token() == mine.token() == "A2"
    assert endpoint.count("refresh") == 2


def test_during_a_cool_down_only_the_store_is_read(endpoint: TokenEndpoint, clock: ManualClock) -> None:
    session = logged_in_at(endpoint, clock)
    clock.advance(1800)
    endpoint.next = [lambda: json_response({}, 503, **{"retry-after": "100"})]
    for _ in range(5):
        with pytest.raises(TryLater) as caught:
            session.token()
        clock.advance(10)
    assert endpoint.count("refresh") == 1
    assert caught.value.retry_after == pytest.approx(60)


def test_a_late_challenge_does_not_get_newer_tokens_that_have_expired_too(
    endpoint: TokenEndpoint, clock: ManualClock
) -> None:
    session = logged_in_at(endpoint, clock)
    sent = tokens_for_request(session)
    clock.advance(1800)
    session.token()
    clock.advance(5000)
    fresh = tokens_after_challenge(session, sent, "here")
    assert fresh is not None
    assert fresh.tokens.access_token == "A3"


def test_a_store_that_was_set_back_gets_the_newer_tokens_again(endpoint: TokenEndpoint, clock: ManualClock) -> None:
    store = MemoryStore()
    session = logged_in_at(endpoint, clock, store)
    before = store.load()
    clock.advance(1800)
    session.token()
    store._record = before  # a restored backup
    clock.advance(1800)
    assert session.token() == "A3"
    assert b'"R2"' in (endpoint.calls[-1].body or b""), "the newest refresh token is presented, not the restored one"
    stored = store.load().tokens
    assert stored is not None
    assert stored.refresh_token == "R3"


def test_two_stubborn_endpoints_do_not_make_a_storm(endpoint: TokenEndpoint, clock: ManualClock) -> None:
    session = logged_in_at(endpoint, clock)
    passed = 0
    for turn in range(20):
        sent = tokens_for_request(session)
        fresh = tokens_after_challenge(session, sent, f"/items/{turn % 7}")
        passed += fresh is None
        if fresh is not None:
            session._state.record_acceptance(f"/items/{turn % 7}", fresh, False)
        clock.advance(1)
    assert endpoint.count("refresh") == 2
    assert passed == 18


def test_an_endpoint_that_refused_an_old_token_is_not_called_stubborn(
    endpoint: TokenEndpoint, clock: ManualClock
) -> None:
    session = logged_in_at(endpoint, clock)
    sent = tokens_for_request(session)
    clock.advance(1800)
    session.token()
    clock.advance(900)  # the newer token is a quarter of an hour old, and the server has revoked it
    fresh = tokens_after_challenge(session, sent, "here")
    assert fresh is not None
    session._state.record_acceptance("here", fresh, False)
    assert tokens_after_challenge(session, fresh, "here") is not None, "the revoked token is refreshed"
    assert endpoint.count("refresh") == 2


def test_without_a_refresh_token_a_challenge_is_handed_over(endpoint: TokenEndpoint, clock: ManualClock) -> None:
    session = Session(URL, send=endpoint, clock=clock)
    session.import_tokens({"access_token": "A", "expires_in": 1800})
    assert tokens_after_challenge(session, tokens_for_request(session), "here") is None
    assert session.token() == "A"
    clock.advance(1800)
    with pytest.raises(SessionOver, match="no refresh token"):
        session.token()


def test_a_storm_of_challenges_still_ends(endpoint: TokenEndpoint, clock: ManualClock) -> None:
    session = logged_in_at(endpoint, clock)
    for turn in range(5):
        fresh = tokens_after_challenge(session, tokens_for_request(session), turn)
        assert fresh is not None
        session._state.record_acceptance(turn, fresh, True)
    with pytest.raises(RefreshStorm):
        tokens_after_challenge(session, tokens_for_request(session), "once more")
    assert endpoint.count("refresh") == 5


@pytest.mark.parametrize(
    "odd", [{"scope": 7}, {"refresh_seq": "x"}, {"refresh_expires_in": "never"}, {"token_type": 1}, {"expires_in": "x"}]
)
def test_an_odd_field_does_not_cost_the_tokens(
    endpoint: TokenEndpoint, clock: ManualClock, odd: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    session = logged_in_at(endpoint, clock)
    clock.advance(1800)
    endpoint.next = [lambda: json_response({"access_token": "new", "refresh_token": "R", "expires_in": 60, **odd})]
    with caplog.at_level(logging.WARNING, "unbroken"):
        assert session.token() == "new"
    assert next(iter(odd)) in caplog.text


@pytest.mark.parametrize("response", [{}, {"access_token": 7}, {"token": "A"}])
def test_a_wrong_description_is_told_at_once_and_asked_once(
    endpoint: TokenEndpoint, clock: ManualClock, response: dict[str, object]
) -> None:
    store = MemoryStore()
    session = logged_in_at(endpoint, clock, store)
    clock.advance(1800)
    endpoint.next = [lambda: json_response(response)] * 3
    with pytest.raises(BadResponse, match="'access_token'"):
        session.token()
    assert endpoint.count("refresh") == 1, "asking again would spend the same refresh token twice"
    stored = store.load().tokens
    assert stored is not None
    assert stored.refresh_token == "R1"


def test_a_wrong_description_does_not_stop_requests_while_the_token_lives(
    endpoint: TokenEndpoint, clock: ManualClock
) -> None:
    session = logged_in_at(endpoint, clock)
    endpoint.next = [lambda: json_response({"token": "A"})] * 9
    clock.advance(1795)
    assert session.token() == "A1"


def test_tokens_that_are_not_newer_are_not_offered_forever(endpoint: TokenEndpoint, clock: ManualClock) -> None:
    session = Session(URL, send=endpoint, clock=clock)
    session.import_tokens({"access_token": "A", "refresh_token": "R", "expires_in": 60, "refresh_seq": 5})
    clock.advance(60)
    endpoint.next = [lambda: json_response({"access_token": "B", "refresh_token": "R", "refresh_seq": 5})]
    with pytest.raises(TryLater, match="not newer"):
        session.token()
    clock.advance(60)
    endpoint.next = [lambda: json_response({"access_token": "C", "refresh_token": "R", "refresh_seq": 6})]
    assert session.token() == "C"


def test_an_endpoint_that_rejects_one_refresh_for_many_requests_does_not_speak_for_the_others(
    endpoint: TokenEndpoint, clock: ManualClock
) -> None:
    session = logged_in_at(endpoint, clock)
    fresh = tokens_after_challenge(session, tokens_for_request(session), "/never")
    assert fresh is not None
    for _ in range(10):  # as many requests as were challenged at once
        session._state.record_acceptance("/never", fresh, False)
    assert tokens_after_challenge(session, fresh, "/never") is None
    assert tokens_after_challenge(session, fresh, "/other") is not None, "one refresh helped nobody, not ten"


def test_a_late_challenge_gets_newer_tokens_that_are_still_good_while_the_server_is_down(
    endpoint: TokenEndpoint, clock: ManualClock
) -> None:
    session = logged_in_at(endpoint, clock)
    sent = tokens_for_request(session)
    clock.advance(1800)
    session.token()
    clock.advance(1795)  # five seconds are left
    endpoint.down = True
    fresh = tokens_after_challenge(session, sent, "/items")
    assert fresh is not None
    assert fresh.tokens.access_token == "A2"
    clock.advance(5)
    with pytest.raises(TryLater):
        tokens_after_challenge(session, sent, "/items")


@pytest.mark.parametrize("numbers", [[3, 4, 5], [9, 10, 11], [10, 11, 12]])
def test_a_restored_server_is_believed_whatever_number_it_counts_from(
    endpoint: TokenEndpoint, clock: ManualClock, numbers: list[int]
) -> None:
    store = MemoryStore()
    session, other = (Session(URL, store, send=endpoint, clock=clock) for _ in range(2))
    session.import_tokens({"access_token": "A", "refresh_token": "R", "expires_in": 60, "refresh_seq": 10})
    for number in numbers:
        clock.advance(60)
        body = {"access_token": f"A{number}", "refresh_token": f"R{number}", "expires_in": 60, "refresh_seq": number}
        endpoint.next = [lambda body=body: json_response(body)]  # type: ignore[misc]
        assert session.token() == f"A{number}"
        assert other.token() == f"A{number}"
    assert endpoint.count("refresh") == len(numbers)


def test_the_end_of_a_session_is_told_in_the_words_of_the_server(endpoint: TokenEndpoint, clock: ManualClock) -> None:
    session = logged_in_at(endpoint, clock)
    clock.advance(1800)
    endpoint.next = [lambda: json_response({"error": "invalid_grant", "error_description": "R1 was withdrawn"}, 400)]
    with pytest.raises(SessionOver, match=r"log in again .*status 400, error 'invalid_grant': … was withdrawn"):
        session.token()


def test_a_refresh_that_ended_while_a_request_was_on_its_way_to_it_is_not_repeated(clock: ManualClock) -> None:
    state, leeway = SessionState(clock, Leeway(), None), Leeway()

    def tokens(version: int) -> ActiveTokens:
        fields = Tokens(f"A{version}", f"R{version}", 1800.0, received_at=clock.wall(), version=version, epoch=1)
        return ActiveTokens(fields, f"Bearer A{version}", clock, leeway, 0.0)

    old, new = tokens(1), tokens(2)
    state.install(old)
    state.install(new)
    flight, is_new = state.flight_for(old, "expired", lambda: pytest.fail("a second refresh"), None, 5.0)
    assert (flight.wait(), is_new) == (new, False)
    clock.advance(1800)
    assert state.flight_for(old, "expired", lambda: new, None, 5.0)[1], "what has expired too is refreshed"
