"""The examples of a page as one program, and a home to run it in.

Where a page says ``https://api.example.com``, a real server on loopback stands for it, so that what is asserted is
true.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from tests.support.paths import ROOT

__all__ = ["API", "ROOT", "examples", "load_page_module", "page", "run"]

API = "https://api.example.com"


def examples(document: Path, language: str = "python") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document.read_text(), re.DOTALL)


def page(name: str, url: str = API, language: str = "python") -> str:
    """The examples of a page as one program, for the server at *url*."""
    return "\n\n".join(examples(ROOT / "docs" / name, language)).replace(API, url)


def load_page_module(name: str, module: str) -> ModuleType:
    """Return the first example of a page as the module *module*, executed once in a process."""
    if module not in sys.modules:
        made = sys.modules[module] = ModuleType(module)
        exec(compile(examples(ROOT / "docs" / name)[0], name, "exec"), vars(made))
    return sys.modules[module]


def run(code: str, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs *code* in a home of its own: by Python, or by *command*."""
    (folder / "example.py").write_text(code)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("UNBROKEN_", "XDG_"))}
    own = {"HOME": str(folder), "PYTHON_KEYRING_BACKEND": "keyrings.alt.file.PlaintextKeyring"}
    own |= {"PATH": f"{folder}:{os.environ['PATH']}", "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
    return subprocess.run(
        [*(command or (sys.executable, "-W", "ignore")), "example.py"],
        cwd=folder,
        env=kept | own,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
