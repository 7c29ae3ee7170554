"""What browsers tell of our pages: that one of them has tried to do what its policy forbids. Of that a line is written
into the log, in which nothing is anybody's. This address belongs to the blueprint of the public."""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import structlog
from flask import abort, current_app, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from views import languages, limits
from views.public import public

log = structlog.get_logger()
# What old and new browsers call theirs.
KINDS = ("application/csp-report", "application/reports+json")
# A page that is broken is broken in one way, or in a few.
MOST = 5
_DIRECTIVE = re.compile(r"[a-z-]{1,40}")
_BLOCKED = re.compile(r"https?://[a-z0-9.:-]{1,100}")


@public.post("/policy-reports")
def policy_report() -> tuple[str, int]:
    """Anybody may send anything here, so of it only what one of our own words could be is written down."""
    if request.mimetype not in KINDS:
        abort(415)
    if limits.too_many("policy report"):
        return "", 429
    try:
        told = list(_broken(json.loads(request.get_data())))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        abort(400)
    for page, directive, blocked in told[:MOST]:
        words = {"page": _page(page), "directive": _directive(directive), "blocked": _origin(blocked)}
        log.warning("a page broke its policy", **words)
    return "", 204


def _broken(told: Any) -> Iterator[tuple[str, str, str]]:
    """(page, directive, what was blocked) of each violation in a report of either kind."""
    if isinstance(told, dict):
        one = told["csp-report"]
        directive = one.get("effective-directive") or one.get("violated-directive")
        yield str(one.get("document-uri")), str(directive), str(one.get("blocked-uri"))
        return
    for body in [one["body"] for one in told if one["type"] == "csp-violation"]:
        yield str(body.get("documentURL")), str(body.get("effectiveDirective")), str(body.get("blockedURL"))


def _page(address: str) -> str:
    """The pattern of the page's address, since a private link is known by the address alone."""
    try:
        path = languages.without_any_language(urlsplit(address).path)
        pages = current_app.url_map.bind("")
        try:
            rule, _ = pages.match(path, method="GET", return_rule=True)
        except MethodNotAllowed:
            rule, _ = pages.match(path, method="POST", return_rule=True)
    except (HTTPException, ValueError):
        return "elsewhere"
    return rule.rule


def _directive(said: str) -> str:
    found = _DIRECTIVE.match(said)
    return found.group() if found else "none"


def _origin(said: str) -> str:
    """From where something was to come: a host, or a word of the browsers' own such as inline."""
    if said in ("inline", "eval", "self", "data", "blob", "wasm-eval", "trusted-types-policy", "trusted-types-sink"):
        return said
    found = _BLOCKED.match(said)
    return found.group() if found else "another"
