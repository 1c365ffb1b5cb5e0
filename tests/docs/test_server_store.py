"""The page about server stores: its example is used as it says. The contract suite runs with the same store."""

from __future__ import annotations

from pathlib import Path

from tests.docs.pages import page, run


def test_the_examples_of_the_server_store_page_run(tmp_path: Path) -> None:
    done = run(page("extend/server-store.md"), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "sessions.pickle").exists()
