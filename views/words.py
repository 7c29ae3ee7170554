"""How pages write things: money, instants, counts, plain text and Markdown."""

import datetime as dt
import functools
import re

from babel.dates import format_date
from flask import Flask, url_for
from flask_babel import get_locale, gettext, ngettext
from markupsafe import Markup, escape

import config
import law
from law import N_
from models import Event, Pledge, Prospect, Round, User
from money import parse_pounds, pounds
from views import languages, states


def teach(app: Flask) -> None:
    """Give the templates their filters and the settings that they may show."""
    app.add_template_filter(pounds)
    app.add_template_filter(instant)
    app.add_template_filter(iso)
    app.add_template_filter(render_markdown)
    app.add_template_filter(paragraphs)
    app.add_template_filter(age)
    app.add_template_filter(promise)
    app.add_template_filter(by_whom)
    app.add_template_filter(noted)
    app.add_template_filter(law.instant_words)
    app.add_template_filter(law.clock_words)
    app.add_template_filter(with_pledges)
    app.add_template_filter(closes_soon)
    app.add_template_global(time_left)
    app.add_template_global(Event.people, "people_of")
    app.add_template_filter(unlinked)
    app.add_template_filter(month)
    app.add_template_filter(date)
    app.add_template_filter(source)
    app.add_template_filter(states.state)
    app.add_template_filter(states.grouped)
    app.add_template_filter(states.seen)
    app.add_template_filter(states.tries)
    app.add_template_filter(states.money_of)
    app.jinja_env.globals.update(rejections=law.REJECTIONS, signs=law.SIGNS, report_reasons=law.REPORTS, roles=ROLES)
    app.jinja_env.globals.update(N_=N_)
    app.jinja_env.globals.update(of_owner=law.OF_OWNER, topics=law.TOPICS, doubts=law.DOUBTS)


def instant(moment: dt.datetime, zone: str = "") -> Markup:
    """An instant in words inside a `<time>` that machines can read."""
    return _instant(moment, zone or config.current().display_zone, str(get_locale()))


@functools.lru_cache(maxsize=4096)
def _instant(moment: dt.datetime, zone: str, language: str) -> Markup:
    words = law.instant_words(moment, zone)
    return Markup('<time datetime="{}">{}</time>').format(iso(moment), words)


def month(moment: dt.datetime) -> str:
    """ "November 2026"."""
    return format_date(moment, "MMMM y", locale=get_locale() or law.ENGLISH)


def date(one: dt.date) -> str:
    """ "26 November"; rounds are too short for the year to be missed."""
    return format_date(one, "d MMMM", locale=get_locale() or law.ENGLISH)


def source(name: str) -> str:
    """Whence people came, as law.source has written it, for the owner of the case."""
    kind, _, what = name.partition(":")
    if kind == "via":
        return gettext("your link “%(label)s”", label=what)
    return what or {"": gettext("not known")}.get(name, name)


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
        return gettext("no deadline yet")
    left = its_round.deadline - as_of
    minutes = int(left.total_seconds() // 60)
    if minutes < 0:
        return gettext("the deadline has passed")
    if left.days:
        return ngettext("%(num)s day to go", "%(num)s days to go", left.days)
    if minutes < 1:
        return gettext("less than a minute to go")
    hours, minutes = divmod(minutes, 60)
    if not minutes:
        return ngettext("%(num)s hour to go", "%(num)s hours to go", hours)
    if not hours:
        return ngettext("%(num)s minute to go", "%(num)s minutes to go", minutes)
    return gettext("%(hours)s and %(minutes)s to go", hours=_hours(hours), minutes=_minutes(minutes))


def age(moment: dt.datetime, as_of: dt.datetime) -> str:
    """How long ago, in one unit: "3 hours"."""
    minutes = int((as_of - moment).total_seconds() // 60)
    for length, in_words in ((1440, _days), (60, _hours), (1, _minutes)):
        if minutes >= length:
            return in_words(minutes // length)
    return gettext("moments")


def _days(count: int) -> str:
    return ngettext("%(num)s day", "%(num)s days", count)


def _hours(count: int) -> str:
    return ngettext("%(num)s hour", "%(num)s hours", count)


def _minutes(count: int) -> str:
    return ngettext("%(num)s minute", "%(num)s minutes", count)


def closes_soon(its_round: Round, as_of: dt.datetime) -> bool:
    """Whether the reader must be told until when the card has to be saved."""
    return its_round.is_open(as_of) and law.last_half_hour(its_round.deadline, as_of)


def promise(its_round: Round | Prospect) -> str:
    """The promise to the supporter, from the row. A total of just the target has reached it, not passed it."""
    target, deadline = its_round.target_pence, its_round.deadline
    if target is None or deadline is None:
        return gettext(law.PROMISE).format(target=gettext("the target"), deadline=gettext("the deadline"))
    sentence = law.PROMISE_ONCE_PASSED if its_round.pledged_pence > target else law.PROMISE
    return gettext(sentence).format(target=pounds(target), deadline=law.instant_words(deadline, its_round.zone))


# Who did what a line of history tells, when it was none of those who log in.
DOERS = {
    "supporter": N_("the supporter"), "stripe": "Stripe", "clock": N_("the clock"),
    "operator": N_("the operator's command"),
}  # fmt: skip
ROLES = {"owner": N_("case owner"), "moderator": N_("moderator"), "staff": N_("staff")}


def by_whom(who: str, people: dict[str, User]) -> str:
    """For staff alone: who did what a line of history tells, by name; see Event.people."""
    person = people.get(who)
    if person:
        return gettext("%(name)s, %(role)s", name=person.name, role=gettext(ROLES[person.role]))
    return gettext(DOERS.get(who, who))


def noted(line: Event) -> Markup:
    """For staff alone: what a line of history notes. The reasons for which comments are rejected or reported are said
    in the language of the page; all else is as somebody has written it, and marked as such."""
    if line.subject_kind != "comment" or line.what not in ("rejected", "spam", "reported") or not line.note:
        return escape(languages.marked(line.note))
    reason, _, told = line.note.partition(law.TOLD)
    words = gettext(reason)
    if not told:
        return escape(words)
    whole = escape(gettext("%(reason)s. To the author: %(note)s"))
    return whole % {"reason": words, "note": languages.marked(told)}


# What happened to a pledge, for its supporter; {note} is what the line itself notes. Steps that are only of our own
# making are left out.
HISTORY = {
    "started": N_("You began this pledge."),
    "changed": N_("You changed the amount {note}."),
    "promise_changed": N_("The promise of this case was changed: {note}. You were told by letter how to leave."),
    "raise_asked": N_("You asked to raise the amount {note}."),
    "not_raised": N_("The amount was not raised, so the pledge stayed as it was."),
    "renamed": N_("You changed how you are shown."),
    "address_corrected": N_("You changed your e-mail address."),
    "address_asked": N_("You asked that letters go to another address."),
    "address_changed": N_("Letters went to the other address from here on, and the link of this page was replaced."),
    "address_taken_back": N_("Letters went to the earlier address again, and the link of this page was replaced."),
    "link_replaced": N_("You replaced the link of this page."),
    "address_question": N_("We asked you to confirm your e-mail address."),
    "address_confirmed": N_("You confirmed your e-mail address."),
    "held": N_("We began to look at this pledge before it counts."),
    "confirmed": N_("Your card was saved, and the pledge counted."),
    "confirmed after held": N_("We have looked at this pledge, and it counted."),
    "abandoned": N_("Stripe's page was closed without a saved card."),
    "card_replaced": N_("You saved another card, which is used from now on."),
    "agreed_to_repair": N_("You agreed that this card is charged at once, for the payment that was refused."),
    "card_not_taken": N_("Another card was saved, but it is not used, and was not kept. The pledge stays as it was."),
    "cancelled": N_("You cancelled the pledge."),
    "released": N_("The pledge was let go. You were not charged."),
    "due": N_("The case reached its target."),
    "due by supporter": N_("You asked us to charge your card."),
    "due by clock": N_("We tried the card again."),
    "charged": N_("Your card was charged."),
    "charged after disputed": N_("Your bank decided that the payment stands."),
    "declined": N_("Your bank refused the payment. You were not charged."),
    "action_required": N_("Your bank wanted you to approve the payment. You were not charged."),
    "not_approved": N_("The payment was not approved at the bank. You were not charged."),
    "reminded": N_("We reminded you by letter."),
    "charges_went_on": N_("Charges for this case, which had been held back, went on. That time does not count."),
    "stopped_trying": N_("You asked us not to try the card again by ourselves."),
    "dropped": N_("The time for paying was over, and the pledge ended. You were not charged."),
    "card_removed": N_("Your saved card was removed."),
    "old_card_removed": N_("The card that is not used any more was removed."),
    "disputed": N_("Your bank was asked to take the payment back."),
    "charged_back": N_("Your bank took the payment back."),
    "subscribed": N_("You asked for updates."),
    "unsubscribed": N_("You asked for no more updates."),
}


# Somebody has ticked the agreement of a page that was opened before the promise was changed.
PROMISE_CHANGED = N_(
    "The promise of this case was changed while this page was open. Read it again, and tick the box if you agree."
)
# The same where a button alone says that somebody agrees.
PROMISE_CHANGED_BY_NOW = N_(
    "The promise of this case was changed while this page was open. Read it again, and go on if you agree."
)
# What went back, as the ledger has it: {amount} is the line's own.
PAID_BACK = N_("{amount} was paid back to your card.")
NOT_PAID_BACK = N_("{amount} that was paid back did not reach your card, and is with us again.")
# A note of the books, which are in English, about an amount that was changed.
AMOUNTS = re.compile(r"from (£[0-9.,]+) to (£[0-9.,]+)")


def history(pledge: Pledge) -> list[tuple[dt.datetime, str]]:
    """The history of a pledge in sentences, oldest first."""
    steps = [
        (event.at, gettext(sentence).format(note=_note(pledge, event)))
        for event in pledge.history()
        if (sentence := HISTORY.get(_step(event)))
    ]
    refunds = [(moved.at, _refund(moved.amount_pence)) for moved in pledge.movements() if moved.kind == "refund"]
    return sorted(steps + refunds, key=lambda line: line[0])


def _note(pledge: Pledge, event: Event) -> str:
    """What the books note of it, in the language of the page."""
    change = pledge.round.promise_change
    if event.what == "promise_changed" and change:
        return change.words
    if found := AMOUNTS.fullmatch(event.note):
        before, after = (pounds(parse_pounds(amount)) for amount in found.groups())
        return gettext("from %(before)s to %(after)s", before=before, after=after)
    return event.note


def _refund(pence: int) -> str:
    return gettext(PAID_BACK if pence < 0 else NOT_PAID_BACK).format(amount=pounds(abs(pence)))


def _step(event: Event) -> str:
    """The name of a line of history in HISTORY; a pledge may come to the same state by several ways."""
    if event.what == "due" and event.before != "confirmed":
        return f"due by {event.who}"
    if (event.what, event.before) == ("confirmed", "held"):
        return "confirmed after held"
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
