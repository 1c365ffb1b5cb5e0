"""What a User-Agent header says: a name for people, and the text that a row stores."""

from __future__ import annotations

import pytest

from unbroken.server.core.user_agent import MAX_USER_AGENT_CHARS, compact_user_agent, device_name

WINDOWS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
)
NAMES = {
    WINDOWS: "Chrome on Windows",
    f"{WINDOWS} Edg/142.0.0.0": "Edge on Windows",
    "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0": "Firefox on Linux",
    "Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 Chrome/142.0.0.0 Mobile Safari/537.36": "Chrome on Android",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Mobile Safari/604.1": "Safari on iPhone",
    "curl/8.5.0": "curl",
    "python-httpx2/0.1 (Linux)": "python-httpx2",
    "": "",
}


@pytest.mark.parametrize(("header", "name"), NAMES.items(), ids=NAMES.values())
def test_a_device_has_a_name_without_versions(header: str, name: str) -> None:
    assert device_name(header) == name


@pytest.mark.parametrize("header", NAMES, ids=NAMES.values())
def test_the_stored_text_names_the_same_device(header: str) -> None:
    assert device_name(compact_user_agent(header)) == device_name(header)


def test_a_browser_is_stored_short_and_another_program_is_cut() -> None:
    assert compact_user_agent(WINDOWS) == "Chrome/142 (Windows)"
    assert len(compact_user_agent("x" * 10_000)) == MAX_USER_AGENT_CHARS
