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
