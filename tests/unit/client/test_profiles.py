"""``Session.open``: the session of a profile, from Python, and what it says when that is not possible.

Modules: client/profile_session.py.
"""

from __future__ import annotations

import json
import os
import pickle
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest

from unbroken import ConfigurationError, FileStore, InvalidRequest, MemoryStore, Session, SessionOver, Tokens
from unbroken.client.profile_session import ProfileSession
from unbroken.client.profiles import (
    Profile,
    ProfileStore,
    delete_profile,
    find_profile,
    profile_names,
    save_profile,
    token_store,
)
from unbroken.client.stores.codec import new_key

URL = "https://api.example.com"
TOKENS = Tokens("an-access-token", "a-refresh-token", expires_in=3600.0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("UNBROKEN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("UNBROKEN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def logged_in(name: str = "api", **fields: object) -> Profile:
    profile = Profile(name=name, url=URL, user="ada", **fields)  # type: ignore[arg-type]
    save_profile(profile)
    ProfileSession(profile, token_store(name, profile.store)).import_tokens(TOKENS)
    return profile


def test_a_profile_is_opened_by_its_name(folder: Path) -> None:
    logged_in(origins=("https://files.example.com",))
    session = Session.open("api")
    assert session.token() == "an-access-token"
    assert {str(origin) for origin in session.origins} == {URL, "https://files.example.com"}
    assert isinstance(session.store, ProfileStore)
    assert isinstance(session.store.inner, FileStore)
    assert session.store.inner.path == folder.resolve() / "api.tokens.json"


def test_the_settings_of_a_session_are_those_of_open(folder: Path) -> None:
    logged_in()
    events: list[object] = []
    session = Session.open("api", on_event=events.append, wait_timeout=3.0)
    session.import_tokens(TOKENS)
    assert events
    for name in ("store", "dialect", "origins", "allow_plain_http"):
        with pytest.raises(ConfigurationError, match=f"takes no {name}: `unbroken login` has decided it"):
            Session.open("api", **{name: MemoryStore()})


def test_an_unknown_name_is_answered_with_the_nearest(folder: Path) -> None:
    with pytest.raises(InvalidRequest, match="make one with `unbroken login URL --as NAME`"):
        Session.open("apu")
    logged_in("api")
    logged_in("work")
    with pytest.raises(InvalidRequest, match=r"no session of that name; did you mean api\? known are: api, work"):
        Session.open("apu")
    with pytest.raises(InvalidRequest) as refused:
        Session.open("eyJhbGciOiJIUzI1NiJ9-secret")
    assert "secret" not in str(refused.value)
    assert "did you mean" not in str(refused.value)
    with pytest.raises(InvalidRequest, match="the name of a session has"):
        Session.open("../api")


def test_a_name_that_is_no_text_is_refused(folder: Path) -> None:
    for name in (None, 1, b"api"):
        with pytest.raises(ConfigurationError, match=f"name must be a text, not {type(name).__name__}"):
            Session.open(name)  # type: ignore[arg-type]  # the mistake


def test_no_one_logged_in_says_which_command_logs_in(folder: Path) -> None:
    save_profile(Profile(name="api", url=URL, user="ada"))
    with pytest.raises(SessionOver, match=f"run `unbroken login {URL} --as api --user ada`") as over:
        Session.open("api")
    assert over.value.reason == "not_logged_in"


def test_a_session_that_ends_later_says_so_too(folder: Path) -> None:
    logged_in()
    session = Session.open("api")
    Session.open("api").store.save(*reversed((session.store.load(), ended(session))))
    expired = session.token  # the tokens of this process are still good
    assert expired() == "an-access-token"
    with pytest.raises(SessionOver, match="run `unbroken login"):
        session.newer_token("an-access-token")


def ended(session: Session) -> object:
    from dataclasses import replace

    return replace(session.store.load(), tokens=None, over="revoked")


def test_a_damaged_profile_is_named(folder: Path) -> None:
    logged_in()
    file = folder / "api.json"
    for text in ("{", "[]", '{"unbroken": 1, "url": 5}', '{"unbroken": 1, "url": "x", "store": "cloud"}', "\udcff"):
        file.write_text(text, errors="surrogateescape")
        with pytest.raises(ConfigurationError, match=rf"{file} is damaged, or is no profile: move it away"):
            Session.open("api")
    file.write_text(json.dumps({"unbroken": 2}))
    with pytest.raises(ConfigurationError, match="newer version of unbroken"):
        Session.open("api")


def test_wrong_permissions_are_refused_with_the_command_that_mends_them(folder: Path) -> None:
    logged_in()
    folder.chmod(0o770)
    with pytest.raises(ConfigurationError, match=r"other users may write to .*: run `chmod 700"):
        Session.open("api")
    folder.chmod(0o700)
    (folder / "api.json").chmod(0o666)
    with pytest.raises(ConfigurationError, match="run `chmod 600"):
        Session.open("api")
    (folder / "api.json").chmod(0o600)
    (folder / "api.tokens.json").chmod(0o666)
    with pytest.raises(ConfigurationError, match="run `chmod 600"):
        Session.open("api")


def test_a_session_of_a_profile_goes_to_another_process_with_its_profile(folder: Path) -> None:
    logged_in(origins=("https://files.example.com",))
    twin = pickle.loads(pickle.dumps(Session.open("api", wait_timeout=3.0)))
    assert (twin.token(), len(twin.origins), twin._wait_seconds) == ("an-access-token", 2, 3.0)


# ---- where the tokens are --------------------------------------------------------------------------------------------


def test_an_encrypted_profile_needs_its_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNBROKEN_STORE_KEY", new_key())
    logged_in(store="encrypted")
    assert b"refresh-token" not in (folder / "api.tokens.json").read_bytes()
    assert Session.open("api").token() == "an-access-token"
    monkeypatch.setenv("UNBROKEN_STORE_KEY", new_key())
    with pytest.raises(ConfigurationError, match="encrypted with another key"):
        Session.open("api")
    monkeypatch.delenv("UNBROKEN_STORE_KEY")
    with pytest.raises(ConfigurationError, match="UNBROKEN_STORE_KEY"):
        Session.open("api")


@pytest.fixture
def secrets(tmp_path: Path) -> Iterator[None]:
    from keyrings.alt.file import PlaintextKeyring

    before, used = keyring.get_keyring(), PlaintextKeyring()
    used.file_path = str(tmp_path / "secrets.cfg")
    keyring.set_keyring(used)
    yield
    keyring.set_keyring(before)


def test_a_profile_in_the_keyring(folder: Path, secrets: None) -> None:
    logged_in(store="keyring")
    assert Session.open("api").token() == "an-access-token"
    assert not (folder / "api.tokens.json").exists()
    assert stat.S_IMODE((folder / "locks").stat().st_mode) == 0o700
    delete_profile("api")
    assert profile_names() == []
    assert keyring.get_password("unbroken", "api") is None


# ---- what it costs ---------------------------------------------------------------------------------------------------


def test_opening_a_profile_needs_the_standard_library_only(folder: Path) -> None:
    logged_in()
    code = (
        "import sys, unbroken; unbroken.Session.open('api').token();"
        "print({n.partition('.')[0] for n in sys.modules} & {'click', 'cryptography', 'keyring', 'httpx2'})"
    )
    environment = {**os.environ, "UNBROKEN_HOME": str(folder)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)
    assert done.stdout == "set()\n", done.stderr


def test_a_profile_that_was_found_is_the_one_that_was_saved(folder: Path) -> None:
    saved = logged_in(origins=("https://files.example.com",), client_secret="hush", kind="oauth2", token_endpoint=URL)
    assert find_profile("api") == saved
    assert "hush" not in repr(saved)
