"""What a case owner sees of a case that is or was live: the figures as they move, whence people came, the pledges."""

import datetime as dt
from decimal import Decimal
from typing import Any

from babel.numbers import format_decimal
from flask import make_response, redirect, render_template, request, url_for
from flask.wrappers import Response
from flask_babel import get_locale, gettext
from werkzeug.wrappers import Response as AnyResponse

import law
from models import Case, Pledge, Source
from views import chart, hypermedia
from views.forms import readable
from views.owners import own, owners
from views.spreadsheet import as_csv
from views.states import money_of
from views.words import time_left

NEWEST, PLEDGES_A_PAGE = 10, 50
# So many labels and hosts are listed; the rest is summed up.
MOST_SOURCES = 12


@owners.get("/cases/<slug>")
def case(slug: str) -> str:
    its_case, as_of = own(slug), _now()
    if not its_case.rounds:
        return render_template("owners/case.html", case=its_case, round=None, as_of=as_of)
    pledges, more = Pledge.counted_in(its_case.round, NEWEST)
    shown = _figures(its_case, as_of)
    return render_template("owners/case.html", pledges=pledges, more=more, mark=_mark(shown), **shown)


@owners.get("/cases/<slug>/figures")
def figures(slug: str) -> AnyResponse:
    """The figures alone; htmx asks for them again and again until the round is over."""
    its_case = own(slug)
    if not its_case.rounds:
        return redirect(url_for("owners.case", slug=slug), 303)
    shown = _figures(its_case, _now())
    return hypermedia.refreshed("owners/figures.html", "owners/_dashboard.html", _mark(shown), **shown)


@owners.get("/cases/<slug>/pledges")
def pledges(slug: str) -> AnyResponse | str:
    """All pledges, the newest first, or those whose shown name has some words in it."""
    its_case, words = own(slug), readable(request.args.get("q", ""), "").strip()[:120]
    if not its_case.rounds:
        return redirect(url_for("owners.case", slug=slug), 303)
    shown, more = Pledge.counted_in(its_case.round, PLEDGES_A_PAGE, words, request.args.get("after", ""))
    return render_template(
        "owners/pledges.html", case=its_case, round=its_case.round, pledges=shown, more=more, words=words
    )


@owners.get("/cases/<slug>/pledges.csv")
def pledges_as_file(slug: str) -> AnyResponse:
    """For a spreadsheet: what supporters share with the owner, and nothing else."""
    its_case = own(slug)
    if not its_case.rounds:
        return redirect(url_for("owners.case", slug=slug), 303)
    its_round, heads = its_case.round, [gettext("Date"), gettext("Name"), gettext("Pledged, in pounds")]
    rows = [
        [law.day_of(at, its_round.zone).isoformat(), name, f"{Decimal(pence) / 100:.2f}", money_of(status, refunded)]
        for at, name, pence, status, refunded in Pledge.shared_in(its_round)
    ]
    # Before the deadline nothing has become of any.
    columns = 4 if its_round.settled_at else 3
    answer: Response = make_response(as_csv([*heads, gettext("State")][:columns], [row[:columns] for row in rows]))
    answer.mimetype = "text/csv"
    answer.headers["Content-Disposition"] = f'attachment; filename="{slug}-pledges.csv"'
    return answer


def _figures(its_case: Case, as_of: dt.datetime) -> dict[str, Any]:
    its_round = its_case.round
    days = chart.days_of(its_round, its_case.live_at or as_of, as_of)
    today = law.day_of(as_of, its_round.zone)
    whole = [day for day in days if day.date < today]
    is_open = its_round.is_open(as_of)
    pence = [day.pence for day in whole]
    outlook = law.outlook(pence, its_round.pledged_pence, its_round.deadline - as_of) if is_open else None
    return {
        "case": its_case, "round": its_round, "as_of": as_of, "is_open": is_open, "days": days, "outlook": outlook,
        "chart": chart.draw(its_round, days, outlook), "sources": _sources(its_case), "pace": _pace(whole[-7:]),
        "failing": law.FAILING_CARDS, "least_days": law.LEAST_DAYS,
    }  # fmt: skip


def _pace(week: list[chart.OneDay]) -> tuple[int, int, str] | None:
    """(whole days, pence a day, pledges a day) of the last whole days, the last in words; None before the first is
    over."""
    if not week:
        return None
    length = len(week)
    pledges = sum(day.pledges for day in week) / length
    told = Decimal(f"{pledges:.0f}" if pledges >= 10 else f"{pledges:.1f}")
    words = format_decimal(told, "0" if pledges >= 10 else "0.0", locale=get_locale() or "en_GB")
    return length, round(sum(day.pence for day in week) / length / 100) * 100, words


def _sources(its_case: Case) -> list[tuple[str, int, int, int]]:
    found = Source.sums(its_case.round)
    rest = found[MOST_SOURCES:]
    if not rest:
        return found
    _, visited, opened, confirmed = zip(*rest, strict=True)
    return [*found[:MOST_SOURCES], (law.OTHER_SOURCES, sum(visited), sum(opened), sum(confirmed))]


def _mark(shown: dict[str, Any]) -> str:
    """Changes exactly when something of the figures does."""
    its_round, as_of, sources = shown["round"], shown["as_of"], shown["sources"]
    left = time_left(its_round, as_of).replace(" ", "-") if shown["is_open"] else ""
    visited, opened, confirmed = (sum(one[column] for one in sources) for column in (1, 2, 3))
    return f"{its_round.version}.{visited}.{opened}.{confirmed}.{len(shown['days'])}.{left}"


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
