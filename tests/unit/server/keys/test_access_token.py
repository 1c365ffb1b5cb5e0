"""Access tokens: claims that callers share and cannot change."""

from __future__ import annotations

import base64
import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from unbroken._concurrency import run_sync
from unbroken.errors import InvalidToken
from unbroken.server import Claims, MemorySessionStore, Sessions
from unbroken.server.keys.access_token import frozen
from unbroken.server.keys.keyring import P256_ORDER, new_mac_key, new_signing_key

CHANGES: dict[str, Callable[[Any], object]] = {
    "a further claim": lambda extra: extra.__setitem__("admin", True),
    "a claim less": lambda extra: extra.pop("roles"),
    "an update": lambda extra: extra.update(admin=True),
    "another role": lambda extra: extra["roles"].append("admin"),
    "more roles": lambda extra: extra["roles"].extend(["admin"]),
    "another first role": lambda extra: extra["roles"].__setitem__(0, "admin"),
    "a nested object": lambda extra: extra["deep"][0].__setitem__("a", 2),
    "a union in place": lambda extra: extra.__ior__({"admin": True}),
}


@pytest.fixture
def claims() -> Claims:
    sessions = Sessions(MemorySessionStore(), claims=lambda info: {"roles": ["user"], "deep": [{"a": 1}]})
    return sessions.verify(sessions.create("ada").access_token)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_claims_of_a_token_cannot_be_changed(claims: Claims, change: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError):
        change(claims.extra)
    assert claims.extra == {"roles": ["user"], "deep": [{"a": 1}]}


def test_no_method_of_a_dict_or_a_list_changes_a_frozen_one() -> None:
    calls: dict[str, tuple[Any, ...]] = {"setdefault": ("b", 1), "insert": (0, 1), "pop": (), "__delitem__": (0,)}
    for kind, plain in ((dict, {"a": 1}), (list, [2, 1])):
        changing = {
            "clear",
            "pop",
            "popitem",
            "setdefault",
            "update",
            "append",
            "extend",
            "insert",
            "remove",
            "reverse",
        }
        for name in (changing | {"sort", "__setitem__", "__delitem__", "__iadd__", "__imul__", "__ior__"}) & {
            *dir(kind)
        }:
            value = frozen(plain)
            with pytest.raises(TypeError, match="shared"):
                getattr(value, name)(*calls.get(name, ()))
            assert value == plain


def test_frozen_claims_are_read_printed_and_copied_like_any_others(claims: Claims) -> None:
    plain = {"roles": ["user"], "deep": [{"a": 1}]}
    assert json.dumps(claims.extra) == json.dumps(plain)
    assert repr(claims.extra) == repr(plain)
    for copied in (pickle.loads(pickle.dumps(claims)).extra, copy.deepcopy(claims.extra)):
        assert copied == plain
        copied["roles"].append("more")  # a copy belongs to whoever made it
    assert copy.copy(claims.extra) | {"a": 1} == {**plain, "a": 1}
    assert pickle.loads(pickle.dumps(claims)) == claims


@pytest.fixture
def now() -> list[float]:
    return [1000.0]


@pytest.fixture
def sessions(now: list[float]) -> Sessions:
    return Sessions(MemorySessionStore(), clock=lambda: now[0])


def twin(token: str) -> str:
    """The same token with the other of the two signatures that ECDSA has for it."""
    head, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    other = raw[:32] + (P256_ORDER - int.from_bytes(raw[32:])).to_bytes(32)
    return f"{head}.{base64.urlsafe_b64encode(other).rstrip(b'=').decode()}"


def test_an_es256_token_has_one_text() -> None:
    store = MemorySessionStore()
    run_sync(store.save_keys([new_signing_key("ES256", 0.0, 0.0), new_mac_key(1, 0.0, 0.0)]))
    sessions: Any = Sessions(store)
    for _ in range(8):  # half of all signatures would come out the other way
        token = sessions.create("ada").access_token
        assert sessions.verify(token)
        with pytest.raises(InvalidToken) as caught:
            sessions.verify(twin(token))
        assert caught.value.reason == "malformed"
