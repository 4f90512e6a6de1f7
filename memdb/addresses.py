"""Addresses as they may be shown: passwords and tokens do not belong in terminals, logs or files."""

from __future__ import annotations

import re

HIDDEN = "***"
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/+")  # with one "/", too: a URL that was normalized as a path
ADDRESS = re.compile(rf"{SCHEME.pattern}[^\s'\"<>`]+")
QUERY = re.compile(r"(?s)(?<=[?#]).*")
SECRET = re.compile(  # in what drivers say, and among storage options
    r"(?i)\b([\w-]*(?:signature|token|password|secret|secret_access_key|credential|account_key|accountkey|api_key"
    r"|connection_string|\bsig|\bsas)=['\"]?)[^\s&'\",;)]+"
)
WEB = ("http", "https")
NAMES_A_PLACE = ("az", "abfs", "abfss")  # container@account


def shown(address: str) -> str:
    """Return an address without user name and password, and a web address without its query.

    A malformed one is hidden up to the last ``@``: it may be a password with unescaped characters.
    """
    begun = SCHEME.match(address)
    if begun is None:
        return address
    rest, scheme = address[begun.end() :], begun[0].partition(":")[0].lower()
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, at, _ = host.rpartition("@")
    if not at and re.search(r":(?!\d*$)", host.rpartition("]")[2]):  # no port: a password cut by its own "/"
        user, at, _ = rest.rpartition("@")
    if at and not (scheme in NAMES_A_PLACE and ":" not in user):
        rest = f"{HIDDEN}@{rest[len(user) + 1 :]}"
    hidden = QUERY.sub(HIDDEN, rest) if scheme in WEB else SECRET.sub(rf"\1{HIDDEN}", rest)
    return f"{begun[0]}{hidden}"


def without_secrets(text: str) -> str:
    """Return a text without the passwords and tokens of its addresses and the secrets of its options."""
    return SECRET.sub(rf"\1{HIDDEN}", ADDRESS.sub(lambda found: shown(found[0]), text))
