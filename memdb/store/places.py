"""From a path or URL to the storage behind it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec

from memdb.errors import InvalidInput
from memdb.store.cache import Cache
from memdb.store.local import LocalStorage
from memdb.store.remote import RemoteStorage
from memdb.store.retries import Patience
from memdb.store.storage import CONCURRENCY, Storage

EXTRAS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "az": "azure",
    "abfs": "azure",
    "abfss": "azure",
}
LOCAL = {"file", "local"}
DRIVERS = {"hf": "huggingface_hub"}
CONNECT_SECONDS = 15
ONCE = Patience(attempts=1)  # Google's and Azure's clients ask again themselves, and cannot be told not to


def protocol_of(url: str) -> str:
    """Return the protocol of a URL; a path is a file."""
    return urlsplit(url).scheme if "://" in url else "file"


def is_object_storage(url: str) -> bool:
    """Tell whether a URL is in one, which takes an endpoint and credentials."""
    return protocol_of(url) in EXTRAS


def whereabouts(url: str) -> str:
    """Return one name for a place, however it is written: the real path of a folder, or the URL."""
    if protocol_of(url) in LOCAL:
        return str(Path(url.split("://", 1)[-1]).expanduser().resolve())
    return url.rstrip("/")


def open_storage(url: str, options: Mapping[str, Any] | None = None, cache: Cache | None = None) -> Storage:
    """Return the storage behind a path or URL; nothing is read or written yet.

    Raises:
        InvalidInput: a protocol that fsspec does not know, or whose driver is not installed.
    """
    protocol = protocol_of(url)
    if protocol in LOCAL:
        return LocalStorage(Path(url.split("://", 1)[-1]).expanduser().absolute(), url)
    try:
        given = {"use_listings_cache": False, **_retried_here(protocol, options or {})}
        filesystem, root = _driver(protocol, url, given)
    except ImportError as error:
        package = f"memdb[{EXTRAS[protocol]}]" if protocol in EXTRAS else DRIVERS.get(protocol, str(error))
        raise InvalidInput(
            f"the driver for {protocol}:// of {url} is not installed", hint=f"run: pip install '{package}'"
        ) from error
    except (ValueError, TypeError) as error:
        raise InvalidInput(
            f"{url} cannot be opened: {str(error).rstrip('.!')}",
            hint="check its credentials and options"
            if protocol in EXTRAS
            else "use a path, s3://, gs://, az://, memory:// or https://",
        ) from error
    if protocol in EXTRAS and not root.strip("/"):
        raise InvalidInput(f"{url} names no bucket", hint=f"write e.g. {protocol}://bucket/mnist.zarr")
    if EXTRAS.get(protocol) == "s3":
        filesystem.retries = 1
    return RemoteStorage(
        filesystem,
        root.rstrip("/"),
        url,
        protocol,
        cache=None if protocol == "memory" else cache,
        patience=ONCE if EXTRAS.get(protocol) in {"gcs", "azure"} else None,
    )


def driver_options(url: str, *, endpoint_url: str | None = None, anonymous: bool = False) -> dict[str, Any]:
    """Return what the driver of a URL calls its endpoint and access without credentials.

    Raises:
        InvalidInput: this protocol has no such thing.
    """
    protocol = protocol_of(url)
    extra = EXTRAS.get(protocol)
    if extra is None and (endpoint_url or anonymous):
        raise InvalidInput(
            f"{url} takes no endpoint and no credentials",
            hint="leave --endpoint-url and --anonymous to s3://, gs:// and az://",
        )
    options: dict[str, Any] = {}
    if endpoint_url:
        options |= (
            {"account_host": _host_of(endpoint_url)} if extra == "azure" else {"endpoint_url": endpoint_url}
        )
    if anonymous:
        options |= {"token": "anon"} if extra == "gcs" else {"anon": True}
    return options


def _host_of(endpoint_url: str) -> str:
    """Return an endpoint as Azure's driver wants it, which puts ``https://`` before it."""
    if endpoint_url.startswith("http://"):
        raise InvalidInput(
            f"az:// is not reached over {endpoint_url}: its driver takes https:// alone",
            hint="put it in AZURE_STORAGE_CONNECTION_STRING, as BlobEndpoint=...",
        )
    return endpoint_url.removeprefix("https://").rstrip("/")


def _driver(protocol: str, url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """Return an fsspec file system, and what it calls the place behind the URL."""
    if EXTRAS.get(protocol) != "gcs":
        return fsspec.core.url_to_fs(url, **options)  # type: ignore[no-any-return]
    # the one that fsspec finds asks before each request what kind of bucket it is, which few may ask
    from gcsfs.core import GCSFileSystem  # noqa: PLC0415 - need not be installed

    return GCSFileSystem(**options), str(GCSFileSystem._strip_protocol(url))  # noqa: SLF001 - fsspec's way


def _retried_here(protocol: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Keep S3's client from retrying as well: two policies in one another wait for minutes."""
    if EXTRAS.get(protocol) != "s3":
        return dict(options)
    config = {
        "retries": {"total_max_attempts": 1, "mode": "standard"},
        "max_pool_connections": CONCURRENCY,
        "connect_timeout": CONNECT_SECONDS,
    }
    # one stream an object: with more, s3fs asks for the size of each before it reads it
    return {"max_concurrency": 1, **options, "config_kwargs": {**config, **options.get("config_kwargs", {})}}
