"""The page as one HTML document: its text, style and scripts, and a policy that lets nothing else run."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from typing import Literal

SCRIPTS = (
    "statistics.js", "source.js", "data.js", "pictures.js", "plane.js", "grid.js", "bits.js", "example.js",
    "views.js", "page.js",
)  # fmt: skip
Source = Literal["file", "site", "live"]


def document_around_data(title: str, source: Source, origin: str = "'self'") -> tuple[str, str]:
    """Return what comes before and after the data of a page that has them from such a source.

    Nothing but the page's own scripts may run, whatever the data says: the policy has their hash. A page
    that loads may do so from ``origin`` alone.
    """
    page = resources.files("memdb.look") / "page"
    style = (page / "page.css").read_text("utf-8")
    script = "".join((page / name).read_text("utf-8") for name in SCRIPTS)
    loads = "" if source == "file" else f"connect-src {origin}; worker-src blob:; "
    policy = (
        f"default-src 'none'; img-src blob: data:; {loads}style-src '{_sha256(style)}'; "
        f"script-src '{_sha256(script)}'; base-uri 'none'; form-action 'none'"
    )
    html = (page / "index.html").read_text("utf-8")
    for mark, text in (
        ("<!-- source -->", source),
        ("<!-- policy -->", f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        ("<!-- title -->", f"<title>memdb: {_escaped(title)}</title>"),
        ("<!-- style -->", f"<style>{style}</style>"),
        ("<!-- script -->", f"<script>{script}</script>"),
    ):
        html = html.replace(mark, text, 1)
    before, after = html.split("<!-- data -->")
    return before, after


def inert(name: str, text: str) -> str:
    """Return an element that browsers keep as text; its id is unique on the page."""
    return f'<script type="text/plain" id="data/{name}">{text}</script>\n'


def inert_json(name: str, value: object) -> str:
    """Return such an element of JSON that no HTML parser sees a tag in."""
    return inert(name, json.dumps(value, allow_nan=False).replace("<", "\\u003c"))


def base64_of(data: bytes) -> str:
    """Return bytes as text."""
    return base64.b64encode(data).decode("ascii")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _sha256(text: str) -> str:
    return f"sha256-{base64_of(hashlib.sha256(text.encode()).digest())}"
