"""Tables in a schema of the application's choice: no statement may name a table without it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.contract.stores import test_server_stores as contract
from unbroken.errors import ConfigurationError
from unbroken.server import Policy, Sessions, open_store
from unbroken.server.stores import postgres_schema
from unbroken.server.stores.postgres import schema_version, upgrade_schema

TABLES = "SELECT schemaname, tablename FROM pg_tables WHERE tablename LIKE 'unbroken%' ORDER BY 1, 2"


@pytest.fixture
def url(database: str) -> str:
    """A database in which a name without a schema finds nothing."""
    with psycopg.connect(database, autocommit=True) as db:
        name = db.info.dbname
        db.execute(f"ALTER DATABASE {name} SET search_path = ''".encode())
    return f"{database}{'&' if '?' in database else '?'}schema=our_sessions&pool_size=4"


def schemas(database: str) -> set[str]:
    with psycopg.connect(database.partition("?")[0]) as db:
        return {schema for schema, _ in db.execute(TABLES).fetchall()}


@pytest.fixture
def store(url: str) -> Iterator[Any]:
    with contract.opened("postgres", "blocking", url) as found:
        yield found


CONTRACT = {
    name: test
    for name, test in vars(contract).items()
    if name.startswith("test_") and list(inspect.signature(test).parameters) == ["store"]
}


@pytest.mark.parametrize("test", CONTRACT.values(), ids=CONTRACT)
def test_the_store_keeps_the_contract_there(test: Callable[[Any], None], store: Any) -> None:
    test(store)


def test_all_tables_are_in_the_schema_and_none_elsewhere(url: str) -> None:
    with Sessions(open_store(url), encryption_key="none", policy=Policy(max_sessions_per_subject=1)) as sessions:
        first = sessions.create("ada")
        moved = sessions.refresh(str(first.refresh_token))
        sessions.create("ada")  # ends the first
        assert sessions.page_sessions("ada").sessions
        sessions.rotate_keys()
        assert sessions.redeem(sessions.ticket(sessions.create("bob").access_token).text).subject == "bob"
        assert moved.refresh_token
    assert schemas(url) == {"our_sessions"}


def test_two_schemas_of_one_database_are_two_stores(url: str) -> None:
    other = url.replace("our_sessions", "theirs")
    with (
        Sessions(open_store(url), encryption_key="none") as ours,
        Sessions(open_store(other), encryption_key="none") as theirs,
    ):
        ours.create("ada")
        theirs.create("bob")
        assert [info.subject for info in ours.list_sessions()] == ["ada"]
        assert [info.subject for info in theirs.list_sessions()] == ["bob"]


def test_an_older_schema_is_upgraded_there(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(postgres_schema, "STEPS", postgres_schema.STEPS[:1])
        upgrade_schema(url)
    assert schema_version(url).found == 1
    upgrade_schema(url)
    assert schema_version(url).found == len(postgres_schema.STEPS)
    assert schemas(url) == {"our_sessions"}


@pytest.mark.parametrize("name", ["", "Ours", "a b", 'x"; DROP TABLE y; --', "ä", "a" * 64, "1a", "a.b", "%73"])
def test_a_name_that_would_need_quotes_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="schema must be a name"):
        open_store(f"postgresql://localhost/shop?schema={name}")
