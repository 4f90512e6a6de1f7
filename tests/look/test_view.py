"""`memdb view`: who gets an answer, what it is, and how it ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import stat
import subprocess
import sys
import webbrowser
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from memdb.cli import look
from memdb.errors import InvalidInputError, NotFoundError
from memdb.look.view import Viewer, serving


@pytest.fixture(scope="module")
def viewer(asked):
    return asked.viewer({})


@pytest.fixture
def server(viewer):
    with serving(viewer) as running:
        yield running


def get(server, path=None, verb="GET", **headers):
    address = urlsplit(server.address)
    connection = http.client.HTTPConnection("127.0.0.1", address.port, timeout=10)
    connection.putrequest(verb, address.path if path is None else path, skip_host=True)
    for name, value in (
        {"Host": address.netloc} | {k.replace("_", "-"): v for k, v in headers.items()}
    ).items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders()
    with contextlib.closing(connection), connection.getresponse() as answer:
        return answer.status, answer.read()


def test_the_page_gets_what_it_asks_for(server, asked):
    assert b'data-source="live"' in get(server)[1]
    base = urlsplit(server.address).path
    facts = json.loads(get(server, f"{base}facts")[1])
    assert facts["facts"]["n_models"] == asked.n_models
    order = np.frombuffer(get(server, f"{base}array/train/order")[1], facts["kinds"]["train/order"])
    assert sorted(order.tolist()) == list(range(asked.store.manifest.train.n_examples))
    lists = np.frombuffer(get(server, f"{base}lists/test/3")[1], "<u4")
    assert lists.size == 3 * facts["facts"]["shown"] * 3
    assert len(np.frombuffer(get(server, f"{base}array/pairs")[1], "<u4")) % 5 == 0


def test_nobody_else_gets_anything(server):
    address = urlsplit(server.address)
    for path, headers in (
        (None, {"Host": "memdb.example"}), (None, {"Host": None}), (None, {"Host": f"localhost:{address.port}"}),
        (None, {"Origin": "https://example.org"}), (None, {"Origin": "null"}), (None, {"Sec_Fetch_Site": "cross-site"}),
        ("/", {}), ("/facts", {}), (address.path.rstrip("/"), {}), (f"{address.path[:-2]}/facts", {})
    ):  # fmt: skip
        status, body = get(server, path, **headers)
        assert status == 403, (path, headers)
        assert server.token.encode() not in body
    assert get(server, verb="POST")[0] == 501
    assert get(server, Origin=f"http://{address.netloc}", Sec_Fetch_Site="same-origin")[0] == 200


@pytest.mark.parametrize(
    "path", ["x", "array/x", "array/../facts", "lists/train/-1", "lists/train/99999", "lists/other/1", "lists/train/1e3",
             "lists/train/\u0663", "sheets/train/0", "strips/train/0", "lists/train", "lists/train/" + "9" * 5000]
)  # fmt: skip
def test_what_is_not_there_is_not_found(viewer, path):
    with pytest.raises(NotFoundError):
        viewer.answer(path)


def test_it_listens_to_this_machine_alone(server):
    assert server.socket.getsockname()[0] == "127.0.0.1"


def test_a_port_that_is_taken_is_refused(viewer):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with (
            pytest.raises(InvalidInputError, match="port") as refused,
            serving(viewer, taken.getsockname()[1]),
        ):
            pass
        assert "free" in refused.value.hint


def test_imported_scores_and_wrong_levels_are_refused(asked):
    with pytest.raises(InvalidInputError):
        Viewer(asked.relations(), 1.5, {})


class Browser:
    """One that notes what it is to open, and who could have read it."""

    opened = ()

    def open(self, url):
        path = Path(urlsplit(url).path)
        Browser.opened = (url, stat.S_IMODE(path.stat().st_mode), path.read_text("utf-8"))
        return True


def test_the_browser_gets_the_address_from_a_file_of_its_owner(monkeypatch):
    monkeypatch.setattr(webbrowser, "get", Browser)
    with look._opened("http://127.0.0.1:1/secret/"):
        url, mode, text = Browser.opened
        assert "secret" not in url
        assert mode == 0o600
        assert "secret" in text
    assert not Path(urlsplit(url).path).exists()


def test_without_a_browser_it_says_so(monkeypatch, capsys):
    def none():
        raise webbrowser.Error

    monkeypatch.setattr(webbrowser, "get", none)
    with look._opened("http://127.0.0.1:1/secret/"):
        assert "No browser" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_ends_it(trained):
    command = [
        sys.executable,
        "-c",
        "import memdb.cli; memdb.cli.program()",
        "view",
        "--no-open",
        "-s",
        str(trained),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        address = running.stdout.readline().strip()
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
        with contextlib.closing(connection):  # after the signal: until then it stays open
            connection.request("GET", urlsplit(address).path)
            with connection.getresponse() as answer:
                assert answer.status == 200
            running.send_signal(signal.SIGINT)
            _, said = running.communicate(timeout=30)
    assert running.returncode == 0
    assert "Stopped." in said
    assert "Traceback" not in said
