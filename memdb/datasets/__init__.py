"""Data sets: named sets of examples with labels, keys and content hashes.

Arrays are the fast path; any sequence with ``len`` and ``[i]`` works too, and is read on demand.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memdb import plugins
from memdb.datasets.example_set import ExampleSet
from memdb.datasets.inputs import FirstOfPairs, Inputs, labels_of
from memdb.environment import install
from memdb.errors import InvalidInputError, MemdbError, NotFoundError
from memdb.format import layout
from memdb.format.manifest import Manifest, SetInfo
from memdb.store import ExampleTable

Render = Callable[[Any], Any]  # from an example to text, or to the pixels of a picture


class Dataset:
    """A training set and a test set of one task; without ``test_x`` and ``test_y`` there is no test set.

    Args:
        train_x, train_y, test_x, test_y: see `ExampleSet`.
        class_names: one name per label; optional.
        train_keys, test_keys: names of the examples; by default, their rows.
        render: shows an example, ``x[i]``, to people: returns text, or a picture as bytes or as numbers from
            0 to 1, [height, width] or with 1, 3 or 4 channels. By default pictures are shown as they are,
            and other examples as their words or numbers.

    Raises:
        InvalidInputError: what `ExampleSet` refuses, or a label without a class name.
    """

    def __init__(  # noqa: PLR0913 - four arrays are the signature everybody knows; names are optional
        self,
        train_x: Inputs | ArrayLike,
        train_y: ArrayLike,
        test_x: Inputs | ArrayLike | None = None,
        test_y: ArrayLike | None = None,
        class_names: Sequence[str] | None = None,
        *,
        train_keys: Sequence[str] | None = None,
        test_keys: Sequence[str] | None = None,
        render: Render | None = None,
    ) -> None:
        self.render = render
        self.train = ExampleSet(train_x, train_y, train_keys, layout.TRAIN)
        if (test_x is None) != (test_y is None):
            raise InvalidInputError(
                f"the test set has no {'labels' if test_y is None else 'examples'}",
                hint="give test_x and test_y, or neither for a data set without a test set",
                parameter=("test_x", "test_y"),
            )
        self.test = (
            ExampleSet.of_nothing(self.train.x)
            if test_x is None or test_y is None or (len(test_x) == 0 and len(test_y) == 0)  # type: ignore[arg-type]
            else ExampleSet(test_x, test_y, test_keys, layout.TEST)
        )
        self.class_names = tuple(str(name) for name in (() if class_names is None else class_names))
        if self.class_names and self.n_classes > len(self.class_names):
            raise InvalidInputError(
                f"label {self.n_classes - 1} has no name among the {len(self.class_names)} class names",
                hint="give one class name a label",
            )

    def __repr__(self) -> str:
        return f"Dataset(train={len(self.train)}, test={len(self.test)}, n_classes={self.n_classes})"

    @classmethod
    def from_pairs(cls, train: Any, test: Any = None, class_names: Sequence[str] | None = None) -> Self:
        """Return a data set from two sequences of (input, label), such as PyTorch's map-style data sets.

        Labels are read once, here. Inputs are read on demand, so they must not be randomly transformed.

        Args:
            train: has a length, and (input, label) at each row; labels are integers from 0.
            test: likewise; None for no test set.
            class_names: one name per label; optional.

        Raises:
            InvalidInputError: what `Dataset` refuses.
        """
        test_x, test_y = (None, None) if test is None else (FirstOfPairs(test), labels_of(test))
        return cls(FirstOfPairs(train), labels_of(train), test_x, test_y, class_names)

    def only(self, rows: NDArray[np.integer[Any]]) -> Self:
        """Return the data set with the training examples of these rows, in order, and all test examples."""
        chosen = copy.copy(self)
        chosen.__dict__.pop("tables", None)
        chosen.train = self.train.only(rows)
        return chosen

    def of(self, manifest: Manifest) -> Self:
        """Return what a store is of: this, or what is left of it where the store was made of a part.

        Data of another size is returned as it is: it may be that part, and its fingerprint tells.
        """
        kept = manifest.kept
        if kept is None or len(self.train) != kept.n_examples:
            return self
        return self.only(kept.rows(manifest.train.n_examples, f"the store of {manifest.dataset}"))

    @cached_property
    def n_classes(self) -> int:
        """The number of classes: the largest label plus one."""
        return int(max(self.train.labels.max(), self.test.labels.max(initial=0))) + 1

    @property
    def sets(self) -> Mapping[str, ExampleSet]:
        """The sets by name; one without examples is not among them."""
        return {item.name: item for item in (self.train, self.test) if len(item)}

    @cached_property
    def tables(self) -> Mapping[str, ExampleTable]:
        """What a store keeps of each set."""
        with plugins.blaming("the data set cannot be read:", "each example must have an array, or `content`"):
            return {name: examples.table(self.class_names) for name, examples in self.sets.items()}

    @property
    def infos(self) -> tuple[SetInfo, ...]:
        """Name, size and fingerprint of each set."""
        return tuple(table.info(name) for name, table in self.tables.items())


def digits(_root: str | None = None, _download: bool = False) -> Dataset:  # noqa: FBT001, FBT002
    """Return scikit-learn's 1,797 handwritten digits, 8 x 8 grey levels over 16, as 1,437 and 360."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - heavy, and only this data set needs it

    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    x = (bunch.images / 16).astype(np.float32)
    train, test = order[:1437], order[1437:]
    return Dataset(
        x[train],
        bunch.target[train],
        x[test],
        bunch.target[test],
        bunch.target_names,
        train_keys=[f"digits/{row}" for row in train],
        test_keys=[f"digits/{row}" for row in test],
    )


def _torchvision(class_name: str) -> Callable[[str | None, bool], Dataset]:
    def load(root: str | None, download: bool) -> Dataset:  # noqa: FBT001
        folder = _required(root)
        import torchvision.datasets  # noqa: PLC0415 - needs torch: seconds to import

        kind = getattr(torchvision.datasets, class_name)
        try:
            train, test = (kind(folder, train=flag, download=download) for flag in (True, False))
        except MemdbError:
            raise
        except (RuntimeError, OSError, EOFError, ValueError, AssertionError) as error:
            reason = (str(error) or "a damaged file").splitlines()[0].split(". ")[0]
            raise NotFoundError(
                f"{class_name} is not complete in {root}: {reason}",
                hint="give the folder that holds it with data_root, or add download=True",
                parameter=("data_root", "download"),
            ) from error
        return Dataset(
            np.asarray(train.data), np.asarray(train.targets), np.asarray(test.data),
            np.asarray(test.targets), train.classes,
        )  # fmt: skip

    return load


@dataclass(frozen=True)
class ImageFiles:
    """Image files, decoded on demand to RGB, uint8 [height, width, 3]."""

    paths: Sequence[Path]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        from PIL import Image  # noqa: PLC0415 - comes with torchvision

        try:
            with Image.open(self.paths[index]) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError) as error:
            raise InvalidInputError(
                f"{self.paths[index]} cannot be decoded: {error}", hint="repair or remove it, then init again"
            ) from error

    def content(self, index: int) -> bytes:
        """Return the file's bytes."""
        return self.paths[index].read_bytes()


def imagefolder(root: str | None, _download: bool = False) -> Dataset:  # noqa: FBT001, FBT002
    """Return a tree ``train/CLASS/*`` and, if there is one, ``test/CLASS/*``, as torchvision reads them."""
    from torchvision.datasets import ImageFolder  # noqa: PLC0415 - needs torch: seconds to import

    top = Path(_required(root))
    parts = {}
    names = (layout.TRAIN, layout.TEST) if (top / layout.TEST).exists() else (layout.TRAIN,)
    for name in names:
        try:
            parts[name] = ImageFolder(top / name)
        except OSError as error:
            raise NotFoundError(
                f"{top / name} is not a tree of class folders with images: {error}",
                hint="give a folder with train/CLASS/ and test/CLASS/ as data_root",
                parameter="data_root",
            ) from error
    train, test = parts[layout.TRAIN], parts.get(layout.TEST)
    if test is not None and train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))
        raise InvalidInputError(
            f"{top} has class folders in only one of train/ and test/: {', '.join(odd[:5])}",
            hint="give both the same class folders",
        )
    paths = {name: [Path(path) for path, _ in part.samples] for name, part in parts.items()}
    keys = {name: [path.relative_to(top).as_posix() for path in found] for name, found in paths.items()}
    return Dataset(
        ImageFiles(paths[layout.TRAIN]), train.targets,
        None if test is None else ImageFiles(paths[layout.TEST]), None if test is None else test.targets,
        train.classes, train_keys=keys[layout.TRAIN], test_keys=keys.get(layout.TEST),
    )  # fmt: skip


BUILT_IN: Mapping[str, Callable[[str | None, bool], Dataset]] = {
    "digits": digits,
    "mnist": _torchvision("MNIST"),
    "fashion-mnist": _torchvision("FashionMNIST"),
    "cifar10": _torchvision("CIFAR10"),
    "cifar100": _torchvision("CIFAR100"),
    "imagefolder": imagefolder,
}


def is_loadable(name: str) -> bool:
    """Whether `load` knows the name; that of arrays in memory, or of imported runs, it may not."""
    return name in BUILT_IN or plugins.is_import_path(name)


def load(name: str, root: str | None = None, *, download: bool = False) -> Dataset:
    """Load a data set by its built-in name, or by the import path of a function of the root.

    Raises:
        InvalidInputError: an unknown name, a function that fails or returns something else, or a missing
            package.
        NotFoundError: the data is not in ``root``.
    """
    if plugins.is_import_path(name):
        return _call(name, root)
    if name not in BUILT_IN:
        raise InvalidInputError(
            f"unknown data set {name!r}",
            hint=f"use one of {', '.join(BUILT_IN)}, or package.module:attribute of your own",
        )
    try:
        return BUILT_IN[name](None if root is None else str(Path(root).expanduser()), download)
    except RuntimeError as error:  # raised on import by incompatible builds of torch and torchvision
        raise InvalidInputError(
            f"the data set {name} cannot be loaded: {str(error).splitlines()[0]}",
            hint="run: pip install --upgrade torch torchvision",
        ) from error
    except ImportError as error:
        raise InvalidInputError(
            f"the data set {name} needs {error.name}, which is not installed",
            hint=f"run: {install('train')}",
        ) from error


def _call(import_path: str, root: str | None) -> Dataset:
    make = plugins.load(import_path, "data set")
    plugins.require_call(make, ("root",), "data set", repr(import_path))
    with plugins.blaming(
        f"data set {import_path!r} failed:",
        "it is called with data_root, or None; set MEMDB_TRACEBACK=1 to see where it failed",
        parameter="data_root",
    ):
        dataset = make(root)
    if not isinstance(dataset, Dataset):
        raise InvalidInputError(
            f"data set {import_path!r} returned a {type(dataset).__name__}", hint="return a memdb.Dataset"
        )
    return dataset


def _required(root: str | None) -> str:
    if root is None:
        raise InvalidInputError(
            "this data set lies in a folder that was not named",
            hint="name it with data_root=DIR",
            parameter="data_root",
        )
    return root
