"""A second look at what faces attackers: guesses, news of them, settings. Each test was once a defect."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from secrets import token_hex
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from unbroken._sync import run_sync
from unbroken.cli.application import application
from unbroken.cli.build import redact_url
from unbroken.cli.check import _proxy
from unbroken.cli.settings import Settings
from unbroken.errors import TooManyAttempts
from unbroken.server import (
    Endpoints,
    Identity,
    MemorySessionStore,
    MfaRequired,
    RateLimitPolicy,
    Sessions,
    Webhook,
)
from unbroken.server.events import LoginFailed, LoginRateLimited, ServerEvent, SessionCreated
from unbroken.server.http.messages import Request, Response
from unbroken.server.login.rate_limit import LoginRateLimiter, address_key, name_key, spelling_key
from unbroken.server.stores import open_store

JSON = {"content-type": "application/json"}
HERE, THERE = "192.0.2.1", "203.0.113.9"


class Town:
    """Endpoints over a directory that knows capitals apart, as Django's and most others do; and what it was asked."""

    people: ClassVar = {"ada": "secret", "Ada": "mine"}

    def __init__(self, authenticate: Callable[[str, str], Any] | None = None) -> None:
        self.now, self.asked, self.events = 1_800_000_000.0, list[str](), list[ServerEvent]()
        sessions = Sessions(MemorySessionStore(), clock=lambda: self.now, on_event=self.events.append)
        settings: Any = {"second_step": lambda _subject, _kind, code: code == "42"}
        self.endpoints = Endpoints(sessions, authenticate or self.authenticate, **settings)

    def authenticate(self, name: str, password: str) -> Any:
        self.asked.append(name)
        return name if self.people.get(name) == password else None

    def post(self, path: str, ip: str = THERE, agent: str = "", **fields: str) -> Response:
        headers = JSON | {"user-agent": agent}
        answer = self.endpoints.handle_blocking(Request("POST", path, headers, json.dumps(fields).encode(), ip))
        assert answer is not None
        return answer

    def login(self, name: str, password: str = "wrong", ip: str = THERE, agent: str = "") -> int:
        return self.post("/auth/login", ip, agent, username=name, password=password).status


# ---- guesses ---------------------------------------------------------------------------------------------------------


def test_an_account_that_is_called_nearly_the_same_buys_no_guesses() -> None:
    town = Town()
    for _ in range(5):
        for _ in range(9):
            town.login("ada")
        town.login("Ada", "mine")
    assert town.asked.count("ada") <= 10


def test_nor_does_one_with_a_second_step() -> None:
    def authenticate(name: str, password: str) -> Any:
        town.asked.append(name)
        return MfaRequired(name) if town.people.get(name) == password else None

    town = Town(authenticate)
    for _ in range(5):
        for _ in range(9):
            town.login("ada")
        asked = json.loads(town.post("/auth/login", username="Ada", password="mine").body)
        if "mfa_token" in asked:
            assert town.post("/auth/login/step", mfa_token=asked["mfa_token"], code="42").status == 200
    assert town.asked.count("ada") <= 10


def test_where_another_spelling_is_at_home_this_one_is_a_stranger() -> None:
    town = Town()
    assert town.login("Ada", "mine", ip=THERE) == 200
    for _ in range(12):
        town.login("ada", ip=THERE)
    assert town.asked.count("ada") == 10, "10 and no more: its own logins from there count apart"
    assert town.login("Ada", "mine", ip=THERE) == 200, "and are not locked out by them"


@given(st.lists(st.sampled_from(["guess", "guess", "guess", "own", "wait"]), min_size=30, max_size=60))
def test_whatever_an_own_account_does_a_namesake_is_guessed_as_rarely_as_ever(steps: list[str]) -> None:
    town = Town()
    began = town.now
    for number, step in enumerate(steps):
        ip = f"198.51.100.{number}"  # a fresh one each time, so that the account's limit is what counts
        if step == "wait":
            town.now += 30.0
        else:
            town.login(*(("ada", "wrong") if step == "guess" else ("Ada", "mine")), ip=ip)
        assert town.asked.count("ada") <= 10 + (town.now - began) / 60.0 + 0.1


@pytest.fixture(params=["memory", "sqlite", "postgres", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A store of each kind. Those with a server are shared: so names are used once."""
    kind: str = request.param
    urls = {"memory": "memory:", "sqlite": f"sqlite:///{tmp_path}/s.db"}
    made = open_store(urls.get(kind) or request.getfixturevalue(kind).url)
    yield made
    made.close()


def test_right_passwords_at_once_give_an_account_back_no_more_than_they_cost(store: Any) -> None:
    name = f"ada {token_hex(8)}"
    guard = LoginRateLimiter(store, RateLimitPolicy(address_burst=1000), time.time)
    account, mine = name_key(name), spelling_key(name.title())
    for _ in range(5):
        run_sync(guard.acquire(account, HERE, spelling_key(name)))
    tries = [run_sync(guard.acquire(account, THERE, mine)) for _ in range(5)]
    gate = threading.Barrier(5)

    def right(number: int) -> None:
        gate.wait(10)
        run_sync(guard.record_success(tries[number]))

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(right, range(5)))
    for _ in range(5):
        run_sync(guard.acquire(account, HERE, spelling_key(name)))
    with pytest.raises(TooManyAttempts):
        run_sync(guard.acquire(account, HERE, spelling_key(name)))


def test_what_a_directory_may_pass_over_makes_no_other_account() -> None:
    same = [
        "ada lovelace",
        "Ada  Lovelace",
        "ada\u200b lovelace",
        "\u00e1da l\u00f6velace",
        "ada\u00ad\tlovelace ",
        "a\u0301da lovelace",
    ]
    assert len({name_key(name) for name in same}) == 1
    assert name_key("ada lovelace") != name_key("adalovelace")


def test_a_port_behind_an_address_makes_no_other_address() -> None:
    same = ["192.0.2.1", "192.0.2.1:50000", "192.0.2.1:50001", "::ffff:192.0.2.1", "[::ffff:192.0.2.1]:443"]
    assert len({address_key(ip) for ip in same}) == 1
    assert address_key("[2001:db8::1]:443") == address_key("2001:db8::2") != address_key("[2001:db8:0:1::1]:443")
    assert address_key("[fe80::1%eth0]:443") == address_key("fe80::2")


# ---- news ------------------------------------------------------------------------------------------------------------


def test_an_address_that_tries_ever_new_names_makes_no_flood_of_news() -> None:
    town = Town()
    for number in range(300):
        town.login(f"user {number}")
    assert [type(event) for event in town.events] == [LoginFailed] * 50 + [LoginRateLimited] * 10


def test_nor_does_one_that_changes_within_its_network() -> None:
    town = Town()
    for number in range(50):
        town.login("ada", ip=f"2001:db8::{number:x}")
    assert [type(event) for event in town.events] == [LoginFailed] * 10 + [LoginRateLimited]


def test_what_a_client_calls_itself_is_told_and_kept_to_a_bounded_length_and_as_text() -> None:
    town = Town()
    town.login("ada", agent="A\0" * 30_000)
    town.login("Ada", "mine", agent="A\0" * 30_000)
    agents = [getattr(event, "user_agent", None) for event in town.events]
    assert agents == ["A" * 200] * 2
    assert town.endpoints.sessions.list_sessions("Ada")[0].user_agent == "A" * 200


@pytest.fixture
def hook(request: pytest.FixtureRequest) -> Iterator[Webhook]:
    made = Webhook(request.param, "a secret of twenty-four bytes", delays=(), timeout=5.0)
    yield made
    made.close(timeout=5)


@pytest.mark.parametrize("hook", ["https://a..b/x", "https://127.0.0.1:1/\u00fc"], indirect=True)
def test_a_url_that_cannot_be_sent_to_does_not_end_the_thread_that_sends(
    hook: Webhook, caplog: pytest.LogCaptureFixture
) -> None:
    for count in (1, 2):
        hook(SessionCreated("s1", "ada"))
        until = time.monotonic() + 10
        while caplog.text.count("was given up") < count and time.monotonic() < until:
            time.sleep(0.01)
    assert caplog.text.count("was given up") == 2


# ---- what the application says ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("subject", [5, b"ada", None, "", "\ud800"])
@pytest.mark.parametrize("kind", [Identity, MfaRequired])
def test_a_subject_that_fits_into_no_token_is_503_before_the_second_step_too(kind: Any, subject: Any) -> None:
    assert Town(lambda _name, _password: kind(subject)).login("ada") == 503


@pytest.mark.parametrize("who", [Identity("ada", label=None), MfaRequired("ada", kind=7), MfaRequired("ada", hint=[1])])  # type: ignore[arg-type]
def test_so_is_what_is_no_text(who: Any) -> None:
    assert Town(lambda _name, _password: who).login("ada") == 503


# ---- paths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sid", ["", "\0", "a" * 65, "a/b", "\ud800", "..", "a\n"])
def test_what_can_be_no_sid_reaches_no_store_whoever_asks(sid: str) -> None:
    town = Town()
    for route in town.endpoints.routes:
        if "{sid}" in route.path:
            answer = run_sync(town.endpoints.answer(route, Request(route.method, "/auth/sessions/x", JSON, b"{}"), sid))
            assert answer.status == 404


# ---- the server of the command line ----------------------------------------------------------------------------------


def test_serve_redirects_nobody_to_where_a_host_header_says(tmp_path: Path) -> None:
    served = application(Settings(store=f"sqlite:///{tmp_path}/s.db"), "https://id.example.com")
    with TestClient(served, base_url="http://evil.example", follow_redirects=False) as client:
        answer = client.post("/auth/login/", json={})
        assert (answer.status_code, answer.headers.get("location")) == (404, None)


@pytest.mark.parametrize(
    ("store", "bare"),
    [("redis://:p@ss@host/0", "redis://host/0"), ("redis+cluster://:p@ss@a:1,b:2", "redis+cluster://a:1,b:2"),
     ("postgresql://u:s%2Fecret@h/db?password=x", "postgresql://h/db"), ("host=h password = secret", "host=h "),
     ("host=h password='my secret' dbname=d", "host=h  dbname=d"), ("sqlite:////srv/a@b/c.db", "sqlite:////srv/a@b/c.db")],
)  # fmt: skip
def test_no_part_of_a_stores_password_is_shown(store: str, bare: str) -> None:
    assert redact_url(store) == bare


def test_check_warns_of_clients_that_say_from_where_they_come_behind_a_local_proxy_too() -> None:
    told = list(_proxy(Settings(host="127.0.0.1", issuer="https://id.example.com", forwarded_allow_ips=("*",))))
    assert [problem.code for problem in told] == ["proxy"]
