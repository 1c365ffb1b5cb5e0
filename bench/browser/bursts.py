"""Bursts of requests on an expired token, in one tab and in five, by each contender in turn."""

from __future__ import annotations

import json
import statistics
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from bench.clients.cell import family

VALID, REFRESH_SECONDS = 3600, 0.05  # seconds
AHEAD = 0.15  # seconds from the last word to the tabs until they begin
BUDGET = 50.0  # seconds for the turns of ours; the first is taken in any case
HANGS = 4.0  # seconds after which a request counts as one that never ends


@dataclass(frozen=True)
class Contender:
    """One client. ``maker`` is its name in ``page/contenders.js``; ``by_clock``, ``by_status``: how it learns of an
    expiry; ``axios``: whether that sends its requests.
    """

    name: str
    maker: str
    axios: bool = False
    by_clock: bool = False
    by_status: bool = True
    ours: bool = False


PLAIN = (Contender("fetch, a valid token", "plain_fetch"), Contender("axios, a valid token", "plain_axios", axios=True))
CONTENDERS = (
    Contender("unbroken, session.fetch", "ours_fetch", by_clock=True, ours=True),
    Contender("unbroken, session.attach(axios)", "ours_axios", axios=True, by_clock=True, ours=True),
    Contender("axios-auth-refresh", "axios_auth_refresh", axios=True),
    Contender("axios-auth-refresh, deduplicateRefresh: false", "axios_auth_refresh_each", axios=True),
    Contender("alova, by the clock", "alova_by_clock", by_clock=True, by_status=False),
    Contender("alova, by the status", "alova_by_status"),
    Contender("ky, its recipe", "ky"),
    Contender("ofetch, its recipe with a shared promise", "ofetch"),
    Contender("@badgateway/oauth2-client", "oauth2_client", by_clock=True),
    Contender("oidc-client-ts, signinSilent", "oidc_client"),
    Contender("supertokens-website", "supertokens"),
    Contender("snippet: status in the body, a queue", "status_in_body", axios=True),
    Contender("snippet: code in a 200, a queue", "code_in_200", axios=True),
    Contender("snippet: own header, a queue", "own_header", axios=True),
    Contender("snippet: a promise and a mark", "bearer_json", axios=True),
    Contender("snippet: a mark only", "kept_refresh", axios=True),
)


@dataclass(frozen=True)
class Scene:
    """What happens. ``by_clock``: the access token has come to its end, as the page can know; else it died early."""

    title: str
    tabs: int
    requests: int  # of each tab
    by_clock: bool
    turns: int = 0  # of ours, before the one of all

    def takes(self, one: Contender) -> bool:
        return one.by_clock if self.by_clock else one.by_status


SCENES = (
    Scene("1 tab × 200, expired by the clock", 1, 200, by_clock=True, turns=5),
    Scene("5 tabs × 40, expired by the clock", 5, 40, by_clock=True, turns=5),
    Scene("1 tab × 200, dead early", 1, 200, by_clock=False),
    Scene("5 tabs × 40, dead early", 5, 40, by_clock=False),
)
ALONE = Scene("1 request", 1, 1, by_clock=False)


@dataclass(frozen=True)
class Burst:
    """What came of one burst, on the page and at the server. Times are in seconds."""

    wall: float
    failures: int
    refreshes: int
    revoked: bool
    ratio: float = 1.0  # of the wall to that of bare fetch or axios with a valid token in the same turn, and a refresh


@dataclass
class Row:
    """One contender in one scene, turn by turn; of counts the worst is told, of times the middle one."""

    contender: Contender
    scene: Scene
    bursts: list[Burst] = field(default_factory=list)

    @property
    def refreshes(self) -> int:
        return max(burst.refreshes for burst in self.bursts)

    @property
    def failures(self) -> int:
        return max(burst.failures for burst in self.bursts)

    @property
    def revoked(self) -> bool:
        return any(burst.revoked for burst in self.bursts)

    @property
    def hangs(self) -> bool:
        return any(burst.wall >= HANGS for burst in self.bursts)

    @property
    def wall(self) -> float:
        return statistics.median(burst.wall for burst in self.bursts)

    @property
    def ratio(self) -> float:
        return statistics.median(burst.ratio for burst in self.bursts)


def take_turns(context: Any, url: str) -> list[Row]:
    """Ours in as many turns as a scene has a limit for; then one turn of all that are left."""
    _try_out(context, url)
    rows = [Row(one, scene) for scene in SCENES for one in CONTENDERS if scene.takes(one)]
    ends = time.monotonic() + BUDGET
    for turn in range(max(scene.turns for scene in SCENES)):
        for scene in SCENES:
            if turn < scene.turns and (not turn or time.monotonic() < ends):
                cast = [row for row in rows if row.scene is scene and row.contender.ours]
                _take_turn(context, url, cast, backwards=turn % 2 == 1)
    for scene in SCENES:
        cast = [row for row in rows if row.scene is scene and not row.bursts]
        _take_turn(context, url, cast, backwards=False)
    return rows


def _try_out(context: Any, url: str) -> None:
    """A contender that fails with a single request is one that we have set up wrong."""
    for one in CONTENDERS:
        alone = _burst(context, url, ALONE, one) if one.by_status else None
        if alone and (alone.refreshes, alone.failures) != (1, 0):
            raise RuntimeError(f"{one.name} is not set up right: it fails with a single request")


def _take_turn(context: Any, url: str, cast: list[Row], *, backwards: bool) -> None:
    """A burst of each, and of the bare clients that they are compared with."""
    scene = cast[0].scene
    order = [*PLAIN, *(row.contender for row in cast)]
    bursts = {one: _burst(context, url, scene, one) for one in (reversed(order) if backwards else order)}
    base = {one.axios: bursts[one].wall for one in PLAIN}
    for row in cast:
        burst = bursts[row.contender]
        row.bursts.append(replace(burst, ratio=burst.wall / base[row.contender.axios]))


@contextmanager
def opened(context: Any, url: str, tabs: int = 1) -> Iterator[list[Any]]:
    """Pages of one user, of whom the browser knows nothing yet but the modules."""
    context.clear_cookies()
    pages = [context.new_page() for _ in range(tabs)]
    try:
        for page in pages:
            page.goto(f"{url}/page")
        for page in pages:
            page.wait_for_function("window.ready")
        pages[0].evaluate("() => localStorage.clear()")
        yield pages
    finally:
        for page in pages:
            page.close()


def _burst(context: Any, url: str, scene: Scene, one: Contender) -> Burst:
    """One burst. A bare client has a valid token, and its wall ends with a refresh."""
    granted = family(url, {"expired": one not in PLAIN, "says": VALID, "token_delay": REFRESH_SECONDS})
    with opened(context, url, scene.tabs) as pages:
        for number, page in enumerate(pages):
            about = [one.maker, granted, number == 0, 2 * VALID if scene.by_clock else 0]
            page.evaluate("(about) => prepare(...about)", about)
        if _counted(url, granted)["refreshes"]:
            raise RuntimeError(f"{one.name} has refreshed before the burst")
        begin = (time.time() + AHEAD) * 1000
        for number, page in enumerate(pages):
            page.evaluate("(about) => void burst(...about)", [scene.requests, begin, number, HANGS])
        outcomes = [page.evaluate("() => outcome") for page in pages]
        wall = max(outcome["ended"] for outcome in outcomes) - min(outcome["began"] for outcome in outcomes)
        if one in PLAIN:
            wall += pages[0].evaluate("(granted) => refresh(granted)", granted)
    counted = _counted(url, granted)
    failures = sum(outcome["failures"] for outcome in outcomes)
    return Burst(wall / 1000, failures, counted["refreshes"], counted["revoked"])


def _counted(url: str, granted: dict[str, Any]) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/family?name={granted['family']}", timeout=10) as answer:
        counted: dict[str, Any] = json.load(answer)
        return counted
