"""Imports run one way, and heavy packages have one home each (docs/store.md and the design say which)."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import memdb
from memdb import cli

ROOT = Path(memdb.__file__).parent
LAYERS = [  # from the bottom; a module imports modules of lower layers only
    {"addresses"},
    {"errors"},
    {"documents", "files", "layout", "plugins"},
    {"inputs", "logits", "manifest", "subsets", "bits", "products"},
    {"score_table"},
    {"published"},
    {"commits", "seeds"},
    {"store"},
    {"datasets", "query"},
    {"recipes", "returned", "interop", "thumbnails"},
    {"train", "permission"},
    {"engines"},
    {"training"},
    {"sharing"},
    {"reader"},
    {"assessing"},
    {"database"},
    {"stores"},
    {"joining"},
    {"render"},
    {"cli"},
]
INSIDE = {  # the same within a package
    "store": [
        {"cache", "retries", "encoding", "naming", "stated"},
        {"failures", "tally", "web", "buckets"},
        {"storage"},
        {"local", "remote", "timing", "reading"},
        {"places", "examples", "ledger", "parts", "completing", "scores"},
        {"snapshot", "history"},
        {"taking"},
        {"bases", "publication", "derived", "thumbnails"},
        {"store"},
        {"damages", "compaction", "cleaning", "retraction", "extending", "exclusion"},
        {"part_verification"},
        {"copy_verification"},
        {"verification"},
        {"repair", "merging", "freezing"},
        {""},
    ],
    "query": [
        {
            "",
            "lazy",
            "forms",
            "intervals",
            "examples",
            "columns",
            "results",
            "ranking",
            "sieve",
            "statements",
        },
        {"confidences", "sieve_sums", "sieve_torch"},
        {"counting", "pair_parts"},
        {"pairs"},
        {"totals"},
        {"connection"},
        {
            "lists",
            "precision",
            "pair_scores",
            "lds",
            "membership",
            "planning",
            "convergence",
            "reliability",
            "classes",
        },
        {"stored", "strongest"},
        {"questions", "pair_files"},
        {"score_tables"},
        {"comparison"},
        {"listing"},
    ],
    "interop": [
        {"", "arrays"},
        {"runs"},
        {"survey", "score_files"},
        {"importing"},
        {"score_import", "exporting"},
    ],
    "recipes": [
        {"protocol", "devices", "identity", "options", "pictures"},
        {"augmentation", "memory"},
        {"batches", "signals", "scikit"},
        {"mlp_program", "grouped"},
        {"cnn_program", "resnet9_program", "torchvision_program"},
        {"mlp", "cnn", "resnet9", "architectures"},
        {""},
    ],
    "engines": [{"request", "script", "work"}, {"serving", "ray"}, {"local"}, {""}],
    "sharing": [{"", "readme", "imported"}, {"deriving"}, {"publish"}, {"pull"}],
    "render": [{"", "answer"}, {"tables", "pictures", "curves"}, {"progress", "assessments"}],
    "cli": [
        {"streams", "usage"},
        {"app", "options", "place", "supervision"},
        {"training"},
        {"showing"},
        {"demo", "asking", "assessing", "interop", "keeping", "pairs", "joining", "sharing"},
        {"making"},
        {""},
    ],
}
HOMES = {
    "torch": {
        "recipes.mlp_program",
        "recipes.grouped",
        "recipes.cnn_program",
        "recipes.resnet9_program",
        "recipes.torchvision_program",
        "recipes.pictures",
        "recipes.augmentation",
        "recipes.batches",
        "recipes.signals",
        "recipes.devices",
        "query.sieve_torch",
    },
    "numkong": {"products"},
    "ray": {"engines.ray"},
    "torchvision": {"datasets", "recipes.torchvision_program", "recipes.pictures"},
    "sklearn": {"datasets"},
    "PIL": {"datasets", "thumbnails"},
    "zarr": {"store.encoding", "store.reading", "store.stated"},
    "numcodecs": {"store.stated"},
    "fsspec": {"store.places", "store.web"},
    "aiohttp": {"store.web"},
    "s3fs": {"store.buckets"},
    "duckdb": {
        "query.connection",
        "query.pair_scores",
        "query.precision",
        "query.score_tables",
        "query.planning",
        "query.results",
        "query.statements",
        "reader",
        "assessing",
        "cli.showing",
        "cli.assessing",
    },
    "matplotlib": {"render.curves"},
    "rich": {"render.tables", "render.pictures", "render.progress", "render.curves", "render.assessments"},
    "typer": {
        "cli.app",
        "cli.options",
        "cli.place",
        "cli.making",
        "cli.asking",
        "cli.assessing",
        "cli.pairs",
        "cli.interop",
        "cli.keeping",
        "cli.joining",
        "cli.showing",
        "cli.sharing",
        "cli.usage",
    },
}
ONLY_FOR_TYPES = {
    ("duckdb", "reader"), ("duckdb", "assessing"), ("duckdb", "cli.showing"), ("duckdb", "cli.assessing"),
    ("rich", "cli.showing"), ("rich", "cli.assessing"),
}  # fmt: skip
LOADED_BY_ONE_TEST = {
    "torch", "torchvision", "sklearn", "scipy", "statsmodels", "matplotlib",
    "moto", "s3fs", "gcsfs", "adlfs", "ray",
}  # fmt: skip


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), path


@functools.cache
def imports_of(path, *, with_types=True):
    return tuple(_imports(path, with_types))


def _imports(path, with_types):
    tree = ast.parse(path.read_text())
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING" and not with_types:
            skipped |= {id(child) for part in node.body for child in ast.walk(part)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(name, layers):
    return next((rank for rank, names in enumerate(layers) if name in names), None)


def test_a_module_imports_only_what_lies_below_it():
    found = [problem for module, path in modules() if module for problem in misplaced(module, path)]
    assert found == []


def misplaced(module, path):
    package, _, inner = module.partition(".")
    rank, own = layer_of(package, LAYERS), layer_of(inner, INSIDE.get(package, []))
    if rank is None or (package in INSIDE and own is None):
        yield f"{module} stands in no layer"
        return
    for imported in imports_of(path):
        if not imported.startswith("memdb."):
            continue
        other, _, rest = imported.removeprefix("memdb.").partition(".")
        if other != package:
            if layer_of(other, LAYERS) >= rank:
                yield f"{module} imports {imported}"
        elif package in INSIDE:
            names = {name for layer in INSIDE[package] for name in layer}
            target = rest.split(".")[0] if rest.split(".")[0] in names else ""
            if inner == target or inner.endswith("_program"):  # a program names its options' type
                continue
            if layer_of(target, INSIDE[package]) > own:
                yield f"{module} imports {imported}"


def test_a_heavy_package_is_imported_at_home_only():
    away = [
        f"{module} imports {heavy}"
        for module, path in modules()
        for heavy in {name.split(".")[0] for name in imports_of(path, with_types=False)} & HOMES.keys()
        if module not in HOMES[heavy] or (heavy, module) in ONLY_FOR_TYPES
    ]
    assert away == []


def test_tests_load_heavy_packages_when_one_needs_them():
    """Every worker imports every test file before its first test."""
    away = [
        f"{path.name} loads {package}"
        for path in sorted(Path(__file__).parent.rglob("*.py"))
        for package in loaded_at_once(path)
        if package in LOADED_BY_ONE_TEST
    ]
    assert away == []


def loaded_at_once(path):
    """The packages that a file imports, or asks pytest to import, as it is imported itself."""
    for statement in ast.parse(path.read_text("utf-8")).body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield str(node.module).split(".")[0]
            elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "importorskip":
                yield str(node.args[0].value).split(".")[0]


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import memdb", {"torch", "zarr", "duckdb", "pyarrow", "typer", "numpy"}),
        ("import memdb.cli", {"torch", "zarr", "duckdb", "pyarrow", "sklearn"}),
        ("import memdb; memdb.open", {"torch", "torchvision", "sklearn", "pandas", "typer", "numkong"}),
    ],
)
def test_importing_loads_nothing_that_is_not_used(statement, absent):
    code = f"import sys\n{statement}\nprint(*{absent!r}.intersection(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_no_query_imports_torch(digits_store):
    code = (
        "import sys\nfrom memdb.cli import application\napp = application()\n"
        "try: app(['top-influence', '--test-id', '4', '--store', sys.argv[1]])\n"
        "except SystemExit as done: assert not done.code\n"
        "assert not {'torch', 'torchvision', 'sklearn', 'numkong'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(digits_store)], check=True, capture_output=True)


def test_pairs_on_the_cpu_import_no_torch(digits_store):
    code = (
        "import sys\nfrom memdb.cli import application\napp = application()\n"
        "try: app(['pairs', '--top', '3', '--device', 'cpu', '--store', sys.argv[1]])\n"
        "except SystemExit as done: assert not done.code\n"
        "assert 'numkong' in sys.modules\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(digits_store)], check=True, capture_output=True)


def test_no_file_grows_past_a_screenful_of_ideas():
    lengths = {module: len(path.read_text().splitlines()) for module, path in modules()}
    assert {module: n for module, n in lengths.items() if n > 430} == {}


def test_every_command_is_found_by_its_module():
    application = cli.application()
    here = {command.callback.__module__: set() for command in application.registered_commands}
    for command in application.registered_commands:
        name = command.name or command.callback.__name__.replace("_", "-")
        here[command.callback.__module__].add(name)
    assert here == {f"memdb.cli.{module}": set(names) for module, names in cli.COMMANDS.items()}


def test_every_package_is_installed():
    listed = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    here = {".".join(("memdb", *path.parent.relative_to(ROOT).parts)) for path in ROOT.rglob("__init__.py")}
    assert set(listed) == here | {"memdb.schemas"}
