"""``unbroken status``."""

from __future__ import annotations

import json

from tests.cli.client.shell import Shell
from tests.support.backend import Backend


def test_status_shows_all_sessions_and_no_secret(api: Shell, server: Backend) -> None:
    api.login(server.url, "old")
    api.login(server.url, "gone")
    api.age(3600, "old")
    server.sessions.revoke_subject("ada")
    api.age(3600, "gone")
    api("token", "gone")
    head, *rows = api("status").stdout.splitlines()
    assert head.split() == ["NAME", "SERVER", "USER", "STATE", "EXPIRES", "IN", "SCOPE"]
    assert [row.split()[:4] for row in rows] == [
        ["api", server.url, "ada", "good"],
        ["gone", server.url, "ada", "over"],
        ["old", server.url, "ada", "expired"],
    ]
    assert rows[0].split()[4] in ("29m", "30m")
    told = json.loads(api("status", "gone", "--json").stdout)
    assert (told["state"], told["reason"], told["expires_in"]) == ("over", "revoked", None)
    everything = api("status").stdout + api("status", "--json").stdout
    assert not any(secret in everything for secret in api.secrets())
    assert [api("status", name).returncode for name in ("api", "old", "gone")] == [0, 0, 1]
