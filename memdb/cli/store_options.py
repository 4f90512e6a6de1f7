"""Where the store is and how to get at it: options that every command with a store has, declared once."""

from __future__ import annotations

import functools
import inspect
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, get_origin, get_type_hints

import typer

from memdb.addresses import without_secrets
from memdb.cli.app import say
from memdb.cli.options import EXAMPLES
from memdb.cli.usage import WrongUsageError, typed
from memdb.errors import InvalidInputError, NotFoundError
from memdb.wording import count

if TYPE_CHECKING:
    from memdb.database import Database
    from memdb.format.manifest import Manifest
    from memdb.storage import Cache
    from memdb.store import Access

DEFAULT_STORE = "memdb.zarr"
LEAST_MEMORY = 500 * 10**6  # bytes of a process that asks, most of them stacks of threads
MOST_MEMORY = 2**60  # what every system's limits can count
NO_CACHE = "none"
KEYWORD = inspect.Parameter.KEYWORD_ONLY

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        "-s",
        envvar="MEMDB_STORE",
        metavar="URL",
        help=f"The store: a path, s3://, gs://, az://, https://, hf:// ... [default: ./{DEFAULT_STORE}]",
        show_default=False,
    ),
]
EndpointOption = Annotated[
    str | None,
    typer.Option(
        "--endpoint-url",
        metavar="URL",
        help="Another server for s3://, gs:// or az://. Credentials: the environment of their own tools.",
    ),
]
AnonymousOption = Annotated[
    bool, typer.Option("--anonymous", help="Read a public store without credentials.")
]
DriverOption = Annotated[
    list[str] | None,
    typer.Option(
        "--storage-option",
        metavar="NAME=VALUE",
        help="For the storage's fsspec driver, such as profile=lab; repeat for more.",
    ),
]
CacheDirOption = Annotated[
    str | None,
    typer.Option(
        "--cache-dir",
        envvar="MEMDB_CACHE_DIR",
        metavar="DIR",
        help=f"Keeps objects of remote stores; {NO_CACHE}: nothing is. [default: ~/.cache/memdb/objects]",
        show_default=False,
    ),
]
CacheSizeOption = Annotated[
    str,
    typer.Option("--cache-size", envvar="MEMDB_CACHE_SIZE", metavar="SIZE", help="Its limit, such as 500MB."),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust-base", help="Follow the address of the store that this one extends, now and from now on."
    ),
]
AsOfOption = Annotated[
    int | None,
    typer.Option(
        "--snapshot",
        "--as-of",
        metavar="N",
        help="Answer from the models of snapshot N, whatever was added or retracted since.",
    ),
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="MODEL_ID",
        help="Exclude a model from the answer, by its id, or `diverged` for all marked so; repeat for more.",
    ),
]
ScoresOption = Annotated[
    str | None,
    typer.Option(
        "--scores", metavar="NAME", help="Answer from imported scores instead of models; see `memdb import`."
    ),
]
AssumeModelsOption = Annotated[
    int | None,
    typer.Option(
        "--assume-models",
        metavar="N",
        help="With imported scores: intervals as if each came from N models; 4000 for published ones.",
    ),
]
AssumeFractionOption = Annotated[
    float, typer.Option("--assume-fraction", metavar="P", help="The subset fraction of those models.")
]


@dataclass(frozen=True)
class Place:
    """The options that say where a store is and how to get at it."""

    store: StoreOption = None
    endpoint_url: EndpointOption = None
    anonymous: AnonymousOption = False
    storage_option: DriverOption = None
    cache_dir: CacheDirOption = None
    cache_size: CacheSizeOption = "10GB"
    trust_base: TrustOption = False
    as_of: AsOfOption = None
    exclude: ExcludeOption = None
    scores: ScoresOption = None
    assume_models: AssumeModelsOption = None
    assume_fraction: AssumeFractionOption = 0.7
    typed: frozenset[str] = frozenset()  # those given on the command line

    @property
    def url(self) -> str:
        """The store's URL."""
        return DEFAULT_STORE if self.store is None else self.store

    @property
    def assumed(self) -> tuple[int, float] | None:
        """How many models of which fraction are assumed behind imported scores."""
        return None if self.assume_models is None else (self.assume_models, self.assume_fraction)

    @property
    def has_options(self) -> bool:
        """Whether the storage's fsspec driver gets any options."""
        return bool(self.endpoint_url is not None or self.anonymous or self.storage_option)

    def storage_options(self) -> dict[str, Any]:
        """Return the options of the storage's fsspec driver."""
        if not self.has_options:
            return {}
        if "://" not in self.url:
            raise InvalidInputError(
                f"{self.url} is a path, which takes no endpoint, no credentials and no storage options",
                hint="name a URL with --store, or omit them",
            )
        from memdb.storage import driver_options

        return {
            **driver_options(self.url, endpoint_url=self.endpoint_url, anonymous=self.anonymous),
            **_parsed(self.storage_option or []),
        }

    def options_of_base(self, url: str) -> dict[str, Any]:
        """Return the same for the store that this one extends, where it is in object storage."""
        from memdb.storage import is_object_storage

        return replace(self, store=url).storage_options() if is_object_storage(url) else {}

    def cache(self) -> Cache | None:
        """Return the cache for remote stores."""
        from memdb.storage import Cache, default_folder, local_path
        from memdb.storage.cache import n_bytes

        limit = n_bytes("--cache-size", self.cache_size)
        if self.cache_dir == NO_CACHE:
            return None
        return Cache(local_path(self.cache_dir) if self.cache_dir else default_folder(), limit)

    def has_store(self) -> bool:
        """Tell whether there is a store, though it may not be readable."""
        from memdb.format import layout
        from memdb.storage import open_storage

        try:
            open_storage(self.url, self.options_here()).read(layout.MANIFEST)
        except NotFoundError:
            return False
        return True

    def access(self, *, trusted: bool = False) -> Access:
        """Return how the store, and one that it extends, is reached."""
        from memdb.store import Access

        trusted = trusted or self.trust_base
        return Access(self.options_here(), self.options_of_base, self.cache(), trust_base=trusted)

    def options_here(self) -> dict[str, Any]:
        """Return the storage options for the store itself; those given for a path can only be its base's."""
        return self.storage_options() if "://" in self.url else {}

    def require_use_of_options(self, manifest: Manifest | None = None, others: Sequence[str] = ()) -> None:
        """Refuse options of storages where neither the store nor a base, or another, could take them."""
        from memdb.storage import is_object_storage

        if manifest is not None:
            self.require_use_of_trust(manifest)
            if manifest.base is not None:
                return
        if not any(map(is_object_storage, others)):
            self.storage_options()
        idle = [name for name in ("cache_dir", "cache_size") if name in self.typed]
        if idle and not any("://" in url for url in (self.url, *others)):
            raise WrongUsageError(
                f"--{idle[0].replace('_', '-')} is for remote stores, and {self.url} is on this disk",
                hint=f"omit it; for what predictions of local stores keep, set $MEMDB_{idle[0].upper()}",
            )

    def require_use_of_trust(self, *manifests: Manifest) -> None:
        """Refuse --trust-base where no store extends another one."""
        if "trust_base" in self.typed and all(manifest.base is None for manifest in manifests):
            raise WrongUsageError(
                "--trust-base is for a store that extends another, and none does", hint="omit it"
            )

    def open(self, *, to_write: bool = False) -> Database:
        """Open the store; who names one to write into it trusts what it extends."""
        from memdb.cli.asked import Asked
        from memdb.create import open_with
        from memdb.database import View

        view = View(self.as_of, tuple(self.exclude or ()), self.scores, self.assumed)
        opened = open_with(self.url, self.access(trusted=to_write), view, Asked)
        self.require_use_of_options(opened.store.manifest)
        return self._warned(opened)

    def _warned(self, db: Database) -> Database:
        """Say which models answers may lack, and what excluding some does to them."""
        if self.scores is None and not (db.store.published or db.store.storage.can_list) and db.snapshot:
            say(
                f"Note: {db.url} has no published.json and cannot be listed. Its newest snapshot was found "
                "by asking for one after the other: there may be newer ones, and models beyond them."
            )
        if self.exclude:
            say(
                f"Note: --exclude excludes {count(len(db.snapshot.excluded), 'model')}. Excluding models "
                "because of what they predict biases every score."
            )
        return db

    def command(self, verb: str) -> str:
        """Return a command line that does something to the same store."""
        given = {
            "--store": None if self.url == DEFAULT_STORE else self.url,
            "--endpoint-url": self.endpoint_url,
        }
        options = [f"{name} {shlex.quote(value)}" for name, value in given.items() if value is not None]
        options += ["--anonymous"] * self.anonymous
        options += [f"--storage-option {shlex.quote(item)}" for item in self.storage_option or []]
        return without_secrets(" ".join(["memdb", verb, *options]))


WRITING = ("store", "endpoint_url", "anonymous", "storage_option")  # options of a `Place`, by use
MAKING = (*WRITING, "cache_dir", "cache_size", "trust_base")
COPYING = (*WRITING[1:], "as_of")
ASKING = (*MAKING, "as_of", "exclude")
ASSUMING = ("assume_models", "assume_fraction")
SCORING = (*ASKING, "scores", *ASSUMING)


def at_place(
    names: Sequence[str] = MAKING, *, examples: Sequence[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the named options of a place, which it takes as one parameter ``place``.

    Any other parameter whose type is a class, as a rule an `OptionGroup`, stands for the options that this
    declares.
    With ``examples``, in the order of its help, a command has the options that name examples of these kinds,
    and takes them as one parameter ``examples``: what was given, by the names of `ExampleNames`.
    """
    example_names = [name for kind in examples for name in (f"{kind}_id", f"{kind}_key")]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        of_place = _options_of(Place)
        groups: dict[str, tuple[Callable[..., Any], list[inspect.Parameter]]] = {}
        own: list[inspect.Parameter] = []
        for name, parameter in signature.parameters.items():
            if name == "place":
                continue
            if name == "examples":
                groups[name] = dict, [_option(each, EXAMPLES[each], None) for each in example_names]
            elif isinstance(parameter.annotation, type):
                groups[name] = parameter.annotation, [*_options_of(parameter.annotation).values()]
            own += groups[name][1] if name in groups else [parameter.replace(kind=KEYWORD)]
        groups["place"] = Place, [of_place[name] for name in names]
        context = _option("context", typer.Context, inspect.Parameter.empty)

        @functools.wraps(command)
        def with_place(*, context: typer.Context, **given: Any) -> None:
            for name, (kind, options) in groups.items():
                given[name] = kind(**{option.name: given.pop(option.name) for option in options})
            given["place"] = replace(given["place"], typed=typed(context))
            command(**given)

        parameters = [*own, *groups["place"][1], context]
        with_place.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        with_place.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return with_place

    return decorate


@functools.cache
def _options_of(kind: type) -> dict[str, inspect.Parameter]:
    """Return the options that the attributes of a class declare, by name."""
    hints = get_type_hints(kind, include_extras=True)
    return {
        name: _option(name, hint, getattr(kind, name, inspect.Parameter.empty))
        for name, hint in hints.items()
        if get_origin(hint) is Annotated
    }


def _option(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, KEYWORD, default=default, annotation=annotation)


def _parsed(options: list[str]) -> dict[str, Any]:
    parsed: dict[str, Any] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or not name.isidentifier():
            beginning = re.split(r"\W", option, maxsplit=1)[0]  # the rest may be a secret
            raise InvalidInputError(
                f"--storage-option {beginning!r} is not NAME=VALUE", hint="write e.g. profile=lab"
            )
        words: dict[str, Any] = {"true": True, "false": False}
        parsed[name] = words.get(value.lower(), int(value) if value.isdecimal() else value)
    return parsed


def split(names: str) -> list[str]:
    """Return the names of an option that takes several, separated by commas."""
    return [name for name in map(str.strip, names.split(",")) if name]


def memory_limit(text: str) -> int:
    """Return the bytes of ``--memory``.

    Raises:
        InvalidInputError: not a size, or less than memdb itself takes.
    """
    from memdb.storage.cache import n_bytes

    limit = min(n_bytes("--memory", text), MOST_MEMORY)
    if limit < LEAST_MEMORY:
        raise InvalidInputError(
            f"--memory {text} is less than the {LEAST_MEMORY // 10**6} MB that memdb itself may take",
            hint="give more, such as --memory 1GB",
        )
    return limit
