"""The load: ``python -m bench.server.generator``, a process of its own that is told what to do, line by line.

In comes one JSON object a line, out goes one for each. ``{"open": NAME, "port", "path", "kind", "tokens"}`` makes a
target known, ``{"run": NAME, "seconds"}`` loads it by as many keep-alive connections as it has tokens.

1. Nothing but sockets and one selector, so that the server is what is measured; its own use of a core is told.
2. A connection sends its next request when it has its answer. The tokens of an answer are those of its next request,
   in this turn and in the next one: an answer is never left behind.
3. What is no 200 is counted and its text is told; the connection goes on with the token it has.
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
    """One server, and what its clients hold."""

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

    def answered(self, number: int, body: bytes) -> None:
        if self.kind != "get" and (token := json.loads(body).get(NEW_TOKEN[self.kind])):
            self.tokens[number] = token


@dataclass
class Turn:
    """What one turn has seen."""

    answers: int = 0
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
        """Takes what has come; whether that was the end of an answer."""
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
            self.turn.answers += 1
            self.turn.times.append(time.perf_counter() - self.began)
            self.target.answered(self.number, body)
        else:
            self.turn.wrong += 1
            self.turn.said = (head[:40] + b" " + body[:300]).decode(errors="replace")


def _length(head: bytes) -> int:
    lowered = head.lower()
    at = lowered.find(b"content-length:")
    if at < 0:
        raise RuntimeError(f"an answer without a length: {head[:500]!r}")
    return int(lowered[at + 15 :].partition(b"\r\n")[0])


def run(target: Target, seconds: float) -> dict[str, Any]:
    """Loads *target* for *seconds*, and takes the last answers."""
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
                raise RuntimeError(f"{target.path} did not answer for a minute")
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
    rate = turn.answers / lasted
    return {
        "rate": rate,
        "answers": turn.answers,
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
