"""Runs as the code of Feldman and Zhang writes them, and as those who followed name the same arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidInputError, MismatchError
from memdb.format import layout
from memdb.format.manifest import CORRECT
from memdb.interop.arrays import ArrayFile
from memdb.interop.by_name import spelled
from memdb.interop.run_formats import CALLED, SETS, Outcomes, Runs, by_name, of_sets
from memdb.interop.views import bools

SPLITS = ("train", "removed", "test")


def correctness(path: Path, arrays: Mapping[str, ArrayFile]) -> Runs | None:
    """Read ``trainset_mask``, ``trainset_correctness`` and ``testset_correctness``, [models, examples].

    Others call them ``masks``, ``train_correctness``, ``correct_train`` and the like. Arrays of one axis are
    of one model. Masks and correctness may be floats 0 and 1, as PyTorch makes them.
    """
    there = spelled(arrays)
    found = {ours: [name for name in names if name in there] for ours, names in CALLED.items()}
    mask, *outcomes = found.values()
    if not mask or not any(outcomes) or all(ours in arrays for ours, names in found.items() if names):
        return None
    return by_name(path, arrays, "correctness")


def aux_arrays(path: Path, arrays: Mapping[str, ArrayFile]) -> Runs | None:
    """Read ``index_`` and ``correctness_`` of the splits train, removed and test: one run of the release.

    ``train`` is the subset that the model saw, ``removed`` what was excluded from it.
    """
    if not {f"{what}_{split}" for what in ("index", "correctness") for split in SPLITS[:2]} <= set(arrays):
        return None
    parts = [split for split in SPLITS if f"correctness_{split}" in arrays]
    index = {split: arrays[f"index_{split}"].whole((None,), "iu") for split in parts}
    right = {
        split: bools(arrays[f"correctness_{split}"].whole((len(index[split]),), "biuf"), str(path))
        for split in parts
    }
    outcomes: dict[str, NDArray[Any]] = {}
    for name, splits in ((layout.TRAIN, SPLITS[:2]), (layout.TEST, SPLITS[2:])):
        held = [split for split in splits if split in parts]
        if held:
            ids = np.concatenate([index[split] for split in held])
            if not np.array_equal(np.sort(ids), np.arange(len(ids))):
                raise InvalidInputError(
                    f"index_{' and index_'.join(held)} in {path} are not each of {len(ids):,} examples once",
                    hint="get the file again",
                )
            values = np.zeros(len(ids), dtype=np.bool_)
            values[ids] = np.concatenate([right[split] for split in held])
            outcomes[f"{name}/{CORRECT.name}"] = values[None]
    mask = np.zeros((1, outcomes[f"{layout.TRAIN}/{CORRECT.name}"].shape[1]), dtype=np.bool_)
    mask[0, index["train"]] = True
    sizes = {target.split("/")[0]: values.shape[1] for target, values in outcomes.items()}

    def read(start: int, stop: int) -> tuple[NDArray[np.bool_], Outcomes]:
        return mask[start:stop], {target: values[start:stop] for target, values in outcomes.items()}

    return Runs(
        str(path), "aux_arrays", 1, sizes, of_sets((CORRECT,), sizes), read, model_bytes=4 * mask.size
    )


def together(path: Path, parts: Sequence[Runs]) -> Runs:
    """Return the runs of several files as one: shards, or a file a run.

    Raises:
        MismatchError: files of other formats, examples or outcomes among them.
    """
    first = parts[0]
    for part in parts[1:]:
        for what, ours, theirs in (
            ("format", first.kind, part.kind),
            ("number of examples", dict(first.sizes), dict(part.sizes)),
            ("outcomes", [o.definition for o in first.outcomes], [o.definition for o in part.outcomes]),
        ):
            if ours != theirs:
                raise MismatchError(
                    f"{part.place} has another {what} than {first.place}: {theirs}, not {ours}",
                    hint="put files that belong together into a folder of their own",
                )
        for name in SETS:
            labels, others = first.names.labels.get(name), part.names.labels.get(name)
            if labels is not None and others is not None and not np.array_equal(labels, others):
                raise MismatchError(f"{part.place} has other {name} labels than {first.place}")
    ends = np.cumsum([part.n_models for part in parts])

    def read(start: int, stop: int) -> tuple[NDArray[np.bool_], Outcomes]:
        masks, outcomes = [], []
        for part, end in zip(parts, ends.tolist(), strict=True):
            begin = end - part.n_models
            if begin < stop and start < end:
                some = part.read(max(0, start - begin), min(stop, end) - begin)
                masks.append(some[0])
                outcomes.append(some[1])
        joined = {target: np.concatenate([some[target] for some in outcomes]) for target in outcomes[0]}
        return np.concatenate(masks), joined

    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    bytes_each = max(part.model_bytes for part in parts)
    return replace(
        first, place=str(path), n_models=int(ends[-1]), read=read, model_bytes=bytes_each, notes=notes
    )
