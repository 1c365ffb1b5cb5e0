"""Keys of clients: where they are kept, who shares them, and what is refused.

Modules: client/prover.py.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import pickle
import stat
import subprocess
import sys
from base64 import urlsafe_b64encode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from joserfc import jws
from joserfc.jwk import import_key

from tests.support.bound_api import ALGORITHMS, bound_api
from unbroken import ConfigurationError, FileStore, ProofKey, Session
from unbroken.client.prover import MAX_ORIGINS, Prover
from unbroken.server.keys.proof_token import ProofReader


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_key_signs_what_others_verify(alg: Any) -> None:
    key = ProofKey.in_memory(alg)
    assert key.algorithm == alg
    proof = Prover(key, lambda: 1000.0).proof("GET", "https://a.example/x")
    assert ProofReader().read(proof).jkt == key.thumbprint
    if alg == "ES256":  # the library wants to be told about the others
        found = jws.deserialize_compact(proof, import_key(key.public_jwk), algorithms=[alg])
        assert json.loads(found.payload)["htu"] == "https://a.example/x"


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_the_thumbprint_is_that_of_rfc_7638(alg: Any) -> None:
    key = ProofKey.in_memory(alg)
    members = {name: value for name, value in key.public_jwk.items() if name in ("kty", "crv", "x", "y")}
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
    assert key.thumbprint == urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()
    assert import_key(key.public_jwk).thumbprint() == key.thumbprint


def test_the_usual_algorithm_is_es256_and_a_file_keeps_its_own(tmp_path: Path) -> None:
    assert ProofKey.in_memory().algorithm == "ES256"
    key = ProofKey.in_file(tmp_path / "a.key", "Ed25519")
    again = ProofKey.in_file(tmp_path / "a.key")
    assert (again.algorithm, again.thumbprint) == ("Ed25519", key.thumbprint)
    old_name = ProofKey.in_file(tmp_path / "a.key", "EdDSA")
    assert (old_name.algorithm, old_name.thumbprint) == ("EdDSA", key.thumbprint)
    with pytest.raises(ConfigurationError, match="algorithm must be Ed25519 or EdDSA"):
        ProofKey.in_file(tmp_path / "a.key", "ES256")


def test_a_file_is_its_owners_alone_and_folders_are_made(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.key"
    key = ProofKey.in_file(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [one.name for one in file.parent.iterdir()] == ["a.key"], "nothing is left beside it"
    assert ProofKey.in_file(str(file)).thumbprint == key.thumbprint


def test_a_key_of_another_program_is_taken(tmp_path: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    file = tmp_path / "a.key"
    file.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    file.chmod(0o600)
    assert ProofKey.in_file(file).thumbprint == ProofKey(private).thumbprint


def pem(private: Any, encryption: Any = None) -> bytes:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


WRONG = {
    "a diary": b"dear diary",
    "nothing": b"",
    "a public key": b"-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n",
    "an RSA key": pem(rsa.generate_private_key(65537, 2048)),
    "another curve": pem(ec.generate_private_key(ec.SECP384R1())),
    "a key with a password": pem(ed25519.Ed25519PrivateKey.generate(), BestAvailableEncryption(b"secret")),
    "a token file": b'{"unbroken": 1, "tokens": null}',
}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
def test_a_file_with_something_else_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.key"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(ConfigurationError):
        ProofKey.in_file(file)
    assert file.read_bytes() == content


def test_a_file_that_others_may_change_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.key"
    ProofKey.in_file(file)
    file.chmod(0o666)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        ProofKey.in_file(file)


def test_a_key_in_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(ConfigurationError, match="other users may write"):
        ProofKey.in_file(folder / "a.key")
    assert not list(folder.iterdir())


def test_a_folder_in_its_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="proof key"):
        ProofKey.in_file(tmp_path)


@pytest.mark.parametrize("value", [None, "x", b"", 5, rsa.generate_private_key(65537, 2048)])
def test_what_is_no_private_key_is_named(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="private_key"):
        ProofKey(value)


def test_threads_that_make_it_at_once_get_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: ProofKey.in_file(tmp_path / "a.key").thumbprint, range(16)))
    assert len(set(made)) == 1


def test_processes_that_make_it_at_once_get_one_key(tmp_path: Path) -> None:
    program = f"from unbroken import ProofKey; print(ProofKey.in_file({str(tmp_path / 'a.key')!r}).thumbprint)"
    started = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for _ in range(4)]
    assert len({one.communicate(timeout=60)[0] for one in started}) == 1


def test_a_key_goes_to_another_process_by_its_place(tmp_path: Path) -> None:
    key = ProofKey.in_file(tmp_path / "a.key", "EdDSA")
    sent = pickle.dumps(key)
    assert b"PRIVATE" not in sent
    again = pickle.loads(sent)
    assert (again.thumbprint, again.algorithm) == (key.thumbprint, "EdDSA")


def test_a_key_in_memory_goes_nowhere() -> None:
    with pytest.raises(TypeError, match="in a file"):
        pickle.dumps(ProofKey.in_memory())


def test_no_repr_shows_the_private_key(tmp_path: Path) -> None:
    key = ProofKey.in_file(tmp_path / "a.key")
    secret = key._private_key.private_numbers().private_value
    for text in (repr(key), repr(Session("https://example.org", proof_key=key)), str(vars(key))):
        assert str(secret) not in text
        assert "PRIVATE" not in text


def test_the_keyring_keeps_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keyring = pytest.importorskip("keyring")
    kept: dict[tuple[str, str], str] = {}
    monkeypatch.setattr(keyring, "get_password", lambda service, name: kept.get((service, name)))
    monkeypatch.setattr(keyring, "set_password", lambda service, name, value: kept.update({(service, name): value}))
    key = ProofKey.in_keyring("shop", locks=tmp_path)
    again = ProofKey.in_keyring("shop", locks=tmp_path)
    assert again.thumbprint == key.thumbprint == pickle.loads(pickle.dumps(key)).thumbprint
    assert list(kept) == [("shop", "proof-key")]
    kept["shop", "proof-key"] = "a password"
    with pytest.raises(ConfigurationError, match="left as it is"):
        ProofKey.in_keyring("shop", locks=tmp_path)
    assert kept["shop", "proof-key"] == "a password"


# ---- sessions with a key ---------------------------------------------------------------------------------------------


def _refreshed(store: str, key: str, url: str, results: Any) -> None:
    session = Session(url, FileStore(store), proof_key=ProofKey.in_file(key))
    results.put(session.newer_token(session.token()))


def test_processes_share_one_session_and_its_key(tmp_path: Path) -> None:
    store, key = str(tmp_path / "tokens.json"), str(tmp_path / "a.key")
    with bound_api(require_nonce=True) as api:
        session = Session(api.url, FileStore(store), proof_key=ProofKey.in_file(key))
        session.login("ada", "correct horse")
        spawn = multiprocessing.get_context("spawn")
        results = spawn.Queue()
        others = [spawn.Process(target=_refreshed, args=(store, key, api.url, results)) for _ in range(2)]
        for one in others:
            one.start()
        assert all(results.get(timeout=60) for _ in others)
        for one in others:
            one.join(30)
        assert api.all_proofs_differ()
        assert api.alarms() == 0
        assert session.newer_token(session.token())


def test_tokens_of_another_key_are_refused_when_they_are_imported() -> None:
    key = ProofKey.in_memory()
    tokens = {"access_token": "opaque", "refresh_token": "r", "token_type": "DPoP"}
    with pytest.raises(ConfigurationError, match="proof_key"):
        Session("https://example.org").import_tokens(tokens)
    session = Session("https://example.org", proof_key=key)
    assert session.import_tokens(tokens).jkt == key.thumbprint
    head = urlsafe_b64encode(b'{"alg":"ES256"}').rstrip(b"=").decode()
    claims = urlsafe_b64encode(json.dumps({"cnf": {"jkt": "another"}}).encode()).rstrip(b"=").decode()
    with pytest.raises(ConfigurationError, match="proof_key"):
        session.import_tokens({**tokens, "access_token": f"{head}.{claims}.x"})
    assert session.token() == "opaque"


def test_require_bound_needs_a_key() -> None:
    with pytest.raises(ConfigurationError, match="require_bound"):
        Session("https://example.org", require_bound=True)


def test_headers_go_to_origins_of_the_session_only() -> None:
    session = Session("https://example.org", proof_key=ProofKey.in_memory())
    session.import_tokens({"access_token": "a", "refresh_token": "r", "token_type": "DPoP", "expires_in": 600})
    for url in ("https://elsewhere.example/", "example.org", "", "https://example.org.evil/", "http://example.org/"):
        with pytest.raises(Exception, match="url"):
            session.request_headers("GET", url)
    with pytest.raises(Exception, match="method"):
        session.request_headers("GET /", "https://example.org/")
    assert session.request_headers("GET", "wss://example.org/live")["DPoP"]


def test_what_is_known_of_origins_is_bounded() -> None:
    from unbroken import HttpResponse

    prover = Prover(ProofKey.in_memory("Ed25519"), lambda: 0.0)
    for number in range(3 * MAX_ORIGINS):
        prover.must_repeat(f"https://{number}.example/", HttpResponse(200, {"dpop-nonce": "n"}))
    assert len(prover._known) <= MAX_ORIGINS
