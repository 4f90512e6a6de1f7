"""What tests do with a browser."""

from __future__ import annotations


def shows(page, path, hash_=""):
    """Open a file."""
    page.get("about:blank")
    page.get(f"{path.as_uri()}{hash_}")
    return page


def keys(page, *pressed):
    """Press keys."""
    from selenium.webdriver import ActionChains

    actions = ActionChains(page)
    for key in pressed:
        actions.send_keys(key)
    actions.perform()


def lists_are_there(page):
    """Wait for the lists of an example, which are shown once they are read."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(page, 20).until(
        lambda _: page.execute_script("return document.querySelectorAll('.partners .card').length > 0")
    )
