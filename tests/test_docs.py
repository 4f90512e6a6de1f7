"""Documentation is generated from, or run against, what it documents."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from support import ROOT

from memdb import cli

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = {name for names in cli.COMMANDS.values() for name in names}


def test_generated_pages_are_current():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "generate_docs.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_docs_exist(page):
    for line in re.findall(r"^(?:\$ )?memdb ([a-z-]+)", page.read_text(), flags=re.MULTILINE):
        assert line in COMMANDS, f"memdb {line}"


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_a_place_in_the_docs(command):
    assert f"memdb {command}" in (ROOT / "docs" / "cli.md").read_text()
    others = [page for page in PAGES if page.name != "cli.md"]
    assert any(f"memdb {command}" in page.read_text() for page in others)


def test_the_readme_names_the_two_commands_and_they_are_there():
    readme = (ROOT / "README.md").read_text()
    for script in ("scripts/demo", "scripts/test"):
        assert script in readme
        assert (ROOT / script).stat().st_mode & 0o111


def test_every_command_has_its_place_on_the_page():
    page = (ROOT / "docs" / "cli.md").read_text()
    assert sorted(re.findall(r"^## memdb (\S+)$", page, re.MULTILINE)) == sorted(COMMANDS)


def test_the_map_has_every_folder_and_every_file_that_it_names():
    page = (ROOT / "docs" / "contributing.md").read_text()
    folders = [path for path in (ROOT / "memdb").rglob("*") if path.is_dir() and path.name != "__pycache__"]
    mapped = re.findall(r"^\| `(\S+)/` \|", page, re.MULTILINE)
    assert sorted(mapped) == sorted(str(path.relative_to(ROOT / "memdb")) for path in folders)
    for named in re.findall(r"`((?:memdb|tests|docs|schemas|scripts)/[\w./-]*)`", page):
        assert (ROOT / named).exists() or "NAME" in named, named
