"""How a URL names a store, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from unbroken.server.stores import open_store, redact_url


@pytest.fixture(params=["memory", "sqlite", "postgres", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A store of each kind. Those with a server are shared: so names are used once."""
    kind: str = request.param
    urls = {"memory": "memory:", "sqlite": f"sqlite:///{tmp_path}/s.db"}
    made = open_store(urls.get(kind) or request.getfixturevalue(kind).url)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("store", "bare"),
    [("redis://:p@ss@host/0", "redis://host/0"), ("redis+cluster://:p@ss@a:1,b:2", "redis+cluster://a:1,b:2"),
     ("postgresql://u:s%2Fecret@h/db?password=x", "postgresql://h/db"), ("host=h password = secret", "host=h "),
     ("host=h password='my secret' dbname=d", "host=h  dbname=d"), ("sqlite:////srv/a@b/c.db", "sqlite:////srv/a@b/c.db")],
)  # fmt: skip
def test_no_part_of_a_stores_password_is_shown(store: str, bare: str) -> None:
    assert redact_url(store) == bare
