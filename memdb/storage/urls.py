"""From a path or URL to the storage behind it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from memdb.addresses import shown
from memdb.environment import install
from memdb.errors import InvalidInputError, MemdbError
from memdb.storage.cache import Cache
from memdb.storage.failures import said, showable
from memdb.storage.local import LocalStorage
from memdb.storage.protocol import CONCURRENCY, Storage
from memdb.storage.retry import Patience

EXTRAS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "az": "azure",
    "abfs": "azure",
    "abfss": "azure",
}
RETRYING = {"gcs", "azure"}  # whose clients do so on their own, with no way to turn it off
LOCAL = {"file", "local"}
WEB = {"http", "https"}
PROTOCOLS = {*LOCAL, *EXTRAS, *WEB, "hf", "memory"}
DRIVERS = {"hf": "huggingface_hub"}
USE = "use a path, s3://, gs://, az://, memory://, hf:// or https://"
CREDENTIALS = "set the credentials that this storage's own tools use"
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(::|:(?://)?)")


def protocol_of(url: str) -> str:
    """Return the protocol of an address; a path is a file.

    Raises:
        InvalidInputError: the address is malformed or not supported.
    """
    problem = _problem(url)
    if problem is not None:
        raise InvalidInputError(f"{_named(url)} {problem[0]}", hint=problem[1])
    return urlsplit(url).scheme if _is_url(url) else "file"


def is_object_storage(url: str) -> bool:
    """Tell whether a URL is in object storage, which takes an endpoint and credentials."""
    return protocol_of(url) in EXTRAS


def whereabouts(url: str) -> str:
    """Return a canonical address: the real path of a folder, or the URL."""
    return str(local_path(url).resolve()) if protocol_of(url) in LOCAL else url.rstrip("/")


def local_path(address: str) -> Path:
    """Return the absolute path of a path or a file:// URL.

    Raises:
        InvalidInputError: another address, or the home of an unknown user.
    """
    if protocol_of(address) not in LOCAL:
        raise InvalidInputError(f"{_named(address)} is not on a local disk", hint="name a path")
    path = address.partition("://")[2].removeprefix("localhost") if _is_url(address) else address
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise InvalidInputError(
            f"{address} begins with a user who has no home here", hint="write the path in full"
        ) from error


def open_storage(
    url: str,
    options: Mapping[str, Any] | None = None,
    cache: Cache | None = None,
    patience: Patience | None = None,
) -> Storage:
    """Return the storage behind a path or URL; nothing is read or written yet.

    Raises:
        InvalidInputError: the address is malformed or not supported, or its driver is not installed.
    """
    if not url.strip():
        raise InvalidInputError("the address of a store is empty", hint="give a path or a URL")
    protocol = protocol_of(url)
    if protocol in LOCAL:
        return LocalStorage(local_path(url), url, derived=cache)
    from memdb.storage import remote  # noqa: PLC0415 - a folder need not wait for its imports

    extra = EXTRAS.get(protocol)
    patience = patience or remote.PATIENCE
    if extra in RETRYING:
        patience = replace(patience, attempts=1)
    filesystem, root = _opened(protocol, url, options or {}, patience)
    if extra == "s3":
        filesystem.retries = 1
    return remote.RemoteStorage(
        filesystem,
        root.rstrip("/"),
        shown(url.partition("?")[0]) if protocol in WEB else shown(url),
        protocol,
        cache=None if protocol == "memory" else cache,
        patience=patience,
    )


def _opened(protocol: str, url: str, options: Mapping[str, Any], patience: Patience) -> tuple[Any, str]:
    """Return the file system of a driver, and the store's path in it."""
    extra = EXTRAS.get(protocol)
    try:
        given = {"use_listings_cache": False, **_limited(protocol, options, patience)}
        return _driver(protocol, url, given)
    except ImportError as error:
        command = install(extra) if extra else f"pip install '{DRIVERS.get(protocol, str(error))}'"
        raise InvalidInputError(
            f"the driver for {protocol}:// of {shown(url)} is not installed",
            hint=f"run: {command}",
        ) from error
    except MemdbError:
        raise
    except Exception as error:  # noqa: BLE001 - each driver raises what it likes
        raise InvalidInputError(
            f"{shown(url)} cannot be opened: {said(error).rstrip('.!')}",
            hint="check its credentials and options" if extra else USE,
        ) from showable(error)


def driver_options(url: str, *, endpoint_url: str | None = None, anonymous: bool = False) -> dict[str, Any]:
    """Return the options of a URL's driver for an endpoint and for access without credentials.

    Raises:
        InvalidInputError: the protocol has no such options.
    """
    protocol = protocol_of(url)
    extra = EXTRAS.get(protocol)
    if extra is None and (endpoint_url or anonymous):
        raise InvalidInputError(
            f"{url} takes no endpoint and no credentials",
            hint="leave endpoint_url and anonymous to s3://, gs:// and az://",
            parameter=("endpoint_url", "anonymous"),
        )
    options: dict[str, Any] = {}
    if endpoint_url and "://" in endpoint_url and protocol_of(endpoint_url) not in WEB:
        raise InvalidInputError(
            f"{endpoint_url} is not a web address", hint="write e.g. https://s3.example.org"
        )
    if endpoint_url:
        options |= (
            {"account_host": _host_of(endpoint_url)} if extra == "azure" else {"endpoint_url": endpoint_url}
        )
    if anonymous:
        options |= {"token": "anon"} if extra == "gcs" else {"anon": True}
    return options


def _host_of(endpoint_url: str) -> str:
    """Return an endpoint as Azure's driver expects it, without ``https://``."""
    if endpoint_url.startswith("http://"):
        raise InvalidInputError(
            f"az:// is not reached over {endpoint_url}: its driver takes https:// alone",
            hint="put it in AZURE_STORAGE_CONNECTION_STRING, as BlobEndpoint=...",
        )
    return endpoint_url.removeprefix("https://").rstrip("/")


def _is_url(address: str) -> bool:
    return "://" in address and not address.startswith(("/", ".", "~"))


def _named(address: str) -> str:
    """Return a malformed address for an error message, with unprintable characters escaped."""
    text = shown(address)
    return text if text.isprintable() and text.strip() == text != "" else repr(text)


def _problem(address: str) -> tuple[str, str] | None:
    """Return what is wrong with an address, and what to do about it."""
    scheme = SCHEME.match(address)
    host = re.split(r"[/?#]", address.partition("://")[2], maxsplit=1)[0]
    odd = [c for c in address if ord(c) < 32 or ord(c) == 127] + [c for c in host if c.isspace()]
    if not address.strip() or "\0" in address:
        what = "it contains a NUL" if address.strip() else "it is empty"
        return f"is not an address: {what}", "name a path or a URL"
    if odd and not _is_url(address):
        return "is not a path: it contains control characters", "name a path without them"
    if not _is_url(address):
        typo = scheme and scheme[1].lower() in PROTOCOLS - LOCAL
        return ("is neither a path nor a URL", f"write {scheme[1].lower()}://") if scheme and typo else None
    if odd:
        return "is not a URL: it contains white space or control characters", "write them as %20 and so on"
    if scheme is None or scheme[2] != "://" or scheme[1] not in PROTOCOLS:
        return "is not an address that memdb can read", USE
    return _problem_of_host(address, scheme[1])


def _problem_of_host(address: str, protocol: str) -> tuple[str, str] | None:
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port  # which looks at it
    except ValueError as error:
        return (
            f"is not a URL: {_plain(error)}",
            "check the address, and write special characters as %23 and so on",
        )
    has_password = parts.password is not None and protocol in {*EXTRAS, "hf"}
    match protocol:
        case "file" | "local" if parts.netloc not in {"", "localhost"}:
            return f"is on the machine {parts.netloc}", "write the path alone, or file:///path"
        case _ if has_password:
            return "holds a password, which its driver takes from elsewhere", CREDENTIALS
        case _ if protocol in EXTRAS and not parts.netloc:
            return "names no bucket", f"write e.g. {protocol}://bucket/mnist.zarr"
        case _ if protocol in {*WEB, "hf"} and not host:
            return "names no host", f"write e.g. {protocol}://example.org/mnist.zarr"
        case _:
            return None


def _plain(error: ValueError) -> str:
    """Return what is wrong with a malformed host, without repeating what may be a password."""
    return "its port is not a number up to 65535" if "ort" in str(error) else "its host is malformed"


def _driver(protocol: str, url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """Return an fsspec file system, and its path for the URL."""
    if protocol in WEB:
        from memdb.storage.web import WebFileSystem  # noqa: PLC0415 - others need not wait for its imports

        return WebFileSystem(**options), url.partition("#")[0]
    if EXTRAS.get(protocol) == "s3":
        from memdb.storage.buckets import BucketFileSystem  # noqa: PLC0415 - need not be installed

        return BucketFileSystem(**options), str(BucketFileSystem._strip_protocol(url))  # noqa: SLF001 - fsspec's way
    if EXTRAS.get(protocol) != "gcs":
        import fsspec  # noqa: PLC0415 - nor for these

        return fsspec.core.url_to_fs(url, **options)  # type: ignore[no-any-return]
    # the one that fsspec finds asks before each request what kind of bucket it is, which few may ask
    from gcsfs.core import GCSFileSystem  # noqa: PLC0415 - need not be installed

    return GCSFileSystem(**options), str(GCSFileSystem._strip_protocol(url))  # noqa: SLF001 - fsspec's way


def _limited(protocol: str, options: Mapping[str, Any], patience: Patience) -> dict[str, Any]:
    """Add time limits, and turn off the retries of S3's client: two policies together wait for minutes."""
    match EXTRAS.get(protocol, protocol):
        case "s3":
            config = {
                "retries": {"total_max_attempts": 1, "mode": "standard"},
                "max_pool_connections": CONCURRENCY,
                "connect_timeout": patience.connect,
                "read_timeout": patience.silence,
            }
            config |= options.get("config_kwargs", {})
            # one stream an object: with more, s3fs asks for the size of each before it reads it
            return {"patience": patience, "max_concurrency": 1, **options, "config_kwargs": config}
        case "gcs":
            from memdb.storage.web import timeouts  # noqa: PLC0415 - others need not wait for its imports

            return {"session_kwargs": {"timeout": timeouts(patience)}, **options}
        case "azure":
            return {
                "connection_timeout": patience.connect, "read_timeout": patience.silence, **options
            }  # fmt: skip
        case "http" | "https":
            return {"patience": patience, **options}
        case _:
            return dict(options)
