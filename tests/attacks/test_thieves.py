"""A thief beside the user: who follows the user's refreshes is found, and nothing that he may ask says when to come."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from tests.support.attacks import Attacks
from tests.support.faces import FACES
from unbroken._concurrency import run_sync
from unbroken.errors import InvalidGrant, TryLater
from unbroken.server import Endpoints, Sessions
from unbroken.server.core.rotation import Policy
from unbroken.server.core.session_info import Caller
from unbroken.server.events import ReuseDetected, ReuseSuspected, ServerEvent
from unbroken.server.grants.refresh_grant import MAX_REPETITIONS
from unbroken.server.http.messages import Request
from unbroken.server.stores import open_store

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:{0}) Gecko/20100101 Firefox/{0}"
USER = Caller("203.0.113.7", FIREFOX.format("140.0"))
ELSEWHERE, OTHER_PROGRAM = Caller("198.51.100.9", USER.user_agent), Caller(USER.ip, "curl/8.16")
HALF_AN_HOUR = 1800.0


class Theft:
    """A session whose newest refresh token user and thief both have."""

    def __init__(self, url: str = "memory:", *, coordinated: bool = False, **policy: Any) -> None:
        self.now, self.events = 1_800_000_600.0, list[ServerEvent]()
        self.sessions = Sessions(
            open_store(url), policy=Policy(**policy), on_event=self.events.append, clock=lambda: self.now
        )
        granted = self.sessions.create("ada", coordinated=coordinated, caller=USER)
        self.user = self.thief = granted.refresh_token or ""

    def refreshes(self, token: str, caller: Caller, key: str | None = None) -> str:
        return self.sessions.refresh(token, caller=caller, idempotency_key=key).refresh_token or ""

    def follows(self, thief: Caller, cycles: int, after: float, *, key: str | None = None, steps: int = 1) -> int:
        """Return in how many generations of the user the thief got tokens, before the session ended."""
        for cycle in range(cycles):
            try:
                self.user = self.refreshes(self.user, USER, key)
                self.now += after
                for _ in range(steps):
                    self.thief = self.refreshes(self.thief, thief, key)
                if steps > 1:
                    self.user = self.refreshes(self.user, USER, key)
            except InvalidGrant:
                return cycle
            self.now += HALF_AN_HOUR
        return cycles

    def of(self, kind: type[ServerEvent]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.mark.parametrize("thief", [ELSEWHERE, OTHER_PROGRAM, Caller("2001:db8::9", "curl/8")])
@pytest.mark.parametrize("steps", [1, 2])
def test_a_thief_who_comes_within_the_grace_is_found_in_five_generations(
    attacks: Attacks, thief: Caller, steps: int
) -> None:
    attacks.try_one()
    theft = Theft()
    assert theft.follows(thief, 20, 1.0, steps=steps) <= 4
    assert len(theft.of(ReuseDetected)) == 1
    suspicion = theft.of(ReuseSuspected)[0]
    assert (suspicion.sid, suspicion.subject, suspicion.verdict) == (theft.of(ReuseDetected)[0].sid, "ada", "converged")
    assert (suspicion.ip, suspicion.presenter) == (thief.ip, "203.0.113.0/24 Firefox on Linux")


@pytest.mark.parametrize("address", ["203.0.113.7:{}", "[2001:db8::1]:{}", '"[2001:db8::1]:{}"'])
def test_a_user_whose_proxy_tells_ports_is_no_thief_of_his_own(attacks: Attacks, address: str) -> None:
    theft = Theft()
    for port in range(50_000, 50_020):  # two tabs, at each refresh
        attacks.try_one()
        tab, other = (Caller(address.format(number), USER.user_agent) for number in (port, port + 10_000))
        used, theft.user = theft.user, theft.refreshes(theft.user, tab)
        theft.refreshes(used, other)
        theft.now += HALF_AN_HOUR
    assert not theft.of(ReuseSuspected) + theft.of(ReuseDetected)


def test_a_thief_behind_a_proxy_that_tells_ports_is_found(attacks: Attacks) -> None:
    attacks.try_one()
    theft = Theft()
    assert theft.follows(Caller("198.51.100.9:40000", USER.user_agent), 20, 1.0) <= 4
    assert theft.of(ReuseDetected)


@pytest.mark.parametrize("agents", [("curl/8", ""), ("", "curl/8")])
def test_a_thief_who_tells_nothing_of_himself_is_found(attacks: Attacks, agents: tuple[str, str]) -> None:
    """Behind a Unix socket no address is known; he, or the user, sends no User-Agent either."""
    now, events = [1_800_000_600.0], list[ServerEvent]()
    sessions = Sessions(open_store("memory:"), on_event=events.append, clock=lambda: now[0])
    endpoints = Endpoints(sessions, lambda name, password: name)

    def post(path: str, agent: str, **fields: str) -> Any:
        attacks.try_one()
        headers = {"content-type": "application/json"} | ({"user-agent": agent} if agent else {})
        response = endpoints.handle_blocking(Request("POST", path, headers, json.dumps(fields).encode()))
        return json.loads(response.body) if response else {}

    user, thief = agents
    token = post("/auth/login", user, username="ada", password="-")["refresh_token"]
    for _ in range(10):
        used, token = token, post("/auth/refresh", user, refresh_token=token).get("refresh_token", "")
        post("/auth/refresh", thief, refresh_token=used)
        now[0] += HALF_AN_HOUR
    assert [event for event in events if isinstance(event, ReuseDetected)]


@pytest.mark.parametrize("coordinated", [False, True])
def test_a_spent_token_that_gets_a_branch_is_reported_as_suspicion(attacks: Attacks, coordinated: bool) -> None:
    attacks.try_one()
    theft = Theft(coordinated=coordinated)
    user = theft.refreshes(theft.user, USER, "one")
    theft.now += HALF_AN_HOUR
    theft.refreshes(theft.thief, ELSEWHERE, "two")
    [suspicion] = theft.of(ReuseSuspected)
    assert (suspicion.verdict, suspicion.ip) == ("branched", ELSEWHERE.ip)
    if coordinated:
        with pytest.raises(InvalidGrant, match="used twice"):
            theft.refreshes(user, USER, "three")
    else:  # a phone that changed its network meanwhile looks the same, and goes on
        theft.refreshes(user, USER, "three")


@pytest.mark.parametrize("coordinated", [False, True])
@pytest.mark.parametrize("thief", [USER, ELSEWHERE])
def test_a_constant_key_is_not_followed(attacks: Attacks, coordinated: bool, thief: Caller) -> None:
    attacks.try_one()
    theft = Theft(coordinated=coordinated)
    assert theft.follows(thief, 20, 60.0, key="always") <= 2
    assert theft.of(ReuseDetected)


def test_the_policy_ends_the_session_at_the_first_suspicion(attacks: Attacks) -> None:
    for thief, after in ((ELSEWHERE, 1.0), (OTHER_PROGRAM, 1.0), (USER, 60.0)):
        attacks.try_one()
        theft = Theft(on_suspicion="revoke")
        assert theft.follows(thief, 5, after) == 0
        assert len(theft.of(ReuseDetected)) == 1


def test_a_used_token_is_not_answered_without_end(attacks: Attacks) -> None:
    theft = Theft()
    old = theft.user
    theft.user = theft.refreshes(old, USER)
    for _ in range(MAX_REPETITIONS):
        theft.refreshes(old, USER)
    attacks.try_one()
    with pytest.raises(TryLater):
        theft.refreshes(old, USER)
    assert theft.refreshes(theft.user, USER), "the session lives on"


def test_tabs_with_several_addresses_and_versions_are_never_taken_for_thieves(attacks: Attacks) -> None:
    """Tabs of a browser that updates itself, over IPv4 and IPv6, for twenty generations."""
    theft = Theft(max_shared_generations=0)
    callers = [
        Caller(ip, FIREFOX.format(version))
        for ip in ("203.0.113.7", "203.0.113.200", "2001:db8::1")
        for version in (1, 2)
    ]
    for _ in range(20):
        attacks.try_one()
        answers = {theft.refreshes(theft.user, caller) for caller in callers}
        [theft.user] = answers
        theft.now += HALF_AN_HOUR
    assert not theft.of(ReuseDetected)


@pytest.mark.parametrize("face", sorted(FACES))
def test_over_http_every_framework_tells_the_parties_apart(attacks: Attacks, face: str) -> None:
    """Real servers and clients; all are at one address, so the thief is told by his program."""
    attacks.try_one()
    sessions, events = Sessions(open_store("memory:")), list[ServerEvent]()
    sessions.add_listener(events.append)
    with FACES[face](sessions) as port, httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:

        def refreshes(token: str, agent: str) -> httpx2.Response:
            return http.post("/auth/refresh", json={"refresh_token": token}, headers={"user-agent": agent})

        user = thief = sessions.create("ada").refresh_token or ""
        generations, ended = 0, False
        while not ended and generations < 10:
            user = refreshes(user, USER.user_agent).json()["refresh_token"]
            answer = refreshes(thief, "curl/8.16")
            ended = answer.status_code == 400
            thief, generations = answer.json().get("refresh_token", ""), generations + 1
    assert (ended, generations) == (True, 5)
    assert [event.verdict for event in events if isinstance(event, ReuseSuspected)] == ["converged"] * 4
    assert sum(isinstance(event, ReuseDetected) for event in events) == 1


# ---- what a thief may ask --------------------------------------------------------------------------------------------


def test_no_answer_tells_when_the_session_is_refreshed(attacks: Attacks) -> None:
    theft = Theft()
    sessions = theft.sessions
    endpoints = Endpoints(sessions, lambda _name, _password: None)
    other = sessions.create("ada", caller=USER)
    granted = sessions.create("ada", caller=USER)
    routes = {(route.method, route.path): route for route in endpoints.routes}

    def asks(method: str, path: str, body: bytes = b"", **headers: str) -> Any:
        headers["authorization"] = f"Bearer {granted.access_token}"
        return run_sync(endpoints.respond(routes[method, path], Request(method, f"/auth{path}", headers, body), ""))

    def seen(token: str) -> Any:
        form = {"content-type": "application/x-www-form-urlencoded"}
        sessions_shown = json.loads(asks("GET", "/sessions").body)
        introspected = json.loads(asks("POST", "/introspect", f"token={token}".encode(), **form).body)
        return sessions_shown, introspected

    token, used_other = granted.refresh_token or "", other.refresh_token or ""
    for _ in range(3):  # in this hour, each of the two sessions is refreshed, one after the other
        theft.now += 500.0
        before = seen(granted.refresh_token or "")
        assert before[1]["active"]
        for refreshed in ("granted", "other"):
            attacks.try_one()
            if refreshed == "granted":
                token = sessions.refresh(token, caller=USER).refresh_token or ""
            else:
                used_other = sessions.refresh(used_other, caller=USER).refresh_token or ""
            assert seen(granted.refresh_token or "") == before
