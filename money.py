"""Pence to words and back, through Babel, as the language of the page has it; English where there is no page.

Money is an integer number of pence everywhere else.
"""

import functools
import re
from decimal import Decimal

from babel.numbers import format_decimal
from flask_babel import get_locale, gettext

# Pounds as people type them: an optional sign of the currency, thousands with or without commas, and
# nothing, one or two digits of pence. Only ASCII digits, so that no look-alike can slip in.
_TYPED = re.compile(r"£?\s*([0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,9})(\.[0-9]{1,2})?")


class NotMoney(ValueError):
    """The text is not an amount in pounds; the message says what to type instead."""


# French, and most of Europe, sets the sign behind the figure, spaces for thousands and a comma before the pence.
_TYPED_IN_EUROPE = re.compile(r"([0-9]{1,3}(?:\s[0-9]{3})+|[0-9]{1,9})(?:,([0-9]{1,2}))?\s*£?")


def pounds(pence: int, language: str = "") -> str:
    """ "£25" for 2500 and "£25.50" for 2550: whole pounds are written without their noughts."""
    language = language or _language()
    sign = ("£", "") if language.startswith("en") else ("", "\u00a0£")
    return f"{'-' if pence < 0 else ''}{sign[0]}{figure(abs(pence), language)}{sign[1]}"


def figure(pence: int, language: str = "") -> str:
    """The same without the sign of the currency, as somebody would type it into a form."""
    return _figure(pence, language or _language())


@functools.lru_cache(maxsize=4096)
def _figure(pence: int, language: str) -> str:
    """Kept, since a page may have hundreds of figures, and a pledge has four of the same in its agreement."""
    pattern = "#,##0" if pence % 100 == 0 else "#,##0.00"
    return str(format_decimal(Decimal(pence) / 100, pattern, locale=language))


def _language() -> str:
    return str(get_locale() or "en_GB")


def parse_pounds(text: str) -> int:
    """The pence of an amount typed in pounds: "£25", "25.00", " 25 " and "1,000" are understood, and on a page that is
    not in English also "25,00" and "1 000 £".

    Raises NotMoney for everything else. Goes through Decimal: a float would turn 19.99 into 1998 pence.
    """
    in_europe = not _language().startswith("en")
    if in_europe and (typed := _TYPED_IN_EUROPE.fullmatch(text.strip())):
        whole = re.sub("[^0-9]", "", typed.group(1))
        return int(Decimal(f"{whole}.{typed.group(2) or '0'}") * 100)
    typed = _TYPED.fullmatch(text.strip())
    # There "5,250" may be a little over five pounds or more than five thousand: nobody's card should depend on a guess.
    if typed is None or (in_europe and "," in text):
        raise NotMoney(gettext("Enter an amount in pounds, like 25 or 25.50."))
    whole, pence = typed.group(1).replace(",", ""), typed.group(2) or ""
    return int(Decimal(whole + pence) * 100)
