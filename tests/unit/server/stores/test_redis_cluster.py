"""The store in a cluster of three masters: the same, though what it needs is on several servers."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
import redis as driver
from hypothesis import HealthCheck, given, settings

from tests.contract.stores.test_server_stores import rows, tokens
from tests.support.services import Service, free_port, unavailable
from tests.support.waiting import until
from tests.unit.server.stores.test_redis import wait_for_the_log
from unbroken._concurrency import run_sync
from unbroken.errors import ConfigurationError, InvalidGrant, InvalidToken, StoreUnavailable
from unbroken.server import Sessions
from unbroken.server.core.rotation import Policy, PresentedToken, SessionRow, Verdict, present
from unbroken.server.stores.redis import RedisSessionStore

NOW = 100.0
SLOTS = 16384


@contextmanager
def redis_cluster() -> Iterator[list[Service]]:
    """Three masters that share the slots among them."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        unavailable("Redis", "apt-get install redis-server")
    with contextlib.ExitStack() as stack:
        nodes = [_node(program or "", stack) for _ in range(3)]
        clients = [stack.enter_context(driver.Redis.from_url(node.url)) for node in nodes]
        for number, client in enumerate(clients):
            first, end = SLOTS * number // 3, SLOTS * (number + 1) // 3
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in nodes[1:]:
            bus = _BUS[node.url]
            clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", node._port, bus)
        until(lambda: all(_agrees(client) for client in clients), seconds=150)
        yield nodes


_BUS: dict[str, int] = {}


def _node(program: str, stack: contextlib.ExitStack) -> Service:
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="unbroken-redis-"))
    port, bus = free_port(), free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""]
    command += ["--appendonly", "yes", "--cluster-enabled", "yes", "--cluster-port", str(bus)]
    command += ["--cluster-node-timeout", "1000", "--cluster-config-file", str(Path(folder) / "nodes.conf")]
    service = Service(f"redis://127.0.0.1:{port}", command, port)
    _BUS[service.url] = bus
    service.start()
    stack.callback(service.stop)
    return service


def _agrees(client: Any) -> bool:
    info = client.execute_command("CLUSTER", "INFO")
    slots = client.execute_command("CLUSTER", "SLOTS")
    return b"cluster_state:ok" in info and len(slots) == 3


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[Service]]:
    with redis_cluster() as nodes:
        yield nodes


@pytest.fixture
def url(cluster: list[Service]) -> str:
    hosts = ",".join(node.url.removeprefix("redis://") for node in cluster)
    return f"redis+cluster://{hosts}?prefix={uuid.uuid4().hex}"


@pytest.fixture
def store(url: str) -> Iterator[RedisSessionStore]:
    made = RedisSessionStore(url)
    yield made
    made.close()


def row(sid: str = "sid", **fields: Any) -> SessionRow:
    return replace(SessionRow(sid.encode() * 4, sid, "ada", NOW, NOW, NOW + 500.0, NOW + 900.0), **fields)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=rows, token=tokens)
def test_rotate_is_r1_and_nothing_else(store: RedisSessionStore, before: SessionRow, token: PresentedToken) -> None:
    name = uuid.uuid4()
    before = replace(before, key=name.bytes, sid=str(name))
    run_sync(store.insert(before))
    rotated = run_sync(store.rotate(before.key, token, NOW, Policy(refresh_ttl=300.0)))
    after, verdict = present(before, token, NOW, Policy(refresh_ttl=300.0))
    assert rotated is (verdict is Verdict.ROTATED)
    assert run_sync(store.read(before.key)) == (after if rotated else before)


@pytest.mark.parametrize("backend", ["blocking", "asyncio", "trio"])
def test_sessions_live_on_all_nodes(store: RedisSessionStore, backend: str) -> None:
    async def life() -> None:
        everyone = [row(str(number)) for number in range(60)]
        for one in everyone:
            await store.insert(one)
            assert await store.rotate(one.key, PresentedToken(0, 0), NOW + 1, Policy(refresh_ttl=300.0))
        assert {found.sid for found in await store.sessions("ada")} == {one.sid for one in everyone}
        assert len(await store.sessions()) == 60
        branched = replace(row("new"), branch=1)
        await store.insert(row("new"))
        assert await store.compare_and_set(row("new"), branched, 0.0)
        assert not await store.compare_and_set(row("new"), branched, 0.0)
        await store.record_first_use("new", 0, 1)
        assert await store.read(branched.key) == replace(branched, first_used_branch=1)
        assert await store.revoke(NOW + 2, "revoked", NOW + 9, sid="new") == ["new"]
        assert len(await store.revoke(NOW + 2, "revoked", NOW + 9, subject="ada")) == 60
        _, revoked = await store.revocations(0)
        assert len(revoked) == 61
        assert await store.advance_marker(b"a", NOW, 1.0, 5.0) == NOW + 1
        assert await store.read_markers([b"a", b"b"]) == [NOW + 1, 0.0]
        await store.clear_markers([b"a", b"b"])
        await store.health()
        await store.aclose()

    run_sync(life()) if backend == "blocking" else anyio.run(life, backend=backend)


def test_the_epoch_of_another_slot_ends_a_session(store: RedisSessionStore) -> None:
    for sid in ("a", "b", "c", "d"):
        run_sync(store.insert(row(sid)))
    run_sync(store._revoke_subject("ada", NOW + 1, "revoked"))
    for sid in ("a", "b", "c", "d"):
        assert not run_sync(store.rotate(row(sid).key, PresentedToken(0, 0), NOW + 2, Policy(refresh_ttl=300.0)))
        assert run_sync(store.read(row(sid).key)).revoked_at == NOW + 1


def test_a_whole_life_on_two_hosts(url: str) -> None:
    one, two = Sessions(RedisSessionStore(url)), Sessions(RedisSessionStore(url))
    granted = one.create("ada")
    granted = two.refresh(granted.refresh_token or "", idempotency_key="a")
    assert two.verify(granted.access_token).subject == "ada"
    notifications = two.store.notifications()
    notifications.wait(5.0)
    assert one.revoke_subject("ada") == 1
    notifications.wait(10.0)
    notifications.close()
    run_sync(two._freshness.refresh_now())
    with pytest.raises(InvalidToken):
        two.verify(granted.access_token)
    with pytest.raises(InvalidGrant):
        two.refresh(granted.refresh_token or "")
    one.close()
    two.close()


def test_a_node_that_died_is_told_in_time_and_its_return_noticed() -> None:
    with redis_cluster() as nodes:
        store = RedisSessionStore("redis+cluster://" + nodes[0].url.removeprefix("redis://"), timeout=1.0)
        everyone = [row(str(number)) for number in range(12)]
        for one in everyone:
            run_sync(store.insert(one))
        wait_for_the_log(nodes[2].url)
        nodes[2].stop(signal.SIGKILL)
        flows: list[Callable[[], Coroutine[Any, Any, bool]]] = [
            lambda one=one: store.rotate(one.key, PresentedToken(0, 0), NOW + 1, Policy(refresh_ttl=300.0))
            for one in everyone
        ]
        for ask in (lambda flow: run_sync(flow()), anyio.run):
            began, failed = time.monotonic(), 0
            for flow in flows[:6]:
                try:
                    ask(flow)
                except StoreUnavailable:
                    failed += 1
            assert failed
            assert time.monotonic() - began < 60
        nodes[2].start()
        until(lambda: _all_answer(store, everyone), seconds=150)
        store.close()


def _all_answer(store: RedisSessionStore, everyone: list[SessionRow]) -> bool:
    try:
        return all(run_sync(store.read(one.key)) is not None for one in everyone)
    except StoreUnavailable:
        return False


def test_a_cluster_is_asked_for_by_its_name(cluster: list[Service]) -> None:
    store = RedisSessionStore(cluster[0].url)
    with pytest.raises(ConfigurationError, match=r"redis\+cluster://"):
        run_sync(store.health())
    store.close()
