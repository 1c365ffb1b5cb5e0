"""What is sent twice is the same both times: each kind of body, at each shape of backend, counted where it arrives."""

from __future__ import annotations

import email

import pytest
from starlette.requests import Request

from tests.interop.backends.base import Backend
from tests.interop.backends.shapes import BearerJson, CodeIn200, OwnHeader

KINDS = ["text", "blob", "buffer", "view", "params", "form"]


FORM = {("field", None): b"value", ("file", "a.txt"): b"file body"}


def parts_of(kind: str, body: bytes) -> dict[tuple[str, str | None], bytes]:
    """Each part of a form, by its name and that of its file."""
    form = email.message_from_bytes(b"content-type: " + kind.encode() + b"\r\n\r\n" + body)
    return {
        (str(part.get_param("name", header="content-disposition")), part.get_filename()): part.get_payload(decode=True)
        for part in form.get_payload()
    }


def keeping_forms(backend: Backend) -> list[dict[tuple[str, str | None], bytes]]:
    """The forms that *backend* will have received, whatever the token."""
    forms, note = [], backend._note

    async def kept(request: Request) -> str | None:
        kind = request.headers.get("content-type", "")
        if kind.startswith("multipart/form-data"):
            forms.append(parts_of(kind, await request.body()))
        return await note(request)

    backend._note = kept
    return forms


@pytest.mark.parametrize("shape", [BearerJson, CodeIn200, OwnHeader])
def test_a_body_of_any_kind_is_the_same_when_it_is_sent_again(stage, shape) -> None:
    backend = shape()
    forms = keeping_forms(backend)
    scene = stage(backend, window=None)
    for kind in KINDS:
        for sent_by in ["fetch", "request"] if scene.tab.client == "fetch" else ["axios"]:
            scene.tab.client = sent_by
            scene.tab.pass_(31)
            scene.backend.seen.clear()
            scene.backend.expire()
            assert scene.tab.ask("/api/echo", method="POST", kind=kind)["json"]["user"] == "ada"
            first, again = scene.backend.seen
            types = [seen.headers.get("content-type", "").partition(";")[0] for seen in (first, again)]
            assert types[0] == types[1]
            if kind != "form":  # each try has a boundary of its own
                assert first.sha256 == again.sha256
            assert first.headers["content-length"] == again.headers["content-length"] != "0"
    assert forms == [FORM] * (4 if scene.tab.client == "request" else 2)
