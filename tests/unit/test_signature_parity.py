"""The sync and the async spelling of one operation take the same parameters, in every class and module of the package.

The source is read, not imported: some modules need a framework that is set up.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.support.paths import ROOT

SOURCE = ROOT / "src" / "unbroken"
BY_NAME = {
    "handle_request": "handle_async_request",
    "sync_auth_flow": "async_auth_flow",
    "wait": "wait_async",
    "__enter__": "__aenter__",
    "__exit__": "__aexit__",
}
AWAITABLE = re.compile(r"\bAwaitable\[(\w+)\]")  # what a callback of the async spelling returns
Pair = tuple[ast.FunctionDef, ast.AsyncFunctionDef]


def async_names(name: str) -> list[str]:
    """Return the names that an async spelling of *name* may have: ``alogin`` of ``login``, ``_aload`` of ``_load``."""
    bare = name.lstrip("_")
    return [f"{name[: len(name) - len(bare)]}a{bare}", BY_NAME.get(name, "")]


def pairs_in(body: list[ast.stmt], where: str) -> Iterator[tuple[str, Pair]]:
    """Yield the pairs of a module or a class, and those of the classes in it."""
    sync = {one.name: one for one in body if isinstance(one, ast.FunctionDef)}
    coroutines = {one.name: one for one in body if isinstance(one, ast.AsyncFunctionDef)}
    for name, function in sync.items():
        for twin in filter(None, map(coroutines.get, async_names(name))):
            yield f"{where}.{name}", (function, twin)
    for one in body:
        if isinstance(one, ast.ClassDef):
            yield from pairs_in(one.body, f"{where}.{one.name}")


def pairs() -> dict[str, Pair]:
    found: dict[str, Pair] = {}
    for file in sorted(SOURCE.rglob("*.py")):
        name = ".".join(file.relative_to(SOURCE).with_suffix("").parts)
        found |= pairs_in(ast.parse(file.read_text(encoding="utf-8")).body, name)
    return found


PAIRS = pairs()


@pytest.mark.parametrize("pair", PAIRS)
def test_both_spellings_take_the_same_parameters(pair: str) -> None:
    function, twin = PAIRS[pair]
    assert ast.unparse(function.args) == AWAITABLE.sub(r"\1", ast.unparse(twin.args))


@pytest.mark.parametrize(
    "pair",
    [
        "client.session_logins.SessionLogins.login",
        "client.session.Session._handle_challenge",
        "client.core.request_flow.perform",
        "_single_flight.SingleFlight.wait",
        "_adapters.httpx.AuthFlow.sync_auth_flow",
        "_adapters.httpx.TransportFlow.handle_request",
        "server.sessions.Sessions.create",
        "server.key_admin.KeyAdmin.rotate_keys",
    ],
)
def test_well_known_pairs_of_spellings_are_found(pair: str) -> None:
    assert pair in PAIRS
