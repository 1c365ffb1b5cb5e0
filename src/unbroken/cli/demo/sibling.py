"""A second process on the same token file: ``python -m unbroken.cli.demo.sibling FILE URL TASKS``.

It works until its standard input is closed, then prints what it saw as one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from dataclasses import asdict

from unbroken import FileStore, Session
from unbroken.cli.demo.workers import Seen, call_without_pause


def main() -> None:
    file, url, tasks = sys.argv[1:]
    seen, end = Seen(), threading.Event()
    threading.Thread(target=_wait_for_the_end, args=(end,), daemon=True).start()
    session = Session(url, FileStore(file))
    asyncio.run(call_without_pause(session, url + "/api/echo", seen, int(tasks), end))
    print(json.dumps(asdict(seen) | {"times": []}))


def _wait_for_the_end(end: threading.Event) -> None:
    sys.stdin.read()
    end.set()


if __name__ == "__main__":
    main()
