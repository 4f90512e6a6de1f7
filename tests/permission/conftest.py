"""A folder with somebody's module, in which one works."""

from __future__ import annotations

import sys

import pytest

MODULE = """
from pathlib import Path
Path("IMPORTED").touch()
import functools, os, shutil, subprocess
from support.stores import coin_recipe, small_dataset

def train(data, masks, seeds, run):
    Path("CALLED").touch()
    return coin_recipe(data, masks, seeds, run)

class Made:
    name = "made"
    def __init__(self, **options):
        Path("MADE").touch()
        self.options = options
    def __call__(self, data, masks, seeds, run):
        return coin_recipe(data, masks, seeds, run)

class Spell:
    def __init__(self, **options):
        Path("MADE").touch()

def data(root=None):
    Path("LOADED").touch()
    return small_dataset()

def pictures(root=None):
    import memdb, numpy as np
    x = np.zeros((6, 3, 3), np.uint8)
    return memdb.Dataset(x, [0, 1] * 3, x, [0, 1] * 3)

def two(data, masks):
    Path("CALLED").touch()

def none():
    Path("LOADED").touch()

hidden = functools.partial(subprocess.Popen, shell=True)
exits = type("Exits", (), {"__call__": lambda self, data, masks, seeds, run: os._exit(9)})
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with the module `spells` in it, which leaves traces, and data that may not go."""
    (tmp_path / "spells.py").write_text(MODULE)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "thesis.txt").write_text("mine")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("spells", "failing", "ending"):
        sys.modules.pop(name, None)
