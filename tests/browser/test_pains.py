"""The twenty pains that users of other libraries report most often, each with the test that keeps it away."""

from __future__ import annotations

import importlib

import pytest

PAINS = {  # what hurts, and where it is tested for
    1: ("several tabs spend one refresh token", "one_renewal.test_five_tabs_make_one_exchange"),
    2: ("an orphaned lock hangs all", "invariants.test_a_lock_that_is_never_freed_is_waited_for_a_bounded_time_i11"),
    3: ("a listener that calls back deadlocks", "invariants.test_a_listener_that_fails_or_asks_back_hurts_nobody_i2"),
    4: ("requests in flight are dropped", "defects_of_status_in_body.test_many_requests_share_one_exchange_s0_14"),
    5: ("who waits hangs", "defects_of_status_in_body.test_all_who_wait_hear_of_a_failure_s0_5"),
    6: ("a renewal waits for itself", "invariants.test_the_exchange_is_bound_to_nobody_and_intercepted_by_nobody_i7"),
    7: ("a loop", "defects_of_status_in_body.test_an_endpoint_that_always_challenges_makes_no_loop_s0_9"),
    8: ("a late 401 renews again", "invariants.test_a_late_challenge_in_another_tab_costs_no_exchange_i3"),
    9: (
        "new requests leave with the old token",
        "defects_of_bearer_json.test_requests_on_an_expired_token_are_held_and_sent_once_s2_7",
    ),
    10: ("offline is logged out", "invariants.test_offline_ends_nothing_and_online_goes_on_i4"),
    11: ("a laptop that wakes", "invariants.test_what_wakes_a_page_renews_an_old_token_i12"),
    12: ("a wrong clock", "invariants.test_a_wrong_clock_makes_no_loop_i10"),
    13: ("storms", "defects.test_a_hidden_failure_costs_one_series_of_tries_for_all_tabs"),
    14: (
        "a repeated POST is wrong",
        "defects_of_bearer_json.test_a_repeated_request_is_the_same_but_for_its_token_s2_13",
    ),
    15: ("the body was used already", "bodies.test_a_body_of_any_kind_is_the_same_when_it_is_sent_again"),
    16: (
        "a stream and a 401 are a broken connection",
        "streams.test_a_stream_that_is_refused_is_not_sent_again_and_the_next_one_is_accepted",
    ),
    17: ("a logout is undone", "defects_of_bearer_json.test_a_logout_during_a_renewal_stays_a_logout_s2_5"),
    18: ("a lost answer", "one_renewal.test_a_lost_answer_is_asked_for_again_with_the_same_attempt"),
    19: ("privacy modes", "module.test_storage_that_cannot_even_be_looked_at_is_memory"),
    20: ("sockets cannot renew", "one_renewal.test_a_websocket_gets_a_token_that_is_good_now"),
}


def test_there_are_twenty() -> None:
    assert list(PAINS) == list(range(1, 21))
    assert len({test for _, test in PAINS.values()}) == 20


@pytest.mark.parametrize(("pain", "test"), PAINS.values(), ids=[f"{n}" for n in PAINS])
def test_each_pain_has_its_test(pain, test) -> None:
    module, name = test.split(".")
    assert callable(getattr(importlib.import_module(f"tests.browser.test_{module}"), name, None)), pain
