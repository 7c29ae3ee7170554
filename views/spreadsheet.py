"""Tables as files that spreadsheets open (CSV). What strangers typed must not be worked out there as a formula."""

import csv
import io
from collections.abc import Iterable, Sequence

# With what a formula may begin, in any spreadsheet; the wide forms are taken for the same in some.
_BEGINNINGS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
# Spreadsheets may look behind these.
_PASSED_OVER = " \u00a0\"'`\u201c\u201d\u2018\u2019"


def as_csv(head: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    """In UTF-8 with the mark by which Excel knows it."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(head)
    writer.writerows([harmless(cell) for cell in row] for row in rows)
    return file.getvalue().encode("utf-8-sig")


def harmless(cell: str) -> str:
    """The text, with an apostrophe before it if a spreadsheet could take it for a formula."""
    begins = cell.lstrip(_PASSED_OVER)
    is_formula = begins.startswith(_BEGINNINGS) or cell.lstrip(" ").startswith(("\t", "\r", "\n"))
    return f"'{cell}" if is_formula else cell
