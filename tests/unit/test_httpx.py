"""The auth class on httpx and httpx2, blocking and async, against a real server: replay, scope, laziness."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import anyio
import httpx
import httpx2
import pytest

import unbroken.httpx
import unbroken.httpx2
from tests.support.backend import PASSWORD, Backend, running
from tests.support.requests_of_adapters import tokens_after_challenge, tokens_for_request
from tests.support.small_api import SmallApi, session_at
from unbroken import NotReplayable, RefreshStorm, Session, SessionOver, TryLater
from unbroken.events import ClientEvent, RequestNotReplayed, RequestReplayed

LIBRARIES = [(httpx, unbroken.httpx.SessionAuth), (httpx2, unbroken.httpx2.SessionAuth)]
PIXELS = bytes(range(256)) * 500


@pytest.fixture(params=LIBRARIES, ids=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> tuple[ModuleType, Any]:
    return request.param


@pytest.fixture
def client(library: tuple[ModuleType, Any], session: Session) -> Iterator[Any]:
    module, auth = library
    with module.Client(auth=auth(session)) as made:
        yield made


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_good_token_is_attached_and_nothing_else_happens(client: Any, server: Backend) -> None:
    response = client.get(server.url + "/echo")
    assert response.json()["sub"] == "ada"
    assert len(server.seen) == 1
    assert response.history == []


def test_a_challenged_request_is_sent_again_with_a_new_token(client: Any, server: Backend) -> None:
    server.expire()
    assert client.get(server.url + "/echo").status_code == 200
    assert (server.refreshes, len(server.seen)) == (1, 2)


def test_a_late_challenge_needs_no_refresh(client: Any, server: Backend, session: Session) -> None:
    sent = tokens_for_request(session)
    server.expire()
    client.get(server.url + "/echo")
    assert tokens_after_challenge(session, sent, "elsewhere") is tokens_for_request(session)
    assert server.refreshes == 1


def test_a_pool_of_ten_serves_a_hundred_parked_threads(library: Any, server: Backend, session: Session) -> None:
    module, auth = library
    server.expire()
    server.slow_next(0.3)
    statuses = []
    with module.Client(auth=auth(session), limits=module.Limits(max_connections=10), timeout=20) as client:
        threads = [
            threading.Thread(target=lambda: statuses.append(client.get(server.url + "/echo").status_code))
            for _ in range(100)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert statuses == [200] * 100
    assert server.refreshes == 1


@pytest.mark.anyio
async def test_a_pool_of_five_serves_a_hundred_parked_tasks(library: Any, server: Backend, session: Session) -> None:
    module, auth = library
    server.expire()
    server.slow_next(0.2)
    statuses = []
    async with module.AsyncClient(auth=auth(session), limits=module.Limits(max_connections=5), timeout=30) as client:

        async def one() -> None:
            statuses.append((await client.get(server.url + "/echo")).status_code)

        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(one)
    assert statuses == [200] * 100
    assert (server.refreshes, server.alarms()) == (1, 0)


# ---- bodies ----------------------------------------------------------------------------------------------------------


REPLAYED: dict[str, Callable[[], dict[str, Any]]] = {
    "bytes": lambda: {"content": PIXELS},
    "text": lambda: {"content": "grüße"},
    "JSON": lambda: {"json": {"a": 1}},
    "a form": lambda: {"data": {"a": "1"}},
    "a stream": lambda: {"content": io.BytesIO(PIXELS)},
    "a list of chunks": lambda: {"content": [b"a", b"b"]},
}


@pytest.mark.parametrize("body", REPLAYED.values(), ids=REPLAYED)
def test_a_body_is_sent_again_byte_for_byte(client: Any, server: Backend, body: Callable[[], dict[str, Any]]) -> None:
    assert client.post(server.url + "/echo", **body()).status_code == 200
    server.expire()
    assert client.post(server.url + "/echo", **body()).status_code == 200
    assert len(server.bodies) == 2
    assert server.bodies[0] == server.bodies[1] != sha(b"")


def test_an_open_file_is_sent_again_from_where_it_stood(client: Any, server: Backend, tmp_path: Path) -> None:
    (tmp_path / "pixels").write_bytes(PIXELS)
    # httpx (not httpx2) announces the length of the whole file, so it cannot send a part of one at all.
    start = 0 if isinstance(client, httpx.Client) else 1000
    server.expire()
    with (tmp_path / "pixels").open("rb") as file:
        file.seek(start)
        assert client.put(server.url + "/echo", content=file).json()["length"] == len(PIXELS) - start
    assert server.bodies == [sha(PIXELS[start:])]


def test_a_multipart_upload_is_sent_again_whole(client: Any, server: Backend) -> None:
    server.expire()
    response = client.post(server.url + "/echo", files={"file": ("pixels", io.BytesIO(PIXELS))})
    assert response.json()["length"] > len(PIXELS)


class Pipe(io.RawIOBase):
    """A file that cannot be wound back."""

    def __init__(self, data: bytes) -> None:
        self._rest = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        return self._rest.readinto(into)


ONCE: dict[str, Callable[[], dict[str, Any]]] = {
    "a generator": lambda: {"content": (chunk for chunk in [b"a", b"b"])},
    "an iterator": lambda: {"content": iter([b"a", b"b"])},
    "a pipe": lambda: {"content": Pipe(b"ab")},
    "a pipe in a form": lambda: {"files": {"file": ("pipe", Pipe(b"ab"))}},
}


@pytest.mark.parametrize("body", ONCE.values(), ids=ONCE)
def test_a_body_that_can_be_sent_once_is_never_sent_twice_nor_empty(
    client: Any, server: Backend, session: Session, body: Callable[[], dict[str, Any]]
) -> None:
    server.expire()
    response = client.post(server.url + "/echo", **body())
    assert response.status_code == 401
    assert len(server.seen) == 1
    why = response.extensions["unbroken.error"]
    assert isinstance(why, NotReplayable)
    assert "only once" in str(why)
    assert server.refreshes == 1, "the session is refreshed, so that the next request works"
    assert client.post(server.url + "/echo", **body()).status_code == 200


@pytest.mark.anyio
async def test_an_async_generator_is_sent_once(library: Any, server: Backend, session: Session) -> None:
    module, auth = library

    async def chunks() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    server.expire()
    async with module.AsyncClient(auth=auth(session)) as client:
        response = await client.post(server.url + "/echo", content=chunks())
        assert (response.status_code, len(server.seen)) == (401, 1)
        assert isinstance(response.extensions["unbroken.error"], NotReplayable)
        assert (await client.post(server.url + "/echo", content=chunks())).json()["length"] == 2


# ---- what is not ours ------------------------------------------------------------------------------------------------


def test_an_endpoint_that_rejects_every_token_gets_its_way(client: Any, server: Backend) -> None:
    for _ in range(20):
        assert client.get(server.url + "/never").status_code == 401
    assert server.refreshes == 1
    assert client.get(server.url + "/echo").status_code == 200


def test_tokens_do_not_go_to_another_origin(client: Any, server: Backend) -> None:
    other = Backend(1800)
    with running(other.app()) as port:
        assert client.get(f"http://127.0.0.1:{port}/echo").status_code == 401
        response = client.get(f"{server.url}/redirect?to=http://127.0.0.1:{port}/echo", follow_redirects=True)
        assert response.status_code == 401
    assert [authorization for _, authorization in other.seen] == ["", ""]
    assert server.refreshes == 0, "the challenge of another origin is not about our token"


def test_a_users_own_authorization_is_left_alone(client: Any, server: Backend) -> None:
    response = client.get(server.url + "/echo", headers={"authorization": "Bearer theirs"})
    assert response.status_code == 401
    assert server.seen == [("/echo", "Bearer theirs")]
    assert server.refreshes == 0


def test_a_request_object_can_be_sent_twice(client: Any, server: Backend) -> None:
    request = client.build_request("GET", server.url + "/echo")
    assert client.send(request).status_code == 200
    server.expire()
    assert client.send(request).status_code == 200


def test_a_streamed_response_stays_lazy(client: Any, server: Backend) -> None:
    server.expire()
    with client.stream("GET", server.url + "/stream") as response:
        assert not response.is_stream_consumed
        assert "".join(response.iter_text()) == "0\n1\n2\n"


def test_the_refresh_goes_through_none_of_the_users_hooks(library: Any, server: Backend, session: Session) -> None:
    module, auth = library
    seen: list[str] = []
    hooks = {"request": [lambda request: seen.append(request.url.path)]}
    server.expire()
    with module.Client(auth=auth(session), event_hooks=hooks) as client:
        response = client.get(server.url + "/echo")
    assert set(seen) == {"/echo"}
    assert [past.status_code for past in response.history] == [401]


def test_errors_reach_the_caller(client: Any, server: Backend, session: Session) -> None:
    server.expire()
    for _ in range(3):
        server.fail_next(500)
    with pytest.raises(TryLater):
        client.get(server.url + "/echo")
    server.sessions.revoke_subject("ada")
    session.logout()
    with pytest.raises(SessionOver):
        client.get(server.url + "/echo")


def test_events_tell_of_replays(library: Any, server: Backend) -> None:
    module, auth = library
    events: list[ClientEvent] = []
    session = Session(server.url, on_event=events.append)
    session.login("ada", PASSWORD)
    server.expire()
    with module.Client(auth=auth(session)) as client:
        client.get(server.url + "/echo")
        server.expire()
        client.post(server.url + "/echo", content=iter([b"a"]))
    kinds = {type(event) for event in events}
    assert {RequestReplayed, RequestNotReplayed} <= kinds


def test_a_storm_reaches_the_caller(library: Any, server: Backend, session: Session) -> None:
    module, auth = library
    with module.Client(auth=auth(session)) as client:
        for _ in range(5):
            server.expire()
            assert client.get(f"{server.url}/echo").status_code == 200
        server.expire()
        with pytest.raises(RefreshStorm):
            client.get(f"{server.url}/echo")


def test_threads_that_begin_at_once_share_one_transport() -> None:
    made: list[httpx.HTTPTransport] = []
    began = threading.Barrier(8)

    def make() -> httpx.HTTPTransport:
        made.append(httpx.HTTPTransport())
        threading.Event().wait(0.05)
        return made[-1]

    class Slow(unbroken.httpx.SessionTransport):
        _library = SimpleNamespace(**{**vars(httpx), "HTTPTransport": make})

    with SmallApi() as backend, httpx.Client(transport=Slow(session_at(backend))) as client:

        def get() -> None:
            began.wait(10)
            client.get(backend.url + "/items")

        threads = [threading.Thread(target=get) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert len(backend.seen) == 8
    assert len(made) == 1


def test_an_extension_that_says_not_to_skip_skips_nothing() -> None:
    with SmallApi() as backend, httpx.Client(auth=unbroken.httpx.SessionAuth(session_at(backend))) as client:
        assert client.get(backend.url + "/items", extensions={"unbroken.skip": False}).status_code == 200
        assert client.get(backend.url + "/items", extensions={"unbroken.skip": True}).status_code == 401
