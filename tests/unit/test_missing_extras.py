"""A module whose library is not installed says which extra brings it."""

from __future__ import annotations

import subprocess
import sys

import pytest

CASES = {
    "unbroken.fastapi": ("fastapi", "fastapi"),
    "unbroken.starlette": ("starlette", "starlette"),
    "unbroken.flask": ("flask", "flask"),
    "unbroken.django": ("django", "django"),
    "unbroken.django.rest": ("rest_framework", "drf"),
    "unbroken.server": ("joserfc", "server"),
    "unbroken.verifier": ("joserfc", "server"),
    "unbroken.httpx": ("httpx", "httpx"),
    "unbroken.httpx2": ("httpx2", "httpx2"),
    "unbroken.requests": ("requests", "requests"),
    "unbroken.aiohttp": ("aiohttp", "aiohttp"),
    "unbroken.mcp": ("mcp", "mcp"),
    "unbroken.prometheus": ("prometheus_client", "prometheus"),
    "unbroken.otel": ("opentelemetry", "otel"),
}


@pytest.mark.parametrize("module", CASES)
def test_it_names_the_extra(module: str) -> None:
    library, extra = CASES[module]
    code = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {library!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
import {module}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert (done.returncode, last.endswith(f"pip install 'unbroken[{extra}]'")) == (1, True), last
