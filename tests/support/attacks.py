"""Counts attacks, for the line at the end of a run."""

from __future__ import annotations

from typing import Any

__all__ = ["ATTACKS", "Attacks", "tell_attacks"]

ATTACKS = "attacks tried"


class Attacks:
    """How many attacks a test has tried."""

    def __init__(self) -> None:
        self.tried = 0

    def try_one(self) -> None:
        """Count an attack; call it right before the attack is made."""
        self.tried += 1

    def try_many(self, count: int) -> None:
        """Count *count* attacks that are made together."""
        self.tried += count


def tell_attacks(terminal: Any) -> None:
    """Print how many attacks were tried, where there were any."""
    tried = sum(
        value
        for reports in terminal.stats.values()
        for report in reports
        if getattr(report, "when", None) == "teardown"
        for name, value in report.user_properties
        if name == ATTACKS
    )
    if tried:
        terminal.section(f"{tried:,} attacks tried")
