"""Every defect that was found in five widespread snippets is tested for, or cannot exist here; the common ones first.

S0 … S4 are the snippets, one for each shape; C1 … C11 are common to all. A test is marked with its defect.
"""

from __future__ import annotations

import gc
import importlib
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.backends.base import Backend, Fault
from tests.interop.backends.scene import DOWN, Scene, Stage, statuses
from tests.interop.backends.shapes import BearerJson, CodeIn200, KeptRefresh, OwnHeader, StatusInBody
from tests.support.adapters import Client
from tests.support.requests_of_adapters import tokens_after_challenge, tokens_for_request
from tests.support.waiting import until
from unbroken import FileStore, Session, SessionOver, TryLater, UnbrokenError

MODULES = ["defects", "status_in_body", "code_in_200", "bearer_json", "own_header", "kept_refresh"]
COUNTS = {"S0": 15, "S1": 12, "S2": 13, "S3": 12, "S4": 7}
IDS = [f"{of}.{n}" for of, count in COUNTS.items() for n in range(1, count + 1)] + [f"C{n}" for n in range(1, 12)]
IMPOSSIBLE = {
    "S2.10": "there is no page to leave and no window to miss: the error is raised where the request was made",
    "C5": "there is no web storage; that the pair is stored in one step is tested as S1.11",
}


def defects_with_a_test() -> list[str]:
    modules = [importlib.import_module(f"tests.interop.backends.test_{name}") for name in MODULES]
    marks = [mark for module in modules for test in vars(module).values() for mark in getattr(test, "pytestmark", [])]
    return [id_ for mark in marks if mark.name == "defect" for id_ in mark.args]


def test_every_defect_has_a_test_or_cannot_exist_here() -> None:
    assert set(IDS) - set(defects_with_a_test()) == set(IMPOSSIBLE)
    assert set(defects_with_a_test()) <= set(IDS)


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


@pytest.mark.defect("C1")
def test_processes_share_one_refresh(run: Callable[[Backend], Backend], tmp_path: Path) -> None:
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
    assert (backend.refreshes, backend.alarms) == (1, 0)


@pytest.mark.defect("C2")
@pytest.mark.parametrize("shape", [BearerJson, OwnHeader])
def test_tokens_go_to_no_other_origin_not_even_by_a_redirect(
    stage: Stage, run: Callable[[Backend], Backend], shape: type[Backend]
) -> None:
    scene, other = stage(shape()), run(shape())
    refused = other.challenge().status_code
    assert scene.client.request("GET", other.url + "/api/echo").status == refused
    assert scene.get(f"/api/redirect?to={other.url}/api/echo").status == refused
    assert [seen.value for seen in other.seen] == ["", ""]
    assert scene.backend.refreshes == 0, "a challenge of another origin is not about our token"


@pytest.mark.defect("C3")
def test_a_request_waits_no_longer_than_it_may(stage: Stage) -> None:
    scene = stage(BearerJson(), wait_timeout=0.1)
    scene.backend.expire()
    scene.backend.spoil(Fault(held=True))
    with pytest.raises(TryLater):
        scene.get()
    scene.backend.go_on.set()
    until(lambda: not scene.session.status.refreshing)
    assert scene.get().status == 200
    assert scene.backend.refreshes == 1, "the refresh went on without anybody waiting"


@pytest.mark.defect("C4")
def test_a_refresh_has_an_end_and_the_next_one_waits_a_while(stage: Stage) -> None:
    scene = stage(BearerJson(), refresh_timeout=0.5)
    scene.backend.expire()
    scene.backend.spoil(Fault(held=True, lost=True), times=3)
    with pytest.raises(TryLater):
        scene.begin(scene.get).result(20)
    with pytest.raises(TryLater):
        scene.get()  # the response to the first may still come, so there is no second
    assert scene.backend.refreshes == 1
    scene.backend.go_on.set()
    until(lambda: scene.backend.refreshes == 3 and not scene.session.status.refreshing)
    for _ in range(5):
        with pytest.raises(TryLater) as caught:
            scene.get()
        assert caught.value.retry_after > 0
    assert scene.backend.refreshes == 3
    scene.clock.advance(60)
    assert scene.get().status == 200


@pytest.mark.defect("C6")
def test_refresh_is_ahead_of_time_and_survives_a_sleeping_machine(stage: Stage) -> None:
    scene = stage(BearerJson(lifetime=1800))
    scene.clock.advance(1785)
    assert scene.get().status == 200
    until(lambda: scene.stored and scene.stored.access_token == scene.backend.issued[-1].access)
    until(lambda: not scene.session.status.refreshing)
    scene.backend.expire()
    scene.clock.sleep(8 * 3600)  # the monotonic clock has stood still
    assert scene.get().status == 200
    assert scene.backend.refreshes == 2
    assert len(scene.backend.seen) == 2, "no request was challenged"


@pytest.mark.defect("C7")
def test_what_waits_for_one_user_is_never_sent_for_the_next(scene: Scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(Fault(held=True))
    waits = scene.begin(scene.post, b"pay")
    until(lambda: scene.backend.refreshes)
    scene.log_in("bob")
    scene.backend.go_on.set()
    raised = waits.exception(10)
    assert isinstance(raised, SessionOver)
    assert raised.reason == "other_login"
    assert len(scene.backend.seen) == 1
    assert scene.get().json["user"] == "bob"


@pytest.mark.defect("C8")
def test_errors_have_types_and_the_end_is_one_event(scene: Scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(DOWN)
    with pytest.raises(UnbrokenError) as later:
        scene.get()
    scene.clock.advance(60)
    scene.backend.end_sessions()
    with pytest.raises(UnbrokenError) as over:
        scene.get()
    assert (later.value.code, over.value.code) == ("try_later", "session_over")
    assert len(scene.ended()) == 1
    assert [type(event).__name__ for event in scene.events].count("SessionEnded") == 1


@pytest.mark.defect("C9")
@pytest.mark.parametrize("shape", [StatusInBody, CodeIn200, BearerJson, OwnHeader, KeptRefresh])
def test_a_body_that_can_be_sent_once_is_sent_neither_twice_nor_empty(stage: Stage, shape: type[Backend]) -> None:
    scene = stage(shape())
    whole = scene.post(iter([b"a", b"b"])).json["sha256"]
    scene.backend.expire()
    challenge = scene.backend.challenge()
    response = scene.post(iter([b"a", b"b"]))
    assert (response.status, response.body) == (challenge.status_code, challenge.body)
    assert [seen.sha256 for seen in scene.backend.seen] == [whole, whole]
    assert scene.post(iter([b"a", b"b"])).json["sha256"] == whole
    assert scene.backend.refreshes == 1, "the session was refreshed for the next request"


@pytest.mark.defect("C10")
def test_a_session_leaves_no_thread_behind_and_needs_no_closing(run: Callable[[Backend], Backend]) -> None:
    backend, before = run(BearerJson()), set(threading.enumerate())
    pair = backend.issue("ada", "one family")
    session = Session(BearerJson.dialect(backend.url))
    session.import_tokens({"accessToken": pair.access, "refreshToken": pair.refresh})
    assert tokens_after_challenge(session, tokens_for_request(session), "echo")
    until(lambda: set(threading.enumerate()) <= before)
    gone = weakref.ref(session)
    del session
    gc.collect()
    assert gone() is None


@pytest.mark.defect("C11")
def test_two_clients_of_one_session_share_its_refresh(scene: Scene, adapter: Callable[[Session], Client]) -> None:
    second = adapter(scene.session)
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=0.1))
    clients = [scene.client, second] * 10
    begun = [scene.begin(client.request, "GET", scene.backend.url + "/api/echo") for client in clients]
    assert statuses([one.result(10) for one in begun]) == [200] * 20
    assert (scene.backend.refreshes, scene.backend.alarms) == (1, 0)
