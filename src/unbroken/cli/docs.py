"""``unbroken docs``: the documentation that came with this version, in the terminal.

The pages are Markdown, in the wheel as ``unbroken/docs`` and in a checkout as ``docs``. Nothing is fetched.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from unbroken.cli.options import option
from unbroken.cli.terminal import say
from unbroken.errors import ConfigurationError, InvalidRequest

__all__ = ["docs"]

INDEX = "README"
ROW = re.compile(r"^\| \[.*?\]\((?P<target>.*?)\.md\) \| (?P<about>.*?) \|$")
MAX_HITS = 40
LINE_CHARS = 100


def _complete_page(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in sorted(_pages()) if name.startswith(incomplete)]


@click.command()
@click.argument("page", metavar="[PAGE]", default="", shell_complete=_complete_page)
@option("--search", "words", envvar=None, metavar="WORDS", help="Show the lines that have all of these words.")
@option("--path", "only_path", envvar=None, is_flag=True, help="Print the path of the page, or of the folder.")
def docs(page: str, words: str | None, only_path: bool) -> None:
    """Show the documentation of this version.

    Without PAGE: the list of the pages. In a terminal, pages are shown by a pager.
    """
    if words is not None:
        return _search(words)
    name = page.removesuffix(".md").strip("/")
    path = _page(name) if name else _folder()
    if only_path:
        return say(str(path))
    if not name:
        return _list()
    text = path.read_text("utf-8")
    return click.echo_via_pager(text) if sys.stdout.isatty() else say(text.rstrip())


def _folder() -> Path:
    """Return the folder of the pages. Raise ConfigurationError if this installation has none."""
    package = Path(str(files("unbroken")))
    for folder in (package / "docs", package.parents[1] / "docs"):
        if (folder / f"{INDEX}.md").is_file():
            return folder
    raise ConfigurationError("this installation came without its documentation: install the wheel")


def _pages() -> dict[str, Path]:
    """Return the pages by their names, such as ``browser`` and ``extend/dialect``."""
    folder = _folder()
    return {str(path.relative_to(folder).with_suffix("")): path for path in folder.rglob("*.md")}


def _page(name: str) -> Path:
    pages = _pages()
    if name in pages:
        return pages[name]
    by_end = [one for one in pages if one.rpartition("/")[2].lower() == name.lower()]
    if len(by_end) == 1:
        return pages[by_end[0]]
    near = by_end or get_close_matches(name, pages, 1, 0.6)
    hint = f": did you mean {' or '.join(sorted(near))}?" if near else ": `unbroken docs` lists them all"
    raise InvalidRequest(f"there is no such page{hint}")


def _list() -> None:
    """Print the index: its tables, one page a line."""
    for line in (_folder() / f"{INDEX}.md").read_text("utf-8").splitlines():
        if line.startswith("**"):
            say(f"\n{line.split('**')[1]}")
        elif row := ROW.match(line):
            say(f"  unbroken docs {row['target']:<24}  {row['about']}")


def _search(words: str) -> None:
    """Print where all of *words* are in one line or one heading. Raise InvalidRequest if they are nowhere."""
    wanted = words.lower().split()
    if not wanted:
        raise InvalidRequest("--search needs words")
    hits = [hit for name, path in sorted(_pages().items()) for hit in _hits(name, path.read_text("utf-8"), wanted)]
    if not hits:
        raise InvalidRequest(f"no page has {' and '.join(wanted)} in one line")
    for hit in hits[:MAX_HITS]:
        say(hit)
    if len(hits) > MAX_HITS:
        say(f"… and {len(hits) - MAX_HITS} more lines")


def _hits(name: str, text: str, wanted: list[str]) -> Iterator[str]:
    heading = ""
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if all(word in line.lower() for word in wanted):
            place = f"{name} › {heading}" if heading and not line.startswith("#") else name
            yield f"{place}: {_cut(line.strip('#| '), wanted[0])}"


def _cut(line: str, word: str) -> str:
    """Return the part of a long *line* that has *word*."""
    if len(line) <= LINE_CHARS:
        return line
    start = max(0, line.lower().index(word) - LINE_CHARS // 3)
    return ("…" if start else "") + line[start : start + LINE_CHARS] + "…"
