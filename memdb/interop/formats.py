"""The formats that can be imported: those of memdb, and any callable of a user's own.

A format turns a path and its arrays into `Runs` or a `ScoreFile`; what imports them knows nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from memdb.errors import InvalidInputError
from memdb.interop import attack_formats, run_formats, score_formats
from memdb.interop.arrays import ArrayFile, names_of, open_array, open_arrays
from memdb.interop.run_formats import PLAIN_KEYS, RunFormat, Runs
from memdb.interop.score_formats import ScoreFile, ScoreFormat

Format: TypeAlias = RunFormat | ScoreFormat
FORMATS: tuple[Format, ...] = (
    run_formats.datamodels,
    run_formats.plain,
    attack_formats.keep_and_scores,
    attack_formats.lira_folders,
    *score_formats.FORMATS,
)


def read_file(path: Path, labels: Path | None = None, formats: Sequence[Format] = ()) -> Runs | ScoreFile:
    """Return the contents of a file or folder in the first format that recognizes it.

    ``labels`` is a .npy file, which a format finds as ``train_labels``. ``formats`` are the user's own: they
    are tried first, and without arrays if the file is neither .npz nor .npy.

    Raises:
        NotFoundError: nothing is there.
        InvalidInputError: no format recognizes it, or one does and the file is not what it should be.
    """
    given = {} if labels is None else {"train_labels": open_array(labels)}
    try:
        arrays = {**given, **open_arrays(path)}
    except InvalidInputError:
        content = _recognized(path, given, formats)
        if content is None:
            raise
        return content
    content = _recognized(path, arrays, (*formats, *FORMATS))
    if content is None:
        raise InvalidInputError(
            f"{path} has {names_of(arrays)}: none of the formats that memdb imports",
            hint=f"give a plain file with {PLAIN_KEYS}; docs/importing.md has the other formats",
        )
    return content


def _recognized(
    path: Path, arrays: Mapping[str, ArrayFile], formats: Sequence[Format]
) -> Runs | ScoreFile | None:
    for read in formats:
        content = read(path, arrays)
        if content is not None and not isinstance(content, Runs | ScoreFile):
            raise InvalidInputError(
                f"the format {read} returned {type(content).__name__} for {path}",
                hint="return `Runs`, a `ScoreFile`, or None for a file in another format",
            )
        if content is not None:
            return content
    return None
