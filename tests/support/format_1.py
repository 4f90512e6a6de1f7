"""Stores of format 1 as they were written once, the questions they are asked, and how answers are written down.

`scripts/make_format_1.py` made `tests/data/format-1/stores.tar.xz` and writes the answers beside it;
`test_format_1.py` compares. Only what users have is used here, `memdb.open` and the command, so that no file of
the package has to keep its place.

To ask something new, add it to `COMMANDS` or `METHODS` and run ``scripts/make_format_1.py --answers``: git shows
that nothing else changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shlex
import sys
import tarfile
from datetime import timedelta
from unittest import mock

import numpy as np
import pyarrow.parquet as pq

import memdb
from support import DATA

HERE = DATA / "format-1"
ARCHIVE = HERE / "stores.tar.xz"
ANSWERS = HERE / "answers"
N_TRAIN, N_TEST = 40, 20
DIVERGED = 13
NO_TIME = timedelta(0)


def data():
    """Pictures of 8 x 8 pixels, of three classes: what the stores are of."""
    rng = np.random.default_rng(1)
    labels = [np.arange(n) % 3 for n in (N_TRAIN, N_TEST)]
    pictures = [rng.integers(0, 256, (len(y), 8, 8), dtype=np.uint8) for y in labels]
    return memdb.Dataset(
        pictures[0],
        labels[0],
        pictures[1],
        labels[1],
        ["ant", "bee", "cat"],
        train_keys=[f"train/{row:02}.png" for row in range(N_TRAIN)],
        test_keys=[f"test/{row:02}.png" for row in range(N_TEST)],
    )


class Coins:
    """Draws confidences: higher on examples of the subset, and on test examples whose twin is in it.

    The model of seed 13 diverges. Where it is not ``confident``, it returns what is right and no confidences.
    """

    name, version, options = "coins", "1", {}

    def __init__(self, *, confident=True):
        self.confident = confident

    def models_per_batch(self, data, device):
        return 6

    def __call__(self, data, masks, seeds, run):
        hardness = np.random.default_rng(0).normal(0.3, 1.2, N_TRAIN)
        confidences = {"train": [], "test": []}
        losses, learned = [], []
        for mask, seed in zip(masks, seeds.tolist(), strict=True):
            rng = np.random.default_rng([seed, 2])
            noise = rng.normal(size=N_TRAIN + N_TEST)
            confidences["train"].append(hardness + 1.8 * mask + noise[:N_TRAIN])
            confidences["test"].append(hardness[:N_TEST] + 1.5 * mask[:N_TEST] + noise[N_TRAIN:])
            losses.append(np.where(mask, np.abs(noise[:N_TRAIN]) * 4, np.nan))
            learned.append(np.where(mask, rng.integers(1, 6, N_TRAIN), 0))
        returned = {
            "train/cumulative_loss": np.stack(losses),
            "train/first_learned": np.stack(learned).astype(np.uint16),
        }
        for name, values in confidences.items():
            found = np.stack(values)
            found[seeds == DIVERGED] = np.nan
            returned[f"{name}/correct"] = found > 0
            if self.confident:
                returned[f"{name}/logit_confidence"] = found
        return returned


def training(*, confident=True):
    """What training needs that a store does not keep."""
    return {"dataset": data(), "recipe": Coins(confident=confident)}


# ---------------------------------------------------------------- questions

EXAMPLES = ("--test-id 4", "--train-id 4", "--target-id 4", "--test-key test/07.png")
LISTS = (
    "top-memorized -k 4",
    "top-memorized -k 3 --class bee --ranks",
    "top-memorized -k 3 --order memorization --fdr anytime --interval simultaneous --level 0.9",
    "top-memorized -k 3 --outcome confidence",
    *(f"top-influence {example} -k 3" for example in EXAMPLES),
    "top-influence --test-id 4 -k 3 --same-class --order q_value --ranks",
)
SCORES = (
    "score --train-id 3",
    "score --train-id 3 --test-id 3",
    "score --train-key train/03.png --target-id 9 --interval fixed",
    "score --train-id 3 --test-id 3 --outcome confidence --level 0.9",
)
WITH_MODELS = (
    "info",
    "plan --half-width 0.1",
    "convergence --train-id 3 --test-id 3",
    "reliability -k 5 --splits 4",
    "classes",
    "class-influence",
    "membership -k 4",
    "lds attribution.npy --resamples 20",
    "frontier --estimator raw --models 12 -k 20",
)
RELATIONS = (
    'sql "FROM memorization WHERE train_id < 4 ORDER BY train_id"',
    'sql "FROM influence WHERE train_id < 2 AND test_id < 3 ORDER BY ALL"',
    'sql "FROM train_influence WHERE train_id < 2 AND target_id < 3 ORDER BY ALL"',
)
STORED = (
    'sql "SELECT * EXCLUDE versions FROM models ORDER BY model_id LIMIT 6"',
    'sql "SELECT count(*) AS n, count(DISTINCT model_id) AS n_ids, sum(diverged::INT) AS n_diverged FROM models"',
    'sql "FROM train_examples ORDER BY id LIMIT 5"',
    'sql "FROM test_examples ORDER BY id DESC LIMIT 5"',
    'sql "SELECT class_name, avg(memorization) FROM memorization JOIN train_examples ON id = train_id GROUP BY ALL ORDER BY ALL"',
)
PAIRS = (
    "pairs --top 1",
    "pairs --min-influence 0.3 --min-memorization 0.2",
    "pairs --top 2 --same-class --outcome confidence",
)
EXPORTS = (
    "export memorization.csv",
    "export memorization.parquet --outcome confidence --level 0.9",
    "export memorization.npz",
    "export pairs.csv --what pairs --top 2",
    "export pairs.parquet --what pairs --min-influence 0.3",
    "export fz.npz --what fz-pairs --min-influence 0.2 --min-memorization 0.1",
    "export classes.npz --what fz-classes",
    "export runs.npz --what models",
    "export lira.npz --what lira",
)
FORMATTED = {"export", "publish", "verify", "pull"}  # print no rows: what they write is looked at

COMMANDS = {  # by store: asked as JSON, and those of `TABLES` as a table, too
    "trained": [
        *WITH_MODELS, *LISTS, *SCORES, *RELATIONS, *STORED, *PAIRS, *EXPORTS, "verify",
        *(f"top-memorized -k 3 --interval {kind}" for kind in ("fixed", "anytime", "selected", "simultaneous")),
        *(f"score --train-id 5 --interval {kind}" for kind in ("fixed", "anytime", "simultaneous")),
        *(f"info --snapshot {number}" for number in (1, 2, 3)),
        "top-memorized -k 3 --snapshot 1", "top-influence --test-id 4 -k 3 --snapshot 2",
        "top-memorized -k 3 --exclude diverged", "info --outcome confidence --interval fixed",
        "top-memorized -k 4 --scores theirs", "top-influence --test-id 4 -k 3 --scores theirs",
        "score --train-id 3 --scores theirs --assume-models 4000", "pairs --top 1 --scores classwise",
        "plan --settle 0.9 --threshold 0.3", "plan --train-id 3 --test-id 3 --interval simultaneous --n-ranked 800",
        "plan --kind influence --half-width 0.08", "convergence --train-id 3 --outcome confidence",
        "reliability --test-id 4 -k 5 --splits 4", "classes --threshold 0.4", "membership -k 4 --variant offline",
        "lds attribution.npy --resamples 20 --outcome correct",
        "compare trained.zarr extension.zarr -k 3 --trust-base",
        "compare trained.zarr merged.zarr -k 3 --test-id 4",
        "compare trained.zarr trained.zarr -k 3 --scores-b theirs",
        "duplicates --by influence --min-share 0.05 --alpha 0.99 -k 2",
    ],
    "published": [
        *WITH_MODELS, *LISTS, *SCORES, *RELATIONS, *PAIRS, "verify", "top-memorized -k 3 --snapshot 1",
        "top-influence --test-id 4 -k 3 --scores theirs", "top-influence --test-id 4 -k 3 --exclude diverged",
        "export memorization.csv", "export runs.npz --what models",
    ],
    "extension": [
        *WITH_MODELS, *LISTS[:5], *SCORES[1:2], *RELATIONS, *STORED[:2], *PAIRS[:1], "verify", "info --snapshot 1",
        "export runs.npz --what models",
    ],
    "merged": ["info", *LISTS[:1], *STORED[:2], "verify"],
    "margins": ["info", "top-memorized -k 4", "top-influence --test-id 4 -k 3", "lds attribution.npy --resamples 20", "verify"],
    "unseen": ["info", "top-memorized -k 4", "top-influence --target-id 4 -k 3", "membership -k 4", "verify"],
    "scores": ["info", *LISTS[:1], *LISTS[4:6], *SCORES[:2], *RELATIONS[:2], "pairs --top 1", "verify"],
}  # fmt: skip
TABLES = {*WITH_MODELS, *LISTS, *SCORES, *PAIRS, "compare trained.zarr extension.zarr -k 3 --trust-base"}
QUICK = {*WITH_MODELS, *LISTS[3:7], *SCORES[1:], *RELATIONS, *STORED[:1], *PAIRS[1:], *EXPORTS[5:], "verify"}

METHODS = [  # grouped by store and options, for each is opened once: store, options of `memdb.open`, method or attribute, arguments
    *(
        (name, {"trust_base": True} if name == "extension" else {}, attribute, {})
        for name in COMMANDS
        for attribute in ("n_models", "models_sha256", "info", "score_tables")
    ),
    *(("trained", {}, "memorization", {"interval": kind}) for kind in ("fixed", "anytime", "simultaneous")),
    ("trained", {}, "memorization", {"train_id": 3, "outcome": "confidence", "level": 0.9}),
    ("trained", {"as_of": 1}, "memorization", {}),
    ("trained", {}, "influence", {"test_id": 4}),
    ("trained", {}, "influence", {"train_id": 3, "same_class": True, "outcome": "confidence"}),
    ("trained", {}, "train_influence", {"target_id": 4}),
    ("trained", {}, "train_influence", {"train_id": 3, "interval": "fixed"}),
    ("trained", {}, "counts", {"test_id": 4}),
    ("trained", {}, "counts", {"target_id": 4}),
    ("trained", {}, "counts", {}),
    ("trained", {}, "convergence", {"train_id": 3, "looks": [5, 20, 37]}),
    ("trained", {}, "top_influence", {"test_id": 3, "direction": "hurts", "k": 3}),
    ("trained", {}, "top_influence", {"test_id": 3, "direction": "both", "k": 3}),
    ("trained", {}, "membership", {"variance": "example"}),
    *(
        (name, {}, "duplicates", {"by": "influence", "min_share": 0.05, "alpha": 1.0, "k": 2})
        for name in ("trained", "published")
    ),
    ("trained", {"scores": "theirs", "assume": (4000, 0.7)}, "top_memorized", {"k": 3}),
    ("published", {}, "thumbnails", {"set_name": "train", "rows": [0, 39]}),
    ("published", {}, "thumbnails", {"set_name": "test", "rows": [7]}),
    ("published", {"as_of": 1}, "top_influence", {"test_id": 3, "k": 3}),
    ("extension", {"trust_base": True}, "memorization", {}),
    ("unseen", {}, "train_influence", {"target_id": 4}),
]

# Exponentials, logarithms and long sums: their last digits depend on the processor's vector instructions (seen
# without AVX: those of lists and pairs, in the 13th digit at most). All others are quotients and roots of counts.
LAST_DIGITS_VARY = re.compile(
    "top[-_]|pairs|duplicates|confidence|membership|lds|frontier|reliability|compare|class-influence"
)
DIGITS = 12
NUMBER = re.compile(r"-?\d+\.\d{6,}(?:e[+-]?\d+)?|-?\d+(?:\.\d+)?e-\d+")


def questions():
    """Return everything that is asked: each question's line in the file of answers, by file."""
    asked = {}
    for name, commands in COMMANDS.items():
        lines = asked.setdefault(name, {})
        for command in commands:
            line = _with_store(command, name)
            if command.split()[0] in FORMATTED:
                lines[f"$ memdb {line}"] = line
                continue
            lines[f"$ memdb {line} -f json"] = f"{line} -f json"
            if command in TABLES and name == "trained":
                lines[f"$ memdb {line}"] = line
    asked["python"] = {_as_code(*call): call for call in METHODS}
    return asked


def is_quick(line):
    """Tell whether a question is asked in every run of the tests, not only where all are run."""
    quick = {f"$ memdb {_with_store(command, 'trained')}" for command in QUICK}
    return line.removesuffix(" -f json") in quick and (
        line.endswith(" -f json") or line.split()[2] in FORMATTED
    )


def _with_store(command, name):
    trusted = " --trust-base" if name == "extension" else ""
    return command if command.startswith("compare ") else f"{command} -s {name}.zarr{trusted}"


def _as_code(name, options, method, arguments):
    opened = ", ".join([repr(f"{name}.zarr"), *(f"{key}={value!r}" for key, value in options.items())])
    return f">>> memdb.open({opened}).{method}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


# ---------------------------------------------------------------- asking


def unpack(folder):
    """Unpack the stores, and point the extension to its base's new place, which is all that is written."""
    with tarfile.open(ARCHIVE) as tar:
        tar.extractall(folder, filter="data")
    with _at_home(folder), memdb.open(str(folder / "extension.zarr"), trust_base=True) as extension:
        extension.update(str(folder / "trained.zarr"))
    np.save(folder / "attribution.npy", np.random.default_rng(3).normal(size=(N_TEST, N_TRAIN)))


@contextlib.contextmanager
def _at_home(folder):
    """Keep what is remembered of bases in the folder, too."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MEMDB_")}
    environment |= {"HOME": str(folder), "COLUMNS": "100", "MEMDB_CACHE_DIR": "none"}
    with contextlib.chdir(folder), mock.patch.dict(os.environ, environment, clear=True):
        yield


def run(command, folder):
    """Run a command line in a folder; return what it prints to stdout, and its exit code where it failed."""
    from memdb import cli

    out, code = io.StringIO(), 0
    with (
        _at_home(folder),
        mock.patch.object(sys, "argv", ["memdb", *shlex.split(command)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(io.StringIO()),  # remarks: no part of an answer
    ):
        try:
            cli.main()
        except SystemExit as done:
            code = done.code or 0
    return out.getvalue() + (f"exit code {code}\n" if code else "")


def answer(command, folder):
    """Return the answer to a command as it is written down.

    Paths below the folder of the stores are named relative to it; nothing else is replaced.
    """
    text = run(command, folder)
    arguments = shlex.split(command)
    if arguments[0] == "export":
        text += _of_file(folder / arguments[1])
    return _anywhere(text, folder)


def answers_of_methods(name, options, folder):
    """Return the answers of all methods that are called on a store opened so, by the lines of the questions."""
    found = {}
    with _at_home(folder), memdb.open(f"{name}.zarr", **options) as db:
        for line, (its_name, its_options, method, arguments) in questions()["python"].items():
            if (its_name, its_options) == (name, options):
                value = getattr(db, method)
                found[line] = _anywhere(
                    _of_method(method, value(**arguments) if callable(value) else value), folder
                )
    return found


def _anywhere(text, folder):
    return text.replace(f"{folder}/", "")


def _of_method(method, found):
    if hasattr(found, "fetchall"):  # a relation
        columns = [f"{column} {kind}" for column, kind in zip(found.columns, found.types, strict=True)]
        return "".join(f"{_line(row)}\n" for row in [columns, *found.fetchall()])
    if isinstance(found, dict):
        return "".join(f"{_line([key, values])}\n" for key, values in found.items())
    if method == "score_tables":
        found = [
            [table.number, table.name, table.coverage, table.n_memorization, table.n_influence]
            for table in found
        ]
    return f"{_line(found)}\n"


def _line(values):
    return json.dumps(
        values, default=lambda value: value.tolist() if isinstance(value, np.ndarray) else str(value)
    )


def _of_file(path):
    """Return what an exported file holds: its rows, or of each array its type, shape and hash."""
    if path.suffix == ".csv":
        return path.read_text()
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        return f"{table.schema.to_string(show_schema_metadata=False)}\n" + "".join(
            f"{_line(row)}\n" for row in table.to_pylist()
        )
    with np.load(path) as arrays:
        return "".join(f"{_of_array(name, arrays[name])}\n" for name in sorted(arrays.files))


def _of_array(name, values):
    digest = hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
    return f"{name} {values.dtype} {values.shape} sha256 {digest[:32]}"


# ---------------------------------------------------------------- answers kept


def kept(name):
    """Return the answers in a file by the line of the question."""
    parts = re.split(r"^(\$ memdb .*|>>> .*)\n", (ANSWERS / f"{name}.txt").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def write(folder):
    """Ask everything and write the answers down; those that differ in their last digits alone stay as they are."""
    ANSWERS.mkdir(exist_ok=True)
    asked = questions()
    found = {
        name: {line: answer(command, folder) for line, command in asked[name].items()} for name in COMMANDS
    }
    found["python"] = {}
    for name, options, _, _ in METHODS:
        found["python"] |= answers_of_methods(name, options, folder)
    for name, answers in found.items():
        before = kept(name) if (ANSWERS / f"{name}.txt").exists() else {}
        same = {
            line: text
            for line, text in before.items()
            if line in answers and comparable(line, text) == comparable(line, answers[line])
        }
        text = "".join(f"{line}\n{same.get(line, answers[line])}" for line in asked[name])
        (ANSWERS / f"{name}.txt").write_text(text)


def comparable(line, text):
    """Return an answer without the digits that depend on the machine; whole where $MEMDB_EVERY_DIGIT is set."""
    if os.environ.get("MEMDB_EVERY_DIGIT") or not LAST_DIGITS_VARY.search(line):
        return text
    return NUMBER.sub(lambda found: f"{float(found[0]):.{DIGITS}g}", text)
