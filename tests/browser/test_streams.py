"""Bodies that can be sent only once, over HTTP/2 with TLS: never sent twice, and never empty."""

from __future__ import annotations

import pytest

from tests.browser.conftest import PageServer
from tests.browser.http2 import running_http2
from tests.browser.scene import DOWN
from tests.browser.shop import Shop
from tests.interop.backends.base import Fault

WHOLE = {"stream": b"streamed body", "pieces": b"".join(bytes([n]) * 65536 for n in range(16))}

BY = {"fetch": {}, "request": {}, "axios": {"adapter": "fetch"}}  # how each client sends streams


@pytest.fixture(scope="module")
def page_server(modules, tmp_path_factory):
    """A server that speaks HTTP/2; a test puts its shop behind it."""
    opened = PageServer(modules)
    with running_http2(opened, tmp_path_factory.mktemp("tls")) as opened.url:
        yield opened


@pytest.fixture
def context_options():
    """Accept the server's own certificate."""
    return {"ignore_https_errors": True}


@pytest.fixture
def server(page_server, tmp_path):
    made = Shop(tmp_path)
    page_server.app, made.url = hasty(made.app(), made), page_server.url
    yield made
    made.close()


def hasty(app, shop):
    """*app*, with a path that has refused a body before it has all of it."""

    async def refusing(scope, receive, send) -> None:
        if scope["path"] != "/hasty":
            await app(scope, receive, send)
            return
        headers = [(b"www-authenticate", b'Bearer error="invalid_token"')]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        body, more = b"", True
        while more:
            event = await receive()
            body, more = body + event["body"], event["more_body"]
        shop.arrived.append(body)
        await send({"type": "http.response.body", "body": b""})

    return refusing


@pytest.fixture(params=WHOLE)
def kind(request) -> str:
    return request.param


@pytest.fixture
def upload(server, tab, client, kind):
    """Sends a stream as ada, over HTTP/2, by a session with these options: ``upload.tab`` is where."""
    page = tab(server, client)
    page.start(storage="localStorage", refreshTimeout=2)
    page.log_in()

    def send(path: str = "/echo", count: int = 1):
        return page.together(count, path, method="POST", kind=kind, **BY[client])

    def arrived():
        """Each body that has arrived: ``whole``, or of how many bytes."""
        return ["whole" if body == WHOLE[kind] else len(body) for body in server.arrived]

    send.tab, send.arrived = page, arrived  # type: ignore[attr-defined]
    yield send
    used = page.run("() => performance.getEntriesByType('resource').map(({ nextHopProtocol }) => nextHopProtocol)")
    assert set(used) == {"h2"}


def test_a_stream_waits_for_the_refresh_of_an_expired_token(server, upload) -> None:
    server.expire()
    upload.tab.pass_(1800)
    [came] = upload()
    assert (came["status"], upload.arrived()) == (200, ["whole"])
    assert (server.refreshes, server.alarms()) == (1, 0)


def test_a_stream_waits_for_the_refresh_of_an_ageing_token(server, upload) -> None:
    server.expire()
    upload.tab.pass_(1750)
    [came] = upload()
    assert (came["status"], upload.arrived()) == (200, ["whole"])
    assert (server.refreshes, server.alarms()) == (1, 0)


@pytest.mark.defect("P16")
def test_a_rejected_stream_is_not_sent_again_and_the_next_one_is_accepted(server, upload) -> None:
    server.expire()
    [came] = upload()
    assert (came["status"], came["notReplayed"], came["refreshed"]) == (401, "not_replayable", True)
    assert came["json"]["error"] == "invalid_token", "the server's own response"
    assert upload.arrived() == ["whole"], "once, and whole"
    assert (server.bodies, server.refreshes) == ([], 1)
    [came] = upload()
    assert (came["status"], came["notReplayed"], came["json"]["user"]) == (200, None, "ada")
    assert upload.arrived() == ["whole"] * 2
    assert (len(server.bodies), server.refreshes, server.alarms()) == (1, 1, 0)


def test_many_rejected_streams_share_one_refresh(server, upload) -> None:
    server.expire()
    server.spoil(Fault(seconds=0.3))
    assert [came["notReplayed"] for came in upload(count=5)] == ["not_replayable"] * 5
    assert (upload.arrived(), server.refreshes) == (["whole"] * 5, 1)
    assert [came["status"] for came in upload(count=5)] == [200] * 5
    assert (len(server.arrived), len(server.bodies), server.refreshes, server.alarms()) == (10, 5, 1, 0)


def test_a_rejected_stream_says_when_the_session_could_not_be_refreshed(server, upload) -> None:
    server.expire()
    server.spoil(DOWN)
    [came] = upload()
    assert (came["status"], came["notReplayed"], came["refreshed"]) == (401, "not_replayable", False)
    assert upload.arrived() == ["whole"]
    upload.tab.pass_(31)
    [came] = upload()
    assert came["notReplayed"] == "not_replayable", "its token was still the one that is dead"
    [came] = upload()
    assert (came["status"], len(server.bodies), server.alarms()) == (200, 1, 0)


def test_a_stream_is_not_sent_while_a_refresh_fails(server, upload) -> None:
    server.spoil(DOWN)
    upload.tab.pass_(1800)
    [came] = upload()
    assert (came["error"], server.arrived) == ("try_later", [])
    upload.tab.pass_(31)
    [came] = upload()
    assert (came["status"], upload.arrived()) == (200, ["whole"])


def test_a_stream_that_is_rejected_before_its_end_is_not_sent_again(server, upload) -> None:
    [came] = upload("/hasty")
    assert (came["status"], came["notReplayed"], came["refreshed"]) == (401, "not_replayable", True)
    assert (upload.arrived(), server.refreshes) == (["whole"], 1)


@pytest.mark.parametrize("client", ["request"])
def test_a_request_object_with_a_stream_is_sent_again_by_its_copy(server, upload) -> None:
    server.expire()
    [came] = upload()
    assert (came["status"], came["notReplayed"]) == (200, None)
    assert upload.arrived() == ["whole"] * 2, "whole both times: the browser keeps a copy"
    assert (len(server.bodies), server.refreshes) == (1, 1)


@pytest.mark.parametrize("kind", ["stream"])
def test_a_stream_over_http_1_is_the_platforms_own_error(shop, at_shop, client, kind) -> None:
    server = shop()
    [tab] = at_shop(server)
    came = tab.ask("/echo", method="POST", kind=kind, **BY[client])
    assert (came["error"], server.arrived) == ("TypeError" if client == "fetch" else "ERR_NETWORK", [])
    assert tab.ask("/echo", method="POST", body="x")["status"] == 200
