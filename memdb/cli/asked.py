"""The database as commands ask it: answers are Arrow tables, which are printed or written as they are."""

from __future__ import annotations

from typing import Any

from memdb.database import Database


class Asked(Database):
    """A `Database` that makes no relations of its answers: most of them then need no DuckDB.

    What is true of every row a command says once (see `output.facts_of`), so no columns say it.
    """

    def _present(self, table: Any, *_asked: object) -> Any:
        return table

    def _present_scores(self, table: Any, *_asked: object) -> Any:
        return table
