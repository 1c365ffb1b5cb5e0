"""``unbroken docs``: the pages in a terminal, from a wheel too."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from unbroken.cli import app

MAX_PAGES_BYTES = 250_000  # compressed; the wheel has 0.75 MB beside them


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = app.run(["docs", *arguments])
    return status, *capsys.readouterr()


def test_without_a_page_it_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys)
    listed = re.findall(r"^  unbroken docs (\S+)  +\S", out, re.MULTILINE)
    assert status == 0
    assert {"tutorial", "browser", "reference/settings", "extend/dialect"} <= set(listed)
    assert all((ROOT / "docs" / f"{name}.md").is_file() for name in listed)


@pytest.mark.parametrize("name", ["browser", "browser.md", "extend/dialect", "dialect"])
def test_a_page_is_named_with_or_without_its_folder_and_its_suffix(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    status, out, _ = run(capsys, name)
    file = "extend/dialect.md" if "dialect" in name else "browser.md"
    assert (status, out.strip()) == (0, (ROOT / "docs" / file).read_text().strip())


def test_a_page_that_is_not_there_is_an_error_with_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "browsr") == (2, "", "unbroken: there is no such page: did you mean browser?\n")
    assert "`unbroken docs` lists them all" in run(capsys, "zzzz")[2]


@pytest.mark.parametrize("name", ["../pyproject", "/etc/passwd", "../../README", "reference/../../SECURITY"])
def test_a_page_is_never_a_file_elsewhere(capsys: pytest.CaptureFixture[str], name: str) -> None:
    status, out, _ = run(capsys, name)
    assert (status, out) == (2, "")


def test_it_searches_lines_with_all_words(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--search", "Idempotency-Key CORS")
    assert status == 0
    assert "troubleshooting › Browser: " in out
    assert run(capsys, "--search", "zzzzzz")[0] == 2
    assert run(capsys, "--search", " ")[0] == 2


def test_it_prints_where_a_page_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "browser", "--path")[1].strip() == str(ROOT / "docs" / "browser.md")


def test_the_wheel_has_the_pages_and_is_small(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        pages_bytes = sum(one.compress_size for one in archive.infolist() if one.filename.startswith("unbroken/docs/"))
        archive.extractall(tmp_path / "installed")
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    expected = {f"unbroken/docs/{name}" for name in pages if not name.startswith("decisions/")}
    assert expected - names == set()
    assert "unbroken/browser/unbroken.js" in names
    assert "unbroken/py.typed" in names
    assert pages_bytes < MAX_PAGES_BYTES
    first = f"import sys; sys.path.insert(0, {str(tmp_path / 'installed')!r})"
    code = f"{first}; from unbroken.cli import app; app.run(['docs', '--path'])"
    told = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert told.stdout.strip() == str(tmp_path / "installed" / "unbroken" / "docs")
