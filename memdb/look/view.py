"""A page of any store, served to this machine alone: numbers, lists and pictures are made when asked for."""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property, lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from numpy.typing import NDArray

from memdb.datasets.appearance import LONGEST_TEXT
from memdb.errors import InvalidInputError, MemdbError, NotFoundError
from memdb.look.contents import NO_LISTS, contents_of
from memdb.look.document import document_around_data
from memdb.look.partners import Finder
from memdb.look.site import strip_of
from memdb.query.intervals import require_level
from memdb.query.relations import Relations
from memdb.render.sheets import TILES, ShownOf, WordsOf

HOST = "127.0.0.1"
HELD_LISTS, HELD_SHEETS = 256, 256
LONGEST_PATH, LONGEST_NUMBER = 500, 10  # characters
JSON, BYTES, HTML = "application/json", "application/octet-stream", "text/html; charset=utf-8"

Answer = tuple[str, bytes]  # media type, body


class Viewer:
    """What the page of a store may ask for, by path. Threads take turns: a store's relations serve one."""

    def __init__(self, relations: Relations, level: float, pictures: Mapping[str, ShownOf]) -> None:
        """Prepare; the first view is counted at once, all else when it is asked for."""
        require_level(level)
        self._relations = relations
        self._pictures = {  # of one reader at a time, who may have all of a text
            name: replace(those, longest=LONGEST_TEXT) if isinstance(those, WordsOf) else those
            for name, those in pictures.items()
        }
        contents = contents_of(relations, level, pictures).with_lists(
            NO_LISTS
        )  # they are made when asked for
        self._contents = replace(contents, facts={**contents.facts, "bits": None, "pair_sheets": False})
        self._lock = threading.Lock()
        self._found = lru_cache(maxsize=HELD_LISTS)(self._lists_of)
        self._sheet = lru_cache(maxsize=HELD_SHEETS)(self._sheet_of)
        self._later = lru_cache(maxsize=None)(lambda name: contents.later[name]())

    @cached_property
    def _finder(self) -> Finder:
        return Finder(self._relations)

    @cached_property
    def _page(self) -> bytes:
        return "".join(document_around_data(self._contents.facts["dataset"], "live")).encode()

    def answer(self, path: str) -> Answer:
        """Return what lies at a path below the page's address.

        Raises:
            NotFoundError: nothing does.
        """
        kind, _, rest = path.partition("/")
        set_name, _, number = rest.partition("/")
        answer: Answer | None = None
        if not rest:
            answer = self._whole(kind)
        elif kind == "array":
            answer = self._array(rest)
        elif number.isascii() and number.isdecimal() and len(number) < LONGEST_NUMBER:
            with self._lock:
                answer = self._of(kind, set_name, int(number))
        if answer is None:
            raise NotFoundError(
                f"there is nothing at {path[:LONGEST_PATH]}", hint="open the page's own address"
            )
        return answer

    def _whole(self, name: str) -> Answer | None:
        """Return what is one of its kind."""
        contents = self._contents
        if name == "facts":
            kinds = dict.fromkeys(contents.later, "uint32")
            kinds |= {array: values.dtype.name for array, values in contents.arrays.items()}
            return JSON, json.dumps({"facts": contents.facts, "kinds": kinds}, allow_nan=False).encode()
        if name == "keys":
            return JSON, json.dumps(contents.keys).encode()
        return None if name else (HTML, self._page)

    def _array(self, name: str) -> Answer | None:
        if name in self._contents.arrays:
            return BYTES, self._contents.arrays[name].tobytes()
        if name not in self._contents.later:
            return None
        with self._lock:
            return BYTES, self._later(name).astype("<u4").tobytes()

    def _of(self, kind: str, set_name: str, number: int) -> Answer | None:
        """Return the lists of an example, the pictures of all in them, or a sheet."""
        pictures = self._pictures.get(set_name)
        is_example = number < self._n_examples(set_name)
        if kind == "lists" and is_example:
            return BYTES, self._found(set_name, number).tobytes()
        if kind == "strips" and is_example and pictures:
            strip = strip_of(set_name, number, self._found(set_name, number), self._pictures)
            return pictures.mime, strip or b""
        if kind == "sheets" and pictures and number * TILES < self._contents.facts["pictures"][set_name]["n"]:
            return pictures.mime, self._sheet(set_name, number)
        return None

    def _n_examples(self, name: str) -> int:
        order = self._contents.orders.get(name)
        return 0 if order is None else len(order)

    def _lists_of(self, name: str, row: int) -> NDArray[np.uint32]:
        return next(self._finder.lists(name, [row]))

    def _sheet_of(self, name: str, number: int) -> bytes:
        pictures = self._pictures[name]
        if pictures.sheet is not None:
            return pictures.sheet(number)
        rows = self._contents.orders[name][number * TILES : (number + 1) * TILES]
        return pictures.encoded(pictures.rows(rows.tolist()), TILES)


class ViewServer(ThreadingHTTPServer):
    """Serves a page to this machine's browsers that know its address, which has a token in it.

    Other users of the machine do not know the token. Other sites' scripts that guess the port come with
    another ``Origin``, and under another name, pointed at this machine, with another ``Host``.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, viewer: Viewer, port: int = 0) -> None:
        """Listen on a port of 127.0.0.1; 0 is a free one.

        Raises:
            InvalidInputError: the port is taken, or is none.
        """
        self.viewer, self.token = viewer, secrets.token_urlsafe(24)
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise InvalidInputError(
                f"cannot listen on port {port}: {getattr(error, 'strerror', None) or error}",
                hint="omit the port for a free one",
                parameter="port",
            ) from error

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_port}/{self.token}/"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a browser that hung up."""


class _Handler(BaseHTTPRequestHandler):
    server: ViewServer
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        """Answer a request of the page."""
        refusal = self._refusal()
        if refusal is not None:
            self._send(HTTPStatus.FORBIDDEN, "text/plain; charset=utf-8", refusal.encode())
            return
        path = self.path.partition("?")[0].removeprefix(f"/{self.server.token}/")
        try:
            kind, body = self.server.viewer.answer(path)
        except NotFoundError as error:
            self._send(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", str(error).encode())
        except MemdbError as error:
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", str(error).encode())
        else:
            self._send(HTTPStatus.OK, kind, body)

    def _refusal(self) -> str | None:
        """Return why a request is not the page's own."""
        host = f"{HOST}:{self.server.server_port}"
        if self.headers.get("Host") != host:
            return "another Host"
        if self.headers.get("Origin", f"http://{host}") != f"http://{host}":
            return "another Origin"
        if self.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
            return "another site"
        given = self.path.split("/")[1] if self.path.startswith("/") else ""
        known = secrets.compare_digest(given.encode("utf-8", "surrogateescape"), self.server.token.encode())
        return None if known and self.path.count("/") > 1 else "the address lacks its token"

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"), ("X-Frame-Options", "DENY"),
        ):  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the library
        """Print nothing: addresses have the token."""

    def version_string(self) -> str:
        """Return what answers say of the server."""
        return "memdb"


@contextlib.contextmanager
def serving(viewer: Viewer, port: int = 0) -> Iterator[ViewServer]:
    """Serve a page while the block runs.

    Raises:
        InvalidInputError: the port is taken, or is none.
    """
    with ViewServer(viewer, port) as server:
        thread = threading.Thread(target=server.serve_forever, name="memdb-view", daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
