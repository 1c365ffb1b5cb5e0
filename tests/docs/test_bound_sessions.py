"""What the page about bound sessions says."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from tests.docs.pages import ROOT, page, run
from unbroken.server import ProofPolicy
from unbroken.server.keys.proof_token import PROOF_ALGORITHMS

PAGE = (ROOT / "docs" / "bound-sessions.md").read_text()


def test_the_examples_of_the_page_run(tmp_path: Path) -> None:
    use = """
from tests.support.proofs import ClientKey

key, url = ClientKey(), "https://shop.example.com/api"
login = sessions.verify_proof(RequestProof(key.proof("POST", url + "/auth/login"), "POST", "/auth/login"))
token = sessions.create("ada", proof=login).access_token
assert subject_of("GET", "/orders", f"DPoP {token}", key.proof("GET", url + "/orders", token)) == "ada"
assert subject_of("GET", "/orders", f"Bearer {token}", "") == "bound"
assert subject_of("GET", "/orders", f"DPoP {token}", "") == "missing"
"""
    done = run(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{page('bound-sessions.md')}\n{use}", tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_page_names_every_setting_and_every_algorithm() -> None:
    table = PAGE.partition("| setting of `ProofPolicy` |")[2].partition("\n\n")[0]
    named = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.partition(" | ")[0])}
    assert named == {field.name for field in fields(ProofPolicy)}
    assert all(name in PAGE for name in PROOF_ALGORITHMS)
