"""kill -9 of a node in the middle of 128 clients' refreshes: everybody who asks again has a session."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

from tests.chaos.clients import Herd, Visitor, reuse_alarms
from tests.chaos.node import Node

CLIENTS = 128
_log = logging.getLogger("unbroken.chaos")  # figures, for --log-cli-level=INFO


def test_no_session_ends_by_a_node_that_is_killed(store: str, node: Callable[[str], Node], full: bool) -> None:
    alone, chance = node(store), random.Random(store.partition(":")[0])
    visitor = Visitor(alone.url, "visitor")
    with Herd(alone.url, CLIENTS) as herd:
        visitor.start()
        for _ in range(50 if full else 5):
            herd.run_for(chance.randrange(1, 200))
            before = herd.failures
            alone.kill()
            alone.start()
            herd.all_have_their_sessions()
            assert herd.failures > before, "somebody was in the middle of it"
        visitor.ended.set()
        visitor.join(60.0)
    herd.are_let_in()
    visitor.check()
    alone.check()
    assert reuse_alarms(store) == 0
    said = f"{herd.refreshes} refreshes, {herd.failures} failures, {dict(alone.verdicts())}"
    _log.info("%s: %s", store.partition(":")[0], said)
