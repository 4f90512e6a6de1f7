"""The page for those who can't see it well: axe-core finds nothing in any view, light or dark, wide or narrow."""

from __future__ import annotations

from importlib import resources

import pytest
from support.browser import shows

VIEWS = {"list": "", "training example": "#train=258", "test example": "#test=42", "classes": "#view=classes",
         "pairs": "#view=pairs", "about": "#view=about",
         "test set": "#set=test", "nothing left": "#find=nothing"}  # fmt: skip


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 768, 360])
def test_axe_finds_nothing(page, digits_report, scheme, width):
    axe = pytest.importorskip("axe_core_python")
    script = (resources.files(axe) / "axe.min.js").read_text("utf-8")
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    preferred = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": preferred})
    try:
        for name, hash_ in VIEWS.items():
            shows(page, digits_report[1], hash_)
            page.execute_script(script)
            found = page.execute_async_script("axe.run().then(arguments[0])")
            said = [
                (one["id"], [node["html"][:200] + node["failureSummary"][:300] for node in one["nodes"][:3]])
                for one in found["violations"]
            ]
            assert said == [], name
            assert page.execute_script("return document.documentElement.scrollWidth") <= width, name
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
