"""The page of attacks names each file of attacks, and none that does not exist."""

from __future__ import annotations

import re

from tests.support.paths import ROOT


def test_the_page_of_attacks_names_every_file_of_attacks() -> None:
    page = (ROOT / "docs" / "security" / "attacks.md").read_text()
    named = set(re.findall(r"`(test_\w+\.py)`", page))
    assert named == {path.name for path in (ROOT / "tests" / "attacks").glob("test_*.py")}
