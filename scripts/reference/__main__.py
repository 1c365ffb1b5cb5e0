"""The command: see the package."""

from __future__ import annotations

import sys

from scripts.reference.pages import PAGES, outdated

if __name__ == "__main__":
    old = outdated()
    for path in () if "--check" in sys.argv else old:
        path.parent.mkdir(exist_ok=True)
        path.write_text(PAGES[path](), encoding="utf-8")
    for path in old:
        print(f"{path.name}: {'outdated' if '--check' in sys.argv else 'written'}")
    sys.exit(int("--check" in sys.argv and bool(old)))
