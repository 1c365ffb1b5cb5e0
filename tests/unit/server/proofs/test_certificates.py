"""What a proxy says about the TLS certificate of a client."""

from __future__ import annotations

import hashlib
from base64 import b64encode, urlsafe_b64encode

import pytest

from unbroken.errors import ConfigurationError
from unbroken.server import ProofPolicy
from unbroken.server.proofs.certificates import certificate_hash

SECRET = "of-the-proxy-0123456789"
DIGEST = hashlib.sha256(b"\xfb\xff certificate").digest()
WANTED = urlsafe_b64encode(DIGEST).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "told",
    [
        DIGEST.hex(),
        DIGEST.hex().upper(),
        DIGEST.hex(":"),
        b64encode(DIGEST).decode(),
        urlsafe_b64encode(DIGEST).decode(),
        WANTED,
    ],
)
def test_each_spelling_of_a_hash_is_one(told: str) -> None:
    assert certificate_hash(f"{SECRET} {told}", SECRET) == WANTED
    assert certificate_hash(f" {SECRET}  {told} ", SECRET) == WANTED


@pytest.mark.parametrize(
    "value",
    [
        "",
        WANTED,
        SECRET,
        f"{SECRET} ",
        f"{SECRET}{WANTED}",
        f"{SECRET.upper()} {WANTED}",
        f"{SECRET} {DIGEST.hex()[2:]}",
        f"{SECRET} {DIGEST.hex()}00",
        f"{SECRET} {WANTED}A",
        f"{SECRET} {hashlib.sha1(DIGEST).hexdigest()}",
        f"{SECRET} {WANTED}, {SECRET} {WANTED}",
        f"{WANTED}, {SECRET} {WANTED}",
        f"{SECRET} (null)",
        f"\u00e4 {WANTED}",
        f"{SECRET} {WANTED[:-1]}\u00e4",
    ],
)
def test_anything_else_is_no_certificate(value: str) -> None:
    assert certificate_hash(value, SECRET) == ""
    assert certificate_hash(value, "") == ""


@pytest.mark.parametrize(
    "settings",
    [
        {"certificate_header": "x-certificate"},
        {"certificate_secret": SECRET},
        {"certificate_header": "x certificate", "certificate_secret": SECRET},
        {"certificate_header": "x_certificate", "certificate_secret": SECRET},
        {"certificate_header": "x-certificate", "certificate_secret": "short"},
        {"certificate_header": "x-certificate", "certificate_secret": SECRET + " "},
        {"certificate_header": "x-certificate", "certificate_secret": SECRET + ","},
        {"certificate_header": b"x-certificate", "certificate_secret": SECRET},
        {"certificate_header": "x-certificate", "certificate_secret": 1},
    ],
)
def test_a_wrong_setting_is_told_and_no_secret_is_shown(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="certificate_") as caught:
        ProofPolicy(**settings)  # type: ignore[arg-type]
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(ProofPolicy(certificate_header="X-Certificate", certificate_secret=SECRET))
