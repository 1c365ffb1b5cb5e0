"""Which generated pages there are, and what writes each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from scripts.reference import browser_types, command_line, error_index, http_endpoints, llms, python_names, settings

__all__ = ["DOCS", "PAGES", "outdated"]

DOCS = Path(__file__).parents[2] / "docs"
PAGES: dict[Path, Callable[[], str]] = {
    DOCS / "reference" / "python.md": python_names.page,
    DOCS / "reference" / "settings.md": settings.page,
    DOCS / "reference" / "http.md": http_endpoints.page,
    DOCS / "reference" / "command-line.md": command_line.page,
    DOCS / "reference" / "browser.md": browser_types.page,
    DOCS / "reference" / "errors.md": error_index.page,
    DOCS / "llms.txt": lambda: llms.page(DOCS / "README.md"),
}


def outdated() -> list[Path]:
    """Return the pages whose files are not what the code says now."""
    return [path for path, write in PAGES.items() if not path.is_file() or path.read_text("utf-8") != write()]
