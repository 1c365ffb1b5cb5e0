"""The exit status of a benchmark says what went wrong."""

from __future__ import annotations

import pytest

from bench.clients import matrix
from bench.clients.kills import fleet
from bench.figure import MISSED, WRONG, Figure, print_figures

GOOD = Figure("refreshes", 1, "", "1", True)
PLAIN = Figure("a start", 3.5, "ms")
SLOW = Figure("p99 with kills", 5.0, "s", "at most 3 s", False)


@pytest.mark.parametrize(
    ("figures", "status"),
    [
        ([], 0),
        ([GOOD, PLAIN], 0),
        ([GOOD, SLOW], MISSED),
        ([Figure("ratio", 0.5, "x (0.40 to 0.60)", "at least 0.7", False)], MISSED),
        ([SLOW, Figure("failures", 2, "", "0", False)], WRONG),
        ([Figure("rows added", 2, "rows", "0", False), SLOW], WRONG),
        ([Figure("forged", 2, "calls of the store by 500 refused (none)", "0", False)], WRONG),
    ],
)
def test_a_wrong_count_fails_and_a_missed_time_is_told_apart(
    figures: list[Figure], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert print_figures(iter(figures)) == status
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(figures)


@pytest.mark.parametrize(
    "words",
    [["--minute", "1"], ["--minutes"], ["--minutes", "0"], ["--minutes", "inf"], ["--minutes", "nan"], ["peers"]],
    ids=" ".join,
)
def test_a_fleet_does_not_start_with_arguments_that_it_does_not_know(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        fleet.main(words)
    assert stopped.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_a_matrix_without_a_row_is_a_mistake() -> None:
    with pytest.raises(SystemExit, match="no scenario 'z'"):
        matrix.main(["a", "z"])
    with pytest.raises(SystemExit, match="no contender has a name like nobody"):
        matrix.main(["nobody"])
