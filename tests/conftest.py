"""What all tests share."""

from __future__ import annotations

import gc
import os
import re
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import certifi
import hypothesis
import pytest

from tests.support.attacks import tell_attacks
from tests.support.backend import PASSWORD, Backend
from tests.support.identity import Identity
from tests.support.paths import ROOT
from tests.support.run_folder import begin_run, ends_in_order
from tests.support.services import Service, new_database, postgres_server, redis_server
from tests.support.summary import tell_engines, tell_missing, tell_times
from unbroken import Session

# A busy machine is slow for reasons that are not the code's.
hypothesis.settings.register_profile("unbroken", deadline=None)
hypothesis.settings.load_profile("unbroken")

# What --quick leaves out: tests that start programs or send floods, and those that use a database, as their names or
# fixtures say.
NOT_QUICK = (
    *("browser", "chaos", "cli", "docs", "interop/clients", "interop/mcp", "interop/servers"),
    *("attacks/test_connection_floods.py", "attacks/test_login_floods.py"),
    *("contract/stores/test_client_store_processes.py", "contract/stores/test_client_store_forks.py"),
    *("contract/stores/test_forks.py", "contract/stores/test_opening_at_once.py"),
    "unit/server/stores/test_migrations.py",
)
WORKERS_PER_CORE, QUICK_WORKERS_PER_CORE = 4, 2  # each collects all tests, which takes five seconds
DATABASE = re.compile(r"\b(redis|postgres|pgbouncer|mortal|cluster)\b")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="no databases, browsers, programs or floods: a minute")
    parser.addoption("--sim-full", action="store_true", help="run the large simulations too")
    parser.addoption("--chaos-full", action="store_true", help="kill, fail over and race as often as it takes")
    parser.addoption("--attacks-full", action="store_true", help="try each attack as often as it takes")


def pytest_configure(config: pytest.Config) -> None:
    ends_in_order()
    if not hasattr(config, "workerinput"):  # workers have the rest from the process that starts them
        begin_run()
        os.environ["UNBROKEN_ENCRYPTION_KEY"] = "none"  # for stores on servers; SQLite has its key beside it
        os.environ["SSL_CERT_FILE"] = one_authority()


def one_authority() -> str:
    """Each HTTP client reads all authorities of the world, in 30 ms: tests, which run on loopback, do with one."""
    one, end, _ = Path(certifi.where()).read_text().partition("-----END CERTIFICATE-----")
    path = os.path.join(tempfile.gettempdir(), "one.pem")
    Path(path).write_text(one + end)
    return path


@pytest.hookimpl(tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Most of the time a test waits: for a clock, for another process, for a core. Those of --quick wait less."""
    per_core = QUICK_WORKERS_PER_CORE if config.getoption("--quick") else WORKERS_PER_CORE
    return per_core * len(os.sched_getaffinity(0))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    folders = [ROOT / "tests" / name for name in NOT_QUICK]
    return True if config.getoption("--quick") and collection_path in folders else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--quick"):
        left_out = [item for item in items if uses_a_database(item)]
        items[:] = [item for item in items if item not in set(left_out)]
        config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """What is imported and collected stays: a search for garbage meanwhile finds none, and takes a quarter of it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """Thousands of tests and all modules stay until the end: from now on no search for garbage goes through them."""
    gc.collect()
    gc.freeze()


def uses_a_database(item: Any) -> bool:
    case = item.callspec.id if hasattr(item, "callspec") else ""
    return any(DATABASE.search(name) for name in (*item.fixturenames, case))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    tell_missing(terminalreporter)
    tell_attacks(terminalreporter)
    tell_engines(terminalreporter)
    tell_times(terminalreporter)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Async tests run on both event loops."""
    return request.param


@pytest.fixture(scope="session")
def redis() -> Iterator[Service]:
    """A real Redis for the whole run."""
    with redis_server() as running:
        yield running


@pytest.fixture(scope="session")
def postgres() -> Iterator[Service]:
    """A real PostgreSQL for the whole run."""
    with postgres_server() as running:
        yield running


@pytest.fixture
def database(postgres: Service) -> Iterator[str]:
    """The URL of an empty database in that PostgreSQL."""
    with new_database(postgres) as url:
        yield url


@pytest.fixture
def server() -> Iterator[Backend]:
    """A real server on loopback, with faults on request."""
    with Backend() as built:
        yield built


@pytest.fixture
def session(server: Backend) -> Session:
    """A session that is logged in there."""
    made = Session(server.url, refresh_timeout=10.0, wait_timeout=20.0)
    made.login("ada", PASSWORD)
    return made


@pytest.fixture
def identity() -> Iterator[Identity]:
    """A real server that issues tokens, for services that only verify them."""
    with Identity() as running:
        yield running
