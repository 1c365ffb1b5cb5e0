"""How the values of settings are read."""

from __future__ import annotations

import pytest

from unbroken.cli.parsers import MAX_DURATION_SECONDS, InvalidValue, choice, format_duration, integer, parse_duration


@pytest.mark.parametrize("seconds", [0.0, 0.5, 10.0, 90.0, 1800.0, 43200.0, 604800.0, MAX_DURATION_SECONDS])
def test_a_duration_that_is_formatted_is_read_again(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


def test_durations_have_the_largest_unit_that_fits() -> None:
    assert [format_duration(one) for one in (1.5, 90.0, 1800.0, 7200.0, 172800.0)] == ["1.5s", "90s", "30m", "2h", "2d"]


@pytest.mark.parametrize("text", ["", "s", "-1s", "1y", "1h30m", "١s", "36526d"])
def test_other_texts_are_no_durations(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_duration(text)


def test_integers_and_choices_say_what_they_allow() -> None:
    port, level = integer(0, 65535), choice("Strict", "Lax")
    assert port.parse_text is not None
    assert level.parse_text is not None
    assert (port.parse_text(" 80 "), level.parse_text("lax"), level.metavar) == (80, "Lax", "Strict|Lax")
    with pytest.raises(InvalidValue, match="must be between 0 and 65535"):
        port.parse_toml(65536)
    with pytest.raises(InvalidValue, match="must be one of Strict, Lax"):
        level.parse_text("none")
