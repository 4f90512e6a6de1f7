"""Retries: which failures are transient, and how long to wait before the next attempt."""

from __future__ import annotations

import errno
import random
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from memdb.errors import MemdbError

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
TIMEOUT_TYPES = {"TimeoutError", "FSTimeoutError", "ConnectTimeoutError", "ReadTimeoutError"}
FOR_GOOD = {"ClientSSLError", "ClientConnectorCertificateError", "ServerFingerprintMismatch"}
LONGEST_REQUEST = 60.0  # seconds that a server may tell us to wait
MOST_SILENCES = 2  # a server that stays silent on a retry is not asked a third time
LARGEST = 16 << 20  # bytes of an object whose size is not known
T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How often a request is made, and how long it may take. Times are in seconds.

    Attributes:
        attempts: how many at most.
        first: the first wait between two attempts.
        longest: the longest wait.
        connect: until there is a connection.
        silence: without an answer, or with less than ``floor`` brings in that time.
        answer: for the first object, all attempts together, and for small ones ever after.
        floor: bytes per second that each of many objects gets on the slowest supported line.
        listing: for a listing, which may have many pages.
        notice: until waiting is logged.
    """

    attempts: int = 7
    first: float = 0.25
    longest: float = 8.0
    connect: float = 10.0
    silence: float = 10.0
    answer: float = 20.0
    floor: float = 8_000.0
    listing: float = 300.0
    notice: float = 2.0

    def wait(self, attempt: int) -> float:
        """Return the seconds to wait after the n-th failure: full jitter, so that workers spread out."""
        return random.uniform(0, min(self.longest, self.first * 2**attempt))  # noqa: S311 - no secret

    def limit(self, n_bytes: int | None) -> float:
        """Return the seconds that an object of this size may take."""
        return self.answer + (LARGEST if n_bytes is None else n_bytes) / self.floor


def persistently(
    request: Callable[[float], T], patience: Patience, limit: float, may_ask_to_wait: float = 0.0
) -> T:
    """Make a request, and retry it after transient failures; the last failure is raised.

    Args:
        request: called with the seconds that it may take.
        patience: how often, and how long between.
        limit: seconds for all of it.
        may_ask_to_wait: seconds beyond that, if the server asks clients to wait.

    Raises:
        Exception: whatever the request raised last.
    """
    end, attempt, n_silences = time.monotonic() + limit, 0, 0
    while True:
        try:
            return request(end - time.monotonic())
        except Exception as error:
            attempt += 1
            told = told_to_wait(error)
            granted = min(told, may_ask_to_wait)
            may_ask_to_wait, end = may_ask_to_wait - granted, end + granted
            wait = max(patience.wait(attempt - 1), told)
            n_silences += is_timeout(error)
            exhausted = attempt >= patience.attempts or n_silences >= MOST_SILENCES
            if exhausted or not is_transient(error) or time.monotonic() + wait >= end:
                raise
            time.sleep(wait)


def is_timeout(error: BaseException) -> bool:
    """Tell whether a request timed out."""
    return any(kind.__name__ in TIMEOUT_TYPES for part in chain(error) for kind in type(part).__mro__)


def is_transient(error: BaseException) -> bool:
    """Tell whether a failure is transient: 429, 5xx, timeouts, connections broken or refused."""
    kinds = {kind.__name__ for part in chain(error) for kind in type(part).__mro__}
    for_good = kinds & FOR_GOOD or is_unknown_host(error)
    if for_good or kinds & TRANSIENT_TYPES:
        return not for_good
    taken = isinstance(error, FileExistsError)  # of which Azure's status is 409, too
    status = None if taken else status_of(error)
    if status is not None:
        return status in TRANSIENT_STATUS
    for part in chain(error):
        if isinstance(part, FileNotFoundError | FileExistsError | PermissionError):
            return False
        if isinstance(part, ConnectionError | TimeoutError):
            return True
        if isinstance(part, OSError) and part.errno in TRANSIENT_ERRNO:
            return True
    return False


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an error of any driver carries."""
    for part in chain(error):
        response = getattr(part, "response", None)
        status: Any = None
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        for name in ("status", "status_code", "code"):  # one after the other: some are deprecated
            status = getattr(part, name, None) if status is None else status
        if isinstance(status, str) and status.isdecimal():
            status = int(status)
        if isinstance(status, int) and 100 <= status < 600:
            return status
    return None


def told_to_wait(error: BaseException) -> float:
    """Return the seconds that a server asks to wait (``Retry-After``), 0 if it does not."""
    for part in chain(error):
        response = getattr(part, "response", None)
        headers: Any = getattr(part, "headers", None)
        if isinstance(response, dict):
            headers = response.get("ResponseMetadata", {}).get("HTTPHeaders")
        try:
            told = float(headers["Retry-After"] if "Retry-After" in headers else headers["retry-after"])
        except (TypeError, KeyError, ValueError):
            continue
        return min(told, LONGEST_REQUEST) if told > 0 else 0.0
    return 0.0


def is_unknown_host(error: BaseException) -> bool:
    """Tell whether a host does not exist; a failed look-up does not count."""
    return any(isinstance(part, socket.gaierror) and part.errno != socket.EAI_AGAIN for part in chain(error))


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, but not the failure of an earlier request."""
    seen: set[int] = set()
    part: BaseException | None = error
    while part is not None and id(part) not in seen and not isinstance(part, MemdbError):
        seen.add(id(part))
        yield part
        part = part.__cause__ or part.__context__
