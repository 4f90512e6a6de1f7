"""Asking again: which failures of a request may pass by themselves, and how long to wait for that."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

TRANSIENT_STATUS = {408, 409, 425, 429, 500, 502, 503, 504}  # 409: S3's conflict of two conditional writes
TRANSIENT_ERRNO = {
    errno.ECONNRESET, errno.ECONNABORTED, errno.ECONNREFUSED, errno.EPIPE, errno.ETIMEDOUT,
    errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EAGAIN,
}  # fmt: skip
TRANSIENT_TYPES = {  # by name, so that no driver is imported here
    "ClientConnectionError", "ClientPayloadError", "ServerDisconnectedError", "ServerTimeoutError",
    "HTTPClientError", "ConnectionClosedError", "EndpointConnectionError", "ConnectTimeoutError",
    "ReadTimeoutError", "ResponseStreamingError", "IncompleteReadError", "IncompleteRead",
    "ResponseParserError", "FSTimeoutError", "ServiceRequestError", "ServiceResponseError",
}  # fmt: skip
LONGEST_REQUEST = 60.0  # seconds that a server may tell us to wait
T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How often to ask in all, and the seconds of the first and the longest wait."""

    attempts: int = 7
    first: float = 0.25
    longest: float = 8.0

    def wait(self, attempt: int) -> float:
        """Return the seconds to wait after the n-th failure: full jitter, so that workers spread out."""
        return random.uniform(0, min(self.longest, self.first * 2**attempt))  # noqa: S311 - no secret


def persistently(request: Callable[[], T], patience: Patience) -> T:
    """Make a request again while it fails in a way that may pass; the last failure is raised.

    Raises:
        Exception: whatever the request raised last.
    """
    for attempt in range(patience.attempts - 1):
        try:
            return request()
        except Exception as error:
            if not is_transient(error):
                raise
            time.sleep(max(patience.wait(attempt), min(_told_to_wait(error), LONGEST_REQUEST)))
    return request()


def is_transient(error: BaseException) -> bool:
    """Tell whether a failure may pass: 429, 5xx, timeouts, connections that broke or were refused."""
    kinds = {kind.__name__ for part in _chain(error) for kind in type(part).__mro__}
    if kinds & TRANSIENT_TYPES:
        return True
    taken = isinstance(error, FileExistsError)  # of which Azure's status is 409, too
    status = None if taken else status_of(error)
    if status is not None:
        return status in TRANSIENT_STATUS
    for part in _chain(error):
        if isinstance(part, FileNotFoundError | FileExistsError | PermissionError):
            return False
        if isinstance(part, ConnectionError | TimeoutError):
            return True
        if isinstance(part, OSError) and part.errno in TRANSIENT_ERRNO:
            return True
    return False


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an error of any driver carries."""
    for part in _chain(error):
        response = getattr(part, "response", None)
        found: Any = None
        if isinstance(response, dict):
            found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        found = found or getattr(part, "status", None) or getattr(part, "status_code", None)
        found = found or getattr(part, "code", None)
        if isinstance(found, str) and found.isdecimal():
            found = int(found)
        if isinstance(found, int) and 100 <= found < 600:
            return found
    return None


def _told_to_wait(error: BaseException) -> float:
    for part in _chain(error):
        response = getattr(part, "response", None)
        headers: Any = getattr(part, "headers", None)
        if isinstance(response, dict):
            headers = response.get("ResponseMetadata", {}).get("HTTPHeaders")
        try:
            return float(headers["Retry-After"] if "Retry-After" in headers else headers["retry-after"])
        except (TypeError, KeyError, ValueError):
            continue
    return 0.0


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    part: BaseException | None = error
    while part is not None and id(part) not in seen:
        seen.add(id(part))
        yield part
        part = part.__cause__ or part.__context__
