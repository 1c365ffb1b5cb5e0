"""Settings: flags before the environment, before the file, before the defaults; and one clear line for a mistake."""

from __future__ import annotations

import dataclasses
import inspect
import os
import pickle
import tomllib
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route

from tests.support.paths import ROOT
from unbroken.cli.application import application
from unbroken.cli.build import build_policy, build_proofs, conflicts, endpoint_options
from unbroken.cli.options import environment_variable
from unbroken.cli.settings import Settings, SettingsResult, read_settings, setting_definitions, valid_settings
from unbroken.errors import ConfigurationError
from unbroken.server import Cookies, Policy, ProofPolicy, RateLimitPolicy, Sessions
from unbroken.server.http.settings import EndpointSettings
from unbroken.server.stores import redact_url
from unbroken.server.stores.encrypted_keys import new_key


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("UNBROKEN_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(toml: str = "", flags: dict[str, Any] | None = None, **environment: str) -> SettingsResult:
    Path("unbroken.toml").write_text(toml)
    return read_settings(flags or {}, environment)


def test_a_flag_goes_before_the_environment_before_the_file_before_the_default(folder: Path) -> None:
    toml = 'audience = "file"\nissuer = "https://file.example"\nhost = "::1"\n'
    found = read(toml, {"audience": "flag"}, UNBROKEN_AUDIENCE="env", UNBROKEN_ISSUER="https://env.example")
    settings = valid_settings(found)
    assert (settings.audience, settings.issuer, settings.host, settings.port) == (
        "flag", "https://env.example", "::1", 8400,
    )  # fmt: skip
    assert found.file == Path("unbroken.toml")


def test_the_same_value_is_read_from_everywhere(folder: Path) -> None:
    texts = {
        "store": "memory:", "port": "9", "access_ttl": "30m", "password_grant": "true", "origins": "https://a.x https://b.x",
        "cookies_mode": "both", "cookies_secure": "no", "rate_limit_account_every": "90s", "log_format": "json",
    }  # fmt: skip
    toml = """
        store = "memory:"
        port = 9
        access_ttl = 1800
        password_grant = true
        origins = ["https://a.x", "https://b.x"]
        log_format = "json"
        [cookies]
        mode = "both"
        secure = false
        [rate_limit]
        account_every = 90.0
    """
    by_flags = valid_settings(read(flags=texts))
    by_environment = valid_settings(read(**{environment_variable(name): text for name, text in texts.items()}))
    assert by_flags == by_environment == valid_settings(read(toml))
    assert by_flags.access_ttl == 1800.0
    assert by_flags.origins == ("https://a.x", "https://b.x")
    assert by_flags.cookies_secure is False


def test_every_setting_has_a_kind_that_reads_its_default(folder: Path) -> None:
    for name, setting in setting_definitions().items():
        if setting.type.parse_text and isinstance(setting.default, (str, int)) and setting.default != "":
            assert setting.type.parse_text(str(setting.default).lower()) in (
                setting.default,
                str(setting.default).lower(),
            )
        assert setting.help, name


def test_an_empty_variable_counts_as_none(folder: Path) -> None:
    assert valid_settings(read('audience = "file"', UNBROKEN_AUDIENCE="")).audience == "file"


def test_a_file_that_is_named_must_be_there(folder: Path) -> None:
    assert read_settings({}, {}).file is None
    for found in (read_settings({}, {}, "other.toml"), read_settings({}, {"UNBROKEN_CONFIG": "other.toml"})):
        assert found.problems == ("other.toml cannot be read: No such file or directory",)


MISTAKES = {
    "an unknown name": ("prot = 1", "unbroken.toml: prot is not a setting: did you mean port?"),
    "a name of nothing": ("zzz = 1", "unbroken.toml: zzz is not a setting"),
    "an unknown name in a table": ('[cookies]\nmod = "x"', "cookies.mod is not a setting: did you mean cookies.mode?"),
    "a table's name outside of it": ('cookies_mode = "x"', "cookies_mode is not a setting: did you mean cookies.mode?"),
    "a secret": (
        'encryption_key = "x"',
        "does not belong in this file: set UNBROKEN_ENCRYPTION_KEY, or encryption_key_file",
    ),
    "a text for a number": ('port = "x"', "unbroken.toml: port must be a whole number"),
    "a flag for a number": ("port = true", "port must be a whole number"),
    "a number too large": ("port = 70000", "port must be between 0 and 65535"),
    "a number for a text": ("audience = 5", "audience must be a string"),
    "a text for a flag": ('password_grant = "yes"', "password_grant must be true or false"),
    "a wrong duration": ('grace = "5x"', "grace is not a duration"),
    "a list for a duration": ("grace = []", "grace must be a duration"),
    "a wrong choice": ('log_format = "xml"', "log_format must be one of text, json"),
    "a list of numbers": ("origins = [1]", "origins must be a list of strings"),
    "a table for a text": ("[store]\nurl = 1", "store must be a string"),
    "no table": ("scopes = 1", "scopes must be a table"),
    "no TOML": ("port = ", "unbroken.toml is not valid TOML"),
}


@pytest.mark.parametrize(("toml", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_file_is_named_with_its_key(folder: Path, toml: str, says: str) -> None:
    found = read(toml)
    assert len(found.problems) == 1
    assert says in found.problems[0]
    assert found.problems[0].startswith("unbroken.toml")
    with pytest.raises(ConfigurationError, match="unbroken"):
        valid_settings(found)


def test_all_mistakes_are_found_at_once_and_say_where_they_stand(folder: Path) -> None:
    found = read("prot = 1\nworkers = 0", {"grace": "x"}, UNBROKEN_PORT="y", UNBROKEN_ACCESS_LOG="maybe")
    assert sorted(line.split()[0] for line in found.problems) == [
        "--grace", "UNBROKEN_ACCESS_LOG", "UNBROKEN_PORT", "unbroken.toml:", "unbroken.toml:",
    ]  # fmt: skip
    with pytest.raises(ConfigurationError, match=r"and 4 more: see `unbroken check`"):
        valid_settings(found)


def test_no_mistake_repeats_what_may_be_a_secret(folder: Path) -> None:
    found = read("", {"port": "hunter2"}, UNBROKEN_WORKERS="hunter2", UNBROKEN_GRACE="hunter2")
    assert len(found.problems) == 3
    assert "hunter2" not in str(found.problems)


def test_bytes_that_are_no_utf8_are_refused(folder: Path) -> None:
    Path("unbroken.toml").write_bytes(b'audience = "\xff"')
    assert read_settings({}, {}).problems == ("unbroken.toml is not valid UTF-8",)


def test_the_settings_show_no_secret_and_go_to_other_processes(folder: Path) -> None:
    settings = Settings(store="postgresql://u:hunter2@h/d", encryption_key=("hunter2",), webhook_secret="hunter2")
    assert "hunter2" not in repr(settings)
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert redact_url(settings.store) == "postgresql://h/d"
    for url in ("redis://:hunter2@h:1/0", "host=h password=hunter2", "postgresql://h/d?password=hunter2"):
        assert "hunter2" not in redact_url(url)


CONTRADICTIONS = {
    "no time": ({"access_ttl": 0.0}, "above zero"),
    "memory for several": ({"store": "memory:", "workers": 2}, "cannot share memory"),
    "an issuer that is none": ({"issuer": "id.example.com"}, "issuer must be a URL"),
    "an issuer with a query": ({"issuer": "https://id.example.com?x=1"}, "issuer must be a URL"),
    "a prefix that is no path": ({"prefix": "auth"}, "prefix must be a path"),
    "one port for both": ({"port": 9, "metrics_port": 9}, "must differ"),
    "an encryption key that is none": ({"encryption_key": ("x",)}, "an encryption key is 32 bytes"),
    "an encryption key file that is missing": (
        {"encryption_key_file": "nowhere"},
        "encryption key file nowhere cannot be read",
    ),
    "a cookie for nobody": ({"cookies_mode": "both", "cookies_domain": "x"}, "domain must be a name"),
    "a rate limit without pause": ({"rate_limit_account_every": 0.0}, "account_every must be a positive number"),
    "an origin that is none": ({"origins": ("app.example.com",)}, "is not an origin"),
    "a webhook in the clear": ({"webhook_url": "http://a.example", "webhook_secret": "x" * 24}, "https://"),
    "a webhook without a secret": ({"webhook_url": "https://a.example"}, "secret of a webhook"),
}


@pytest.mark.parametrize(("wrong", "says"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_settings_that_cannot_be_served_together_are_named(folder: Path, wrong: dict[str, Any], says: str) -> None:
    [line] = conflicts(dataclasses.replace(Settings(), **wrong))
    assert says in line


def test_the_settings_of_the_endpoints_arrive_there(folder: Path) -> None:
    toml = """
        default_scope = ["read"]
        prefix = "/id"
        [scopes]
        ada = ["write"]
        [cookies]
        mode = "both"
        same_site = "lax"
        [rate_limit]
        account_burst = 3
    """
    told = endpoint_options(valid_settings(read(toml)))
    scopes_of, cookies, rate_limit = told["scopes_of"], told["cookies"], told["rate_limit"]
    assert scopes_of is not None
    assert (scopes_of("ada"), scopes_of("bob")) == (("read", "write"), ("read",))
    assert cookies is not None
    assert (cookies.mode, cookies.same_site, told["prefix"]) == ("both", "Lax", "/id")
    assert rate_limit is not None
    assert rate_limit.account_burst == 3
    assert endpoint_options(Settings(rate_limit_enabled=False))["rate_limit"] is None
    assert endpoint_options(Settings())["cookies"] is None


def test_the_example_file_is_valid_and_shows_every_setting_of_the_first_level(folder: Path) -> None:
    example = (ROOT / "deploy" / "unbroken.toml").read_text()
    Path("encryption-key").write_text(new_key())
    found = read(example.replace("/etc/unbroken/encryption-key", "encryption-key"))
    assert found.problems == ()
    assert list(conflicts(found.settings)) == []
    named = set(tomllib.loads(example))
    flat = {name for name, one in setting_definitions().items() if "file" in one.sources and "_file" not in name}
    missing = {name for name in flat if "." not in setting_definitions()[name].key and name != "webhook_url"} - named
    assert missing == set(), "the example shows every setting of the first level"


# Of a program: no text says them.
FUNCTIONS = {"scopes_of", "verify_mfa", "is_active", "security_stamp", "claims", "on_event", "clock"}
MADE_OF_OTHERS = {"policy", "rate_limit", "cookies", "proofs", "clients"}  # two lists of ids make the latter


@pytest.mark.parametrize(
    ("of", "table"),
    [
        *((Policy, ""), (EndpointSettings, ""), (Sessions, ""), (Cookies, "cookies_")),
        *((RateLimitPolicy, "rate_limit_"), (ProofPolicy, "proofs_")),
    ],
)
def test_whatever_a_program_can_set_can_be_set_here(of: type, table: str) -> None:
    names = set(inspect.signature(of).parameters) - FUNCTIONS - MADE_OF_OTHERS
    assert {table + name for name in names} - set(setting_definitions()) == set()


def test_the_table_of_proofs_is_read_from_the_file(folder: Path) -> None:
    text = """
        [proofs]
        binding = "required"
        off_clients = ["old"]
        required_clients = "app tablet"
        public_url = ["https://id.example.com", "https://example.com/id/"]
        require_nonce = true
        window = "30s"
        replays = "all"
        revoke_without_proof = true
        certificate_header = "X-Certificate"
        certificate_secret = "of-the-proxy-0123456789"
    """
    found = build_proofs(valid_settings(read(text)))
    urls = ("https://id.example.com", "https://example.com/id")
    assert (found.binding, found.public_url, found.require_nonce, found.window) == ("required", urls, True, 30.0)
    assert (found.replays, found.revoke_without_proof) == ("all", True)
    assert (found.certificate_header, found.certificate_secret) == ("x-certificate", "of-the-proxy-0123456789")
    assert dict(found.clients) == {"old": "off", "app": "required", "tablet": "required"}
    wrong = read('[proofs]\npublic_url = "id.example.com"', UNBROKEN_ISSUER="https://id.example").settings
    assert any("public_url must be the URL" in line for line in conflicts(wrong))


@pytest.mark.parametrize("name", ["max_sessions_per_subject", "max_shared_generations"])
def test_a_limit_of_zero_is_no_limit(folder: Path, name: str) -> None:
    limits = {value: getattr(build_policy(valid_settings(read(flags={name: value}))), name) for value in ("0", "1")}
    assert limits == {"0": None, "1": 1}
    assert "0: no limit" in setting_definitions()[name].help


def test_tickets_and_the_first_use_can_be_set(folder: Path) -> None:
    settings = valid_settings(read("tickets = false\nconfirm_first_use = true\n", UNBROKEN_ISSUER="https://id.example"))
    app = application(dataclasses.replace(settings, store="memory:"), settings.issuer)
    paths = {route.path for route in app.routes if isinstance(route, Route)}
    assert "/auth/login" in paths
    assert "/auth/ticket" not in paths
    assert endpoint_options(settings)["tickets"] is False
    assert settings.confirm_first_use
