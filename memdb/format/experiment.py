"""The experiment that a store's models belong to: its arms, and which training examples each excludes.

It is part of the manifest, so it is fixed before the first model is trained. A model's arm is in its seed,
and its mask a pure function of experiment, store seed and model seed, like the masks of other stores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from memdb.format import bits, subsets
from memdb.format.documents import Json, Reader

EXPERIMENT_FEATURE = "experiment"  # a memdb that does not know it would take its subsets for random ones
SCHEME = "arms"
REMOVAL = "removal"
CONTROLS = ("all", "memorized", "random", "matched", "added")
RULES = ("raw", "lower", "shrunk")
EQUAL, PICTURES = "equal", "pictures"  # how contents were compared for look-alikes
DOMAIN = b"memdb-arm-1"
ARM_SHIFT = 48  # the bits of a seed below its arm
MAX_ARMS = 2**15
MAX_REPETITIONS = 2**31

Pairs = tuple[tuple[int, int], ...]  # of a training and a test example


@dataclass(frozen=True, slots=True, eq=False)  # arrays have no one answer to ==
class Arm:
    """One way to train: what is removed from the training set.

    Attributes:
        control: ``all`` removes nothing, ``memorized`` what is memorized at or above the threshold,
            ``random`` as many at random, ``matched`` as many of the same classes that are as hard held out,
            ``added`` leaves of all that is memorized at or above the lowest threshold one slice in.
        rule: which score decides: ``raw``, the ``lower`` end of the simultaneous interval, or ``shrunk``.
        threshold: at or above which an example is memorized; of ``added``, the lower end of the slice.
        removed: ids in ascending order; None if each model draws its own ``n_removed`` examples.
        held_out: how often the models that chose are right, without it, on what is removed, on average; of
            random examples, on all. None if it is not recorded.
    """

    control: str
    rule: str
    threshold: float
    n_removed: int
    removed: NDArray[np.int32] | None = None
    held_out: float | None = None

    def to_document(self, n_train: int) -> dict[str, Json]:
        """Return the JSON object."""
        recorded: dict[str, Json] = {} if self.held_out is None else {"held_out": self.held_out}
        return recorded | {
            "control": self.control,
            "rule": self.rule,
            "threshold": self.threshold,
            "n_removed": self.n_removed,
            "removed": None if self.removed is None else bits.text_of_ids(self.removed, n_train),
        }

    @classmethod
    def from_reader(cls, read: Reader, n_train: int) -> Arm:
        """Parse the object."""
        n_removed = read.take("n_removed", int, 0, lambda v: 0 <= v < n_train)
        text = read.optional("removed", str)
        removed = None if text is None else bits.ids_of_text(text, n_train)
        if text is not None and (removed is None or len(removed) != n_removed):
            read.problems.append(f"{read.place}.removed is not {n_removed} of {n_train} examples")
        return cls(
            control=read.take("control", str, "all", lambda v: v in CONTROLS),
            rule=read.take("rule", str, "raw", lambda v: v in RULES),
            threshold=read.take("threshold", float, 0.0, lambda v: -1 <= v <= 1),
            n_removed=n_removed,
            removed=removed,
            held_out=read.optional("held_out", float, lambda v: 0 <= v <= 1),
        )


@dataclass(frozen=True, slots=True)
class Source:
    """The models that chose what is removed. None of them is in the experiment's store."""

    store_id: str
    n_models: int
    models_sha256: str

    def to_document(self) -> dict[str, Json]:
        """Return the JSON object."""
        return {"store_id": self.store_id, "n_models": self.n_models, "models_sha256": self.models_sha256}


@dataclass(frozen=True, slots=True)
class Experiment:
    """What is compared: arms, the first of which removes nothing.

    Attributes:
        fraction: the share of what an arm leaves that each of its models is trained on.
        near_duplicates: pairs of a training and a test example of which the first all but decides the second.
        look_alikes: pairs of which the content is equal or, where pictures were compared, nearly so.
        content: how it was compared, ``equal`` or ``pictures``; None if it was not.
    """

    arms: tuple[Arm, ...]
    source: Source
    fraction: float = 1.0
    near_duplicates: Pairs = ()
    look_alikes: Pairs = ()
    content: str | None = None
    kind: str = field(default=REMOVAL)

    def arm_of(self, seed: int) -> int:
        """Return the number of the arm that a model of this seed belongs to."""
        return seed >> ARM_SHIFT

    def masks(self, store_seed: int, seeds: Sequence[int], n_train: int) -> NDArray[np.bool_]:
        """Return the training examples that models see, bool [models, train]."""
        return np.stack([self._mask(store_seed, seed, n_train) for seed in seeds])

    def _mask(self, store_seed: int, seed: int, n_train: int) -> NDArray[np.bool_]:
        arm = self.arms[self.arm_of(seed)]
        n_kept = n_train - arm.n_removed
        size = max(1, int(self.fraction * n_kept + 0.5))
        if arm.removed is None:
            return subsets.subset_mask(store_seed, seed, n_train, size)
        kept = np.setdiff1d(np.arange(n_train), arm.removed, assume_unique=True)
        mask = np.zeros(n_train, dtype=np.bool_)
        mask[kept[subsets.subset_mask(store_seed, seed, n_kept, size)]] = True
        return mask

    def to_document(self, n_train: int) -> dict[str, Json]:
        """Return the JSON object."""
        compared: dict[str, Json] = {}
        if self.content is not None:
            compared = {"content": self.content, "look_alikes": [list(pair) for pair in self.look_alikes]}
        return compared | {
            "kind": self.kind,
            "source": self.source.to_document(),
            "fraction": self.fraction,
            "arms": [arm.to_document(n_train) for arm in self.arms],
            "near_duplicates": [list(pair) for pair in self.near_duplicates],
        }

    @classmethod
    def from_reader(cls, read: Reader, n_train: int, n_test: int) -> Experiment:
        """Parse the object."""
        source = read.inside("source")
        arms = tuple(Arm.from_reader(item, n_train) for item in read.items("arms"))
        if not 1 <= len(arms) <= MAX_ARMS or arms[0].control != "all":
            read.problems.append(f"{read.place}.arms do not begin with one that removes nothing")
        content = read.optional("content", str, lambda v: v in {EQUAL, PICTURES})
        return cls(
            arms=arms,
            source=Source(
                source.take("store_id", str, ""),
                source.take("n_models", int, 0, lambda v: v >= 0),
                source.take("models_sha256", str, ""),
            ),
            fraction=read.take("fraction", float, 1.0, lambda v: 0 < v <= 1),
            near_duplicates=_pairs(read, "near_duplicates", n_train, n_test),
            look_alikes=() if content is None else _pairs(read, "look_alikes", n_train, n_test),
            content=content,
            kind=read.take("kind", str, REMOVAL, lambda v: v == REMOVAL),
        )


def arm_seed(store_seed: int, arm: int, repetition: int) -> int:
    """Return the seed of one model: its arm in the 16 bits above 48 that arm and repetition decide."""
    text = DOMAIN + b"".join(number.to_bytes(8, "little") for number in (store_seed, arm, repetition))
    return arm << ARM_SHIFT | int.from_bytes(hashlib.sha256(text).digest()[:6], "little")


def _pairs(read: Reader, name: str, n_train: int, n_test: int) -> Pairs:
    pairs = []
    for value in read.take(name, list, []):
        match value:
            case [int(train_id), int(test_id)] if 0 <= train_id < n_train and 0 <= test_id < n_test:
                pairs.append((train_id, test_id))
            case _:
                read.problems.append(f"{read.place}.{name} has a bad entry")
    return tuple(pairs)
