"""Near-duplicates in what examples are: equal content, and pictures that differ little.

Perceptual hashes (pHash) find for each picture the few that may be alike, which are then compared pixel by
pixel. A shift by a pixel changes the hash of a small picture entirely, so small pictures are hashed, and
compared, in nine positions. Hashes are bit for bit those of the package ImageHash, by Pillow and SciPy as
there, but of hundreds of pictures in a call.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.environment import install
from memdb.errors import InvalidInputError, NotFoundError

Picture = NDArray[np.uint8]  # [height, width, 1 or 3 channels]
ReadPictures = Callable[[str, Sequence[int]], Sequence[Any]]  # of a set, its rows: pictures, or texts
Progress = Callable[[int, int], None]

SIDE = 32  # pixels that pictures are reduced to: what a pHash looks at
SMALL = 64  # pixels of a side, from which on a pixel's shift is little
SHIFTS = tuple((down, right) for down in (0, -1, 1) for right in (0, -1, 1))  # first as it is
NEAREST = 32  # pictures by their hashes, that are compared
CROWD = 8  # others may lie as near; one more tells how far apart pictures usually are here
STANDS_OUT = 0.4  # of that distance: handwritten digits all resemble each other, and at 0.5 many pairs pass
MAX_BITS = 24  # of 64: unlike pictures differ in 32
MAX_BYTES = 4 << 30  # of pictures in memory
MAX_EQUAL = 1 << 22  # pairs of equal content; 2,900 copies of one example have as many
ROWS, PAIRS = 64, 4096  # hashed rows, and pairs of pictures, compared at once
READ = 512  # pictures read and hashed at once
BITS = 8  # frequencies of a hash, each way
NEEDED = {"Pillow": "PIL", "SciPy": "scipy"}


@dataclass(frozen=True)
class Alike:
    """Pairs of examples: of a first set and a second, each with the distance of the two.

    Distances are root mean squares over pixels, from 0 to 1, black on white.
    """

    first: NDArray[np.int32]
    second: NDArray[np.int32]
    distance: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True)
class Looks:
    """The pictures of a set, reduced, with the hashes of their positions: uint64 [positions, examples]."""

    pictures: NDArray[np.uint8]  # [examples, height, width, channels]
    hashes: NDArray[np.uint64]

    @property
    def shifts(self) -> Sequence[tuple[int, int]]:
        """The positions that pictures are compared in."""
        return SHIFTS[: len(self.hashes)]

    def __len__(self) -> int:
        return len(self.pictures)


class NotPicturesError(NotFoundError):
    """Examples, or some of them, that are not pictures."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, hint="use by=influence", parameter="by")


def missing_package() -> str | None:
    """Return a package that hashes pictures and is not installed; None if all are."""
    return next((name for name, module in NEEDED.items() if importlib.util.find_spec(module) is None), None)


def require_packages() -> None:
    """Refuse to compare pictures without the packages that hash them.

    Raises:
        NotFoundError: one is not installed.
    """
    missing = missing_package()
    if missing is not None:
        raise NotFoundError(
            f"comparing pictures needs {missing}, which is not installed",
            hint=f"run: {install('duplicates')}",
        )


def equal(first: NDArray[np.uint8], second: NDArray[np.uint8] | None = None) -> Alike:
    """Return examples of equal content, by hashes [examples, 16]; None stands for the first set itself.

    Raises:
        InvalidInputError: more pairs than fit in memory, as of thousands of copies.
    """
    within = second is None
    second = first if second is None else second
    keys = [np.ascontiguousarray(part).view("V16")[:, 0] for part in (first, second)]
    order = np.argsort(keys[1], kind="stable")
    starts, stops = (np.searchsorted(keys[1][order], keys[0], side) for side in ("left", "right"))
    times = stops - starts
    n_pairs = (int(times.sum()) - len(first)) // 2 if within else int(times.sum())
    require_few(n_pairs, "equal content")
    rows = np.repeat(np.arange(len(first)), times)
    others = order[np.repeat(starts - (np.cumsum(times) - times), times) + np.arange(times.sum())]
    kept = rows < others if within else np.ones(len(rows), dtype=np.bool_)
    return Alike(rows[kept].astype(np.int32), others[kept].astype(np.int32), np.zeros(int(kept.sum())))


def require_few(n_pairs: int, having: str) -> None:
    """Refuse pairs that do not fit in memory.

    Raises:
        InvalidInputError: they are too many.
    """
    if n_pairs > MAX_EQUAL:
        raise InvalidInputError(
            f"{n_pairs:,} pairs of examples have {having}, more than {MAX_EQUAL:,}",
            hint="use by=influence, or remove the copies from the data",
            parameter="by",
        )


def united(parts: Sequence[Alike]) -> Alike:
    """Return the pairs of several searches together."""
    columns = ([getattr(part, name) for part in parts] for name in ("first", "second", "distance"))
    return Alike(*map(np.concatenate, columns))


def looks_of(read: ReadPictures, sizes: Mapping[str, int], progress: Progress) -> dict[str, Looks]:
    """Read, reduce and hash the pictures of some sets.

    Raises:
        NotPicturesError: the examples are not pictures.
        NotFoundError: a package is not installed.
        InvalidInputError: pictures that do not fit in memory.
    """
    first = read(next(name for name, size in sizes.items() if size), [0])[0]
    if isinstance(first, str):
        raise NotPicturesError("the examples are not pictures")
    require_packages()
    height, width, channels = first.shape
    shape = (min(height, SIDE), min(width, SIDE), channels)
    n_bytes = sum(sizes.values()) * int(np.prod(shape))
    if n_bytes > MAX_BYTES:
        raise InvalidInputError(
            f"{sum(sizes.values()):,} pictures take {n_bytes >> 20:,} MiB, more than {MAX_BYTES >> 20:,}",
            hint="compare by=influence",
            parameter="by",
        )
    is_small = max(height, width) < SMALL
    done, total, looks = 0, sum(sizes.values()), {}
    for name, size in sizes.items():
        pictures = np.empty((size, *shape), dtype=np.uint8)
        hashes = np.empty((len(SHIFTS) if is_small else 1, size), dtype=np.uint64)
        for start in range(0, size, READ):
            rows = range(start, min(start + READ, size))
            for row, picture in zip(rows, read(name, rows), strict=True):
                pictures[row] = reduced(picture, shape)
            some = slice(rows.start, rows.stop)
            for position, by in zip(hashes, SHIFTS, strict=False):
                position[some] = phashes(shifted(pictures[some], *by))
            done += len(rows)
            progress(done, total)
        looks[name] = Looks(pictures, hashes)
    return looks


def reduced(picture: Any, shape: tuple[int, int, int]) -> Picture:
    """Return a picture in this many pixels and channels, the mean of those that it has."""
    if isinstance(picture, str):
        raise NotPicturesError("some of the examples are not pictures")
    if picture.shape == shape:
        return np.asarray(picture)
    from PIL import Image  # noqa: PLC0415

    height, width, channels = shape
    image = Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)
    image = image.convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.BOX)
    return np.asarray(image, dtype=np.uint8).reshape(shape)


def shifted(pictures: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.uint8]:
    """Return pictures moved by up to a pixel each way; what moves in is what was at the edge."""
    height, width = pictures.shape[1:3]
    padded = np.pad(pictures, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    return padded[:, 1 - rows : 1 - rows + height, 1 - columns : 1 - columns + width]


def phashes(pictures: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the pHash of pictures [pictures, height, width, channels], 64 bits each.

    A pHash says which of the lowest frequencies of the picture, grey and in 32 x 32 pixels, are above their
    median. Pillow resizes a picture along its rows and then along its columns, as below, where one call
    resizes all.
    """
    import scipy.fftpack  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

    def narrowed(picture: Image.Image) -> NDArray[np.uint8]:
        return np.asarray(picture.resize((SIDE, picture.height), Image.Resampling.LANCZOS))

    n, height, width, channels = pictures.shape
    tall = np.ascontiguousarray(pictures.reshape(n * height, width, channels))
    grey = Image.fromarray(tall[:, :, 0] if channels == 1 else tall).convert("L")
    along_rows = narrowed(grey).reshape(n, height, SIDE).swapaxes(1, 2).reshape(n * SIDE, height)
    pixels = narrowed(Image.fromarray(along_rows)).reshape(n, SIDE, SIDE).swapaxes(1, 2)
    down = scipy.fftpack.dct(pixels, axis=1)[:, :BITS]
    frequencies = scipy.fftpack.dct(down, axis=2)[:, :, :BITS].reshape(n, -1)
    above = frequencies > np.median(frequencies, axis=1, keepdims=True)
    return np.packbits(above, axis=1).view(np.uint64)[:, 0]


def alike(first: Looks, second: Looks | None, max_distance: float, progress: Progress) -> Alike:
    """Return the pairs of pictures of two sets, or (None) within one, that differ by no more than a distance.

    And by no more than a share of what parts either from its ninth nearest: where all pictures resemble each
    other, such as handwritten ones, a small distance says little.
    """
    other = first if second is None else second
    parts = []
    for rows, columns in _candidates(first, other, within=second is None, progress=progress):
        distance = distances(first, other, rows, columns)
        parts.append((rows, columns, distance))
    rows, columns, distance = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    usual = _usual(rows, distance, len(first))
    scale = usual[rows] if second is not None else np.minimum(usual[rows], usual[columns])
    near = (distance <= max_distance) & (distance <= STANDS_OUT * scale)
    rows, columns, distance = rows[near], columns[near], distance[near]
    if second is None:
        rows, columns = np.minimum(rows, columns), np.maximum(rows, columns)
    _, kept = np.unique(rows.astype(np.int64) * len(other) + columns, return_index=True)
    return Alike(rows[kept].astype(np.int32), columns[kept].astype(np.int32), distance[kept])


def _candidates(
    first: Looks, second: Looks, *, within: bool, progress: Progress
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield for some rows at a time the nearest pictures of the second set, by their hashes."""
    n, n_kept = len(second), min(NEAREST + within, len(second))
    for start in range(0, len(first), ROWS):
        hashes = first.hashes[0, start : start + ROWS, None]
        bits = np.full((len(hashes), n), 64, dtype=np.uint8)
        for position in second.hashes:
            np.minimum(bits, np.bitwise_count(hashes ^ position), out=bits)
        nearest = np.argpartition(bits, n_kept - 1, axis=1)[:, :n_kept]
        rows = np.repeat(np.arange(start, start + len(hashes)), n_kept)
        columns = nearest.ravel()
        kept = np.take_along_axis(bits, nearest, axis=1).ravel() <= MAX_BITS
        kept &= (rows != columns) | (not within)
        yield rows[kept], columns[kept]
        progress(start + len(hashes), len(first))


def distances(
    first: Looks, second: Looks, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return how far pictures differ where they are moved to differ least, over the pixels that both have."""
    nearest = np.full(len(rows), np.inf)
    for start in range(0, len(rows), PAIRS):
        some = slice(start, start + PAIRS)
        ours = first.pictures[rows[some]].astype(np.int16)
        theirs = second.pictures[columns[some]].astype(np.int16)
        for down, right in first.shifts:
            difference = _moved(ours, down, right) - _moved(theirs, -down, -right)
            square = np.einsum("nhwc,nhwc->n", difference, difference, dtype=np.float64, casting="unsafe")
            mean = square / max(1, int(np.prod(difference.shape[1:])))
            np.minimum(nearest[some], np.sqrt(mean) / 255, out=nearest[some])
    return nearest


def _moved(pictures: NDArray[np.int16], down: int, right: int) -> NDArray[np.int16]:
    """Return the pixels that remain of pictures moved by up to a pixel each way."""
    height, width = pictures.shape[1:3]
    return pictures[:, max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]


def _usual(rows: NDArray[np.int64], distance: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Return how far each picture is from the ninth nearest of those compared; infinity if there is none."""
    order = np.lexsort((distance, rows))
    counts = np.bincount(rows, minlength=n)
    starts = np.cumsum(counts) - counts
    usual = np.full(n, np.inf)
    crowded = counts > CROWD
    usual[crowded] = distance[order][starts[crowded] + CROWD]
    return usual
