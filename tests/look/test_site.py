"""The page beside a published copy: what it loads, and what it does with what is wrong."""

from __future__ import annotations

import functools
import http.server
import json
import shlex
import shutil
import threading
import time

import numpy as np
import pytest
import zarr
from support.browser import shows
from support.commands import run
from support.lists import few_lists
from support.stores import dicts, files_of

import memdb
from memdb.errors import InvalidInputError, NotEnoughModelsError
from memdb.format import layout

pytestmark = pytest.mark.slow  # publishing the page takes seconds


@pytest.fixture(scope="module")
def published(digits_store, tmp_path_factory):
    """A copy of digits with its page; look, do not touch."""
    dest = tmp_path_factory.mktemp("published") / "copy"
    with memdb.open(str(digits_store)) as db, few_lists():
        db.publish(str(dest), include=("bits", "thumbnails"), site=True)
    return dest


@pytest.fixture
def copy(published, tmp_path):
    """The same, to do with as one likes."""
    return shutil.copytree(published, tmp_path / "copy")


def test_what_the_page_reads_is_zarr(published, digits_store):
    group = zarr.open_group(published / "site" / "1", mode="r")
    facts = json.loads(bytes(group["facts"][:]))["facts"]
    assert str(digits_store) not in bytes(group["facts"][:]).decode()
    with memdb.open(str(published)) as db:
        ranks = [row["train_id"] for row in dicts(db.top_memorized(k=facts["n_train"]))]
    assert group["train/order"][:].tolist() == ranks
    keys = [bytes(row).rstrip(b"\0").decode() for row in group["train/keys"][:3]]
    assert keys == ["digits/0", "digits/1", "digits/2"] or all(key.startswith("digits/") for key in keys)


def test_a_copy_with_its_page_is_pulled_and_verified(copy, tmp_path):
    memdb.pull(str(copy), str(tmp_path / "here"))
    assert files_of(tmp_path / "here") == files_of(copy)
    assert memdb.open(str(copy)).verify()[0].damages == []
    path = copy / "site" / "1" / "train" / "partners" / "c.0.0"
    path.write_bytes(path.read_bytes()[:-1])
    assert [(damage.kind, damage.identifier) for damage in memdb.open(str(copy)).verify()[0].damages] == [
        ("site", "1")
    ]


def test_publishing_again_keeps_the_page(digits_store, copy):
    before = files_of(copy)
    with memdb.open(str(digits_store)) as db, few_lists():
        db.publish(str(copy), include=("bits",))
    assert files_of(copy) == before


@pytest.mark.parametrize(
    "address",
    ["example.org/mnist", "ftp://example.org/x", "https://", "https://a b/", "https://x;script-src *"],
)
def test_an_address_that_is_none_is_refused(asked, tmp_path, address):
    with pytest.raises(InvalidInputError, match="not an address"):
        asked.publish(str(tmp_path / "copy"), include=("bits",), site=address)
    assert not (tmp_path / "copy").exists()


def test_the_page_of_another_place_loads_from_the_copys_address_alone(asked, tmp_path):
    asked.publish(str(tmp_path / "copy"), include=("bits",), site="https://bucket.example.org/a/mnist")
    text = (tmp_path / "copy" / layout.PAGE).read_text()
    assert "connect-src https://bucket.example.org;" in text
    assert '"root": "https://bucket.example.org/a/mnist/"' in text


class Server(http.server.ThreadingHTTPServer):
    """Any static web server, with a list of what it sent."""

    daemon_threads = True

    def __init__(self, folder):
        self.sent = []
        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self.address = f"http://localhost:{self.server_port}/"

    def counted(self):
        """Requests and bytes since the last time, once all is quiet."""
        before = -1
        while before != len(self.sent):
            before = len(self.sent)
            time.sleep(0.6)
        sent, self.sent = self.sent, []
        assert {verb for verb, _, _, _ in sent} <= {"GET"}
        assert not any(range_ for _, _, _, range_ in sent)
        return len(sent), sum(size for _, _, size, _ in sent)


class Handler(http.server.SimpleHTTPRequestHandler):
    def copyfile(self, source, outputfile):
        data = source.read()
        self.server.sent.append((self.command, self.path, len(data), self.headers.get("Range")))
        outputfile.write(data)

    def send_error(self, code, *_):
        self.server.sent.append((self.command, self.path, 0, None))
        super().send_error(code)

    def end_headers(self):
        self.send_header("Cache-Control", "no-store")  # files that change within a second look alike
        super().end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(folder):
        servers.append(Server(folder))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def until(page, script, seconds=10):
    """Wait until a script returns something true."""
    end = time.monotonic() + seconds
    while not (found := page.execute_script(f"return {script}")):
        assert time.monotonic() < end, f"{script}: {page.find_element('tag name', 'body').text[:500]}"
        time.sleep(0.05)
    return found


SHOWN = "document.querySelector('.rows .row')"
COMPLAINED = "document.getElementById('problem-text').textContent"


@pytest.mark.browser
@pytest.mark.slow
def test_few_small_requests_show_what_the_commands_say(page, published, serve):
    from memdb.render.tables import brief

    server = serve(published)
    page.get(server.address)
    until(page, SHOWN)
    n, n_bytes = server.counted()
    assert n <= 8
    assert n_bytes <= 500_000
    with memdb.open(str(published)) as db:
        row = dicts(db.top_memorized(k=1))[0]
        train_id = row["train_id"]
        shown = page.execute_script(
            "return [...document.querySelectorAll('.rows .row:first-child .cell')].map((c) => c.textContent)"
        )
        assert brief(row["memorization"]) in shown
        page.execute_script(f"location.hash = '#train={train_id}'")
        until(page, "document.querySelectorAll('.partners .card').length > 8")
        n, n_bytes = server.counted()
        assert n <= 6
        assert n_bytes <= 200_000
        cards = page.execute_script(
            "return [...document.querySelectorAll('.partners section:first-child .card')].map((c) => c.innerText)"
        )
        for card, expected in zip(cards, dicts(db.top_influence(train_id=train_id, k=8)), strict=True):
            assert card.split("\n")[0] == brief(expected["influence"], "+").replace("-", "\u2212")
            assert f"test {expected['test_id']} " in card
    until(page, "document.querySelector('.settled canvas')?.width > 0")
    assert page.execute_script(f"return {COMPLAINED}") == ""


@pytest.mark.browser
@pytest.mark.slow
def test_any_pair_is_counted_from_the_bits(page, published, serve):
    server = serve(published)
    with memdb.open(str(published)) as db:
        for name, chosen in (
            ("train", "train.order[1000]"),
            ("test", "[...test.label.keys()].find((row) => !test.owners.has(row))"),
        ):
            page.get(server.address)
            until(page, SHOWN)
            page.execute_async_script("loaded(test).then(arguments[0])")
            row = page.execute_script(f"return {chosen}")
            page.execute_script(f"location.hash = '#{name}={row}'")
            button = until(page, "document.querySelector('.partners button')")
            assert "MB" in button.text
            counts = page.execute_async_script(
                f"const done = arguments[0]; pairCounts({name}, {row}).then((k) => done([...k]))"
            )
            other = "test" if name == "train" else "train"
            mask, right = db.relations().mask, db.relations().correct("test")
            both = (mask[row] & right) if name == "train" else (mask & right[row])
            assert counts == np.bitwise_count(both).sum(axis=1).tolist()
            assert len(counts) == db.store.manifest.set_named(other).n_examples
            button.click()
            until(page, "document.querySelectorAll('.plain li').length === 16")


@pytest.mark.browser
@pytest.mark.slow
def test_a_copy_that_does_not_name_what_has_lists_is_read_as_ranked(page, published, serve):
    """So earlier versions wrote it, and `pull` puts today's page beside it."""
    page.get(serve(published).address)
    until(page, SHOWN)
    page.execute_script("delete source.described.arrays['train/listed']; loads.clear();")
    n = page.execute_async_script("loaded(train).then(() => arguments[0](facts.n_listed.train))")
    assert page.execute_script("return [...train.owners.keys()].join() === train.order.subarray(0, arguments[0]).join()", n)  # fmt: skip


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize(
    "hash_",
    ["", "#sort=q", "#sort=-in&find=7", "#find=%27%22$(exit)&sort=in", "#memorization=.25,1&sort=-memorization",
     "#set=test&find=1&class=3"],
)  # fmt: skip
def test_the_command_below_the_list_lists_the_same(page, published, serve, hash_):
    page.get("about:blank")
    page.get(f"{serve(published).address}{hash_}")
    until(page, "grid?.rows !== undefined")
    (line,) = until(
        page, "[...document.querySelectorAll('#list-commands code')].map((code) => code.textContent)"
    )
    words = shlex.split(line)[1:]
    words[words.index("--store") + 1] = str(published)
    rows = json.loads(run(*words, "--format", "json", cwd=published).stdout)["rows"]
    listed = [row["id"] if "id" in row else row["train_id"] for row in rows]
    assert listed == page.execute_script("return [...left].slice(0, 20)")


OBJECTS = {  # what is wrong: where one looks
    "site/1/facts/c.0": "", "site/1/train/columns/c.0.0": "", "site/1/train/order/c.0": "",
    "site/1/train/listed/c.0": "",
    "site/1/test/columns/c.0.0": "#train=3", "site/1/train/partners/c.0.0": "#train={first}",
    "site/1/pairs/c.0.0": "#view=pairs",
}  # fmt: skip


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("is_secure", [True, False])
@pytest.mark.parametrize("harm", ["flipped", "cut", "missing", "another page"])
def test_what_is_wrong_shows_an_error_and_no_number(browser, copy, serve, harm, is_secure):
    """With sha256, and with the crc32 of gzip alone, as on a page that came over plain http."""
    first = zarr.open_group(copy / "site" / "1", mode="r")["train/listed"][0]
    server, script = serve(copy), None
    if not is_secure:
        taken = "Object.defineProperty(Crypto.prototype, 'subtle', {get: () => undefined})"
        script = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": taken})
    try:
        for path, hash_ in OBJECTS.items():
            data = (copy / path).read_bytes()
            wrong = bytearray(data)
            wrong[len(data) // 2] ^= 4
            if harm == "missing":
                (copy / path).unlink()
            else:
                (copy / path).write_bytes(
                    {"flipped": bytes(wrong), "cut": data[:-9], "another page": b"<html>"}[harm]
                )
            browser.get("about:blank")
            browser.get(server.address + hash_.format(first=first))
            said = until(browser, COMPLAINED)
            assert path in said, said
            if not hash_:
                assert not browser.execute_script(f"return {SHOWN}")
            assert browser.execute_script("return document.querySelectorAll('.card b').length") in {0, 6}
            (copy / path).write_bytes(data)
    finally:
        if script:
            browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
        browser.get_log("browser")


@pytest.mark.browser
@pytest.mark.slow
def test_a_page_from_the_disk_or_in_an_old_browser_says_what_to_do(browser, published, serve):
    shows(browser, published / layout.PAGE)
    assert "memdb report" in until(browser, COMPLAINED)
    gone = {"source": "delete window.DecompressionStream"}
    script = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", gone)
    try:
        browser.get(serve(published).address)
        assert "DecompressionStream" in until(browser, COMPLAINED)
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
        browser.get_log("browser")


def test_a_store_without_models_has_no_page(empty, tmp_path):
    with pytest.raises(NotEnoughModelsError):
        empty.publish(str(tmp_path / "copy"), include=("bits",), site=True)
