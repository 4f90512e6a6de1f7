"""The report, the site and the view: what a real browser makes of them."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from support.browser import keys, lists_are_there, shows
from support.commands import serve_folder
from support.nasty import NASTY, nasty_store
from support.stores import dicts

from memdb.look.view import serving

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
        with serve_folder(folder / "copy") as url:
            yield f"{url}/"


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
