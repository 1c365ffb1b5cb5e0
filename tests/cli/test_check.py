"""``unbroken check``: every problem is one line with a stable word, and what is right is not complained of."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import unbroken.cli.check as checking
from tests.support.services import Service, free_port
from unbroken._concurrency import run_sync
from unbroken.cli import check as check_store
from unbroken.cli.app import run
from unbroken.cli.check import _check_proxy
from unbroken.cli.settings import Settings
from unbroken.server import open_store
from unbroken.server.stores.encrypted_keys import new_key

Check = Callable[..., tuple[int, list[str]]]
RIGHT = """
issuer = "https://localhost.example"
forwarded_allow_ips = ["127.0.0.1"]
"""


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    for name in [name for name in os.environ if name.startswith("UNBROKEN_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checking, "_has_address", lambda host: host.endswith(".example"))

    def asked(toml: str = "", *words: str, **environment: str) -> tuple[int, list[str]]:
        (tmp_path / "unbroken.toml").write_text(toml)
        for name, text in environment.items():
            monkeypatch.setenv(name, text)
        status = run(["check", *words])
        said = capsys.readouterr()
        assert said.err == "", said.err
        return status, said.out.splitlines()

    return asked


def test_nothing_is_wrong_on_ones_own_machine(check: Check) -> None:
    assert check() == (0, ["no problems with unbroken.toml"])
    assert check("", "--json")[0] == 0


def test_nothing_is_wrong_in_production_as_the_guide_describes_it(check: Check) -> None:
    assert check(RIGHT, UNBROKEN_ENCRYPTION_KEY=new_key())[1] == ["no problems with unbroken.toml"]


PROBLEMS: dict[str, tuple[str, str, str]] = {
    "an unknown name": ("prot = 1", "settings", "did you mean port?"),
    "a contradiction": ('issuer = "x"', "settings", "issuer must be a URL"),
    "memory for several": ('store = "memory:"\nworkers = 2', "settings", "cannot share memory"),
    "a store that is none": ('store = "mysql://h/d"', "store", "unknown store"),
    "a folder that is missing": ('store = "sqlite:////no/such/x.db"', "store", "does not exist"),
    "no issuer": ('host = "0.0.0.0"', "issuer", "there is no issuer"),
    "an issuer in the clear": ('host = "0.0.0.0"\nissuer = "http://a.example"', "issuer", "not https"),
    "an issuer nobody reaches": ('issuer = "https://localhost"', "issuer", "is this machine"),
    "an issuer without an address": ('issuer = "https://id.nowhere"', "issuer-name", "has no address"),
    "cookies in the clear": ('host = "0.0.0.0"\n[cookies]\nmode = "both"', "cookies", "need https"),
    "cookies that are not secure": (RIGHT + '[cookies]\nmode = "both"\nsecure = false', "cookies", "not secure"),
    "no proxy": ('issuer = "https://a.example"', "proxy", "forwarded_allow_ips is not set"),
    "any proxy": ('host = "0.0.0.0"\nforwarded_allow_ips = "*"', "proxy", "can choose the address"),
    "a proxy that is none": ('forwarded_allow_ips = ["nginx"]', "proxy", "neither an address nor a network"),
    "no rate limit": (RIGHT + "[rate_limit]\nenabled = false", "rate-limit", "the rate limit is off"),
    "memory in production": (RIGHT + 'store = "memory:"', "memory", "when this process ends"),
}


@pytest.mark.parametrize(("toml", "code", "says"), PROBLEMS.values(), ids=PROBLEMS)
def test_check_prints_each_problem_as_one_line(check: Check, toml: str, code: str, says: str) -> None:
    status, lines = check(toml)
    assert status == 1
    [line] = [line for line in lines if line.startswith(f"{code}: ")]
    assert says in line


def test_all_problems_are_told_at_once_except_silenced_ones(check: Check) -> None:
    toml = 'host = "0.0.0.0"\nforwarded_allow_ips = ["*"]\nprot = 1\n[rate_limit]\nenabled = false'
    status, lines = check(toml)
    codes = [line.partition(":")[0] for line in lines]
    assert (status, sorted(codes)) == (1, ["issuer", "proxy", "rate-limit", "settings"])
    assert check(toml, "--ignore", "rate-limit,issuer proxy,settings")[0] == 0
    told = json.loads("\n".join(check(toml, "--json")[1]))
    assert told["ok"] is False
    assert [one["code"] for one in told["problems"]] == codes
    assert told["file"] == "unbroken.toml"


def test_a_variable_that_is_misspelled_is_told(check: Check) -> None:
    status, [line] = check("", UNBROKEN_ACESS_TTL="5m", UNBROKEN_HOME="/x", UNBROKEN_STORE_KEY="x", UNBROKEN_TOKEN="x")
    assert (status, line) == (1, "settings: UNBROKEN_ACESS_TTL is not a setting: did you mean UNBROKEN_ACCESS_TTL?")


def test_an_unknown_code_is_refused(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "--ignore", "everything"]) == 2
    assert "there is no code 'everything'" in capsys.readouterr().err


def test_files_with_secrets_are_for_their_owner_alone(check: Check, tmp_path: Path) -> None:
    key = tmp_path / "encryption-key"
    key.write_text(new_key())
    key.chmod(0o644)
    [line] = [
        line for line in check(RIGHT + 'encryption_key_file = "encryption-key"')[1] if line.startswith("permissions: ")
    ]
    assert line.endswith("chmod 600 encryption-key")
    key.chmod(0o600)
    assert check(RIGHT + 'encryption_key_file = "encryption-key"')[0] == 0
    os.chmod(tmp_path / "unbroken.toml", 0o666)
    assert check(RIGHT + 'encryption_key_file = "encryption-key"')[1] == [
        "permissions: other users may change unbroken.toml: chmod go-w unbroken.toml"
    ]
    (tmp_path / "unbroken.toml").chmod(0o644)
    assert "permissions: unbroken.toml contains secrets" in "\n".join(
        check(RIGHT + f'store = "redis://:hunter2@127.0.0.1:{free_port()}/0"')[1]
    )


def test_no_line_repeats_a_password(check: Check) -> None:
    port = free_port()
    for url in (f"postgresql://u:hunter2@127.0.0.1:{port}/d", f"redis://:hunter2@127.0.0.1:{port}/0"):
        status, lines = check(RIGHT + f'store = "{url}"', UNBROKEN_ENCRYPTION_KEY="none")
        assert status == 1
        assert [line for line in lines if line.startswith("store: ")], lines
        assert "hunter2" not in str(lines)


def test_a_store_on_a_server_needs_a_key_and_a_file_has_one(check: Check, tmp_path: Path) -> None:
    status, [line] = check(RIGHT + f'store = "redis://127.0.0.1:{free_port()}/0"')
    assert (status, line.partition(":")[0]) == (1, "settings")
    assert "set encryption_key" in line
    assert check(RIGHT)[0] == 0
    assert not (tmp_path / "unbroken.db.key").exists(), "a check changes nothing"
    assert run(["keys", "list"]) == 0
    assert check(RIGHT)[0] == 0
    (tmp_path / "unbroken.db.key").chmod(0o640)
    status, lines = check(RIGHT)
    assert [line.partition(":")[0] for line in lines] == ["permissions", "store"]
    (tmp_path / "unbroken.db.key").rename(tmp_path / "lost")
    status, [line] = check(RIGHT)
    assert "or restore" in line


def test_encrypted_keys_that_cannot_be_decrypted_are_told(check: Check) -> None:
    [right, other] = new_key(), new_key()
    assert check(RIGHT, UNBROKEN_ENCRYPTION_KEY=right)[0] == 0
    assert run(["keys", "list"]) == 0
    assert check(RIGHT)[1][-1] == "no problems with unbroken.toml"
    for key, says in ((other, "was encrypted with another encryption key"), ("", "are encrypted: set encryption_key")):
        status, [line] = check(RIGHT, UNBROKEN_ENCRYPTION_KEY=key)
        assert (status, line.partition(":")[0]) == (1, "store")
        assert says in line


def test_tables_of_a_newer_unbroken_are_told(check: Check, tmp_path: Path) -> None:
    assert check()[0] == 0
    with sqlite3.connect(tmp_path / "unbroken.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    status, [line] = check()
    assert status == 1
    assert line.startswith("schema: the tables have schema 99")
    assert line.endswith("upgrade unbroken")


def problems(store: Any) -> dict[str, str]:
    return {one.code: one.message for one in check_store.store_problems(store, Settings())}


def test_a_redis_that_forgets_is_told(redis: Service) -> None:
    store: Any = open_store(redis.url)
    assert problems(store) == {}
    for setting, before, wrong, code in (
        ("appendonly", "yes", "no", "durability"),
        ("appendfsync", "everysec", "no", "durability"),
        ("maxmemory-policy", "noeviction", "allkeys-lru", "eviction"),
    ):
        run_sync(store._execute("CONFIG", "SET", "maxmemory", "1gb"))
        run_sync(store._execute("CONFIG", "SET", setting, wrong))
        try:
            assert list(problems(store)) == [code]
        finally:
            run_sync(store._execute("CONFIG", "SET", setting, before))
            run_sync(store._execute("CONFIG", "SET", "maxmemory", "0"))
    assert problems(store) == {}
    store.close()


@pytest.fixture
def setting(postgres: Service) -> Iterator[Callable[[str], None]]:
    import psycopg

    with psycopg.connect(postgres.url, autocommit=True) as connection:

        def change(statement: str) -> None:
            connection.execute(statement)
            connection.execute("SELECT pg_reload_conf()")
            time.sleep(0.2)  # the processes of the server read their file when they get around to it

        yield change
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            change(f"ALTER SYSTEM RESET {name}")


def test_a_postgresql_that_forgets_is_told(postgres: Service, setting: Callable[[str], None]) -> None:
    for name in ("fsync", "synchronous_commit", "full_page_writes"):
        setting(f"ALTER SYSTEM SET {name} = off")
        ends, found = time.monotonic() + 20, {}
        while not found and time.monotonic() < ends:
            store = open_store(postgres.url)
            found = problems(store)
            store.close()
        assert list(found) == ["durability"], name
        assert name in found["durability"]
        setting(f"ALTER SYSTEM RESET {name}")


def test_check_reports_clocks_that_differ(redis: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    store: Any = open_store(redis.url)
    now = time.time
    for off, words in ((-60.0, "60 s ahead of"), (60.0, "60 s behind")):
        monkeypatch.setattr(time, "time", lambda off=off: now() + off)
        assert words in problems(store)["clock"]
    monkeypatch.setattr(time, "time", now)
    assert "clock" not in problems(store)
    store.close()


def test_check_warns_of_clients_that_say_from_where_they_come_behind_a_local_proxy_too() -> None:
    told = list(_check_proxy(Settings(host="127.0.0.1", issuer="https://id.example.com", forwarded_allow_ips=("*",))))
    assert [problem.code for problem in told] == ["proxy"]
