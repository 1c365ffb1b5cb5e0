"""A request that is sent again has the same body both times, of every kind, at each backend."""

from __future__ import annotations

import email

import pytest
from starlette.requests import Request

from tests.interop.backends.base import Backend
from tests.interop.backends.shapes import BearerJson, CodeIn200, KeptRefresh, OwnHeader, StatusInBody

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


@pytest.mark.defect("P15")
@pytest.mark.parametrize("shape", [BearerJson, CodeIn200, OwnHeader])
def test_a_body_of_every_kind_is_the_same_when_it_is_sent_again(stage, shape) -> None:
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


@pytest.mark.defect("C9")
@pytest.mark.parametrize("client", ["fetch"])
@pytest.mark.parametrize("shape", [StatusInBody, CodeIn200, BearerJson, OwnHeader, KeptRefresh])
def test_a_stream_is_sent_neither_twice_nor_empty(stage, shape, client) -> None:
    # Over HTTP/1.1 Chromium sends no stream at all, and axios tries none: the page's fetch stands in for the wire.
    before = """
        const wire = window.fetch;
        window.streams = [];
        window.fetch = async (input, init = {}) => {
            if (!(init.body instanceof ReadableStream)) return wire(input, init);
            streams.push(await new Response(init.body).text());
            return wire(input, { ...init, body: streams.at(-1) });
        };
    """
    scene = stage(shape(), before=before)
    scene.backend.expire()
    response = scene.tab.ask("/api/echo", method="POST", kind="stream")
    challenge = scene.backend.challenge()
    assert (response["status"], response["notReplayed"]) == (challenge.status_code, "not_replayable")
    assert response["text"] == challenge.body.decode(), "the server's own response"
    assert scene.tab.run("() => streams") == ["streamed body"]
    assert scene.tab.ask("/api/echo", method="POST", kind="stream")["json"]["user"] == "ada"
    assert (scene.backend.refreshes, len(scene.backend.seen)) == (1, 2), (
        "the session was refreshed for the next request"
    )


@pytest.mark.parametrize("client", ["axios"])
def test_a_config_that_axios_returns_can_be_sent_again(stage, client) -> None:
    scene = stage(BearerJson(), window=None)
    keep = """async () => {
        const ok = await instance.post("/api/echo", { a: 1 });
        const bad = await instance.post("/api/never", { a: 1 }).catch((error) => error);
        window.kept = [ok.config, { ...bad.config, url: "/api/echo" }, { ...bad.response.config, url: "/api/echo" }];
    }"""
    scene.tab.run(keep)
    for number in range(3):
        scene.tab.pass_(31)
        scene.backend.seen.clear()
        scene.backend.expire()
        before = scene.backend.refreshes
        assert scene.tab.run("async (number) => (await instance.request(kept[number])).status", number) == 200
        first, again = scene.backend.seen
        assert (first.sha256, scene.backend.refreshes) == (again.sha256, before + 1)
