"""Options that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

FormatOption = Annotated[
    str, typer.Option("--format", "-f", metavar="FORMAT", help="table, json, ndjson or csv.")
]
OutputOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--output", "-o", metavar="FILE", help="Write to a .json, .ndjson, .csv or .parquet file instead."
    ),
]
LevelOption = Annotated[float, typer.Option("--level", metavar="P", help="Coverage of the intervals.")]
RankedIntervalOption = Annotated[
    str,
    typer.Option(
        "--interval",
        metavar="KIND",
        help="selected: honest for rows shown because they came first; simultaneous: for all ranked at once; "
        "anytime: one score, looked at after every added model; fixed: one score, one look.",
    ),
]
NamedIntervalOption = Annotated[
    str,
    typer.Option(
        "--interval",
        metavar="KIND",
        help="anytime: looked at after every added model; fixed: one look at a number of models fixed "
        "beforehand; simultaneous: all scores of the relation at once.",
    ),
]
OutcomeOption = Annotated[
    str,
    typer.Option(
        "--outcome",
        metavar="NAME",
        help="What is averaged: correct (0 or 1), or confidence (the probability given to the label).",
    ),
]
FdrOption = Annotated[
    str,
    typer.Option(
        "--fdr",
        metavar="KIND",
        help="q-values for one look at the list (once), or for looking again after adding models (anytime).",
    ),
]
RanksOption = Annotated[
    bool, typer.Option("--ranks", help="Add the first and the last rank that each row may truly have.")
]
KOption = Annotated[int, typer.Option("-k", metavar="N", help="Rows to show.")]
DataRootOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--data-root", envvar="MEMDB_DATA_ROOT", metavar="DIR", help="The folder that holds the data set."
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1, mps.")]
BatchOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        "--batch-models", metavar="N", help="Models trained at once; the recipe decides if not given."
    ),
]
TrainIdOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--train-id", metavar="N", help="A training example, by its row."),
]
TrainKeyOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--train-key", metavar="NAME", help="The same, by its name."),
]
TestIdOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--test-id", metavar="N", help="A test example, by its row."),
]
TestKeyOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--test-key", metavar="NAME", help="The same, by its name."),
]
TargetIdOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--target-id", metavar="N", help="A training example that others influence, by its row."),
]
TargetKeyOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--target-key", metavar="NAME", help="The same, by its name."),
]
