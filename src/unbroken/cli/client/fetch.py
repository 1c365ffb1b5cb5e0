"""``unbroken fetch``: one request with a session's token. The options are those of curl, where curl has them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn
from urllib.parse import quote, urlsplit, urlunsplit

import click

from unbroken._http import origin_of
from unbroken.cli.client.fetch_transfer import FetchRequest, transfer
from unbroken.cli.client.profiles import open_session, session_name
from unbroken.cli.options import DURATION_PARAMETER, option
from unbroken.errors import ConfigurationError, InvalidRequest, TryLater

__all__ = ["fetch"]

PRINTABLE_ASCII = "".join(map(chr, range(0x21, 0x7F)))
FORM, JSON = "application/x-www-form-urlencoded", "application/json"


@click.command()
@session_name
@click.argument("url", metavar="URL")
@option("-X", "--request", "method", default="", help="Method.  [default: GET, or POST with a body]")
@option(
    "-H",
    "--header",
    multiple=True,
    envvar=None,  # Click would split the variable at spaces
    help="'Name: value'; 'Name:' omits a default header.  [env var: UNBROKEN_HEADER, one header a line]",
)
@option(
    "-d",
    "--data",
    "--data-binary",
    multiple=True,
    envvar=None,
    help="Body: a text, @FILE byte for byte, or - for standard input.  [env var: UNBROKEN_DATA]",
)
@option(
    "--data-raw", multiple=True, envvar=None, help="Body: a text that may start with @.  [env var: UNBROKEN_DATA_RAW]"
)
@option("--json", "json", envvar="UNBROKEN_JSON_DATA", help="Body, as --data, sent as JSON.")
@option("-o", "--output", default="-", metavar="FILE", help="File for the response.  [default: standard output]")
@option("-i", "--include", is_flag=True, help="Write status and headers of the response too.")
@option("-I", "--head", is_flag=True, help="Send HEAD; write status and headers.")
@option("-f", "--fail", is_flag=True, help="Exit status 22 and no body if the response has status 400 or above.")
@option("-L", "--location", is_flag=True, help="Follow redirects.")
@option(
    "-m",
    "--max-time",
    type=DURATION_PARAMETER,
    default="0",
    metavar="DURATION",
    help="Time limit for all of it.  [default: none]",
)
@option(
    "-s",
    "-S",
    "--silent",
    "--show-error",
    is_flag=True,
    expose_value=False,
    envvar=None,
    help="No effect: as curl -sS.",
)
def fetch(
    name: str,
    url: str,
    method: str,
    header: tuple[str, ...],
    data: tuple[str, ...],
    data_raw: tuple[str, ...],
    json: str | None,
    output: str,
    include: bool,
    head: bool,
    fail: bool,
    location: bool,
    max_time: float,
) -> int:
    """Send a request with the session's token.

    The response is written to standard output. URL may be a path of the session's server, such as /orders.
    """
    texts = data or _from_environment("UNBROKEN_DATA")
    raw_texts = data_raw or _from_environment("UNBROKEN_DATA_RAW")
    form = texts if texts or raw_texts else None
    if (form is not None) + (json is not None) + head > 1:
        raise InvalidRequest("a request has one body: give --data or --json, and none with --head")
    body = form if json is None else (json,)
    header = header or tuple("\n".join(_from_environment("UNBROKEN_HEADER")).splitlines())
    content_type = "" if body is None else FORM if json is None else JSON
    with open_session(name) as (profile, session), _time_limit(max_time):
        request = FetchRequest(
            method=method or ("HEAD" if head else "GET" if body is None else "POST"),
            url=_ascii_url(profile.url + url if url.startswith("/") else url),
            headers=_headers(header, content_type),
            data=body,
            raw=raw_texts,
            output=output,
            include=include or head,
            fail=fail,
            follow=location,
        )
        return transfer(session, request)


def _from_environment(name: str) -> tuple[str, ...]:
    return (os.environ[name],) if name in os.environ else ()


def _headers(lines: tuple[str, ...], content_type: str) -> tuple[tuple[str, str], ...]:
    """Return the headers of *lines* and the default headers. Errors do not repeat them: they may contain a secret."""
    given = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            raise InvalidRequest("a header is written 'Name: value'")
        if not value.strip().replace("\t", " ").isprintable():
            raise InvalidRequest(f"the header {name} has control characters, or bytes that are not UTF-8")
        given.append((name, value.strip()))
    # The response is written byte for byte and not decompressed, so compression is not offered.
    defaults = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "unbroken"}
    defaults |= {"content-type": content_type} if content_type else {}
    defaults |= {"accept": JSON} if content_type == JSON else {}
    named = {name.lower() for name, _ in given}
    omitted = {name.lower() for name, value in given if not value} & defaults.keys()  # as in curl
    ours = ((name, value) for name, value in defaults.items() if name not in named)
    return (*ours, *((name, value) for name, value in given if name.lower() not in omitted))


def _ascii_url(url: str) -> str:
    """Return *url* percent-encoded. Raise InvalidRequest without the URL: it may contain a secret."""
    try:
        parts = urlsplit(url)
        if parts.username is not None:
            raise InvalidRequest("the URL must not contain a user or a password: other users can read command lines")
        path, query = (quote(os.fsencode(text), safe=PRINTABLE_ASCII) for text in (parts.path, parts.query))
        url = urlunsplit(parts._replace(path=path, query=query, fragment=""))
        url.encode()
        origin_of(url)
        return url
    except (ValueError, ConfigurationError):
        raise InvalidRequest("the URL must be a path, or start with https:// and a host") from None


class _DeadlineReached(BaseException):
    """The time limit is over. Not an Exception, so that no handler on the way takes it for another error."""


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise TryLater in the block after *seconds*, whatever it waits for; 0: no limit.

    A refresh that is under way still finishes before the process exits, so that its tokens are not lost.
    """

    def stop(*_: object) -> NoReturn:
        raise _DeadlineReached

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _DeadlineReached:
        raise TryLater(f"not finished within {seconds:g} seconds") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
