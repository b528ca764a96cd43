"""``report.html``: the page of a sweep, a choice or a run."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...utils.files import atomic_write
from ..entries import Entry
from .content import make_content
from .parts import Content
from .source import open_source

__all__ = ["PAGE", "render", "write_page"]

PAGE = "report.html"
HERE = Path(__file__).parent


def write_page(folder: Path, entries: Sequence[Entry] | None = None) -> Path:
    """Write ``report.html`` into the folder of a sweep, a choice or a run; runs may be training.

    Args:
        folder: of a choice, which has ``choice.json``; of a run; or of a sweep.
        entries: of the leaderboard of a sweep, if they are known.

    Returns:
        The file.

    Raises:
        ConfigError: the folder is none of the three.
    """
    content = make_content(open_source(folder, entries))
    with atomic_write(folder / PAGE) as partial:
        partial.write_bytes(render(content))
    return folder / PAGE


def render(content: Content, version: str = "") -> bytes:
    """The page as HTML in UTF-8.

    Args:
        content: what it shows.
        version: of the content, if the page is served and asks for later versions; "": it does not.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    scripts = [(HERE / "page.js").read_text(encoding="utf-8")]
    if content.figures:
        from plotly.offline import get_plotlyjs

        scripts.insert(0, get_plotlyjs())
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    data = {"figures": content.figures, "images": content.images, "configs": content.configs}
    html = environment.get_template("template.html").render(
        page=content,
        live=version,
        policy=_policy(scripts, bool(version)),
        style=Markup((HERE / "style.css").read_text(encoding="utf-8")),
        data=Markup(_embedded(data)),
        plotly=Markup(scripts[0]) if content.figures else "",
        script=Markup(scripts[-1]),
    )
    return html.encode("utf-8", errors="replace")


def _embedded(data: dict[str, Any]) -> str:
    """JSON that may stand inside of an element ``script``: no text in it ends the element."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(scripts: Sequence[str], live: bool) -> str:
    """A content security policy: only these scripts run, and the page asks no address for anything.

    Nothing that a name of a class or a file might smuggle into the page would run.
    """
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    sources = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {sources}",
            "style-src 'unsafe-inline'",
            "img-src data: blob:",
            f"connect-src {chr(39)}{'self' if live else 'none'}{chr(39)}",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
