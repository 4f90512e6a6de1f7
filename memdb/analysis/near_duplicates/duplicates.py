"""Near-duplicates within the training set and between it and the test set, and what they hide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb.analysis.near_duplicates import lookalikes
from memdb.analysis.near_duplicates.lookalikes import Alike, ReadPictures
from memdb.analysis.near_duplicates.similar import Directions
from memdb.analysis.near_duplicates.twins import (
    Arms,
    Found,
    Twins,
    bounds_for,
    models_needed,
    pairs_within,
    q_of,
)
from memdb.analysis.near_duplicates.wanted import Wanted
from memdb.errors import NotEnoughModelsError, NotFoundError
from memdb.format import layout
from memdb.query import arrow
from memdb.query.examples import require_examples, require_models, require_own
from memdb.query.informed.predictor import HOW_TO_SKETCH
from memdb.query.intervals import IntervalSpec
from memdb.query.relations import Relations
from memdb.query.templates import template
from memdb.wording import count

Ids = NDArray[np.int32]
Numbers = NDArray[np.float64]
NONE = Alike(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0))


@dataclass(frozen=True)
class Sources:
    """What is known of the examples' content.

    Attributes:
        hashes: of the content of each example, uint8 [examples, 16], by set.
        pictures: returns what reads pictures; None, having said why, if there are none.
        remark: called with what could not be looked at, in a sentence.
        progress: called with what was done so far of each step, and what there is to do.
    """

    hashes: Callable[[str], NDArray[np.uint8]]
    pictures: Callable[[], ReadPictures | None]
    remark: Callable[[str], None]
    progress: Callable[[int, int], None]


@dataclass(frozen=True)
class _Pairs:
    """Pairs of a training example and one of a set, found one way or several."""

    set_name: str
    first: Ids
    second: Ids
    did: NDArray[np.bool_]  # found by influence
    similarity: Numbers  # NaN where not found by sketches
    distance: Numbers  # NaN where not found by content
    n_ranked: int  # by influence

    def __len__(self) -> int:
        return len(self.first)

    @property
    def ways(self) -> dict[str, NDArray[np.bool_]]:
        """Which pairs were found by what."""
        return {
            "influence": self.did, "sketches": ~np.isnan(self.similarity), "content": ~np.isnan(self.distance)
        }  # fmt: skip

    @property
    def are_alike(self) -> NDArray[np.bool_]:
        """Which pairs were found without a look at outcomes: by sketches or content."""
        return ~np.isnan(self.similarity) | ~np.isnan(self.distance)

    def only(self, rows: NDArray[Any]) -> _Pairs:
        """Return some of them."""
        kept = (
            self.first[rows],
            self.second[rows],
            self.did[rows],
            self.similarity[rows],
            self.distance[rows],
        )
        return _Pairs(self.set_name, *kept, self.n_ranked)


def duplicates(relations: Relations, wanted: Wanted, interval: IntervalSpec, sources: Sources) -> pa.Table:
    """Return the near-duplicates, the surest first; of two training examples one row in each direction.

    Raises:
        NotEnoughModelsError: there are too few models to find any by influence, where nothing else is asked.
        NotFoundError: the store keeps no outcomes on training examples, has no test examples, or no sketches
            where nothing else is asked.
    """
    sets = _sets(relations, wanted)
    similar = _similar_pairs(relations, sets, wanted, sources) if wanted.has("sketches") else {}
    alike = alike_pairs(sets, wanted, sources) if wanted.has("content") else {}
    doing = _sets_by_influence(relations, sets, wanted, sources) if wanted.has("influence") else []
    twins = Twins(relations, bounds_for(wanted.min_share, wanted.alpha), wanted.min_influence)
    parts = []
    for name in sets:
        search = twins.within if name == layout.TRAIN else twins.between
        nothing = np.zeros(0, np.int32)
        found = search(sources.progress) if name in doing else Found(nothing, nothing, 0)
        pairs = _united(name, found, similar.get(name, NONE), alike.get(name, NONE))
        parts.append(_judged(pairs, twins, wanted))
    listed = _listed(parts, wanted.k)
    return _table(relations, listed, _Chosen.of(parts, [of for of, _ in listed]), interval)


def _sets(relations: Relations, wanted: Wanted) -> list[str]:
    """Return the sets to look for second examples in."""
    snapshot = relations.snapshot
    if wanted.by != "content":
        require_models(snapshot)
    if wanted.between == "test":
        require_examples(snapshot, layout.TEST)
    require_own(snapshot)
    return [name for name in wanted.sets if snapshot.manifest.set_named(name).n_examples]


def _sets_by_influence(
    relations: Relations, sets: Sequence[str], wanted: Wanted, sources: Sources
) -> list[str]:
    """Return those of the sets of which models enough tell; say of the training set if there are too few.

    Raises:
        NotEnoughModelsError: they are too few, and the pairs of training examples are asked for by influence.
    """
    snapshot = relations.snapshot
    if layout.TRAIN not in sets:
        return list(sets)
    n_ranked = pairs_within(relations.labels(layout.TRAIN), same_class=relations.are_labelled)
    needed = models_needed(snapshot.manifest.subset_fraction, max(1, n_ranked), wanted.alpha)
    if snapshot.n_models >= needed:
        return list(sets)
    n_models = count(snapshot.n_models, "model")
    few = f"{snapshot.url} has {n_models}: too few to find twins in training by influence"
    hint = f"about {needed:,} can: `memdb train --add {needed - snapshot.n_models}`"
    if wanted.by == "influence":
        raise NotEnoughModelsError(few, hint=f"{hint}; or use by=content")
    sources.remark(f"{few}; {hint}")
    return [name for name in sets if name != layout.TRAIN]


def _similar_pairs(
    relations: Relations, sets: Sequence[str], wanted: Wanted, sources: Sources
) -> dict[str, Alike]:
    """Return the pairs that teach models the same, by their gradient sketches, if there are any.

    Raises:
        NotFoundError: there are none, and nothing else is asked for.
    """
    directions = Directions.of(relations)
    if directions is None:
        if wanted.by == "sketches":
            raise NotFoundError(
                f"{relations.snapshot.url} has no gradient sketches",
                hint=f"{HOW_TO_SKETCH}; or use by=influence",
            )
        return {}
    return {name: directions.alike(name, wanted.min_similarity, sources.progress) for name in sets}


def alike_pairs(sets: Sequence[str], wanted: Wanted, sources: Sources) -> dict[str, Alike]:
    """Return the pairs of equal content, and of pictures that differ little, by the set of the second.

    Raises:
        NotFoundError: pictures cannot be compared, and nothing else is asked for.
    """
    hashes = {name: sources.hashes(name) for name in dict.fromkeys((layout.TRAIN, *sets))}
    of = {name: None if name == layout.TRAIN else values for name, values in hashes.items()}
    alike = {name: [lookalikes.equal(hashes[layout.TRAIN], of[name])] for name in sets}
    read = sources.pictures()
    if read is not None:
        sizes = {name: len(values) for name, values in hashes.items()}
        try:
            looks = lookalikes.looks_of(read, sizes, sources.progress)
        except NotFoundError as error:
            if wanted.by == "content" and not isinstance(error, lookalikes.NotPicturesError):
                raise
            sources.remark(f"only examples of equal content count as alike: {error}; {error.hint}")
            looks = {}
        for name in sets if looks else ():
            second = None if name == layout.TRAIN else looks[layout.TRAIN]
            near = lookalikes.alike(looks[name], second, wanted.max_distance, sources.progress)
            alike[name].append(near if second is None else Alike(near.second, near.first, near.distance))
    return {name: lookalikes.united(parts) for name, parts in alike.items()}


def _united(name: str, found: Found, similar: Alike, alike: Alike) -> _Pairs:
    """Return the pairs found one way or another, once each."""
    ways = (found, similar, alike)
    first, second = (np.concatenate([getattr(way, of) for way in ways]) for of in ("first", "second"))
    pairs, at = np.unique(first.astype(np.int64) << 32 | second, return_inverse=True)
    did = np.zeros(len(pairs), dtype=np.bool_)
    measured = np.full((2, len(pairs)), np.nan)
    of_found, of_similar, of_alike = np.split(at, np.cumsum([len(found.first), len(similar)]))
    did[of_found] = True
    np.fmin.at(measured[0], of_similar, similar.distance)
    np.fmin.at(measured[1], of_alike, alike.distance)
    first, second = (part.astype(np.int32) for part in np.divmod(pairs, 1 << 32))
    return _Pairs(name, first, second, did, 1 - measured[0], measured[1], found.n_ranked)


@dataclass(frozen=True)
class _Judged:
    """Pairs that count, and what the first does for the second; of two training examples in both directions.

    ``mutual`` is the smaller influence of these.
    """

    pairs: _Pairs
    directions: tuple[Arms, ...]
    q_value: Numbers
    mutual: Numbers

    def only(self, rows: NDArray[Any]) -> _Judged:
        """Return some of them."""
        arms = tuple(of.only(rows) for of in self.directions)
        return _Judged(self.pairs.only(rows), arms, self.q_value[rows], self.mutual[rows])


def _judged(pairs: _Pairs, twins: Twins, wanted: Wanted) -> _Judged:
    """Decide which influences are large and sure in each direction, and drop pairs neither so nor alike."""
    directions = [twins.arms(pairs.first, pairs.second, pairs.set_name)]
    if pairs.set_name == layout.TRAIN:
        directions.append(twins.arms(pairs.second, pairs.first, pairs.set_name))
    p, alike = np.max([arms.p_values() for arms in directions], axis=0), pairs.are_alike
    share, influence = (
        np.min([getattr(arms, of) for arms in directions], axis=0) for of in ("share", "influence")
    )
    q = np.empty(len(p))
    q[alike] = q_of(p[alike], 0)
    q[~alike] = q_of(p[~alike], pairs.n_ranked)
    did = (share >= wanted.min_share) & (influence >= wanted.min_influence) & (q <= wanted.alpha)
    if pairs.set_name != layout.TRAIN:
        did &= share <= 1 / wanted.min_share
    judged = _Judged(replace(pairs, did=did & wanted.has("influence")), tuple(directions), q, influence)
    return judged.only(did | alike)


@dataclass(frozen=True)
class _Chosen:
    """How many scores are shown out of how many that were compared, by whether pairs are alike.

    Pairs that are alike were chosen without a look at what models do, and are a family of their own.
    """

    n_shown: tuple[int, int]  # found by influence alone, and alike
    n_ranked: tuple[int, int]

    @classmethod
    def of(cls, parts: Sequence[_Judged], listed: Sequence[_Judged]) -> _Chosen:
        """Count them in all directions."""
        n_ranked = sum(len(of.directions) * of.pairs.n_ranked for of in parts)
        n_found, n_alike = _n_scores(parts)
        return cls(_n_scores(listed), (max(n_ranked, n_found), n_alike))


def _n_scores(parts: Sequence[_Judged]) -> tuple[int, int]:
    """Return how many scores are of pairs found by influence alone, and of pairs that are alike."""
    n_all = sum(len(of.directions) * len(of.pairs) for of in parts)
    n_alike = sum(len(of.directions) * int(of.pairs.are_alike.sum()) for of in parts)
    return n_all - n_alike, n_alike


def _listed(parts: Sequence[_Judged], k: int | None) -> list[tuple[_Judged, NDArray[np.int64]]]:
    """Return the parts with the place of each pair in a list of all: the surest first, at most k of them."""
    did, distance, similarity = (
        np.concatenate([getattr(of.pairs, name) for of in parts])
        for name in ("did", "distance", "similarity")
    )
    n_ways = np.concatenate([np.sum(list(of.pairs.ways.values()), axis=0) for of in parts])
    mutual = np.concatenate([of.mutual for of in parts])
    surely = np.where(did, -mutual, 0)
    order = np.lexsort((-similarity, distance, surely, ~did, -n_ways))
    rank_of = np.empty(len(order), dtype=np.int64)
    rank_of[order] = np.arange(len(order))
    listed, start = [], 0
    for of in parts:
        places = rank_of[start : start + len(of.pairs)]
        start += len(of.pairs)
        first = np.flatnonzero(places < (len(order) if k is None else k))
        listed.append((of.only(first), places[first]))
    return listed


def _table(
    relations: Relations,
    listed: Sequence[tuple[_Judged, NDArray[np.int64]]],
    chosen: _Chosen,
    interval: IntervalSpec,
) -> pa.Table:
    """Return a row for each direction of each pair, with scores and intervals."""
    parts = [
        _rows(relations, of, direction, chosen).append_column("place", arrow.column(place))
        for of, place in listed
        for direction in range(len(of.directions))
    ]
    return relations.compute(
        template("duplicates.sql"), {"found": pa.concat_tables(parts)}, **interval.parameters()
    )


def _rows(relations: Relations, judged: _Judged, direction: int, chosen: _Chosen) -> pa.Table:
    """Return what one direction of some pairs is scored from."""
    pairs, arms, set_name = judged.pairs, judged.directions[direction], judged.pairs.set_name
    train, target = (pairs.first, pairs.second) if direction == 0 else (pairs.second, pairs.first)
    known, is_train = relations.are_labelled, np.full(len(pairs), set_name == layout.TRAIN)
    alike, share, q_value = pairs.are_alike, arms.share, judged.q_value
    has_models = np.full(len(pairs), relations.snapshot.n_models > 0)
    counts = {name: getattr(arms, name).astype(np.int32) for name in ("n_in", "n_out", "k_in", "k_out")}
    own = {name: getattr(arms, name).astype(np.int32) for name in ("n_own_in", "k_own_in")}
    return arrow.table(
        {
            "train_id": train,
            "target_id": arrow.column(target, is_train),
            "test_id": arrow.column(target, ~is_train),
            "train_label": arrow.of_labels(relations.labels(layout.TRAIN)[train], known=known),
            "target_label": arrow.of_labels(relations.labels(set_name)[target], known=known),
            "found_by": arrow.text(_found_by(pairs)),
            "q_value": arrow.column(q_value, has_models),
            "share": arrow.column(share, ~np.isnan(share)),
            "similarity": arrow.column(pairs.similarity, pairs.ways["sketches"]),
            "distance": arrow.column(pairs.distance, pairs.ways["content"]),
            **counts,
            **{name: arrow.column(values, is_train & has_models) for name, values in own.items()},
            "n_shown": np.array(chosen.n_shown)[alike.astype(np.intp)],
            "n_ranked": np.array(chosen.n_ranked)[alike.astype(np.intp)],
        }
    )


def _found_by(pairs: _Pairs) -> list[str]:
    """Return by what each pair was found, such as ``influence+content``."""
    ways = pairs.ways
    return ["+".join(compress(ways, found)) for found in zip(*ways.values(), strict=True)]
