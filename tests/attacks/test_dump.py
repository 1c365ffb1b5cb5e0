"""A copy of the database, without the key that encrypts it: nothing can be made from it, in each store by default."""

from __future__ import annotations

import hmac
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.attacks import Attacks
from tests.support.commands import unbroken
from tests.support.services import new_store
from unbroken._base64 import encode
from unbroken._concurrency import run_sync
from unbroken.errors import ConfigurationError, InvalidGrant, InvalidToken, LoginRefused
from unbroken.server import Keyring, MemorySessionStore, Sessions, open_store
from unbroken.server.core.refresh_token import RefreshToken
from unbroken.server.core.rotation import Generation
from unbroken.server.core.scope import TokenScope
from unbroken.server.core.session_info import NewSession
from unbroken.server.grants.tickets import TICKET_TOKEN
from unbroken.server.keys.access_token import fixed_claims, sign
from unbroken.server.keys.keyring import KeyRecord
from unbroken.server.login.authenticator import MfaRequired
from unbroken.server.login.mfa import MFA_TOKEN, MfaTokens
from unbroken.server.stores import SessionStore
from unbroken.server.stores.encrypted_keys import new_key

URL = "https://id.example.com"


@pytest.fixture(params=["sqlite", "postgres", "redis"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Sessions, SessionStore]]:
    """A server as its operator starts it, and the store as a thief of its database sees it."""
    if request.param == "sqlite":
        url, key = f"sqlite:///{tmp_path}/app.db", None
    elif request.param == "postgres":
        url, key = request.getfixturevalue("database"), new_key()
    else:
        url, key = new_store(request.getfixturevalue("redis")), new_key()
    with Sessions(url, issuer=URL, audience="shop", encryption_key=key) as sessions:
        dump = open_store(url)
        yield sessions, dump
        dump.close()


def guesses(record: KeyRecord) -> list[bytes]:
    """What a thief may take for the secret of a key."""
    text = record.secret
    return [text.encode(), text.partition(":")[2].encode(), record.kid.encode(), b""]


def test_no_token_can_be_made_from_a_dump(
    stored: tuple[Sessions, SessionStore], attacks: Attacks, size: Callable[[int, int], int]
) -> None:
    sessions, dump = stored
    granted = sessions.create("ada")
    ticket = sessions.ticket(granted.access_token)
    pending = run_sync(MfaTokens(sessions).issue(MfaRequired("ada"), b"", b"", NewSession()))
    records = run_sync(dump.keys())
    assert {record.use for record in records} == {"sign", "mac"}
    rows = str(run_sync(dump.sessions()))
    for secret in (granted.access_token, granted.refresh_token or "", ticket.text, pending):
        assert secret not in rows
    for record in records:
        attacks.try_one()
        assert record.is_encrypted
        with pytest.raises(ConfigurationError, match="are encrypted"):
            Keyring([record])
    [row] = run_sync(dump.sessions("ada"))
    now = sessions.clock()
    macs = [record for record in records if record.use == "mac"]
    for record in macs:
        for guess in guesses(record):
            forged = RefreshToken(row.key[:16], row.generation, row.branch).encode(int(record.kid), guess)
            attacks.try_one()
            with pytest.raises(InvalidGrant):
                sessions.refresh(forged)
            for purpose, read in (
                (TICKET_TOKEN, sessions.redeem),
                (MFA_TOKEN, lambda t: run_sync(MfaTokens(sessions).read(t))),
            ):
                claims = {
                    "iss": URL,
                    "aud": "shop",
                    "iat": now,
                    "exp": now + 20,
                    "sub": "ada",
                    "kind": "totp",
                    "jti": "x",
                }
                attacks.try_one()
                with pytest.raises((InvalidToken, LoginRefused)):
                    read(purpose_token(purpose, claims, record.kid, guess))
    [signing] = [record for record in records if record.use == "sign"]
    for guess in guesses(signing):
        header = {"alg": "HS256", "typ": "at+jwt", "kid": signing.kid}
        message = ".".join(encode(json.dumps(part).encode()) for part in (header, {"sub": "ada", "iss": URL}))
        attacks.try_one()
        with pytest.raises(InvalidToken):
            sessions.verify(f"{message}.{encode(hmac.digest(guess or b'-', message.encode(), 'sha256'))}")
    assert sessions.refresh(granted.refresh_token or "").refresh_seq == 1


def purpose_token(purpose: Any, claims: dict[str, Any], kid: str, mac_secret: bytes) -> str:
    header = {"alg": "HS256", "typ": purpose.typ, "kid": kid}
    message = ".".join(encode(json.dumps(part).encode()) for part in (header, claims))
    return f"{message}.{encode(hmac.digest(purpose.key(mac_secret or b'-').raw_value, message.encode(), 'sha256'))}"


@pytest.mark.parametrize("kind", ["postgres", "redis"])
def test_a_store_on_a_server_without_a_key_is_refused(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, attacks: Attacks
) -> None:
    url = new_store(request.getfixturevalue(kind))
    monkeypatch.delenv("UNBROKEN_ENCRYPTION_KEY")
    attacks.try_one()
    with pytest.raises(ConfigurationError, match="set encryption_key"):
        Sessions(url)
    store = open_store(url)
    attacks.try_one()
    with pytest.raises(ConfigurationError, match="set encryption_key"):
        Sessions(store)
    assert run_sync(store.keys()) == []
    Sessions(store, encryption_key="none").create("ada")  # an explicit choice
    assert not any(record.is_encrypted for record in run_sync(store.keys()))
    store.close()


def test_the_keys_alone_make_no_refresh_token(attacks: Attacks) -> None:
    """Even where the operator chose plain keys: what a thief makes ends with the access token that he makes."""
    store = MemorySessionStore()
    sessions = Sessions(store, issuer=URL, audience="shop")
    sessions.create("ada")
    now, [row] = sessions.clock(), run_sync(store.sessions("ada"))
    keyring = Keyring(run_sync(store.keys()))
    stolen = sign(
        fixed_claims(row, URL, "shop"), TokenScope("", True), Generation(0, 0), now, 60.0, {}, keyring.signer(now)
    )
    assert sessions.verify(stolen).subject == "ada", "that is what plain keys mean"
    tokens = MfaTokens(sessions)
    about = {"client_id": "first-party", "scope": "admin introspect", "label": "", "coordinated": False}
    for kind in ("totp", "recovery", "none"):
        for seconds in (60.0, 300.0, 1e9):
            claims = {"iss": URL, "aud": "shop", "sub": "root", "kind": kind, "iat": now, "exp": now + seconds,
                      "jti": f"{kind}{seconds}", "account": "", "spelling": "", "about": about}  # fmt: skip
            attacks.try_one()
            with pytest.raises(LoginRefused):
                run_sync(tokens.read(MFA_TOKEN.encode(claims, keyring, now)))
    ticket = {"iss": URL, "aud": "shop", "iat": now, "exp": now + 1e9, "jti": "x", "access": {}}
    attacks.try_one()
    with pytest.raises(InvalidToken):
        sessions.redeem(TICKET_TOKEN.encode(ticket, keyring, now))


# ---- the key beside SQLite -------------------------------------------------------------------------------------------


def test_the_first_start_makes_the_key_and_every_later_one_reads_it(tmp_path: Path, attacks: Attacks) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    code = "import sys; from unbroken.server import Sessions; Sessions(sys.argv[1]).keyring()"
    started = [subprocess.Popen([sys.executable, "-c", code, url], stderr=subprocess.PIPE) for _ in range(4)]
    attacks.try_many(len(started))
    assert [(one.communicate()[1], one.returncode) for one in started] == [(b"", 0)] * len(started)
    key = tmp_path / "app.db.key"
    assert oct(key.stat().st_mode & 0o777) == "0o600"
    assert sorted(one.name for one in tmp_path.iterdir() if "key" in one.name) == ["app.db.key"], "no draft is left"
    assert key.read_text().strip() not in (tmp_path / "app.db").read_bytes().decode("latin-1")
    token = Sessions(url).create("ada").refresh_token or ""
    assert Sessions(url).refresh(token).refresh_seq == 1


def link(path: Path) -> None:
    target = path.with_name("elsewhere")
    target.write_text(new_key())
    target.chmod(0o600)
    path.symlink_to(target)


def readable(path: Path) -> None:
    path.write_text(new_key())
    path.chmod(0o640)


def empty(path: Path) -> None:
    path.touch(0o600)


def junk(path: Path) -> None:
    path.write_bytes(b"\xff" * 100)
    path.chmod(0o600)


def pipe(path: Path) -> None:
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize("plant", [link, readable, empty, junk, pipe, Path.mkdir])
def test_a_planted_key_is_not_used(tmp_path: Path, attacks: Attacks, plant: Callable[[Path], None]) -> None:
    plant(tmp_path / "app.db.key")
    attacks.try_one()
    with pytest.raises(ConfigurationError):
        Sessions(f"sqlite:///{tmp_path}/app.db")
    assert run_sync(open_store(f"sqlite:///{tmp_path}/app.db").keys()) == []


def test_a_key_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attacks: Attacks) -> None:
    key = tmp_path / "app.db.key"
    key.write_text(new_key())
    key.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(key, 12345, 12345)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    attacks.try_one()
    with pytest.raises(ConfigurationError, match=r"the encryption key .* belongs to"):
        Sessions(f"sqlite:///{tmp_path}/app.db")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root could be led to use it")
@pytest.mark.parametrize("is_there", [False, True])
def test_root_takes_no_key_of_a_user_who_does_not_own_the_store(
    tmp_path: Path, attacks: Attacks, is_there: bool
) -> None:
    store, key = tmp_path / "app.db", tmp_path / "app.db.key"
    if is_there:
        store.touch(0o600)
    key.write_text(new_key())
    key.chmod(0o600)
    os.chown(key, 12345, 12345)
    attacks.try_one()
    with pytest.raises(ConfigurationError, match=r"the encryption key .* belongs to"):
        Sessions(f"sqlite:///{store}")


def test_a_lost_key_is_not_replaced_by_another(tmp_path: Path, attacks: Attacks) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    token = Sessions(url).create("ada").refresh_token or ""
    key = tmp_path / "app.db.key"
    kept = key.read_text()
    key.unlink()
    attacks.try_one()
    with pytest.raises(ConfigurationError, match=r"or restore .*app\.db\.key"):
        Sessions(url)
    assert not key.exists()
    key.touch(0o600)
    key.write_text(kept)
    assert Sessions(url).refresh(token).refresh_seq == 1


def test_the_commands_leave_no_plain_key(tmp_path: Path, attacks: Attacks) -> None:
    plain = Sessions(open_store(f"sqlite:///{tmp_path}/unbroken.db"), encryption_key="none")
    plain.create("ada")
    attacks.try_one()
    assert unbroken(tmp_path, "keys", "rotate", "--now").returncode == 0
    with sqlite3.connect(tmp_path / "unbroken.db") as db:
        secrets = [secret for (secret,) in db.execute("SELECT secret FROM key")]
    db.close()
    assert len(secrets) == 4
    assert all(secret.startswith("encrypted:") for secret in secrets)
    assert unbroken(tmp_path, "check").returncode == 0
