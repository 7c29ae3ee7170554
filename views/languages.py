"""Which language a page is in. Its address alone says so: /fr/cases/... is the French of /cases/..., so that whatever
is kept anywhere under an address is in one language, and nobody is given what another reader's browser asked for."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from flask import Flask, has_request_context, request
from flask_babel import Babel

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

# As `lang` has them; the first one is what the code is written in and has no address of its own.
LANGUAGES = {"en-GB": "English", "fr": "Français"}
ENGLISH, *OTHERS = LANGUAGES
IN_ENVIRON = "standing.language"
# No pages, or for machines: these have one address whatever language the page is in that names them.
ONE_ADDRESS = {"static", "webhooks.stripe"}


class Site(Flask):
    """Flask, but for addresses that are the same in every language."""

    def url_for(self, endpoint: str, **values: Any) -> str:
        address = super().url_for(endpoint, **values)
        if endpoint in ONE_ADDRESS and has_request_context():
            return address.removeprefix(_prefix(asked_for()))
        return address


def teach(app: Flask) -> None:
    """Give the application its languages, and the templates the words to use them."""
    app.jinja_env.policies["ext.i18n.trimmed"] = True
    Babel(app, default_locale="en_GB", locale_selector=locale)


def asked_for() -> str:
    """The language of the address in use, as `lang` has it; English for letters, jobs and commands."""
    return str(request.environ.get(IN_ENVIRON, ENGLISH)) if has_request_context() else ENGLISH


def locale() -> str:
    """The same, as Babel has it."""
    return asked_for().replace("-", "_")


def address_in(language: str) -> str:
    """Where this very page is in another language. Only for what was asked for with GET."""
    above = request.script_root.removesuffix(_prefix(asked_for()))
    return above + _prefix(language) + request.full_path.rstrip("?")


def _prefix(language: str) -> str:
    return "" if language == ENGLISH else f"/{language}"


class LanguageOfAddress:
    """Takes the language from the front of the path, where WSGI has the part that belongs to no page: whatever writes
    addresses puts it back by itself."""

    def __init__(self, app: "WSGIApplication") -> None:
        self.app = app

    def __call__(self, asked: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
        _, _, rest = asked["PATH_INFO"].partition("/")
        first, _, rest = rest.partition("/")
        if first in OTHERS:
            above = asked.get("SCRIPT_NAME", "")
            asked = {**asked, "SCRIPT_NAME": f"{above}/{first}", "PATH_INFO": f"/{rest}", IN_ENVIRON: first}
        return self.app(asked, start_response)
