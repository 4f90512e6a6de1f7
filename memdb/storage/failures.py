"""Exceptions of a disk or driver, explained: what happened, and what to do about it."""

from __future__ import annotations

import errno
from http import HTTPStatus

from memdb.addresses import without_secrets
from memdb.storage.retry import chain, is_timeout, status_of, told_to_wait

TRY_AGAIN = "check the address and your access, then try again; what was committed is safe"
NETWORK = "check the address and your network, then try again; what was committed is safe"
WORDS = {  # by name, so that no driver is imported here
    "TooManyRedirects": "the server redirects endlessly",
    "RedirectClientError": "the server redirects to something that is not a web address",
    "ClientConnectorCertificateError": "its certificate is not valid for that host",
    "ClientSSLError": "no secure connection could be made",
    "SSLError": "no secure connection could be made, or its certificate is not valid",
    "gaierror": "its host was not found",
    "ServerDisconnectedError": "the server closed the connection without an answer",
    "ClientPayloadError": "the answer was cut off",
    "InvalidURL": "the address is malformed",
}


class DriverFailed(Exception):  # noqa: N818 - the situation, as in memdb.errors
    """Stands in for a driver's exception whose traceback would show a password or a token."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"{type(error).__name__}: {without_secrets(str(error))}")
        self.status = status_of(error)


def showable(error: Exception) -> Exception:
    """Return an exception that a traceback may show as the cause: the same, unless it shows a secret."""
    texts = [str(part) for part in chain(error)]
    return error if texts == list(map(without_secrets, texts)) else DriverFailed(error)


def said(error: Exception) -> str:
    """Return what happened, as the rest of a sentence."""
    names = {kind.__name__ for part in chain(error) for kind in type(part).__mro__}
    refused = any(isinstance(part, OSError) and part.errno == errno.ECONNREFUSED for part in chain(error))
    status = status_of(error)
    match error:
        case _ if names & set(WORDS):
            return next(text for name, text in WORDS.items() if name in names)
        case _ if is_timeout(error):
            return "the server did not answer, or too slowly"
        case _ if refused:
            return "the connection was refused"
        case _ if status is not None and "ClientResponseError" in names:  # others say it better themselves
            return f"the server answered {_status(status)}{_wait_wanted(error)}"
        case OSError(strerror=str(text)) if text and "ClientConnectorError" not in names:
            return text
        case _:
            return str(error).splitlines()[0] if str(error) else type(error).__name__


def advice(error: Exception) -> str:
    """Return what to do about it."""
    status = status_of(error)
    match error:
        case PermissionError():
            return "get access to it, or use another place"
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return "free some space and run the command again; what was committed is safe"
        case _ if "credentials" in str(error).lower():
            return "set the credentials of this storage's own tools, or pass anonymous for a public store"
        case _ if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            return "get access to it, or check the address: some servers say so of missing objects"
        case _ if status is None and (is_timeout(error) or isinstance(error, ConnectionError)):
            return NETWORK
        case _:
            return TRY_AGAIN


def _status(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _wait_wanted(error: Exception) -> str:
    seconds = told_to_wait(error)
    return f" and asks to wait {seconds:.0f} s" if seconds else ""
