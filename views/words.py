"""How pages write things: money, instants, counts, plain text and Markdown."""

import datetime as dt
import functools
import re

from flask import Flask, url_for
from markupsafe import Markup, escape

import config
import law
from models import Event, Pledge, Prospect, Round, User
from money import pounds
from views import states


def teach(app: Flask) -> None:
    """Give the templates their filters and the settings that they may show."""
    app.add_template_filter(pounds)
    app.add_template_filter(plural)
    app.add_template_filter(instant)
    app.add_template_filter(iso)
    app.add_template_filter(render_markdown)
    app.add_template_filter(paragraphs)
    app.add_template_filter(age)
    app.add_template_filter(promise)
    app.add_template_filter(by_whom)
    app.add_template_filter(law.instant_words)
    app.add_template_filter(law.clock_words)
    app.add_template_filter(with_pledges)
    app.add_template_filter(at_most)
    app.add_template_filter(closes_soon)
    app.add_template_global(time_left)
    app.add_template_global(Event.people, "people_of")
    app.add_template_filter(unlinked)
    app.add_template_filter(month)
    app.add_template_filter(date)
    app.add_template_filter(source)
    app.add_template_filter(states.state)
    app.add_template_filter(states.grouped)
    app.add_template_filter(states.tries)
    app.jinja_env.globals.update(rejections=law.REJECTIONS, signs=law.SIGNS, report_reasons=law.REPORTS, roles=ROLES)
    app.jinja_env.globals.update(of_owner=law.OF_OWNER)


def plural(count: int, one: str, many: str = "") -> str:
    """ "1 pledge", "2 pledges", "no pledges"."""
    return f"{count or 'no'} {one if count == 1 else many or one + 's'}"


def at_most(count: int, most: int, one: str, many: str = "") -> str:
    """As `plural`, for what is counted no further than one more than the most: "more than 1,000 comments"."""
    return f"more than {most:,} {many or one + 's'}" if count > most else plural(count, one, many)


def instant(moment: dt.datetime, zone: str = "") -> Markup:
    """An instant in words inside a `<time>` that machines can read."""
    return _instant(moment, zone or config.current().display_zone)


@functools.lru_cache(maxsize=4096)
def _instant(moment: dt.datetime, zone: str) -> Markup:
    words = law.instant_words(moment, zone)
    return Markup('<time datetime="{}">{}</time>').format(iso(moment), words)


def month(moment: dt.datetime) -> str:
    """ "November 2026"."""
    return f"{moment:%B %Y}"


def date(one: dt.date) -> str:
    """ "26 November"; rounds are too short for the year to be missed."""
    return f"{one.day} {one:%B}"


def source(name: str) -> str:
    """Whence people came, as law.source has written it, for the owner of the case."""
    kind, _, what = name.partition(":")
    if kind == "via":
        return f"your link “{what}”"
    return what or {"": "not known"}.get(name, name)


def iso(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def with_pledges(finding: str) -> Markup:
    """A sentence of the doctor's or the reconciler's, in which every "pledge 17" leads staff to that pledge."""

    def linked(found: re.Match[str]) -> str:
        return f'<a href="{url_for("staff.pledge", public_id=found.group(1))}">{found.group()}</a>'

    return Markup(re.sub(r"\b[Pp]ledge (\d+)\b", linked, escape(finding)))  # noqa: S704 - it was escaped


def time_left(its_round: Round | Prospect, as_of: dt.datetime) -> str:
    """ "7 days to go"; whole days are rounded down, and the last day is told in hours and minutes."""
    if its_round.deadline is None:
        return "no deadline yet"
    left = its_round.deadline - as_of
    minutes = int(left.total_seconds() // 60)
    if minutes < 0:
        return "the deadline has passed"
    if left.days:
        return f"{plural(left.days, 'day')} to go"
    if minutes < 1:
        return "less than a minute to go"
    hours, minutes = divmod(minutes, 60)
    parts = [plural(hours, "hour")] * bool(hours) + [plural(minutes, "minute")] * bool(minutes)
    return f"{' and '.join(parts)} to go"


def age(moment: dt.datetime, as_of: dt.datetime) -> str:
    """How long ago, in one unit: "3 hours"."""
    minutes = int((as_of - moment).total_seconds() // 60)
    for length, unit in ((1440, "day"), (60, "hour"), (1, "minute")):
        if minutes >= length:
            return plural(minutes // length, unit)
    return "moments"


def closes_soon(its_round: Round, as_of: dt.datetime) -> bool:
    """Whether the reader must be told until when the card has to be saved."""
    return its_round.is_open(as_of) and law.last_half_hour(its_round.deadline, as_of)


def promise(its_round: Round | Prospect) -> str:
    """The promise to the supporter, from the row. A total of just the target has reached it, not passed it."""
    target, deadline = its_round.target_pence, its_round.deadline
    if target is None or deadline is None:
        return law.PROMISE.format(target="the target", deadline="the deadline")
    sentence = law.PROMISE_ONCE_PASSED if its_round.pledged_pence > target else law.PROMISE
    return sentence.format(target=pounds(target), deadline=law.instant_words(deadline, its_round.zone))


# Who did what a line of history tells, when it was none of those who log in.
DOERS = {
    "supporter": "the supporter", "stripe": "Stripe", "clock": "the clock", "operator": "the operator's command",
}  # fmt: skip
ROLES = {"owner": "case owner", "moderator": "moderator", "staff": "staff"}


def by_whom(who: str, people: dict[str, User]) -> str:
    """For staff alone: who did what a line of history tells, by name; see Event.people."""
    person = people.get(who)
    return f"{person.name}, {ROLES[person.role]}" if person else DOERS.get(who, who)


# What happened to a pledge, for its supporter; {note} is what the line itself notes. Steps that are only of our own
# making are left out.
HISTORY = {
    "started": "You began this pledge.",
    "changed": "You changed the amount {note}.",
    "promise_changed": "The promise of this case was changed: {note}. You were told by letter how to leave.",
    "raise_asked": "You asked to raise the amount {note}.",
    "not_raised": "No card was saved in time for the higher amount, so the pledge stayed as it was.",
    "renamed": "You changed how you are shown.",
    "address_corrected": "You changed your e-mail address.",
    "address_asked": "You asked that letters go to another address.",
    "address_changed": "Letters went to the other address from here on, and the link of this page was replaced.",
    "address_taken_back": "Letters went to the address of before again, and the link of this page was replaced.",
    "link_replaced": "You replaced the link of this page.",
    "confirmed": "Your card was saved, and the pledge counted.",
    "abandoned": "Stripe's page was closed without a saved card.",
    "card_replaced": "You saved another card, which is used from now on.",
    "card_not_taken": "Another card was saved too late to be used. It was not kept.",
    "cancelled": "You cancelled the pledge.",
    "released": "The pledge was let go. You were not charged.",
    "due": "The case reached its target.",
    "due by supporter": "You asked us to charge your card.",
    "due by clock": "We tried the card again.",
    "charged": "Your card was charged.",
    "charged after disputed": "Your bank decided that the payment stands.",
    "declined": "Your bank refused the payment. You were not charged.",
    "action_required": "Your bank wanted you to approve the payment. You were not charged.",
    "not_approved": "The payment was not approved at the bank. You were not charged.",
    "reminded": "We reminded you by letter.",
    "charges_went_on": "Charges for this case, which had been held back, went on. That time does not count.",
    "stopped_trying": "You asked us not to try the card again by ourselves.",
    "dropped": "The time for paying was over, and the pledge ended. You were not charged.",
    "card_removed": "Your saved card was removed.",
    "old_card_removed": "The card that is not used any more was removed.",
    "disputed": "Your bank was asked to take the payment back.",
    "charged_back": "Your bank took the payment back.",
    "subscribed": "You asked for updates.",
    "unsubscribed": "You asked for no more updates.",
}


# Somebody has ticked the agreement of a page that was opened before the promise was changed.
PROMISE_CHANGED = (
    "The promise of this case was changed while this page was open. Read it again, and tick the box if you agree."
)
# What went back, as the ledger has it: {amount} is the line's own.
PAID_BACK = "{amount} was paid back to your card."
NOT_PAID_BACK = "{amount} that was paid back did not reach your card, and is with us again."


def history(pledge: Pledge) -> list[tuple[dt.datetime, str]]:
    """The history of a pledge in sentences, oldest first."""
    steps = [
        (event.at, sentence.format(note=event.note))
        for event in pledge.history()
        if (sentence := HISTORY.get(_step(event)))
    ]
    refunds = [(moved.at, _refund(moved.amount_pence)) for moved in pledge.movements() if moved.kind == "refund"]
    return sorted(steps + refunds, key=lambda line: line[0])


def _refund(pence: int) -> str:
    return (PAID_BACK if pence < 0 else NOT_PAID_BACK).format(amount=pounds(abs(pence)))


def _step(event: Event) -> str:
    """The name of a line of history in HISTORY; a pledge may come to the same state by several ways."""
    if event.what == "due" and event.before != "confirmed":
        return f"due by {event.who}"
    if event.what == "charged" and event.before in ("disputed", "refunded"):
        return f"charged after {event.before}"
    return event.what


@functools.lru_cache(maxsize=512)
def render_markdown(text: str, top: int = 2) -> Markup:
    """Markdown as clean HTML; the only door through which HTML of people's own words reaches a page.

    Raw HTML is shown as it was typed, and of a picture only its description: a remote one would report every
    reader. Headings begin at `top`, below those of the page. Cached by the text itself, so that each revision is
    rendered once.
    """
    # Letters are written without the libraries behind it, so the worker never loads them.
    from views import markdown

    return markdown.clean(text, top)


@functools.lru_cache(maxsize=2048)
def paragraphs(text: str) -> Markup:
    """Plain text as paragraphs, with web addresses made into links; nothing else is understood."""
    blocks = [block for block in text.replace("\r\n", "\n").split("\n\n") if block.strip()]
    return Markup("\n").join(Markup("<p>{}</p>").format(_lines(block.strip())) for block in blocks)


def _lines(block: str) -> Markup:
    return Markup("<br>\n").join(_linked(line) for line in block.split("\n"))


def _linked(line: str) -> Markup:
    from views import markdown

    pieces, end = [], 0
    for found in markdown.links(line):
        if found.schema not in ("http:", "https:"):
            continue
        pieces += [
            escape(line[end : found.index]),
            Markup('<a href="{}" rel="nofollow ugc noopener noreferrer">{}</a>').format(found.url, found.text),
        ]
        end = found.last_index
    return Markup("").join([*pieces, escape(line[end:])])


@functools.lru_cache(maxsize=2048)
def unlinked(text: str) -> Markup:
    """As paragraphs, but web addresses only stand out: who reads what nobody has checked must not open it by chance."""
    shown = str(paragraphs(text))
    # Those without "https" are no links for readers either, but a sign of spam, so they are shown as well.
    plain = re.compile(r'<a href="[^"]*"[^>]*>(.*?)</a>|(\bwww\.[^\s<&]*[\w/])', re.IGNORECASE)
    marked = plain.sub(lambda found: f'<mark class="address">{found.group(1) or found.group(2)}</mark>', shown)
    return Markup(marked)  # noqa: S704 - paragraphs has made it, and only its own tags were exchanged
