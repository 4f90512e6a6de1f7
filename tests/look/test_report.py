"""The report: what is in the file, and what a real browser makes of it."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import io
import json
import re
import threading

import numpy as np
import pytest
from support.browser import keys, lists_are_there, shows
from support.cases import every
from support.stores import coin_recipe, dicts

import memdb
from memdb import cli
from memdb.errors import InvalidInputError, MemdbError, StorageError
from memdb.look import contents
from memdb.look.codes import MISSING
from memdb.look.view import serving
from memdb.render.sheets import PicturesOf, sheets, tile_size

NASTY = [
    "<script>document.title = 'run'</script>", "</script><img src=x onerror=document.title='run'>", "<!--",
    "a\nb\r\nc", "\"quoted\" & 'so'", "\u202egnp.1\u202c", "x" * 10_000, "&lt;b&gt;", "--><svg/onload=alert(1)>",
    "${1}`", "\u2028", "javascript:alert(1)",
]  # fmt: skip


def words_on(sheet):
    """The texts on a sheet of a report."""
    return json.loads(base64.b64decode(sheet))


def inert(text):
    """The elements of a report that hold data, by their ids."""
    return dict(re.findall(r'<script type="text/plain" id="data/([^"]*)">([^<]*)</script>', text))


def array(elements, name):
    kind, data = elements[name].split(" ")
    return np.frombuffer(base64.b64decode(data), kind)


@pytest.fixture(scope="module")
def written(asked, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    return asked.report(path), path.read_text("utf-8")


def columns(elements, name, n):
    """Numbers of all examples, whose bytes lie apart."""
    n_columns = {"train": 6, "test": 3}[name]
    planes = array(elements, f"{name}/columns").reshape(-1, n_columns, n).astype(int)
    return sum(plane * 256**place for place, plane in enumerate(planes))


def scores_in(codes):
    """What two bytes say of a score: thousandths, and its sign."""
    return np.where(codes == MISSING, np.nan, (codes >> 1) / 1000 * np.where(codes & 1, -1, 1))


def test_a_report_has_the_counts_of_every_example(asked, written):
    elements = inert(written[1])
    rows = dicts(asked.top_memorized(k=asked.store.manifest.train.n_examples))
    assert array(elements, "train/order").tolist() == [row["train_id"] for row in rows]
    label, n_in, wrong_in, wrong_out, shrunk, q_value = columns(elements, "train", len(rows))
    counted = {
        "label": label,
        "n_in": n_in,
        "k_in": n_in - wrong_in,
        "k_out": asked.n_models - n_in - wrong_out,
    }
    for name, values in counted.items():
        assert values.tolist() == [row[name] for row in rows]
    for row, code, q in zip(rows, scores_in(shrunk), q_value, strict=True):
        assert np.isnan(code) if row["shrunk"] is None else f"{code:.3f}" == f"{row['shrunk']:.3f}"
        if row["q_value"] is not None:
            assert (bool(q & 1), (q >> 1) / 1000) == (
                row["q_value"] > 0.1, 0 if row["q_value"] < 0.001 else float(f"{row['q_value']:.3f}"),
            )  # fmt: skip
    facts = json.loads(elements["facts"])
    assert facts["models_sha256"] == asked.models_sha256
    assert json.loads(elements["keys"])["train"][3] == "train/3.png"


@pytest.mark.parametrize("of", every(2, ["test", "train"]))
def test_a_reports_lists_are_those_of_top_influence(asked, written, of):
    elements = inert(written[1])
    facts = json.loads(elements["facts"])
    shown, groups = facts["shown"], facts["groups"][of]
    n = {name: asked.store.manifest.set_named(name).n_examples for name in ("train", "test")}
    labels = {name: columns(elements, name, n[name])[0] for name in n}
    labels["train"] = labels["train"][np.argsort(array(elements, "train/order"))]
    if of == "train":
        owners = array(elements, "train/listed").tolist()
    else:
        owners = np.argsort(columns(elements, "test", n["test"])[2]).tolist()
    assert sorted(owners) == list(range(facts["n_listed"][of]))
    every = array(elements, f"{of}/partners").reshape(-1, len(groups), shown, 3)
    for owner, found in zip(owners, every, strict=True):
        for name, rows in zip(groups, found, strict=True):
            listed = rows[rows[:, 0] > 0]
            column = "test_id" if of == "train" and name != "peers" else "train_id"
            ids = (listed[:, 0].astype(int) - 1).tolist()
            if name == "random":
                assert {labels[column[:-3]][i] for i in ids} <= {labels[of][owner]}
                expected = [dicts(asked.score(**{f"{of}_id": owner, column: i}))[0] for i in ids]
            else:
                fixed = {"target_id" if name == "peers" else f"{of}_id": owner}
                direction = "hurts" if name == "hurts" else "helps"
                expected = dicts(asked.top_influence(**fixed, k=shown, direction=direction))
                assert ids == [row[column] for row in expected]
                for row, q in zip(expected, listed[:, 2], strict=True):
                    assert q == MISSING if row["q_value"] is None else bool(q & 1) == (row["q_value"] > 0.1)
            assert listed[:, 1].tolist() == [row["k_in"] for row in expected]


def test_how_scores_settled_is_what_convergence_says(asked, written):
    elements = inert(written[1])
    looks = json.loads(elements["facts"])["looks"]
    sums = array(elements, "train/settled").reshape(-1, len(looks), 3)
    for place, train_id in list(enumerate(array(elements, "train/order").tolist()))[::7]:
        rows = dicts(asked.convergence(train_id))
        assert [row["n_models"] for row in rows] == looks
        expected = [[row["n_in"], row["k_in"], row["k_in"] + row["k_out"]] for row in rows]
        assert sums[place].tolist() == expected


def test_pairs_are_those_of_the_command(digits_store, monkeypatch):
    monkeypatch.setattr(contents, "MIN_INFLUENCE", 0.4)
    monkeypatch.setattr(contents, "MIN_MEMORIZATION", 0.3)
    with memdb.open(str(digits_store)) as db:
        (n_found, *_), *found = contents.strongest_pairs(db.relations()).tolist()
        rows = dicts(db.pairs(min_influence=0.4, min_memorization=0.3))
    rows.sort(key=lambda row: (-row["influence"], row["train_id"], row["test_id"]))
    assert (n_found, len(found)) == (len(rows), min(len(rows), contents.MOST_PAIRS))
    assert [pair[:3] for pair in found] == [
        [row["train_id"], row["test_id"], row["k_in"]] for row in rows[: len(found)]
    ]


def test_arrays_in_memory_are_shown_without_pictures(written):
    assert "arrays in memory" in written[0].without_pictures
    assert written[0].n_pictures == 0
    assert "sheet" not in " ".join(inert(written[1]))


@pytest.mark.slow
def test_pictures_lie_on_sheets_in_order_of_rank(digits_report):
    db, path = digits_report
    pictures = db._shown(None, None)["train"]
    elements = inert(path.read_text("utf-8"))
    order = array(elements, "train/order")
    from PIL import Image

    for rank in (0, 63, 64, len(order) - 1):
        sheet = Image.open(io.BytesIO(base64.b64decode(elements[f"train/sheet/{rank // 64}"])))
        y, x = divmod(rank % 64, 8)
        tile = np.asarray(sheet)[y * 8 : y * 8 + 8, x * 8 : x * 8 + 8]
        np.testing.assert_array_equal(tile, pictures.chosen([int(order[rank])])[0, :, :, 0])


def test_tiles_of_colour_do_not_bleed():
    from PIL import Image

    colours = np.random.default_rng(0).integers(0, 256, (70, 1, 1, 3), dtype=np.uint8)
    pictures = PicturesOf((10, 20, 3), lambda rows: np.broadcast_to(colours[rows], (len(rows), 10, 20, 3)))
    assert tile_size(pictures.shape) == (16, 32)
    found = [np.asarray(Image.open(io.BytesIO(sheet))) for sheet in sheets(pictures, range(70))]
    assert [sheet.shape for sheet in found] == [(128, 256, 3)] * 2
    for row in range(70):
        y, x = divmod(row % 64, 8)
        tile = found[row // 64][y * 16 + 1 : y * 16 + 10, x * 32 + 1 : x * 32 + 20].astype(int)
        assert np.abs(tile - colours[row]).max() <= 6


@pytest.mark.parametrize("given", ["report.txt", "report", "missing/report.html"])
def test_a_report_that_cannot_be_written_is_refused(asked, tmp_path, given):
    with pytest.raises((InvalidInputError, StorageError)) as refused:
        asked.report(tmp_path / given)
    assert refused.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_data_root_that_was_given_has_to_have_the_data(asked, tmp_path):
    with pytest.raises(MemdbError):
        asked.report(tmp_path / "report.html", data_root=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_a_report(trained, tmp_path, capsys):
    with pytest.raises(SystemExit) as done:
        cli.application()(["report", "-s", str(trained), "-o", str(tmp_path / "r.html"), "--no-pictures"])
    assert not done.value.code
    assert "Wrote" in capsys.readouterr().err
    assert (tmp_path / "r.html").stat().st_size > 10_000


def test_names_never_end_an_element(tmp_path):
    with nasty_store(tmp_path) as db:
        db.report(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text("utf-8")
    keys = json.loads(inert(text)["keys"])["train"]
    assert [name if len(name) < 200 else "x" * 10_000 for name in keys] == NASTY
    order, words = array(inert(text), "train/order"), words_on(inert(text)["train/sheet/0"])
    assert words == [NASTY[row] if len(NASTY[row]) < 300 else f"{'x' * 299}\u2026" for row in order]
    assert "<img" not in text
    assert text.count("<script>") == 1  # the page's own


def nasty_store(tmp_path):
    """A store whose keys, class names and examples are what pages must show and not do."""
    x, labels = NASTY, np.arange(len(NASTY)) % 3
    data = memdb.Dataset(x, labels, x, labels, NASTY[:3], train_keys=NASTY, test_keys=NASTY)
    made = memdb.init(str(tmp_path / "store.zarr"), data, coin_recipe, seed=1)
    made.train(seeds=range(10))
    return made


# What follows is looked at in Chromium.


def column(page, name):
    """The cells of a column that are in the document, by their rows' ids."""
    script = """return [...document.querySelectorAll(".rows .row")].map((row) =>
        [Number(row.dataset.row), row.querySelector(`.cell.${arguments[0]}`).textContent])"""
    return dict(page.execute_script(script, name))


def as_shown(value, sign=""):
    from memdb.render.tables import brief

    return brief(value, sign).replace("-", "\u2212")


@pytest.mark.slow
@pytest.mark.browser
def test_cells_are_those_of_the_command(page, digits_report):
    db, path = digits_report
    rows = dicts(db.top_memorized(k=db.store.manifest.train.n_examples))
    shows(page, path)
    checked = 0
    for place in np.random.default_rng(3).choice(len(rows), 40, replace=False).tolist():
        page.execute_script("grid.activate(arguments[0], 0)", place)
        row = rows[place]
        expected = {
            "memorization": as_shown(row["memorization"]),
            "interval": f"[{as_shown(row['lo'])}, {as_shown(row['hi'])}]",
            "shrunk": as_shown(row["shrunk"]),
            "in": f"{row['k_in']}/{row['n_in']}",
            "out": f"{row['k_out']}/{row['n_out']}",
        }
        for name, text in expected.items():
            assert column(page, name)[row["train_id"]] == text
            checked += 1
    assert checked == 200


@pytest.mark.browser
@pytest.mark.slow
def test_an_examples_numbers_are_those_of_the_command(page, digits_report):
    db, path = digits_report
    ranks = dicts(db.top_memorized(k=40))  # those with lists
    for train_id in [row["train_id"] for row in ranks[::13]]:
        shows(page, path, f"#train={train_id}")
        (score,) = dicts(db.score(train_id))
        interval = f"[{as_shown(score['lo'])}, {as_shown(score['hi'])}]"
        assert (
            f"memorization {as_shown(score['memorization'])} {interval}"
            in page.find_element("class name", "score").text
        )
        lists_are_there(page)
        cards = page.execute_script(
            "return [...document.querySelectorAll('#content .partners section:first-of-type .card')].map((c) => c.innerText)"
        )
        for card, row in zip(cards, dicts(db.top_influence(train_id=train_id, k=8)), strict=True):
            shown = [
                as_shown(row["influence"], "+"),
                f"[{as_shown(row['lo'], '+')}, {as_shown(row['hi'], '+')}]",
            ]
            assert card.split("\n")[:2] == shown
            assert f"test {row['test_id']} " in card


@pytest.mark.browser
@pytest.mark.slow
def test_halves_of_thousandths_are_rounded_as_in_python(page, digits_report):
    shows(page, digits_report[1])
    values = [n / 64 for n in range(-64, 65)] + [0.0005, 0.9995, -0.0004]
    assert page.execute_script("return arguments[0].map((x) => brief(x))", values) == [
        as_shown(v) for v in values
    ]


@pytest.mark.browser
@pytest.mark.slow
def test_the_whole_walk_by_keyboard(page, digits_report):
    """Sort, filter, open, follow a partner, come back."""
    from selenium.webdriver.common.keys import Keys

    _, path = digits_report
    shows(page, path)

    def focused():
        return page.switch_to.active_element.get_attribute("id")

    for _ in range(20):  # one tab stop for the whole list
        if focused() == "grid":
            break
        keys(page, Keys.TAB)
    assert focused() == "grid"
    keys(page, Keys.ARROW_UP, Keys.ARROW_RIGHT, Keys.ENTER)
    assert page.find_element("css selector", ".head .id").get_attribute("aria-sort") == "ascending"
    keys(page, Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    first = page.find_element("css selector", "[aria-selected]").get_attribute("data-row")
    assert first == "1"
    for _ in range(9):
        if focused() == "found":
            break
        page.switch_to.active_element.send_keys(Keys.SHIFT, Keys.TAB)
    assert focused() == "found"
    keys(page, Keys.SPACE)
    left = page.find_element("id", "left").text
    assert int(left.split(" of ")[0].replace(",", "")) == page.execute_script(
        "return train.isChance.filter((is) => !is).length"
    )
    keys(page, Keys.SPACE)
    page.execute_script(
        "change({sort: {column: 'shrunk', descending: true}}); document.getElementById('grid').focus()"
    )
    first, second = page.execute_script("return [...left].slice(0, 2)")
    keys(page, Keys.HOME, Keys.ENTER)
    assert page.execute_script("return location.hash").endswith(f"train={first}")
    keys(page, Keys.ARROW_RIGHT)
    assert page.execute_script("return location.hash").endswith(f"train={second}")
    lists_are_there(page)
    keys(page, Keys.TAB)
    assert "test=" in page.switch_to.active_element.get_attribute("href")
    keys(page, Keys.ENTER)
    assert page.execute_script("return location.hash").startswith("#test=")
    keys(page, Keys.ESCAPE)
    assert not page.find_element("id", "example").is_displayed()
    assert focused() == "grid"


@pytest.mark.browser
@pytest.mark.slow
def test_an_address_brings_the_same_list_back(page, digits_report):
    _, path = digits_report
    shows(page, path, "#class=3&memorization=0,1&sort=-memorization")
    shown = column(page, "memorization")
    assert set(page.execute_script("return left.map((row) => train.label[row])")) == {3}
    page.execute_script("change({find: '1'})")
    address = page.execute_script("return location.hash")
    left = page.find_element("id", "left").text
    shows(page, path, address)
    assert page.find_element("id", "left").text == left
    assert shown


@pytest.mark.browser
@pytest.mark.slow
def test_few_rows_and_few_sheets_are_made(page, digits_report):
    shows(page, digits_report[1])
    assert page.execute_script("return document.querySelectorAll('.rows .row').length") <= 60
    assert page.execute_script("return sheetsSeen.size") <= 2


@pytest.mark.browser
@pytest.mark.slow
def test_a_brush_and_the_histogram_choose(page, digits_report):
    shows(page, digits_report[1])
    page.execute_script("change({brush: [0, 0.5, 0.5, 1]})")
    assert page.execute_script("return left.length") == page.execute_script(
        "return [...train.pOut.keys()].filter((i) => train.pOut[i] <= .5 && train.pIn[i] >= .5).length"
    )
    page.execute_script("change({brush: null, range: [0.2, 1]})")
    assert page.execute_script("return left.length") == page.execute_script(
        "return train.memorization.filter((m) => m >= .2).length"
    )


def until(page, condition):
    """Wait for what a page has to load."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(page, 20).until(condition)


@contextlib.contextmanager
def served(db, folder, way):
    """The address of a page of each kind."""
    if way == "view":
        with serving(db.viewer(db.pictures_of_page()[0])) as server:
            yield server.address
    elif way == "report":
        db.report(folder / "report.html")
        yield (folder / "report.html").as_uri()
    else:
        db.publish(str(folder / "copy"), include=("bits", "thumbnails"), site=True)
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder / "copy"))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}/"
            server.shutdown()


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("way", ["report", "site", "view"])
def test_a_page_never_runs_what_a_store_says(page, tmp_path, way):
    with nasty_store(tmp_path) as db, served(db, tmp_path, way) as address:
        for hash_ in (
            "",
            *(f"#train={row}" for row in range(len(NASTY))),
            *("#set=test", "#test=0", "#train=<img src=x>", "#view=pairs", "#view=classes", "#view=about"),
        ):
            page.get("about:blank")
            page.get(f"{address}{hash_}")
            until(page, lambda _: page.find_element("id", "main").is_displayed())
            assert page.title == "memdb: in-memory"
            assert page.execute_script("return document.querySelectorAll('img, svg, iframe').length") == 0
            assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        page.get(f"{address}#train=1")
        until(
            page,
            lambda _: [
                one for one in page.find_elements("css selector", "#content .prose.whole") if one.text
            ],
        )
        assert page.find_element("css selector", "#content .prose.whole").text == NASTY[1]
        for sheet in ("null", '{"0": "text"}', '["text", 7]', "<html>"):
            script = "try { textsOf(new TextEncoder().encode(arguments[0])) } catch (error) { return error.message }"
            assert "not a list of texts" in page.execute_script(script, sheet)
        lists_are_there(page)


@pytest.mark.browser
@pytest.mark.slow
def test_a_store_without_models_says_so(page, empty, tmp_path):
    empty.report(tmp_path / "report.html")
    for hash_ in ("", "#train=3", "#test=1"):
        shows(page, tmp_path / "report.html", hash_)
        assert "no models yet" in page.find_element("tag name", "main").text.lower()


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("is_dark", [False, True])
def test_a_narrow_page_has_all_in_its_width(page, digits_report, is_dark):
    narrow = {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", narrow)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    try:
        for hash_ in ("", "#train=258", "#test=42"):
            shows(page, digits_report[1], hash_)
            assert page.execute_script("return document.documentElement.scrollWidth") <= 360
            ground = page.execute_script("return getComputedStyle(document.body).backgroundColor")
            assert (ground != "rgb(255, 255, 255)") == is_dark
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
