"""Figures of Matplotlib as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from memdb.files import writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_figure(figure: Figure, path: Path, dpi: int = 150) -> None:
    """Write a figure, whole or not at all; the same figure gives the same bytes.

    Raises:
        StorageError: the folder is missing, full or not writable.
    """
    import matplotlib as mpl  # noqa: PLC0415 - only figures need it, and it takes a while

    kind = path.suffix.lower()[1:]
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    with writing(path) as temporary, mpl.rc_context({"svg.hashsalt": "memdb"}):
        figure.savefig(temporary, format=kind, dpi=dpi, metadata=metadata)
