"""Tables about answers: how many models they take, how they settled, how classes and stores compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.table import Table

from memdb.render.answer import Answer
from memdb.render.fitted import Column, Fitted
from memdb.render.tables import brief, class_label, clean, facts, interval, number, size, stacked
from memdb.wording import count

MATRIX = 10  # classes that a matrix of influences has room for
STRONGEST = 20  # pairs of classes shown where there are more
CONVINCING = 0.05
UNITS = (("s", 60.0), ("min", 60.0), ("h", 24.0), ("days", 365.0))
DASH = "\u2013"
Row = Mapping[str, Any]


def grid(
    title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], n_left: int = 1, n_kept: int = 99
) -> Fitted:
    """Return lines under headings: the first columns are text, or ids if all are numbers, the others numbers.

    Where the terminal is narrow, those after ``n_kept`` columns are omitted, the last first.
    """
    are_ids = bool(rows) and all(row[0].isdecimal() for row in rows)
    columns = [
        Column(
            heading,
            right=place >= n_left or (place == 0 and are_ids),
            folds=place < n_left,
            rank=max(0, place - n_kept + 1),
        )
        for place, heading in enumerate(headings)
    ]
    return Fitted(columns, rows, title)


def duration(seconds: float | None) -> str:
    """Return a time for human readers."""
    if seconds is None:
        return DASH
    value = seconds
    for unit, most in UNITS:
        if value < most:
            return f"{value:.0f} {unit}" if unit == "s" or value >= 10 else f"{value:.1f} {unit}"
        value /= most
    return f"{value:,.1f} years"


def plan(answer: Answer, title: str, score: str) -> Fitted:
    """Return what each goal takes, in words."""
    rows = [
        [
            _goal(row, score),
            f"{brief(row['p_in'])}/{brief(row['p_out'])}" if row["p_in"] is not None else "",
            _count(row["n_models_needed"]),
            _count(row["n_models_more"]),
            duration(row["seconds_more"]),
        ]
        for row in answer.rows()
    ]
    return grid(title, ("goal", "in/out", "models", "more", "time"), rows)


def plan_sketches(answer: Answer) -> Fitted:
    """Return what gradient sketches cost, of a model and of those that are missing."""
    rows = [
        [
            f"{row['n_sketched_needed']:,} sketched",
            _count(row["n_sketched_more"]),
            size(row["bytes_per_model"]),
            size(row["bytes_more"]),
            DASH if row["share_of_training"] is None else f"{row['share_of_training'] * 100:.0f} %",
            duration(row["seconds_more"]),
        ]
        for row in answer.rows()
    ]
    first = next(answer.rows())
    title = f"Gradient sketches of {first['sketch_size']:,} numbers an example"
    return grid(title, ("models", "more", "a model", "in all", "of training", "time"), rows)


def _goal(row: Row, score: str) -> str:
    half, now = f"\u00b1{row['half_width'] or 0:g}", f"now {(row['share_now'] or 0) * 100:.0f} %"
    share = f"{(row['share'] or 0) * 100:g} %"
    return {
        "worst_case": f"{half} for any score",
        "median": f"{half} for {share} of all ({now})",
        "percentile_95": f"{half} for {share} of all ({now})",
        "settled": f"{share} of {row['n_examples'] or 0:,} above {row['threshold'] or 0:g} settled ({now})",
        "named_half_width": f"{half} for {score}",
        "named_from_zero": f"{score} told from 0",
    }[row["goal"]]


def _count(n: int | None) -> str:
    return "out of reach" if n is None else f"{n:,}"


def convergence(answer: Answer, title: str, score: str) -> Fitted:
    """Return a score and both its intervals, a line a number of models."""
    level = f"{answer.facts['level'] * 100:g} %"
    headings = ("models", score, f"{level} fixed", f"{level} anytime", "in", "out")
    rows = [
        [
            f"{row['n_models']:,}",
            number(row[score], "+"),
            *(interval({end: row[f"{kind}_{end}"] for end in ("lo", "hi")}) for kind in ("fixed", "anytime")),
            *_arms(row),
        ]
        for row in answer.rows()
    ]
    return grid(title, headings, rows, n_left=0, n_kept=4)


def _arms(row: Row) -> list[str]:
    if "k_in" in row:
        return [f"{row[f'k_{arm}']:,}/{row[f'n_{arm}']:,}" for arm in ("in", "out")]
    return [f"{row[f's_{arm}']:.1f}/{row[f'n_{arm}']:,}" for arm in ("in", "out")]


def reliability(answer: Answer, title: str, score: str) -> Fitted:
    """Return what two halves agree on, in words."""
    words = {
        "correlation": "correlation of two halves",
        "spearman_brown": "correlation of two stores of this size (Spearman-Brown)",
        "confirmed": f"{score} at {{at:g}} or more, confirmed by the other half",
        "top_overlap": "overlap (Jaccard) of the first {at:,.0f}",
    }
    rows = [
        [words[row["measure"]].format(**row), *(number(row[name]) for name in ("mean", "least", "most"))]
        for row in answer.rows()
    ]
    return grid(title, ("", "mean", "least", "most"), rows)


def classes(answer: Answer, title: str, threshold: float, class_names: Sequence[str]) -> Fitted:
    """Return how hard each class is, the hardest first."""
    headings = ("#", "class", "held out", "in", "test", "memor.", f"\u2265 {threshold:g}", "train", "test n")
    rows = [
        [
            str(row["difficulty"]),
            class_label(row["label"], class_names),
            *(brief(row[name]) for name in ("consistency", "train_rate", "test_rate")),
            brief(row["memorization"], "+"),
            *(f"{row[name] or 0:,}" for name in ("n_memorized", "n_train", "n_test")),
        ]
        for row in answer.rows()
    ]
    return grid(title, headings, rows, n_left=2, n_kept=6)


def class_influence(answer: Answer, title: str, class_names: Sequence[str]) -> Fitted:
    """Return a matrix, training classes down and test classes across; where it has no room, the strongest."""
    rows = list(answer.rows())
    most = max(abs(row["influence"]) for row in rows)
    power = 0
    while most and most * 10**power < 10:
        power += 1
    scaled = f"{title}, in units of 10^-{power}" if power else title
    down, across = (sorted({row[f"{side}_label"] for row in rows}) for side in ("train", "test"))
    strongest = _strongest_classes(rows, power, class_names)
    rest = f"{len(rows) - len(strongest.rows):,} weaker pairs; --output FILE writes them all"
    if len(down) > MATRIX or len(across) > MATRIX:
        return replace(strongest, title=scaled, caption=rest)

    def name(label: int, width: int) -> str:
        return clean(class_label(label, class_names), width)

    cells = {(row["train_label"], row["test_label"]): _scaled(row, power) for row in rows}
    lines = [[name(a, 12), *(cells[a, b] for b in across)] for a in down]
    matrix = grid(f"{scaled}; test across", ["train", *(name(b, 6) for b in across)], lines)
    marks = f"* q below {CONVINCING:g}" if any("*" in cell for line in lines for cell in line[1:]) else ""
    return replace(matrix, caption=marks, instead=replace(strongest, caption=rest))


def _strongest_classes(rows: Sequence[Row], power: int, class_names: Sequence[str]) -> Fitted:
    def names(row: Row) -> list[str]:
        return [clean(class_label(row[f"{side}_label"], class_names), 24) for side in ("train", "test")]

    strongest = sorted(rows, key=lambda row: -abs(row["influence"]) / (row["null_se"] or 1.0))[:STRONGEST]
    lines = [
        [
            *names(row), _scaled(row, power), f"{row['null_se'] * 10**power:.1f}",
            "<.001" if row["q_value"] < 0.001 else brief(row["q_value"]),
        ]
        for row in strongest
    ]  # fmt: skip
    return grid("", ("of class", "on class", "influence", "chance", "q"), lines, n_left=2)


def _scaled(row: Row, power: int) -> str:
    return f"{row['influence'] * 10**power:+.1f}{'*' if row['q_value'] < CONVINCING else ' '}"


def agreement(facts: Mapping[str, Any], n_listed: int) -> dict[str, str]:
    """Return what two stores have in common, a line each."""
    threshold = facts["threshold"]
    lines = {
        "models": f"A {facts['n_models_a']:,}, B {facts['n_models_b']:,}",
        "subsets": f"A {facts['subset_fraction_a']:g}, B {facts['subset_fraction_b']:g} of the training set",
        "compared": f"{count(facts['n_compared'], 'training example')} with a score in both",
        f"at {threshold:g} or more": f"A {facts['n_above_a']:,}, B {facts['n_above_b']:,}, "
        f"Jaccard {number(facts['jaccard'])}",
        f"first {n_listed:,}": f"Jaccard {number(facts['top_overlap'])}",
        "Spearman": number(facts["spearman"]),
        "mean A \u2212 B": number(facts["mean_difference"], "+"),
    }
    if facts["n_models_shared"]:
        lines["models"] += f", {facts['n_models_shared']:,} of them the same"
    return lines


def differences(answer: Answer, title: str, score: str, class_names: Sequence[str]) -> Fitted:
    """Return the examples on which two stores differ most."""
    level = f"{answer.facts['level'] * 100:g} % {answer.facts['interval']}"
    sign = "+" if score == "influence" else ""
    rows = [
        [
            str(row["train_id"]),
            class_label(row["label"], class_names),
            *(number(row[f"{score}_{side}"], sign) for side in ("a", "b")),
            number(row["difference"], "+"),
            interval(row),
            *(_in_and_out(row[f"n_in_{side}"], row[f"n_out_{side}"]) for side in ("a", "b")),
        ]
        for row in answer.rows()
    ]
    headings = ("train", "class", "A", "B", "A \u2212 B", level, "A in/out", "B in/out")
    return grid(title, headings, rows, n_left=2, n_kept=6)


def label_errors(answer: Answer, title: str, class_names: Sequence[str]) -> Fitted:
    """Return the examples whose labels are suspect."""
    rows = [
        [
            str(row["train_id"]),
            class_label(row["label"], class_names),
            class_label(row["suggested_label"], class_names),
            brief(row["agreement"]),
            f"[{brief(row['lo'])}, {brief(row['hi'])}]",
            brief(row["p_given"]),
            brief(row["memorization"]),
            f"{row['k_suggested']:,}/{row['n_out']:,}",
            clean(row["key"] or ""),
        ]
        for row in answer.rows()
    ]
    names = ("train", "given", "rather", "agree", "interval", "as given", "memor.", "votes", "key")
    return grid(title, names, rows, n_left=3, n_kept=6)


def _in_and_out(n_in: int | None, n_out: int | None) -> str:
    return "\u2013" if n_in is None else f"{n_in:,}/{n_out:,}"


def membership(answer: Answer, common: Mapping[str, Any], title: str, class_names: Sequence[str]) -> Table:
    """Return how an attack on the store's models does, and the examples that it tells best."""
    selections = [(f"tpr_at_1_in_{n}", f"members at 1 in {n:,} false") for n in (1000, 100, 10)]
    head = {
        words: f"{number(common[name])} (from {number(common[f'{name}_least'])} to "
        f"{number(common[f'{name}_most'])}, by the model)"
        for name, words in [("attack_auc", "AUC"), *selections]
    }
    rows = [
        [
            str(row["train_id"]),
            class_label(row["label"], class_names),
            *(number(row[name]) for name in ("auc", "mean_in", "mean_out", "sd_in", "sd_out")),
            f"{row['n_in']:,}/{row['n_out']:,}",
        ]
        for row in answer.rows()
    ]
    headings = ("train", "class", "AUC", "mean in", "mean out", "sd in", "sd out", "in/out")
    listed = grid("Examples whose membership shows most", headings, rows, n_left=2, n_kept=3)
    return stacked(facts(head, f"{title}, {common['n_targets']:,} attacked"), "", listed)
