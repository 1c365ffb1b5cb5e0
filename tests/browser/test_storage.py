"""Where tokens are: in memory by default, in one text elsewhere, and a storage may be missing."""

from __future__ import annotations

import pytest

from tests.browser.scene import Scene
from tests.browser.tabs import Tab
from tests.interop.backends.base import Fault
from tests.interop.backends.shapes import BearerJson, KeptRefresh


@pytest.mark.defect("C5")
def test_tokens_are_in_no_storage_by_default_and_otherwise_in_one_text(stage) -> None:
    scene = stage(BearerJson(), storage="memory")
    secret = scene.backend.issued[0].refresh
    everything = "() => JSON.stringify([localStorage, sessionStorage, document.cookie, Object.keys(window)])"
    assert scene.get()["status"] == 200
    assert secret not in scene.tab.run(everything)
    scene.tab.start(**scene.options, key="one text")
    scene.tab.start(**(scene.options | {"storage": "localStorage"}), key="one text")
    scene.log_in()
    assert scene.tab.run("() => Object.keys(localStorage)") == ["one text"]


def test_a_full_storage_is_replaced_by_memory(stage, client) -> None:
    scene = stage(BearerJson(), before="Storage.prototype.setItem = () => { throw new DOMException('full'); };")
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=0.1))
    assert scene.get()["status"] == 200
    assert scene.backend.refreshes == 1


@pytest.mark.defect("P19")
@pytest.mark.parametrize("storage", ["localStorage", "sessionStorage"])
def test_a_denied_storage_is_replaced_by_memory(stage, client, storage) -> None:
    denied = (
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('', 'SecurityError'); } });"
    )
    scene = stage(BearerJson(), before=denied, storage=storage)
    for _ in range(2):
        scene.backend.expire()
        assert scene.get()["status"] == 200
    assert (scene.backend.refreshes, scene.backend.alarms) == (2, 0)
    assert scene.tab.run("() => sessionStorage.length") == 0


def duplicate(scene: Scene) -> Tab:
    """A tab that has a copy of what the first one has in its sessionStorage."""
    with scene.tab.page.expect_popup() as opened:
        scene.tab.run("() => void window.open('/page')")
    copy = Tab(opened.value, scene.tab.client)
    copy.page.wait_for_function("window.ready")
    copy.start(**scene.options)
    return copy


@pytest.mark.defect("S4.7")
def test_a_duplicated_tab_causes_no_reuse_alarm(stage) -> None:
    scene = stage(KeptRefresh(), storage="sessionStorage")
    copy = duplicate(scene)
    assert copy.ask("/api/echo")["status"] == 200, "a copy of the tokens came along"
    scene.backend.expire()
    assert scene.get()["status"] == 200
    assert copy.ask("/api/echo")["reason"] == "other_tab"
    assert (scene.backend.refreshes, scene.backend.alarms, scene.get()["status"]) == (1, 0, 200)


def test_duplicated_tabs_end_beside_a_tab_with_another_login(stage, tab) -> None:
    scene = stage(KeptRefresh(), storage="sessionStorage")
    copies = [duplicate(scene), duplicate(scene)]
    other = tab(scene.backend, scene.tab.client)
    other.start(**scene.options)
    scene.log_in("bob", other)
    scene.backend.expire()
    assert scene.get()["json"]["user"] == "ada"
    assert other.ask("/api/echo")["json"]["user"] == "bob"
    assert [copy.ask("/api/echo")["reason"] for copy in copies] == ["other_tab"] * 2
    assert (scene.backend.refreshes, scene.backend.alarms) == (2, 0)
    assert [one.ask("/api/echo")["status"] for one in (scene.tab, other)] == [200, 200]


def test_a_login_in_session_storage_leaves_nothing_in_local_storage_when_it_is_over(stage) -> None:
    scene = stage(KeptRefresh(), storage="sessionStorage")
    for _ in range(2):
        scene.backend.expire()
        assert scene.get()["status"] == 200
    [mark] = scene.tab.run("() => Object.values(localStorage)")
    assert mark.isdigit(), "how new the tokens are, for duplicated tabs"
    scene.tab.run("() => session.logout()")
    assert scene.tab.run("() => Object.keys(localStorage)") == []
    scene.log_in()
    scene.backend.end_sessions()
    assert scene.get()["error"] == "session_over"
    assert scene.tab.run("() => Object.keys(localStorage)") == []
