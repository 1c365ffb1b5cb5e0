"""The key of a client, which a session can be bound to (RFC 9449): where it is kept, and how it signs.

1. The key is made by ``cryptography``, and signs by it. It is P-256 (ES256, the default, which every server of the
   field takes), or Ed25519 under either of its names (RFC 9864).
2. It is kept apart from the tokens: neither of the two alone is worth anything. A file has mode 0600 from its first
   byte on, and is private as the token file is (``_private_files.py``); the keyring of the system has an entry of its
   own.
3. All processes of a session share the key. Of two that make it at the same time one wins, and the other takes that.
4. A key that is kept somewhere goes to another process by the name of its place. One in memory does not go anywhere.
5. What is there already is never replaced: a file with something else is refused and left alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from unbroken import _base64
from unbroken._arguments import checked, checked_class
from unbroken._private_files import (
    create_private,
    file_lock,
    read_private,
    require_flock,
    require_private_folder,
    resolve_private,
)
from unbroken.errors import ConfigurationError, StoreUnavailable

__all__ = ["ProofAlgorithm", "ProofKey", "keyring_secret", "private_pem"]

ProofAlgorithm = Literal["ES256", "Ed25519", "EdDSA"]

JWT_TYPE = "dpop+jwt"
MEMBER_BYTES = 32  # of a coordinate, and of half a signature
LOCK_SECONDS = 10.0
WHAT = "the proof key"


@checked_class(own=("private_key",))
class ProofKey:
    """The key that the sessions of one client are bound to. Give it to ``Session(proof_key=...)``.

    ``ProofKey.in_file(path)`` and ``ProofKey.in_keyring(service)`` keep it; ``ProofKey.in_memory()`` ends with the
    process, and its sessions with it. Or pass a private key of ``cryptography``: P-256 or Ed25519. ``algorithm`` is the
    name under which it signs, ``thumbprint`` what servers call it (RFC 7638). Raise ConfigurationError for another
    key, or without ``cryptography``.
    """

    def __init__(self, private_key: object, algorithm: ProofAlgorithm | None = None) -> None:
        self.algorithm, jwk, self.sign = _opened(private_key, algorithm)
        self._private_key: Any = private_key
        self._jwk, self.thumbprint = jwk, _thumbprint(jwk)
        header = {"typ": JWT_TYPE, "alg": self.algorithm, "jwk": jwk}
        self.encoded_header = _base64.encode(json.dumps(header, separators=(",", ":")).encode())
        self._place: tuple[Callable[..., ProofKey], tuple[Any, ...]] | None = None

    @property
    def public_jwk(self) -> dict[str, str]:
        """The public key as a JWK (RFC 7517)."""
        return dict(self._jwk)

    def __repr__(self) -> str:
        return f"<ProofKey {self.algorithm} {self.thumbprint}>"

    def __reduce__(self) -> tuple[object, ...]:
        if self._place is None:
            raise TypeError("a ProofKey in memory cannot leave its process: keep it in a file, or in the keyring")
        return self._place  # rule 4

    @classmethod
    @checked()
    def in_memory(cls, algorithm: ProofAlgorithm = "ES256") -> ProofKey:
        """Return a new key that only this process has."""
        return cls(_new_private_key(algorithm), algorithm)

    @classmethod
    @checked()
    def in_file(cls, path: str | os.PathLike[str], algorithm: ProofAlgorithm | None = None) -> ProofKey:
        """Return the key in the file at *path* (``~`` is the home folder), made if it is missing: PKCS #8, as PEM.

        *algorithm*: by default that of the key which is there, ES256 for a new one. Raise ConfigurationError if others
        may change the file (rule 2), or if it holds something else.
        """
        file = resolve_private(path, WHAT)
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            require_private_folder(file.parent)
            pem = _read(file) or _created(file, _new_pem(algorithm))
        except OSError as error:
            raise ConfigurationError(f"{WHAT} {file} cannot be read or made: {error.strerror}") from error
        return _kept(cls, pem, algorithm, f"{WHAT} {file}", (cls.in_file, (file, algorithm)))

    @classmethod
    @checked()
    def in_keyring(
        cls,
        service: str,
        name: str = "proof-key",
        algorithm: ProofAlgorithm | None = None,
        *,
        locks: str | os.PathLike[str] = "~/.config/unbroken/locks",
    ) -> ProofKey:
        """Return the key that the secret store of the system keeps for *service*, made if it is missing.

        *locks* is the folder of its lock file. Raise ConfigurationError without ``keyring``, or if *name* holds
        something else; StoreUnavailable if the secret store cannot be used.
        """
        require_flock("ProofKey.in_keyring")
        folder = Path(os.path.realpath(Path(locks).expanduser()))
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"the folder {folder} cannot be created: {error.strerror}") from error
        require_private_folder(folder)
        lock = folder / (re.sub(r"[^A-Za-z0-9.-]", "_", f"{service}.{name}") + ".key")
        with file_lock(str(lock), LOCK_SECONDS):  # rule 3
            pem = keyring_secret(service, name) or keyring_secret(service, name, _new_pem(algorithm)) or b""
        place = (_rebuild_keyring, (service, name, algorithm, folder))
        return _kept(cls, pem, algorithm, f"the secret {name!r} of {service!r}", place)


def _rebuild_keyring(service: str, name: str, algorithm: ProofAlgorithm | None, locks: Path) -> ProofKey:
    return ProofKey.in_keyring(service, name, algorithm, locks=locks)


def _kept(
    cls: type[ProofKey],
    pem: bytes,
    algorithm: ProofAlgorithm | None,
    where: str,
    place: tuple[Callable[..., ProofKey], tuple[Any, ...]],
) -> ProofKey:
    try:
        private_key = _cryptography().load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:  # TypeError: it is encrypted
        raise ConfigurationError(
            f"{where} is no private key without a password; it was left as it is"
        ) from error  # rule 5
    key = cls(private_key, algorithm)
    key._place = place
    return key


# ---- files and the keyring -------------------------------------------------------------------------------------------


def _read(file: Path) -> bytes:
    try:
        pem = read_private(file, WHAT)
    except FileNotFoundError:
        return b""
    if not pem.strip():
        raise ConfigurationError(f"{WHAT} {file} is empty: remove it")
    return pem


def _created(file: Path, pem: bytes) -> bytes:
    """Return what is in *file* once it is there: *pem*, or what another process has put there meanwhile (rule 3)."""
    create_private(file, pem)
    return _read(file)


def keyring_secret(service: str, name: str, new: bytes = b"") -> bytes | None:
    """Return the secret *name* of *service* in the secret store of the system; None without one. Store *new* before.

    Raise ConfigurationError without ``keyring``, StoreUnavailable if the secret store cannot be used.
    """
    try:
        import keyring  # noqa: PLC0415  # an extra
        import keyring.errors  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError("a ProofKey in the keyring needs keyring: pip install 'unbroken[keyring]'") from error
    try:
        if new:
            keyring.set_password(service, name, new.decode())
        found = keyring.get_password(service, name)
    except keyring.errors.KeyringError as error:
        raise StoreUnavailable(f"the system's secret store cannot be used: {type(error).__name__}") from error
    if new and found is None:
        raise StoreUnavailable("the system's secret store did not keep the key")
    return None if found is None else found.encode()


# ---- keys of cryptography (rule 1) -----------------------------------------------------------------------------------


class _Cryptography:
    """The names of ``cryptography`` that are used here, imported when the first key is made."""

    def __init__(self) -> None:
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415  # an extra
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils  # noqa: PLC0415
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

        self.ec, self.ed25519, self.serialization = ec, ed25519, serialization
        self.load_pem_private_key = serialization.load_pem_private_key
        self.decode_dss_signature, self.how = utils.decode_dss_signature, ec.ECDSA(SHA256())


def _cryptography() -> _Cryptography:
    try:
        return _Cryptography()
    except ImportError as error:
        raise ConfigurationError("a ProofKey needs cryptography: pip install 'unbroken[dpop]'") from error


def _new_private_key(algorithm: ProofAlgorithm) -> Any:
    library = _cryptography()
    if algorithm == "ES256":
        return library.ec.generate_private_key(library.ec.SECP256R1())
    return library.ed25519.Ed25519PrivateKey.generate()


def _new_pem(algorithm: ProofAlgorithm | None) -> bytes:
    return _to_pem(_new_private_key(algorithm or "ES256"))


def private_pem(key: ProofKey) -> bytes:
    """Return *key* as it is kept: PKCS #8, as PEM."""
    return _to_pem(key._private_key)


def _to_pem(private_key: Any) -> bytes:
    form = _cryptography().serialization
    pem: bytes = private_key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    return pem


def _opened(
    private_key: Any, algorithm: ProofAlgorithm | None
) -> tuple[ProofAlgorithm, dict[str, str], Callable[[bytes], bytes]]:
    """Return the algorithm of *private_key*, its public JWK, and what signs a message with it."""
    library = _cryptography()
    if isinstance(private_key, library.ed25519.Ed25519PrivateKey):
        _check_algorithm(algorithm, ("Ed25519", "EdDSA"))
        raw = private_key.public_key().public_bytes_raw()
        jwk = {"kty": "OKP", "crv": "Ed25519", "x": _base64.encode(raw)}
        return algorithm or "Ed25519", jwk, private_key.sign
    is_p256 = isinstance(private_key, library.ec.EllipticCurvePrivateKey) and private_key.curve.name == "secp256r1"
    if not is_p256:
        raise ConfigurationError("private_key must be a private key of cryptography: P-256 or Ed25519")
    _check_algorithm(algorithm, ("ES256",))
    numbers = private_key.public_key().public_numbers()
    x, y = (_base64.encode(number.to_bytes(MEMBER_BYTES)) for number in (numbers.x, numbers.y))
    return "ES256", {"kty": "EC", "crv": "P-256", "x": x, "y": y}, _es256(private_key, library)


def _check_algorithm(asked: str | None, possible: tuple[str, ...]) -> None:
    if asked is not None and asked not in possible:
        raise ConfigurationError(f"algorithm must be {' or '.join(possible)} for this proof key, not {asked!r}")


def _es256(private_key: Any, library: _Cryptography) -> Callable[[bytes], bytes]:
    sign_der, how, decode = private_key.sign, library.how, library.decode_dss_signature

    def sign(message: bytes) -> bytes:
        r, s = decode(sign_der(message, how))
        return r.to_bytes(MEMBER_BYTES) + s.to_bytes(MEMBER_BYTES)  # RFC 7518 §3.4

    return sign


def _thumbprint(jwk: dict[str, str]) -> str:
    """Return the thumbprint of RFC 7638: of the members that the key needs, sorted by name, without white space."""
    text = json.dumps(jwk, sort_keys=True, separators=(",", ":"))
    return _base64.encode(hashlib.sha256(text.encode()).digest())
