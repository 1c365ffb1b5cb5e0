"""A thread that listens to the store's news, so that no request ever has to ask the store what was revoked.

1. It looks whenever something was announced, and at the latest every ``EVERY`` seconds: an announcement that got lost,
   or a connection that hangs, costs that much and no more.
2. It begins with the first request, belongs to its process, and begins anew in a forked child.
3. Without it everything works as well: what was learnt goes stale by itself, and requests ask. So what fails here, be
   it that no thread can be had, is said in the log once, and tried again; to listen, after longer and longer pauses.
4. It ends by ``stop``, or when nobody has the ``Watch`` any more that it looks for.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable

from unbroken._once import run_once
from unbroken.server.stores import News

__all__ = ["Feed"]

EVERY = 0.3
PAUSE = 0.005  # between two looks, so that many announcements are one
LONGEST_PAUSE = 10.0  # between two attempts to listen
STOP_SECONDS = 2.0

_log = logging.getLogger("unbroken")
_of_parents: list[object] = []  # a forked child neither uses nor closes its parent's connections


class Feed:
    """Calls the coroutine function *look*, a method, after each announcement of *news*: what the store gives."""

    def __init__(self, news: Callable[[], News | None], look: Callable[[], object]) -> None:
        self._news, self._look = news, weakref.WeakMethod(look)
        self._lock = threading.Lock()
        self._pid = 0  # of the process whose listener this is; 0 before there is one
        self._listener: _Listener | None = None
        self._cannot_begin = False

    def begin(self) -> None:
        """Begins to listen, in a thread, if the store announces anything and none does so in this process."""
        if self._pid == os.getpid():
            return
        if self._pid:  # forked: the lock may be held by a thread that is not here
            self._lock = threading.Lock()
            _of_parents.append(self._listener)
        with self._lock:
            if self._pid == os.getpid():
                return
            self._listener = None
            try:
                if (news := self._news()) is not None:
                    self._listener = _Listener(news, self._look)
                    weakref.finalize(self, self._listener.stop)  # also before the interpreter ends
            except (OSError, RuntimeError) as error:  # no socket, or no thread: the next request may have more luck
                if not self._cannot_begin:
                    _log.warning("revocations are asked for, as nobody can listen for them: %s", error)
                self._cannot_begin = True
                return
            self._cannot_begin, self._pid = False, os.getpid()

    def stop(self) -> None:
        """Ends the thread; ``begin`` begins anew."""
        if self._pid == os.getpid():
            with self._lock:
                listener, self._listener, self._pid = self._listener, None, 0
            if listener is not None:
                listener.stop()


class _Listener:
    """The thread, and what it listens to."""

    def __init__(self, news: News, look: weakref.WeakMethod[Callable[[], object]]) -> None:
        self._news, self._look_at = news, look
        self._pid, self._stopped = os.getpid(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="unbroken feed", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._news.close()
            raise

    def stop(self) -> None:
        """Ends the thread. Called in the thread, when the last who had the ``Watch`` was collected there, it leaves
        that to the thread itself, which may just then hold locks that would be needed here.
        """
        if self._pid != os.getpid() or self._thread.ident == threading.get_ident() or self._stopped.is_set():
            return
        self._stopped.set()
        self._news.close()
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        deaf = 0.0  # seconds until the next attempt to listen; 0 while it works
        left = 0.0
        while not self._stopped.is_set():
            if left > 0:
                left -= EVERY
                self._stopped.wait(EVERY)
            else:
                deaf = left = self._hear(deaf)
            if not self._look():
                break
            self._stopped.wait(PAUSE)
        self._news.close()

    def _hear(self, deaf: float) -> float:
        """Waits for news; 0, or if there is nothing to hear, for how long not to try again."""
        try:
            self._news.wait(EVERY)
        except Exception as error:  # noqa: BLE001  # whatever it is, requests ask the store meanwhile
            if not deaf and not self._stopped.is_set():
                _log.warning("revocations are asked for, not listened to, until the store announces again: %s", error)
            return min(max(2 * deaf, EVERY), LONGEST_PAUSE)
        if deaf:
            _log.info("the store announces revocations again")
        return 0.0

    def _look(self) -> bool:
        """Looks; False when nobody wants that any more."""
        look = self._look_at()
        if look is None or self._stopped.is_set():
            return False
        try:
            run_once(look())  # type: ignore[arg-type]  # a coroutine function, see ``Feed``
        except Exception as error:  # noqa: BLE001  # whoever needs to know asks the store too, and is told
            _log.debug("the store did not answer: %s", error)
        return True
