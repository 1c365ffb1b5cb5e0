"""The limiter: how often a password may be wrong, who waits, and who is let in all the same.

Modules: server/login/credential_check.py, server/login/devices.py.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from secrets import token_bytes, token_hex
from typing import Any
from uuid import uuid4

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.clock import ServerClock
from tests.support.logins import HERE, THERE, CaseSensitiveLogins
from unbroken._concurrency import run_sync
from unbroken.errors import ConfigurationError, InvalidToken, StoreUnavailable, TooManyAttempts, TryLater
from unbroken.server import Endpoints, MemorySessionStore, MfaRequired, RateLimitPolicy, Sessions, SqliteSessionStore
from unbroken.server.events import LoginFailed, LoginRateLimited
from unbroken.server.http.messages import Request, Response
from unbroken.server.login.rate_limit import (
    Attempt,
    LoginRateLimiter,
    Rate,
    address_key,
    name_key,
    spelling_key,
)
from unbroken.server.stores import open_store
from unbroken.server.stores.markers import mark_once

JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
HOME, CAFE, FAR = "192.0.2.1", "198.51.100.7", "203.0.113.9"


class Place:
    """Endpoints whose passwords are ``right``, and what was asked of them."""

    def __init__(self, store: Any = None, **settings: Any) -> None:
        self.clock, self.asked = ServerClock(), []
        self.sessions = Sessions(store or MemorySessionStore(), clock=self.clock)
        self.endpoints = Endpoints(self.sessions, self.authenticate, **settings)

    def authenticate(self, name: str, password: str) -> str | None:
        self.asked.append(name)
        return name.strip().lower() if password == "right" and "nobody" not in name else None

    def login(self, name: str = "ada", password: str = "wrong", ip: str = HOME, device: str = "") -> Response:
        body = json.dumps({"username": name, "password": password, "device_token": device}).encode()
        response = self.endpoints.handle_blocking(Request("POST", "/auth/login", JSON, body, ip))
        assert response is not None
        return response

    def device(self, name: str = "ada", ip: str = HOME, device: str = "") -> str:
        """The device token of a login with the right password."""
        return json.loads(self.login(name, "right", ip, device).body)["device_token"]

    def statuses(self, times: int, *args: str, **more: str) -> list[int]:
        return [self.login(*args, **more).status for _ in range(times)]


@pytest.fixture
def place() -> Place:
    return Place()


@pytest.fixture(params=["memory", "sqlite", "postgres", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A store of each kind. Those with a server are shared: whoever strikes does so under names of its own."""
    kind: str = request.param
    urls = {"memory": "memory:", "sqlite": f"sqlite:///{tmp_path}/s.db"}
    made = open_store(urls.get(kind) or request.getfixturevalue(kind).url)
    yield made
    made.close()


# ---- the arithmetic --------------------------------------------------------------------------------------------------


@given(st.integers(1, 20), st.floats(0.5, 600), st.lists(st.floats(0, 30), max_size=80))
def test_never_are_there_more_tries_than_burst_and_one_each_every(burst: int, every: float, gaps: list[float]) -> None:
    rate, kept, began, passed = Rate(burst, every), 0.0, 1_800_000_000.0, 0
    now = began
    for gap in gaps:
        now += gap
        if rate.seconds_to_wait(kept, now) == 0.0:
            kept = min(max(kept, now) + every, now + rate.max_ahead)
            passed += 1
            assert not rate.is_exceeded(kept, now), "who need not wait is let through"
        assert passed <= burst + (now - began) / every + 0.02


@given(st.integers(1, 20), st.floats(0.5, 600), st.integers(0, 40))
def test_who_waits_as_long_as_told_may_try(burst: int, every: float, tries: int) -> None:
    rate, kept, now = Rate(burst, every), 0.0, 1_800_000_000.0
    for _ in range(tries):
        kept = min(max(kept, now) + every, now + rate.max_ahead)
    assert rate.is_exceeded(kept, now) is (tries > burst)
    assert rate.seconds_to_wait(kept, now + rate.seconds_to_wait(kept, now) + 0.001) == 0.0
    assert (rate.seconds_to_wait(kept, now) > 0.0) is (tries >= burst)


@pytest.mark.parametrize("wrong", [{"account_burst": 0}, {"address_every": 0.0}, {"account_every": float("inf")},
                                   {"known_for": 0.0}, {"account_burst": float("nan")}, {"address_burst": 1.5},
                                   {"account_burst": "5"}, {"address_every": "5"}, {"known_for": "5"}])  # fmt: skip
def test_a_rate_limit_that_admits_no_login_or_never_holds_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        RateLimitPolicy(**wrong)


def test_addresses_count_by_what_one_customer_has() -> None:
    same = [("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"), ("::ffff:192.0.2.1", "192.0.2.1"), ("fe80::1%eth0", "fe80::2")]
    other = [("2001:db8:1:2::1", "2001:db8:1:3::1"), ("192.0.2.1", "192.0.2.2"), ("testclient", "other")]
    assert [address_key(a) == address_key(b) for a, b in same] == [True] * 3
    assert [address_key(a) == address_key(b) for a, b in other] == [False] * 3
    assert address_key("") == b""


def test_the_networks_around_an_address_have_limits_of_their_own(place: Place) -> None:
    def lives(addresses: Iterator[str], most: int) -> int:
        return [place.login(f"user {n}", ip=next(addresses)).status for n in range(most)].count(401)

    assert lives((f"2001:db8:1:{n:x}::1" for n in range(5000)), 5000) == 16 * 50, "of a /48"
    assert lives((f"2001:db8:2:{n % 256:x}::1" for n in range(500)), 500) == 4 * 50, "of a /56"
    assert lives((f"2001:db8:3:1::{n:x}" for n in range(100)), 100) == 50, "of a /64"
    assert lives((f"64:ff9b::192.0.{n}.1" for n in range(60)), 60) == 60, "IPv4 addresses behind NAT64"


# ---- one account -----------------------------------------------------------------------------------------------------


def test_ten_wrong_passwords_then_one_a_minute(place: Place) -> None:
    assert place.statuses(12) == [401] * 10 + [429] * 2
    place.clock.now += 61
    assert place.statuses(2) == [401, 429]


def test_a_rate_limited_login_is_told_when_to_try_again_and_nothing_else(place: Place) -> None:
    place.statuses(10)
    response = place.login()
    assert (response.status, response.headers["retry-after"], response.headers["cache-control"]) == (
        429,
        "60",
        "no-store",
    )
    assert json.loads(response.body)["error"] == "too_many_attempts"
    assert "www-authenticate" not in response.headers


def test_while_rate_limited_no_password_is_checked_not_even_the_right_one(place: Place) -> None:
    place.statuses(10)
    place.asked.clear()
    assert place.login(password="right").status == 429
    assert place.asked == []


def test_asking_again_and_again_makes_the_wait_no_longer(place: Place) -> None:
    place.statuses(10)
    for _ in range(60):
        place.clock.now += 0.9
        assert place.login().status == 429
    place.clock.now += 7
    assert place.login(password="right").status == 200


def test_an_account_that_does_not_exist_gets_the_same_response(place: Place) -> None:
    responses = [[(r.status, r.headers, r.body) for r in map(lambda _, n=n: place.login(n), range(12))]
               for n in ("ada", "nobody")]  # fmt: skip
    assert responses[0] == responses[1]


def test_other_spellings_of_a_name_are_the_same_account(place: Place) -> None:
    names = ["ada", "ADA", "Ada", " ada", "ada ", "\uff41da", "aDa", "adA", "ADa", "AdA"]
    assert [place.login(name).status for name in names] == [401] * 10
    assert place.login("ada").status == 429
    assert len({name_key(name) for name in names}) == 1


def test_a_right_password_forgives_the_wrong_ones(place: Place) -> None:
    for _ in range(4):
        assert place.statuses(9) == [401] * 9
        assert place.login(password="right").status == 200
    assert place.statuses(11)[-1] == 429


def test_without_a_rate_limit_guesses_are_unlimited() -> None:
    assert set(Place(rate_limit=None).statuses(80)) == {401}


def test_the_password_grant_is_rate_limited_too() -> None:
    place = Place(password_grant=True)
    place.statuses(10)
    form = b"grant_type=password&username=ada&password=right"
    response = place.endpoints.handle_blocking(Request("POST", "/auth/token", FORM, form, HOME))
    assert response is not None
    assert response.status == 429


# ---- at once ---------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_of_a_hundred_guesses_at_once_ten_are_looked_at(store: Any) -> None:
    place = Place(store)
    body = json.dumps({"username": f"ada {uuid4()}", "password": "wrong"}).encode()
    address, statuses = f"address {uuid4()}", []

    async def one() -> None:
        response = await place.endpoints.handle(Request("POST", "/auth/login", JSON, body, address))
        assert response is not None
        statuses.append(response.status)

    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(one)
    await store.aclose()
    assert (statuses.count(401), statuses.count(429), len(place.asked)) == (10, 90, 10)


def test_of_a_hundred_guesses_in_threads_ten_are_looked_at(tmp_path: Path) -> None:
    place, begin = Place(SqliteSessionStore(tmp_path / "s.db")), threading.Barrier(20)
    statuses: list[int] = []

    def work() -> None:
        begin.wait(10)
        statuses.extend(place.statuses(3))

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (statuses.count(401), statuses.count(429)) == (10, 50)


# ---- one address -----------------------------------------------------------------------------------------------------


def test_fifty_wrong_passwords_from_one_address_whatever_the_names(place: Place) -> None:
    assert [place.login(f"user {n}").status for n in range(52)] == [401] * 50 + [429] * 2
    assert place.login("user 99", ip=FAR).status == 401
    place.clock.now += 11
    assert [place.login(f"user {n}").status for n in (60, 61)] == [401, 429]


def test_a_right_password_does_not_forgive_the_address(place: Place) -> None:
    statuses = []
    for n in range(60):
        statuses.append(place.login(f"user {n}").status)
        place.login("mallory", "right")
    assert statuses == [401] * 50 + [429] * 10


def test_right_passwords_cost_an_address_nothing(place: Place) -> None:
    assert {place.login(f"user {n}", "right").status for n in range(200)} == {200}


def test_without_an_address_only_the_account_counts(place: Place) -> None:
    assert {place.login(f"user {n}", ip="").status for n in range(80)} == {401}
    assert place.statuses(11, ip="")[-1] == 429


# ---- nobody is locked out --------------------------------------------------------------------------------------------


def test_a_user_logs_in_from_home_while_others_guess(place: Place) -> None:
    place.statuses(20, ip=FAR)
    place.statuses(20, ip=CAFE)
    assert place.login(password="right", ip=CAFE).status == 429, "the network of a guesser"
    for _ in range(3):
        assert place.login(password="right", ip=HOME).status == 200, "a network that has guessed nothing"
        assert place.login(ip=FAR).status == 429, "and that gives the others nothing"


def test_a_network_that_was_wrong_too_often_has_no_share_of_the_reserve(place: Place) -> None:
    place.statuses(10, ip=FAR)
    assert place.statuses(4, ip=CAFE) == [401, 401, 429, 429]
    place.clock.now += 600
    place.statuses(10, ip=FAR)
    assert place.login(password="right", ip=CAFE).status == 429
    assert place.login(password="right", ip=HOME).status == 200


def test_a_device_logs_in_from_anywhere_while_others_guess_from_there(place: Place) -> None:
    device = place.device(ip=HOME)
    place.statuses(20, ip=FAR)
    place.statuses(20, ip=HOME)
    assert place.login(password="right", ip=HOME).status == 429, "without the device token"
    for ip in (HOME, FAR, CAFE):
        assert place.login(password="right", ip=ip, device=device).status == 200
        assert place.login(ip=FAR).status == 429, "and that gives the others nothing"


def test_guesses_at_others_from_the_same_address_do_not_lock_a_device_out(place: Place) -> None:
    device = place.device(ip=HOME)
    assert [place.login(f"user {n}", ip=HOME).status for n in range(60)][-1] == 429
    assert place.login(password="right", ip=HOME, device=device).status == 200


def test_on_a_device_too_passwords_may_be_wrong_ten_times_and_then_it_counts_as_none(place: Place) -> None:
    device = place.device()
    assert place.statuses(10, device=device) == [401] * 10
    assert place.statuses(10) == [401] * 10, "counted apart"
    assert place.statuses(2, device=device) == [429] * 2
    place.clock.now += 61
    assert place.login(password="right", device=device).status == 200
    assert place.statuses(12, device=device)[-2:] == [401, 429], "and forgiven"


def test_a_device_has_one_limit_however_often_it_logs_in(place: Place) -> None:
    devices = [device := place.device()] + [device := place.device(device=device) for _ in range(5)]
    statuses = [place.login(ip=FAR, device=devices[n % 6]).status for n in range(20)]
    assert statuses == [401] * 20, "ten of the device, ten of everybody"
    assert place.login(ip=FAR, device=devices[0]).status == 429


def test_a_device_is_known_for_a_time(place: Place) -> None:
    device = place.device()
    place.clock.now += 89 * 86400
    place.statuses(12, ip=HOME)
    newer = place.device(device=device)
    place.clock.now += 89 * 86400
    place.statuses(12, ip=HOME)
    assert place.login(password="right", device=device).status == 429, "longer than 90 days"
    assert place.login(password="right", device=newer).status == 200


def test_a_device_is_known_to_the_account_that_logged_in_with_it_and_to_no_other(place: Place) -> None:
    device = place.device("mallory")
    assert place.statuses(12, "ada", device=device)[-1] == 429
    assert place.statuses(10, "mallory", ip=CAFE, device=device) == [401] * 10


@pytest.mark.parametrize("end", [lambda sessions: sessions.revoke_subject("ada"),
                                 lambda sessions: sessions.revoke_others("ada", keep="this one")])  # fmt: skip
def test_whoever_ends_all_sessions_forgets_the_devices(place: Place, end: Callable[[Sessions], object]) -> None:
    device = place.device()
    place.clock.now += 1
    end(place.sessions)
    place.statuses(10, ip=HOME)
    assert place.login(device=device).status == 429
    place.clock.now += 600
    device = place.device()
    place.statuses(10, ip=HOME)
    assert place.login(password="right", device=device).status == 200, "a device of a later login"


@pytest.mark.parametrize("junk", ["x", "a.b.c", "\U0001f600", "x" * 60_000])
def test_a_device_token_that_nobody_has_issued_is_none(place: Place, junk: str) -> None:
    assert place.login(password="right", device=junk).status == 200
    place.statuses(10)
    assert place.login(password="right", device=junk).status == 429


def test_a_device_token_is_no_access_token_and_the_other_way_round(place: Place) -> None:
    tokens = json.loads(place.login(password="right").body)
    with pytest.raises(InvalidToken):
        place.sessions.verify(tokens["device_token"])
    place.statuses(10)
    for other in ("access_token", "refresh_token"):
        assert place.login(password="right", device=tokens[other]).status == 429


def test_without_a_rate_limit_there_is_no_device_token() -> None:
    assert "device_token" not in json.loads(Place(rate_limit=None).login(password="right").body)


# ---- who goes first --------------------------------------------------------------------------------------------------


def test_a_device_and_an_address_where_somebody_has_logged_in_go_first() -> None:
    limiter = LoginRateLimiter(MemorySessionStore(), RateLimitPolicy(), ServerClock())

    def one(ip: str, device: bytes = b"", account: bytes = b"ada") -> Attempt:
        return run_sync(limiter.acquire(account, ip, device=device))

    assert not one(HOME).is_preferred
    assert one(HOME, b"phone").is_preferred
    run_sync(limiter.record_success(one(HOME)))
    assert one(HOME, account=b"bob").is_preferred
    assert not one(FAR, account=b"bob").is_preferred
    guesses = [one(HOME, account=b"%d" % n) for n in range(30)]
    assert [attempt.is_preferred for attempt in (guesses[0], guesses[-1])] == [True, False], "who guesses waits"


# ---- what is no guess, and what goes wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError("no route"), TryLater("later"), ConfigurationError("unset"), KeyError("x")])
def test_a_login_that_could_not_be_checked_costs_nothing(error: Exception) -> None:
    def authenticate(name: str, _: str) -> str:
        raise error

    place = Place()
    place.endpoints = Endpoints(place.sessions, authenticate)
    assert set(place.statuses(80)) == {503}


def test_a_login_that_cannot_be_counted_is_503(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def dead(*_: Any) -> None:
        raise StoreUnavailable("gone", retry_after=3.0)

    for name in ("read_markers", "advance_marker"):
        with monkeypatch.context() as patched:
            patched.setattr(place.sessions.store, name, dead)
            response = place.login(password="right")
            assert (response.status, response.headers["retry-after"]) == (503, "3")
    assert place.asked == []


def test_a_right_password_that_cannot_be_noted_is_a_login_all_the_same(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def dead(*_: Any) -> None:
        raise StoreUnavailable("gone")

    assert place.login(password="right").status == 200
    device = place.device()
    monkeypatch.setattr(place.sessions.store, "clear_markers", dead)
    assert place.login(password="right", device=device).status == 200
    assert "refund of a login attempt failed" in caplog.text


def test_neither_names_nor_addresses_are_stored(tmp_path: Path) -> None:
    place = Place(SqliteSessionStore(tmp_path / "s.db"))
    place.statuses(2, "a-very-special-name", ip="192.0.2.77")
    with sqlite3.connect(tmp_path / "s.db") as db:
        rows = db.execute("SELECT key FROM marker").fetchall()
    db.close()
    assert [len(key) for (key,) in rows] == [32] * 4
    files = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"a-very-special-name" not in files
    assert b"192.0.2.77" not in files


def test_every_store_advances_refunds_and_clears_markers(store: Any) -> None:
    account, address = token_bytes(32), f"address {uuid4()}"
    limiter = LoginRateLimiter(store, RateLimitPolicy(account_burst=1), ServerClock())
    one = run_sync(limiter.acquire(account, address))
    with pytest.raises(TooManyAttempts) as refused:
        run_sync(limiter.acquire(account, address))
    assert 59 < refused.value.retry_after < 61
    run_sync(limiter.refund(one))
    assert run_sync(limiter.acquire(account, address)) == one
    run_sync(limiter.record_success(one))
    again = run_sync(limiter.acquire(account, address, device=b"phone"))
    assert again.has_device
    run_sync(limiter.record_success(again))
    assert run_sync(limiter.acquire(account, address, device=b"phone")) == again


def test_every_store_marks_once(store: Any) -> None:
    key, now = token_bytes(32), 1_800_000_000.123456
    times = [(0.0, True), (0.0, False), (599.0, False), (1800.0, True), (2398.0, False)]
    assert [run_sync(mark_once(store, key, now + later, 600.0)) for later, _ in times] == [was for _, was in times]


def test_the_rate_limits_of_two_processes_count_together(tmp_path: Path) -> None:
    first, second = (Place(SqliteSessionStore(tmp_path / "s.db")) for _ in range(2))
    logins: list[Callable[[], Response]] = [first.login, second.login]
    assert [logins[n % 2]().status for n in range(12)] == [401] * 10 + [429] * 2


def test_an_account_that_is_called_nearly_the_same_buys_no_guesses() -> None:
    logins = CaseSensitiveLogins()
    for _ in range(5):
        for _ in range(9):
            logins.login("ada")
        logins.login("Ada", "mine")
    assert logins.asked.count("ada") <= 10


def test_an_account_with_mfa_that_is_called_nearly_the_same_buys_no_guesses() -> None:
    def authenticate(name: str, password: str) -> Any:
        logins.asked.append(name)
        return MfaRequired(name) if logins.people.get(name) == password else None

    logins = CaseSensitiveLogins(authenticate)
    for _ in range(5):
        for _ in range(9):
            logins.login("ada")
        asked = json.loads(logins.post("/auth/login", username="Ada", password="mine").body)
        if "mfa_token" in asked:
            assert logins.post("/auth/login/step", mfa_token=asked["mfa_token"], code="42").status == 200
    assert logins.asked.count("ada") <= 10


def test_a_device_known_to_one_spelling_is_unknown_to_another() -> None:
    logins = CaseSensitiveLogins()
    device = json.loads(logins.post("/auth/login", username="Ada", password="mine").body)["device_token"]

    def login(name: str, password: str) -> int:
        return logins.post("/auth/login", username=name, password=password, device_token=device).status

    for _ in range(12):
        login("ada", "wrong")
    assert logins.asked.count("ada") == 10, "10 and no more: the device counts for Ada alone"
    assert login("Ada", "mine") == 200, "and is not locked out by them"


@given(st.lists(st.sampled_from(["guess", "guess", "guess", "own", "wait"]), min_size=30, max_size=60))
def test_logins_to_an_own_account_buy_no_guesses_at_a_namesake(steps: list[str]) -> None:
    logins = CaseSensitiveLogins()
    began = logins.now
    for number, step in enumerate(steps):
        ip = f"198.51.100.{number}"  # a fresh one each time, so that the account's limit is what counts
        if step == "wait":
            logins.now += 30.0
        else:
            logins.login(*(("ada", "wrong") if step == "guess" else ("Ada", "mine")), ip=ip)
        assert logins.asked.count("ada") <= 2 * (10 + (logins.now - began) / 60.0 + 0.1), "the reserve is as large"


def test_right_passwords_at_once_give_an_account_back_no_more_than_they_cost(store: Any) -> None:
    name = f"ada {token_hex(8)}"
    limiter = LoginRateLimiter(store, RateLimitPolicy(address_burst=1000), time.time)
    account, mine = name_key(name), spelling_key(name.title())
    for _ in range(5):
        run_sync(limiter.acquire(account, HERE, spelling_key(name)))
    tries = [run_sync(limiter.acquire(account, THERE, mine)) for _ in range(5)]
    gate = threading.Barrier(5)

    def right(number: int) -> None:
        gate.wait(10)
        run_sync(limiter.record_success(tries[number]))

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(right, range(5)))
    for _ in range(5):
        run_sync(limiter.acquire(account, HERE, spelling_key(name)))
    with pytest.raises(TooManyAttempts):
        run_sync(limiter.acquire(account, HERE, spelling_key(name)))


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


def test_an_address_that_tries_ever_new_names_makes_no_flood_of_notifications() -> None:
    logins = CaseSensitiveLogins()
    for number in range(300):
        logins.login(f"user {number}")
    assert [type(event) for event in logins.events] == [LoginFailed] * 50 + [LoginRateLimited] * 10


def test_an_address_that_changes_within_its_network_makes_no_flood_of_notifications() -> None:
    logins = CaseSensitiveLogins()
    for number in range(50):
        logins.login("ada", ip=f"2001:db8::{number:x}")
    assert [type(event) for event in logins.events] == [LoginFailed] * 10 + [LoginRateLimited]
