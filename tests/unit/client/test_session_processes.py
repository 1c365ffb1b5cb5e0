"""A session in forked children, and in other processes by pickle."""

from __future__ import annotations

import os
import pickle
import threading
import time
from pathlib import Path

import pytest

from tests.support.processes import result_of_fork
from tests.support.token_endpoint import URL, TokenEndpoint, logged_in_at
from unbroken import FileStore, Session, TryLater
from unbroken.testing import ManualClock


def told(session: Session) -> str:
    try:
        return session.token()
    except TryLater as error:
        return str(error)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # a fork beside threads is what is tested
def test_a_child_uses_its_parents_token_but_does_not_spend_its_refresh_token(
    endpoint: TokenEndpoint, clock: ManualClock
) -> None:
    session = logged_in_at(endpoint, clock)
    assert result_of_fork(session.token) == "A1"
    clock.advance(1800)
    assert "FileStore" in result_of_fork(lambda: told(session))
    assert session.token() == "A2"
    assert result_of_fork(lambda: session.login("ada", "pw") and session.token()) == "A3"


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_in_the_middle_of_a_refresh_frees_all_locks(
    endpoint: TokenEndpoint, clock: ManualClock, tmp_path: Path
) -> None:
    store = FileStore(tmp_path / "tokens.json")
    session = logged_in_at(endpoint, clock, store)
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with store.lock(5):
            inside.set()
            leave.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(5)
    child = os.fork()
    if child == 0:  # lives on, and holds a copy of every descriptor that it did not let go of
        time.sleep(10)
        os._exit(0)
    try:
        leave.set()
        holder.join()
        clock.advance(1800)
        began = time.monotonic()
        assert session.token() == "A2"
        assert time.monotonic() - began < 5
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_a_session_over_a_file_can_be_pickled_and_one_in_memory_says_why_not(tmp_path: Path) -> None:
    session = Session("http://127.0.0.1:9", FileStore(tmp_path / "t.json"), origins=["http://127.0.0.1:10"])
    session.import_tokens({"access_token": "A", "expires_in": 60})
    again = pickle.loads(pickle.dumps(session))
    assert again.token() == "A"
    assert again.origins == session.origins
    with pytest.raises(TypeError, match="FileStore"):
        pickle.dumps(Session(URL))
