"""A second process on the same token file: ``python -m unbroken.cli.demo.second_process FILE URL TASKS``.

It runs until its standard input is closed, then prints its observations as one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from dataclasses import asdict

from unbroken import FileStore, Session
from unbroken.cli.demo.workers import Observations, call_repeatedly


def main() -> None:
    file, url, tasks = sys.argv[1:]
    seen, stop = Observations(), threading.Event()
    threading.Thread(target=_wait_for_end_of_input, args=(stop,), daemon=True).start()
    session = Session(url, FileStore(file))
    asyncio.run(call_repeatedly(session, url + "/api/echo", seen, int(tasks), stop))
    print(json.dumps(asdict(seen) | {"seconds": []}))


def _wait_for_end_of_input(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()


if __name__ == "__main__":
    main()
