"""``<base>``, which anybody decides who gets markup into the page: where passwords and tokens go all the same."""

from __future__ import annotations

import pytest

from tests.interop.backends.base import PASSWORD
from tests.interop.backends.shapes import BearerJson

BASE = """(href) => { document.head.append(Object.assign(document.createElement("base"), { href })); }"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_base_of_another_origin_gets_no_token(stage, run, when: str) -> None:
    scene, other = stage(BearerJson()), run(BearerJson())
    if when == "before":
        scene.tab.run(BASE, other.url + "/")
        scene.tab.start(**scene.options)
    else:
        scene.tab.run(BASE, other.url + "/")
    scene.tab.ask("/api/echo")
    assert {seen.value for seen in other.seen} <= {""}


def test_a_base_of_another_origin_gets_no_password(stage, run) -> None:
    scene, other = stage(BearerJson()), run(BearerJson())
    scene.tab.run(BASE, other.url + "/")
    scene.tab.start(**{**scene.options, "login": {"url": "/login"}, "refresh": {"url": "/refresh"}})
    scene.tab.attempt("(name, password) => session.login(name, password)", "ada", PASSWORD)
    scene.tab.attempt("() => session.refresh()")
    scene.tab.attempt("() => session.logout()")
    assert (other.seen, other.issued, other.refreshes) == ([], [], 0), "a login there would have issued tokens"


def test_a_base_of_our_own_origin_counts_for_requests_as_for_the_platform(stage) -> None:
    scene = stage(BearerJson())
    scene.tab.run(BASE, scene.backend.url + "/api/")
    assert scene.tab.ask("echo")["status"] == 200
