"""Pence to words and back, through Babel. Money is an integer number of pence everywhere else."""

import re
from decimal import Decimal

from babel.numbers import format_currency

# Pounds as people type them: an optional sign of the currency, thousands with or without commas, and
# nothing, one or two digits of pence. Only ASCII digits, so that no look-alike can slip in.
_TYPED = re.compile(r"£?\s*([0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,9})(\.[0-9]{1,2})?")


class NotMoney(ValueError):
    """The text is not an amount in pounds; the message says what to type instead."""


def pounds(pence: int) -> str:
    """ "£25" for 2500 and "£25.50" for 2550: whole pounds are written without their noughts."""
    amount = Decimal(pence) / 100
    pattern = "¤#,##0" if pence % 100 == 0 else "¤#,##0.00"
    return format_currency(amount, "GBP", pattern, locale="en_GB", currency_digits=False)


def parse_pounds(text: str) -> int:
    """The pence of an amount typed in pounds: "£25", "25.00", " 25 " and "1,000" are understood.

    Raises NotMoney for everything else. Goes through Decimal: a float would turn 19.99 into 1998 pence.
    """
    typed = _TYPED.fullmatch(text.strip())
    if typed is None:
        raise NotMoney("Enter an amount in pounds, like 25 or 25.50.")
    whole, pence = typed.group(1).replace(",", ""), typed.group(2) or ""
    return int(Decimal(whole + pence) * 100)
