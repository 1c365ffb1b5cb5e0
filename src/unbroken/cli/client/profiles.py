"""Sessions by name, as arguments of commands."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
from click.shell_completion import CompletionItem

from unbroken.cli.client.waiting import telling_who_waits
from unbroken.client.profile_session import ProfileSession
from unbroken.client.profiles import Profile, profile_names
from unbroken.client.session import Session
from unbroken.errors import ConfigurationError

__all__ = ["complete_name", "open_session", "refuse_bound", "session_name", "warn_if_bound"]


def complete_name(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the names of sessions that begin with *incomplete*, for the completion of a shell."""
    return [CompletionItem(name) for name in profile_names() if name.startswith(incomplete)]


session_name = click.argument("name", metavar="NAME", shell_complete=complete_name)


def warn_if_bound(profile: Profile) -> None:
    """Say on standard error that the access token of a bound session is worth nothing by itself."""
    if profile.dpop:
        name = profile.name
        print(
            f"unbroken: {name} is bound to a key, and its token is worth nothing without a proof for each request: "
            f"use `unbroken fetch {name} URL`, or `unbroken token {name} --proof METHOD URL`",
            file=sys.stderr,
        )


def refuse_bound(profile: Profile, program: str) -> None:
    """Raise ConfigurationError if the session is bound to a key: *program* sends a token and cannot send a proof."""
    if profile.dpop:
        raise ConfigurationError(
            f"{profile.name} is bound to a key, and {program} cannot prove it: log in under another name without --dpop"
        )


@contextmanager
def open_session(name: str) -> Iterator[tuple[Profile, Session]]:
    """Yield the profile and the session *name*, which may be over."""
    session = ProfileSession.of_name(name, {})
    with telling_who_waits(session.profile.url, session._settings["wait_timeout"]):
        yield session.profile, session
