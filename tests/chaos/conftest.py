"""Stores that several processes share, and nodes over them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from tests.chaos.node import Node

STORES = ("sqlite", "postgres", "redis")
_numbers = itertools.count()


@dataclass
class Pair:
    """Two nodes over one store, whose clocks agree."""

    nodes: tuple[Node, Node]
    ahead: float = 0.0

    @property
    def urls(self) -> tuple[str, str]:
        return self.nodes[0].url, self.nodes[1].url

    @property
    def store(self) -> str:
        return self.nodes[0].store

    def tick(self, seconds: float) -> None:
        """So many *seconds* pass at the server, and never go back."""
        self.ahead += seconds
        for node in self.nodes:
            node.put_clock_forward(self.ahead)


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    """Whether everything is to be done as often as it takes, not as often as there is time for."""
    return bool(request.config.getoption("--chaos-full"))


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store."""
    return empty_store(request, tmp_path)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Callable[[str], Node]]:
    """Starts a node over the store with a given URL."""
    begun: list[Node] = []

    def start(store: str) -> Node:
        begun.append(made := Node(store, tmp_path))
        made.start()
        return made

    yield start
    for each in begun:
        each.stop()


@pytest.fixture(scope="session", params=STORES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two nodes over one store, for all tests of it."""
    folder = tmp_path_factory.mktemp("pair")
    store = empty_store(request, folder)
    both = Pair((Node(store, folder, "first"), Node(store, folder, "second")))
    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(Node.start, both.nodes))
        yield both
    finally:
        for each in both.nodes:
            each.stop()
    for each in both.nodes:
        assert "Traceback" not in each.said(), each.said()[-4000:]


def empty_store(request: pytest.FixtureRequest, folder: Path) -> str:
    """The URL of a new store of the kind that *request* is for; on the servers that all tests share."""
    number = next(_numbers)
    if request.param == "sqlite":
        return f"sqlite:///{folder}/unbroken.db"
    if request.param == "redis":
        return f"{request.getfixturevalue('redis').url}?prefix=chaos{number}"
    url = request.getfixturevalue("postgres").url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE chaos{number}")
    return url.rpartition("/")[0] + f"/chaos{number}"
