"""What the floor plan in CONTRIBUTING promises of where things are."""

from __future__ import annotations

import ast
import re
from fnmatch import fnmatch
from functools import cache
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


# ---- every module is found by its test -------------------------------------------------------------------------------

MODULES = re.compile(r"^Modules: ([^.]+(?:\.py[^.]*)+)\.$", re.MULTILINE)
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))


@cache
def docstring_and_code(file: Path) -> tuple[str, str]:
    """The docstring of a module, with which each begins, and the rest. Hundreds of files are read: none is parsed."""
    begin, docstring, code = file.read_text(encoding="utf-8").split('"""', 2)
    assert not begin, f"{file} does not begin with a docstring"
    return docstring, code


def named_modules() -> dict[str, Path]:
    """The modules that the docstring of a test names, in its line ``Modules: …``, because they have no test file of
    their own."""
    found = {}
    for test in TESTS:
        for line in MODULES.findall(docstring_and_code(test)[0]):
            found |= dict.fromkeys(re.split(r",\s+", line), test)
    return found


NAMED = named_modules()
FILES = [file for file in sorted(SOURCE.rglob("*.py")) if docstring_and_code(file)[1].strip()]
SOURCES = [file.relative_to(SOURCE).as_posix() for file in FILES]


@pytest.mark.parametrize("module", SOURCES)
def test_every_module_has_a_test_of_its_name_or_a_test_that_names_it(module: str) -> None:
    name = Path(module).stem.lstrip("_")
    assert module in NAMED or any(re.match(rf"test_{name}(_|\.)", test.name) for test in TESTS)


@pytest.mark.parametrize("module", NAMED)
def test_what_a_test_names_is_a_module(module: str) -> None:
    assert module in SOURCES


# ---- rules -----------------------------------------------------------------------------------------------------------

RULE = re.compile(r"\b(?:``)?(?P<file>[\w/]+\.py)?(?:``)?,? ?\brules? (?P<number>\d+)(?: of `*(?P<other>[\w/]+\.py))?")


@cache
def rules_of(file: Path) -> set[int]:
    return {int(number) for number in re.findall(r"^\s*(\d+)\. ", docstring_and_code(file)[0], re.MULTILINE)}


@pytest.mark.parametrize("module", SOURCES)
def test_a_rule_that_is_named_stands_in_the_file_that_states_it(module: str) -> None:
    text = re.sub(r"\s*\n\s*", " ", (SOURCE / module).read_text(encoding="utf-8"))
    for named in RULE.finditer(text):
        where = named["file"] or named["other"] or module
        files = [SOURCE / source for source in SOURCES if f"/{source}".endswith(f"/{where}")]
        assert any(int(named["number"]) in rules_of(file) for file in files), named[0]


# ---- the words of the field ------------------------------------------------------------------------------------------

FIELD_WORDS = {
    "single flight": "_single_flight.py",
    "background refresh": "client/core/schedule.py",
    "backoff": "client/core/schedule.py",
    "jitter": "client/core/schedule.py",
    "replay": "client/core/request_flow.py",
    "idempotency key": "client/core/refresh_rules.py",
    "compare-and-set": "client/core/token_store.py",
    "PKCE": "client/core/authorization_code.py",
    "device flow": "client/core/device_flow.py",
    "CSRF": "server/http/cookies.py",
    "cross-site": "server/http/cookies.py",
    "CORS": "server/http/origins.py",
    "rate limit": "server/login/rate_limit.py",
    "brute force": "server/login/rate_limit.py",
    "account lockout": "server/login/rate_limit.py",
    "second factor": "server/login/mfa.py",
    "one-time": "server/grants/tickets.py",
    "token family": "server/core/rotation.py",
    "reuse": "server/core/rotation.py",
    "refresh token grant": "server/grants/refresh_grant.py",
    "JWK set": "server/keys/remote_jwks.py",
    "thread pool": "server/worker_pool.py",
    "executor": "server/worker_pool.py",
    "metric": "server/metrics.py",
    "upgrade": "server/stores/migrations.py",
    "DPoP": "server/keys/proof_token.py",
    "introspect": "server/http/introspection.py",
}


@pytest.mark.parametrize(("word", "module"), FIELD_WORDS.items(), ids=FIELD_WORDS)
def test_a_word_of_the_field_leads_to_the_file_that_does_it(word: str, module: str) -> None:
    assert re.search(word.replace(" ", r"\s+"), docstring_and_code(SOURCE / module)[0], re.IGNORECASE)
