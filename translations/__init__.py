"""The languages of the site: what is said in each, and how it is collected. Read by Flask-Babel from the .mo files."""

import datetime as dt
import io
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from babel.messages import mofile, pofile
from babel.messages.catalog import Catalog
from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_dir
from babel.messages.frontend import parse_mapping_cfg

HERE = Path(__file__).resolve().parent
# N_ marks what is translated where it is shown.
KEYWORDS = {
    **DEFAULT_KEYWORDS, "lazy_gettext": None, "lazy_ngettext": (1, 2), "lazy_pgettext": ((1, "c"), 2), "N_": None,
}  # fmt: skip
# A date in a file that is made anew would be all that differs.
NO_DATE = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
LEFT_OUT = (
    rb'^"(?:Project-Id-Version|Report-Msgid-Bugs-To|Last-Translator|Language-Team|'
    rb"POT-Creation-Date|PO-Revision-Date|Generated-By): .*\n"
)


def languages() -> list[str]:
    return sorted(folder.parent.name for folder in HERE.glob("*/LC_MESSAGES"))


def said() -> Catalog:
    """Everything that the programs and the templates say."""
    found = Catalog(charset="utf-8")
    with (HERE.parent / "babel.cfg").open(encoding="utf-8") as mapping:
        methods, options = parse_mapping_cfg(mapping)  # type: ignore[no-untyped-call]
    for _, _, words, _, context in extract_from_dir(HERE.parent, methods, options, KEYWORDS):
        found.add(words, context=context)
    return found


def words_of_table(table: BinaryIO, *_: object, **__: object) -> Iterator[tuple[int, None, str, list[str]]]:
    """What privacy.toml says in words, for Babel, which knows no such file."""
    written = tomllib.load(table)
    named = [words for part in ("people", "bases", "moments") for words in written[part].values()]
    lines = [one[word] for one in written["kept"] for word in ("what", "why", "until") if word in one]
    for words in named + lines:
        yield 1, None, words, []


def translated(language: str) -> Catalog:
    with file(language, "po").open("rb") as written:
        return pofile.read_po(written, locale=language)


def renew(language: str) -> list[str]:
    """Write both files anew, and return what waits for its words."""
    catalog = renewed(language)
    file(language, "po").write_bytes(as_po(catalog))
    file(language, "mo").write_bytes(as_mo(catalog))
    return list(missing(catalog))


def renewed(language: str) -> Catalog:
    """What is said no more is gone, and what is new waits for its words."""
    catalog = translated(language)
    # Nothing is guessed from what is similar: a wrong sentence is worse than an English one.
    catalog.update(said(), no_fuzzy_matching=True)
    catalog.obsolete.clear()
    return catalog


def missing(catalog: Catalog) -> Iterator[str]:
    for message in catalog:
        singular, *_ = message.id if isinstance(message.id, (list, tuple)) else [message.id]
        words = message.string if isinstance(message.string, (list, tuple)) else [message.string]
        if singular and not all(words):
            yield singular


def as_po(catalog: Catalog) -> bytes:
    """One line for each message, in the order of the English, so that two people's work can be put together."""
    written = io.BytesIO()
    pofile.write_po(written, catalog, width=0, no_location=True, sort_output=True)
    return re.sub(LEFT_OUT, b"", written.getvalue(), flags=re.MULTILINE)


def as_mo(catalog: Catalog) -> bytes:
    catalog.creation_date = catalog.revision_date = NO_DATE
    written = io.BytesIO()
    mofile.write_mo(written, catalog)
    return written.getvalue()


def file(language: str, kind: str) -> Path:
    return HERE / language / "LC_MESSAGES" / f"messages.{kind}"
