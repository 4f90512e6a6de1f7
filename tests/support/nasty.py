"""Names that would do something if a page ran them."""

from __future__ import annotations

import numpy as np

import memdb
from support.stores import coin_recipe

NASTY = [
    "<script>document.title = 'run'</script>", "</script><img src=x onerror=document.title='run'>", "<!--",
    "a\nb\r\nc", "\"quoted\" & 'so'", "\u202egnp.1\u202c", "x" * 10_000, "&lt;b&gt;", "--><svg/onload=alert(1)>",
    "${1}`", "\u2028", "javascript:alert(1)",
]  # fmt: skip


def nasty_store(tmp_path):
    """A store whose keys, class names and examples are what pages must show and not do."""
    x, labels = NASTY, np.arange(len(NASTY)) % 3
    data = memdb.Dataset(x, labels, x, labels, NASTY[:3], train_keys=NASTY, test_keys=NASTY)
    made = memdb.init(str(tmp_path / "store.zarr"), data, coin_recipe, seed=1)
    made.train(seeds=range(10))
    return made
