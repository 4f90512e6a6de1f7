"""SQL statements read from files and filled in."""

from __future__ import annotations

import re
from importlib.resources import files

CONTRACT = {"statistics.sql", "relations.sql", "pairs.sql", "score_tables.sql"}  # what users may rely on


def template(name: str, **values: str) -> str:
    """Return a SQL file of `schemas` or of `query/sql`, with each ``:name`` in it replaced by its value."""
    folder = files("memdb.schemas") if name in CONTRACT else files("memdb.query").joinpath("sql")
    text = folder.joinpath(name).read_text(encoding="utf-8")
    if not values:
        return text
    names = "|".join(sorted(values, key=len, reverse=True))
    return re.sub(rf"(?<!:):({names})(?![a-z])", lambda match: values[match[1]], text)
