"""What the site needs beyond the files of ``docs/``: MkDocs calls these functions.

1. ``README.md``, ``SECURITY.md`` and the other files of the root that pages link to are pages below ``project/``.
2. A link to a file of the source is a link to a page below ``source/`` with its text. So no link leaves the site, and
   each is checked.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PROJECT = ("SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md")
LINK = re.compile(r"(\]\()([^)#\s:]+)((?:#[^)\s]*)?\))")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LANGUAGES = {".py": "python", ".toml": "toml", ".yaml": "yaml", ".service": "ini"}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are no files of ``docs/`` (rules 1 and 2)."""
    for name in PROJECT:
        files.append(File.generated(config, f"project/{name}", content=(ROOT / name).read_text("utf-8")))
    for path in _linked_sources(files):
        files.append(File.generated(config, f"source/{path}.md", content=_source_page(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:  # noqa: ARG001
    """Return the text with links that are right in the site."""
    here = page.file.src_uri
    if here.startswith("source/"):
        return markdown

    def moved(link: re.Match[str]) -> str:
        target = _site_path(posixpath.normpath(posixpath.join(posixpath.dirname(_repository_path(here)), link[2])))
        return link[1] + posixpath.relpath(target, posixpath.dirname(here) or ".") + link[3]

    return _outside_fences(markdown, lambda text: LINK.sub(moved, text))


def _repository_path(page: str) -> str:
    """Return where the file of *page* is in the repository."""
    return page.removeprefix("project/") if page.startswith("project/") else f"docs/{page}"


def _site_path(path: str) -> str:
    """Return where the file at *path* of the repository is in the site."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"project/{path}" if path in PROJECT else f"source/{path}.md"


def _linked_sources(files: Files) -> list[str]:
    """Return the paths of the source that pages link to, in the repository."""
    found = set()
    pages = [(_repository_path(file.src_uri), file.content_string) for file in files.documentation_pages()]
    pages.append(("README.md", (ROOT / "README.md").read_text("utf-8")))  # a package index shows it, with such links
    for page, text in pages:
        base = posixpath.dirname(page)
        for link in LINK.finditer(FENCE.sub("", text)):
            path = posixpath.normpath(posixpath.join(base, link[2]))
            if not path.startswith("docs/") and path not in PROJECT and (ROOT / path).exists():
                found.add(path)
    folders = {path for path in found if (ROOT / path).is_dir()}
    return sorted(found | {f"{folder}/{file.name}" for folder in folders for file in _programs(folder)})


def _programs(folder: str) -> list[Path]:
    return sorted(file for file in (ROOT / folder).glob("*.py") if file.name != "__init__.py")


def _source_page(path: str) -> str:
    if (ROOT / path).is_dir():
        links = [f"- [{file.name}]({posixpath.basename(path)}/{file.name}.md)" for file in _programs(path)]
        return f"# {path}\n\n" + "\n".join(links) + "\n"
    language = LANGUAGES.get(Path(path).suffix, "text")
    return f"# {path}\n\n````{language}\n{(ROOT / path).read_text('utf-8')}\n````\n"


def _outside_fences(markdown: str, change: Any) -> str:
    """Return *markdown* with *change* made to all but its blocks of code."""
    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [change(markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(markdown[end:])])
