"""The examples, against real servers that end what an access token began as soon as the token dies.

Most tests live by a clock that obeys: thirty minutes pass when the server says so. The last ones run the examples as
a reader would, as programs, with tokens of one second.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
import httpx2
import openai
import pytest
import websockets
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from examples import event_stream, grpc_calls, openai_client, plain_python, websocket_feed
from unbroken import InvalidToken, Session, SessionOver
from unbroken.httpx2 import SessionAuth
from unbroken.server import MemoryStore, Policy, Sessions
from unbroken.starlette import SessionMiddleware, current_session, routes
from unbroken.testing import ManualClock, running
from unbroken.testing.server import PASSWORD

ROOT = Path(__file__).parent.parent
LIFETIME = 1800
TOKENS = 4  # who has used so many has outlived three


class Shop:
    """A server whose streams end with their tokens. ``used`` are the access tokens that came, by what they were for.

    With *clock*, half an hour passes after every fifth message, and before every fifth call is looked at. Without it,
    tokens live for a second, and messages come every 50 ms.
    """

    def __init__(self, clock: ManualClock | None = None) -> None:
        self.clock = clock
        policy = Policy(access_ttl=LIFETIME if clock else 1)
        self.sessions = Sessions(MemoryStore(), policy=policy, **({"clock": clock.wall} if clock else {}))
        self.used: dict[str, list[str]] = {}
        self.closes_with = 3000
        self.cuts: list[str] = []
        self.last: dict[str, int] = {}  # the number of the last message of a stream
        self.dies_on_the_way = False
        self.url = ""

    def good(self, token: str, what: str) -> bool:
        """Whether *token* is good now; it is noted once for each connection or call that it comes with."""
        try:
            self.sessions.verify(token)
        except InvalidToken:
            return False
        if token not in self.used.setdefault(what, []):
            self.used[what].append(token)
        return True

    def time_passes(self) -> None:
        if self.clock:
            self.clock.advance(LIFETIME + 60)

    async def messages(self, what: str, token: str, after: int) -> AsyncIterator[int]:
        """Numbers from *after* on, until the token dies, or until three have died and the fourth brought some."""
        number = after
        while self.good(token, what):
            if len(self.used[what]) == TOKENS and number % 5 == 0 and number > after:
                self.last[what] = number
                return
            number += 1
            yield number
            await asyncio.sleep(0 if self.clock else 0.05)
            if number % 5 == 0 and len(self.used[what]) < TOKENS:
                self.time_passes()

    async def feed(self, socket: WebSocket) -> None:
        token = bearer(socket.headers)
        await socket.accept()
        async for number in self.messages("feed", token, int(socket.query_params["after"])):
            await socket.send_json({"id": number, "text": "x" * number})
        await socket.close(1000 if "feed" in self.last else self.closes_with)

    async def events(self, request: Request) -> Response:
        current_session(request)
        after = int(request.headers.get("last-event-id", "0"))
        if after == self.last.get("events"):
            return Response(status_code=204)

        async def lines() -> AsyncIterator[str]:
            yield "retry: 10\n\n: hello\n\n"
            async for number in self.messages("events", bearer(request.headers), after):
                yield f"id: {number}\ndata: {'x' * number}\n\n"
                after_this = number + 1
            if "events" in self.last:
                return
            yield f"id: {after_this}\ndata: this is cut off he"
            self.cuts.append("ended" if len(self.cuts) % 2 else "broken off")
            if self.cuts[-1] == "broken off":
                raise ConnectionAbortedError

        return StreamingResponse(lines(), media_type="text/event-stream")

    async def completions(self, request: Request) -> Response:
        self.maybe_dies()
        token = bearer(request.headers)
        if not self.good(token, "completions"):
            return Response(status_code=401, headers={"www-authenticate": 'Bearer error="invalid_token"'})
        message = {"role": "assistant", "content": self.sessions.verify(token).subject}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        asked = await request.json()
        answer = {"id": "1", "object": "chat.completion", "created": 0, "model": asked["model"], "choices": [choice]}
        return JSONResponse(answer)

    async def orders(self, request: Request) -> Response:
        self.used.setdefault("orders", []).append(bearer(request.headers))
        return JSONResponse({"orders of": current_session(request).subject})

    async def redirect(self, request: Request) -> Response:
        return RedirectResponse(request.query_params["to"])

    def call(self, _request: bytes, context: grpc.ServicerContext) -> bytes:
        self.maybe_dies()
        token = dict(context.invocation_metadata()).get("authorization", "").removeprefix("Bearer ")
        if not self.good(token, "calls"):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "the access token is no good")
        return f"the orders of {self.sessions.verify(token).subject}".encode()

    def end_all_tokens(self) -> None:
        """All access tokens die now, whatever their clients' clocks say."""
        self.clock.advance(1)
        [*_, old] = self.sessions.keyring().signing
        self.sessions.rotate_keys(publish_ahead=0.0)
        self.sessions.retire_key(old.kid)

    def maybe_dies(self) -> None:
        """The token of the request at hand was good when it was sent, and is dead when it arrives."""
        if self.dies_on_the_way:
            self.dies_on_the_way = False
            self.time_passes()

    def app(self) -> Starlette:
        auth = routes(self.sessions, lambda name, password: name if password == PASSWORD else None)
        api = [
            WebSocketRoute("/feed", self.feed),
            Route("/events", self.events),
            Route("/v1/chat/completions", self.completions, methods=["POST"]),
            Route("/orders", self.orders),
            Route("/redirect", self.redirect),
        ]
        return Starlette(routes=[*auth, *api], middleware=[Middleware(SessionMiddleware, sessions=self.sessions)])


def bearer(headers: Any) -> str:
    return headers.get("authorization", "").removeprefix("Bearer ")


@contextmanager
def opened(shop: Shop) -> Iterator[Shop]:
    with running(shop.app()) as port:
        shop.url = f"http://127.0.0.1:{port}"
        yield shop


@contextmanager
def calls(shop: Shop, credentials: grpc.ServerCredentials) -> Iterator[int]:
    """The shop's gRPC end; its port."""
    handler = grpc.unary_unary_rpc_method_handler(shop.call)
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Orders", {"List": handler}),))
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        try:
            yield port
        finally:
            server.stop(None).wait(5)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def shop(clock: ManualClock) -> Iterator[Shop]:
    with opened(Shop(clock)) as built:
        yield built


@pytest.fixture
def login(shop: Shop, clock: ManualClock) -> Session:
    session = Session(shop.url, clock=clock)
    session.login("ada", PASSWORD)
    return session


# ---- a WebSocket -----------------------------------------------------------------------------------------------------


async def collect(session: Session, shop: Shop) -> list[dict[str, Any]]:
    url = shop.url.replace("http", "ws", 1) + "/feed"
    async with asyncio.timeout(10):
        return [message async for message in websocket_feed.feed(session, url)]


@pytest.mark.parametrize("code", [3000, 4401])
def test_a_websocket_outlives_three_tokens_and_no_message_is_lost_or_doubled(
    shop: Shop, login: Session, code: int
) -> None:
    shop.closes_with = code
    messages = asyncio.run(collect(login, shop))
    assert len(shop.used["feed"]) == TOKENS
    assert messages == [{"id": n, "text": "x" * n} for n in range(1, shop.last["feed"] + 1)]
    assert len(messages) == 5 * TOKENS


def test_a_websocket_that_is_closed_for_another_reason_does_not_come_back(shop: Shop, login: Session) -> None:
    shop.closes_with = 4000
    with pytest.raises(websockets.ConnectionClosedError) as raised:
        asyncio.run(collect(login, shop))
    assert raised.value.rcvd is not None
    assert raised.value.rcvd.code == 4000
    assert len(shop.used["feed"]) == 1


def test_a_websocket_whose_good_looking_token_is_refused_does_not_come_back_for_ever(
    shop: Shop, login: Session
) -> None:
    shop.sessions.revoke_all("ada")
    with pytest.raises(websockets.ConnectionClosedError):
        asyncio.run(collect(login, shop))
    assert "feed" not in shop.used


def test_a_websocket_of_a_session_that_is_over_says_so(shop: Shop, login: Session, clock: ManualClock) -> None:
    shop.sessions.revoke_all("ada")
    clock.advance(LIFETIME)
    with pytest.raises(SessionOver, match="revoked"):
        asyncio.run(collect(login, shop))


# ---- server-sent events ----------------------------------------------------------------------------------------------


def test_an_event_stream_outlives_three_tokens_without_a_gap(shop: Shop, login: Session) -> None:
    began = time.monotonic()
    with httpx2.Client(auth=SessionAuth(login), timeout=10) as client:
        stream = event_stream.events(client, shop.url + "/events")
        events = [(event.id, event.data) for event in islice(stream, 100)]
    assert len(shop.used["events"]) == TOKENS
    assert events == [(str(n), "x" * n) for n in range(1, shop.last["events"] + 1)]
    assert len(events) == 5 * TOKENS
    assert shop.cuts == ["broken off", "ended", "broken off"]
    assert time.monotonic() - began < 9, "it waits as long as the server asked for, not three seconds each time"


def test_an_event_stream_of_a_session_that_is_over_says_so(shop: Shop, login: Session) -> None:
    with httpx2.Client(auth=SessionAuth(login), timeout=10) as client:
        events = event_stream.events(client, shop.url + "/events")
        assert next(events).id == "1"
        shop.sessions.revoke_all("ada")
        with pytest.raises(SessionOver, match="revoked"):
            list(islice(events, 100))


# ---- gRPC ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def orders(shop: Shop, login: Session) -> Iterator[Callable[[], bytes]]:
    """One call of the shop's gRPC end."""
    with (
        calls(shop, grpc.local_server_credentials()) as port,
        grpc_calls.channel(f"127.0.0.1:{port}", login) as channel,
    ):
        method = channel.unary_unary("/shop.Orders/List")
        yield lambda: method(b"", timeout=10)


def test_grpc_calls_outlive_three_tokens(shop: Shop, orders: Callable[[], bytes]) -> None:
    for _ in range(TOKENS):
        assert [orders(), orders()] == [b"the orders of ada"] * 2
        shop.time_passes()
    assert len(shop.used["calls"]) == TOKENS


def test_a_grpc_call_whose_token_dies_on_the_way_is_made_again(shop: Shop, orders: Callable[[], bytes]) -> None:
    for _ in range(TOKENS):
        shop.dies_on_the_way = True
        assert orders() == b"the orders of ada"
    assert len(shop.used["calls"]) == TOKENS, "each token but the first was got by the second try of a call"


def test_a_grpc_call_is_made_again_only_once(shop: Shop, orders: Callable[[], bytes]) -> None:
    shop.sessions.revoke_all("ada")
    seen: list[str] = []
    shop.good = lambda token, what: bool(seen.append(token))
    with pytest.raises(grpc.RpcError) as raised:
        orders()
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert len(seen) == 2


def test_a_grpc_call_without_a_session_fails_with_the_reason(
    shop: Shop, login: Session, orders: Callable[[], bytes]
) -> None:
    shop.sessions.revoke_all("ada")
    shop.time_passes()
    with pytest.raises(grpc.RpcError, match="revoked; log in again") as raised:
        orders()
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert (login.status.state, login.status.reason) == ("over", "revoked")


# ---- an SDK ----------------------------------------------------------------------------------------------------------


def ask(client: openai.OpenAI) -> str | None:
    answer = client.chat.completions.create(model="small", messages=[{"role": "user", "content": "Who am I?"}])
    return answer.choices[0].message.content


@pytest.fixture
def sdk(shop: Shop, login: Session) -> Iterator[openai.OpenAI]:
    """The SDK, which is not allowed to try anything twice by itself."""
    with openai_client.connect(login, shop.url + "/v1") as client:
        yield client.with_options(max_retries=0)


def test_the_sdk_outlives_three_tokens(shop: Shop, sdk: openai.OpenAI) -> None:
    for _ in range(TOKENS):
        assert [ask(sdk), ask(sdk)] == ["ada", "ada"]
        shop.time_passes()
    assert len(shop.used["completions"]) == TOKENS


def test_the_sdk_sees_nothing_of_a_token_that_dies_on_the_way(shop: Shop, sdk: openai.OpenAI) -> None:
    for _ in range(TOKENS):
        shop.dies_on_the_way = True
        assert ask(sdk) == "ada"
    assert len(shop.used["completions"]) == TOKENS


def test_the_sdk_sees_nothing_of_a_token_that_the_server_ends_early(shop: Shop, sdk: openai.OpenAI) -> None:
    for _ in range(TOKENS):
        assert ask(sdk) == "ada"
        shop.end_all_tokens()
    assert len(shop.used["completions"]) == TOKENS


def test_the_sdk_can_also_ask_for_a_token_itself(shop: Shop, login: Session) -> None:
    with openai.OpenAI(base_url=shop.url + "/v1", api_key=login.token, max_retries=0) as client:
        for _ in range(TOKENS):
            assert ask(client) == "ada"
            shop.time_passes()
        assert len(shop.used["completions"]) == TOKENS
        shop.dies_on_the_way = True
        with pytest.raises(openai.AuthenticationError):
            ask(client)


# ---- the standard library --------------------------------------------------------------------------------------------


def test_urllib_outlives_three_tokens(shop: Shop, login: Session) -> None:
    for _ in range(TOKENS):
        assert json.loads(plain_python.get(login, shop.url + "/orders")) == {"orders of": "ada"}
        shop.time_passes()
    assert len(set(shop.used["orders"])) == TOKENS


def test_urllib_hands_no_token_on_to_where_a_redirect_leads(shop: Shop, login: Session) -> None:
    with opened(Shop()) as other:
        with pytest.raises(plain_python.urllib.request.HTTPError, match="401") as raised:
            plain_python.get(login, f"{shop.url}/redirect?to={other.url}/orders")
        raised.value.close()
    assert other.used["orders"] == [""]


def test_a_command_finds_the_token_of_its_moment_in_its_environment(shop: Shop, login: Session) -> None:
    command = [sys.executable, "-I", "-S", "-c", "import os; print(os.environ['API_TOKEN'], end='')"]
    tokens = []
    for _ in range(TOKENS):
        tokens.append(plain_python.run(login, command))
        assert shop.sessions.verify(tokens[-1]).subject == "ada"
        shop.time_passes()
    assert len(set(tokens)) == TOKENS
    assert "API_TOKEN" not in os.environ


# ---- as programs -----------------------------------------------------------------------------------------------------


def certificate() -> tuple[bytes, bytes]:
    """A key, and a certificate for localhost that it signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    return key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain), made.public_bytes(pem)


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shop, dict[str, list[str]]]:
    """A shop in real time, and the lines that each example printed. They all run at once."""
    key, chain = certificate()
    roots = tmp_path_factory.mktemp("tls") / "roots.pem"
    roots.write_bytes(chain)
    environment = os.environ | {
        "API_USER": "ada",
        "API_PASSWORD": PASSWORD,
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(roots),
    }
    names = ["websocket_feed", "event_stream", "grpc_calls", "openai_client", "plain_python"]
    with opened(Shop()) as shop, calls(shop, grpc.ssl_server_credentials([(key, chain)])) as port:
        started = {
            name: subprocess.Popen(
                [sys.executable, str(ROOT / "examples" / f"{name}.py"), shop.url, f"localhost:{port}"],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for name in names
        }
        try:
            ended = {name: (*process.communicate(timeout=25), process.returncode) for name, process in started.items()}
        finally:
            for process in started.values():
                process.kill()
                process.wait()
    assert {name: (err, code) for name, (_, err, code) in ended.items()} == dict.fromkeys(names, ("", 0))
    return shop, {name: out.splitlines() for name, (out, _, _) in ended.items()}


@pytest.mark.parametrize(("name", "what"), [("websocket_feed", "feed"), ("event_stream", "events")])
def test_a_stream_outlives_three_tokens_in_real_time(
    printed: tuple[Shop, dict[str, list[str]]], name: str, what: str
) -> None:
    shop, lines = printed
    assert len(shop.used[what]) == TOKENS
    assert lines[name] == [f"{n} {'x' * n}" for n in range(1, shop.last[what] + 1)]


@pytest.mark.parametrize(
    ("name", "first"),
    [("grpc_calls", "the orders of ada"), ("openai_client", "ada"), ("plain_python", '{"orders of":"ada"}')],
)
def test_an_example_runs_as_a_program(printed: tuple[Shop, dict[str, list[str]]], name: str, first: str) -> None:
    _, lines = printed
    assert lines[name][0] == first


# ---- the document ----------------------------------------------------------------------------------------------------

EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py") if path.name != "__init__.py")


def test_the_code_in_the_document_is_the_code_that_runs() -> None:
    document = (ROOT / "docs" / "anywhere.md").read_text()
    shown = re.findall(r"From \[`(\w+\.py)`\]\(\.\./examples/\1\):\n\n```python\n(.*?)```", document, re.DOTALL)
    assert len(shown) == document.count("```python"), "every block of code says which example it is from"
    assert sorted({name for name, _ in shown}) == EXAMPLES
    for name, code in shown:
        assert code in (ROOT / "examples" / name).read_text(), name


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short(name: str) -> None:
    assert len((ROOT / "examples" / name).read_text().splitlines()) <= 60
