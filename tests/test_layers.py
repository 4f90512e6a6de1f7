"""Imports run one way, and heavy packages have one home each."""

from __future__ import annotations

import ast
import collections
import functools
import graphlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from support import TESTS

import memdb
from memdb import cli

ROOT = Path(memdb.__file__).parent
ROOMS = [  # folders and files at the top, from the bottom; a room imports from rooms of lower floors only
    {"addresses", "environment", "wording"},
    {"errors"},
    {"files", "plugins"},
    {"format", "render"},
    {"storage"},
    {"store"},
    {"datasets", "query"},
    {"analysis", "recipes", "interop"},
    {"permission", "training", "sharing"},
    {"experiment"},
    {"look"},
    {"database"},
    {"create"},
    {"combine"},
    {"cli"},
    {"__main__"},
]
HOMES = {
    "torch": {
        "recipes.descent_triton",
        "recipes.mlp_torch",
        "recipes.torch_modules",
        "recipes.grouped",
        "recipes.cnn_torch",
        "recipes.resnet9_torch",
        "recipes.resnet9_v2_torch",
        "recipes.spectral",
        "recipes.torchvision_torch",
        "recipes.images",
        "recipes.augmentation",
        "recipes.batches",
        "recipes.signals",
        "recipes.sketch_torch",
        "recipes.devices",
        "recipes.precision",
        "query.pairs.kernel_torch",
        "query.informed.products_torch",
    },
    "numkong": {"query.pairs.popcount", "query.informed.products"},
    "ray": {"training.engines.ray"},
    "triton": {"recipes.descent_triton"},
    "torchvision": {"datasets", "recipes.torchvision_torch", "recipes.images"},
    "sklearn": {"datasets"},
    "scipy": {"analysis.near_duplicates.lookalikes"},
    "PIL": {
        "analysis.near_duplicates.lookalikes",
        "datasets",
        "look.notebook",
        "render.graphics",
        "render.sheets",
        "sharing.thumbnails",
    },
    "zarr": {"store.encoding", "store.read_arrays", "store.stated"},
    "numcodecs": {"store.stated"},
    "aiohttp": {"storage.web"},
    "s3fs": {"storage.buckets"},
    "fsspec": {"storage.urls", "storage.web"},
    "duckdb": {
        "query.relations",
        "query.informed.relations",
        "query.pairs.scores",
        "training.half_width",
        "query.imported_scores",
        "experiment.report",
        "query.results",
        "query.statements",
        "look.notebook",
        "database",
        "cli.output",
        "cli.analyze",
        "cli.attribution",
    },
    "matplotlib": {
        "render.curves",
        "render.drawing",
        "render.frontier",
        "render.removal",
        "look.figures",
        "database",
        "cli.show",
    },
    "rich": {
        "render.tables",
        "render.fitted",
        "render.images",
        "render.progress",
        "render.curves",
        "render.drawing",
        "render.analysis",
        "render.removal",
        "render.duplicates",
        "render.attribution",
        "render.frontier",
        "look.terminal",
    },
    "typer": {
        "cli.app",
        "cli.options",
        "cli.store_options",
        "cli.train",
        "cli.query",
        "cli.analyze",
        "cli.planning",
        "cli.pairs",
        "cli.duplicates",
        "cli.interop",
        "cli.maintain",
        "cli.combine",
        "cli.output",
        "cli.share",
        "cli.look",
        "cli.show",
        "cli.experiment",
        "cli.usage",
        "cli.attribution",
    },
}
LOADED_BY_ONE_TEST = {
    "torch", "torchvision", "sklearn", "scipy", "statsmodels", "matplotlib",
    "imagehash", "moto", "s3fs", "gcsfs", "adlfs", "ray",
}  # fmt: skip
IN_A_PROCESS_OF_THEIR_OWN = {"simulated_device.py", "on_a_simulated_device.py"}
ONLY_FOR_TYPES = {
    ("duckdb", "database"), ("duckdb", "cli.output"), ("duckdb", "cli.analyze"),
    ("duckdb", "cli.attribution"), ("duckdb", "look.notebook"), ("matplotlib", "database"), ("matplotlib", "cli.show"),
    ("rich", "cli.output"), ("rich", "cli.analyze"), ("rich", "cli.planning"),
}  # fmt: skip


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), path


@functools.cache
def imports_of(path, *, with_types=True):
    return tuple(_imports(path, with_types))


@functools.cache
def tree_of(path):
    return ast.parse(path.read_text("utf-8"))


def _imports(path, with_types):
    tree = tree_of(path)
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


def room(module):
    return module.partition(".")[0]


def own_imports():
    """What each module imports of memdb, as modules."""
    known = {module for module, _ in modules()}
    for module, path in modules():
        for imported in imports_of(path):
            if imported.startswith("memdb."):
                name = imported.removeprefix("memdb.")
                yield module, name if name in known else name.rpartition(".")[0]


def test_a_room_imports_only_from_rooms_that_lie_below_it():
    floor = {room: number for number, rooms in enumerate(ROOMS) for room in rooms}
    rooms = {room(module) for module, _ in modules()} - {""}  # the package itself names its public parts
    assert rooms == set(floor)
    upwards = [
        f"{module} imports {other}"
        for module, other in own_imports()
        if module and room(module) != room(other) and floor[room(other)] >= floor[room(module)]
    ]
    assert upwards == []


def test_no_module_imports_one_that_imports_it():
    below = collections.defaultdict(set)
    for module, other in own_imports():
        below[module].add(other)
    graphlib.TopologicalSorter(below).prepare()  # names the cycle where there is one


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
        for path in sorted(TESTS.rglob("*.py"))
        if path.name not in IN_A_PROCESS_OF_THEIR_OWN
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
        (
            "from memdb.cli import application; application()",
            {"numpy", "torch", "zarr", "duckdb", "pyarrow", "sklearn"},
        ),
        ("import memdb; memdb.open", {"torch", "torchvision", "sklearn", "pandas", "typer", "numkong"}),
        ("import memdb.interop.import_runs, memdb.interop.formats", {"pyarrow", "duckdb", "torch"}),
    ],
)
def test_importing_loads_nothing_that_is_not_used(statement, absent):
    code = f"import sys\n{statement}\nprint(*{absent!r}.intersection(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_neither_a_query_nor_pairs_on_the_cpu_import_torch(digits_store):
    code = (
        "import sys\nfrom memdb.cli import application\napp = application()\n"
        "try: app(['top-influence', '--test-id', '4', '--store', sys.argv[1]])\n"
        "except SystemExit as done: assert not done.code\n"
        "assert not {'torch', 'torchvision', 'sklearn', 'numkong'} & set(sys.modules)\n"
        "rooms = {name.split('.')[1] for name in sys.modules if name.startswith('memdb.')}\n"
        "assert not {'recipes', 'training', 'sharing', 'interop', 'analysis', 'combine'} & rooms\n"
        "try: app(['pairs', '--top', '3', '--device', 'cpu', '--store', sys.argv[1]])\n"
        "except SystemExit as done: assert not done.code\n"
        "assert 'numkong' in sys.modules\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(digits_store)], check=True, capture_output=True)


@pytest.mark.slow
def test_a_question_that_numpy_answers_imports_no_database(digits_store):
    code = (
        "import sys\nfrom memdb.cli import application\napp = application()\n"
        "for words in ('top-memorized', 'top-influence --test-id 0', 'score --train-id 0 --test-id 0'):\n"
        "    try: app([*words.split(), '--level', '.9', '-s', sys.argv[1]])\n"
        "    except SystemExit as done: assert not done.code\n"
        "    assert not {'duckdb', 'pydantic', 'pandas'} & set(sys.modules), words"
    )
    subprocess.run([sys.executable, "-c", code, str(digits_store)], check=True, capture_output=True)


@pytest.mark.slow
def test_answers_do_not_import_pandas(digits_store, tmp_path):
    code = (
        "import sys\nfrom memdb.cli import application\napp = application()\n"
        "asked = ['info', 'plan --half-width .1', 'reliability', 'pairs --top 3', 'top-memorized']\n"
        "asked += [f'top-memorized -f {kind}' for kind in ('csv', 'ndjson', 'line')]\n"
        "asked += ['top-memorized -o list.parquet', 'pairs --top 3 -o pairs.parquet']\n"
        "for words in asked:\n"
        "    try: app([*words.split(), '--store', sys.argv[1]])\n"
        "    except SystemExit as done: assert not done.code\n"
        "    assert 'pandas' not in sys.modules, words"
    )
    command = [sys.executable, "-c", code, str(digits_store)]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)


def test_no_file_grows_past_a_screenful_of_ideas():
    lengths = {module: len(path.read_text().splitlines()) for module, path in modules()}
    assert {module: n for module, n in lengths.items() if n > 420} == {
        "database": lengths["database"]
    }  # a method a verb


def test_every_command_is_found_by_its_module():
    application = cli.application()
    here = {command.callback.__module__: set() for command in application.registered_commands}
    for command in application.registered_commands:
        name = command.name or command.callback.__name__.replace("_", "-")
        here[command.callback.__module__].add(name)
    for group in application.registered_groups:
        for command in group.typer_instance.registered_commands:
            here.setdefault(command.callback.__module__, set()).add(group.typer_instance.info.name)
    assert here == {f"memdb.cli.{module}": set(names) for module, names in cli.COMMANDS.items()}


def test_the_list_of_commands_says_what_their_own_help_does():
    whole = typer.main.get_command(cli.application())
    for names in cli.COMMANDS.values():
        for name, summary in names.items():
            assert whole.commands[name].get_short_help_str(limit=200) == summary


@pytest.mark.parametrize(("words", "own"), [("--help", []), ("score --help", ["query"])])
def test_help_loads_the_module_of_its_command_alone(words, own):
    code = (
        "import atexit, sys\nfrom memdb.cli import COMMANDS, main\n"
        "atexit.register(lambda: print(*(name for name in COMMANDS if f'memdb.cli.{name}' in sys.modules)))\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words.split()], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1].split() == own


def test_every_package_is_installed():
    listed = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    here = {".".join(("memdb", *path.parent.relative_to(ROOT).parts)) for path in ROOT.rglob("__init__.py")}
    assert set(listed) == here | {"memdb.schemas"}
