"""Sessions by name, as arguments of commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click
from click.shell_completion import CompletionItem

from unbroken.cli.client.waiting import telling_who_waits
from unbroken.client.profile_session import ProfileSession
from unbroken.client.profiles import Profile, profile_names
from unbroken.client.session import Session

__all__ = ["complete_name", "open_session", "session_name"]


def complete_name(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the names of sessions that begin with *incomplete*, for the completion of a shell."""
    return [CompletionItem(name) for name in profile_names() if name.startswith(incomplete)]


session_name = click.argument("name", metavar="NAME", shell_complete=complete_name)


@contextmanager
def open_session(name: str) -> Iterator[tuple[Profile, Session]]:
    """Yield the profile and the session *name*, which may be over."""
    session = ProfileSession.of_name(name, {})
    with telling_who_waits(session.profile.url, session._settings["wait_timeout"]):
        yield session.profile, session
