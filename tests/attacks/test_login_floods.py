"""Floods of logins: who gets in beside them, and what they cost the machine and the store."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx2
import pytest
from argon2 import PasswordHasher
from starlette.applications import Starlette

from tests.support.attacks import Attacks
from tests.support.backend import running
from tests.support.faces import FACES
from unbroken.server import Accounts, Endpoints, MemorySessionStore, Sessions, SqliteSessionStore
from unbroken.server.http.messages import Request
from unbroken.server.login.machine_slots import MachineSlots
from unbroken.server.stores import StoreWrapper
from unbroken.starlette import routes

Size = Callable[[int, int], int]
RIGHT = "correct horse"
HOSTILE = 160
SCRIPT = multiprocessing.get_context("spawn")


class Hostile:
    """Connections from many addresses of this machine that send wrong passwords, one after another."""

    def __init__(self, url: str, attacks: Attacks) -> None:
        self._url, self._attacks, self.statuses = url, attacks, list[int]()
        self._stopped = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._thread.join(60)

    async def _run(self) -> None:
        await asyncio.gather(*(self._send(number) for number in range(HOSTILE)))

    async def _send(self, number: int) -> None:
        transport = httpx2.AsyncHTTPTransport(local_address=f"127.0.{1 + number // 40}.{1 + number % 40}")
        async with httpx2.AsyncClient(base_url=self._url, transport=transport, timeout=60) as http:
            tries = 0
            while not self._stopped:
                self._attacks.try_one()
                tries += 1
                name = f"nobody-{number}-{tries}"
                with contextlib.suppress(httpx2.ReadTimeout):  # all the others may be before it, on a slow machine
                    response = await http.post("/auth/login", json={"username": name, "password": "wrong"})
                    self.statuses.append(response.status_code)


@pytest.mark.parametrize("known_by", ["device", "address"])
def test_a_known_device_or_address_logs_in_beside_a_flood(
    known_by: str, attacks: Attacks, size: Size, tmp_path: Path
) -> None:
    sessions = Sessions(SqliteSessionStore(tmp_path / "s.db"))
    accounts = Accounts(sessions, PasswordHasher(time_cost=1, memory_cost=size(8192, 65536), parallelism=1))
    accounts.add("ada", RIGHT)
    app = Starlette(routes=routes(sessions, accounts.authenticate))
    with running(app) as port, httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
        first = http.post("/auth/login", json={"username": "ada", "password": RIGHT}).json()
        device = {"device_token": first["device_token"]} if known_by == "device" else {}
        right = []
        with Hostile(f"http://127.0.0.1:{port}", attacks) as hostile:
            while len(hostile.statuses) < HOSTILE / 4:
                time.sleep(0.05)
            for _ in range(size(10, 60)):
                response = http.post("/auth/login", json={"username": "ada", "password": RIGHT, **device})
                right.append(response.status_code)
    assert right.count(200) >= 0.95 * len(right), (right, hostile.statuses)
    assert len(hostile.statuses) > HOSTILE / 4, "the flood was one"
    sessions.close()


def test_a_flood_without_an_event_loop_does_not_keep_a_known_device_out(attacks: Attacks) -> None:
    """Of a framework without an event loop."""
    sessions = Sessions(MemorySessionStore())
    endpoints = Endpoints(sessions, lambda name, password: time.sleep(0.02) or (name if password == RIGHT else None))

    def login(name: str, password: str, ip: str, device: str = "") -> dict[str, Any]:
        body = json.dumps({"username": name, "password": password, "device_token": device}).encode()
        response = endpoints.handle_blocking(Request("POST", "/auth/login", JSON, body, ip))
        assert response is not None
        return {"status": response.status, **json.loads(response.body)}

    device = login("ada", RIGHT, "home")["device_token"]
    stop = threading.Event()

    def flood(number: int) -> None:
        tries = 0
        while not stop.is_set():
            tries += 1
            attacks.try_one()
            if login(f"nobody-{number}-{tries}", "wrong", f"{number}-{tries}")["status"] == 503:
                time.sleep(0.005)

    threads = [threading.Thread(target=flood, args=(number,)) for number in range(HOSTILE)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.3)
        statuses = [login("ada", RIGHT, f"abroad-{number}", device)["status"] for number in range(10)]
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert statuses == [200] * 10


# ---- memory ----------------------------------------------------------------------------------------------------------

JSON = {"content-type": "application/json"}


def hold(folder: str, rounds: int, begin: Any, counts: Any, most: Any) -> None:
    """Take slots again and again, in four threads of one process, once all processes are there."""
    slots = MachineSlots("attack", 2, folder)
    begin.wait(60)

    def work() -> None:
        for _ in range(rounds):
            with slots.slot():
                with counts.get_lock():
                    counts.value += 1
                    most.value = max(most.value, counts.value)
                time.sleep(0.002)
                with counts.get_lock():
                    counts.value -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


def test_four_workers_hash_no_more_at_once_than_one(attacks: Attacks, size: Size, tmp_path: Path) -> None:
    counts, most = SCRIPT.Value("i", 0), SCRIPT.Value("i", 0)
    arguments = (str(tmp_path), size(10, 200), SCRIPT.Barrier(4), counts, most)
    processes = [SCRIPT.Process(target=hold, args=arguments) for _ in range(4)]
    attacks.try_many(16)
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert (most.value, counts.value) == (2, 0)


# ---- the store -------------------------------------------------------------------------------------------------------


class Counting(StoreWrapper):
    """A store that notes what is asked of it."""

    def __init__(self, inside: Any) -> None:
        super().__init__(inside)
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inside, name)
        if not callable(found) or name in ("short_timeout", "notifications"):
            return found

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.asked.append(name)
            return found(*args, **kwargs)

        return counted


JUNK = [
    "x",
    "a.b.c",
    "." * 50,
    "x" * 20_000,
    "eyJhbGciOiJIUzI1NiIsInR5cCI6ImxvZ2luLXN0ZXArand0Iiwia2lkIjoiMSJ9.e30.AAAA",
    "eyJhbGciOiJub25lIn0.e30.",
    "\U0001f600" * 9,
]


@pytest.mark.parametrize("junk", JUNK)
def test_junk_in_place_of_an_mfa_token_costs_the_store_nothing_and_counts(junk: str, attacks: Attacks) -> None:
    store = Counting(MemorySessionStore())
    endpoints = Endpoints(Sessions(store), lambda name, _: name, verify_mfa=lambda *_: True)  # type: ignore[arg-type]
    body = json.dumps({"mfa_token": junk, "code": "1"}).encode()

    def step(ip: str) -> int:
        response = endpoints.handle_blocking(Request("POST", "/auth/login/step", JSON, body, ip))
        assert response is not None
        return response.status

    step("192.0.2.1")  # the first request of a process reads the keys
    store.asked.clear()
    statuses, began = [], time.monotonic()
    for _ in range(300):
        attacks.try_one()
        statuses.append(step("192.0.2.1"))
    assert {401, 429} == set(statuses)
    assert statuses[-1] == 429
    polls = [name for name in store.asked if name not in ("keys", "revocations")]
    assert polls == []
    assert len(store.asked) <= 6 * (time.monotonic() - began + 1), "no more than each process polls anyway"
    assert step("192.0.2.2") == 401


def test_junk_in_place_of_a_device_token_costs_the_store_no_more_than_none(attacks: Attacks) -> None:
    calls = []
    for device in ("", *JUNK):
        store = Counting(MemorySessionStore())
        endpoints = Endpoints(Sessions(store), lambda *_: None)  # type: ignore[arg-type]
        for turn in range(2):
            attacks.try_one()
            body = json.dumps({"username": "ada", "password": "x", "device_token": device}).encode()
            endpoints.handle_blocking(Request("POST", "/auth/login", JSON, body, "192.0.2.1"))
            if turn == 0:
                store.asked.clear()
        calls.append([name for name in store.asked if name not in ("keys", "revocations")])
    assert len({str(one) for one in calls}) == 1, calls


@pytest.mark.parametrize("face", sorted(FACES))
def test_junk_is_limited_on_every_framework(face: str, attacks: Attacks) -> None:
    settings: Any = {"verify_mfa": lambda *_: True}
    with (
        FACES[face](Sessions(MemorySessionStore()), **settings) as port,
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http,
    ):
        statuses = []
        for _ in range(205):
            attacks.try_one()
            statuses.append(http.post("/auth/login/step", json={"mfa_token": "x", "code": "1"}).status_code)
    assert (statuses[0], statuses[-1]) == (401, 429)
