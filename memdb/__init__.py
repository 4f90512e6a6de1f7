"""memdb: which training examples a model memorized, and which made it get a test example right.

A store keeps the raw results of models trained on random subsets; questions are answered from them.

    >>> import memdb
    >>> db = memdb.init("digits.zarr", dataset="digits")  # doctest: +SKIP
    >>> db.train(add=300)  # doctest: +SKIP
    >>> db.top_influence(test_id=340).df()  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from memdb.errors import MemdbError

if TYPE_CHECKING:
    from memdb.combine import extend, merge
    from memdb.create import import_file, init, open, pull  # noqa: A004
    from memdb.database import Database
    from memdb.datasets import Dataset
    from memdb.datasets.example_set import ExampleSet
    from memdb.format.manifest import Outcome
    from memdb.format.published import Credits
    from memdb.recipes.logits import log_odds
    from memdb.recipes.protocol import Recipe, Run
    from memdb.recipes.sketch_torch import gradient_sketch
    from memdb.recipes.torch_modules import torch_recipe
    from memdb.storage.protocol import Storage
    from memdb.training.run import TrainingStatus

__all__ = [
    "Credits",
    "Database",
    "Dataset",
    "ExampleSet",
    "MemdbError",
    "Outcome",
    "Recipe",
    "Run",
    "Storage",
    "TrainingStatus",
    "extend",
    "gradient_sketch",
    "import_file",
    "init",
    "log_odds",
    "merge",
    "open",
    "pull",
    "torch_recipe",
]

_HOMES = {
    "Credits": "memdb.format.published",
    "Database": "memdb.database",
    "Dataset": "memdb.datasets",
    "ExampleSet": "memdb.datasets",
    "Outcome": "memdb.format.manifest",
    "Recipe": "memdb.recipes.protocol",
    "Run": "memdb.recipes.protocol",
    "Storage": "memdb.storage.protocol",
    "TrainingStatus": "memdb.training.run",
    "import_file": "memdb.create",
    "extend": "memdb.combine",
    "gradient_sketch": "memdb.recipes.sketch_torch",
    "init": "memdb.create",
    "log_odds": "memdb.recipes.logits",
    "merge": "memdb.combine",
    "open": "memdb.create",
    "pull": "memdb.create",
    "torch_recipe": "memdb.recipes.torch_modules",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``memdb --help`` starts at once."""
    if name == "__version__":
        return importlib.import_module("memdb.format.documents").own_version()
    if name not in _HOMES:
        raise AttributeError(f"module 'memdb' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Offer what is public: names that are imported when they are first used, too."""
    return [*__all__, "__version__"]
