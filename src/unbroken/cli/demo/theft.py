"""``unbroken demo --theft``: one user, two sessions, and a thief who copies the tokens of both.

One session is a bearer's, the other is bound to a key (RFC 9449). Each row shows the same step for both: what is sent,
and what the server says. The bearer twin works for the thief until rotation finds him; the bound one never does, and
its user goes on.
"""

from __future__ import annotations

import json
import logging
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import httpx2
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from unbroken import FileStore, ProofKey, Session
from unbroken.cli.terminal import say
from unbroken.client.core.proof import access_token_hash
from unbroken.client.prover import Prover
from unbroken.errors import SessionOver, UnbrokenError
from unbroken.httpx2 import SessionAuth
from unbroken.server import MemorySessionStore, Policy, Sessions
from unbroken.starlette import AccessTokenMiddleware, current_claims, routes
from unbroken.testing.server import running

__all__ = ["play_theft"]

WIDTH, LABEL_WIDTH = 46, 12
TIMEOUT_SECONDS = 10.0
MAX_ROUNDS = 5  # of thief and user in turns; the second finds him
SHOWN_CHARS = 14  # of a token or a proof
POLICY = Policy(access_ttl=60.0, grace=0.0)


class Heard(NamedTuple):
    """One step of one side: the lines that were sent, and what came back."""

    sent: tuple[str, ...]
    status: int
    said: str

    @property
    def worked(self) -> bool:
        return self.status == 200


class Side:
    """One of the two sessions: its user, and the thief with a copy of the token file."""

    def __init__(self, url: str, folder: Path, key: ProofKey | None) -> None:
        self.url, self.key, self._file = url, key, folder / "tokens.json"
        self.session = Session(url, FileStore(self._file), proof_key=key)
        self.session.login("ada", "any")
        self._http = httpx2.Client(base_url=url, timeout=TIMEOUT_SECONDS)
        self._own = Prover(ProofKey.in_memory(), time.time)
        self.access = self.refresh = ""

    def copy(self) -> Heard:
        """The thief copies the token file."""
        tokens = json.loads(self._file.read_text())["tokens"]
        self.access, self.refresh = tokens["access_token"], tokens["refresh_token"]
        kept = "its key is in another file" if self.key else "there is nothing else"
        return Heard((f"copies {self._file.name}; {kept}",), 0, "")

    def user_asks(self) -> Heard:
        """The user sends a request."""
        with httpx2.Client(auth=SessionAuth(self.session), timeout=TIMEOUT_SECONDS) as client:
            try:
                response = client.get(self.url + "/me")
            except UnbrokenError as error:
                return _failed("GET /me", error)
            return _heard("GET /me", dict(response.request.headers), response, self._proof_of(response))

    def user_refreshes(self) -> Heard:
        """The user's client refreshes."""
        try:
            self.session.newer_token(self.session.token())
        except UnbrokenError as error:
            return _failed("POST /auth/refresh", error)
        return Heard(("POST /auth/refresh",), 200, "new tokens")

    def thief_asks(self, *, as_bearer: bool = False, with_own_key: bool = False) -> Heard:
        """The thief sends the copied access token."""
        scheme = "DPoP" if self.key and not as_bearer else "Bearer"
        headers = {"authorization": f"{scheme} {self.access}"}
        if with_own_key and self.key:
            headers["dpop"] = self._own.proof("GET", self.url + "/me", access_token_hash(self.access))
        return _heard("GET /me", headers, self._http.get("/me", headers=headers))

    def thief_refreshes(self, *, with_own_key: bool = False) -> Heard:
        """The thief sends the copied refresh token; he keeps what he gets."""
        headers = {}
        if with_own_key and self.key:
            headers["dpop"] = self._own.proof("POST", self.url + "/auth/refresh")
        response = self._http.post("/auth/refresh", headers=headers, json={"refresh_token": self.refresh})
        heard = _heard("POST /auth/refresh", headers, response)
        if heard.worked:
            tokens = response.json()
            self.access, self.refresh = tokens["access_token"], tokens["refresh_token"]
        return heard

    def thief_logs_out(self) -> Heard:
        """The thief tries to end the session of the user."""
        response = self._http.post("/auth/logout", json={"refresh_token": self.refresh})
        heard = _heard("POST /auth/logout", {}, response)
        return heard._replace(status=200 if response.status_code == 204 else response.status_code)

    def _proof_of(self, response: httpx2.Response) -> str:
        return "DPoP: a proof for this request" if self.key and response.status_code == 200 else ""

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


def play_theft(*, as_json: bool) -> int:
    """Play the theft, and print each step for both sides. Return the exit status: 0 if the bound session has held."""
    logging.getLogger("unbroken").setLevel(logging.CRITICAL)  # the rows tell of it themselves
    with TemporaryDirectory(prefix="unbroken-demo-") as folder, _server() as url:
        summary = _Theft(url, Path(folder), print_row=not as_json).play()
    if as_json:
        say(json.dumps(summary))
    else:
        _print_end(summary)
    return 0 if _has_held(summary) else 1


class _Theft:
    """The steps, in order. It counts what worked for the thief."""

    def __init__(self, url: str, folder: Path, *, print_row: bool) -> None:
        for name in ("bearer", "bound", "keys"):
            (folder / name).mkdir(mode=0o700)
        self.bearer = Side(url, folder / "bearer", None)
        self.bound = Side(url, folder / "bound", ProofKey.in_file(folder / "keys" / "session.key"))
        self._print = print_row
        self.bearer_thefts = self.bound_thefts = 0

    def play(self) -> dict[str, Any]:
        self._head()
        try:
            self._row("the user", Side.user_asks)
            self._row("the thief", Side.copy)
            self._thief("the thief", Side.thief_asks)
            self._thief("", lambda side: side.thief_asks(as_bearer=True))
            self._thief("", lambda side: side.thief_asks(with_own_key=True))
            self._thief("", Side.thief_refreshes)
            self._thief("", lambda side: side.thief_refreshes(with_own_key=True))
            self._thief("", Side.thief_asks)
            rounds = self._until_found()
            if self.bound.key:
                self._thief("the thief", Side.thief_logs_out, only_bound=True)
            after = self._row("the user", Side.user_asks)
            return self._summary(rounds, after)
        finally:
            self.bearer.close()
            self.bound.close()

    def _until_found(self) -> int:
        """User and thief take turns, until rotation notices that the bearer's session has two holders."""
        for turn in range(1, MAX_ROUNDS + 1):
            self._row("the user", Side.user_refreshes)
            heard = self._thief("the thief", Side.thief_refreshes)
            if not heard[0].worked and not self.bearer.user_refreshes().worked:
                return turn
        return 0

    def _summary(self, rounds: int, after: tuple[Heard, Heard]) -> dict[str, Any]:
        return {
            "bearer_worked_for_thief": self.bearer_thefts,
            "bearer_found_in_rounds": rounds,
            "bound_worked_for_thief": self.bound_thefts,
            "bound_user_goes_on": after[1].worked,
        }

    def _thief(self, who: str, step: Callable[[Side], Heard], *, only_bound: bool = False) -> tuple[Heard, Heard]:
        pair = self._row(who, step, only_bound=only_bound)
        self.bearer_thefts += pair[0].worked
        self.bound_thefts += pair[1].worked
        return pair

    def _row(self, who: str, step: Callable[[Side], Heard], *, only_bound: bool = False) -> tuple[Heard, Heard]:
        nothing = Heard(("(the session has ended)",), 0, "")
        pair = (nothing if only_bound else step(self.bearer), step(self.bound))
        if self._print:
            _print_row(who, pair)
        return pair

    def _head(self) -> None:
        if self._print:
            say(f"{'':{LABEL_WIDTH}}{'the bearer twin':{WIDTH}}the bound session")


# ---- the server ------------------------------------------------------------------------------------------------------


async def _me(request: Request) -> Response:
    return JSONResponse({"user": current_claims(request).subject})


@contextmanager
def _server() -> Iterator[str]:
    """Run a server and its API on loopback; yield its URL."""
    sessions = Sessions(MemorySessionStore(), policy=POLICY, confirm_first_use=True)
    auth = routes(sessions, lambda name, _: name)
    middleware = [Middleware(AccessTokenMiddleware, sessions=sessions)]
    with running(Starlette(routes=[*auth, Route("/me", _me)], middleware=middleware)) as port:
        yield f"http://127.0.0.1:{port}"


# ---- what is printed -------------------------------------------------------------------------------------------------


def _heard(line: str, headers: dict[str, str], response: httpx2.Response, proof: str = "") -> Heard:
    shown = [line]
    if authorization := headers.get("authorization"):
        scheme, _, token = authorization.partition(" ")
        shown.append(f"Authorization: {scheme} {token[:SHOWN_CHARS]}…")
    if proof:
        shown.append(proof)
    elif "dpop" in headers:
        shown.append("DPoP: a proof by a key of his own")
    return Heard(tuple(shown), response.status_code, _said(response))


def _failed(line: str, error: UnbrokenError) -> Heard:
    reason = f" ({error.reason})" if isinstance(error, SessionOver) else ""
    return Heard((line,), 401, f"{error.code}{reason}: log in again")


def _said(response: httpx2.Response) -> str:
    """Return what a response says, in a few words: no token is shown."""
    try:
        body = response.json()
    except ValueError:
        return "done" if response.is_success else ""
    if "user" in body:
        return f"the data of {body['user']}"
    return "new tokens" if "access_token" in body else " ".join(filter(None, (body.get("error"), body.get("reason"))))


def _print_row(who: str, pair: tuple[Heard, Heard]) -> None:
    left, right = (_lines(heard) for heard in pair)
    height = max(len(left), len(right))
    for number in range(height):
        first, second = (lines[number] if number < len(lines) else "" for lines in (left, right))
        say(f"{who if number == 0 else '':{LABEL_WIDTH}}{first:{WIDTH}}{second}".rstrip())
    say("")


def _lines(heard: Heard) -> list[str]:
    response = f"→ {heard.status} {heard.said}" if heard.status else ""
    return [line for text in (*heard.sent, response) if text for line in textwrap.wrap(text, WIDTH - 2)]


def _print_end(summary: dict[str, Any]) -> None:
    rounds, times = summary["bearer_found_in_rounds"], summary["bearer_worked_for_thief"]
    say(f"The bearer twin worked for the thief {times} times, until rotation found him (round {rounds}): both are out.")
    goes_on = "and its user goes on" if summary["bound_user_goes_on"] else "BUT ITS USER IS OUT"
    never = "never worked for him" if not summary["bound_worked_for_thief"] else "WORKED FOR HIM"
    say(f"The bound session {never}, {goes_on}.")


def _has_held(summary: dict[str, Any]) -> bool:
    is_found = summary["bearer_worked_for_thief"] > 0 and summary["bearer_found_in_rounds"] > 0
    return bool(is_found and not summary["bound_worked_for_thief"] and summary["bound_user_goes_on"])
