"""Attacks on a client whose session is bound to a key: copied files, planted keys, hostile servers and APIs.

A thief of the tokens alone, or of the key alone, gets nothing; whoever answers the client makes it neither leak its key
nor give up its tokens, nor send more than twice what it was asked to send.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.support.adapters import ADAPTERS
from tests.support.attacks import Attacks
from tests.support.bound_api import PASSWORD, BoundApi, bound_api, claims_of
from unbroken import ConfigurationError, FileStore, HttpResponse, ProofKey, Session, SessionOver, UnbrokenError, oauth2
from unbroken.client.proof_key import private_pem
from unbroken.client.prover import MAX_ORIGINS, Prover
from unbroken.httpx2 import SessionAuth
from unbroken.starlette import current_claims

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
URL = "https://as.example.org"
JSON = {"content-type": "application/json"}


@pytest.fixture
def api() -> Iterator[BoundApi]:
    with bound_api() as made:
        yield made
        assert made.alarms() == 0


@pytest.fixture
def victim(api: BoundApi, tmp_path: Path) -> Session:
    key = ProofKey.in_file(tmp_path / "keys" / "a.key")
    return api.login(key, store=FileStore(tmp_path / "tokens" / "t.json"))


def works(session: Session, api: BoundApi) -> bool:
    with httpx2.Client(auth=SessionAuth(session)) as client:
        return client.get(api.url + "/me").status_code == 200


# ---- copied files ----------------------------------------------------------------------------------------------------


def test_copied_tokens_are_worth_nothing_and_end_nothing(
    api: BoundApi, victim: Session, tmp_path: Path, attacks: Attacks
) -> None:
    shutil.copytree(tmp_path / "tokens", tmp_path / "copy")
    text = (tmp_path / "copy" / "t.json").read_text()
    own = ProofKey.in_memory()
    jkt = json.loads(text)["tokens"]["jkt"]
    edited = {  # he may write what he likes into his copy
        "as it is": text,
        "without the name of the key": text.replace(jkt, ""),
        "with the name of his key": text.replace(jkt, own.thumbprint),
        "as bearer tokens": text.replace(jkt, "").replace('"DPoP"', '"Bearer"'),
    }
    for copy in edited.values():
        for key in (None, own, ProofKey.in_memory("Ed25519")):
            (tmp_path / "copy" / "t.json").write_text(copy)
            thief = Session(api.url, FileStore(tmp_path / "copy" / "t.json"), proof_key=key)
            attacks.try_one()
            with suppress(UnbrokenError):
                assert not works(thief, api)
            attacks.try_one()
            with pytest.raises(UnbrokenError):
                thief.newer_token(victim.token())
            attacks.try_one()
            assert not thief.logout(), "he cannot log the user out"
    assert works(victim, api)
    assert victim.newer_token(victim.token())


def test_a_copied_key_is_worth_nothing(api: BoundApi, victim: Session, tmp_path: Path, attacks: Attacks) -> None:
    shutil.copytree(tmp_path / "keys", tmp_path / "copy")
    key = ProofKey.in_file(tmp_path / "copy" / "a.key")
    thief = Session(api.url, proof_key=key)
    attacks.try_one()
    with pytest.raises(SessionOver):
        works(thief, api)
    proof = Prover(key, time.time).proof("GET", api.url + "/me", "made up")
    attacks.try_one()
    headers = {"authorization": "DPoP made.up.token", "dpop": proof}
    assert httpx2.get(api.url + "/me", headers=headers).status_code == 401


def test_neither_file_has_what_is_in_the_other(victim: Session, tmp_path: Path, attacks: Attacks) -> None:
    tokens, key = (tmp_path / "tokens" / "t.json").read_bytes(), (tmp_path / "keys" / "a.key").read_bytes()
    attacks.try_one()
    assert victim.token().encode() in tokens
    assert victim.token().encode() not in key
    assert b"PRIVATE" not in tokens
    assert b"PRIVATE" not in pickle.dumps(victim)


def test_a_request_that_was_overheard_is_good_once(api: BoundApi, victim: Session, attacks: Attacks) -> None:
    assert works(victim, api)
    [heard] = api.of("/me")
    headers = {"authorization": heard.authorization, "dpop": heard.proof}
    for method, path in (("GET", "/me"), ("POST", "/me"), ("GET", "/auth/session"), ("POST", "/auth/logout")):
        attacks.try_one()
        assert httpx2.request(method, api.url + path, headers=headers).status_code in (400, 401)
    assert works(victim, api)


# ---- planted keys ----------------------------------------------------------------------------------------------------


def test_planted_keys_are_refused(tmp_path: Path, attacks: Attacks) -> None:
    own = tmp_path / "own"
    own.mkdir(mode=0o700)
    bait = tmp_path / "bait"
    bait.write_bytes(private_pem(ProofKey.in_memory()))
    fifo, folder, open_file = own / "fifo", own / "folder", own / "open"
    os.mkfifo(fifo)
    folder.mkdir()
    open_file.write_bytes(bait.read_bytes())
    open_file.chmod(0o622)
    for planted in (fifo, folder, open_file):
        attacks.try_one()
        began = time.monotonic()
        with pytest.raises(ConfigurationError):
            ProofKey.in_file(planted)
        assert time.monotonic() - began < 2


@as_root
def test_a_key_or_a_folder_of_another_user_is_refused(tmp_path: Path, attacks: Attacks) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o700)
    os.chown(theirs, NOBODY, NOBODY)
    attacks.try_one()
    with pytest.raises(ConfigurationError):
        ProofKey.in_file(theirs / "a.key")
    assert not list(theirs.iterdir())
    file = tmp_path / "a.key"
    ProofKey.in_file(file)
    os.chown(file, NOBODY, NOBODY)
    attacks.try_one()
    with pytest.raises(ConfigurationError):
        ProofKey.in_file(file)
    link = tmp_path / "sticky" / "link.key"
    link.parent.mkdir()
    link.parent.chmod(0o1777)
    link.symlink_to(tmp_path / "elsewhere")
    os.lchown(link, NOBODY, NOBODY)
    attacks.try_one()
    with pytest.raises(ConfigurationError):
        ProofKey.in_file(link)
    assert not (tmp_path / "elsewhere").exists()


# ---- hostile servers -------------------------------------------------------------------------------------------------

NONCES = ["", " ", "a b", 'a"', "a\\", "\x7f", "a\r\nx: y", "ä", "x" * 1025, "x" * 1_000_000, "a, b"]
DATES = ["", "now", "Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 99 Foo 2026 25:61:61 GMT",
         "x" * 100_000, "Thu, 01 Jan 0001 00:00:00 +2359", "1" * 5000]  # fmt: skip


class Hostile:
    """A token endpoint that gives tokens once, and then whatever it likes."""

    def __init__(self, status: int, headers: dict[str, str], error: str) -> None:
        self.answer = HttpResponse(status, JSON | headers, json.dumps({"error": error}).encode())
        self.proofs = list[str]()

    def __call__(self, request: Any, _: float) -> HttpResponse:
        self.proofs.append(request.headers["dpop"])
        if len(self.proofs) == 1:
            body = {"access_token": "A", "refresh_token": "R", "token_type": "DPoP", "expires_in": 600}
            return HttpResponse(200, JSON, json.dumps(body).encode())
        return self.answer


def test_odd_nonces_and_dates_cost_no_tokens_and_nothing_else(
    attacks: Attacks, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unbroken.client.core import refresh_rules

    monkeypatch.setattr(refresh_rules, "RETRY_PAUSES_SECONDS", (0.0, 0.0))
    for headers in [{"dpop-nonce": nonce} for nonce in NONCES] + [{"date": date} for date in DATES]:
        for status in (400, 401):
            for error in ("use_dpop_nonce", "invalid_dpop_proof", "invalid_grant_not", "x"):
                server = Hostile(status, headers, error)
                session = Session(oauth2(URL + "/token"), send=server, proof_key=ProofKey.in_memory("Ed25519"))
                session.login("ada", "x")
                attacks.try_one()
                with pytest.raises(UnbrokenError):
                    session.newer_token("A")
                assert session.token() == "A"
                assert len(server.proofs) <= 1 + 3 * 2
                for proof in server.proofs:
                    claims = claims_of(proof)
                    assert abs(claims["iat"]) < 1e12
                    assert len(proof) < 4096, "a nonce makes no header that servers refuse"


def test_a_server_cannot_bring_a_client_to_delete_its_tokens_by_its_proofs(attacks: Attacks) -> None:
    body = {"error": "invalid_grant", "reason": "wrong_key"}
    server = Hostile(400, {}, "")
    server.answer = HttpResponse(400, JSON, json.dumps(body).encode())
    session = Session(oauth2(URL + "/token"), send=server, proof_key=ProofKey.in_memory("Ed25519"))
    session.login("ada", "x")
    attacks.try_one()
    with pytest.raises(SessionOver):
        session.newer_token("A")
    assert session.store.load().tokens is not None


def test_origins_without_end_are_forgotten(attacks: Attacks, size: Callable[[int, int], int]) -> None:
    prover = Prover(ProofKey.in_memory("Ed25519"), time.time)
    for number in range(size(2_000, 200_000)):
        attacks.try_one()
        prover.must_repeat(f"https://{number}.example/x", HttpResponse(401, {"dpop-nonce": "n" * 1000}))
    assert len(prover._known) <= MAX_ORIGINS


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_api_that_wants_proofs_without_end_gets_two_and_no_refresh(adapter: str, attacks: Attacks) -> None:
    answers: dict[str, Callable[[int], Response]] = {
        "nonces": lambda n: Response(b"", 401, {
            "www-authenticate": 'DPoP error="use_dpop_nonce"', "dpop-nonce": f"{n}"}),
        "proofs": lambda n: Response(b"", 401, {"www-authenticate": 'DPoP error="invalid_dpop_proof"'}),
        "times": lambda n: Response(b"", 401, {
            "www-authenticate": 'DPoP error="invalid_dpop_proof"', "date": DATES[2 + n % 2], "dpop-nonce": f"{n}"}),
    }  # fmt: skip

    async def never(request: Any) -> Response:
        return answers[request.path_params["kind"]](len(server.seen))

    with bound_api(more=[Route("/never/{kind}", never, methods=["POST"])]) as server:
        session = server.login()
        with ADAPTERS[adapter](session) as client:
            for kind in answers:
                attacks.try_one()
                assert client.request("POST", f"{server.url}/never/{kind}", content=b"x").status == 401
                assert len(server.of(f"/never/{kind}")) <= 2
        assert not server.of("/auth/refresh")


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_redirects_carry_neither_token_nor_proof_away(adapter: str, attacks: Attacks) -> None:
    async def landing(request: Any) -> Response:
        return JSONResponse({})

    with bound_api() as api, bound_api(more=[Route("/trap", landing, methods=["GET", "POST"])]) as trap:
        with ADAPTERS[adapter](api.login()) as client:
            for status in (301, 302, 303, 307, 308):
                for target in (trap.url, trap.url.replace("127.0.0.1", "localhost")):
                    attacks.try_one()
                    client.request("POST", f"{api.url}/redirect?status={status}&to={target}/trap", content=b"x")
        assert trap.seen
        assert {(one.authorization, one.proof) for one in trap.seen} == {("", "")}


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_redirects_in_a_circle_end(adapter: str, attacks: Attacks) -> None:
    async def circle(request: Any) -> Response:
        current_claims(request)
        return RedirectResponse("/circle", 307)

    with bound_api(more=[Route("/circle", circle)]) as api, ADAPTERS[adapter](api.login()) as client:
        attacks.try_one()
        with suppress(client.broken, httpx2.TooManyRedirects):
            client.request("GET", f"{api.url}/circle")
        assert len(api.of("/circle")) < 100


def test_a_password_is_never_in_a_proof(api: BoundApi, victim: Session, attacks: Attacks) -> None:
    attacks.try_one()
    for one in api.seen:
        if one.proof:
            assert PASSWORD not in json.dumps(claims_of(one.proof))
            assert victim.token() not in json.dumps(claims_of(one.proof))
