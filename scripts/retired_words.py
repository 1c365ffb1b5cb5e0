"""Fails on words that this project has replaced: one word for one thing, in code and prose, names and texts.

1. ``retired-words.txt`` beside this file has a line for each: a pattern, and the word to use. Patterns match words
   in any case; names are read word by word, so ``exchange`` finds ``token_exchange`` and ``ExchangeGrant``, too.
2. A line may use such a word where a comment of its own allows it: ``words: exchange``. Commas separate several.
3. A line of the list that begins with ``allow`` permits a pattern in files: ``allow docs/decisions/*.md: seal(s|ed)?``.
"""

from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).with_name("retired-words.txt")
FOLDERS = ("src", "tests", "docs", "bench", "examples", "browser", "deploy", "scripts", ".ci")
SUFFIXES = {".py", ".md", ".js", ".mjs", ".toml", ".txt", ".sql", ".html", ".css", ".yml", ".yaml", ""}
HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|_")
ALLOWED = re.compile(r"\bwords: ([\w ,-]+)")


class Word(NamedTuple):
    """A pattern that is refused, what to write instead, and in which files it is right."""

    pattern: re.Pattern[str]
    better: str
    allowed_in: list[str]


def read(lines: list[str]) -> list[Word]:
    """Return the words of the list. Raise ValueError for a line that is none."""
    allowed: dict[str, list[str]] = {}
    pairs = []
    for line in lines:
        if line.startswith("allow "):
            files, _, pattern = line.removeprefix("allow ").partition(": ")
            allowed.setdefault(pattern, []).append(files)
        elif line and not line.startswith("#"):
            pattern, found, better = line.partition(" = ")
            if not found:
                raise ValueError(f"{LIST.name}: no `pattern = word to use`: {line}")
            pairs.append((pattern, better))
    if unknown := allowed.keys() - {pattern for pattern, _ in pairs}:
        raise ValueError(f"{LIST.name}: allowed, but not retired: {', '.join(unknown)}")
    return [
        Word(re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE), better, allowed.get(pattern, []))
        for pattern, better in pairs
    ]


def faults(path: str, text: str, words: list[Word]) -> list[str]:
    """Return a line for each retired word in *text*, which is the file at *path*."""
    here = [word for word in words if not any(fnmatch.fnmatch(path, files) for files in word.allowed_in)]
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        allowed = {word.strip().lower() for marked in ALLOWED.findall(line) for word in marked.split(",")}
        read_as = HUMP.sub(" ", ALLOWED.sub("", line))
        for word in here:
            hits = {hit[0].lower() for hit in word.pattern.finditer(read_as)} - allowed
            found += [f"{path}:{number}: {hit!r}: write {word.better}" for hit in sorted(hits)]
    return found


def files() -> list[str]:
    """The files of the repository that have words in them."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md", *FOLDERS]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return sorted(
        {name for name in listed if Path(name).suffix in SUFFIXES and (ROOT / name).is_file()}
        - {str(path.relative_to(ROOT)) for path in (LIST, Path(__file__))}
    )


def main() -> int:
    words = read(LIST.read_text().splitlines())
    found = [fault for name in files() for fault in faults(name, (ROOT / name).read_text(errors="replace"), words)]
    print(*found, sep="\n", end="\n" if found else "")
    print(f"{len(found)} retired words" if found else "words: none that was retired")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
