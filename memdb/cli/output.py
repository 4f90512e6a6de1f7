"""From rows to what a command prints, in the format that was asked for."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from memdb.cli.app import say
from memdb.cli.estimator_options import Choice, estimator_line, remark_on_estimator
from memdb.cli.options import (
    FormatOption,
    LevelOption,
    NamedIntervalOption,
    OptionGroup,
    OutcomeOption,
    OutputOption,
    RankedIntervalOption,
)
from memdb.cli.usage import in_options
from memdb.errors import NotFoundError
from memdb.format import layout
from memdb.render import tables
from memdb.render.answer import LIST_FACTS, Answer, require_format, require_suffix
from memdb.render.tables import clean, console, number
from memdb.wording import count

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyRelation
    from rich.console import RenderableType

    from memdb.database import Database
    from memdb.query.imported_scores import TableRelations

SETTLED = 0.05
SAID = (  # the last columns of rows that `Database` gives, of which a document says the values once
    ("outcome", "level", "interval", "n_models"),
    ("outcome", "level", "interval"),
    ("outcome", "n_models"),
)
CHARACTERS_AT_ONCE = 2**20  # that are encoded at once: an answer may be long


class Way(OptionGroup):
    """How an answer is wanted; impossible combinations are refused before the store is opened."""

    outcome: OutcomeOption = "correct"
    level: LevelOption = 0.95
    interval: NamedIntervalOption = "anytime"
    format: FormatOption = "table"
    output: OutputOption = None
    rests_on: Mapping[str, Any] = MappingProxyType({})  # what an answer says of its estimator

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        require_format(self.format)
        if self.output is not None:
            require_suffix(self.output)

    @property
    def asked(self) -> dict[str, Any]:
        """The outcome and the interval, as the methods of `Database` take them."""
        return {"outcome": self.outcome, "level": self.level, "interval": self.interval}

    def by(self, db: Database, choice: Choice) -> Self:
        """Return the same for an answer of the estimator that was chosen."""
        if not choice.chosen:
            return self
        return type(self)(**{**vars(self), "rests_on": db.estimator_facts(**choice.chosen)})

    @property
    def rows_stand_alone(self) -> bool:
        """Whether what is true of all rows has no place but in each of them."""
        return self.kind not in {"table", "json"}

    @property
    def kind(self) -> str:
        """The format, or that of the file."""
        return self.format if self.output is None else self.output.suffix.lower()[1:]

    @property
    def is_parquet(self) -> bool:
        """Whether the answer becomes a file of Arrow's values."""
        return self.output is not None and require_suffix(self.output) == ".parquet"


class RankedWay(Way):
    """The same of a ranked list."""

    interval: RankedIntervalOption = "selected"


class PlainWay(Way):
    """The same of an answer without intervals."""

    level: float = 0.95
    interval: str = "none"


def say_without_pictures(reason: str) -> None:
    """Say that examples are shown without pictures, and why."""
    is_package_missing = "pip install" in reason
    hint = "" if is_package_missing else " --data-root names the data's folder."
    say(f"Note: no pictures: {clean(reason)}.{hint}")


def answer_of(db: Database, rows: DuckDBPyRelation | pa.Table, way: Way) -> Answer:
    """Return rows with what the JSON document says about them."""
    table: Any = rows.to_arrow_table() if hasattr(rows, "to_arrow_table") else rows
    said = next((tail for tail in SAID if tuple(table.column_names[-len(tail) :]) == tail), ())
    return Answer(table.drop_columns(list(said)), facts_of(db, way))


def facts_of(db: Database, way: Way) -> dict[str, Any]:
    """Return what is said of any rows; only a JSON document names the models, whose hash takes time."""
    facts: dict[str, Any] = {"store": db.url}
    if way.kind == "json":
        facts["snapshot"] = db.snapshot.number  # None where models are beyond the newest: then the hash tells
        facts["models_sha256"] = db.models_sha256
    facts |= {
        "n_models": db.n_models,
        "level": way.level,
        "interval": way.interval,
        "outcome": way.outcome,
    }
    return {**facts, **way.rests_on, **left_out(db)}


def left_out(db: Database) -> dict[str, Any]:
    """Return how many models are excluded from an answer, and which; nothing where none is."""
    excluded = sorted(db.snapshot.excluded)
    return {"n_excluded": len(excluded), "excluded": excluded} if excluded else {}


def asked_of(db: Database, rows: DuckDBPyRelation | pa.Table, way: Way) -> Answer:
    """Return rows of models, or of the imported scores that were asked, with what is said about them."""
    return _of_scores(db, answer_of(db, rows, way))


def _of_scores(db: Database, answer: Answer) -> Answer:
    if db.imported_scores is None:
        return answer
    return Answer(answer.table, {**answer.facts, **_imported_facts(db.imported_scores)})


def _imported_facts(imported: TableRelations) -> dict[str, Any]:
    """Return what is different where imported scores answer."""
    from memdb.query.imported_scores import ASSUME, WITHOUT_COUNTS

    facts: dict[str, Any] = {"scores": imported.scores.table.name, "outcome": None, "n_models": None}
    if imported.assumed is None:
        hint = in_options(ASSUME, ["assume"])
        return facts | {"interval": None, "level": None, "why_no_interval": WITHOUT_COUNTS, "hint": hint}
    assumed = imported.assumed
    return facts | {"assumed_models": assumed.n_models, "assumed_fraction": assumed.subset_fraction}


def countless(answer: Answer) -> Answer:
    """Return an answer for people: without the columns of counts and intervals that it has no values for."""
    empty = [
        name
        for name in ("lo", "hi", "n_in", "n_out", "k_in", "k_out", "p_in", "p_out")
        if name in answer.table.column_names and answer.table[name].null_count == answer.table.num_rows
    ]
    return answer if "scores" not in answer.facts else Answer(answer.table.drop_columns(empty), answer.facts)


def remark_on_scores(answer: Answer) -> None:
    """Say why imported scores have no intervals, or what their intervals assume."""
    if "why_no_interval" in answer.facts:
        why, hint = (str(answer.facts[name]) for name in ("why_no_interval", "hint"))
        say(f"{why.capitalize()}. To have some, {hint}.")
    elif "assumed_models" in answer.facts:
        models, fraction = answer.facts["assumed_models"], answer.facts["assumed_fraction"]
        say(
            f"Intervals as if each score came from {count(models, 'model')} on subsets of {fraction:g}, with "
            "whatever rates make them widest."
        )


def list_of(db: Database, rows: DuckDBPyRelation, way: Way) -> Answer:
    """Return a ranked list, with what it says of all that was ranked as facts of the whole."""
    answer = asked_of(db, rows, way)
    first = next(answer.rows(), {})
    facts = {**answer.facts, **{name: first.get(name) for name in LIST_FACTS}}
    return Answer(answer.table.drop_columns([n for n in LIST_FACTS if n in answer.table.column_names]), facts)


def emit(answer: Answer, way: Way, table: Callable[[Answer], RenderableType]) -> None:
    """Print an answer, or write it to the file that was named."""
    show(made(answer, way, table), way)


def made(answer: Answer, way: Way, table: Callable[[Answer], RenderableType]) -> str | int:
    """Return the text of an answer, or how many rows were written to the file that was named."""
    if way.output is not None:
        return answer.write(way.output, "spreadsheet" if way.format == "spreadsheet" else None)
    if way.format != "table":
        return answer.text(way.format)
    printed = console()
    with printed.capture() as text:
        printed.print(table(answer))
    return re.sub(" +$", "", text.get(), flags=re.MULTILINE)  # Rich fills lines up to the width


def show(text: str | int, way: Way) -> None:
    """Print the text of an answer, or say what was written."""
    if isinstance(text, int):
        say(f"Wrote {count(text, 'row')} to {way.output}.")
        return
    for start in range(0, len(text), CHARACTERS_AT_ONCE):
        sys.stdout.write(text[start : start + CHARACTERS_AT_ONCE])


def print_memorized(db: Database, rows: DuckDBPyRelation, way: Way, class_name: str | None) -> None:
    """Print the most memorized examples."""
    names = db.answers().relations.class_names
    of = f" of class {clean(class_name)}" if class_name else ""
    title = f"Most memorized training examples{of} \u00b7 {facts_line(db, way)}"
    columns = {"train_id": "train", "label": "class"}
    answer = list_of(db, rows, way)
    emit(answer, way, lambda a: tables.ranked(countless(a), title, columns, names))
    remark_on_chance(answer, "memorization")
    remark_on_scores(answer)


def print_influences(db: Database, rows: DuckDBPyRelation, way: Way, fixed: str) -> None:
    """Print the strongest influences with one side fixed."""
    answer = list_of(db, rows, way)
    names = db.answers().relations.class_names
    first = next(answer.rows(), None)
    columns = {"train_id": "train", "train_label": "class"}
    if fixed == "train_id":
        columns = {"test_id": "test", "test_label": "class"}
    title = f"Influence \u00b7 {facts_line(db, way)}"
    if first is not None:
        label = {"train_id": "train_label", "test_id": "test_label", "target_id": "target_label"}[fixed]
        kind = "of training" if fixed == "train_id" else "on test" if fixed == "test_id" else "on training"
        shown = tables.class_label(first[label], names)
        title = f"Influence {kind} example {first[fixed]} (class {shown}) \u00b7 {facts_line(db, way)}"
    emit(answer, way, lambda a: tables.ranked(countless(a), title, columns, names))
    remark_on_chance(answer, "influence")
    remark_on_scores(answer)
    remark_on_estimator(answer)


def print_score(db: Database, rows: DuckDBPyRelation, way: Way) -> None:
    """Print one score with everything behind it."""
    answer = asked_of(db, rows, way)

    def table(shown: Answer) -> RenderableType:
        row = next(shown.rows())
        name = "influence" if "influence" in row else "memorization"
        lines: dict[str, object] = {name: number(row[name], "+")}
        if shown.facts.get("estimator") == "informed":
            lines["calibrated prediction"] = number(row["informed"], "+")
        kind = shown.facts["interval"]
        for other in dict.fromkeys((kind, "anytime", "fixed")) if kind is not None else ():
            numbers = row if other == kind else _again(db, row, other, way)
            lines[f"{way.level * 100:g} % {other}"] = tables.interval(numbers)
        if row["n_in"] is None:
            lines["models"] = "unknown"
        elif "k_in" in row:
            lines["right when in"] = _rate(row["k_in"], row["n_in"])
            lines["right when out"] = _rate(row["k_out"], row["n_out"])
        else:
            lines["mean when in"] = f"{number(row['p_in'])} over {row['n_in']:,}"
            lines["mean when out"] = f"{number(row['p_out'])} over {row['n_out']:,}"
        if name == "influence":
            lines["memorization"] = f"{number(row['memorization'])} (of training example {row['train_id']})"
            lines["same class"] = {True: "yes", False: "no", None: "unknown"}[row["same_class"]]
        lines["outcome"] = facts_line(db, way).replace("\n", " \u00b7 ")
        return tables.facts(lines, _named(db, row))

    emit(answer, way, table)
    row = next(answer.rows(), None)
    remark_on_scores(answer)
    remark_on_estimator(answer)
    if row is not None and row["lo"] is None and db.imported_scores is None:
        say("No score: the example was in every subset or in none so far. Add models with `memdb train`.")


def rows_of_statement(db: Database, found: pa.RecordBatchReader, way: Way) -> tuple[Answer, str | int]:
    """Return what a user's statement found, and its text (see `made`)."""
    facts = facts_of(db, way)
    try:
        answer = _of_scores(db, Answer(found, facts))
    except NotFoundError:  # several score tables, and the statement named those it reads
        unsaid = dict.fromkeys(("level", "interval", "outcome", "n_models"))
        answer = Answer(found, {**facts, **unsaid})
    return answer, made(answer, way, tables.plain)


def facts_line(db: Database, way: Way) -> str:
    """Return what a table's title says of the numbers in it."""
    if db.imported_scores is not None:
        return f"imported scores {clean(db.imported_scores.scores.table.name)}"
    n_excluded = len(db.snapshot.excluded)
    without = f" \u00b7 {n_excluded:,} excluded" if n_excluded else ""
    models = f"{count(db.n_models, 'model')}{without}"
    return f"{models} \u00b7 outcome {way.outcome}{estimator_line(way.rests_on)}"


def remark_on_chance(answer: Answer, score: str) -> None:
    """Say what chance alone would give in a list, and how many models would settle it."""
    shown = [abs(row[score]) for row in answer.rows() if row[score] is not None]
    n_ranked, n_null = answer.facts["n_ranked"], answer.facts["n_null"]
    if not shown or n_null is None:
        return
    expected = f"{n_null:,.0f}" if n_null >= 10 else f"{n_null:.2g}" if n_null >= 0.01 else "less than 0.01"
    chance = f"chance would put {expected} of {n_ranked:,} scores at {min(shown):.3f} or more"
    lines = [f"Without any {score}, {chance}."]
    needed = answer.facts["n_models_needed"]
    if n_null > SETTLED * len(shown):
        noise = "this list is mostly noise" if n_null >= len(shown) / 2 else "some rows may be noise"
        n_more = 0 if needed is None else needed - answer.facts["n_models"]
        more = f" {count(n_more, 'more model')} would tell." if n_more > 0 else ""
        lines = [f"{lines[0]} With {len(shown)} shown, {noise}.{more}"]
    say(*lines)


def _rate(k: int, n: int) -> str:
    return f"{k:,} of {n:,}" + (f" = {k / n:.3f}" if n else "")


def _again(db: Database, row: Mapping[str, Any], interval: str, way: Way) -> dict[str, Any]:
    ids: dict[str, Any] = {name: row[name] for name in ("test_id", "target_id") if name in row}
    rows = db.score(row["train_id"], **ids, interval=interval, level=way.level, outcome=way.outcome)
    return next(answer_of(db, rows, way).rows())


def _named(db: Database, row: Mapping[str, Any]) -> str:
    ids = {"train_id": "training", "test_id": "test", "target_id": "training"}
    return " on\n".join(_example(db, kind, row, name) for name, kind in ids.items() if name in row)


def _example(db: Database, kind: str, row: Mapping[str, Any], name: str) -> str:
    relations, identifier = db.answers().relations, row[name]
    label = row.get(name.replace("_id", "_label"), row.get("label"))
    key = clean(relations.key_of(layout.TEST if name == "test_id" else layout.TRAIN, identifier))
    shown = tables.class_label(label, relations.class_names)
    return f"{kind} example {identifier} (class {shown}{'' if key == str(identifier) else f', {key}'})"
