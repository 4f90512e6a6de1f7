"""Options that several commands share, each declared once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, dataclass_transform

import typer

from memdb.query.intervals import kinds_for
from memdb.query.outcomes import OUTCOMES


@dataclass_transform(kw_only_default=True)
class OptionGroup:
    """Options that belong together, as one value: the class declares each, as a dataclass does its fields.

    A command that takes a group has its options: see `store_options.at_place`. It is not a dataclass, since
    the code that a dozen of these generate would delay ``memdb --help`` by 6 ms.
    """

    def __init__(self, **given: Any) -> None:
        vars(self).update(given)

    @property
    def given(self) -> dict[str, Any]:
        """Those that are neither absent nor switched off."""
        return {name: value for name, value in vars(self).items() if value is not None and value is not False}


def listed(meanings: Mapping[str, str]) -> str:
    """Return help that names each choice with its meaning."""
    return "; ".join(f"{name}: {meaning}" for name, meaning in meanings.items()) + "."


FormatOption = Annotated[
    str,
    typer.Option(
        "--format",
        "-f",
        metavar="FORMAT",
        help="table, markdown, line (a value a line), json, ndjson, csv, or spreadsheet: CSV whose text no "
        "spreadsheet takes for a formula.",
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FILE", help="Write to a .json, .ndjson, .csv or .parquet file instead."
    ),
]
LevelOption = Annotated[float, typer.Option("--level", metavar="P", help="Coverage of the intervals.")]
RankedIntervalOption = Annotated[
    str,
    typer.Option("--interval", metavar="KIND", help=listed(kinds_for(ranked=True))),
]
NamedIntervalOption = Annotated[
    str,
    typer.Option("--interval", metavar="KIND", help=listed(kinds_for(ranked=False))),
]
OutcomeOption = Annotated[
    str,
    typer.Option(
        "--outcome",
        metavar="NAME",
        help="What is averaged over models. "
        + listed({name: outcome.meaning for name, outcome in OUTCOMES.items()}),
    ),
]
EstimatorOption = Annotated[
    str,
    typer.Option(
        "--estimator",
        metavar="NAME",
        help="raw: the difference in means; informed: the calibrated prediction from gradient sketches and "
        "raw influences, with an interval of its own.",
    ),
]
ScreenOption = Annotated[
    str | None,
    typer.Option(
        "--screen",
        metavar="K",
        help="Test only the K pairs that a prior ranks first, by models that it does not come from; auto: as "
        "many as models, or for one example a tenth.",
    ),
]
ScreenByOption = Annotated[
    Path | None,
    typer.Option(
        "--screen-by",
        metavar="FILE",
        help="Scores [train, test] that are the prior, such as TRAK's, in place of gradient sketches: .npy, "
        ".npz, .csv or .parquet. They must not come from the store's own models.",
    ),
]
PlanOutcomeOption = Annotated[
    str | None,
    typer.Option(
        "--outcome",
        metavar="NAME",
        help="What is averaged over models: correct or confidence; with --lds, what is predicted: "
        "logit_confidence, margin or correct. [default: correct; with --lds, the first of them that is kept]",
        show_default=False,
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


class MemorizedRanking(OptionGroup):
    """How a list of memorized examples is ranked, and what is said about its ranks."""

    order: Annotated[
        str, typer.Option("--order", metavar="NAME", help="shrunk, memorization, q_value or lo.")
    ] = "shrunk"
    fdr: FdrOption = "once"
    ranks: RanksOption = False


class InfluenceRanking(MemorizedRanking):
    """The same of a list of influences."""

    order: Annotated[
        str, typer.Option("--order", metavar="NAME", help="shrunk, informed, influence, q_value or lo.")
    ] = "shrunk"


KOption = Annotated[int, typer.Option("-k", metavar="N", help="Rows to show.")]
ShownOption = Annotated[
    int | None,
    typer.Option(
        "-k", metavar="N", help="Rows to show. [default: 20; all of them in a file]", show_default=False
    ),
]
GraphicsOption = Annotated[
    str,
    typer.Option(
        "--graphics",
        metavar="WAY",
        help="How the terminal shows pictures: kitty, iterm, blocks, ascii, none, or auto, by what it "
        "calls itself; a pipe gets none.",
    ),
]
DataRootOption = Annotated[
    str | None,
    typer.Option(
        "--data-root", envvar="MEMDB_DATA_ROOT", metavar="DIR", help="The folder that holds the data set."
    ),
]
OwnDatasetOption = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        "-d",
        metavar="NAME",
        help="The store's data set, where it is code, package.module:attribute, of a store that you did not "
        "make here. Remembered.",
    ),
]
OwnRecipeOption = Annotated[
    str | None,
    typer.Option("--recipe", "-r", metavar="NAME", help="The store's recipe, in the same way."),
]
DeviceOption = Annotated[
    str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1, xpu, mps.")
]
BatchOption = Annotated[
    int | None,
    typer.Option(
        "--batch-models", metavar="N", help="Models trained at once; the recipe decides if not given."
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        help="Processes that train at once: one a GPU, several that share one, or several that divide the "
        "CPU's cores; with --ray, the most tasks at once.",
    ),
]
RayOption = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Train on a Ray cluster: local starts one here; auto, HOST:6379 or ray://HOST:10001 use yours.",
    ),
]
TaskCpusOption = Annotated[
    int, typer.Option("--task-cpus", metavar="N", help="Cores of each Ray task, and threads of its models.")
]
TaskGpusOption = Annotated[
    float | None,
    typer.Option(
        "--task-gpus",
        metavar="N",
        help="GPUs of each Ray task, such as 0.5, or 0 for none; 1 where the cluster has any.",
    ),
]
AddOption = Annotated[
    int | None,
    typer.Option(
        "--add",
        "-n",
        metavar="N",
        help="How many models to add; with --task-id, how many the task has in all. "
        "[default: 100, or as many as the other limits allow]",
        show_default=False,
    ),
]
TaskIdOption = Annotated[
    str | None,
    typer.Option(
        "--task-id",
        metavar="TEXT",
        help="Fixes the models' seeds: the same task, run again, goes on with the same models, such as "
        "--task-id $SLURM_ARRAY_TASK_ID.",
    ),
]
UntilOption = Annotated[
    float | None,
    typer.Option(
        "--until-half-width",
        metavar="H",
        help="End once the mean half-width of memorization intervals, which info shows, is H or less.",
    ),
]
MaxTimeOption = Annotated[
    str | None,
    typer.Option("--max-time", metavar="TIME", help="End after this time, such as 90s, 30m, 1h30m or 2h."),
]
CheckpointsOption = Annotated[
    str | None,
    typer.Option(
        "--checkpoint-dir",
        envvar="MEMDB_CHECKPOINT_DIR",
        metavar="DIR",
        help="Where recipes may keep half-trained models. [default: ~/.cache/memdb/checkpoints]",
        show_default=False,
    ),
]


class HowTrained(OptionGroup):
    """What training takes wherever it is started: data, recipe, and machines."""

    dataset: OwnDatasetOption = None
    recipe: OwnRecipeOption = None
    data_root: DataRootOption = None
    device: DeviceOption = "auto"
    batch_models: BatchOption = None
    workers: WorkersOption = None
    ray: RayOption = None
    task_cpus: TaskCpusOption = 1
    task_gpus: TaskGpusOption = None
    checkpoint_dir: CheckpointsOption = None


SketchSizeOption = Annotated[
    int | None,
    typer.Option(
        "--sketch-size",
        metavar="K",
        help="Numbers per example of a sketch. [default: 512]",
        show_default=False,
    ),
]
TestIdOption = Annotated[
    int | None,
    typer.Option("--test-id", metavar="N", help="A test example, by its row."),
]
EXAMPLES = {  # the options that name examples, by the fields of `ExampleNames`
    "train_id": Annotated[
        int | None,
        typer.Option("--train-id", metavar="N", help="A training example, by its row."),
    ],
    "train_key": Annotated[
        str | None,
        typer.Option("--train-key", metavar="NAME", help="The same, by its name."),
    ],
    "test_id": TestIdOption,
    "test_key": Annotated[
        str | None,
        typer.Option("--test-key", metavar="NAME", help="The same, by its name."),
    ],
    "target_id": Annotated[
        int | None,
        typer.Option(
            "--target-id", metavar="N", help="A training example that others influence, by its row."
        ),
    ],
    "target_key": Annotated[
        str | None,
        typer.Option("--target-key", metavar="NAME", help="The same, by its name."),
    ],
}
SameClassOption = Annotated[bool, typer.Option("--same-class", help="Only pairs that share their label.")]


class PairBounds(OptionGroup):
    """Which pairs are wanted, out of all there are."""

    min_influence: Annotated[
        float | None,
        typer.Option("--min-influence", metavar="X", help="Only pairs at or above this influence."),
    ] = None
    min_memorization: Annotated[
        float | None,
        typer.Option(
            "--min-memorization", metavar="X", help="Only training examples at or above this memorization."
        ),
    ] = None
    top: Annotated[
        int | None,
        typer.Option("--top", metavar="K", help="Only the strongest K pairs of every test example."),
    ] = None
    same_class: SameClassOption = False


ThresholdOption = Annotated[float, typer.Option("--threshold", metavar="X", help="What counts as memorized.")]
EitherThresholdOption = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        metavar="X",
        help="What counts as high. [default: 0.25 for memorization, 0.15 for influence]",
        show_default=False,
    ),
]
