"""Which language a page is in. Its address alone says so: /fr/cases/... is the French of /cases/..., so that whatever
is kept anywhere under an address is in one language, and nobody is given what another reader's browser asked for.
See docs/decisions/0035.
"""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from flask import Flask, current_app, g, has_request_context, redirect, request, url_for
from flask_babel import Babel, gettext
from markupsafe import Markup
from werkzeug.wrappers import Response as AnyResponse

import config

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

# As `lang` has them; the first one is what the code is written in and has no address of its own.
LANGUAGES = {"en-GB": "English", "fr": "Français"}
ENGLISH, *OTHERS = LANGUAGES
PREFIXES = ("", *(f"/{one}" for one in OTHERS))
# What the address of a page may begin with, as a pattern.
ANY_PREFIX = f"(?:/(?:{'|'.join(OTHERS)}))?"
IN_ENVIRON, IS_BARE = "standing.language", "standing.language.bare"
# For machines, or the same in every language: these have one address, whatever language the page is in that names them.
ONE_ADDRESS = {
    "static", "webhooks.stripe", "public.picture", "public.favicon", "public.health", "public.robots",
    "public.site_map", "public.policy_report", "public.cases_feed", "public.updates_feed",
}  # fmt: skip


class Site(Flask):
    """Flask, but for addresses that are the same in every language."""

    def url_for(self, endpoint: str, **values: Any) -> str:
        address = super().url_for(endpoint, **values)
        return without_language(address) if endpoint in ONE_ADDRESS else address


def teach(app: Flask) -> None:
    """Give the application its languages, and the templates the words to use them."""
    app.jinja_env.policies["ext.i18n.trimmed"] = True
    Babel(app, default_locale="en_GB", locale_selector=locale)
    app.add_template_global(asked_for, "language")
    app.add_template_global(in_other_languages)
    app.add_template_global(alternates)
    app.add_template_global(canonical)
    app.add_template_global(as_typed)
    app.add_template_global(marked)
    app.add_template_global(with_title_marked)


def lead_to_its_address() -> AnyResponse | None:
    """What has one address is not read under another one, where it would be kept, and listed, a second time."""
    if asked_for() == ENGLISH or request.method not in ("GET", "HEAD") or request.endpoint is None:
        return None
    is_bare = request.environ.get(IS_BARE) and request.endpoint == "public.home"
    if request.endpoint not in ONE_ADDRESS and not is_bare:
        return None
    address = url_for(request.endpoint, **request.view_args or {})
    asked = request.query_string.decode("ascii", "replace")
    return redirect(f"{address}?{asked}" if asked else address, 301)


def asked_for() -> str:
    """The language of the address in use, as `lang` has it; English for letters, jobs and commands."""
    return str(request.environ.get(IN_ENVIRON, ENGLISH)) if has_request_context() else ENGLISH


def locale() -> str:
    """The same, as Babel has it."""
    return asked_for().replace("-", "_")


def in_other_languages() -> list[tuple[str, str, str]]:
    """(language, its name, address) of this very page in each other language."""
    return [(one, name, _address_in(one)) for one, name in LANGUAGES.items() if one != asked_for()]


def alternates() -> list[tuple[str, str]]:
    """(language, whole address) of a page that is for everybody, for search engines; of other pages there are none."""
    if not _is_got() or _known_names() is None:
        return []
    site = config.current().site_url
    return [*((one, site + _address_in(one)) for one in LANGUAGES), ("x-default", site + _address_in(ENGLISH))]


def canonical() -> str:
    """The one whole address of a page that is for everybody, without what makes no difference to it; "" of others."""
    return config.current().site_url + _address_in(asked_for()) if _is_got() and _known_names() is not None else ""


def as_typed(language: str = ENGLISH) -> Markup:
    """Marks what people have typed, which is not translated, on pages in another language than theirs; so it does the
    English of the books, which is not either."""
    return Markup("") if asked_for() == language else Markup(' lang="{}"').format(language)


def marked(words: str, language: str = ENGLISH) -> str:
    """What people have typed within a sentence of ours, marked where that is in another language."""
    mark = as_typed(language)
    return Markup("<span{}>{}</span>").format(mark, words) if words and mark else words


def with_title_marked(sentence: str, title: str) -> str:
    """A sentence that the books keep word for word, with the title that it quotes marked on a page."""
    before, quoted, after = sentence.partition(gettext("“%(title)s”", title=title))
    opens, closes = quoted.split(title, 1) if quoted else ("", "")
    return Markup("{}{}{}{}{}").format(before, opens, marked(title) if quoted else "", closes, after)


def without_language(address: str) -> str:
    """An address of ours, from the first slash on, without its language. What is not in one is as it was."""
    prefix = _prefix(asked_for())
    above = request.script_root.removesuffix(prefix) if has_request_context() else ""
    return above + address.removeprefix(above + prefix) if address.startswith(above + prefix + "/") else address


def without_any_language(path: str) -> str:
    """The path of a page, whichever language it is in."""
    return re.sub(f"^{ANY_PREFIX}(?=/)", "", path)


def _address_in(language: str) -> str:
    """Where this page is in that language; the first page of all in the place of what is no page to go to."""
    above = request.script_root.removesuffix(_prefix(asked_for()))
    if not _is_got():
        return f"{above}{_prefix(language)}/"
    known = _known_names()
    asked = urlencode([(name, value) for name, value in request.args.items() if known is None or name in known])
    return f"{above}{_prefix(language)}{quote(request.path)}" + (f"?{asked}" if asked else "")


def _is_got() -> bool:
    """Whether this is a page that can be gone to."""
    return request.method in ("GET", "HEAD") and request.url_rule is not None and not g.get("is_trouble")


def _known_names() -> Iterable[str] | None:
    """The names of the query that make a difference to a page that is for everybody; None of any other page."""
    known: Iterable[str] | None = getattr(current_app.view_functions.get(request.endpoint or ""), "kept", None)
    return known


def _prefix(language: str) -> str:
    return "" if language == ENGLISH else f"/{language}"


class LanguageOfAddress:
    """Takes the language from the front of the path, where WSGI has the part that belongs to no page: whatever writes
    addresses puts it back by itself."""

    def __init__(self, app: "WSGIApplication") -> None:
        self.app = app

    def __call__(self, asked: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
        _, _, path = asked["PATH_INFO"].partition("/")
        first, _, rest = path.partition("/")
        if first in OTHERS:
            above = asked.get("SCRIPT_NAME", "")
            is_bare = path == first
            asked = {**asked, "SCRIPT_NAME": f"{above}/{first}", "PATH_INFO": f"/{rest}", IN_ENVIRON: first,
                     IS_BARE: is_bare}  # fmt: skip
        return self.app(asked, start_response)
