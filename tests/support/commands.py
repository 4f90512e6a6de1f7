"""The command as its users run it.

`run` calls it in this process, which is quick; `spawn` starts the installed one, where signals, pipes, modules
in the working folder or the whole process matter.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from support import TESTS

MEMDB = str(Path(sys.executable).with_name("memdb"))


def surroundings(environment):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MEMDB_") and k != "COLUMNS"}
    kept = {"MEMDB_CACHE_DIR": str(Path(tempfile.gettempdir()) / "memdb-tests-cache")}
    return clean | {"PYTHONPATH": str(TESTS), **kept, **environment}


def spawn(*arguments, cwd, **environment):
    return subprocess.run(
        [MEMDB, *map(str, arguments)], cwd=cwd, env=surroundings(environment), capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip


def run(*arguments, cwd, **environment):
    from memdb import cli

    out, err, code = io.StringIO(), io.StringIO(), None
    with (
        contextlib.chdir(cwd),
        mock.patch.dict(os.environ, surroundings(environment), clear=True),
        mock.patch.object(sys, "argv", ["memdb", *map(str, arguments)]),
        mock.patch.object(sys, "path", list(sys.path)),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as done:
            code = done.code
    return SimpleNamespace(returncode=code or 0, stdout=out.getvalue(), stderr=err.getvalue())


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def web_server(handler):
    """A web server on loopback with this handler, which it runs in threads; its URL is `server.url`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads, server.url = True, f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def serve(handler):
    """The same; yields the URL alone."""
    with web_server(handler) as server:
        yield server.url


def serve_folder(folder):
    """Serve the files of a folder; yields the URL."""
    return serve(partial(QuietHandler, directory=str(folder)))
