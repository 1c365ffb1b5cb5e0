"""A login of two steps in a page, by the example that the page about browsers shows."""

from __future__ import annotations

import hashlib
import hmac
import struct
import time

import pytest

from tests.browser.shop import PASSWORD
from tests.docs.pages import ROOT, examples
from unbroken.server import Cookies, MfaRequired

[EXAMPLE] = [code for code in examples(ROOT / "docs" / "browser.md", "js") if "mfa_required" in code]
SECRET = b"12345678901234567890"
WRONG = "wrong"


def code_of(now: float) -> str:
    """The code of an authenticator app (RFC 6238)."""
    digest = hmac.digest(SECRET, struct.pack(">Q", int(now) // 30), hashlib.sha1)
    [number] = struct.unpack_from(">I", digest, digest[-1] & 15)
    return f"{(number & 0x7FFFFFFF) % 1_000_000:06}"


def authenticate(name: str, password: str):
    if password != PASSWORD:
        return None
    return MfaRequired(name, kind="totp", hint="the app on your phone") if name == "ada" else name


def second_factor(subject: str, kind: str, code: str) -> bool:
    now = time.time()
    return (subject, kind) == ("ada", "totp") and code in [code_of(now + away) for away in (-30, 0, 30)]


# The user, who types one code after the other.
LOG_IN = """(name, password, codes) => {
    window.asked = [];
    return logIn(name, password, async (kind, hint) => {
        asked.push([kind, hint]);
        return codes.shift();
    });
}"""


@pytest.fixture(params=["memory", "localStorage", "cookie"])
def page(request, shop, tab):
    """A page with the example in it, where nobody is logged in; ``page.server`` is its server."""
    storage = request.param
    more = {"cookies": Cookies("both", secure=False)} if storage == "cookie" else {}
    server = shop(authenticate=authenticate, verify_mfa=second_factor, **more)
    opened = tab(server)
    opened.start(storage=storage, refreshTimeout=2)
    json = '"application/json"'
    assert json in EXAMPLE
    code = EXAMPLE.replace(json, json + ', "X-Unbroken": "1"') if storage == "cookie" else EXAMPLE
    opened.page.add_script_tag(content=code)
    opened.server = server
    return opened


def test_a_wrong_code_and_then_the_right_one_log_in(page) -> None:
    assert page.attempt(LOG_IN, "ada", PASSWORD, [WRONG, code_of(time.time())]) == {"value": None}
    assert page.run("() => asked") == [["totp", "the app on your phone"]] * 2
    assert page.status["state"] == "good"
    assert page.ask("/echo")["json"]["user"] == "ada"
    page.server.expire()
    assert page.ask("/echo")["json"]["user"] == "ada"
    assert (page.server.refreshes, page.server.alarms()) == (1, 0)


def test_a_user_without_mfa_is_not_asked_for_a_code(page) -> None:
    assert page.attempt(LOG_IN, "bob", PASSWORD, []) == {"value": None}
    assert page.run("() => asked") == []
    assert page.ask("/echo")["json"]["user"] == "bob"


def test_a_wrong_password_asks_for_no_code(page) -> None:
    assert page.attempt(LOG_IN, "ada", WRONG, [code_of(time.time())])["error"] == "access_denied"
    assert page.run("() => asked") == []
    assert page.server.sessions.list_sessions("ada") == []


def test_a_code_for_a_revoked_login_fails_and_the_login_starts_again(page) -> None:
    step = "(password) => session.login('ada', password).catch(({ cause }) => (window.step = cause))"
    assert page.run(step, PASSWORD)["challenge_type"] == "totp"
    page.server.sessions.revoke_subject("ada")
    failed = page.attempt("(code) => sendCode(step, () => code)", code_of(time.time()))
    assert "log in again" in failed["message"]
    assert page.ask("/echo")["reason"] == "not_logged_in"


def test_the_mfa_token_appears_in_no_message_and_no_storage(page) -> None:
    failed = page.attempt(
        "(password) => session.login('ada', password).catch((error) => {"
        " window.secret = error.cause.mfa_token; throw error; })",
        PASSWORD,
    )
    assert (failed["error"], failed["reason"]) == ("access_denied", "mfa_required")
    everything = "() => JSON.stringify([localStorage, sessionStorage, document.cookie, heard])"
    assert page.run("() => secret") not in page.run(everything) + failed["message"]
