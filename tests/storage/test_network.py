"""Servers that are slow, dead, wrong or truncated; and which host is sent which credentials."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import json
import logging
import shutil
import socket
import time
import traceback
from dataclasses import replace

import pytest
from support.cases import every
from support.commands import run, web_server
from support.stores import coin_recipe, small_dataset

import memdb
from memdb.errors import DamagedError, MemdbError, NotFoundError, StorageError, WrongFormatError
from memdb.format import layout
from memdb.storage import open_storage, remote
from memdb.storage.failures import said
from memdb.storage.retry import Patience, persistently
from memdb.store import Store

QUICK = Patience(
    first=0.001, longest=0.002, connect=0.2, silence=0.1, answer=0.15, floor=1000.0, listing=0.2, notice=0.02
)
ANSWERED = replace(QUICK, answer=3.0)  # S3's client needs a moment before its first request
MOST = 5.0  # seconds for what takes .2 on a machine that does nothing else
PAGE = b"<!DOCTYPE html>\n<title>Welcome</title><p>Please log in.</p>\n"


@contextlib.contextmanager
def serving(answer):
    """A server on loopback whose every GET is answered by a function of the handler; yields its URL and log."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            self.server.log.append((self.path, dict(self.headers)))
            with contextlib.suppress(OSError):
                answer(self)

    with web_server(Handler) as server:
        server.log = []
        yield server.url, server.log


def send(handler, body, status=200, **headers):
    handler.send_response(status)
    for name, value in {"Content-Length": len(body), **headers}.items():
        handler.send_header(name, str(value))
    handler.end_headers()
    handler.wfile.write(body)


def from_folder(folder, instead=()):
    """Answer with a folder's files, or as ``instead`` says of paths that end so."""

    def answer(handler):
        handler.directory = str(folder)
        path = handler.path.partition("?")[0]
        other = next((found for end, found in dict(instead).items() if path.endswith(end)), None)
        http.server.SimpleHTTPRequestHandler.do_GET(handler) if other is None else other(handler)

    return answer


def page(handler):
    send(handler, PAGE)


def absent(handler):
    handler.send_error(404)


@pytest.fixture(scope="module")
def grown(trained, tmp_path_factory):
    """A folder with a store of three snapshots."""
    folder = tmp_path_factory.mktemp("grown") / "store.zarr"
    shutil.copytree(trained, folder)
    with memdb.open(str(folder)) as db:
        db.compact()
        for seeds in ([100], [101]):
            db.train(seeds=seeds, dataset=small_dataset(), recipe=coin_recipe)
            db.compact()
        assert db.snapshot.number == 3
    return folder


@pytest.fixture(scope="module")
def published(grown, tmp_path_factory):
    """A published copy of it, of two snapshots."""
    folder = tmp_path_factory.mktemp("published") / "copy"
    with memdb.open(str(grown), as_of=1) as db:
        db.publish(str(folder))
    with memdb.open(str(grown)) as db:
        db.publish(str(folder))
    return folder


@pytest.fixture
def copy(published, tmp_path):
    """The same to do with as one likes."""
    return shutil.copytree(published, tmp_path / "copy")


@pytest.fixture
def silent():
    """The address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def trickle(handler, *, size=3000, at_once=1, pause=0.02):
    send(handler, b"", **{"Content-Length": size})
    for _ in range(0, size, at_once):
        handler.wfile.write(b" " * at_once)
        handler.wfile.flush()
        time.sleep(pause)


def opened(kind, server, patience=QUICK):
    if kind == "http":
        return open_storage(f"{server}/x", patience=patience)
    pytest.importorskip("s3fs")
    return open_storage("s3://bucket/x", {"endpoint_url": server, "anon": True}, patience=patience)


def require_failure_in_time(storage, path="zarr.json"):
    begun = time.monotonic()
    with pytest.raises(StorageError, match="did not answer, or too slowly") as failed:
        storage.read(path)
    assert time.monotonic() - begun < MOST
    assert f"{storage.url}/{path}" in str(failed.value)


@pytest.mark.parametrize("kind", ["http", "s3"])
def test_a_server_that_says_nothing_or_a_byte_now_and_then_is_given_up(kind, silent):
    require_failure_in_time(opened(kind, silent))
    with serving(trickle) as (url, log):
        require_failure_in_time(opened(kind, url))
        assert len(log) <= 2


@pytest.mark.parametrize("kind", ["http", "s3"])
def test_one_that_answered_once_is_given_up_as_well(kind):
    with serving(lambda handler: send(handler, b"x") if "first" in handler.path else trickle(handler)) as (
        url,
        log,
    ):
        storage = opened(kind, url, ANSWERED)
        assert storage.read("first") == b"x"
        require_failure_in_time(storage, "second")
        assert len(log) == 3  # what is silent twice is not asked a third time


@pytest.mark.parametrize("kind", ["http", "s3"])
def test_a_slow_line_that_goes_on_is_waited_for(kind):
    steady = functools.partial(trickle, size=3000, at_once=250, pause=0.03)
    with serving(lambda handler: send(handler, b"x") if "first" in handler.path else steady(handler)) as (
        url,
        _,
    ):
        storage = opened(kind, url, ANSWERED)
        storage.read("first")
        begun = time.monotonic()
        assert storage.read("second") == b" " * 3000
        assert time.monotonic() - begun > 2 * QUICK.silence


def test_a_listing_that_never_comes_is_given_up(silent):
    pytest.importorskip("s3fs")
    with pytest.raises(StorageError, match=r"cannot list s3://bucket/x/snapshots: the server did not answer"):
        opened("s3", silent).names("snapshots")


def test_a_server_may_ask_to_be_left_alone_for_a_while_but_not_before_it_ever_answered(monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)

    class Busy(Exception):  # noqa: N818 - what a driver raises
        status, headers = 503, {"Retry-After": "1"}

    def request(_seconds):
        raise Busy

    patience = Patience(attempts=3, first=0.0, longest=0.0)
    for may_ask, expected in ((0.0, []), (60.0, [1.0, 1.0])):
        slept.clear()
        with pytest.raises(Busy):
            persistently(request, patience, 0.5, may_ask)
        assert slept == expected
    assert said(Busy()) == "Busy"


def test_it_is_said_what_is_waited_for(silent, caplog):
    caplog.set_level(logging.INFO, "memdb")
    storage = open_storage(f"{silent.replace('//', '//me:secret@')}/x?sig=secret", patience=QUICK)
    require_failure_in_time(storage)
    assert [record.getMessage() for record in caplog.records] == [
        f"Waiting for {silent.replace('//', '//***@')}/x/zarr.json"
    ]


def test_the_command_says_so_beside_its_answer(published, monkeypatch, tmp_path):
    monkeypatch.setattr(remote, "PATIENCE", Patience(notice=0.01))

    def slow(handler):
        time.sleep(0.1)
        from_folder(published)(handler)

    with serving(slow) as (url, _):
        done = run("info", "-s", url, "-f", "json", "--cache-dir", "none", cwd=tmp_path)
    assert json.loads(done.stdout)["store"] == url
    assert done.stderr.count("Waiting for") == done.stderr.count("\n") == 1
    assert f"Waiting for {url}/" in done.stderr


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (page, WrongFormatError, "zarr.json is a web page, not a memdb document"),
        (lambda handler: send(handler, b""), WrongFormatError, "zarr.json is empty"),
        (lambda handler: send(handler, b"{}"), WrongFormatError, "zarr.json is not a memdb document"),
        (absent, NotFoundError, "^no memdb store at http://127.0.0.1"),
        (
            lambda handler: handler.send_error(403),
            StorageError,
            "zarr.json: the server answered 403 Forbidden",
        ),
        (
            lambda handler: handler.send_error(503),
            StorageError,
            "json: the server answered 503 Service Unavail",
        ),
        (lambda handler: send(handler, b"", 302, Location="/again"), StorageError, "redirects endlessly"),
        (
            lambda handler: send(handler, b"", 302, Location="file:///etc/passwd"),
            StorageError,
            "not a web addr",
        ),
    ],
)
def test_what_is_no_store_is_named_in_a_sentence(answer, kind, says, tmp_path):
    with serving(answer) as (url, _):
        with pytest.raises(kind, match=says) as refused:
            memdb.open(f"{url}/x", cache=None)
        assert f"{url}/x" in str(refused.value)
        assert refused.value.hint
        assert run("info", "-s", f"{url}/x", cwd=tmp_path).stderr.count("\n") == 1


def test_hosts_that_are_not_found_and_what_is_not_encrypted_are_said_in_words():
    lookup = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    assert said(lookup) == "its host was not found"
    asked = []

    def request(_seconds):
        asked.append(1)
        raise lookup

    with pytest.raises(OSError, match="not known"):
        persistently(request, Patience(), 1.0)
    assert len(asked) == 1
    with serving(page) as (url, _):
        storage = open_storage(url.replace("http:", "https:"), patience=QUICK)
        with pytest.raises(StorageError, match="no secure connection could be made"):
            storage.read("zarr.json")


@pytest.mark.parametrize("instead", [absent, page], ids=["404", "page"])
@pytest.mark.parametrize("where", ["published.json", "snapshots/2.json", "both", "all that is absent"])
def test_an_older_snapshot_never_answers_for_the_newest(published, instead, where):
    missing = {"published.json": instead} | (
        {"snapshots/2.json": instead} if where != "published.json" else {}
    )
    if where == "snapshots/2.json":
        del missing["published.json"]

    def answer(handler):
        gone = where == "all that is absent" and not (published / handler.path.lstrip("/")).is_file()
        instead(handler) if gone else from_folder(published, missing)(handler)

    with serving(answer) as (url, _):
        with pytest.raises((DamagedError, WrongFormatError)) as refused:
            memdb.open(url, cache=None).n_models  # noqa: B018
        assert url in str(refused.value)


@pytest.mark.parametrize(
    ("instead", "says"),
    [
        ({"snapshots/2.json": absent}, "snapshots/2.json is missing, though .*snapshots/3.json is there"),
        ({"snapshots/3.json": page}, "snapshots/3.json is a web page"),
        ({"snapshots/2.json": page}, "snapshots/2.json is a web page"),
    ],
)
def test_nor_does_it_in_a_store_that_grows(grown, instead, says):
    with serving(from_folder(grown, instead)) as (url, _), pytest.raises(MemdbError, match=says):
        memdb.open(url, cache=None).n_models  # noqa: B018


def test_where_nobody_can_tell_the_newest_it_is_said(grown, tmp_path):
    with serving(from_folder(grown)) as (url, _):
        done = run("info", "-s", url, "-f", "json", "--cache-dir", "none", cwd=tmp_path)
    assert json.loads(done.stdout)["snapshot"] == 3
    assert f"Note: {url} has no published.json" in done.stderr


def test_a_copy_without_its_root_document_is_finished_by_publishing_or_pulling_again(copy, grown, published):
    for again in (
        lambda: memdb.pull(str(published), str(copy)),
        lambda: memdb.open(str(grown)).publish(str(copy)),
    ):
        (copy / layout.PUBLISHED).unlink()
        before = sorted(copy.rglob("*"))
        for use in ("info", "train", "gc", "compact", "verify"):
            done = run(use, "-s", str(copy), cwd=copy.parent)
            assert (done.returncode, done.stdout) == (1, "")
            assert "is a published copy without its published.json" in done.stderr
        assert sorted(copy.rglob("*")) == before
        again()
        assert memdb.open(str(copy)).store.published is not None


@pytest.mark.parametrize("damage", every(4, ["altered", "cut", "page", "empty"]))
@pytest.mark.parametrize("path", ["published.json", "/zarr.json", "snapshots/2.json"])
def test_a_document_that_arrives_damaged_once_is_fetched_again_past_all_caches(published, path, damage):
    seen = []

    def broken(handler):
        data = (published / handler.path.lstrip("/")).read_bytes()
        wrong = {
            "cut": data[: len(data) // 2], "altered": data[:9] + b"#" + data[10:], "page": PAGE, "empty": b"",
        }  # fmt: skip
        seen.append(handler.headers.get("Cache-Control"))
        send(handler, wrong[damage] if len(seen) == 1 else data)

    with memdb.open(str(published)) as here, serving(from_folder(published, {path: broken})) as (url, _):
        assert memdb.open(url, cache=None).top_memorized().fetchall() == here.top_memorized().fetchall()
    assert len(seen) >= 2
    assert seen[1] == "no-cache"


SECRETS = ("secret", base64.b64encode(b"me:secret").decode())


def require_no_secret(text):
    assert not [secret for secret in SECRETS if secret in text]


def test_a_password_and_a_signature_open_a_store_and_are_shown_nowhere(published, tmp_path):
    def guarded(handler):
        is_right = handler.headers.get("Authorization", "").endswith(SECRETS[1])
        signed = handler.path.endswith("?sig=secret")
        from_folder(published)(handler) if is_right and signed else handler.send_error(403)

    with serving(guarded) as (url, _):
        address = f"{url.replace('//', '//me:secret@')}?sig=secret"
        done = run("info", "-s", address, "-f", "json", "--cache-dir", "none", cwd=tmp_path)
        assert json.loads(done.stdout)["store"] == url.replace("//", "//***@")
        require_no_secret(done.stdout + done.stderr)
        done = run("pull", address, "here", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        require_no_secret(done.stdout + done.stderr)
        for file in (tmp_path / "here").rglob("*"):
            assert file.is_dir() or not [s for s in SECRETS if s.encode() in file.read_bytes()]
        with memdb.open(address, cache=None) as db:
            require_no_secret(f"{db.url} {db.store.storage.url}")
        without_password = address.replace("me:secret@", "")  # not in the line below, which a traceback shows
        with pytest.raises(StorageError, match="403 Forbidden") as refused:
            memdb.open(without_password, cache=None)
        require_no_secret("".join(traceback.format_exception(refused.value)))


def test_commands_to_run_next_hide_what_must_not_be_shown():
    from memdb.cli.store_options import Place

    place = Place(
        "https://me:secret@host/x?sig=secret", "https://me:secret@host", storage_option=["token=secret"]
    )
    require_no_secret(place.command("info"))


def test_another_host_is_not_told_the_password(published):
    with serving(from_folder(published)) as (other, told):

        def elsewhere(handler):
            send(handler, b"", 302, Location=f"{other.replace('127.0.0.1', 'localhost')}{handler.path}")

        with serving(elsewhere) as (url, asked):
            memdb.open(url.replace("//", "//me:secret@"), cache=None)
    assert all("Authorization" in headers for _, headers in asked)
    assert told
    require_no_secret(str(told))


def test_a_store_opens_where_nobody_listens_to_ipv6_in_vain():
    with pytest.raises(StorageError, match=r"cannot read http://\[::1\]:9/x"):
        Store.open(open_storage("http://[::1]:9/x", patience=QUICK))
