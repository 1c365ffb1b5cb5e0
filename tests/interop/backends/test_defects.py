"""Every defect that was found in five widespread snippets is tested for, or cannot exist here; the common ones first.

S0 … S4 are the snippets, one for each shape; C1 … C11 are common to all. A test's name ends in the defect's id.
"""

from __future__ import annotations

import gc
import importlib
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.backends.base import Backend, Fault
from tests.interop.backends.scene import DOWN, Scene, Stage, statuses, until
from tests.interop.backends.shapes import BearerJson, CodeIn200, KeptRefresh, OwnHeader, StatusInBody
from tests.support.adapters import Client
from unbroken import FileStore, Session, SessionOver, TryLater, UnbrokenError

SHAPES = ["status_in_body", "code_in_200", "bearer_json", "own_header", "kept_refresh"]
COUNTS = {"s0": 15, "s1": 12, "s2": 13, "s3": 12, "s4": 7}
IDS = [f"{of}_{n}" for of, count in COUNTS.items() for n in range(1, count + 1)] + [f"c{n}" for n in range(1, 12)]
NOT_HERE = {
    "s2_10": "there is no page to leave and no window to miss: the error is raised where the request was made",
    "c5": "there is no web storage; that the pair is stored in one step is tested as s1_11",
}


def names_of_tests() -> list[str]:
    modules = ["test_defects", *(f"test_defects_of_{shape}" for shape in SHAPES)]
    return [name for module in modules for name in dir(importlib.import_module(f"tests.interop.backends.{module}"))]


@pytest.mark.parametrize("id_", IDS)
def test_every_defect_is_tested_for_or_cannot_exist_here(id_: str) -> None:
    tests = [name for name in names_of_tests() if name.startswith("test_") and name.endswith(f"_{id_}")]
    assert (len(tests), id_ in NOT_HERE) in ((1, False), (0, True)), tests


def test_the_list_is_whole() -> None:
    assert (len(IDS), sum(COUNTS.values())) == (70, 59)
    assert set(NOT_HERE) < set(IDS)


@pytest.fixture
def scene(stage: Stage) -> Scene:
    return stage(BearerJson())


PROCESS = """
import sys
from tests.interop.backends.dialects import bearer_json
from unbroken import FileStore, Session

url, path = sys.argv[1:]
session = Session(bearer_json(url), FileStore(path))
sent = session._authorize()
print("ready", flush=True)
sys.stdin.readline()
print(session._handle_challenge(sent, "echo").tokens.access_token)
"""


def test_processes_share_one_exchange_c1(run: Callable[[Backend], Backend], tmp_path: Path) -> None:
    backend = run(BearerJson())
    path = tmp_path / "tokens"
    pair = backend.issue("ada", "one family")
    session = Session(BearerJson.dialect(backend.url), FileStore(path))
    session.import_tokens({"accessToken": pair.access, "refreshToken": pair.refresh})
    command = [sys.executable, "-c", PROCESS, backend.url, str(path)]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    backend.expire()
    backend.spoil(Fault(seconds=0.2))
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    tokens = {process.communicate(timeout=20)[0].strip() for process in processes}
    assert tokens == {backend.issued[-1].access}
    assert (backend.exchanges, backend.alarms) == (1, 0)


@pytest.mark.parametrize("shape", [BearerJson, OwnHeader])
def test_tokens_go_to_no_other_origin_not_even_by_a_redirect_c2(
    stage: Stage, run: Callable[[Backend], Backend], shape: type[Backend]
) -> None:
    scene, other = stage(shape()), run(shape())
    refused = other.challenge().status_code
    assert scene.client.request("GET", other.url + "/api/echo").status == refused
    assert scene.get(f"/api/redirect?to={other.url}/api/echo").status == refused
    assert [seen.value for seen in other.seen] == ["", ""]
    assert scene.backend.exchanges == 0, "a challenge of another origin is not about our token"


def test_a_request_waits_no_longer_than_it_may_c3(stage: Stage) -> None:
    scene = stage(BearerJson(), wait_timeout=0.1)
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=1.0))
    began = time.monotonic()
    with pytest.raises(TryLater):
        scene.get()
    assert time.monotonic() - began < 0.9
    until(lambda: not scene.session.status.refreshing)
    assert scene.get().status == 200
    assert scene.backend.exchanges == 1, "the renewal went on without anybody waiting"


def test_an_exchange_has_an_end_and_the_next_one_waits_a_while_c4(stage: Stage) -> None:
    scene = stage(BearerJson(), refresh_timeout=0.1)
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=3, lost=True), times=3)
    with pytest.raises(TryLater):
        scene.begin(scene.get).result(5)
    for _ in range(5):
        with pytest.raises(TryLater) as caught:
            scene.get()
        assert caught.value.retry_after > 0
    assert scene.backend.exchanges == 3
    scene.hands.pass_(60)
    assert scene.get().status == 200


def test_renewal_is_ahead_of_time_and_survives_a_sleeping_machine_c6(stage: Stage) -> None:
    scene = stage(BearerJson(lifetime=1800))
    scene.hands.pass_(1785)
    assert scene.get().status == 200
    until(lambda: scene.stored and scene.stored.access_token == scene.backend.issued[-1].access)
    until(lambda: not scene.session.status.refreshing)
    scene.backend.expire()
    scene.hands.wall += 8 * 3600  # the monotonic clock has stood still
    assert scene.get().status == 200
    assert scene.backend.exchanges == 2
    assert len(scene.backend.seen) == 2, "no request was challenged"


def test_what_waits_for_one_user_is_never_sent_for_the_next_c7(scene: Scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=0.3))
    waits = scene.begin(scene.post, b"pay")
    until(lambda: scene.backend.exchanges)
    scene.log_in("bob")
    raised = waits.exception(10)
    assert isinstance(raised, SessionOver)
    assert raised.reason == "other_login"
    assert len(scene.backend.seen) == 1
    assert scene.get().json["user"] == "bob"


def test_errors_have_types_and_the_end_is_one_event_c8(scene: Scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(DOWN)
    with pytest.raises(UnbrokenError) as later:
        scene.get()
    scene.hands.pass_(60)
    scene.backend.end_sessions()
    with pytest.raises(UnbrokenError) as over:
        scene.get()
    assert (later.value.code, over.value.code) == ("try_later", "session_over")
    assert len(scene.ended()) == 1
    assert [type(event).__name__ for event in scene.events].count("SessionEnded") == 1


@pytest.mark.parametrize("shape", [StatusInBody, CodeIn200, BearerJson, OwnHeader, KeptRefresh])
def test_a_body_that_can_be_sent_once_is_sent_neither_twice_nor_empty_c9(stage: Stage, shape: type[Backend]) -> None:
    scene = stage(shape())
    whole = scene.post(iter([b"a", b"b"])).json["sha256"]
    scene.backend.expire()
    challenge = scene.backend.challenge()
    answer = scene.post(iter([b"a", b"b"]))
    assert (answer.status, answer.body) == (challenge.status_code, challenge.body)
    assert [seen.sha256 for seen in scene.backend.seen] == [whole, whole]
    assert scene.post(iter([b"a", b"b"])).json["sha256"] == whole
    assert scene.backend.exchanges == 1, "the session was renewed for the next request"


def test_a_session_leaves_no_thread_behind_and_needs_no_closing_c10(run: Callable[[Backend], Backend]) -> None:
    backend, before = run(BearerJson()), set(threading.enumerate())
    pair = backend.issue("ada", "one family")
    session = Session(BearerJson.dialect(backend.url))
    session.import_tokens({"accessToken": pair.access, "refreshToken": pair.refresh})
    assert session._handle_challenge(session._authorize(), "echo")
    until(lambda: set(threading.enumerate()) <= before)
    gone = weakref.ref(session)
    del session
    gc.collect()
    assert gone() is None


def test_two_clients_of_one_session_share_its_renewal_c11(scene: Scene, adapter: Callable[[Session], Client]) -> None:
    second = adapter(scene.session)
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=0.1))
    clients = [scene.client, second] * 10
    begun = [scene.begin(client.request, "GET", scene.backend.url + "/api/echo") for client in clients]
    assert statuses([one.result(10) for one in begun]) == [200] * 20
    assert (scene.backend.exchanges, scene.backend.alarms) == (1, 0)
