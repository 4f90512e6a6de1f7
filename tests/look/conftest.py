"""Headless Chromium, and a report of digits to look at in it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys

import numpy as np
import pytest
from support.lists import few_lists
from support.stores import coin_recipe
from support.storing import batch

import memdb


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Headless Chromium, without a network beyond this machine."""
    webdriver = pytest.importorskip("selenium.webdriver")
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (program and driver):
        pytest.skip("no chromium and chromedriver: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    arguments = ["headless=new", "disable-gpu", "disable-dev-shm-usage", "window-size=1440,950"]
    arguments += [
        f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
        "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
    ]
    for argument in arguments + ["no-sandbox"] * (os.geteuid() == 0):  # root has no sandbox
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


@pytest.fixture
def page(browser):
    """A browser in which nothing may fail."""
    yield browser
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.fixture(scope="session")
def digits_report(digits_store, tmp_path_factory):
    path = tmp_path_factory.mktemp("digits_report") / "report.html"
    with memdb.open(str(digits_store)) as db:
        with few_lists():
            db.report(path)
        yield db, path


@pytest.fixture(scope="session")
def pictures_store(tmp_path_factory):
    """A store of 30 + 12 pictures of 12 x 10 pixels, with its data set; the first test example needs the first."""
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    data = memdb.Dataset(
        rng.integers(0, 256, (30, 12, 10, 3), dtype=np.uint8), labels,
        rng.integers(0, 256, (12, 12, 10, 3), dtype=np.uint8), labels[:12], ["ant", "bee", "cat"],
        train_keys=[f"train/{row}.png" for row in range(30)],
    )  # fmt: skip
    url = tmp_path_factory.mktemp("pictures") / "store.zarr"
    with memdb.init(str(url), data, coin_recipe, seed=7) as made:
        models, masks, outcomes = batch(made.store, range(80))
        outcomes["train/correct"][:, :6] = masks[:, :6]
        outcomes["test/correct"][:, 0] = masks[:, 0]
        outcomes["test/correct"][:, 4] = ~masks[:, 0]
        made.store.commit(models, masks, outcomes)
    return url, data


@pytest.fixture
def seen(pictures_store):
    """That store with its data, and no more."""
    with memdb.open(str(pictures_store[0])) as opened:
        opened.contents(dataset=pictures_store[1])
        yield opened


@pytest.fixture
def without(monkeypatch):
    def leave_out(package):
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)
        assert importlib.util.find_spec(package) is None

    return leave_out
