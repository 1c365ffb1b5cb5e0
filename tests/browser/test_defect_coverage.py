"""Every known defect, promise and pain is kept away by a test with its marker.

S0 to S4 are defects of five widespread snippets, one for each shape of backend; C are common to all of them. I are the
promises that hold whatever happens. P are the pains that users of other libraries report most often.
"""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path

import pytest

COUNTS = {"S0.": 15, "S1.": 12, "S2.": 13, "S3.": 12, "S4.": 7, "C": 11, "I": 12}
PAINS = {
    "P1": "several tabs spend one refresh token",
    "P2": "a lock whose holder died blocks everything",
    "P3": "a listener that calls back deadlocks",
    "P4": "requests in flight are dropped",
    "P5": "a waiting request hangs",
    "P6": "a refresh waits for itself",
    "P7": "a loop of refreshes",
    "P8": "a late 401 refreshes again",
    "P9": "new requests leave with the old token",
    "P10": "offline logs out",
    "P11": "a laptop that wakes up",
    "P12": "a wrong clock",
    "P13": "storms",
    "P14": "a repeated POST is wrong",
    "P15": "the body was used already",
    "P16": "a stream and a 401 break the connection",
    "P17": "a logout is undone",
    "P18": "a lost response",
    "P19": "privacy modes",
    "P20": "sockets cannot refresh",
}
KNOWN = [f"{group}{number}" for group, count in COUNTS.items() for number in range(1, count + 1)] + [*PAINS]
OF_THE_SNIPPETS = "test_snippets"  # shows the defects themselves


def marked() -> Counter[str]:
    """Return how many tests have a marker, by its id."""
    modules = sorted(file.stem for file in Path(__file__).parent.glob("test_*.py") if file.stem != OF_THE_SNIPPETS)
    tests = (
        test
        for module in modules
        for name, test in vars(importlib.import_module(f"tests.browser.{module}")).items()
        if name.startswith("test_")
    )
    marks = (mark for test in tests for mark in getattr(test, "pytestmark", []) if mark.name == "defect")
    return Counter(id_ for mark in marks for id_ in mark.args)


def test_every_known_defect_has_a_test_and_every_marker_is_known() -> None:
    assert sorted(marked()) == sorted(KNOWN)
    assert len(KNOWN) == 70 + 12 + 20


@pytest.mark.parametrize("group", ["S", "C", "P"])
def test_each_defect_and_each_pain_has_exactly_one_test(group: str) -> None:
    assert {id_: count for id_, count in marked().items() if id_.startswith(group) and count != 1} == {}
