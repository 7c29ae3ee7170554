# What we use of Flask-Babel, which brings no types. What is lazy is a str wherever a reader sees it.

from collections.abc import Callable
from contextlib import AbstractContextManager

from babel import Locale
from flask import Flask

class Babel:
    def __init__(
        self,
        app: Flask,
        *,
        default_locale: str,
        default_translation_directories: str = ...,
        locale_selector: Callable[[], str],
    ) -> None: ...

def LazyString(told: Callable[..., str], /, *said: object) -> str: ...  # noqa: N802 - a class of theirs
def get_locale() -> Locale | None: ...
def force_locale(locale: str) -> AbstractContextManager[None]: ...
def gettext(string: str, /, **values: object) -> str: ...
def ngettext(singular: str, plural: str, num: int, /, **values: object) -> str: ...
def lazy_gettext(string: str, /, **values: object) -> str: ...
def lazy_ngettext(singular: str, plural: str, num: int, /, **values: object) -> str: ...
