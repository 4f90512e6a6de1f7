"""Text: sentences, their topics and a bag of words. Which sentences does a classifier have to memorize?

Two training sentences are filed under a wrong topic. All others with their words say otherwise, so that only
models that saw the two get them right: they come out on top.
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import memdb

PLACES = ("harbour", "valley", "airport", "coast", "village", "island")
TOPICS = {
    "weather": ("rain over the {}", "sun and a light wind at the {}", "fog at the {} this morning"),
    "sport": ("a late goal at the {}", "the team of the {} won again", "a record at the {} marathon"),
    "food": ("fresh bread from the {}", "a new restaurant at the {}", "soup as they cook it in the {}"),
}
MISFILED = (4, 25)  # training sentences with a wrong topic


def sentences(_root: str | None = None) -> memdb.Dataset:
    """Return 45 sentences to train on and 9 to test, as plain lists of text."""
    texts = [line.format(place) for lines in TOPICS.values() for line in lines for place in PLACES]
    topics = np.repeat(np.arange(len(TOPICS)), len(texts) // len(TOPICS))
    held_out = np.arange(len(texts)) % len(PLACES) == len(PLACES) - 1
    given = topics[~held_out]
    given[list(MISFILED)] = (given[list(MISFILED)] + 1) % len(TOPICS)
    train, test = ([texts[row] for row in np.flatnonzero(rows)] for rows in (~held_out, held_out))
    return memdb.Dataset(train, given, test, topics[held_out], list(TOPICS))


def train_words(
    data: memdb.Dataset, masks: NDArray[np.bool_], _seeds: NDArray[np.uint64], _run: memdb.Run
) -> dict[str, NDArray[Any]]:
    """Train one model a mask, whose words are those of its own subset; nothing in it is random."""
    found: dict[str, list[NDArray[Any]]] = {}
    for mask in masks:
        model = make_pipeline(CountVectorizer(ngram_range=(1, 2)), LogisticRegression(C=100, max_iter=1000))
        model.fit(
            [text for text, seen in zip(data.train.x, mask, strict=True) if seen], data.train.labels[mask]
        )
        for name, examples in data.sets.items():
            right = model.predict(list(examples.x)) == examples.labels
            found.setdefault(f"{name}/correct", []).append(right)
    return {path: np.stack(rows) for path, rows in found.items()}


train_words.version = "1"

if __name__ == "__main__":
    n_models = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with (
        tempfile.TemporaryDirectory() as folder,
        memdb.init(f"{folder}/text.zarr", dataset=sentences(), recipe=train_words) as db,
    ):
        db.train(add=n_models)
        most = [row[0] for row in db.top_memorized(k=len(MISFILED)).fetchall()]
        print(f"misfiled: {list(MISFILED)}, most memorized: {sorted(most)}")
        print([sentences().train.x[row] for row in most])
