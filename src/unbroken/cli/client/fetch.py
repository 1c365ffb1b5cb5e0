"""``unbroken fetch``: one request with a session's token. The options are those of curl, where curl has them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, NoReturn
from urllib.parse import quote, urlsplit, urlunsplit

import typer

from unbroken._origins import origin_of
from unbroken.cli.client.fetch_transfer import FetchRequest
from unbroken.cli.client.profiles import Name, using
from unbroken.cli.parsers import duration
from unbroken.errors import ConfigurationError, InvalidRequest, TryLater

__all__ = ["fetch"]

ASCII = "".join(map(chr, range(0x21, 0x7F)))
FORM = "application/x-www-form-urlencoded"


def fetch(
    name: Name,
    url: Annotated[str, typer.Argument(metavar="URL", help="What to fetch.")],
    method: Annotated[
        str, typer.Option("-X", "--request", envvar="UNBROKEN_REQUEST", help="The method. (default: GET, or POST)")
    ] = "",
    header: Annotated[
        list[str] | None,
        # Not by Typer, which would take a header apart at its spaces.
        typer.Option(
            "-H",
            "--header",
            help="'Name: value'; 'Name:' leaves out one of ours. (env var: UNBROKEN_HEADER, one a line)",
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "-d",
            "--data",
            "--data-binary",
            help="The body: a text, @FILE byte for byte, or - for standard input. (env var: UNBROKEN_DATA)",
        ),
    ] = None,
    data_raw: Annotated[
        list[str] | None,
        typer.Option("--data-raw", help="The body: a text, whatever it begins with. (env var: UNBROKEN_DATA_RAW)"),
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
    head: Annotated[
        bool, typer.Option("-I", "--head", envvar="UNBROKEN_HEAD", help="Only the head of the answer, by HEAD.")
    ] = False,
    fail: Annotated[
        bool, typer.Option("-f", "--fail", envvar="UNBROKEN_FAIL", help="Exit status 22, no body, from status 400 on.")
    ] = False,
    location: Annotated[
        bool, typer.Option("-L", "--location", envvar="UNBROKEN_LOCATION", help="Follow redirects.")
    ] = False,
    max_time: Annotated[
        float,
        typer.Option(
            "-m",
            "--max-time",
            parser=duration,
            metavar="DURATION",
            envvar="UNBROKEN_MAX_TIME",
            help="For all of it; 0 is for ever.",
        ),
    ] = 0,
    silent: Annotated[  # noqa: ARG001  # so that what was written for curl can stay as it is
        bool, typer.Option("-s", "-S", "--silent", "--show-error", help="As it is: only errors are shown.")
    ] = False,
) -> int:
    """Send a request with the session's token, renewed if need be, and write the answer to standard output."""
    url = _checked_url(url)
    texts = data if data is not None else _environment("UNBROKEN_DATA")
    raw = data_raw if data_raw is not None else _environment("UNBROKEN_DATA_RAW")
    form = None if texts is None and raw is None else tuple(texts or ())
    if (form is not None) + (json is not None) + head > 1:
        raise InvalidRequest("a request has one body: give --data or --json, and none with --head")
    body = form if json is None else (json,)
    lines = header if header is not None else (_environment("UNBROKEN_HEADER") or [""])[0].splitlines()
    asked = FetchRequest(
        method=method or ("HEAD" if head else "GET" if body is None else "POST"),
        url=url,
        headers=_headers(lines, "" if body is None else FORM if json is None else "application/json"),
        data=body,
        raw=tuple(raw or ()),
        output=output,
        include=include or head,
        fail=fail,
        follow=location,
    )
    with using(name) as (_, session), _at_most(max_time):
        from unbroken.cli.client.fetch_transfer import transfer  # noqa: PLC0415  # httpx2 is slow to load: not for the others

        return transfer(session, asked)


def _headers(lines: list[str], kind: str) -> tuple[tuple[str, str], ...]:
    """The headers of *lines*, and those that go without saying. What is wrong is not repeated: it may be a secret."""
    given = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            raise InvalidRequest("a header is written 'Name: value'")
        if not value.strip().replace("\t", " ").isprintable():
            raise InvalidRequest(f"the header {name} has control characters in it, or bytes that are no UTF-8")
        given.append((name, value.strip()))
    # Bytes come as the server sent them: they are not unpacked here, so they are not asked for packed.
    usual = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "unbroken"}
    usual |= {"content-type": kind} if kind else {}
    usual |= {"accept": kind} if kind == "application/json" else {}
    named = {name.lower() for name, _ in given}
    left_out = {name.lower() for name, value in given if not value} & usual.keys()  # as curl does it
    ours = ((name, value) for name, value in usual.items() if name not in named)
    return (*ours, *((name, value) for name, value in given if name.lower() not in left_out))


def _environment(name: str) -> list[str] | None:
    return [os.environ[name]] if name in os.environ else None


def _checked_url(url: str) -> str:
    """*url* in ASCII. Raises InvalidRequest, which does not repeat what may be a secret."""
    try:
        parts = urlsplit(url)
        if parts.username is not None:
            raise InvalidRequest("the URL must not have a user or a password in it: others can read command lines")
        path, query = (quote(os.fsencode(text), safe=ASCII) for text in (parts.path, parts.query))
        url = urlunsplit(parts._replace(path=path, query=query, fragment=""))
        url.encode()
        origin_of(url)
        return url
    except (ValueError, ConfigurationError):
        raise InvalidRequest("the URL is wrong: it has to begin with https:// and a host") from None


class _DeadlineReached(BaseException):
    """The time is over. No handler of ours or of a library's may take this for something else."""


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raises TryLater inside after so many seconds, whatever is being waited for; 0: never.

    A renewal under way is still finished before the process ends, so that its tokens are not lost.
    """

    def ring(*_: object) -> NoReturn:
        raise _DeadlineReached

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _DeadlineReached:
        raise TryLater(f"it took longer than {seconds:g} seconds") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
