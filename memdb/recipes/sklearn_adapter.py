"""Scikit-learn classifiers as recipes by import path: ``sklearn:sklearn.neighbors.KNeighborsClassifier``.

Any class with the ``fit`` and ``predict`` of scikit-learn's API works, also from other packages.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb import plugins
from memdb.datasets import Dataset
from memdb.datasets.example_set import ExampleSet
from memdb.errors import InvalidInputError
from memdb.format import layout
from memdb.format.documents import Json, canonical_json
from memdb.format.manifest import CORRECT, LOGIT_CONFIDENCE, PREDICTION
from memdb.recipes.logits import log_odds
from memdb.recipes.protocol import Run

PREFIX = "sklearn:"
MODELS_PER_BATCH = 8  # a commit takes a tenth of a second; a fit may take milliseconds or minutes
NO_IDENTITY = frozenset({"n_jobs", "verbose", "cache_size", "random_state"})  # they don't say what is learned


class Classifier:
    """A class with scikit-learn's API, fitted once per mask on examples as rows of numbers.

    Integers are divided by 255. The seed of a model is its ``random_state``, if the class has one.

    Args:
        path: the import path of the class, ``package.module.Class``.
        options: keyword arguments of its constructor.
        complete: the options are all those of a store's recipe, so no defaults are filled in.

    Raises:
        InvalidInputError: no such class, or options that it does not take.
    """

    version = "1"
    outcomes = frozenset({CORRECT.name, LOGIT_CONFIDENCE.name, PREDICTION.name})

    def __init__(self, path: str, options: Mapping[str, Json], *, complete: bool = False) -> None:
        self.name = f"{PREFIX}{path}"
        self._kind = _class_at(path)
        defaults = {} if complete else _defaults(self._kind)
        self.options: Mapping[str, Json] = {**defaults, **options}
        self._takes_seed = "random_state" in _parameters(self._kind)
        if "random_state" in options:
            raise InvalidInputError(
                "random_state is not an option: every model gets its own from its seed", hint="omit it"
            )
        unknown = sorted(set(options) - set(_parameters(self._kind)))
        if unknown:
            raise InvalidInputError(
                f"recipe {self.name} has no option {unknown[0]!r}",
                hint=f"its options are {', '.join(sorted(set(_parameters(self._kind)) - {'random_state'}))}",
            )

    def models_per_batch(self, _data: Dataset, _device: str) -> int:
        """Return the number of models to commit at once."""
        return MODELS_PER_BATCH

    def __call__(
        self, data: Dataset, masks: NDArray[np.bool_], seeds: NDArray[np.uint64], run: Run
    ) -> Mapping[str, NDArray[Any]]:
        """Fit one classifier per mask (see `Recipe`)."""
        inputs = {name: _rows(examples) for name, examples in data.sets.items()}
        found: dict[str, list[NDArray[Any]]] = {}
        for done, (mask, seed) in enumerate(zip(masks, seeds, strict=True)):
            if run.stop_requested():
                raise KeyboardInterrupt
            chance = {"random_state": int(seed % 2**32)} if self._takes_seed else {}
            model = self._kind(**self.options, **chance)
            model.fit(inputs[layout.TRAIN][mask], data.train.labels[mask])
            for name, examples in data.sets.items():
                with _asked_once(model, inputs[name]):
                    predicted = np.asarray(model.predict(inputs[name]))
                    confidence = _logit_confidence(model, inputs[name], examples.labels)
                found.setdefault(f"{name}/{CORRECT.name}", []).append(predicted == examples.labels)
                found.setdefault(f"{name}/{PREDICTION.name}", []).append(predicted.astype(np.uint32))
                if confidence is not None:
                    found.setdefault(f"{name}/{LOGIT_CONFIDENCE.name}", []).append(confidence)
            run.progress(done + 1, len(masks))
        return {path: np.stack(rows) for path, rows in found.items()}


def _class_at(path: str) -> Any:
    module, _, name = path.rpartition(".")
    if not plugins.is_import_path(f"{module}:{name}"):
        raise InvalidInputError(
            f"{PREFIX}{path} names no class",
            hint=f"write e.g. {PREFIX}sklearn.neighbors.KNeighborsClassifier",
        )
    kind = plugins.load(f"{module}:{name}", "classifier")
    plugins.require_foreign(kind, "classifier", path)
    if not (isinstance(kind, type) and hasattr(kind, "fit") and hasattr(kind, "predict")):
        raise InvalidInputError(
            f"{PREFIX}{path} has no fit and predict", hint="name the class of a classifier"
        )
    if {base.__name__ for base in kind.__mro__} & {"RegressorMixin", "ClusterMixin"}:
        raise InvalidInputError(f"{PREFIX}{path} predicts no classes", hint="name the class of a classifier")
    return kind


def _parameters(kind: Any) -> Mapping[str, inspect.Parameter]:
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(kind).parameters.items()
    return {name: parameter for name, parameter in parameters if parameter.kind in named}


def _defaults(kind: Any) -> dict[str, Json]:
    """Return the default options of a class that JSON can represent."""
    found: dict[str, Json] = {}
    for name, parameter in _parameters(kind).items():
        if name in NO_IDENTITY or parameter.default is inspect.Parameter.empty:
            continue
        try:
            canonical_json({name: parameter.default})
        except (TypeError, ValueError):
            continue
        found[name] = parameter.default
    return found


def _rows(examples: ExampleSet) -> NDArray[np.float32]:
    values = examples.numbers
    flat = values.reshape(len(values), -1).astype(np.float32)
    return flat / np.float32(255) if values.dtype.kind in "iu" else flat


@contextlib.contextmanager
def _asked_once(model: Any, x: NDArray[np.float32]) -> Iterator[None]:
    """Compute the probabilities of some rows once: forests and neighbours predict from them, too."""
    if not hasattr(model, "predict_proba"):
        yield
        return
    compute = model.predict_proba
    known: list[Any] = []

    def predict_proba(rows: Any) -> Any:
        if rows is not x:
            return compute(rows)
        if not known:
            known.append(compute(rows))
        return known[0]

    model.predict_proba = predict_proba
    try:
        yield
    finally:
        del model.predict_proba


def _logit_confidence(
    model: Any, x: NDArray[np.float32], labels: NDArray[np.int32]
) -> NDArray[np.float64] | None:
    """Return log(p / (1 - p)) of the label, or None if the classifier has neither probabilities nor logits.

    Decision values serve as logits. A label that is missing from the subset has p = 0.
    """
    if hasattr(model, "predict_proba"):
        p = np.asarray(model.predict_proba(x), dtype=np.float64)
        own = _of_labels(p, model.classes_, labels, absent=0.0)
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(own) - np.log1p(-np.minimum(own, 1.0)))
    if not hasattr(model, "decision_function"):
        return None
    logits = np.asarray(model.decision_function(x), dtype=np.float64)
    if logits.ndim == 1:  # with two classes, the decision value of the second
        logits = np.stack([-logits / 2, logits / 2], axis=1)
    matches = np.asarray(model.classes_) == labels[:, None]  # [example, class]
    return np.where(matches.any(axis=1), log_odds(logits, matches.argmax(axis=1)), -np.inf)


def _of_labels(
    values: NDArray[np.float64], classes: Any, labels: NDArray[np.int32], absent: float
) -> NDArray[np.float64]:
    """Return each row's value of its label; columns are the classes that the subset has."""
    matches = np.asarray(classes) == labels[:, None]  # [example, class]
    chosen = values[np.arange(len(labels)), matches.argmax(axis=1)]
    return np.where(matches.any(axis=1), chosen, absent)
