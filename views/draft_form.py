"""The form of a draft: anything in it may be empty. What is wrong is told at its field, and the rest can be kept."""

import datetime as dt
import re
from collections.abc import Iterator
from typing import Any, ClassVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from flask_babel import gettext, lazy_gettext
from wtforms import (  # type: ignore[attr-defined]  # its types are older than it is
    FileField,
    Form,
    SelectChoice,
    SelectField,
    StringField,
    TextAreaField,
)
from wtforms.fields import FieldList, FormField
from wtforms.validators import ValidationError

import config
import law
from law import Refused
from models import Case, Round
from money import NotMoney, figure, parse_pounds
from views.forms import AtMost, Readable, Told, TypedForm, trim, unix_lines

ROWS_AT_FIRST, MORE_ROWS, REPORT_ROWS = 4, 4, 8
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_TIME = re.compile(r"([01]?[0-9]|2[0-3])[:.]([0-5][0-9])", re.ASCII)
_DAYS_FIRST = re.compile(r"([0-9]{1,2})[/.]([0-9]{1,2})[/.]([0-9]{4})", re.ASCII)
# These speak of one thing together: while one is wrong, none is stored.
END = ("days", "end_date", "end_time", "zone")


def _line(label: str, most: int = law.LONGEST_LINE) -> StringField:
    return StringField(label, [Readable(), AtMost(most)], filters=[trim])


def _words(label: str, most: int) -> TextAreaField:
    return TextAreaField(label, [Readable(lines=True), AtMost(most)], filters=[unix_lines])


class BudgetRow(Form):
    """One thing that the money is for. `pence` is None while there is no amount."""

    words = _line(lazy_gettext("What for"))
    amount = StringField(lazy_gettext("Cost, in pounds"), [Readable()], filters=[trim])

    pence: int | None = None

    def validate_amount(self, field: Any) -> None:
        if field.data:
            self.pence = _pence(field.data)
            if not 0 < self.pence <= law.LARGEST_TARGET:
                raise ValidationError(gettext("A cost must be more than nothing and at most £1,000,000."))


class DocumentRow(Form):
    """A document that anybody can open."""

    title = _line(lazy_gettext("What it is"))
    url = _line(lazy_gettext("Its address, beginning with https://"), law.LONGEST_URL)

    def validate_url(self, field: Any) -> None:
        if field.data and not _is_web_address(field.data):
            raise ValidationError(
                gettext("Enter the whole address of a page or a file, like https://example.org/letter.pdf.")
            )


class TitleForm(TypedForm):
    """How a draft begins."""

    title = StringField(
        lazy_gettext("What is the case called?"),
        [Told(lazy_gettext("Enter a title.")), Readable(), AtMost(law.LONGEST_TITLE)],
        filters=[trim],
    )  # fmt: skip


class PictureForm(TypedForm):
    """A picture and what it shows. The file itself is looked at by the view."""

    file = FileField(lazy_gettext("Picture"))
    alt = StringField(
        lazy_gettext("What the picture shows"),
        [Told(lazy_gettext("Say what the picture shows.")), Readable(), AtMost(law.LONGEST_SUMMARY)],
        filters=[trim],
    )  # fmt: skip


class TableForm(TypedForm):
    """A form with tables in it."""

    def error_list(self) -> list[tuple[str, str]]:
        """As for any form; of a table each cell that is wrong is named with its row."""
        return [(field.id, words) for field, words in self._errors()]

    def _errors(self) -> Iterator[tuple[Any, str]]:
        for field in self:
            if not isinstance(field, FieldList):
                yield from ((field, str(error)) for error in field.errors[:1])
                continue
            for number, row in enumerate(field, 1):
                yield from (
                    (cell, gettext("Line %(number)s: %(error)s", number=number, error=cell.errors[0]))
                    for cell in row.form
                    if cell.errors
                )


class DraftForm(TableForm):
    """All that a draft holds. Validate it with `holds_at`, since an end may be right today and wrong tomorrow."""

    title = _line(lazy_gettext("Title"), law.LONGEST_TITLE)
    slug = _line(lazy_gettext("Address of the page"), law.LONGEST_SLUG)
    summary = _words(lazy_gettext("Summary"), law.LONGEST_SUMMARY)
    topic = SelectField(
        lazy_gettext("Topic"),
        choices=[
            SelectChoice("", lazy_gettext("Choose one")),
            *(SelectChoice(one, lazy_gettext(words)) for one, words in law.TOPICS.items()),
        ],
        validate_choice=False,
    )
    story = _words(lazy_gettext("The story"), law.LONGEST_STORY)
    who_we_are = _words(lazy_gettext("Who you are"), law.LONGEST_PART)
    firm = _line(lazy_gettext("Firm or law centre"))
    lawyer = _line(lazy_gettext("Name of the lawyer"))
    regulator_number = _line(lazy_gettext("Number with the regulator"))
    court = _line(lazy_gettext("Court or tribunal"))
    stage = _line(lazy_gettext("Stage of the case"))
    risks = _words(lazy_gettext("Risks"), law.LONGEST_PART)
    target = StringField(lazy_gettext("Target, in pounds"), [Readable()], filters=[trim])
    budget = FieldList(FormField(BudgetRow), min_entries=ROWS_AT_FIRST, max_entries=law.MOST_ROWS)
    days = StringField(lazy_gettext("Length, in days"), [Readable()], filters=[trim])
    end_date = StringField(lazy_gettext("Or: date of the end"), [Readable()], filters=[trim])
    end_time = StringField(lazy_gettext("Time of the end"), [Readable()], filters=[trim])
    zone = _line(lazy_gettext("Time zone"), 60)
    links = FieldList(FormField(DocumentRow), min_entries=ROWS_AT_FIRST, max_entries=law.MOST_ROWS)

    # Fields that are columns as they are.
    PLAIN: ClassVar = ("title", *(name for name in law.NEEDED_WORDS if name != "title"))

    pence: int | None = None
    length: int | None = None
    end: dt.datetime | None = None
    as_of: dt.datetime | None = None

    @classmethod
    def of(cls, case: Case) -> "DraftForm":
        """The form of what the case holds now."""
        local = case.wanted_end.astimezone(ZoneInfo(case.zone)) if case.wanted_end else None
        return cls(data={
            **{name: getattr(case, name) for name in (*cls.PLAIN, "slug", "zone")},
            "target": _typed(case.wanted_pence),
            "budget": [{"words": line.words, "amount": _typed(line.pence)} for line in case.budget],
            "links": [{"title": link.title, "url": link.url} for link in case.links],
            "days": str(case.wanted_days or ""),
            "end_date": f"{local:%Y-%m-%d}" if local else "",
            "end_time": f"{local or law.HOUR_OF_END:%H:%M}",
        })  # fmt: skip

    def show_rows(self, name: str, count: int) -> None:
        """So many rows of a table, empty ones at its end, but never more than there may be."""
        table: FieldList[Any] = getattr(self, name)
        for _ in range(self.rows(name), min(count, law.MOST_ROWS)):
            table.append_entry()

    def rows(self, name: str) -> int:
        """How many rows of a table it shows."""
        table: FieldList[Any] = getattr(self, name)
        return len(table)

    def holds_at(self, as_of: dt.datetime) -> bool:
        """Whether everything that is written can be kept at this instant."""
        self.as_of = as_of
        right = self.validate()
        if not any(self[name].errors for name in END):
            self._read_end(as_of)
        return right and not any(self[name].errors for name in END)

    def validate_slug(self, field: Any) -> None:
        if field.data and not _SLUG.fullmatch(field.data):
            raise ValidationError(gettext("Use small letters, digits and hyphens, like whose-data."))

    def validate_topic(self, field: Any) -> None:
        if field.data and field.data not in law.TOPICS:
            raise ValidationError(gettext("Choose one of the topics in the list."))

    def validate_target(self, field: Any) -> None:
        if not field.data:
            return
        pence = _pence(field.data)
        try:
            law.check_target(pence)
        except Refused as wrong:
            raise ValidationError(str(wrong)) from wrong
        self.pence = pence

    def validate_days(self, field: Any) -> None:
        if not field.data:
            return
        most = law.LONGEST_ROUND.days
        if not (field.data.isascii() and field.data.isdecimal() and 1 <= int(field.data[:9]) <= most):
            raise ValidationError(gettext("Enter a number of days from 1 to %(most)s.", most=most))
        self.length = int(field.data)

    def validate_end_date(self, field: Any) -> None:
        if field.data and self.days.data:
            raise ValidationError(gettext("Enter either a length or a date, not both."))
        if field.data:
            _date(field.data)

    def validate_end_time(self, field: Any) -> None:
        if field.data and not _TIME.fullmatch(field.data):
            raise ValidationError(gettext("Enter a time like 20:00."))

    def validate_zone(self, field: Any) -> None:
        """Left empty it is the site's own."""
        field.data = field.data or config.current().display_zone
        try:
            law.deadline_from_local(dt.datetime(2000, 1, 1, 12), field.data)  # noqa: DTZ001 - a wall clock's time
        except Refused as unknown:
            raise ValidationError(str(unknown)) from unknown

    def _read_end(self, as_of: dt.datetime) -> None:
        """The instant of a date and a time on the wall of the zone, if a round that begins now could end then."""
        if not self.end_date.data:
            return
        time = self.end_time.data or f"{law.HOUR_OF_END:%H:%M}"
        try:
            end = _on_the_wall(self.end_date.data, time, str(self.zone.data))
        except (Refused, OverflowError) as wrong:
            self.end_time.errors = [str(wrong)]
            return
        try:
            law.check_deadline(end, as_of)
        except Refused as wrong:
            self.end_date.errors = [str(wrong)]
            return
        self.end = end

    def values(self) -> dict[str, Any]:
        """What can be kept, by the names of the case. A wrong field is left out, and its table or its end with it."""
        kept: dict[str, Any] = {name: self[name].data or "" for name in self.PLAIN if not self[name].errors}
        if not self.slug.errors:
            kept["slug"] = self.slug.data or ""
        if not self.target.errors:
            kept["wanted_pence"] = self.pence
        if not any(self[name].errors for name in END):
            kept |= {"wanted_days": self.length, "wanted_end": self.end, "zone": self.zone.data}
        if not self.budget.errors:
            rows = [(row.form.words.data or "", row.form.pence) for row in self.budget]
            kept["budget"] = [row for row in rows if any(row)]
        if not self.links.errors:
            documents = [(row.form.title.data or "", row.form.url.data or "") for row in self.links]
            kept["links"] = [row for row in documents if any(row)]
        return kept


class LiveFromForm(TypedForm):
    """When an approved case goes live, on the clock of its zone."""

    date = StringField(lazy_gettext("Date"), [Told(lazy_gettext("Enter a date.")), Readable()], filters=[trim])
    time = StringField(lazy_gettext("Time"), [Told(lazy_gettext("Enter a time.")), Readable()], filters=[trim])

    def validate_date(self, field: Any) -> None:
        _date(field.data)

    def validate_time(self, field: Any) -> None:
        if not _TIME.fullmatch(field.data):
            raise ValidationError(gettext("Enter a time like 20:00."))

    def instant(self, zone: str) -> dt.datetime | None:
        """The instant that was typed; None, with the words at the field, when there is none."""
        if not self.validate():
            return None
        try:
            return _on_the_wall(self.date.data or "", self.time.data or "", zone)
        except (Refused, OverflowError) as wrong:
            self.time.errors = [str(wrong)]
            return None


class PromiseForm(LiveFromForm):
    """Another deadline or target for a round, and why; filled in with those of now."""

    date = StringField(
        lazy_gettext("New deadline: date"), [Told(lazy_gettext("Enter a date.")), Readable()], filters=[trim]
    )
    time = StringField(
        lazy_gettext("New deadline: time"), [Told(lazy_gettext("Enter a time.")), Readable()], filters=[trim]
    )
    target = StringField(
        lazy_gettext("New target, in pounds"), [Told(lazy_gettext("Enter the target.")), Readable()], filters=[trim]
    )
    reason = TextAreaField(
        lazy_gettext("Why the promise should change"),
        [Told(lazy_gettext("Say why the promise should change.")), Readable(lines=True), AtMost(law.LONGEST_REASON)],
        filters=[unix_lines],
    )  # fmt: skip

    pence = 0

    @classmethod
    def of(cls, its_round: Round) -> "PromiseForm":
        local = its_round.deadline.astimezone(ZoneInfo(its_round.zone))
        typed = {"date": f"{local:%Y-%m-%d}", "time": f"{local:%H:%M}", "target": _typed(its_round.target_pence)}
        return cls(data=typed)

    def validate_target(self, field: Any) -> None:
        self.pence = _pence(field.data)

    def deadline(self, its_round: Round) -> dt.datetime | None:
        """The instant that was typed, or that of now when it is the same minute; None when anything is wrong."""
        typed, now = self.instant(its_round.zone), its_round.deadline
        return now if typed == now.replace(second=0, microsecond=0) else typed


class ReportForm(TableForm):
    """The final report of a case."""

    body = TextAreaField(
        lazy_gettext("What became of the case"),
        [Told(lazy_gettext("Say what became of the case.")), Readable(lines=True), AtMost(law.LONGEST_STORY)],
        filters=[unix_lines],
    )  # fmt: skip
    lines = FieldList(FormField(BudgetRow), min_entries=REPORT_ROWS, max_entries=law.MOST_ROWS)

    def validate(self, extra_validators: Any = None) -> bool:
        """Each line needs both of its cells, and there is one at least."""
        right = super().validate(extra_validators)
        rows = [row.form for row in self.lines]
        for row in rows:
            if not row.words.errors and not row.amount.errors and bool(row.words.data) != bool(row.pence):
                half = row.amount if row.words.data else row.words
                half.errors = [gettext("Enter the amount.") if row.words.data else gettext("Say what it was for.")]
        if not any(row.words.data or row.amount.data for row in rows):
            rows[0].words.errors = [gettext("Say what the money was used for, in at least one line.")]
        return right and not any(row.words.errors or row.amount.errors for row in rows)

    def spent(self) -> list[tuple[str, int]]:
        """The lines that are filled in."""
        rows = [(row.form.words.data or "", row.form.pence) for row in self.lines]
        return [(words, pence) for words, pence in rows if words and pence]


def _on_the_wall(date: str, time: str, zone: str) -> dt.datetime:
    """The instant of a date and a time that were looked at before. Raises Refused when the clocks change then."""
    hour, _, minute = time.replace(".", ":").partition(":")
    local = dt.datetime.combine(_date(date), dt.time(int(hour), int(minute)))
    return law.deadline_from_local(local, zone)


def _pence(typed: str) -> int:
    try:
        return parse_pounds(typed)
    except NotMoney as wrong:
        raise ValidationError(str(wrong)) from wrong


def _typed(pence: int | None) -> str:
    """An amount as somebody would type it."""
    return figure(pence) if pence else ""


def _date(typed: str) -> dt.date:
    """Year first, as in 2026-12-10, or the day first, as in 10/12/2026."""
    british = _DAYS_FIRST.fullmatch(typed)
    try:
        return dt.date(*map(int, reversed(british.groups()))) if british else dt.date.fromisoformat(typed)
    except ValueError as wrong:
        raise ValidationError(gettext("Enter a date like 2026-12-10.")) from wrong


def _is_web_address(typed: str) -> bool:
    """An https address of a host with a name; nothing that a page could not link to."""
    if not typed.isprintable() or any(odd in typed for odd in ' \\"<>`'):
        return False
    try:
        parts = urlsplit(typed)
        port = parts.port
    except ValueError:
        return False
    host = parts.hostname or ""
    return parts.scheme == "https" and "." in host.strip(".") and port != 0 and "@" not in parts.netloc
