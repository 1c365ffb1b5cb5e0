"""The errors: stable codes, copies, and no secrets."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest

from unbroken import (
    BadResponse,
    ConfigurationError,
    LoginRefused,
    NotReplayable,
    Session,
    SessionOver,
    TryLater,
    UnbrokenError,
)
from unbroken import errors as errors_module
from unbroken.client.stores.postgres import PostgresStore
from unbroken.client.stores.redis import RedisStore


def every_error() -> list[Any]:
    return [cls for cls in vars(errors_module).values() if isinstance(cls, type) and issubclass(cls, UnbrokenError)]


def test_codes_are_stable_and_documented() -> None:
    tree = errors_module.__doc__ or ""
    for cls in every_error():
        assert cls.__name__ in tree
        if cls not in (UnbrokenError, errors_module.Refused):
            assert cls.code in tree


@pytest.mark.parametrize(
    "error",
    [
        SessionOver("reuse"),
        TryLater("later", retry_after=3),
        NotReplayable("x"),
        LoginRefused("no"),
        BadResponse("b", field="f"),
    ],
)
def test_errors_can_be_copied_for_each_waiter_and_sent_to_other_processes(error: UnbrokenError) -> None:
    for twin in (error.copy(), pickle.loads(pickle.dumps(error))):
        assert twin is not error
        assert type(twin) is type(error)
        assert (str(twin), vars(twin)) == (str(error), vars(error))


def test_a_body_that_could_not_be_sent_again_says_whether_the_session_is_refreshed() -> None:
    assert "make it anew" in str(NotReplayable("spent"))
    assert "could not be refreshed" in str(NotReplayable("spent", refreshed=False))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Session("https://ada:hush@api.example:99999"),
        lambda: RedisStore("redis://:hush/hush@host/0"),
        lambda: PostgresStore("postgres:/ada:hush@host/db"),
        lambda: PostgresStore("host=h password=hush hush"),
    ],
    ids=["dialect", "redis", "postgres", "postgres words"],
)
def test_a_wrong_url_is_refused_and_its_password_is_nowhere(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    told = str(caught.value) + str(caught.value.__cause__)
    assert "hush" not in told
