"""Sets of examples that a store may not have."""

from __future__ import annotations

from memdb.errors import NotFound
from memdb.store import Snapshot


def require_examples(snapshot: Snapshot, set_name: str) -> int:
    """Return how many examples a set has.

    Raises:
        NotFound: it has none, as in stores of models that were imported without test examples.
    """
    n_examples = snapshot.manifest.set_named(set_name).n_examples
    if n_examples == 0:
        raise NotFound(
            f"{snapshot.url} has no {set_name} examples",
            hint="its models were imported without any; ask about training examples, such as --target-id",
        )
    return n_examples
