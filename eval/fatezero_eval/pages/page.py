"""From data to one HTML file.

Texts from outside reach the page only as JSON, which the script puts on the page as text. A content
security policy names the page's own style and script by their digests and forbids everything else, requests included.
"""

from __future__ import annotations

import html
import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from string import Template
from typing import Any

from fatezero_eval.pages.media import Media


@dataclass(frozen=True)
class Looks:
    """What draws a page: files of the template, in order.

    Attributes:
        styles: CSS files.
        scripts: JavaScript files.
    """

    styles: tuple[str, ...]
    scripts: tuple[str, ...]


RUN_LOOKS = Looks(
    ("page.css",),
    ("elements.js", "basics.js", "address.js", "plots.js", "tables.js", "viewer.js", "gallery.js", "main.js"),
)


def fill(document: Mapping[str, Any], media: Media, looks: Looks = RUN_LOOKS) -> str:
    """The page.

    Args:
        document: what the page says, with its `name`.
        media: what it refers to by number.
        looks: what draws it.
    """
    style = "".join(map(_template, looks.styles))
    script = '"use strict";\n' + "\n".join(map(_template, looks.scripts))
    blocks = (f'<script type="text/plain" id="media-{number}">{text}</script>' for text, number in media.texts.items())
    return Template(_template("page.html")).substitute(
        title=html.escape(str(document["name"])),
        style_digest=_digest(style),
        script_digest=_digest(script),
        style=style,
        script=script,
        data=embedded(document),
        media="\n".join(blocks),
    )


def embedded(values: Any) -> str:
    """JSON that may stand inside a script element: nothing in it can end the element or begin a comment."""
    text = json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _template(name: str) -> str:
    return (files(__package__) / "template" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + b64encode(sha256(text.encode("utf-8")).digest()).decode("ascii")
