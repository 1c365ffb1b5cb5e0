"""Passkeys in Chromium's virtual authenticator, by the page about logins of one's own: alone, and for MFA."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.responses import HTMLResponse
from starlette.routing import Route

from tests.docs.pages import ROOT, examples
from tests.docs.test_own_logins import program_of
from tests.support.backend import running

[SCRIPT] = examples(ROOT / "docs" / "own-logins.md", "js")
HTML = f"<!doctype html><title>shop</title><script>{SCRIPT}</script>"
ADA = {"username": "ada", "password": "correct horse"}
AUTHENTICATOR = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}
MFA_LOGIN = """async ([login, credential]) => {
    const send = async (path, body) => {
        const headers = { "content-type": "application/json", "x-unbroken": "1" };
        const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
        return [response.status, response.status === 204 ? {} : await response.json()];
    };
    const [, asked] = await send("/strict/login", login);
    const options = PublicKeyCredential.parseRequestOptionsFromJSON(await post("/passkey/ask"));
    const signed = (await navigator.credentials.get({ publicKey: options })).toJSON();
    const code = JSON.stringify(credential ?? signed);
    const [status, body] = await send("/strict/login/step", { mfa_token: asked.mfa_token, code });
    return [asked.challenge_type, status, body, code];
}"""


class Shop:
    """The program of the page at ``http://localhost``, a page of it, and the authenticator of its user."""

    def __init__(self, page: Any, program: dict[str, Any], url: str) -> None:
        self.page, self.program, self.url = page, program, url
        self.cdp = page.context.new_cdp_session(page)
        self.cdp.send("WebAuthn.enable")
        options = {"options": AUTHENTICATOR}
        self.authenticator = self.cdp.send("WebAuthn.addVirtualAuthenticator", options)["authenticatorId"]

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self.page.request.post(self.url + path, data=body, headers={"x-unbroken": "1"})

    def who(self) -> str:
        response = self.page.request.get(self.url + "/auth/session", headers={"x-unbroken": "1"})
        return response.json()["sub"] if response.ok else ""

    def sign_out(self) -> None:
        assert self.post("/sign-out", {}).status == 204
        assert self.who() == ""


@pytest.fixture
def shop(context: Any) -> Iterator[Shop]:
    program = program_of("https://provider.example")
    app = program["app"]
    app.router.routes.append(Route("/", lambda _: HTMLResponse(HTML)))
    with running(app) as port:
        url = f"http://localhost:{port}"  # an IP address has no passkeys
        program["ORIGIN"] = url
        page = context.new_page()
        page.goto(url)
        found = Shop(page, program, url)
        assert found.post("/sign-up", ADA).ok
        assert page.evaluate("addPasskey()") == {"added": True}
        found.sign_out()
        yield found


def test_a_passkey_logs_in_without_a_name_or_a_password(shop: Shop) -> None:
    body = shop.page.evaluate("logInByPasskey()")
    assert ("access_token" in body, shop.who()) == (False, "ada"), "the session is in cookies"
    assert shop.page.request.post(shop.url + "/auth/refresh", headers={"x-unbroken": "1"}).ok
    shop.sign_out()


def test_a_signature_counts_once_and_for_its_challenge_alone(shop: Shop) -> None:
    get = """async () => {
        const options = PublicKeyCredential.parseRequestOptionsFromJSON(await post("/passkey/ask"));
        return (await navigator.credentials.get({ publicKey: options })).toJSON();
    }"""
    signed = shop.page.evaluate(get)
    assert shop.post("/passkey/login", signed).ok
    shop.sign_out()
    assert shop.post("/passkey/login", signed).status == 401, "the same once more"
    other = shop.page.evaluate(get)
    mixed = {**other, "response": {**other["response"], "signature": signed["response"]["signature"]}}
    for wrong in (mixed, {**other, "rawId": "AAAA", "id": "AAAA"}, {}, {"rawId": 1}, {"rawId": other["rawId"]}):
        assert shop.post("/passkey/login", wrong).status == 401
    assert shop.who() == ""


def test_a_passkey_is_the_mfa_after_a_password(shop: Shop) -> None:
    kind, status, body, code = shop.page.evaluate(MFA_LOGIN, [ADA, None])
    assert (kind, status, "sid" in body) == ("passkey", 200, True)
    kind, status, body, _ = shop.page.evaluate(MFA_LOGIN, [ADA, json.loads(code)])
    assert (kind, status, body["reason"]) == ("passkey", 401, "code"), "a signature that was used"


def test_an_authenticator_that_has_not_verified_its_user_logs_nobody_in(shop: Shop) -> None:
    unverified = {"authenticatorId": shop.authenticator, "isUserVerified": False}
    shop.cdp.send("WebAuthn.setUserVerified", unverified)
    failed = shop.page.evaluate("logInByPasskey().then(() => '', (error) => error.name)")
    assert (failed, shop.who()) == ("NotAllowedError", "")
