"""Pages that are made quickly."""

import contextlib

import pytest

from memdb.look import contents


@contextlib.contextmanager
def few_lists():
    """Fewer lists than pages have, which take most of the time that is spent on them."""
    with pytest.MonkeyPatch.context() as patch:
        for name, n in (("TRAIN_LISTS", 100), ("PEER_LISTS", 10), ("PAIRS", 30_000)):
            patch.setattr(contents, name, n)
        yield
