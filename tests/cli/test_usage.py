"""Wrong usage, from tables that the commands themselves fill: no option is taken and ignored, none is misread."""

from __future__ import annotations

import functools

import pytest
from support.commands import run
from typer.main import get_command

from memdb import cli
from memdb.cli.effects import EFFECTS
from memdb.cli.usage import WrongUsageError, called

NO_NUMBERS = ["abc", "1.5.2", "nan", "inf", "-inf", "1e400", "9" * 5000, "\u202eabc\u0663x", "0x10", "1 2"]
NO_WHOLE_NUMBERS = ["1.5", "1e26", "-0.5"]
EMPTY = ["", " ", "\t\n"]
NO_UTF8 = ["\udcff", "caf\udce9"]
WORDS = ["abc", "-1", "nan", "1e400", "x" * 5000, "\u202eabc\x1b[31m", "\u0130\u200d\U0001f9ea"]


@functools.cache
def commands():
    return get_command(cli.application()).commands


def valued(name):
    return [p for p in commands()[name].params if not getattr(p, "is_flag", False)]


def typed(name, parameter, value):
    """A command line in which one parameter has a value, and all that are required have one."""
    options, arguments = [], []
    for other in commands()[name].params:
        text = value if other is parameter else "x"
        if other.param_type_name == "argument":
            arguments.append(text)
        elif other.required or other is parameter:
            options += [called(other), text]
    return [*options, "--", *arguments]


def parsed(name, arguments):
    return commands()[name].make_context(name, list(arguments)).params


def is_number(parameter):
    return any(kind in str(parameter.type_descriptor.annotation) for kind in ("int", "float"))


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    for variable in ("STORE", "DATA_ROOT", "CACHE_DIR", "CACHE_SIZE", "CHECKPOINT_DIR"):
        monkeypatch.delenv(f"MEMDB_{variable}", raising=False)


@pytest.mark.parametrize("name", sorted(commands()))
def test_a_wrong_value_is_refused_by_its_option_and_itself(name):
    for parameter in valued(name):
        wrong = EMPTY + NO_UTF8
        if is_number(parameter):
            whole = "float" not in str(parameter.type_descriptor.annotation)
            wrong = wrong + NO_NUMBERS + NO_WHOLE_NUMBERS * whole
        for value in wrong:
            with pytest.raises(WrongUsageError) as refused:
                parsed(name, typed(name, parameter, value))
            said = str(refused.value)
            assert called(parameter) in said
            assert value[:40].strip() in said or repr(value)[1:40].rstrip("'") in said
            assert len(said) < 200
            assert refused.value.hint


@pytest.mark.parametrize("name", sorted(commands()))
def test_any_word_is_parsed_or_refused_with_what_to_do(name):
    for parameter in valued(name):
        for value in WORDS:
            try:
                parsed(name, typed(name, parameter, value))
            except WrongUsageError as refused:
                assert called(parameter) in str(refused)


@pytest.mark.parametrize("name", sorted(commands()))
def test_an_option_given_twice_is_refused_where_one_would_win(name):
    for parameter in valued(name):
        if parameter.param_type_name == "option" and not parameter.multiple:
            with pytest.raises(WrongUsageError, match=f"^{called(parameter)} is given twice"):
                parsed(name, [called(parameter), "1", *typed(name, parameter, "1")])


@pytest.mark.parametrize("variable", ["", "  "])
@pytest.mark.parametrize("name", ["info", "train", "cache"])
def test_an_empty_variable_is_not_one_that_is_not_set(monkeypatch, name, variable):
    for parameter in commands()[name].params:
        if parameter.envvar:
            with monkeypatch.context() as here:
                here.setenv(parameter.envvar, variable)
                with pytest.raises(WrongUsageError, match=rf"\${parameter.envvar} is empty"):
                    parsed(name, [])
                parsed(name, typed(name, parameter, "x"))  # the option wins


def test_every_rule_is_about_options_that_there_are():
    for effect in EFFECTS:
        names = [effect.command] if effect.command else list(commands())
        there = {p.name for name in names for p in commands()[name].params}
        assert there.issuperset(effect.options)


USAGE = [
    (["top-memorized", "-k", "many"], "-k 'many' is not a whole number. Give one, such as -k 20."),
    (["top-memorized", "--level", "nan"], "--level 'nan' is not a finite number"),
    (["top-memorized", "--assume-fraction", "-1"], "--assume-fraction does nothing without --assume-models"),
    (["info", "-o", "x.csv", "-f", "json"], "--format json contradicts --output x.csv"),
    (["info", "-o", "x.csv", "-f", "table"], "--format table contradicts --output x.csv"),
    (["info", "--cache-size", "5MB"], "--cache-size is for remote stores, and store.zarr is on this disk"),
    (["info", "--cache-dir", "x"], "--cache-dir is for remote stores"),
    (["info", "--cache-dir", "none", "--cache-size", "5MB"], "does nothing without a cache"),
    (["info", "--trust-base"], "--trust-base is for a store that extends another"),
    (["compare", "store.zarr", "store.zarr", "--trust-base"], "--trust-base is for"),
    (["compare", "store.zarr", "store.zarr", "--cache-size", "1GB"], "--cache-size is for remote stores"),
    (["plan", "--n-ranked", "1e26"], "--n-ranked '1e26' is not a whole number"),
    (["plan", "--n-ranked", "100"], "--n-ranked does nothing without --interval selected or simultaneous"),
    (["plan", "-k", "5"], "-k does nothing without --interval selected"),
    (["plan", "--subset-fraction", "0.5", "--settle", "0.5"], "--settle does nothing without a store"),
    (["plan", "--subset-fraction", "0.5", "--snapshot", "1"], "--snapshot does nothing without a store"),
    (["train", "--task-gpus", "1"], "--task-gpus does nothing without --ray"),
    (["train", "--task-cpus", "1"], "--task-cpus does nothing without --ray"),
    (["init", "--trust-base"], "--trust-base does nothing without --extend"),
    (["init", "--data-root", "x"], "--data-root does nothing without a --dataset that is kept in files"),
    (["init", "--download", "-d", "imagefolder"], "--download does nothing without --dataset mnist"),
    (["export", "x.npz", "--what", "models", "--outcome", "confidence"], "--outcome does nothing without"),
    (["export", "x.npz", "--what", "fz-pairs", "--level", "0.9"], "--level does nothing without"),
    (["export", "x.npz", "--what", "lira", "--scores", "fz"], "--scores does nothing without"),
    (["import", "x.npz", "-d", "digits", "--name", "x"], "--name does nothing without a data set that is"),
    (["import", "x.npz", "--data-root", "x"], "--data-root does nothing without --dataset"),
    (["publish", "x", "--data-root", "y"], "--data-root does nothing without --include thumbnails"),
    (["compare", "store.zarr", ""], "B is empty. Give a value; if it comes from a shell variable"),
    (["info", "--store", " "], "--store is empty"),
    (["pull", "store.zarr", ""], "DEST is empty"),
    (["retract", "abcdef", "--because", "bad \udcff"], "is not UTF-8"),
]  # fmt: skip
REFUSED = [
    (["compare", "store.zarr", "store.zarr", "--endpoint-url", "http://x"], "store.zarr is a path"),
    (["merge", "store.zarr", "-s", "x.zarr", "--endpoint-url", "http://x"], "x.zarr is a path"),
    (["publish", "x", "--endpoint-url", "http://x"], "store.zarr is a path"),
    (["publish", "x", "--dest-endpoint-url", "http://x"], "x is a path"),
    (["pull", "store.zarr", "x", "--endpoint-url", "http://x"], "store.zarr is a path"),
    (["compare", "store.zarr", "store.zarr", "--assume-models", "9"], "--assume-models is for imported scores"),
    (["top-memorized", "--assume-models", "9"], "has models, and nothing is assumed of them"),
    (["membership", "-k", "0"], "-k 0 is not a number from 1"),
    (["plan", "--interval", "selected", "--n-ranked", f"{10**16}"], "is more than any data set has scores"),
    *((["top-memorized", "-k", k], f"-k {k} is not a number from 1") for k in ("0", "-1", f"{2**63}")),
    *((["top-memorized", "--level", p], f"the level {p} is not between 0 and 1") for p in ("0", "1", "1.5")),
    (["top-memorized", "--class", "x" * 9000], "... (9,00"),
    (["cache", "--cache-dir", "x" * 9000], " characters): File name too long. Name another place."),
    (["lds", "x" * 9000], "File name too long"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "says", "code"),
    [(*case, 2) for case in USAGE] + [(*case, 1) for case in REFUSED],
    ids=lambda v: " ".join(map(ascii, v))[:60] if isinstance(v, list) else "",
)
def test_what_would_be_ignored_or_misread_is_one_line(trained, command, says, code):
    before = sorted(trained.parent.rglob("*"))
    named = (
        {"pull", "merge", "init", "compare"}.intersection(command) or "-s" in command or "--store" in command
    )
    done = run(*command, cwd=trained.parent, **({} if named else {"MEMDB_STORE": "store.zarr"}))
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert says in line
    assert (done.returncode, done.stdout) == (code, "")
    assert len(line) < 500
    assert sorted(trained.parent.rglob("*")) == before


def test_help_is_given_whatever_else_was_typed(trained):
    done = run("top-memorized", "-k", "", "--help", cwd=trained.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--interval KIND" in done.stdout


def test_rows_that_were_asked_for_are_those_that_are_written(trained, tmp_path):
    done = run("membership", "-k", 3, "-s", trained, "-o", tmp_path / "x.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 1 + 3
    done = run("membership", "-s", trained, "-o", tmp_path / "x.csv", cwd=tmp_path)
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 1 + 23


def test_pairs_are_exported_of_the_outcome_that_was_asked_for(trained, tmp_path):
    written = {}
    for outcome in ("correct", "confidence"):
        path = tmp_path / f"{outcome}.csv"
        options = ("--what", "pairs", "--top", 1, "--outcome", outcome)
        done = run("export", path, *options, "-s", trained, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        written[outcome] = path.read_text().splitlines()[0]
    assert "k_in" in written["correct"]
    assert "k_in" not in written["confidence"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["export", "ids", "x.csv"], "export takes PATH, and 'x.csv' is one too many. Write --what ids."),
        (
            ["top-influence", "hurts"],
            "takes no argument, and 'hurts' is one too many. Write --direction hurts.",
        ),
        (["sql", "SELECT", "1"], "takes STATEMENT, and '1' is one too many. Put text with spaces in quotes."),
        (["score", "7"], "and '7' is one too many. Name the option that it is for, as in --help."),
    ],
)
def test_an_argument_too_many_is_refused_with_what_it_may_be_meant_as(arguments, said, tmp_path):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
