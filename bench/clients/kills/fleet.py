"""Runs the fleet and counts.

1. A login is shared by a group: over Redis or PostgreSQL by members on three hosts; over a file, by members on one host
   and the command line there. Each server's manner has groups of both.
2. First nobody is killed, for a third of the time: requests are compared with those that have a fixed token. Then a
   member is killed (-9) every two seconds, and started again. Every fourth kill is aimed at a process that holds the
   lock of a refresh.
3. A login is lost when its store says so. It is *unavoidable* at a server that accepts a refresh token once, if a
   process that held the lock was killed after the server had used the token up, and nobody stored a successor: the only
   answer with the new token died with the process. No client can do better; every other loss is a fault.
4. A lost login is replaced at once, so that the group goes on. What its members are told until they have noticed counts
   with the loss: each has tokens of the old login in memory, which are not those of the new one.
5. How many logins random kills must cost is expected from the time between the server's use of a token and the receipt
   of its successor, by the clock of the server and the time stamp in the store: that of one member of the group in each
   generation.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.clients.cell import family
from bench.clients.kills.hosts import Host, hosts, listen
from bench.clients.kills.member import ADVISORY
from bench.clients.kills.peers import PEERS, write
from bench.clients.kills.server import MANNERS, ONCE
from bench.figure import Figure, print_figures
from unbroken import Session, TokenResponse, oauth2
from unbroken.client.stores import open_token_store

LIFETIME = 3.0  # seconds
PAUSE = 1.0  # seconds between two requests of a member, on average
NOTICE_SECONDS = LIFETIME + 3 * PAUSE  # two of the longest pauses: every fifth request has no token of the login
KILL_EVERY = 2.0  # seconds
AIMED = 4  # every so many kills is aimed at a process that holds a lock
QUIET = 1 / 3  # of the time
RATIO, RECOVERY_SECONDS = 2.0, 3.0
SLACK_SECONDS = 0.1  # two processes read the clock
HOSTS = 3
MINUTES = 10.0


@dataclass(frozen=True)
class Plan:
    """What one group is: the manner of its server, where its tokens are, and the kinds of its members."""

    manner: str
    place: str
    kinds: tuple[str, ...]


SHARED = ("sync", "sync", "sync", "sync", "async", "async", "async", "mcp", "mcp", "mcp")
LOCAL = ("cli", "cli", "cli", "cli", "sync", "sync", "async", "async", "mcp", "mcp")
FULL = tuple(
    Plan(manner, place, SHARED if place != "file" else LOCAL)
    for manner, shared in zip(MANNERS, itertools.cycle(("redis", "postgres")), strict=False)
    for place in (shared, "file")
)
SMALL = (
    Plan("strict", "redis", ("sync", "async", "mcp")),
    Plan("strict", "file", ("cli", "sync", "async")),
    Plan("forgiving", "postgres", ("sync", "mcp", "async")),
    Plan("github-like", "file", ("cli", "sync", "mcp")),
)
BESIDE_PEERS = tuple(
    Plan(manner, "file", (kind,) * 4) for kind in ("sync", *PEERS) for manner in ("strict", "forgiving")
)
PEERS_SECONDS, PEERS_AIMED = 45.0, 2


# ---- members and groups ----------------------------------------------------------------------------------------------


@dataclass
class Line:
    """One request of a member: what it was, when it ended, its seconds and its outcome."""

    what: str
    at: float
    seconds: float
    outcome: str


class Member:
    """A process that is started again when it is killed."""

    def __init__(self, group: Group, host: Host, about: dict[str, Any], output: Path) -> None:
        self.group, self._host, self._about, self._output = group, host, about, output
        self.start()

    def start(self) -> None:
        command = [*self._host.prefix, sys.executable, "-m", "bench.clients.kills.member", json.dumps(self._about)]
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdout=output, env=self._host.environment(), stderr=subprocess.DEVNULL, start_new_session=True
            )

    def kill(self) -> None:
        """kill -9, of the commands that it runs as well."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def runs(self, process: int) -> bool:
        """Whether *process* is one of this member's."""
        with contextlib.suppress(ProcessLookupError):
            return os.getpgid(process) == self._process.pid
        return False

    @property
    def is_ready(self) -> bool:
        return any(line.outcome == "200" for line in self.lines())

    def lines(self) -> list[Line]:
        found = []
        for text in self._output.read_text().splitlines():
            words = text.split(" ")
            if len(words) == 4:  # the last one may be cut off
                found.append(Line(words[0], float(words[1]), float(words[2]), words[3]))
        return found


@dataclass
class Loss:
    """A login that was lost: at what time, until when it was replaced, and whether anybody could have helped it."""

    at: float
    until: float
    unavoidable: bool


@dataclass
class Kill:
    """A kill of a member: when, and whether it held the lock of a refresh."""

    at: float
    group: Group
    held: bool


class Group:
    """Members that share a login."""

    def __init__(self, plan: Plan, name: str, url: str, location: str) -> None:
        self.plan, self.name, self.url, self.location = plan, name, url, location
        self.store: Any = open_token_store(location, name)
        self._session = Session(oauth2(url + "/token"), self.store)
        self.families: list[str] = []
        self.losses: list[Loss] = []
        self.receipts: set[float] = set()  # time stamps in the store
        self.log_in()

    def log_in(self) -> None:
        about = {"manner": self.plan.manner, "says": LIFETIME, "lives": LIFETIME}
        made = family(self.url, about)
        self.families.append(made["family"])
        self._session.import_tokens(TokenResponse(made["access_token"], made["refresh_token"], LIFETIME))

    def is_lost(self) -> bool:
        """Look into the store."""
        tokens = self.store.load().tokens
        if tokens is not None:
            self.receipts.add(tokens.received_at)
        return tokens is None

    def window(self) -> float:
        """Return the mean seconds between the server's use of a refresh token and the receipt of the next (rule 5)."""
        granted = [one["at"] for log in self.logs() for one in log["log"] if one["verdict"] == "granted"]
        before = [(received, [at for at in granted if at <= received]) for received in self.receipts]
        windows = [received - max(earlier) for received, earlier in before if earlier]
        return sum(windows) / len(windows) if windows else 0.0

    def logs(self) -> list[dict[str, Any]]:
        """What the server knows of each of its logins, in order."""
        return [_family(self.url, name) for name in self.families]

    def replace_lost(self, kills: Sequence[Kill]) -> None:
        """Note that the login is lost, and why, and log in anew."""
        at = time.time()
        is_unavoidable = self._is_unavoidable(at, kills)
        self.log_in()
        self.losses.append(Loss(at, time.time(), is_unavoidable))

    def _is_unavoidable(self, at: float, kills: Sequence[Kill]) -> bool:
        """Return whether the login that was lost *at* was lost by a kill alone (rule 3)."""
        log = self.logs()[-1]["log"]
        granted = [one["at"] for one in log if one["verdict"] == "granted"]
        held = [kill.at for kill in kills if kill.group is self and kill.held]
        used_up = granted[-1] if granted else at
        return self.plan.manner in ONCE and any(kill >= used_up - SLACK_SECONDS for kill in held)


class PeerGroup(Group):
    """Members of another library: a lost login stays lost."""

    def __init__(self, plan: Plan, name: str, url: str, location: str) -> None:
        self.plan, self.name, self.url, self.location = plan, name, url, location
        self.families, self.losses, self.receipts = [], [], set()
        self.log_in()

    def log_in(self) -> None:
        made = family(self.url, {"manner": self.plan.manner, "says": LIFETIME, "lives": LIFETIME})
        self.families.append(made.pop("family"))
        write(self.location, {**made, "expires_at": int(time.time() + LIFETIME)})

    def is_lost(self) -> bool:
        return not self.losses and any(one["verdict"] == "refused" for one in self.logs()[-1]["log"])

    def replace_lost(self, kills: Sequence[Kill]) -> None:
        self.losses.append(Loss(time.time(), float("inf"), self._is_unavoidable(time.time(), kills)))


def _family(url: str, name: str) -> dict[str, Any]:
    import urllib.request

    with urllib.request.urlopen(f"{url}/family?name={name}", timeout=30) as response:
        found: dict[str, Any] = json.load(response)
        return found


# ---- the run ---------------------------------------------------------------------------------------------------------


@dataclass
class Fleet:
    """All that runs, and when it was quiet and when members were killed."""

    url: str
    aimed: int = AIMED  # every so many kills is aimed
    groups: list[Group] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    began: float = 0.0
    first_kill: float = 0.0
    _looks_again: float = 0.0

    def start(self, plan: Plan, number: int, where: list[Host], locations: dict[str, str], fixed: str) -> None:
        """Start the members of a group: on all hosts, or on one if its tokens are in a file."""
        name = f"{plan.manner}-{number}"
        own = [where[number % len(where)]] if plan.place == "file" else where
        location = locations.get(plan.place) or str(own[0].home / f"{name}.tokens.json")
        if "cli" in plan.kinds:
            _write_profile(own[0].home / f"{name}.json", self.url)
        group = (PeerGroup if plan.kinds[0] in PEERS else Group)(plan, name, self.url, location)
        self.groups.append(group)
        for n, kind in enumerate(plan.kinds):
            about = {"kind": kind, "url": self.url, "store": location, "name": name, "pause": PAUSE, "fixed": fixed}
            about["has_profile"] = "cli" in plan.kinds
            host = own[n % len(own)]
            self.members.append(Member(group, host, about, host.folder / f"{name}-{n}.log"))

    def run(self, seconds: float) -> None:
        """Wait until all members have made a request, then run for *seconds*."""
        ends = time.monotonic() + 120
        while not all(member.is_ready for member in self.members) and time.monotonic() < ends:
            self._replace_lost()
            time.sleep(0.25)
        self.began = time.time()
        self.first_kill = self.began + seconds * QUIET
        while time.time() < self.began + seconds:
            self._replace_lost()
            if time.time() >= self.first_kill + KILL_EVERY * len(self.kills):
                self._kill(is_aimed=self.is_aimed(len(self.kills)))
            time.sleep(0.1)
        time.sleep(RECOVERY_SECONDS)  # for requests under way
        self._replace_lost()

    def is_aimed(self, number: int) -> bool:
        return number % self.aimed == self.aimed - 1

    def _replace_lost_at_times(self) -> None:
        if time.monotonic() >= self._looks_again:
            self._replace_lost()
            self._looks_again = time.monotonic() + 0.1

    def _replace_lost(self) -> None:
        for group in self.groups:
            if group.is_lost():
                group.replace_lost(self.kills)

    def _kill(self, *, is_aimed: bool) -> None:
        victim = random.choice(self.members)
        ends = time.monotonic() + KILL_EVERY
        while is_aimed and time.monotonic() < ends:
            if holders := [member for member in self.members if any(map(member.runs, lock_holders()))]:
                victim = random.choice(holders)
                time.sleep(random.uniform(0.0, 0.1))  # a refresh takes a little longer
                break
            self._replace_lost_at_times()
            time.sleep(0.002)
        held = any(map(victim.runs, lock_holders()))
        victim.kill()
        self.kills.append(Kill(time.time(), victim.group, held))
        victim.start()


def lock_holders() -> set[int]:
    """The processes of this machine that hold a lock file."""
    with open("/proc/locks") as locks:
        held = [line.split() for line in locks if " FLOCK " in line and "->" not in line]
    return {int(words[4]) for words in held}


def _write_profile(file: Path, url: str) -> None:
    """Write the profile of a session by name, as ``unbroken login`` does."""
    file.touch(mode=0o600)
    file.write_text(json.dumps({"unbroken": 1, "url": url, "kind": "oauth2", "token_endpoint": url + "/token"}))


@contextlib.contextmanager
def _servers(where: list[Host]) -> Iterator[None]:
    sockets = [host.listening.fileno() for host in where]
    command = [sys.executable, "-m", "bench.clients.kills.server", *map(str, sockets)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, pass_fds=sockets, stdin=pipe, stdout=pipe)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.kill()
        process.communicate()


def run(plans: Sequence[Plan], seconds: float, redis: Any, postgres: Any, *, aimed: int = AIMED) -> list[Figure]:
    """Run the fleet for *seconds* and return its figures; *redis* and *postgres* are running services."""
    from tests.support.services import free_port

    locations = {
        "redis": f"unix://{redis.folder}/redis.sock?db=0",
        "postgres": f"{postgres.url.replace('@127.0.0.1:', '@:')}?host={postgres.folder}",
    }
    with contextlib.ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="unbroken-fleet-")))
        port = free_port()
        where = opened.enter_context(hosts(HOSTS, folder, port))
        opened.enter_context(_servers([Host("here", folder, (), listen(port)), *where]))
        fleet = Fleet(f"http://127.0.0.1:{port}", aimed)
        opened.callback(lambda: [member.kill() for member in fleet.members])
        fixed = family(fleet.url, {"manner": "strict"})["access_token"]
        for number, plan in enumerate(plans):
            fleet.start(plan, number, where, locations, fixed)
        fleet.run(seconds)
        if plans is BESIDE_PEERS:
            return list(_beside_peers(fleet, seconds))
        return list(_figures(fleet, seconds, isolated=bool(where[0].prefix)))


# ---- figures ---------------------------------------------------------------------------------------------------------


def _figures(fleet: Fleet, seconds: float, *, isolated: bool) -> Iterator[Figure]:
    kinds = "hosts (namespaces)" if isolated else "hosts (folders)"
    what = f"{len(fleet.members)} processes, {HOSTS} {kinds}, {len(fleet.kills)} kills in {seconds:g} s"
    yield from _logins(fleet, what)
    yield from _refreshes(fleet)
    yield from _requests(fleet)


def _logins(fleet: Fleet, what: str) -> Iterator[Figure]:
    losses = [loss for group in fleet.groups for loss in group.losses]
    avoidable = sum(not loss.unavoidable for loss in losses)
    yield Figure(f"{what}: logins that a client could have spared", avoidable, "", "0", avoidable == 0)
    held = sum(kill.held for kill in fleet.kills)
    least = sum(loss.unavoidable for loss in losses)
    yield Figure(f"kills of a process that held the lock of a refresh, of {len(fleet.kills)}", held, "")
    yield Figure("logins lost with the only answer, at servers that accept a token once: the least possible", least, "")
    strict = [group for group in fleet.groups if group.plan.manner in ONCE]
    yield Figure("those that kills at random were expected to cost", _expected(fleet), "logins")
    reuses = sum(log["reuses"] for group in strict for log in group.logs())
    yield Figure("used refresh tokens that came again there", reuses, "", f"at most {least}", reuses <= least)
    forgiven = sum(log["reuses"] for group in fleet.groups if group not in strict for log in group.logs())
    yield Figure("used refresh tokens that came too late elsewhere", forgiven, "", "0", forgiven == 0)


def _expected(fleet: Fleet) -> float:
    """Return how many logins random kills cost on average, whatever the client does (rule 5)."""
    generation = LIFETIME * (1 - ADVISORY)
    hit = [kill.group for n, kill in enumerate(fleet.kills) if not fleet.is_aimed(n) and kill.group.plan.manner in ONCE]
    return sum(group.window() / generation / len(group.plan.kinds) for group in hit)


def _refreshes(fleet: Fleet) -> Iterator[Figure]:
    """One refresh a generation: no other is sent, unless a process was killed in the middle of one."""
    log = [one for group in fleet.groups for family in group.logs() for one in family["log"]]
    keys = Counter(one["key"] for one in log)
    again = sum(times - 1 for times in keys.values())
    held = sum(kill.held for kill in fleet.kills)
    yield Figure(
        f"refreshes for {len(keys)} generations", len(log), "", "one each, and one after a kill", again <= held
    )


def _requests(fleet: Fleet) -> Iterator[Figure]:
    seen = [(member, line) for member in fleet.members for line in member.lines() if line.at >= fleet.began]
    wrong = Counter(
        line.outcome for member, line in seen if line.outcome not in ("200", "late") and not _is_of_loss(member, line)
    )
    words = f" ({', '.join(f'{word} {n}' for word, n in wrong.most_common(4))})" if wrong else ""
    yield Figure(f"failures of {len(seen):,} requests and commands{words}", wrong.total(), "", "0", not wrong)
    lines = [line for _, line in seen]
    quiet, killing = _times(lines, "ours", before=fleet.first_kill), _times(lines, "ours", after=fleet.first_kill)
    fixed = _times(lines, "fixed", before=fleet.first_kill)
    ratio = part(quiet, 0.99) / part(fixed, 0.99)
    times = f"{part(quiet, 0.99) * 1000:.0f} over {part(fixed, 0.99) * 1000:.0f} ms"
    yield Figure(
        f"p99 without kills over that of a fixed token, {times}", ratio, "x", f"at most {RATIO:g}", ratio <= RATIO
    )
    yield Figure("p50 without kills over that of a fixed token", part(quiet, 0.5) / part(fixed, 0.5), "x")
    slow, worst = part(killing, 0.99), max(killing, default=0.0)
    limit = f"at most {RECOVERY_SECONDS:g} s"
    yield Figure("p99 with kills", slow, "s", limit, slow <= RECOVERY_SECONDS)
    yield Figure(
        "the longest with kills, also the first of a new process", worst, "s", limit, worst <= RECOVERY_SECONDS
    )
    commands = _times(lines, "cli")
    yield Figure(f"p50 of {len(commands)} commands, Python's start included", part(commands, 0.5), "s")
    yield Figure("p99 of them", part(commands, 0.99), "s")
    late = sum(line.outcome == "late" for line in lines)
    yield Figure("programs that took longer to start than the rest of their token's three seconds", late, "")


def _is_of_loss(member: Member, line: Line) -> bool:
    """Whether a request failed because its login was lost without anybody's fault (rule 4)."""
    if not (line.outcome.startswith("SessionOver") or line.what == "cli"):
        return False
    began = line.at - line.seconds
    losses = [loss for loss in member.group.losses if loss.unavoidable]
    return any(loss.at - 1.0 <= line.at and began <= loss.until + NOTICE_SECONDS for loss in losses)


def _times(lines: list[Line], what: str, before: float = float("inf"), after: float = 0.0) -> list[float]:
    found = [
        line.seconds for line in lines if line.what == what and line.outcome == "200" and after <= line.at < before
    ]
    return sorted(found)


def part(times: list[float], share: float) -> float:
    """Return the time that a *share* of *times*, which are sorted, do not exceed."""
    return times[min(int(len(times) * share), len(times) - 1)] if times else float("nan")


def _beside_peers(fleet: Fleet, seconds: float) -> Iterator[Figure]:
    for group in fleet.groups:
        kind, size = group.plan.kinds[0], len(group.plan.kinds)
        what = f"{PEERS.get(kind, 'unbroken, file')}, {size} processes at a {group.plan.manner} server, {seconds:g} s"
        by_kills = sum(loss.unavoidable for loss in group.losses)
        lost = len(group.losses) - by_kills
        killed = sum(kill.group is group for kill in fleet.kills)
        yield Figure(f"{what}: logins lost, {by_kills} unavoidable ones of {killed} kills aside", lost, "")
        lines = [line for member in fleet.members if member.group is group for line in member.lines()]
        measured = [line for line in lines if line.at >= fleet.began and line.what == "ours"]
        log = [one for family in group.logs() for one in family["log"]]
        generations = sum(one["verdict"] == "granted" for one in log)
        yield Figure(f"refreshes for its {generations} generations", len(log), "")
        share = sum(line.outcome != "200" for line in measured) / max(len(measured), 1)
        yield Figure(f"failures of its {len(measured)} requests", share * 100, "%")


def main(words: list[str]) -> int:
    """Print the figures and return the exit status."""
    from tests.support.services import postgres_server, redis_server

    given = _arguments(words)
    plans, seconds, aimed = SMALL if given.small else FULL, given.minutes * 60, AIMED
    if given.peers:
        plans, seconds, aimed = BESIDE_PEERS, PEERS_SECONDS, PEERS_AIMED
    with redis_server() as redis, postgres_server() as postgres:
        return print_figures(run(plans, seconds, redis, postgres, aimed=aimed))


def _arguments(words: list[str]) -> argparse.Namespace:
    options = argparse.ArgumentParser(prog="python -m bench clients fleet", allow_abbrev=False)
    options.add_argument("--minutes", type=_minutes, default=MINUTES, metavar="M")
    options.add_argument("--small", action="store_true", help="four groups of three, not ten of ten")
    options.add_argument("--peers", action="store_true", help=f"other libraries, for {PEERS_SECONDS:g} seconds")
    return options.parse_args(words)


def _minutes(text: str) -> float:
    if not 0 < (minutes := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a time")
    return minutes
