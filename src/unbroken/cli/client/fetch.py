"""``unbroken fetch``: one request with a session's token. The options are those of curl, where curl has them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, NoReturn
from urllib.parse import urlsplit

import typer

from unbroken.cli.client.profiles import Name, using
from unbroken.cli.options import Duration
from unbroken.client.origins import origin_of
from unbroken.errors import ConfigurationError, InvalidRequest, TryLater

__all__ = ["Asked", "fetch"]

FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asked for. ``data``: texts, ``@FILE``, ``@-``; None without a body."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    data: tuple[str, ...] | None
    output: str
    include: bool
    fail: bool
    follow: bool


def fetch(
    name: Name,
    url: Annotated[str, typer.Argument(metavar="URL", help="What to fetch.")],
    method: Annotated[
        str, typer.Option("-X", "--request", envvar="UNBROKEN_REQUEST", help="The method. (default: GET, or POST)")
    ] = "",
    header: Annotated[
        list[str] | None,
        # Not by Typer, which would take a header apart at its spaces.
        typer.Option("-H", "--header", help="'Name: value'. (env var: UNBROKEN_HEADER, one a line)"),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("-d", "--data", help="The body: a text, @FILE, or - for standard input. (env var: UNBROKEN_DATA)"),
    ] = None,
    json: Annotated[
        str | None, typer.Option("--json", envvar="UNBROKEN_JSON_DATA", help="The same, sent as JSON.")
    ] = None,
    output: Annotated[
        str, typer.Option("-o", "--output", envvar="UNBROKEN_OUTPUT", metavar="FILE", help="Where the answer goes.")
    ] = "-",
    include: Annotated[
        bool, typer.Option("-i", "--include", envvar="UNBROKEN_INCLUDE", help="The head of the answer, too.")
    ] = False,
    fail: Annotated[
        bool, typer.Option("-f", "--fail", envvar="UNBROKEN_FAIL", help="Exit status 22, no body, from status 400 on.")
    ] = False,
    location: Annotated[
        bool, typer.Option("-L", "--location", envvar="UNBROKEN_LOCATION", help="Follow redirects.")
    ] = False,
    max_time: Annotated[float, Duration("UNBROKEN_MAX_TIME", "For all of it; 0 is for ever.")] = 0,
) -> int:
    """Send a request with the session's token, renewed if need be, and write the answer to standard output."""
    _check_url(url)
    texts = data if data is not None else _environment("UNBROKEN_DATA")
    if texts is not None and json is not None:
        raise InvalidRequest("a request has one body: give --data or --json")
    body = (json,) if json is not None else None if texts is None else tuple(texts)
    lines = header if header is not None else (_environment("UNBROKEN_HEADER") or [""])[0].splitlines()
    asked = Asked(
        method=method or ("GET" if body is None else "POST"),
        url=url,
        headers=_headers(lines, "" if body is None else FORM if json is None else "application/json"),
        data=body,
        output=output,
        include=include,
        fail=fail,
        follow=location,
    )
    with using(name) as (_, session), _at_most(max_time):
        from unbroken.cli.client.transfer import transfer  # noqa: PLC0415  # httpx2 is slow to load: not for the others

        return transfer(session, asked)


def _headers(lines: list[str], kind: str) -> tuple[tuple[str, str], ...]:
    """The headers of *lines*, and those that go without saying. What is wrong is not repeated: it may be a secret."""
    given = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            raise InvalidRequest("a header is written 'Name: value'")
        if not value.strip().replace("\t", " ").isprintable():
            raise InvalidRequest(f"the header {name} has control characters in it")
        given.append((name, value.strip()))
    # Bytes come as the server sent them: they are not unpacked here, so they are not asked for packed.
    usual = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "unbroken"}
    usual |= {"content-type": kind} if kind else {}
    usual |= {"accept": kind} if kind == "application/json" else {}
    named = {name.lower() for name, _ in given}
    return (*((name, value) for name, value in usual.items() if name not in named), *given)


def _environment(name: str) -> list[str] | None:
    return [os.environ[name]] if name in os.environ else None


def _check_url(url: str) -> None:
    """Raises InvalidRequest, which does not repeat what may be a secret."""
    try:
        if urlsplit(url).username is not None:
            raise InvalidRequest("the URL must not have a user or a password in it: others can read command lines")
        origin_of(url)
    except (ValueError, ConfigurationError):
        raise InvalidRequest("the URL is wrong: it has to begin with https:// and a host") from None


class _Rung(BaseException):
    """The time is over. No handler of ours or of a library's may take this for something else."""


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raises TryLater inside after so many seconds, whatever is being waited for; 0: never.

    A renewal under way is still finished before the process ends, so that its tokens are not lost.
    """

    def ring(*_: object) -> NoReturn:
        raise _Rung

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _Rung:
        raise TryLater(f"it took longer than {seconds:g} seconds") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
