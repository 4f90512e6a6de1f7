"""Tables for people, 80 columns wide where they can be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from memdb.render.answer import NUMERIC, Answer, values_of
from memdb.render.fitted import Column, Fitted
from memdb.wording import count

NAME_WIDTH, KEY_WIDTH = 16, 32
CONVINCING = 0.1  # the q-value above which chance explains a row
NEEDED = (
    "",
    "q",
    "ranks",
    "shrunk",
    "right/in",
    "right/out",
    "p in",
    "p out",
    "memor.",
)  # the last the least
MAX_ROWS_OF_SQL, MAX_COLUMNS_OF_SQL = 1000, 100
MAX_CELL = 1000  # characters
MAX_FINDINGS = 50


def console(*, stderr: bool = False, coloured: bool = False) -> Console:
    """Return a console that prints text as it is: names of classes and files hold no markup.

    One that is ``coloured`` has colours wherever it prints to, as somebody asked for who typed so.
    """
    plain = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not coloured or (plain.color_system and not plain.no_color):
        return plain
    return Console(
        stderr=stderr,
        highlight=False,
        markup=False,
        emoji=False,
        force_terminal=True,
        color_system="truecolor",
        no_color=False,
    )


def clean(text: object, width: int | None = None) -> str:
    """Return text that cannot move the cursor or change colours, cut to a width."""
    shown = "".join(char if char.isprintable() else "\ufffd" for char in str(text))
    return shown if width is None or len(shown) <= width else shown[: width - 1] + "\u2026"


def number(value: float | None, sign: str = "") -> str:
    """Return a score or rate with three decimals."""
    return "\u2013" if value is None else f"{value:{sign}.3f}"


def ranked(answer: Answer, title: str, columns: Mapping[str, str], class_names: Sequence[str]) -> Fitted:
    """Return a ranked list; ``columns`` maps the columns of ids and labels to their headings."""
    names = answer.table.column_names
    score = next(name for name in ("influence", "memorization") if name in names)
    sign = "+" if score == "influence" else ""
    cells: dict[str, Callable[[Mapping[str, Any]], str]] = {
        heading: _cell_of(name, class_names) for name, heading in columns.items()
    }
    cells["influence" if sign else "memor."] = lambda row: brief(row[score], sign)
    if "informed" in names and answer.facts.get("estimator") == "informed":
        cells["calibrated\nprediction"] = lambda row: brief(row["informed"], sign)
    if "shrunk" in names:
        cells["shrunk"] = lambda row: brief(row["shrunk"], sign)
    if "lo" in names:
        cells[f"{answer.facts['level'] * 100:g} % {answer.facts['interval']}"] = _brief_interval
    if "q_value" in names:
        cells["q"] = lambda row: brief_q(row["q_value"])
    if "rank_lo" in names:
        cells["ranks"] = _ranks
    cells |= _arms(names)
    if score == "influence":
        cells["memor."] = lambda row: brief(row["memorization"])
    identifier = next(iter(columns))
    if any(row["key"] not in {None, str(row[identifier])} for row in answer.rows() if "key" in names):
        cells["key"] = lambda row: clean(row["key"] or "", KEY_WIDTH)
    listed = list(answer.rows())
    rows = [[cell(row) for cell in cells.values()] for row in listed]
    by_chance = [row.get("q_value") is not None and row["q_value"] > CONVINCING for row in listed]
    columns_shown = [_column(heading, score) for heading in cells]
    return Fitted(columns_shown, rows, title, dim=by_chance)


def _column(heading: str, score: str) -> Column:
    """Return a column of a ranked list: where the terminal is narrow, some may be omitted."""
    short = {"influence": "infl.", "right/in": "right/\nin", "right/out": "right/\nout"}.get(heading, "")
    match heading:
        case "class":
            return Column(heading, right=False, least=len(heading))
        case "key":
            return Column(heading, right=False, least=6, tail=True, rank=len(NEEDED) + 1, is_extra=True)
        case _:
            is_score = heading == "memor." and score == "memorization"
            rank = NEEDED.index(heading) if heading in NEEDED and not is_score else 0
            return Column(heading, short=short, rank=rank)


def _arms(names: Sequence[str]) -> dict[str, Callable[[Mapping[str, Any]], str]]:
    """Return the columns of what models do that were trained on an example, and others."""
    if "k_in" in names:
        return {
            "right/in": lambda row: f"{row['k_in']}/{row['n_in']}",
            "right/out": lambda row: f"{row['k_out']}/{row['n_out']}",
        }
    if "p_in" in names:
        return {"p in": lambda row: brief(row["p_in"]), "p out": lambda row: brief(row["p_out"])}
    return {}


def _cell_of(name: str, class_names: Sequence[str]) -> Callable[[Mapping[str, Any]], str]:
    if name.endswith("label"):
        return lambda row: class_label(row[name], class_names)
    return lambda row: str(row[name])


def brief(value: float | None, sign: str = "") -> str:
    """Return a score with three decimals and without the zero before them: tables have 80 columns."""
    text = number(value, sign)
    return text if value is None or abs(value) >= 1 else text.replace("0.", ".", 1)


def _brief_interval(row: Mapping[str, Any]) -> str:
    return "\u2013" if row["lo"] is None else f"[{brief(row['lo'], '+')}, {brief(row['hi'], '+')}]"


def brief_q(value: float | None) -> str:
    """Return a q-value likewise."""
    return "\u2013" if value is None else "<.001" if value < 0.001 else brief(value)


def _ranks(row: Mapping[str, Any]) -> str:
    return "\u2013" if row["rank_lo"] is None else f"{row['rank_lo']}\u2013{row['rank_hi']}"


def class_label(label: int | None, class_names: Sequence[str]) -> str:
    """Return a class's name, or its number where it has none."""
    if label is None:
        return "unknown"
    return clean(class_names[label], NAME_WIDTH) if label < len(class_names) else str(label)


def interval(row: Mapping[str, Any]) -> str:
    """Return an interval in brackets, or a dash if there is none."""
    return "\u2013" if row["lo"] is None else f"[{row['lo']:+.3f}, {row['hi']:+.3f}]"


def facts(pairs: Mapping[str, object], title: str | None = None) -> Table:
    """Return names and values, one a line, under a title that may be wider than they are."""
    table = Table(box=None, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs.items():
        table.add_row(Text(name), Text(clean(value)))
    return stacked(Text(title, style="table.title"), table) if title else table


def stacked(*parts: RenderableType) -> Table:
    """Return parts one below the other."""
    table = Table.grid()
    for part in parts:
        table.add_row(part)
    return table


def findings(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Fitted:
    """Return lines of text under headings, at most as many as a person reads."""
    more = f"{len(rows) - MAX_FINDINGS:,} more" if len(rows) > MAX_FINDINGS else ""
    columns = [Column(heading, right=False, folds=True) for heading in headings]
    return Fitted(columns, rows[:MAX_FINDINGS], caption=more)


def size(n_bytes: int) -> str:
    """Return a number of bytes for human readers."""
    value, unit = float(n_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.3g} {unit}"


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case float():
            return f"{value:.6g}"
        case _:
            text = str(value)
            cut = text if len(text) <= MAX_CELL else f"{text[: MAX_CELL - 1]}\u2026"
            return "\n".join(clean(line) for line in cut.splitlines())


def plain(answer: Answer) -> Fitted:
    """Return the first of any rows and columns as they are, for `memdb sql`, and count the others."""
    schema = answer.table.schema
    columns = [
        Column(clean(field.name, MAX_CELL), right=is_number, folds=not is_number)
        for field in list(schema)[:MAX_COLUMNS_OF_SQL]
        for is_number in [str(field.type).startswith(NUMERIC)]
    ]
    n_rows, rows = 0, []
    for batch in answer.batches():
        shown = batch.slice(0, max(0, MAX_ROWS_OF_SQL - n_rows)).select(range(len(columns)))
        rows += [[_cell(value) for value in row] for row in values_of(shown)]
        n_rows += batch.num_rows
    rest = [f"{count(n_rows - len(rows), 'more row')}"] if n_rows > len(rows) else []
    if len(schema) > len(columns):
        rest.append(count(len(schema) - len(columns), "more column"))
    caption = f"{', '.join(rest)}; --output FILE writes them all" if rest else ""
    return Fitted(columns, rows, caption=caption if n_rows else "no rows", keeps_empty=True)
