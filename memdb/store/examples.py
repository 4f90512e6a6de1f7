"""What a store keeps of its examples: names, labels and hashes, never the examples themselves."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from memdb.errors import DamagedError, InvalidInputError
from memdb.format import layout
from memdb.format.manifest import CONTENT, SetInfo
from memdb.store.encoding import ArrayData
from memdb.store.read_arrays import GroupReader
from memdb.store.read_documents import StoreLike
from memdb.wording import count

KEY, OFFSET, LABEL = "key", "key_offset", "label"
UNKNOWN = "unknown"  # the class of examples whose labels are unknown


@dataclass(frozen=True)
class Examples:
    """One set of examples in the data set's own order: their names, as UTF-8 cut at offsets, and labels."""

    key_bytes: NDArray[np.uint8]
    key_offsets: NDArray[np.int64]  # [examples + 1]
    labels: NDArray[np.int32]  # [examples]
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        offsets, data = self.key_offsets, self.key_bytes
        if len(offsets) < 1 or len(offsets) != len(self.labels) + 1:
            raise InvalidInputError(
                f"{count(len(offsets) - 1, 'key')} for {count(len(self.labels), 'label')}"
            )
        if offsets[0] != 0 or offsets[-1] != len(data) or (np.diff(offsets) < 0).any():
            raise InvalidInputError("key offsets that do not fit the keys")
        if len(self.labels) and self.labels.min() < 0:
            raise InvalidInputError(f"the label {self.labels.min()}")
        try:
            data.tobytes().decode()
        except UnicodeDecodeError as error:
            raise InvalidInputError("keys that are not UTF-8") from error
        inner = offsets[offsets < len(data)]
        if ((data[inner] & 0xC0) == 0x80).any():
            raise InvalidInputError("key offsets that cut a character")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def are_labelled(self) -> bool:
        """Whether labels are known; false for no examples."""
        return len(self) > 0 and tuple(self.class_names) != (UNKNOWN,)

    @property
    def are_numbered(self) -> bool:
        """Whether keys are the examples' numbers, as they are where nobody named them."""
        return self.keys == [str(row) for row in range(len(self))]

    @cached_property
    def keys(self) -> list[str]:
        """The examples' names."""
        data, bounds = self.key_bytes.tobytes(), self.key_offsets.tolist()
        return [data[a:b].decode() for a, b in itertools.pairwise(bounds)]

    def key(self, row: int) -> str:
        """Return the name of one example, without decoding those of all others."""
        start, end = self.key_offsets[row : row + 2]
        return self.key_bytes[start:end].tobytes().decode()

    @classmethod
    def from_keys(
        cls, keys: Sequence[str], labels: NDArray[np.int32], class_names: Sequence[str] = ()
    ) -> Examples:
        """Encode names, which must be unique.

        Raises:
            InvalidInputError: no examples, a name given twice, or as many labels as there are not names.
        """
        if len(keys) == 0:
            raise InvalidInputError("a set without examples", hint="check the data set's folder")
        name, times = Counter(keys).most_common(1)[0]
        if times > 1:
            raise InvalidInputError(f"{times} examples have the key {name!r}", hint="give each its own key")
        try:
            encoded = [key.encode() for key in keys]
        except (UnicodeEncodeError, AttributeError) as error:
            raise InvalidInputError(
                f"a key that is not text: {error}", hint="name examples in UTF-8"
            ) from error
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(key) for key in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets, labels, tuple(class_names))


def unlabelled(n_examples: int) -> Examples:
    """Return examples of which nothing is known, with their numbers as keys."""
    if n_examples == 0:
        nothing = np.empty(0, dtype=np.uint8)
        return Examples(nothing, np.zeros(1, dtype=np.int64), nothing.astype(np.int32))
    labels = np.zeros(n_examples, dtype=np.int32)
    return Examples.from_keys([str(row) for row in range(n_examples)], labels, [UNKNOWN])


@dataclass(frozen=True)
class ExampleTable:
    """Examples with the first half of the sha256 of each one's content before any transform."""

    examples: Examples
    content_sha256: NDArray[np.uint8]  # [examples, 16]

    def __post_init__(self) -> None:
        if self.content_sha256.shape != (len(self.examples), 16):
            raise InvalidInputError(
                f"content hashes of shape {self.content_sha256.shape} for {len(self.examples):,} examples"
            )

    def info(self, name: str) -> SetInfo:
        """Describe the set for a manifest.

        The fingerprint is the sha256 over key offsets (int64), keys, content hashes and labels (int32), all
        little-endian and in the order of the examples.
        """
        digest = hashlib.sha256()
        for part in (
            self.examples.key_offsets.astype("<i8"),
            self.examples.key_bytes,
            self.content_sha256,
            self.examples.labels.astype("<i4"),
        ):
            digest.update(np.ascontiguousarray(part).tobytes())
        return SetInfo(name, len(self.examples), digest.hexdigest())

    def to_arrays(self, name: str) -> dict[str, ArrayData]:
        """Return the arrays to store."""
        examples = self.examples
        return {
            f"{name}/{LABEL}": ArrayData(examples.labels, {"class_names": list(examples.class_names)}),
            f"{name}/{KEY}": ArrayData(examples.key_bytes),
            f"{name}/{OFFSET}": ArrayData(examples.key_offsets),
            f"{name}/{CONTENT}": ArrayData(self.content_sha256),
        }


def read_examples(
    store: StoreLike, name: str, known: tuple[NDArray[np.int32], Sequence[str]] | None = None
) -> Examples:
    """Read the names and labels of a set's examples; labels and class names need not be read if known.

    Raises:
        DamagedError: an array is missing, altered or does not hold names and labels.
    """
    n_examples = store.manifest.set_named(name).n_examples
    if n_examples == 0:  # the store has no such set
        return unlabelled(0)
    reader = GroupReader(store.storage, layout.DATASET, store.manifest.objects)
    keys = reader.read(
        f"{name}/{KEY}", (None,), "uint8"
    )  # first: they hardly compress, so their size bears out the others'
    reader = replace(reader, vouched=len(keys))
    offsets = reader.read(f"{name}/{OFFSET}", (n_examples + 1,), "int64")
    if known is None:
        labels = reader.read(f"{name}/{LABEL}", (n_examples,), "int32")
        names = reader.attributes(f"{name}/{LABEL}").get("class_names", [])
    else:
        labels, names = known[0], list(known[1])
    try:
        return Examples(keys, offsets, labels, texts_of(names))
    except InvalidInputError as error:
        raise DamagedError(
            f"{store.url}/{layout.DATASET}/{name}: {error}", hint="restore it from a copy of the store"
        ) from error


def texts_of(found: object) -> tuple[str, ...]:
    """Return class names as attributes have them.

    Raises:
        InvalidInputError: something else.
    """
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise InvalidInputError("class names that are not texts")
    return tuple(found)


def read_example_table(store: StoreLike, name: str) -> ExampleTable:
    """Read a set's examples with their content hashes: all that its fingerprint covers.

    Raises:
        DamagedError: an array is missing, altered or malformed.
    """
    reader = GroupReader(store.storage, layout.DATASET, store.manifest.objects)
    shape = (store.manifest.set_named(name).n_examples, 16)
    return ExampleTable(read_examples(store, name), reader.read(f"{name}/{CONTENT}", shape, "uint8"))
