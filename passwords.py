"""What a new password must be: long, and not among the first that somebody would try. No list of allowed signs."""

import functools
import re
from pathlib import Path

from flask_babel import gettext

# The longest is in bytes, which are as many characters in plain letters and fewer in others.
SHORTEST, LONGEST = 12, 1024
# Without the words that anybody would guess here, so much must be left.
LEAST_OF_ITS_OWN = 8
FEWEST_SIGNS = 5
# The most used passwords of leaks that became public, small letters, as in the lists of zxcvbn (MIT licence).
_LIST = Path(__file__).resolve().parent / "common_passwords.txt"
_ROWS = ("abcdefghijklmnopqrstuvwxyz" * 2, "01234567890" * 2, "1234567890" * 3, "qwertyuiopasdfghjklzxcvbnm" * 2)
_RUNS = tuple(row for forward in _ROWS for row in (forward, forward[::-1]))


def trouble(password: str, *known: str) -> str:
    """What is wrong with a new password, or "". `known` is what anybody knows of its owner: name, address, the site."""
    if len(password) < SHORTEST:
        return gettext("Use a password of at least %(least)s characters.", least=SHORTEST)
    if len(password.encode()) > LONGEST:
        return gettext("Use a shorter password: this one takes more than %(most)s bytes.", most=f"{LONGEST:,}")
    typed = password.casefold()
    if _is_common(typed) or len(set(typed)) < FEWEST_SIGNS or any(typed in run for run in _RUNS):
        return gettext(
            "This password is among the first that somebody would try. Use another one, such as four unrelated words."
        )
    if len(_without(typed, known)) < LEAST_OF_ITS_OWN:
        return gettext(
            "This password is little more than your name, your address or the name of this site. Use another one."
        )
    return ""


def _is_common(typed: str) -> bool:
    """Whether it is a common one: as it stands, said twice, or with digits and signs around it."""
    half = len(typed) // 2
    bare = re.sub(r"^[\W\d_]+|[\W\d_]+$", "", typed)
    once = typed[:half] if typed[:half] * 2 == typed else typed
    return not {typed, once, bare}.isdisjoint(_common())


def _without(typed: str, known: tuple[str, ...]) -> str:
    words = [word for one in known for word in re.split(r"[\W_]+", one.casefold()) if len(word) >= 3]
    for word in sorted(words, key=len, reverse=True):
        typed = typed.replace(word, "")
    return typed


@functools.cache
def _common() -> frozenset[str]:
    return frozenset(_LIST.read_text(encoding="utf-8").split())
