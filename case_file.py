"""A case as a text file, for `flask create-case` and for the demonstration.

Lines of `Name: words`, an empty line, then the story in Markdown:

    Title: Challenging the real-time collection of pupils' data
    Slug: dfe-real-time-data
    Owner: owner@example.org
    Target: £6,000
    Deadline: 2026-12-10 02:00
    Zone: Europe/London
    Summary: One or two sentences for lists.
    Firm: Who acts for you.
    Lawyer: The person there.
    Regulator-number: SRA 000000
    Topic: One of the words of law.TOPICS, such as privacy.
    Court: Where the case is, or will be.
    Stage: How far it has come.

    ## What is going on

    The story ...

`Zone` may be left out (the site's own is taken), and so may all from `Summary` on. The deadline is the time on the
wall in that zone; a time that daylight saving makes missing or double is refused.
"""

import datetime as dt
import re
from dataclasses import dataclass
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import law
from money import NotMoney, parse_pounds

_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_NEEDED = ("Title", "Slug", "Owner", "Target", "Deadline")
_OPTIONAL = ("Summary", "Firm", "Lawyer", "Regulator-number", "Topic", "Court", "Stage")
_NAMES = (*_NEEDED, "Zone", *_OPTIONAL)


@dataclass(frozen=True)
class CaseFile:
    """What the file says. The target is in pence, the deadline an instant; `words` are columns of the case."""

    title: str
    slug: str
    owner: str
    target_pence: int
    deadline: dt.datetime
    zone: str
    words: dict[str, str]


def read(text: str, zone: str) -> CaseFile:
    """The case of a file's text; raises Refused with the line that is wrong."""
    if "\0" in text:
        raise law.Refused("The file contains a character that is no text, as pictures and office documents do.")
    head, _, story = text.strip().partition("\n\n")
    said = _lines(head)
    for name in _NEEDED:
        if not said.get(name):
            raise law.Refused(f"The file has no line “{name}: …”.")
    if not story.strip():
        raise law.Refused("The file has no story: write it below the lines, after an empty one.")
    if not _SLUG.fullmatch(said["Slug"]):
        raise law.Refused("Slug: use small letters, digits and hyphens.")
    limits = {"Title": law.LONGEST_TITLE, "Slug": law.LONGEST_SLUG, **dict.fromkeys(_OPTIONAL[1:], law.LONGEST_LINE)}
    for name, most in limits.items():
        if len(said.get(name, "")) > most:
            raise law.Refused(f"{name}: use at most {most} characters.")
    if said.get("Topic") and said["Topic"] not in law.TOPICS:
        raise law.Refused(f"Topic: write one of {', '.join(law.TOPICS)}.")
    where = said.get("Zone") or zone
    return CaseFile(
        title=said["Title"], slug=said["Slug"], owner=said["Owner"], target_pence=_target(said["Target"]),
        deadline=_deadline(said["Deadline"], where), zone=where,
        words={name.lower().replace("-", "_"): said.get(name, "") for name in _OPTIONAL} | {"story": story.strip()},
    )  # fmt: skip


def _lines(head: str) -> dict[str, str]:
    """What each line says. A line with an unknown name is refused, since it was meant to say something."""
    said: dict[str, str] = {}
    for number, line in enumerate(head.splitlines(), 1):
        name, colon, words = line.partition(":")
        if not colon or name not in _NAMES:
            raise law.Refused(f"Line {number}: begin with one of {', '.join(_NAMES)} and a colon, not “{line[:40]}”.")
        if name in said:
            raise law.Refused(f"Line {number}: there is a line “{name}” above already.")
        said[name] = " ".join(words.split())
    return said


def _target(typed: str) -> int:
    try:
        pence = parse_pounds(typed)
    except NotMoney as wrong:
        raise law.Refused(f"Target: {wrong}") from wrong
    if not 0 < pence <= law.LARGEST_TARGET:
        raise law.Refused("Target: it must be more than nothing and at most £1,000,000.")
    return pence


def _deadline(typed: str, zone: str) -> dt.datetime:
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as unknown:
        raise law.Refused("Zone: write a time zone, such as Europe/London.") from unknown
    try:
        local = dt.datetime.strptime(typed, "%Y-%m-%d %H:%M")  # noqa: DTZ007 - a wall clock's time
        return law.deadline_from_local(local, zone)
    except ValueError as wrong:
        raise law.Refused("Deadline: write it like 2026-12-10 02:00.") from wrong
    except law.Refused as wrong:
        raise law.Refused(f"Deadline: {wrong}") from wrong
