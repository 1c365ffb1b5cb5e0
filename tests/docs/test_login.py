"""What the page about people says."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from tests.docs.pages import ROOT, page, run
from unbroken.server import RateLimitPolicy, events

PAGE = (ROOT / "docs" / "people.md").read_text()


def test_the_examples_of_the_login_page_run(tmp_path: Path) -> None:
    done = run(page("people.md"), tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_page_names_every_event_with_its_kind() -> None:
    told = dict(re.findall(r"^\| `(\w+)` \| `(\w+\.\w+)` \|", PAGE, re.MULTILINE))
    kinds = [kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, events.ServerEvent)]
    assert told == {kind.__name__: kind.kind for kind in kinds if kind is not events.ServerEvent}


def test_the_page_names_every_field_of_the_rate_limit() -> None:
    section = PAGE.partition("## The rate limit")[2].partition("\n## ")[0]
    assert {field.name for field in fields(RateLimitPolicy)} <= set(re.findall(r"`(\w+)`", section))
