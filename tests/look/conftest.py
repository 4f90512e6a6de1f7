"""Headless Chromium, and a report of digits to look at in it."""

from __future__ import annotations

import os
import shutil

import pytest
from support.lists import few_lists

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
