"""The simulation: the shipped rules hold in every interleaving, and every planted mistake is found.

Modules: client/core/refresh_rules.py, client/core/token_store.py.
"""

from __future__ import annotations

import functools

import pytest

from tests.simulation.explore import Report
from tests.simulation.foreign_mutants import FOREIGN_MUTANTS
from tests.simulation.foreign_scenarios import FOREIGN_SCENARIOS, ForeignScenario
from tests.simulation.mutants import MUTANTS, Mutant, planted
from tests.simulation.scenarios import SCENARIOS, Scenario

ALL: tuple[Scenario | ForeignScenario, ...] = (*SCENARIOS, *FOREIGN_SCENARIOS)
BY_NAME = {scenario.name: scenario for scenario in ALL}


@functools.cache
def searched(name: str) -> Report:
    return BY_NAME[name].run()


@pytest.mark.parametrize("scenario", ALL, ids=lambda scenario: scenario.name)
def test_the_rules_hold_in_every_interleaving(
    scenario: Scenario | ForeignScenario, request: pytest.FixtureRequest
) -> None:
    if scenario.full and not request.config.getoption("--sim-full"):
        pytest.skip("a large scenario: scripts/test --sim-full runs it")
    report = searched(scenario.name)
    assert report.ends > 0
    assert report.problems == [], min(report.problems, key=lambda problem: len(problem[1]))


@pytest.mark.parametrize("mutant", [*MUTANTS, *FOREIGN_MUTANTS], ids=lambda mutant: mutant.what)
def test_a_planted_mistake_is_found(mutant: Mutant) -> None:
    for name in mutant.caught_by:
        with planted(mutant):
            if BY_NAME[name].run(stop_at_first=True).problems:
                return
    pytest.fail(f"not found: {mutant.what}")


def test_the_explorer_tries_every_interleaving() -> None:
    assert searched("two, losses").states > 100_000
