"""What the bounds of ``unbroken serve`` hold, and what they cost: others beside a flood, and refreshes without one.

The floods are those of ``tests/attacks/test_connection_floods.py``, one after another, each on a connection of its own.
The other client is on this machine too, and measures the machine as well: so its waits are measured beside no flood
first. The cost is the CPU time of the server for a refresh, with the bounds and on uvicorn's own protocol, in turns.
"""

from __future__ import annotations

import http.client
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.figure import Figure
from tests.attacks.test_connection_floods import FLOODS, MIB, Watch, connect, flood
from tests.support.commands import PASSWORD, Server, serving, unbroken

MAX_MEMORY_MIB = 2.0
MAX_WAIT_MS = 50.0
MAX_COST_PERCENT = 3.0
FLOOD_SECONDS = 0.3  # for each kind, on one connection after another
QUIET_SECONDS = 3.0
REFRESHES = 1000
ROUNDS = 15
UNBOUNDED = "import unbroken.cli.connections as module\nmodule.http_protocol = lambda: 'httptools'\n"


def figures() -> Iterator[Figure]:
    with TemporaryDirectory(prefix="unbroken-bench-") as name:
        folder = Path(name)
        (folder / "own").mkdir()
        (folder / "own" / "sitecustomize.py").write_text(UNBOUNDED)
        unbroken(folder, "users", "add", "ada", "--password-stdin", given=PASSWORD + "\n")
        with serving(folder) as bounded, serving(folder, PYTHONPATH=str(folder / "own")) as bare:
            yield from _cost(bounded, bare)
        with serving(folder) as server:
            yield from _beside_floods(server)


def _beside_floods(server: Server) -> Iterator[Figure]:
    with Watch(server) as quiet:
        time.sleep(QUIET_SECONDS)
    yield Figure("wait of a client beside no flood, p99", _p99(quiet.waits), "ms")
    waits, growth = list[float](), 0.0
    for once, again in FLOODS.values():
        with Watch(server) as watch, connect(server) as connection:
            flood(connection, once, again, 8 * MIB)
        growth = max(growth, watch.growth)
        ends = time.monotonic() + FLOOD_SECONDS
        with Watch(server) as watch:
            while time.monotonic() < ends:
                with connect(server) as connection:
                    flood(connection, once, again, 8 * MIB)
        waits += watch.waits
    wait = _p99(waits)
    yield Figure("wait of a client beside a flood, p99", wait, "ms", f"under {MAX_WAIT_MS:g}", wait < MAX_WAIT_MS)
    yield Figure(
        "memory of a flood on one connection", growth, "MiB", f"at most {MAX_MEMORY_MIB:g}", growth <= MAX_MEMORY_MIB
    )


def _p99(waits: list[float]) -> float:
    return statistics.quantiles(waits, n=100)[-1] * 1000


def _cost(bounded: Server, bare: Server) -> Iterator[Figure]:
    works = {"bounded": _refreshing(bounded), "bare": _refreshing(bare)}
    rounds = [{name: work() for name, work in works.items()} for _ in range(ROUNDS)]
    taken = {name: min(one[name] for one in rounds) for name in works}  # CPU time: what is more is other programs' work
    cost = (taken["bounded"] / taken["bare"] - 1) * 100
    yield Figure("refresh with the bounds, CPU", taken["bounded"], "us")
    yield Figure("refresh on uvicorn's own protocol, CPU", taken["bare"], "us")
    yield Figure("cost of the bounds", cost, "%", f"at most {MAX_COST_PERCENT:g}", cost <= MAX_COST_PERCENT)


def _refreshing(server: Server) -> Callable[[], float]:
    """Return a function that refreshes on one connection, and returns the server's microseconds for each refresh."""
    token = [str(server.login()["refresh_token"])]

    def run() -> float:
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
        before = _cpu_seconds(server)
        for _ in range(REFRESHES):
            body = json.dumps({"refresh_token": token[0]})
            connection.request("POST", "/auth/refresh", body, {"content-type": "application/json"})
            token[0] = json.loads(connection.getresponse().read())["refresh_token"]
        taken = _cpu_seconds(server) - before
        connection.close()
        return taken / REFRESHES * 1e6

    return run


def _cpu_seconds(server: Server) -> float:
    """Return the CPU time of all threads of *server*, which the kernel counts in nanoseconds."""
    tasks = Path(f"/proc/{server.process.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
