"""HTML out of people's own words, and the addresses in them. `views/words.py` loads this when a page needs it."""

from typing import Any

import nh3
from linkify_it import LinkifyIt
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup, escape

_SCHEMES = {"http", "https", "mailto"}
_linkify = LinkifyIt()
_TAGS = {
    "p", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "strong", "em", "s", "a", "code", "pre",
    "hr", "br", "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip


class _Markdown(MarkdownIt):
    """Markdown of people whom we do not know."""

    def validateLink(self, url: str) -> bool:  # noqa: N802 - the library's name
        """What is no link to a page or an address stays text, as it was typed."""
        scheme, colon, _ = url.partition(":")
        return not colon or "/" in scheme or scheme.lower() in _SCHEMES


def _described(renderer: RendererHTML, tokens: list[Token], number: int, *_: object) -> str:
    """A picture in words."""
    return escape(tokens[number].content)


_markdown = _Markdown("js-default")
_markdown.add_render_rule("image", _described)


def clean(text: str, top: int) -> Markup:
    """Markdown as HTML that does nothing; headings begin at `top`."""
    tokens = _markdown.parse(text)
    _seat_headings(tokens, top)
    html = _markdown.renderer.render(tokens, _markdown.options, {})
    cleaned = nh3.clean(
        html,
        tags=_TAGS,
        attributes={"a": {"href", "title"}, "ol": {"start"}},
        url_schemes=_SCHEMES,
        link_rel="nofollow ugc noopener noreferrer",
    )
    return Markup(cleaned)  # noqa: S704 - nh3 has just cleaned it


def links(line: str) -> list[Any]:
    """Where web addresses stand in a line of plain text, in order."""
    return _linkify.match(line) or []


def _seat_headings(tokens: list[Token], top: int) -> None:
    """Give each heading the level that a listener needs, whatever its author began with: none is left out."""
    used, level = sorted({token.tag for token in tokens if token.type == "heading_open"}), top - 1
    for token in tokens:
        if token.type == "heading_open":
            level = min(top + used.index(token.tag), level + 1, 6)
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{level}"
