"""memdb: which training examples a model memorized, and which made it get a test example right.

A store keeps the raw results of models trained on random subsets; questions are answered from them.

    >>> import memdb
    >>> db = memdb.init("digits.zarr", dataset="digits")  # doctest: +SKIP
    >>> db.train(add=300)  # doctest: +SKIP
    >>> db.top_influence(test_id=42).df()  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from memdb.errors import MemdbError

if TYPE_CHECKING:
    from memdb.database import Database
    from memdb.datasets import Dataset
    from memdb.joining import extend, merge
    from memdb.logits import log_odds
    from memdb.published import Credits
    from memdb.recipes.protocol import Recipe, Run
    from memdb.stores import import_file, init, open, pull  # noqa: A004
    from memdb.training import TrainingStatus

__all__ = [
    "Credits",
    "Database",
    "Dataset",
    "MemdbError",
    "Recipe",
    "Run",
    "TrainingStatus",
    "extend",
    "import_file",
    "init",
    "log_odds",
    "merge",
    "open",
    "pull",
]

_HOMES = {
    "Credits": "memdb.published",
    "Database": "memdb.database",
    "Dataset": "memdb.datasets",
    "Recipe": "memdb.recipes.protocol",
    "Run": "memdb.recipes.protocol",
    "TrainingStatus": "memdb.training",
    "import_file": "memdb.stores",
    "extend": "memdb.joining",
    "init": "memdb.stores",
    "log_odds": "memdb.logits",
    "merge": "memdb.joining",
    "open": "memdb.stores",
    "pull": "memdb.stores",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``memdb --help`` starts at once."""
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("memdb")
    if name not in _HOMES:
        raise AttributeError(f"module 'memdb' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
