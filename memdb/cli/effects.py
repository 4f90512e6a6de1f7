"""Options that do something only in company: a table, by which `usage` refuses them elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from memdb.render.answer import SUFFIXES

Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class Effect:
    """Options that do something only in company, and are refused elsewhere."""

    options: tuple[str, ...]
    company: str  # in words, as one types it
    present: Callable[[Parameters], bool]
    command: str = ""  # the only one that this is true of


def _is(name: str, *values: object) -> Callable[[Parameters], bool]:
    return lambda given: given[name] in values


def _is_not(name: str, *values: object) -> Callable[[Parameters], bool]:
    return lambda given: given[name] not in values


def _has_files(given: Parameters) -> bool:
    return given["extend"] is not None or given["dataset"] not in {None, "digits"}


def _is_seen(given: Parameters) -> bool:
    return given["output"] is None and given["format"] == "table"


def _has_pictures(given: Parameters) -> bool:
    is_file_of_numbers = given["output"] is not None and given["output"].suffix.lower() in SUFFIXES
    return given["format"] == "table" and not is_file_of_numbers


DOWNLOADED = ("mnist", "fashion-mnist", "cifar10", "cifar100")  # by torchvision
SETTINGS = (
    "endpoint_url",
    "anonymous",
    "storage_option",
    "cache_dir",
    "cache_size",
    "trust_base",
)  # of a read
OF_INTERVALS = ("half_width", "kind", "settle", "threshold", "k", "n_ranked", "interval")
EXAMPLES = tuple(f"{kind}_{name}" for kind in ("train", "test", "target") for name in ("id", "key"))
OF_SCORES = ("memorization", "pairs", "fz-pairs", "fz-classes")
EFFECTS = (
    Effect(
        ("interval",), "--estimator raw: predictions have their own", _is("estimator", "raw"), "top-influence"
    ),
    Effect(("interval",), "--estimator raw: predictions have their own", _is("estimator", "raw"), "pairs"),
    Effect(
        ("order", "fdr", "ranks"), "tests of all pairs, not --screen", _is("screen", None), "top-influence"
    ),
    Effect(("assume_fraction",), "--assume-models", _is_not("assume_models", None)),
    Effect(("task_cpus", "task_gpus"), "--ray", _is_not("ray", None)),
    Effect(("cache_size",), "a cache, which --cache-dir none goes without", _is_not("cache_dir", "none")),
    Effect(
        (*OF_INTERVALS, *EXAMPLES, "subset_fraction"),
        "a plan for intervals, which --lds is not",
        _is("lds", None),
        "plan",
    ),
    Effect(
        (*OF_INTERVALS, *EXAMPLES, "subset_fraction", "lds", "level", "outcome"),
        "a plan for scores, which --sketches is not",
        _is("sketches", None),
        "plan",
    ),
    Effect(("k",), "--interval selected", _is("interval", "selected"), "plan"),
    Effect(
        ("n_ranked",),
        "--interval selected or simultaneous",
        _is("interval", "selected", "simultaneous"),
        "plan",
    ),
    Effect(
        (*SETTINGS, "as_of", "exclude", "kind", "settle", "threshold", "outcome"),
        "a store, and --subset-fraction reads none",
        _is("subset_fraction", None),
        "plan",
    ),
    Effect(("trust_base", "cache_dir", "cache_size"), "--extend", _is_not("extend", None), "init"),
    Effect(("data_root",), "a --dataset that is kept in files", _has_files, "init"),
    Effect(("download",), f"--dataset {', '.join(DOWNLOADED)}", _is("dataset", *DOWNLOADED), "init"),
    Effect(("sketch_size",), "--sketches", _is_not("sketches", None), "init"),
    Effect(("sketch_size",), "--sketch", _is_not("sketch", None), "train"),
    Effect(("data_root",), "--dataset", _is_not("dataset", None), "import"),
    Effect(("name",), "a data set that is not loaded by --dataset", _is("dataset", None), "import"),
    Effect(("level",), "--what memorization, pairs or ids", _is("what", *OF_SCORES[:2], "ids"), "export"),
    Effect(
        ("outcome",),
        "--what memorization, pairs, fz-pairs or ids",
        _is("what", *OF_SCORES[:3], "ids"),
        "export",
    ),
    Effect(
        ("scores", "assume_models", "assume_fraction"),
        f"--what {', '.join(OF_SCORES)}, ids",
        _is("what", *OF_SCORES, "ids"),
        "export",
    ),
    Effect(("rows",), "--by influence", _is("by", "influence"), "gallery"),
    Effect(("max_distance",), "--by content", _is("by", "all", "content"), "duplicates"),
    Effect(
        ("dataset", "data_root"),
        "--by content or pictures",
        lambda given: given["by"] in {"all", "content"} or _has_pictures(given),
        "duplicates",
    ),
    Effect(("graphics",), "a terminal, which --output and --format have no use for", _is_seen, "duplicates"),
    Effect(("min_similarity",), "--by sketches", _is("by", "all", "sketches"), "duplicates"),
    Effect(
        ("min_influence", "min_share", "alpha"),
        "--by influence",
        _is("by", "all", "influence"),
        "duplicates",
    ),
    *(
        Effect(options, company, present, command)
        for command in ("show", "gallery", "label-errors")
        for options, company, present in (
            (("graphics",), "a terminal, which --output and --format have no use for", _is_seen),
            (
                ("dataset", "data_root"),
                "pictures, which numbers for programs have none of",
                _has_pictures,
            ),
        )
    ),
    Effect(
        ("pilots", "tests"),
        "an estimator",
        lambda given: bool(given["estimator"]) or len(given["scores"] or ()) != 1,
        "lds",
    ),
    Effect(
        ("k",),
        "one file alone, whose test examples are listed",
        lambda given: len(given["scores"] or ()) == 1 and not given["estimator"],
        "lds",
    ),
    Effect(
        ("data_root",),
        "--include thumbnails",
        lambda given: "thumbnails" in (given["include"] or ()),
        "publish",
    ),
)
