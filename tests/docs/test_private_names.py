"""The private names of other libraries that the source uses still exist, and docs/extend/private-names.md lists them.

A failure here means that an update of a library removed or changed a name. The message says which file needs it.
"""

from __future__ import annotations

import ast
import http.client
import inspect
import io
import re
import urllib.request
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import aiohttp
import aiohttp.base_protocol
import httpx
import httpx2
import psycopg
import pytest
import requests
import urllib3
from aiohttp import payload

from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "extend" / "private-names.md"
SOURCE = ROOT / "src" / "unbroken"
OF_NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}  # documented by Python
OF_OS = {"_exit"}  # likewise
DOCUMENTED = {"_meta", "_state", "_default_manager", "_base_manager"}  # by Django, in spite of their names
URL = "http://127.0.0.1/"


def is_gone(name: str, file: str) -> str:
    return f"{name} has changed or is gone: src/unbroken/{file} needs another way (docs/extend/private-names.md)"


# ---- psycopg ---------------------------------------------------------------------------------------------------------


def test_psycopg_raises_wait_timeout() -> None:
    error = getattr(psycopg.errors, "_WaitTimeout", None)
    assert error is not None, is_gone("psycopg.errors._WaitTimeout", "_drivers/postgres_connection.py")
    assert issubclass(error, Exception)


@pytest.mark.parametrize("connection", [psycopg.Connection, psycopg.AsyncConnection])
def test_psycopg_waits_with_a_timeout(connection: Any) -> None:
    wait = getattr(connection, "wait", None)
    assert wait is not None, is_gone(f"{connection.__name__}.wait", "_drivers/postgres_connection.py")
    found = list(inspect.signature(wait).parameters)
    message = is_gone(f"{connection.__name__}.wait(gen, interval, timeout)", "_drivers/postgres_connection.py")
    assert found[:4] == ["self", "gen", "interval", "timeout"], message


# ---- requests and urllib3 --------------------------------------------------------------------------------------------


def test_requests_keeps_the_cookies_of_a_prepared_request() -> None:
    prepared = requests.Session().prepare_request(requests.Request("GET", URL, cookies={"theme": "dark"}))
    assert "_cookies" in vars(prepared), is_gone("requests.PreparedRequest._cookies", "requests.py")
    assert vars(prepared)["_cookies"]["theme"] == "dark"


def test_requests_notes_that_a_body_was_read() -> None:
    response = requests.Response()
    assert "_content_consumed" in vars(response), is_gone("requests.Response._content_consumed", "requests.py")
    response.raw = io.BytesIO(b"body")
    assert vars(response)["_content_consumed"] is False
    assert response.content == b"body"
    assert vars(response)["_content_consumed"] is True


def test_urllib3_keeps_the_original_response() -> None:
    original: Any = object()
    response = urllib3.HTTPResponse(b"", original_response=original)
    found = getattr(response, "_original_response", None)
    assert found is original, is_gone("urllib3.HTTPResponse._original_response", "requests.py")


# ---- aiohttp ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["read", "readany", "readline", "readexactly", "readchunk"])
def test_every_read_of_aiohttp_waits_in_one_method(method: str) -> None:
    wait = getattr(aiohttp.StreamReader, "_wait", None)
    assert wait is not None, is_gone("aiohttp.StreamReader._wait", "aiohttp.py")
    assert list(inspect.signature(wait).parameters) == ["self", "func_name"], is_gone(
        "StreamReader._wait", "aiohttp.py"
    )
    called, pending = set(), [method]
    while pending:  # methods that it calls, and those that they call
        name = pending.pop()
        for other in inspect.unwrap(getattr(aiohttp.StreamReader, name)).__code__.co_names:
            if other not in called and inspect.isfunction(getattr(aiohttp.StreamReader, other, None)):
                called.add(other)
                pending.append(other)
    assert "_wait" in called, is_gone(f"StreamReader._wait, as {method} calls it,", "aiohttp.py")


@pytest.mark.parametrize(
    ("kind", "file"),
    [(payload.BytesIOPayload, io.BytesIO(b"body")), (payload.BufferedReaderPayload, io.BufferedReader(io.BytesIO()))],
    ids=["BytesIO", "file"],
)
def test_a_payload_of_aiohttp_keeps_its_file(kind: Any, file: Any) -> None:
    body = kind(file)
    assert isinstance(body, payload.IOBasePayload)
    assert getattr(body, "_value", None) is file, is_gone("aiohttp.payload.IOBasePayload._value", "aiohttp.py")


def test_aiohttp_has_the_base_of_its_protocols() -> None:
    found = getattr(aiohttp.base_protocol, "BaseProtocol", None)
    assert found is not None, is_gone("aiohttp.base_protocol.BaseProtocol", "aiohttp.py")


# ---- httpx and httpx2 ------------------------------------------------------------------------------------------------

LIBRARIES = pytest.mark.parametrize("library", [httpx, httpx2], ids=lambda library: library.__name__)


async def _achunks() -> Any:
    yield b"body"


def _chunks() -> Iterator[bytes]:
    yield b"body"


BODIES: dict[str, dict[str, Any]] = {
    "ByteStream": {"content": b"body"},
    "IteratorByteStream": {"content": _chunks()},
    "AsyncIteratorByteStream": {"content": _achunks()},
    "MultipartStream": {"files": {"report": io.BytesIO(b"body")}},
}


@LIBRARIES
@pytest.mark.parametrize("name", BODIES)
def test_the_stream_classes_of_httpx_are_called_so(library: ModuleType, name: str) -> None:
    stream = library.Request("POST", URL, **BODIES[name]).stream
    assert type(stream).__name__ == name, is_gone(f"the class {name} of {library.__name__}", "_adapters/httpx.py")


@LIBRARIES
@pytest.mark.parametrize("name", ["IteratorByteStream", "AsyncIteratorByteStream"])
def test_a_stream_of_httpx_keeps_its_iterator(library: ModuleType, name: str) -> None:
    body = BODIES[name]["content"]
    stream = library.Request("POST", URL, content=body).stream
    message = is_gone(f"{name}._stream of {library.__name__}", "_adapters/httpx.py")
    assert getattr(stream, "_stream", None) is body, message


@LIBRARIES
def test_a_form_of_httpx_keeps_its_files(library: ModuleType) -> None:
    file = io.BytesIO(b"body")
    [field] = getattr(library.Request("POST", URL, files={"report": file}).stream, "fields", None) or [None]
    assert field is not None, is_gone(f"MultipartStream.fields of {library.__name__}", "_adapters/httpx.py")
    message = is_gone(f"FileField.file of {library.__name__}", "_adapters/httpx.py")
    assert getattr(field, "file", None) is file, message


@LIBRARIES
def test_a_response_of_httpx_keeps_its_request(library: ModuleType) -> None:
    request = library.Request("GET", URL)
    response = library.Response(200, request=request)
    message = is_gone(f"{library.__name__}.Response._request", "_adapters/httpx.py")
    assert getattr(response, "_request", None) is request, message
    assert getattr(library.Response(200), "_request", message) is None, message


# ---- the standard library, Django, REST framework --------------------------------------------------------------------


def test_a_connection_of_the_standard_library_connects_by_an_attribute() -> None:
    message = is_gone("http.client.HTTPConnection._create_connection", "_transport.py")
    asked: list[object] = []

    def connect(address: object, *_: object) -> Any:
        asked.append(address)
        raise OSError("this is as far as it goes")

    connection: Any = http.client.HTTPConnection("127.0.0.1", 9)
    assert hasattr(connection, "_create_connection"), message
    connection._create_connection = connect
    with pytest.raises(OSError, match="as far as it goes"):
        connection.connect()
    assert asked == [("127.0.0.1", 9)], message


def test_a_request_of_the_standard_library_notes_its_tunnel() -> None:
    request: Any = urllib.request.Request("https://example.org/")
    message = is_gone("urllib.request.Request._tunnel_host", "_transport.py")
    assert getattr(request, "_tunnel_host", message) is None, message
    request.set_proxy("proxy.example.org:3128", "https")
    assert request._tunnel_host == "example.org", message


DJANGO = """
import django
from django.conf import settings

settings.configure(INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "rest_framework"])
django.setup()
from django.contrib.auth.models import User
from django.http import HttpRequest
from rest_framework.request import Request

user = User(username="ada")
print("before", getattr(user, "_password", "no such attribute"))
user.set_password("correct horse")
print("after", getattr(user, "_password", "no such attribute"))
inner = HttpRequest()
print("inner", getattr(Request(inner), "_request", None) is inner)
"""


@pytest.fixture(scope="module")
def django_says(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a process with Django in it prints: its settings can be made only once."""
    from tests.docs.pages import run

    done = run(DJANGO, tmp_path_factory.mktemp("django"))
    assert done.returncode == 0, done.stderr
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def test_a_user_of_django_keeps_a_new_password_until_it_is_saved(django_says: dict[str, str]) -> None:
    found = (django_says["before"], django_says["after"])
    assert found == ("None", "correct horse"), is_gone("AbstractBaseUser._password of Django", "django/signals.py")


def test_a_request_of_rest_framework_has_djangos_own(django_says: dict[str, str]) -> None:
    assert django_says["inner"] == "True", is_gone("rest_framework.request.Request._request", "django/rest.py")


# ---- the page --------------------------------------------------------------------------------------------------------


def private_names() -> dict[str, str]:
    """Private names that the source reads and does not define itself, each with a line that reads it."""
    defined, used = set[str](), dict[str, str]()
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                    defined.add(name)
                case ast.Attribute(attr=name, ctx=ast.Store()) | ast.Name(id=name, ctx=ast.Store()):
                    defined.add(name)
                case ast.Attribute(attr=name) | ast.Constant(value=str(name)):
                    if re.fullmatch(r"_(?!_|unbroken_)[a-zA-Z0-9_]*[a-z][a-zA-Z0-9_]*", name):
                        used.setdefault(name, f"{file.relative_to(ROOT)}:{node.lineno}")
    return {name: where for name, where in used.items() if name not in defined | OF_NAMED_TUPLES | OF_OS}


def test_the_page_lists_every_private_name_of_others() -> None:
    text = PAGE.read_text()
    missing = {name: where for name, where in private_names().items() if name not in text}
    assert missing == {}, f"add a row to {PAGE.relative_to(ROOT)} and a test to this file: {missing}"


def test_the_scan_finds_the_names_that_the_page_is_about() -> None:
    assert {"_WaitTimeout", "_content_consumed", "_original_response", "_password"} <= set(private_names())


def test_the_page_names_files_that_exist() -> None:
    rows = [line.split("|")[3] for line in PAGE.read_text().splitlines() if line.startswith("|") and ".py" in line]
    assert rows
    missing = {row for row in rows if not (SOURCE / row.strip().strip("`")).is_file()}
    assert missing == set()


def test_the_names_that_django_documents_are_explained() -> None:
    assert {name for name in DOCUMENTED if name not in PAGE.read_text()} == set()
