"""Which training examples of its data set a store is of, where the others were excluded on purpose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memdb.errors import WrongFormatError
from memdb.format import bits
from memdb.format.documents import Json, Reader


@dataclass(frozen=True, slots=True)
class Kept:
    """The training examples that are left of a data set.

    They stay encoded until somebody has the data set at hand: a manifest may claim any number of examples.

    Attributes:
        n_examples: how many training examples the whole data set has.
        text: those that are left, as `bits.text_of_ids` writes them.
    """

    n_examples: int
    text: str

    @classmethod
    def of(cls, rows: NDArray[np.int32], n_examples: int) -> Kept:
        """Describe some rows of a data set."""
        return cls(n_examples, bits.text_of_ids(rows, n_examples))

    def rows(self, n_kept: int, place: str) -> NDArray[np.int32]:
        """Return the rows that are left, in ascending order.

        Raises:
            WrongFormatError: they are not as many as the store's training examples, ``n_kept``.
        """
        ids = bits.ids_of_text(self.text, self.n_examples)
        if ids is None or len(ids) != n_kept:
            raise WrongFormatError(
                f"{place} does not say which {n_kept:,} of {self.n_examples:,} training examples it is of",
                hint="ask its owner for an undamaged copy",
            )
        return ids

    def to_document(self) -> dict[str, Json]:
        """Return the JSON object."""
        return {"n_examples": self.n_examples, "rows": self.text}

    @classmethod
    def from_reader(cls, read: Reader, most: int) -> Kept:
        """Parse the object."""
        return cls(read.take("n_examples", int, 1, lambda v: 0 < v <= most), read.take("rows", str, ""))
