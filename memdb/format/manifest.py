"""What a store is: the manifest, as a frozen value.

It is parsed once, at the border: a value that exists is valid. Parsing decides that a document is
complete and well-formed; it does not decide whether the objects it names are there (the store does, when
it reads them) nor whether a data set or recipe at hand is the same (`Manifest.require_same`).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from memdb import plugins
from memdb.errors import InvalidInputError, MismatchError
from memdb.format import layout
from memdb.format.base import HEX32, HEX64, Base
from memdb.format.documents import MAX_INTEGER, Json, Reader, fingerprint, now, own_version, sealed
from memdb.format.experiment import EXPERIMENT_FEATURE, SCHEME, Experiment
from memdb.format.kept import Kept
from memdb.format.sketches import SketchPlan
from memdb.format.version import require_format

KINDS = ("bit", "unit", "real", "category")
SCHEMES = ("exact", "bernoulli", "imported", SCHEME)
MAX_EXAMPLES = 2**31 - 1  # ids are int32
BASE_FEATURE = "base"  # a memdb that does not know it would answer from some of the models only
SEED = re.compile(r"[0-9]{1,20}")
CONTENT = "content_sha256"  # of a set of examples
HASH_BYTES = 16  # that a set keeps of each example's content
DTYPES = {"bool", *(f"{kind}{n}" for kind in ("int", "uint", "float") for n in (8, 16, 32, 64))} - {"float8"}


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """Size in bytes and sha256 of one immutable object."""

    size: int
    sha256: str


Objects = Mapping[str, ObjectInfo]


@dataclass(frozen=True, slots=True)
class SetInfo:
    """A named set of examples; the fingerprint covers keys, content hashes and labels in order."""

    name: str
    n_examples: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is kept of a model's prediction on each example of the named sets."""

    name: str  # as recipes return it, after `train/` or `test/`
    kind: str  # bit; unit, from 0 to 1; real; or category, whole numbers from 0
    dtype: str  # NumPy's, in which it is stored; bits are packed as uint8
    sets: tuple[str, ...]  # train, test or both
    definition: str  # in words, for whoever reads the store


CORRECT = Outcome(
    "correct", "bit", "uint8", (layout.TRAIN, layout.TEST), "1 where the model's prediction equals the label"
)
LOGIT_CONFIDENCE = Outcome(
    "logit_confidence",
    "real",
    "float16",
    (layout.TRAIN, layout.TEST),
    "log(p / (1 - p)) of the probability p given to the label, clipped to [-30, 30]",
)
CUMULATIVE_LOSS = Outcome(
    "cumulative_loss",
    "real",
    "float16",
    (layout.TRAIN,),
    "cross entropy of the label, without smoothing, as training saw the example in each epoch before the "
    "step, summed over the epochs, clipped to [0, 65504]; NaN where the example was not in the subset",
)
FIRST_LEARNED = Outcome(
    "first_learned",
    "category",
    "uint16",
    (layout.TRAIN,),
    "the epoch, from 1, from which on training found the prediction equal to the label; one more than the "
    "number of epochs where it did not in the last; 0 where the example was not in the subset",
)
NO_PREDICTION = 2**16 - 1
PREDICTION = Outcome(
    "prediction",
    "category",
    "uint16",
    (layout.TRAIN, layout.TEST),
    f"the label that the model predicts; {NO_PREDICTION} where it gives none, its numbers not being finite",
)
OUTCOMES: Mapping[str, Outcome] = {
    outcome.name: outcome
    for outcome in (CORRECT, LOGIT_CONFIDENCE, CUMULATIVE_LOSS, FIRST_LEARNED, PREDICTION)
}


@dataclass(frozen=True, slots=True)
class RecipeInfo:
    """How models are trained: name, version and options together are the recipe's identity.

    ``import_path`` is where a user's own recipe was found; it is not part of the identity.
    """

    name: str
    version: str
    options: Mapping[str, Json]
    import_path: str | None = None

    @property
    def fingerprint(self) -> str:
        """Sha256 of name, version and options (defaults filled in) as canonical JSON."""
        return fingerprint({"name": self.name, "options": self.options, "version": self.version})

    @property
    def imports(self) -> str | None:
        """What training by this recipe would import; None for one that is built in."""
        built_in = self.name.startswith(plugins.TORCHVISION) or not plugins.is_import_path(self.name)
        return self.import_path or (None if built_in else self.name)

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value}" for name, value in sorted(self.options.items()))
        return f"{self.name} {self.version}" + (f" ({options})" if options else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The frozen description of a store; by default, of a new one that is created now."""

    store_id: str = field(default_factory=lambda: secrets.token_hex(16))
    seed: int = field(default_factory=lambda: secrets.randbits(63))
    dataset: str
    sets: tuple[SetInfo, ...]
    outcomes: tuple[Outcome, ...]
    recipe: RecipeInfo
    subset_scheme: str
    subset_fraction: float
    created_at: str = field(default_factory=now)
    memdb_version: str = field(default_factory=own_version)
    put_if_absent: bool = True  # whether the storage kept two writers from creating one object
    objects: Objects = field(default_factory=dict)
    base: Base | None = None  # the store that this one extends, as it was at creation
    sketches: SketchPlan | None = None  # what training sketches without being asked
    experiment: Experiment | None = None  # that the models are for; their subsets are those of its arms
    kept: Kept | None = None  # of the data set's training examples, where some were excluded

    @property
    def imports(self) -> dict[str, str]:
        """What training would import: import paths of `recipe` and `dataset`, unless they are built in."""
        dataset = self.dataset if plugins.is_import_path(self.dataset) else None
        paths = {"recipe": self.recipe.imports, "dataset": dataset}
        return {kind: path for kind, path in paths.items() if path is not None}

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups made at creation: a listing that lacks one of their documents is not to be trusted."""
        return layout.GROUPS if self.base is None else (*layout.GROUPS, layout.BASES)

    @property
    def train(self) -> SetInfo:
        """The training set."""
        return self.set_named(layout.TRAIN)

    def set_named(self, name: str) -> SetInfo:
        """Return the set of that name: every manifest has ``train``, others may be empty."""
        return next((item for item in self.sets if item.name == name), SetInfo(name, 0, ""))

    def arrays(self) -> dict[str, tuple[Outcome, int]]:
        """Return every array a segment holds besides its mask: ``set/outcome`` to outcome and examples."""
        sizes = {item.name: item.n_examples for item in self.sets}
        return {
            f"{name}/{outcome.name}": (outcome, sizes[name])
            for outcome in self.outcomes
            for name in outcome.sets
            if name in sizes
        }

    def require_same(self, sets: tuple[SetInfo, ...], recipe: RecipeInfo, url: str) -> None:
        """Refuse to add models trained on other data or by another recipe.

        Raises:
            MismatchError: names both values.
        """
        for ours in self.sets:
            theirs = next((item for item in sets if item.name == ours.name), None)
            if theirs != ours:
                found = (
                    "absent" if theirs is None else f"{theirs.n_examples:,} examples, {theirs.fingerprint}"
                )
                raise MismatchError(
                    f"the {ours.name} set of {url} has {ours.n_examples:,} examples with fingerprint "
                    f"{ours.fingerprint}; the one loaded is {found}",
                    hint="train with the data that the store was made with, or `memdb init` another store",
                )
        if recipe.fingerprint != self.recipe.fingerprint:
            raise MismatchError(
                f"{url} was made with recipe {self.recipe}, fingerprint {self.recipe.fingerprint}; this one "
                f"is {recipe}, fingerprint {recipe.fingerprint}",
                hint="train with the store's own recipe and options, or `memdb init` another store",
            )

    def require_random(self, url: str) -> None:
        """Refuse to take the subsets of an experiment's arms for random ones.

        Raises:
            InvalidInputError: this is the store of an experiment.
        """
        if self.experiment is not None:
            raise InvalidInputError(
                f"{url} is a removal experiment: its subsets are not random, and tell no memorization",
                hint="see it with `memdb experiment removal`, and ask the store that chose what it removes",
            )

    def require_joinable(self, theirs: Manifest, url: str, their_url: str) -> None:
        """Refuse to count models of two stores together that were not trained alike.

        Raises:
            MismatchError: names what differs, and both values.
        """
        hint = "`memdb compare` says how far two stores agree without adding them up"
        for manifest, where in ((self, url), (theirs, their_url)):
            manifest.require_random(where)
        ours = {item.name: item for item in self.sets}
        others = {item.name: item for item in theirs.sets}
        for name in sorted(ours.keys() | others.keys()):
            if ours.get(name) != others.get(name):
                raise MismatchError(
                    f"the {name} sets differ: {url} has {_described(ours.get(name))}, {their_url} has "
                    f"{_described(others.get(name))}",
                    hint=hint,
                )
        if self.recipe.fingerprint != theirs.recipe.fingerprint:
            raise MismatchError(
                f"the recipes differ: {url} has {self.recipe}, fingerprint {self.recipe.fingerprint}; "
                f"{their_url} has {theirs.recipe}, fingerprint {theirs.recipe.fingerprint}",
                hint=hint,
            )
        subsets = (self.subset_scheme, self.subset_fraction)
        if subsets != (theirs.subset_scheme, theirs.subset_fraction):
            raise MismatchError(
                f"the subsets differ: {url} draws {self.subset_fraction:g} of the training set, "
                f"{self.subset_scheme}; {their_url} {theirs.subset_fraction:g}, {theirs.subset_scheme}. "
                "Together they would show influence where there is none",
                hint=hint,
            )

    @property
    def _required_features(self) -> tuple[str, ...]:
        has = {BASE_FEATURE: self.base, EXPERIMENT_FEATURE: self.experiment}
        return tuple(name for name, value in has.items() if value)

    def to_document(self) -> dict[str, Json]:
        """Return the sealed JSON document."""
        optional = {"base": self.base, "sketches": self.sketches, "kept": self.kept}
        n_train = self.train.n_examples
        return sealed(
            {
                "format": layout.FORMAT,
                "required_features": list(self._required_features),
                "store_id": self.store_id,
                "seed": str(self.seed),
                "dataset": self.dataset,
                "sets": [asdict(item) for item in self.sets],
                "outcomes": [
                    {
                        "name": o.name,
                        "kind": o.kind,
                        "dtype": o.dtype,
                        "sets": list(o.sets),
                        "definition": o.definition,
                    }
                    for o in self.outcomes
                ],
                "recipe": {
                    "name": self.recipe.name,
                    "version": self.recipe.version,
                    "options": dict(self.recipe.options),
                    "import_path": self.recipe.import_path,
                    "fingerprint": self.recipe.fingerprint,
                },
                "subsets": {"scheme": self.subset_scheme, "fraction": self.subset_fraction},
                "created_at": self.created_at,
                "memdb_version": self.memdb_version,
                "put_if_absent": self.put_if_absent,
                "objects": objects_document(self.objects),
                **{name: value.to_document() for name, value in optional.items() if value},
                **({"experiment": self.experiment.to_document(n_train)} if self.experiment else {}),
            }
        )

    @classmethod
    def from_document(cls, document: Mapping[str, Any], place: str) -> Manifest:
        """Parse and check a manifest.

        Raises:
            WrongFormatError: a newer format, features this memdb does not know, or a list of what is wrong.
        """
        require_format(document, place, (BASE_FEATURE, EXPERIMENT_FEATURE))
        read = Reader(document, place)
        recipe, subsets = read.inside("recipe"), read.inside("subsets")
        manifest = cls(
            store_id=read.take("store_id", str, "", lambda v: bool(HEX32.fullmatch(v))),
            seed=seed_of(read),
            dataset=read.take("dataset", str, ""),
            sets=tuple(_set(item) for item in read.items("sets")),
            outcomes=tuple(_outcome(item) for item in read.items("outcomes")),
            recipe=RecipeInfo(
                recipe.take("name", str, ""),
                recipe.take("version", str, ""),
                recipe.free("options"),
                recipe.optional("import_path", str),
            ),
            subset_scheme=subsets.take("scheme", str, "", lambda v: v in SCHEMES),
            subset_fraction=subsets.take("fraction", float, 0.5, lambda v: 0 < v < 1),
            created_at=read.take("created_at", str, ""),
            memdb_version=read.take("memdb_version", str, ""),
            put_if_absent=read.take("put_if_absent", bool, default=True),
            objects=objects_from(read.inside("objects")),
            base=Base.from_reader(read.inside("base")) if "base" in document else None,
            sketches=SketchPlan.from_reader(read.inside("sketches")) if "sketches" in document else None,
            kept=Kept.from_reader(read.inside("kept"), MAX_EXAMPLES) if "kept" in document else None,
        )
        if (BASE_FEATURE in document.get("required_features", [])) != (manifest.base is not None):
            read.problems.append(f"{place} names a base or requires it to be known, and not both")
        claimed = recipe.take("fingerprint", str, "")
        if claimed and claimed != manifest.recipe.fingerprint:
            read.problems.append(f"{place}.recipe.fingerprint is not that of the recipe")
        read.problems.extend(manifest._contradictions(place))
        read.finish("ask its owner for an undamaged copy")
        return manifest._with_experiment(read, document)

    def _with_experiment(self, read: Reader, document: Mapping[str, Any]) -> Manifest:
        """Return the same with the experiment of its document, whose size the sets bound."""
        is_one = "experiment" in document
        is_required = EXPERIMENT_FEATURE in document.get("required_features", [])
        if not is_one == is_required == (self.subset_scheme == SCHEME):
            read.problems.append(f"{read.place} has an experiment, its feature or its subsets, not all three")
        sizes = (self.train.n_examples, self.set_named(layout.TEST).n_examples)
        experiment = Experiment.from_reader(read.inside("experiment"), *sizes) if is_one else None
        read.finish("ask its owner for an undamaged copy")
        return replace(self, experiment=experiment)

    def _contradictions(self, place: str) -> Iterator[str]:
        """Yield what is wrong with the sets: their names, and more examples than the listed objects hold.

        Readers take memory by the number of examples.
        """
        names = [item.name for item in self.sets]
        if layout.TRAIN not in names or len(set(names)) != len(names):
            yield f"{place}.sets must name `train` and no set twice: {names}"
        if self.kept is not None and self.kept.n_examples <= self.train.n_examples:
            yield f"{place} keeps {self.train.n_examples:,} of {self.kept.n_examples:,} train examples"
        for item in self.sets:
            hashes = sum(info.size for name, info in self.objects.items()
                         if name.startswith(f"{item.name}/{CONTENT}/c."))  # fmt: skip
            if item.n_examples * HASH_BYTES > hashes:
                yield f"{place} has {item.n_examples:,} {item.name} examples, and hashes of fewer"


def _described(info: SetInfo | None) -> str:
    return "none" if info is None else f"{info.n_examples:,} examples with fingerprint {info.fingerprint}"


def _set(item: Reader) -> SetInfo:
    return SetInfo(
        item.take("name", str, "", layout.is_set_name),
        item.take("n_examples", int, 0, lambda v: 0 < v <= MAX_EXAMPLES),
        item.take("fingerprint", str, "", lambda v: bool(HEX64.fullmatch(v))),
    )


def _outcome(item: Reader) -> Outcome:
    return Outcome(
        item.take("name", str, "", layout.is_set_name),
        item.take("kind", str, "", lambda v: v in KINDS),
        item.take("dtype", str, "uint8", lambda v: v in DTYPES),
        tuple(item.take("sets", list, [], lambda v: all(isinstance(name, str) for name in v))),
        item.take("definition", str, ""),
    )


def seed_of(read: Reader, key: str = "seed") -> int:
    """Return a field that is a decimal string of an unsigned 64-bit integer."""
    text = read.take(key, str, "0", lambda v: bool(SEED.fullmatch(v)) and int(v) < 2**64)
    return int(text)


def objects_document(objects: Objects) -> dict[str, Json]:
    """Return name to ``[size, sha256]``."""
    return {name: [info.size, info.sha256] for name, info in sorted(objects.items())}


def objects_from(read: Reader) -> dict[str, ObjectInfo]:
    """Parse name to ``[size, sha256]``; a name that could leave the group's folder is a problem."""
    objects = {}
    for name, value in read.entries().items():
        match value:
            case [int(size), str(sha256)] if (
                layout.is_object_name(name) and 0 <= size <= MAX_INTEGER and HEX64.fullmatch(sha256)
            ):
                objects[name] = ObjectInfo(size, sha256)
            case _:
                read.problems.append(f"{read.place} has a bad entry {name[:80]!r}")
    return objects
