"""The examples as a reader runs them, as programs, with tokens of one second; and the page that shows them."""

from __future__ import annotations

import datetime as dt
import os
import re
import subprocess
import sys

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.docs.examples.shop import TOKENS, Shop, calls, opened
from tests.support.paths import ROOT
from unbroken.testing.server import PASSWORD


def certificate() -> tuple[bytes, bytes]:
    """A key, and a certificate for localhost that it signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    return key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain), made.public_bytes(pem)


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shop, dict[str, list[str]]]:
    """A shop in real time, and the lines that each example printed. They all run at once."""
    key, chain = certificate()
    roots = tmp_path_factory.mktemp("tls") / "roots.pem"
    roots.write_bytes(chain)
    environment = os.environ | {
        "API_USER": "ada",
        "API_PASSWORD": PASSWORD,
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(roots),
    }
    names = ["websocket_feed", "event_stream", "grpc_calls", "openai_client", "plain_python"]
    with opened(Shop()) as shop, calls(shop, grpc.ssl_server_credentials([(key, chain)])) as port:
        started = {
            name: subprocess.Popen(
                [sys.executable, str(ROOT / "examples" / f"{name}.py"), shop.url, f"localhost:{port}"],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for name in names
        }
        try:
            ended = {name: (*process.communicate(timeout=60), process.returncode) for name, process in started.items()}
        finally:
            for process in started.values():
                process.kill()
                process.wait()
    assert {name: (err, code) for name, (_, err, code) in ended.items()} == dict.fromkeys(names, ("", 0))
    return shop, {name: out.splitlines() for name, (out, _, _) in ended.items()}


@pytest.mark.parametrize(("name", "what"), [("websocket_feed", "feed"), ("event_stream", "events")])
def test_a_stream_outlives_three_tokens_in_real_time(
    printed: tuple[Shop, dict[str, list[str]]], name: str, what: str
) -> None:
    shop, lines = printed
    assert len(shop.used[what]) == TOKENS
    assert lines[name] == [f"{n} {'x' * n}" for n in range(1, shop.last[what] + 1)]


@pytest.mark.parametrize(
    ("name", "first"),
    [("grpc_calls", "the orders of ada"), ("openai_client", "ada"), ("plain_python", '{"orders of":"ada"}')],
)
def test_an_example_runs_as_a_program(printed: tuple[Shop, dict[str, list[str]]], name: str, first: str) -> None:
    _, lines = printed
    assert lines[name][0] == first


# ---- the document ----------------------------------------------------------------------------------------------------

EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py") if not path.name.startswith(("__", "server_")))


def test_the_code_in_the_document_is_the_code_that_runs() -> None:
    document = (ROOT / "docs" / "anywhere.md").read_text()
    shown = re.findall(r"From \[`(\w+\.py)`\]\(\.\./examples/\1\):\n\n```python\n(.*?)```", document, re.DOTALL)
    assert len(shown) == document.count("```python"), "every block of code says which example it is from"
    assert sorted({name for name, _ in shown}) == EXAMPLES
    for name, code in shown:
        assert code in (ROOT / "examples" / name).read_text(), name


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_program_example_is_short(name: str) -> None:
    assert len((ROOT / "examples" / name).read_text().splitlines()) <= 60
