"""The store of a removal experiment: created before the first model, grown repetition by repetition."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from memdb.errors import InvalidInputError, MismatchError, NotFoundError
from memdb.experiment.removal import Chooser, Design
from memdb.format import layout, subsets
from memdb.format.documents import MAX_DOCUMENT, canonical_json
from memdb.format.experiment import MAX_REPETITIONS, SCHEME, Experiment, arm_seed
from memdb.format.manifest import CORRECT, Manifest
from memdb.storage.protocol import Storage
from memdb.store import Snapshot, Store
from memdb.store.examples import read_example_table
from memdb.training import engines
from memdb.training.engines.request import Request
from memdb.training.loop import require_positive
from memdb.training.run import Plan
from memdb.training.seeds import ArmSeeds

if TYPE_CHECKING:
    from memdb.datasets import Dataset
    from memdb.recipes import BoundRecipe

REPETITIONS = 20
LARGEST = MAX_DOCUMENT // 2  # bytes of a manifest, before its objects are listed
GAP = 10_000  # repetitions that may be missing before one that is there
Rows = Mapping[int, int]  # repetition to the position of its model in the snapshot


class HowToTrain(TypedDict, total=False):
    """The options of `memdb.Database.train` that say how models are trained, not how many."""

    dataset: str | Dataset | None
    recipe: Any
    recipe_version: str | None
    data_root: str | None
    device: str
    batch_models: int | None
    workers: int | None
    ray: str | None
    task_cpus: int
    task_gpus: float | None
    checkpoint_dir: str | Path | None


def opened(storage: Storage, source: Manifest) -> Store | None:
    """Open the store of an experiment on the data and recipe of ``source``; None if nothing is there.

    Raises:
        InvalidInputError: a store that is of no experiment.
        MismatchError: an experiment on other data, or by another recipe.
    """
    try:
        store = Store.open(storage)
    except NotFoundError:
        return None
    if store.manifest.experiment is None:
        raise InvalidInputError(
            f"{store.url} is not the store of an experiment",
            hint="name a new place for the experiment's own models, such as into=removal.zarr",
            parameter="into",
        )
    try:
        store.manifest.require_same(source.sets, source.recipe, store.url)
    except MismatchError as error:
        raise MismatchError(
            str(error), hint="name a new place for this experiment, such as into=other.zarr",
            parameter="into",
        ) from error  # fmt: skip
    return store


def require_testable(store: Store) -> None:
    """Refuse stores whose models cannot be trained here and judged by test examples.

    Raises:
        InvalidInputError: the store has no models but imported ones or scores, or no test set.
    """
    manifest = store.manifest
    manifest.require_random(store.url)
    if manifest.subset_scheme == "imported":
        raise InvalidInputError(
            f"{store.url} was imported: there is no recipe here to train the experiment's models by",
            hint="train a store of the same data with `memdb init` and `memdb train`, and ask that one",
        )
    if manifest.set_named(layout.TEST).n_examples == 0:
        raise InvalidInputError(
            f"{store.url} has no test examples to judge by", hint="use a data set with a test set"
        )


def require_same_data(scores: Store, source: Store) -> None:
    """Refuse scores of other examples.

    Raises:
        MismatchError: the sets differ.
    """
    scores.manifest.require_random(scores.url)
    scores.manifest.require_same(source.manifest.sets, scores.manifest.recipe, scores.url)


def require_counts(models: int | None, add: int | None) -> None:
    """Refuse numbers of models before anything is created (see `seeds_to_train`)."""
    for value, name in ((models, "models"), (add, "add")):
        if value is not None:
            require_positive(value, name)
    if models is not None and add is not None:
        raise InvalidInputError(
            f"models {models} and add {add} are both given",
            hint="give the models that each arm is to have, or how many more",
            parameter=("models", "add"),
        )


def seed_of(given: int | None) -> int:
    """Return the seed of a new experiment's store.

    Raises:
        InvalidInputError: out of range.
    """
    seed = secrets.randbits(63) if given is None else given
    if not 0 <= seed < 2**64:
        raise InvalidInputError(
            f"the seed {seed} is out of range", hint="use one from 0 to 2**64 - 1", parameter="seed"
        )
    return seed


def create(storage: Storage, source: Store, experiment: Experiment, seed: int) -> Store:
    """Create the experiment's store, with the examples of the source."""
    theirs = source.manifest
    manifest = Manifest(
        seed=seed,
        dataset=theirs.dataset,
        sets=theirs.sets,
        outcomes=(CORRECT,),
        recipe=theirs.recipe,
        subset_scheme=SCHEME,
        subset_fraction=theirs.subset_fraction,
        experiment=experiment,
        kept=theirs.kept,
    )
    size = len(canonical_json(manifest.to_document()))
    if size > LARGEST:
        raise InvalidInputError(
            f"the experiment takes a manifest of {size:,} bytes, and {LARGEST:,} are the most",
            hint="compare fewer thresholds or rules at once",
            parameter="thresholds",
        )
    tables = {info.name: read_example_table(source, info.name) for info in theirs.sets}
    return Store.create(storage, manifest, tables)


def require_same_design(
    store: Store,
    design: Design,
    given: frozenset[str],
    chooser: Callable[[int], Chooser],
    scores: Store | None = None,
) -> None:
    """Refuse to change arms that models were trained for.

    A rule or control that was asked for may have no arms, which the scores that chose them tell.

    Raises:
        MismatchError: a setting that was given is another than the store's, or other scores chose.
    """
    experiment = _experiment(store)
    if scores is not None and scores.manifest.store_id != experiment.source.store_id:
        raise MismatchError(
            f"the scores that chose what {store.url} removes are not those of {scores.url}",
            hint="omit scores_from to go on with it, or name a new place for another experiment",
            parameter="scores_from",
        )
    arms = experiment.arms[1:]
    ours: dict[str, Any] = {
        "thresholds": tuple(sorted({arm.threshold for arm in arms})),
        "rules": tuple(dict.fromkeys(arm.rule for arm in arms)),
        "fraction": experiment.fraction,
        "add_back": any(arm.control == "added" for arm in arms),
        "controls": tuple(c for c in ("random", "matched") if any(arm.control == c for arm in arms)),
    }
    for name in sorted(given & ours.keys()):
        said = getattr(design, name)
        same = set(said) <= set(ours[name]) if isinstance(said, tuple) else said == ours[name]
        if not same and name in {"rules", "controls"}:
            whole = replace(design, **{key: value for key, value in ours.items() if key not in given})
            same = _makes_the_same_arms(chooser(store.manifest.seed), whole, experiment)
        if not same:
            raise _made_otherwise(store, name, ours[name], said)


def _makes_the_same_arms(chooser: Chooser, design: Design, experiment: Experiment) -> bool:
    if chooser.models_sha256 != experiment.source.models_sha256:
        return False
    ours, theirs = (
        [(arm.control, arm.rule, arm.threshold) for arm in arms]
        for arms in (chooser.arms(design), experiment.arms)
    )
    return ours == theirs


def require_same_seed(store: Store, seed: int | None) -> None:
    """Refuse another seed than that of which all masks of an experiment are drawn.

    Raises:
        MismatchError: a seed is given, and it is another.
    """
    if seed is not None and seed != store.manifest.seed:
        raise _made_otherwise(store, "seed", store.manifest.seed, seed)


def _made_otherwise(store: Store, name: str, ours: object, said: object) -> MismatchError:
    made = f"with {name} {_shown(ours)}, not {_shown(said)}"
    if isinstance(ours, bool):
        made = f"{'with' if ours else 'without'} {name}"
    return MismatchError(
        f"{store.url} was made {made}",
        hint=f"omit {name} to go on with it, or name a new place for another experiment",
        parameter=name,
    )


def _shown(value: object) -> str:
    return (
        ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)
        if isinstance(value, tuple)
        else str(value)
    )


def _experiment(store: Store) -> Experiment:
    experiment = store.manifest.experiment
    assert experiment is not None  # noqa: S101 - `opened` refuses all others
    return experiment


@dataclass(frozen=True, slots=True)
class Progress:
    """The models of an experiment by arm and repetition."""

    rows: tuple[Rows, ...]  # by arm

    @property
    def fullest(self) -> int:
        """How many repetitions the arm with the most has."""
        return max((len(rows) for rows in self.rows), default=0)

    @classmethod
    def of(cls, snapshot: Snapshot) -> Progress:
        """Find the models of each arm: the seed of a repetition is a function of both."""
        experiment, store_seed = snapshot.manifest.experiment, snapshot.manifest.seed
        assert experiment is not None  # noqa: S101
        positions: list[dict[int, int]] = [{} for _ in experiment.arms]
        for position, (_, model) in enumerate(snapshot.models):
            arm = experiment.arm_of(model.seed)
            if arm < len(positions):
                positions[arm][model.seed] = position
        kept = []
        for arm, of_arm in enumerate(positions):
            rows: dict[int, int] = {}
            n_tried = 2 * len(of_arm) + GAP  # some may be retracted, or still missing
            for repetition in range(n_tried):
                if len(rows) == len(of_arm):
                    break
                seed = arm_seed(store_seed, arm, repetition)
                if seed in of_arm:
                    rows[repetition] = of_arm[seed]
            kept.append(rows)
        return cls(tuple(kept))


def seeds_to_train(store: Store, n_models: int | None, add: int | None) -> ArmSeeds:
    """Return the seeds that bring every arm to ``n_models``, or to ``add`` more than the fullest has.

    Without either, to 20, or to what the fullest arm has: that completes what was interrupted.

    Raises:
        InvalidInputError: both are given, or numbers below 1.
    """
    require_counts(n_models, add)
    own = store.own_snapshot()
    fullest = Progress.of(own).fullest
    usual = max(fullest, REPETITIONS) if add is None else fullest + add
    n_models = usual if n_models is None else n_models
    if n_models > MAX_REPETITIONS:
        raise InvalidInputError(
            f"models {n_models:,} are too many", hint="use e.g. models=20", parameter="models"
        )
    store_seed = store.manifest.seed
    known = frozenset(model.model_id for part in own.segments for model in part.models)
    wanted = [
        arm_seed(store_seed, arm, repetition)
        for arm in range(len(_experiment(store).arms))
        for repetition in range(n_models)
    ]
    missing = [seed for seed in wanted if subsets.model_id(store_seed, seed) not in known]
    return ArmSeeds(wanted if missing else [], len(wanted) if missing else 0, store_seed, known)


def planned(
    store: Store,
    seeds: ArmSeeds,
    data: str | Dataset,
    recipe: BoundRecipe,
    how: HowToTrain,
    doubt: str,
) -> Plan:
    """Return the training of these models: here, by workers or on Ray."""
    batch_models, checkpoints, ray = how.get("batch_models"), how.get("checkpoint_dir"), how.get("ray")
    if batch_models is not None:
        require_positive(batch_models, "batch_models")
    work = engines.Work(
        store,
        data,
        recipe,
        how.get("data_root"),
        how.get("device", "auto"),
        batch_models,
        None if checkpoints is None else Path(checkpoints),
    )
    workers = how.get("workers")
    request = None if ray is None else Request(ray, workers, how.get("task_cpus", 1), how.get("task_gpus"))
    return Plan(engines.choose(work, workers, request), seeds, doubt=doubt)
