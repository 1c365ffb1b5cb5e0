"""Guesses at passwords and codes: how many are looked at, what the responses tell, and who is kept out by them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from starlette.applications import Starlette

from tests.support import faces
from tests.support.attacks import Attacks
from tests.support.backend import running
from tests.support.clock import ServerClock
from tests.support.faces import FACES
from unbroken import FileStore, MemoryStore, Session, unbroken_server
from unbroken.errors import TryLater
from unbroken.server import Cookies, Endpoints, MemorySessionStore, MfaRequired, RateLimitPolicy, Sessions
from unbroken.server.http.messages import Request, Response
from unbroken.server.stores import open_store
from unbroken.starlette import routes

Size = Callable[[int, int], int]
JSON = {"content-type": "application/json"}
OFFICE, HOME, ABROAD = "192.0.2.1", "198.51.100.7", "203.0.113.9"
BOTNET = tuple(f"10.0.0.{number}" for number in range(1, 21))
RIGHT = "correct horse"


class Town:
    """Login endpoints for users called ``user-…``, all with one password, and a clock."""

    def __init__(self, store: Any = None, **settings: Any) -> None:
        self.clock, self.looked_at, self.prefix = ServerClock(), list[str](), uuid4().hex[:8]
        self.shares_its_store = store is not None
        self.sessions = Sessions(store or MemorySessionStore(), clock=self.clock)
        self.endpoints = Endpoints(self.sessions, self.authenticate, **settings)

    def authenticate(self, name: str, password: str) -> Any:
        self.looked_at.append(name)
        if password != RIGHT or "user" not in name:
            return None
        return MfaRequired(name) if "mfa" in name else name

    def post(self, path: str, ip: str, headers: dict[str, str] | None = None, **fields: str) -> Response:
        if self.shares_its_store:  # with other tests, so it has addresses of its own
            ip = f"{self.prefix} {ip}"
        request = Request("POST", path, JSON | (headers or {}), json.dumps(fields).encode(), ip)
        response = self.endpoints.handle_blocking(request)
        assert response is not None
        return response

    def login(self, name: str, password: str, ip: str, device: str = "") -> Response:
        fields = {"username": f"{self.prefix}-{name}", "password": password}
        return self.post("/auth/login", ip, **fields, **({"device_token": device} if device else {}))

    def device(self, name: str, ip: str = HOME) -> str:
        return json.loads(self.login(name, RIGHT, ip).body)["device_token"]


@pytest.fixture(params=["memory", "sqlite", "postgres", "redis"])
def town(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Town]:
    """A town on a store of each kind."""
    urls = {"memory": "memory:", "sqlite": f"sqlite:///{tmp_path}/s.db"}
    store = open_store(urls.get(request.param) or request.getfixturevalue(request.param).url)
    yield Town(store)
    store.close()


# ---- what the responses tell -----------------------------------------------------------------------------------------


def test_the_responses_tell_nobody_who_logs_in_from_his_address(town: Town, attacks: Attacks) -> None:
    for name in ("user-known", "user-device"):
        town.login(name, RIGHT, OFFICE)
    town.login("user-away", RIGHT, HOME)
    seen = {}
    for number in range(54):
        town.login(f"nobody-{number}", "wrong", OFFICE)
    for name in ("user-known", "user-device", "user-away", "user-never", "nobody"):
        attacks.try_one()
        response = town.login(name, "wrong", OFFICE)
        seen[name] = (response.status, response.headers, response.body)
    assert len({str(one) for one in seen.values()}) == 1, seen
    assert not [name for name in town.looked_at if name.endswith(("-away", "-never"))][1:]


def test_the_responses_tell_nobody_who_exists_at_any_step_of_a_series(attacks: Attacks) -> None:
    series = {}
    for name in ("user-1", "user-2", "nobody-1", "user-mfa"):
        town = Town(verify_mfa=lambda *_: False)
        town.login("user-1", RIGHT, OFFICE)
        town.login("user-mfa", RIGHT, OFFICE)
        found = []
        for number in range(60):
            attacks.try_one()
            response = town.login(name, "wrong", (OFFICE, ABROAD, *BOTNET)[number % 22])
            town.clock.now += 3
            found.append((response.status, str(response.headers), response.body))
        series[name] = found
    assert len({str(found) for found in series.values()}) == 1


# ---- who is kept out -------------------------------------------------------------------------------------------------


def test_a_neighbour_behind_one_address_does_not_lock_a_device_out(town: Town, attacks: Attacks) -> None:
    device = town.device("user-ada", OFFICE)
    for number in range(30):
        attacks.try_one()
        town.login("user-ada", "wrong", OFFICE)
        town.login(f"nobody-{number}", "wrong", OFFICE)
    assert town.login("user-ada", RIGHT, OFFICE).status == 429, "a stranger for all the server knows"
    assert [town.login("user-ada", RIGHT, OFFICE, device).status for _ in range(3)] == [200] * 3


@pytest.mark.parametrize("has_device", [True, False])
def test_a_traveller_gets_in_on_a_day_of_guesses(has_device: bool, attacks: Attacks, size: Size) -> None:
    town = Town()
    device = town.device("user-ada") if has_device else ""
    seconds, statuses = size(7200, 86400), list[int]()
    for second in range(seconds):
        town.clock.now += 1
        attacks.try_one()
        town.login("user-ada", "wrong", BOTNET[second % len(BOTNET)])
        if second % 1200 == 1199:
            statuses.append(town.login("user-ada", RIGHT, f"203.0.113.{second // 1200 % 250}", device).status)
    assert set(statuses if has_device else statuses[2:]) == {200}, "at first the guessers are new everywhere too"
    assert len(town.looked_at) < 2 * (10 + seconds / 60) + len(statuses) + 2, "and the guesses stay few"


def test_a_device_gets_in_while_a_guess_comes_from_another_network_every_second(attacks: Attacks, size: Size) -> None:
    town, statuses = Town(), list[int]()
    device = town.device("user-ada")
    for second in range(size(3000, 86400)):
        town.clock.now += 1
        attacks.try_one()
        town.login("user-ada", "wrong", f"10.{second // 65536}.{second // 256 % 256}.{second % 256}")
        if second % 600 == 599:
            statuses.append(town.login("user-ada", RIGHT, ABROAD, device).status)
    assert set(statuses) == {200}


@pytest.mark.parametrize("face", sorted(FACES))
def test_a_browser_gets_in_by_its_cookie_on_every_framework(
    face: str, attacks: Attacks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faces, "authenticate", lambda name, password: name if password == RIGHT else None)
    settings: Any = {"cookies": Cookies(secure=False), "rate_limit": RateLimitPolicy(account_burst=2)}
    with FACES[face](Sessions(MemorySessionStore()), **settings) as port:
        url = f"http://127.0.0.1:{port}/auth/"
        with (
            httpx2.Client(base_url=url, headers={"x-unbroken": "1"}, timeout=30) as mine,
            httpx2.Client(base_url=url, timeout=30) as theirs,
        ):

            def login(http: httpx2.Client, password: str) -> int:
                return http.post("login", json={"username": "ada", "password": password}).status_code

            assert login(mine, RIGHT) == 200
            assert mine.post("logout").status_code == 204
            attacks.try_many(6)
            assert [login(theirs, "wrong") for _ in range(6)][-1] == 429
            assert login(theirs, RIGHT) == 429
            assert login(mine, RIGHT) == 200
            [device] = [cookie.value for cookie in mine.cookies.jar if cookie.name == "unbroken-device"]
            assert [login(theirs, "wrong") for _ in range(3)][-1] == 429
            theirs.cookies.clear()
            attacks.try_one()  # a sibling host has planted a cookie of the same name
            theirs.headers["cookie"] = f"unbroken-device=planted; unbroken-device={device}"
            assert login(theirs, RIGHT) == 200


def test_whoever_steals_a_device_token_does_not_lock_its_owner_out(attacks: Attacks) -> None:
    town = Town()
    device = town.device("user-ada")
    for _ in range(30):
        attacks.try_one()
        town.login("user-ada", "wrong", ABROAD, device)
    assert town.login("user-ada", RIGHT, HOME).status == 200


# ---- how many guesses are looked at ----------------------------------------------------------------------------------


def test_guesses_at_many_accounts_from_their_own_address_share_the_limit_of_the_address(
    town: Town, attacks: Attacks
) -> None:
    names = [f"user-{number}" for number in range(20)]
    for name in names:
        assert town.login(name, RIGHT, OFFICE).status == 200
    town.looked_at.clear()
    for number in range(200):
        attacks.try_one()
        town.login(names[number % 20], "wrong", OFFICE)
    assert len(town.looked_at) == 50


def test_a_device_token_of_an_account_of_ones_own_buys_no_guesses_at_others(attacks: Attacks) -> None:
    town = Town()
    tokens = [town.device("user-mallory", f"10.1.0.{number}") for number in range(20)]
    town.looked_at.clear()
    for number in range(200):
        attacks.try_one()
        town.login("user-ada", "wrong", ABROAD, tokens[number % 20])
        town.login("USER-ada", "wrong", ABROAD, tokens[number % 20])
    assert len(town.looked_at) == 10


@pytest.mark.parametrize("end", ["revoke_subject", "revoke_others"])
def test_stolen_device_tokens_are_worthless_after_all_sessions_are_revoked(
    town: Town, end: str, attacks: Attacks
) -> None:
    stolen = [town.device("user-ada", ABROAD) for _ in range(5)]
    town.clock.now += 1
    subject = f"{town.prefix}-user-ada"
    ends = {"revoke_subject": lambda: town.sessions.revoke_subject(subject),
            "revoke_others": lambda: town.sessions.revoke_others(subject, keep="mine")}  # fmt: skip
    ends[end]()
    for _ in range(10):
        town.login("user-ada", "wrong", OFFICE)
    for token in stolen:
        attacks.try_one()
        for _ in range(3):
            town.login("user-ada", "wrong", OFFICE, token)
    town.looked_at.clear()
    assert town.login("user-ada", "wrong", OFFICE, stolen[0]).status == 429
    assert town.looked_at == []


def test_a_customer_of_a_whole_network_has_no_life_for_each_address_of_it(attacks: Attacks, size: Size) -> None:
    town = Town()
    for number in range(size(3000, 65536)):
        attacks.try_one()
        town.login(f"nobody-{number}", "wrong", f"2001:db8:77:{number:x}::{number:x}")
    assert len(town.looked_at) <= 16 * 50


def test_networks_at_once_are_looked_at_no_more_often_than_the_account_allows(attacks: Attacks, size: Size) -> None:
    town = Town()
    for number in range(size(500, 5000)):
        attacks.try_one()
        town.login("user-ada", "wrong", f"10.2.{number // 250}.{number % 250}")
    assert len(town.looked_at) <= 20


def test_codes_are_guessed_no_faster_with_many_tokens_and_many_addresses(attacks: Attacks, size: Size) -> None:
    codes: list[str] = []

    def verify_mfa(_subject: str, _kind: str, code: str) -> bool:
        codes.append(code)
        return False

    town = Town(verify_mfa=verify_mfa)
    tokens = []
    for number in range(40):
        response = town.login("user-mfa", RIGHT, f"10.3.0.{number}")
        tokens += [json.loads(response.body)["mfa_token"]] if response.status == 403 else []
    assert len(tokens) > 1
    for number in range(size(200, 2000)):
        attacks.try_one()
        ip = f"10.4.{number // 250}.{number % 250}"
        town.post("/auth/login/step", ip, mfa_token=tokens[number % len(tokens)], code=f"{number:06}")
    assert len(codes) <= 20


def test_a_user_with_mfa_on_a_device_gets_in_while_codes_are_guessed(attacks: Attacks) -> None:
    town = Town(verify_mfa=lambda _subject, _kind, code: code == "42")

    def step(ip: str, code: str, device: str = "") -> Response:
        token = json.loads(town.login("user-mfa", RIGHT, ip, device).body)["mfa_token"]
        return town.post("/auth/login/step", ip, mfa_token=token, code=code)

    device = json.loads(step(HOME, "42").body)["device_token"]
    for number in range(40):
        attacks.try_one()
        step(f"10.5.0.{number}", "wrong")
    assert step(ABROAD, "42").status == 429
    assert step(ABROAD, "42", device).status == 200


def test_a_traveller_with_mfa_gets_in_while_codes_are_guessed_all_day(attacks: Attacks, size: Size) -> None:
    """Who guesses knows the password. The traveller has a new device, and comes from a new network each time."""
    codes: list[str] = []

    def verify_mfa(_subject: str, _kind: str, code: str) -> bool:
        codes.append(code)
        return code == "42"

    town = Town(verify_mfa=verify_mfa)

    def step(ip: str, code: str) -> int:
        pending = json.loads(town.login("user-mfa", RIGHT, ip).body)
        return town.post("/auth/login/step", ip, mfa_token=pending["mfa_token"], code=code).status

    seconds, statuses = size(7200, 86400), list[int]()
    for second in range(0, seconds, 5):
        town.clock.now += 5
        attacks.try_one()
        step(BOTNET[second // 5 % len(BOTNET)], "wrong")
        if second % 1200 == 1195:
            statuses.append(step(f"203.0.113.{second // 1200 % 250}", "42"))
    assert set(statuses[2:]) == {200}, "at first the guessers are new everywhere too"
    assert len(codes) < 2 * (10 + seconds / 60) + len(statuses) + 2, "and the guesses stay few"


@pytest.mark.parametrize("home", [HOME, "2001:db8:7:1::5"])
def test_who_knows_the_password_does_not_use_up_the_codes_of_a_user_at_home(
    town: Town, home: str, attacks: Attacks
) -> None:
    """Without a device token too, as in a browser that forgets its cookies."""
    codes: list[str] = []

    def verify_mfa(_subject: str, _kind: str, code: str) -> bool:
        codes.append(code)
        return code == "42"

    town.endpoints = Endpoints(town.sessions, town.authenticate, verify_mfa=verify_mfa)

    def step(ip: str, code: str) -> int:
        pending = json.loads(town.login("user-mfa", RIGHT, ip).body)
        return town.post("/auth/login/step", ip, mfa_token=pending["mfa_token"], code=code).status

    assert step(home, "42") == 200
    for number in range(40):
        attacks.try_one()
        step(f"10.6.0.{number}", "wrong")
    assert step("10.7.0.1", "42") == 429, "for who has never logged in from there, nothing is left"
    assert step(home, "42") == 200
    assert len(codes) <= 22

    for _ in range(40):  # somebody in the user's own network: he gets the attempts of one device, and no more
        attacks.try_one()
        step(home, "wrong")
    assert len(codes) <= 22 + 10


@pytest.mark.parametrize("end", ["revoke_subject", "revoke_others"])
def test_a_new_password_forgets_the_networks_of_codes(end: str, attacks: Attacks) -> None:
    town = Town(verify_mfa=lambda _subject, _kind, code: code == "42")

    def step(code: str) -> int:
        pending = json.loads(town.login("user-mfa", RIGHT, HOME).body)
        return town.post("/auth/login/step", HOME, mfa_token=pending["mfa_token"], code=code).status

    assert step("42") == 200
    town.clock.now += 1
    subject = f"{town.prefix}-user-mfa"
    if end == "revoke_subject":
        town.sessions.revoke_subject(subject)
    else:
        town.sessions.revoke_others(subject, keep="mine")
    town.clock.now += 1
    attacks.try_one()
    assert [step("wrong") for _ in range(12)][-1] == 429, "the account's own limit, not one more of a device"


@pytest.mark.parametrize("flow", ["password", "mfa"])
def test_our_own_client_gets_in_from_a_file_beside_the_guesses(flow: str, tmp_path: Path, attacks: Attacks) -> None:
    name, settings = "user-mfa" if flow == "mfa" else "user-ada", {"rate_limit": RateLimitPolicy(account_burst=2)}
    town, second = Town(), {"verify_mfa": lambda _subject, _kind, code: code == "42"}
    with running(Starlette(routes=routes(town.sessions, town.authenticate, **settings, **second))) as port:
        dialect = unbroken_server(f"http://127.0.0.1:{port}")

        def log_in() -> None:
            Session(dialect, FileStore(tmp_path / "tokens")).login(name, RIGHT, mfa_prompt=lambda *_: "42")

        log_in()
        session = Session(dialect, FileStore(tmp_path / "tokens"))
        session.logout()
        for _ in range(6):
            attacks.try_one()
            httpx2.post(f"http://127.0.0.1:{port}/auth/login", json={"username": name, "password": "wrong"}, timeout=30)
        with pytest.raises(TryLater):
            Session(dialect, MemoryStore()).login(name, RIGHT, mfa_prompt=lambda *_: "42")
        log_in()
