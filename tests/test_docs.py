"""Documentation is generated from, or run against, what it documents."""

from __future__ import annotations

import ast
import functools
import importlib
import re
import runpy
import sys
from pathlib import Path

import pytest
from support import ROOT

import memdb
from memdb import cli

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = {name for names in cli.COMMANDS.values() for name in names}


def test_generated_pages_are_current(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["generate_docs.py", "--check"])
    main = runpy.run_path(str(ROOT / "scripts" / "generate_docs.py"))["main"]
    assert main() == 0, capsys.readouterr().out


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_the_docs_names_what_there_is(page):
    text = page.read_text()
    for code in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "memdb":
                found = importlib.import_module(node.module)
                assert all(hasattr(found, alias.name) for alias in node.names), ast.unparse(node)
    for owner, name in re.findall(r"\b(memdb|db)\.(\w+)\(", text):
        assert hasattr(memdb if owner == "memdb" else memdb.Database, name), f"{owner}.{name}"
    for dotted in re.findall(r"`memdb((?:\.\w+)+)`", text):
        assert functools.reduce(getattr_or_module, dotted[1:].split("."), memdb), dotted


def getattr_or_module(owner, name):
    """An attribute of a module or class, or the module of that name in a package."""
    return getattr(owner, name, None) or importlib.import_module(f"{owner.__name__}.{name}")


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


def test_the_page_of_environment_variables_has_all_of_them():
    package = Path(memdb.__file__).parent
    used = {name for path in package.rglob("*.py") for name in re.findall(r"MEMDB_[A-Z_]+", path.read_text())}
    internal = {"MEMDB_SUPERVISED"}  # which a command sets for its own children
    page = (ROOT / "docs/environment.md").read_text()
    assert used - internal == set(re.findall(r"`(MEMDB_[A-Z_]+)`", page))
