"""The load generator: ``python -m bench.server.generator``, a process that is controlled line by line.

It reads one JSON object a line, and writes one for each. ``{"open": NAME, "port", "path", "kind", "tokens"}`` opens a
target, ``{"run": NAME, "seconds"}`` loads it with as many keep-alive connections as it has tokens.

1. It uses sockets and one selector only, so that the server is what is measured; it reports its own use of the CPU.
2. A connection sends its next request after its response, with the tokens of that response, in this turn and the next:
   no response is left unread.
3. Responses other than 200 are counted and reported with their text; the connection goes on with the token it has.
"""

from __future__ import annotations

import json
import selectors
import socket
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

REFRESHES: dict[str, Callable[[str], tuple[str, str]]] = {  # more headers, and a body
    "json": lambda token: ("content-type: application/json\r\n", json.dumps({"refresh_token": token})),
    "django": lambda token: ("content-type: application/json\r\n", json.dumps({"refresh": token})),
    "form": lambda token: (
        "content-type: application/x-www-form-urlencoded\r\n",
        f"grant_type=refresh_token&client_id=bench&refresh_token={token}",
    ),
    "bearer": lambda token: (f"authorization: Bearer {token}\r\n", ""),
}
NEW_TOKEN = {"json": "refresh_token", "django": "refresh", "form": "refresh_token", "bearer": "refresh_token"}


@dataclass
class Target:
    """One server, and the tokens of its clients."""

    port: int
    path: str
    kind: str
    tokens: list[str]

    def request(self, number: int) -> bytes:
        token = self.tokens[number]
        if self.kind == "get":
            return f"GET {self.path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {token}\r\n\r\n".encode()
        more, body = REFRESHES[self.kind](token)
        head = f"POST {self.path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{more}content-length: {len(body)}\r\n\r\n"
        return (head + body).encode()

    def take_response(self, number: int, body: bytes) -> None:
        if self.kind != "get" and (token := json.loads(body).get(NEW_TOKEN[self.kind])):
            self.tokens[number] = token


@dataclass
class Turn:
    """The observations of one turn."""

    responses: int = 0
    wrong: int = 0
    said: str = ""
    times: list[float] = field(default_factory=list)


class Connection:
    """One of the connections of a turn."""

    def __init__(self, target: Target, number: int, turn: Turn) -> None:
        self.target, self.number, self.turn = target, number, turn
        self.socket = socket.create_connection(("127.0.0.1", target.port), 30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.began, self._read = 0.0, b""

    def send(self) -> None:
        self.began = time.perf_counter()
        self.socket.sendall(self.target.request(self.number))

    def receive(self) -> bool:
        """Read what has arrived; return whether that was the end of a response."""
        part = self.socket.recv(65536)
        if not part:
            raise RuntimeError(f"{self.target.path} closed a connection after {self._read[:500]!r}")
        self._read += part
        head, there, body = self._read.partition(b"\r\n\r\n")
        if not there or len(body) < _length(head):
            return False
        self._read = b""
        self._count(head, body)
        return True

    def _count(self, head: bytes, body: bytes) -> None:
        if head[9:12] == b"200":
            self.turn.responses += 1
            self.turn.times.append(time.perf_counter() - self.began)
            self.target.take_response(self.number, body)
        else:
            self.turn.wrong += 1
            self.turn.said = (head[:40] + b" " + body[:300]).decode(errors="replace")


def _length(head: bytes) -> int:
    lowered = head.lower()
    at = lowered.find(b"content-length:")
    if at < 0:
        raise RuntimeError(f"a response without a length: {head[:500]!r}")
    return int(lowered[at + 15 :].partition(b"\r\n")[0])


def run(target: Target, seconds: float) -> dict[str, Any]:
    """Load *target* for *seconds*, and read the last responses."""
    turn = Turn()
    connections = [Connection(target, number, turn) for number in range(len(target.tokens))]
    with selectors.DefaultSelector() as selector:
        for one in connections:
            selector.register(one.socket, selectors.EVENT_READ, one)
        began, used = time.perf_counter(), time.process_time()
        for one in connections:
            one.send()
        waiting = len(connections)
        while waiting:
            ready = selector.select(60)
            if not ready:
                raise RuntimeError(f"{target.path} did not respond for a minute")
            for key, _ in ready:
                if key.data.receive():
                    if time.perf_counter() - began < seconds:
                        key.data.send()
                    else:
                        waiting -= 1
        lasted, used = time.perf_counter() - began, time.process_time() - used
    for one in connections:
        one.socket.close()
    p50 = statistics.median(turn.times) * 1000 if turn.times else 0.0
    rate = turn.responses / lasted
    return {
        "rate": rate,
        "responses": turn.responses,
        "wrong": turn.wrong,
        "said": turn.said,
        "p50": p50,
        "core": used / lasted,
    }


def main() -> None:
    targets: dict[str, Target] = {}
    for line in sys.stdin:
        told = json.loads(line)
        if name := told.pop("open", ""):
            targets[name] = Target(**told)
            print("{}", flush=True)
        else:
            print(json.dumps(run(targets[told["run"]], told["seconds"])), flush=True)


if __name__ == "__main__":
    main()
