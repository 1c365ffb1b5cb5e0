"""A session without an HTTP library: ``urllib.request``, and a command that gets its token from the environment."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request

from unbroken import Session


def get(session: Session, url: str) -> bytes:
    """Return the body at *url*. Raises urllib.error.HTTPError if the status is not a success."""
    request = urllib.request.Request(url)
    # The ordinary add_header would send the token on to the target of a redirect.
    request.add_unredirected_header("Authorization", f"Bearer {session.token()}")
    with urllib.request.urlopen(request, timeout=10) as response:
        return response.read()


def run(session: Session, command: list[str]) -> str:
    """Run *command* with a good access token in ``API_TOKEN``, and return what it printed."""
    environment = {**os.environ, "API_TOKEN": session.token()}
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def main(url: str) -> None:
    session = Session(url)
    session.login(os.environ["API_USER"], os.environ["API_PASSWORD"])
    print(get(session, url + "/orders").decode())
    code = "import os; print('the command has a token of', len(os.environ['API_TOKEN']), 'characters')"
    print(run(session, [sys.executable, "-c", code]), end="")


if __name__ == "__main__":
    main(sys.argv[1])
