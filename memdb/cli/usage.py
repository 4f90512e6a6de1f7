"""Wrong usage: options whose value is not a number, empty, given twice or without effect.

Every command is a `CarefulCommand`, so that one place reads what was typed, whatever the option.
"""

from __future__ import annotations

import math
import os
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import typer
from typer.core import TyperCommand

from memdb.cli.effects import EFFECTS
from memdb.errors import InvalidInputError
from memdb.render.answer import FORMATS, SUFFIXES

STORAGE = ("endpoint_url", "anonymous", "storage_option", "cache_dir", "cache_size", "trust_base")
TYPED = "COMMANDLINE"  # Typer's name for the source of a value that is neither a default nor from a variable
MOST = 2**64  # no count and no seed is larger, and databases take none that is
VALUE = r"""\([^)]*\)|\[[^]]*\]|"[^"]*"(?:,? or "[^"]*")*|[^\s,;]*"""  # of an argument in a text
LONGEST = 60  # characters of a value that an error shows
OPTIONS = {  # of the parameters of Python that are not called as their options are
    "as_of": "--snapshot",
    "assume": "--assume-models {} --assume-fraction {}",
    "class_name": "--class",
    "k": "-k",
    "max_seconds": "--max-time",
    "recipe_options": "--recipe-option",
    "url": "--store",
}
PLAIN_NUMBER = re.compile(r"[+-]?([0-9]{1,18}(\.[0-9]{1,18})?|\.[0-9]{1,18})")
NUMBERS = {"integer": ("a whole number", "20"), "number": ("a number", "0.5"), "float": ("a number", "0.5")}


def in_options(text: str, parameters: Sequence[str]) -> str:
    """Return a text of the library with options in place of the parameters that it names.

    Those are every `level=0.95` or, without one, the first `level` that no article makes a plain word, nor
    brackets an extra of a package.
    """
    for name in parameters:
        option = OPTIONS.get(name, f"--{name.replace('_', '-')}")
        text, n_given = re.subn(rf"(?<![\w./-]){name}=({VALUE})", partial(_typed_as, option), text)
        if not n_given:
            text = re.sub(
                rf"(?<![\w./[-])(?<!\bthe )(?<!\ba )(?<!\bno ){name}(?![\w=/-]|\.\w)", option, text, count=1
            )
    return text


def _typed_as(option: str, given: re.Match[str]) -> str:
    """Return an argument of a call as an option: its value without the brackets and quotes of Python."""
    value = re.sub(r'"(\S*?)"', r"\1", given[1])
    if value.startswith("("):
        return option.format(*value.strip("()").split(", "))
    return option if value == "True" else f"{option} {value.strip('[]')}"


class WrongUsageError(InvalidInputError):
    """The command line is malformed or contradicts itself: exit code 2."""


class CarefulCommand(TyperCommand):
    """A command that refuses options which it would misread or ignore, and has a help without repetitions."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, which convert plain values themselves."""
        return [converting_plain_values(parameter) for parameter in super().get_params(ctx)]

    def get_short_help_str(self, limit: int = 45) -> str:  # noqa: ARG002 - as the base class has it
        """Return the first sentence of the help, whole: a list of commands has lines enough."""
        first = " ".join((self.help or "").split("\n\n", 1)[0].split())
        return re.split(r"(?<=[.]) ", first, maxsplit=1)[0]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options; those for storages, which nearly every command has, by their names alone."""
        every, of_storage = self.params, [p for p in self.params if p.name in STORAGE]
        self.params = [p for p in self.params if p.name not in STORAGE]
        try:
            super().format_options(ctx, formatter)
        finally:
            self.params = every
        if of_storage:
            with formatter.section("Storage options, explained by `memdb help storage`"):
                text, room = ", ".join(map(called, of_storage)), formatter.width - formatter.current_indent
                lines = textwrap.wrap(text, room, break_on_hyphens=False)  # which are in names
                formatter.write("".join(f"{'':{formatter.current_indent}}{line}\n" for line in lines))

    def storage_help(self, parent: Any) -> str:
        """Return the help of the options for storages; ``parent`` is the context of the whole program."""
        ctx = self.make_context(self.name, [], parent=parent, resilient_parsing=True)
        formatter = ctx.make_formatter()
        formatter.write_text(
            "How to reach a store that is not on this disk. Every command with --store has those of these "
            "options that it can use."
        )
        with formatter.section("Storage options"):
            records = [p.get_help_record(ctx) for p in self.params if p.name in STORAGE]
            formatter.write_dl([record for record in records if record is not None])
        return str(formatter.getvalue())

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse a command line.

        Raises:
            WrongUsageError: a value that is empty, no number or not finite; an option given twice or of no
                effect; more arguments than it takes.
        """
        values, extra, order = self.make_parser(ctx).parse_args(list(args))
        if "help" not in values:
            _require_once(order)
            _require_text(order, values)
            if extra and not ctx.resilient_parsing:
                raise _one_too_many(ctx.info_name, self.params, values, extra)
        try:
            rest = super().parse_args(ctx, args)
        except typer.BadParameter as error:
            value = None if error.param is None else _wrong_number(error.param, values)
            if value is None:
                raise
            raise _unlike(error.message, called(error.param), value) from error
        for parameter in order:
            _require_finite(called(parameter), ctx.params.get(parameter.name), values.get(parameter.name))
        _require_variables(ctx, self.params)
        _require_effect(ctx, self.params)
        return rest


def converting_plain_values(parameter: Any) -> Any:
    """Return a parameter that converts what needs no more than a look; what it doubts is left to Typer.

    To convert any value, even a default, Typer imports pydantic: a sixth of what a question takes.
    """
    kind = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    is_limited = getattr(parameter, "min", None) is not None or getattr(parameter, "max", None) is not None
    if kind is None or "process_value" in vars(parameter) or parameter.required or is_limited:
        return parameter
    convert = parameter.process_value

    def process_value(ctx: Any, value: Any) -> Any:
        if value is None:
            value = () if parameter.multiple or parameter.nargs == -1 else None
        elif kind in {int, float} and isinstance(value, str) and PLAIN_NUMBER.fullmatch(value):
            try:
                value = kind(value)
            except ValueError:  # 0.5 is not a whole number
                return convert(ctx, value)
        elif type(value) is not kind:
            return convert(ctx, value)
        return value if parameter.callback is None else parameter.callback(ctx, parameter, value)

    parameter.process_value = process_value
    return parameter


def typed(ctx: typer.Context) -> frozenset[str]:
    """Return the names of the parameters given on the command line."""
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    return frozenset(name for name, source in sources.items() if source is not None and source.name == TYPED)


def called(parameter: Any) -> str:
    """Return how a parameter is typed: --level, or STATEMENT."""
    options = [name for name in parameter.opts if name.startswith("-")]
    return max(options, key=len) if options else str(parameter.metavar or parameter.name.upper())


def shown(value: object) -> str:
    """Return a value as an error shows it: quoted, and not longer than a line."""
    text = str(value)
    return repr(text) if len(text) <= LONGEST else f"{text[:LONGEST]!r}... ({len(text):,} characters)"


def _each(value: Any) -> Iterator[Any]:
    if value is not None:
        yield from value if isinstance(value, list | tuple) else (value,)


def _require_once(order: Sequence[Any]) -> None:
    """Refuse a second value where only the last one would count."""
    seen = set()
    for parameter in order:
        if parameter.name in seen and not parameter.multiple and not getattr(parameter, "is_flag", False):
            raise WrongUsageError(f"{called(parameter)} is given twice", hint="give it once")
        seen.add(parameter.name)


def _require_text(order: Sequence[Any], values: Mapping[str, Any]) -> None:
    """Refuse values without a character: of a shell's variable that is not set, as a rule."""
    for parameter in order:
        for value in _each(values.get(parameter.name)):
            if not isinstance(value, str):
                continue
            if not value.strip():
                raise WrongUsageError(
                    f"{called(parameter)} is empty",
                    hint="give a value; if it comes from a shell variable, that one is not set",
                )
            if any("\ud800" <= char <= "\udfff" for char in value):  # bytes that are not UTF-8
                raise WrongUsageError(
                    f"{called(parameter)} {shown(value)} is not UTF-8", hint="name it in UTF-8"
                )


def _one_too_many(
    command: str | None, parameters: Sequence[Any], values: Mapping[str, Any], extra: Sequence[str]
) -> WrongUsageError:
    """Return the error for more arguments than a command takes: one may be a name that an option takes."""
    arguments = [parameter for parameter in parameters if parameter.param_type_name == "argument"]
    taken = " and ".join(map(called, arguments)) or "no argument"
    words = [word for argument in arguments for word in _each(values.get(argument.name))] + [*extra]
    meant = [f"{called(option)} {word}" for word in words for option in parameters if _names(option, word)]
    other = "put text with spaces in quotes" if arguments else "name the option that it is for, as in --help"
    return WrongUsageError(
        f"{command} takes {taken}, and {shown(extra[0])} is one too many",
        hint=f"write {meant[0]}" if meant else other,
    )


def _names(option: Any, word: object) -> bool:
    """Whether a word is among the names in the help of an option, such as `helps, hurts, or both`."""
    listed = rf"(^|[,;] |\bor ){re.escape(str(word))}(?=[,;:.]| or\b|$)"
    is_option, is_name = option.param_type_name == "option", str(word)[:1].isalpha()
    return is_option and is_name and bool(re.search(listed, option.help or ""))


def _wrong_number(parameter: Any, values: Mapping[str, Any]) -> str | None:
    """Return the first value given for a numeric option that is not a number."""
    texts = [str(value) for value in _each(values.get(parameter.name))]
    return next((text for text in texts if not text.strip("-").isdecimal()), texts[0] if texts else None)


def _unlike(message: str, name: str, value: str) -> WrongUsageError:
    """Return the error for a value that is not of its option's kind."""
    for word, (kind, example) in NUMBERS.items():
        if word in message:
            return WrongUsageError(
                f"{name} {shown(value)} is not {kind}", hint=f"give one, such as {name} {example}"
            )
    return WrongUsageError(f"{name} {shown(value)} is not valid: {message.rstrip('.')}", hint="see --help")


def _require_finite(name: str, value: Any, given: Any) -> None:
    for number, text in zip(_each(value), _each(given), strict=False):
        if isinstance(number, float) and not math.isfinite(number):
            raise WrongUsageError(
                f"{name} {shown(text)} is not a finite number", hint="give one, such as 0.5"
            )
        if isinstance(number, int) and abs(number) >= MOST:
            raise WrongUsageError(f"{name} {shown(text)} is out of range", hint="give a smaller number")


def _require_variables(ctx: typer.Context, parameters: Sequence[Any]) -> None:
    """Refuse an empty environment variable, which Typer takes for one that is not set."""
    given = typed(ctx)
    for parameter in parameters:
        variable = parameter.envvar
        if isinstance(variable, str) and parameter.name not in given:
            value = os.environ.get(variable)
            if value is not None and not value.strip():
                raise WrongUsageError(
                    f"${variable} is empty", hint=f"set it, or unset it, or give {called(parameter)}"
                )


def _require_effect(ctx: typer.Context, parameters: Sequence[Any]) -> None:
    """Refuse an option that has an effect only with another one, which is not there."""
    given = typed(ctx)
    names = {parameter.name: called(parameter) for parameter in parameters}
    for effect in EFFECTS:
        idle = given.intersection(effect.options) if effect.command in {"", ctx.info_name} else ()
        if idle and not effect.present(ctx.params):
            name = names[min(idle)]
            raise WrongUsageError(f"{name} does nothing without {effect.company}", hint=f"omit {name}")
    if {"format", "output"} <= given:
        kind, suffix = ctx.params["format"], ctx.params["output"].suffix.lower()
        if kind in FORMATS and suffix in SUFFIXES and suffix[1:] != {"spreadsheet": "csv"}.get(kind, kind):
            raise WrongUsageError(
                f"--format {kind} contradicts --output {ctx.params['output']}, whose suffix says the format",
                hint="omit --format, or name a file with another suffix",
            )
