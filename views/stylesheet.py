"""What a page carries of our one stylesheet: readers' pages the part that readers need, every other page the whole."""

import functools
import re
from pathlib import Path

from flask import Flask, request
from markupsafe import Markup

FILE = Path(__file__).parent.parent / "static" / "site.css"
# Where the stylesheet ends for readers.
READERS_END = "/* For readers it ends here."
# The rooms of readers, whose pages carry it up to there. A page of any other room, or of none, has all of it.
READERS_ROOMS = ("public", "supporters")
# And so have these two, which few open: what they need would burden every reader.
BUT_WHOLE = ("public.poster", "public.comment_decisions")


def parts() -> tuple[str, str]:
    """The part that readers need, and the whole.

    Comments and lines are for its authors, and a tenth of a slow page."""
    written = FILE.read_text(encoding="utf-8")
    for_readers, _ = written.split(READERS_END)
    return _squeezed(for_readers), _squeezed(written)


def give_to_pages(app: Flask) -> None:
    """Pages ask for it by `site_css()`; the policy names the hash of either part."""
    app.add_template_global(functools.partial(_site_css, *map(Markup, app.config["SITE_CSS"])), "site_css")


def _squeezed(css: str) -> str:
    return re.sub(r"/\*.*?\*/|\s+", " ", css, flags=re.DOTALL)


def _site_css(for_readers: Markup, whole: Markup) -> Markup:
    """What the page of this request carries."""
    return for_readers if request.blueprint in READERS_ROOMS and request.endpoint not in BUT_WHOLE else whole
