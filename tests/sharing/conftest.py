"""A store's published copy, to look at and to change."""

from __future__ import annotations

import shutil

import pytest

import memdb
from memdb.format.published import Credits


@pytest.fixture(scope="session")
def published(trained, tmp_path_factory):
    """The folder of a published copy of `trained`; look, do not touch."""
    dest = tmp_path_factory.mktemp("published") / "copy"
    with memdb.open(str(trained)) as db:
        db.publish(str(dest), credit=Credits("Ants", ("A. Author",), "CC0-1.0", "Author 2026"))
    return dest


@pytest.fixture
def copy(published, tmp_path):
    """A published copy to do with as one likes."""
    shutil.copytree(published, tmp_path / "copy")
    return tmp_path / "copy"
