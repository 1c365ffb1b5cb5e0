"""When tokens are refreshed, when not again, and when it is too often."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from unbroken import Leeway, RefreshWindow, Tokens
from unbroken.client.core.schedule import cooldown_seconds, refresh_ages, seconds_until_allowed


@given(st.floats(0.001, 1e9), st.floats(0, 0.999))
def test_margins_shrink_with_the_lifetime_and_keep_their_order(lifetime: float, jitter: float) -> None:
    ages = refresh_ages(Tokens("a", "r", lifetime), Leeway(), jitter)
    assert lifetime * 0.79 <= ages.refresh_in_background_at <= ages.refresh_before_use_at <= ages.expires_at == lifetime
    assert ages.expires_at - ages.refresh_in_background_at <= 300.001
    assert ages.expires_at - ages.refresh_before_use_at <= 10.001


def test_unknown_lifetimes_are_driven_by_challenges() -> None:
    assert refresh_ages(Tokens("a", "r", None), Leeway(), 0.5).refresh_in_background_at == float("inf")


def test_a_token_without_a_refresh_token_is_used_to_its_end() -> None:
    assert refresh_ages(Tokens("a", None, 60.0), Leeway(), 0.5).refresh_in_background_at == 60.0


def test_the_cool_down_grows_and_ends_at_half_a_minute() -> None:
    assert [cooldown_seconds(n, 0.0, 1.0) for n in (1, 2, 3, 9)] == [1.0, 2.0, 4.0, 30.0]
    assert cooldown_seconds(1, 77.0, 0.0) == 77.0


def test_a_storm_is_too_many_in_the_window() -> None:
    window = RefreshWindow(interval=30, attempts=2)
    assert seconds_until_allowed([1.0], 20.0, window) == 0.0
    assert seconds_until_allowed([1.0, 2.0], 20.0, window) == 11.0
    assert seconds_until_allowed([1.0, 2.0], 31.0, window) == 0.0
    assert seconds_until_allowed([], 0.0, RefreshWindow(attempts=0)) > 0


def test_a_server_that_is_down_for_days_is_still_cooled_down_from() -> None:
    assert cooldown_seconds(5000, 0.0, 0.5) == 22.5
