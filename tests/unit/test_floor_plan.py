"""What the floor plan in CONTRIBUTING promises of where things are."""

from __future__ import annotations

import ast
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SOURCE = ROOT / "src" / "unbroken"
STATEMENT = re.compile(
    r"\s*(WITH \w+ AS|SELECT|INSERT INTO|UPDATE \w+ SET|DELETE FROM|(CREATE|ALTER|DROP) (TABLE|INDEX))\b"
)
HAVE_SQL = (
    "server/stores/*_schema.py",
    "server/stores/*_statements.py",
    "client/stores/postgres.py",
    "client/stores/sqlite.py",
    "_drivers/postgres_connection.py",  # the settings of a connection
    "_sqlite.py",  # whose file it is
)


def statements_of(file: Path) -> list[str]:
    """Return the texts in *file* that begin as a statement of SQL does, docstrings aside."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [text for text in texts if STATEMENT.match(text)]


@pytest.mark.parametrize("place", HAVE_SQL)
def test_the_files_that_are_said_to_have_sql_have_it(place: str) -> None:
    files = list(SOURCE.glob(place))
    assert files
    assert all(map(statements_of, files))


def test_no_other_file_has_sql() -> None:
    for file in SOURCE.rglob("*.py"):
        name = file.relative_to(SOURCE).as_posix()
        if not any(fnmatch(name, place) for place in HAVE_SQL):
            assert statements_of(file) == [], name


@pytest.mark.parametrize("place", HAVE_SQL[2:4])
def test_the_sql_of_a_client_store_stands_under_its_heading_before_the_class(place: str) -> None:
    text = (SOURCE / place).read_text(encoding="utf-8")
    under = text[text.index("# ---- SQL ----") : text.index("\nclass ")]
    assert "CREATE TABLE" in under
    assert all(statement in under for statement in statements_of(SOURCE / place))
