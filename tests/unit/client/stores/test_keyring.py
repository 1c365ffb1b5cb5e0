"""``KeyringStore`` over a real Secret Service: a keyring daemon on a bus of its own, with a home of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.backend import Backend
from tests.support.paths import ROOT
from tests.support.services import unavailable

# The daemon ends with the script, and the bus with both. Without --foreground it would say that it is ready, and stay.
SCRIPT = """
printf secret | gnome-keyring-daemon --unlock --components=secrets --foreground >/dev/null 2>&1 &
daemon=$!
for work in login refresh read; do "$PYTHON" -c "$WORK" "$URL" "$work" || break; done
kill $daemon
wait $daemon
"""

WORK = """
import sys, time
import keyring
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import open_dbus_connection
from unbroken import Session
from unbroken.client.stores.keyring import KeyringStore

ends = time.monotonic() + 20
with open_dbus_connection() as bus:
    while not bus.send_and_get_reply(message_bus.NameHasOwner("org.freedesktop.secrets"), timeout=10).body[0]:
        assert time.monotonic() < ends, "the daemon does not come"
        time.sleep(0.02)

session = Session(sys.argv[1], KeyringStore("unbroken tests", "ada"))
if sys.argv[2] == "login":
    session.login("ada", "correct horse")
token = session.token()
print(sys.argv[2], keyring.get_keyring().name, token, session.newer_token(token) if sys.argv[2] == "refresh" else "")
"""


def test_processes_share_a_session_that_the_secret_service_keeps(server: Backend, tmp_path: Path) -> None:
    for program in ("dbus-run-session", "gnome-keyring-daemon"):
        if not shutil.which(program):
            unavailable(program, "apt-get install dbus-daemon gnome-keyring")
    home = {name: str(tmp_path) for name in ("HOME", "XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
    ours = {"PYTHON": sys.executable, "WORK": WORK, "URL": server.url}
    chosen = {"PYTHON_KEYRING_BACKEND": "keyring.backends.SecretService.Keyring"}
    done = subprocess.run(
        ["dbus-run-session", "--", "sh", "-c", SCRIPT],
        env={**os.environ, **home, **ours, **chosen},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    lines = [line.split(" ") for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == ["login", "refresh", "read"], done.stderr
    assert {line[1] for line in lines} == {"SecretService"}
    (first, _), (second, refreshed), (third, _) = [line[-2:] for line in lines]
    assert (first, refreshed) == (second, third), "each process finds what the one before it has kept"
    assert first != refreshed
    assert (server.refreshes, server.alarms()) == (1, 0)
    kept = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert third.encode() not in kept, "the daemon encrypts what it keeps"
