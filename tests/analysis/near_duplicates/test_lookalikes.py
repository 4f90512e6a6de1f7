"""Near-duplicates in what examples are: pictures that differ little, and equal content."""

from __future__ import annotations

import numpy as np
import pytest
from support.cases import every

from memdb.analysis.near_duplicates import lookalikes
from memdb.analysis.near_duplicates.lookalikes import Looks
from memdb.errors import InvalidInputError


def looks(pictures):
    return lookalikes.looks_of(
        lambda name, rows: [pictures[row] for row in rows], {"train": len(pictures)}, lambda *_: None
    )["train"]


def alike(pictures, most=0.06):
    found = lookalikes.alike(looks(pictures), None, most, lambda *_: None)
    return {
        (int(a), int(b)): float(d) for a, b, d in zip(found.first, found.second, found.distance, strict=True)
    }


@pytest.mark.parametrize(
    ("height", "width", "channels"), every(2, [(8, 8, 1), (28, 28, 1), (100, 60, 3), (32, 32, 3)])
)
def test_pictures_are_alike_though_moved_noisy_or_brighter(height, width, channels):
    pytest.importorskip("scipy")
    rng = np.random.default_rng(1)
    coarse = (
        rng.integers(20, 236, (20, 4, 4, channels)).repeat(height // 4, axis=1).repeat(width // 4, axis=2)
    )
    pictures = np.clip(coarse + rng.normal(0, 12, coarse.shape), 0, 255)
    noise = rng.normal(0, 5, pictures[1].shape)
    changed = [
        np.roll(pictures[0], 1, axis=0),
        pictures[1] + noise,
        pictures[2] + 6,
        np.flip(pictures[3], axis=1),
    ]
    every = np.clip([*pictures, *changed], 0, 255).astype(np.uint8)
    assert alike(list(every)).keys() == {(0, 20), (1, 21), (2, 22)}


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 20, 1), (32, 32, 3), (20, 32, 3), (1, 3, 1)])
def test_hashes_are_bit_for_bit_those_of_imagehash(shape):
    imagehash, pillow = pytest.importorskip("imagehash"), pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (12, *shape), dtype=np.uint8)
    pictures[3:6] = pictures[3:6] // 50 * 50  # few levels: frequencies that are equal
    pictures[6:9, :, : shape[1] // 2] = 255
    pictures[9] = 0
    one_by_one = [
        imagehash.phash(pillow.fromarray(p[:, :, 0] if shape[2] == 1 else p)).hash for p in pictures
    ]
    expected = np.packbits(np.array(one_by_one).reshape(12, 64), axis=1)
    np.testing.assert_array_equal(lookalikes.phashes(pictures).view(np.uint8).reshape(12, 8), expected)


def test_where_all_pictures_resemble_each_other_only_the_same_are_alike():
    pytest.importorskip("scipy")
    rng = np.random.default_rng(1)
    face = rng.integers(0, 256, (8, 8, 1))
    crowd = np.clip(face + rng.normal(0, 6, (30, 8, 8, 1)), 0, 255).astype(np.uint8)
    crowd[7] = crowd[3]
    assert alike(list(crowd)) == {(3, 7): 0.0}


def test_distances_are_of_the_pixels_that_both_pictures_have():
    a, b = np.zeros((1, 5, 5, 1), np.uint8), np.zeros((1, 5, 5, 1), np.uint8)
    a[0, 2, 2], b[0, 3, 2] = 255, 255
    hashes = np.zeros((9, 1), np.uint64)
    at = np.zeros(1, np.int64)
    assert lookalikes.distances(Looks(a, hashes), Looks(b, hashes), at, at) == [0]
    as_they_are = lookalikes.distances(Looks(a, hashes[:1]), Looks(b, hashes[:1]), at, at)
    assert as_they_are == pytest.approx(np.sqrt(2 / 25))


def test_equal_content_is_equal_hashes():
    hashes = np.arange(6, dtype=np.uint8)[:, None].repeat(16, axis=1)
    hashes[[3, 4]] = hashes[1]
    within = lookalikes.equal(hashes)
    assert set(zip(within.first.tolist(), within.second.tolist(), strict=True)) == {(1, 3), (1, 4), (3, 4)}
    between = lookalikes.equal(hashes, hashes[2:4])
    assert set(zip(between.first.tolist(), between.second.tolist(), strict=True)) == {
        (2, 0), (1, 1), (3, 1), (4, 1),
    }  # fmt: skip


def test_thousands_of_copies_are_refused_before_they_take_memory():
    with pytest.raises(InvalidInputError, match="49,995,000 pairs of examples have equal content"):
        lookalikes.equal(np.zeros((10_000, 16), np.uint8))
    with pytest.raises(InvalidInputError, match="100,000,000 pairs"):
        lookalikes.equal(*[np.zeros((10_000, 16), np.uint8)] * 2)
