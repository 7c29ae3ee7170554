"""The promise of Standing, as tables and pure functions: no database, no clock.

A lawyer should be able to read this file. It says which states a round, a pledge, a case, a comment and an
update may be in, which moves are allowed, how a deadline is compared, how a round is decided, how long a
refused card may be repaired, and the sentences that make the promise to the supporter.

All instants are aware UTC datetimes; all amounts are integer pence.
"""

import datetime as dt
import functools
import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from babel.dates import format_date, format_datetime, format_time
from flask_babel import get_locale, gettext

# What the books note is in this language, whatever the one of the page is on which somebody pressed the button.
ENGLISH = "en_GB"


def N_(words: str) -> str:  # noqa: N802 - the name by which everybody knows what is to be translated later
    """Marks words that are translated where they are shown; here they stay what they are."""
    return words


class Refused(Exception):
    """Something the law does not allow. Its text is written for the reader of the page."""


# The limits of one pledge and of one round.
SMALLEST_PLEDGE = 500
LARGEST_PLEDGE = 1_000_000
PRESET_PLEDGES = (1_000, 2_500, 5_000, 10_000)
LARGEST_TARGET = 100_000_000
SHORTEST_ROUND, LONGEST_ROUND = dt.timedelta(days=1), dt.timedelta(days=60)
# A round whose length was given in days ends at this hour, on the wall of its zone.
HOUR_OF_END = dt.time(20, 0)

# The deadline of a promise may come later once, by at most so many days of the calendar.
LONGEST_EXTENSION = dt.timedelta(days=30)
# Whoever has pledged has at least so long to read that the promise was changed, and to leave.
NOTICE = dt.timedelta(days=2)
# Once the money has come in, its owner is reminded of the supporters after so long without an update.
SILENCE = dt.timedelta(days=15)

# Why a promise was changed stands beside it, in the panel of the pledges.
LONGEST_REASON = 1_000

# How much a case may say, in characters, and how many rows its tables may have.
LONGEST_TITLE, LONGEST_SLUG, LONGEST_SUMMARY = 160, 80, 300
LONGEST_STORY, LONGEST_PART, LONGEST_LINE = 40_000, 5_000, 200
LONGEST_URL, MOST_ROWS = 500, 30
# How much an update may say, and a message that comes with a pledge.
LONGEST_UPDATE, LONGEST_MESSAGE = 20_000, 1_000
LONGEST_BIO = 1_000
# What a case may be about, by the word that stands in addresses.
TOPICS: Mapping[str, str] = {
    "benefits": N_("Benefits and care"),
    "children": N_("Children and schools"),
    "environment": N_("Environment"),
    "equality": N_("Equality"),
    "health": N_("Health"),
    "housing": N_("Housing"),
    "migration": N_("Migration and asylum"),
    "planning": N_("Planning and public places"),
    "police": N_("Police and prisons"),
    "privacy": N_("Privacy and data"),
    "speech": N_("Speech and protest"),
    "work": N_("Work"),
    "other": N_("Something else"),
}
# What must be written before a case can be reviewed: column -> what its owner is asked to do.
NEEDED_WORDS: Mapping[str, str] = {
    "title": N_("Enter a title."),
    "summary": N_("Enter a summary."),
    "topic": N_("Choose a topic."),
    "story": N_("Tell the story."),
    "who_we_are": N_("Say who you are."),
    "firm": N_("Enter the firm that acts for you."),
    "lawyer": N_("Enter the name of your lawyer."),
    "regulator_number": N_("Enter the number under which the firm or the lawyer is regulated."),
    "court": N_("Enter the court or tribunal."),
    "stage": N_("Say what stage the case has reached."),
    "risks": N_("Describe the risks."),
}
# A case in one of these may be written; in these nobody but its owner and staff sees it.
WRITABLE_CASES = frozenset({"draft", "changes_requested"})
HIDDEN_CASES = frozenset({"draft", "submitted", "changes_requested", "approved", "rejected"})

# Of those that anybody may open, these stand in lists, feeds and the site map.
LISTED_CASES = frozenset({"live", "funded", "missed", "closed"})
# How readers may narrow the list down, and the states of the cases that they then see.
CASE_FILTERS = {
    "all": LISTED_CASES,
    "live": frozenset({"live"}),
    "ending-soon": frozenset({"live"}),
    "funded": frozenset({"funded", "closed"}),
    "ended": LISTED_CASES - {"live"},
}
# As many as the protocol of site maps allows in one: https://www.sitemaps.org/protocol.html.
LARGEST_SITE_MAP = 50_000

# What strangers see at a case's address: the case, a statement of staff in its place, or nothing.
VISIBILITIES = ("public", "notice", "hidden")

# State -> the states it may move to. What is not listed is not allowed.
CASE_MOVES: Mapping[str, frozenset[str]] = {
    "draft": frozenset({"submitted"}),
    # Back to draft: its owner takes it back, to go on writing.
    "submitted": frozenset({"draft", "changes_requested", "approved", "live", "rejected"}),
    "changes_requested": frozenset({"submitted"}),
    # Goes live by the clock; if its end has become impossible by then, it goes back to its owner.
    "approved": frozenset({"draft", "changes_requested", "live"}),
    "rejected": frozenset(),
    "live": frozenset({"funded", "missed", "cancelled"}),
    # Cancelled while its pledges are being charged: the rest is let go, the decision of the round stands.
    "funded": frozenset({"closed", "cancelled"}),
    "missed": frozenset({"closed"}),
    "cancelled": frozenset({"closed"}),
    "closed": frozenset(),
}
ROUND_MOVES: Mapping[str, frozenset[str]] = {
    "open": frozenset({"closing", "cancelled"}),
    "closing": frozenset({"met", "missed", "cancelled"}),
    "met": frozenset(),
    "missed": frozenset(),
    "cancelled": frozenset(),
}
PLEDGE_MOVES: Mapping[str, frozenset[str]] = {
    "started": frozenset({"confirmed", "held", "abandoned", "cancelled", "released"}),
    # Its card is saved, but something about it is odd: it counts once staff have said so, and not a penny of it before.
    "held": frozenset({"confirmed", "cancelled", "released"}),
    "confirmed": frozenset({"cancelled", "released", "due"}),
    # From due to dropped: a further try of a refused card that nobody began while the supporter was told it might come.
    "due": frozenset({"charging", "released", "dropped"}),
    "charging": frozenset({"charged", "action_required", "declined", "unknown"}),
    "unknown": frozenset({"charged", "declined", "action_required", "due"}),
    # From a refusal to charged: the very same payment was approved at the bank, or found paid. An approval may also
    # be followed by a refusal, such as for want of money.
    "action_required": frozenset({"due", "charged", "declined", "dropped", "released"}),
    "declined": frozenset({"due", "charged", "dropped", "released"}),
    "charged": frozenset({"refunded", "disputed"}),
    "disputed": frozenset({"charged", "charged_back"}),
    "released": frozenset(),
    "cancelled": frozenset(),
    "dropped": frozenset(),
    # A refund can still fail, days later: the money is then ours again, and owed.
    "refunded": frozenset({"charged"}),
    "charged_back": frozenset(),
    # Stripe's page was closed, but the supporter came back to it while the round was open.
    "abandoned": frozenset({"started"}),
}
COMMENT_MOVES: Mapping[str, frozenset[str]] = {
    "pending": frozenset({"approved", "rejected", "spam", "withdrawn"}),
    "approved": frozenset({"pending", "rejected", "spam", "withdrawn"}),
    "rejected": frozenset({"pending", "approved", "withdrawn"}),
    "spam": frozenset({"pending", "approved", "withdrawn"}),
    "withdrawn": frozenset(),
}
# Why a comment is rejected -> what moderators read, and what its author is told. Spam is a state of its own, and the
# one of which nobody is told.
REJECTIONS: Mapping[str, tuple[str, str]] = {
    "protected": (
        N_("Names a protected person"),
        N_("It names, or lets readers find, somebody whom the law protects, such as a child or a witness."),
    ),
    "contempt": (
        N_("Contempt of court, or sub judice"),
        N_("It speaks of a matter before a court in a way that may be contempt of court."),
    ),
    "defamation": (N_("Risk of defamation"), N_("It says something of a person or a body that may be defamation.")),
    "harassment": (N_("Harassment"), N_("It attacks or threatens somebody, instead of speaking of the case.")),
    "personal": (
        N_("Personal data"),
        N_("It has personal details of somebody, such as an address or a telephone number."),
    ),
    "off_topic": (N_("Off topic"), N_("It does not speak of this case.")),
    "spam": (N_("Spam"), N_("It is advertising.")),
}
# Stands in the history of a comment between such a reason and what its author was told.
TOLD = ". To the author: "
# Why a reader reports a published comment -> what the reader chooses, and the moderators read.
REPORTS: Mapping[str, str] = {
    "protected": N_("It names a child, a witness or somebody else whom the law protects"),
    "contempt": N_("It may disturb a case that is before a court"),
    "untrue": N_("It says something untrue of somebody"),
    "harassment": N_("It attacks or threatens somebody"),
    "personal": N_("It has somebody's personal details"),
    "spam": N_("It is advertising"),
    "other": N_("Something else"),
}
# What may be wrong with a comment -> how much it weighs in the moderators' queue, and what they read of it. Signs sort
# the queue; they never decide.
SIGNS: Mapping[str, tuple[int, str]] = {
    "links": (1, N_("has web addresses")),
    "repeated": (2, N_("nearly the same text was sent before")),
    "burst": (2, N_("many comments came from one network within an hour")),
    "trap": (3, N_("a field that no reader sees was filled in")),
}
# So many comments of one network within an hour are a burst.
BURST, BURST_WITHIN = 5, dt.timedelta(hours=1)
# Older comments are not looked through for the same text.
REPEATED_WITHIN = dt.timedelta(days=30)
# The label of a link that an owner hands out (?via=poster), and a host as browsers name it.
_LABEL, _HOST = re.compile(r"[a-z0-9-]{1,30}"), re.compile(r"[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*")
# So many labels and hosts of one case are counted on one day; the rest are counted together, under this name.
SOURCES_A_DAY, OTHER_SOURCES = 20, "others"
UPDATE_MOVES: Mapping[str, frozenset[str]] = {
    "draft": frozenset({"scheduled", "published"}),
    "scheduled": frozenset({"draft", "published"}),
    "published": frozenset(),
}
# Who may read an update, and a message that comes with a pledge.
AUDIENCES: Mapping[str, str] = {"everyone": N_("Everyone"), "supporters": N_("Supporters only")}
MESSAGES_FOR = ("owner", "everyone")
# Cases that nobody but their people and staff ever saw, and those that need nobody any more who answers for them.
UNSEEN_CASES = ("draft", "changes_requested", "rejected")
CASES_WITHOUT_OWNER = (*UNSEEN_CASES, "missed", "cancelled", "closed")
# How a supporter is named: with the whole name, with its first word, or as "Anonymous", to the public alone or to the
# case owner too. The case owner sees the whole name in all but the last.
SHOWN_AS = ("name", "first_name", "anonymous", "hidden")
# The reason of a report that is the case owner's; it is none that readers can choose.
OF_OWNER = "owner"

# A change of the promise: asked for by its owner, and decided by staff.
PROMISE_CHANGE_MOVES: Mapping[str, frozenset[str]] = {
    "asked": frozenset({"consented", "refused", "withdrawn"}),
    "consented": frozenset(),
    "refused": frozenset(),
    "withdrawn": frozenset(),
}

# Whether cards are being tried out, for one case or for the whole site: while they are, who pledges confirms an e-mail
# address before Stripe is asked for a page; and if they still are, pledging rests.
BREAKER_MOVES: Mapping[str, frozenset[str]] = {
    "closed": frozenset({"asks"}),
    "asks": frozenset({"paused", "closed"}),
    "paused": frozenset({"closed"}),
}
# What happened within so long is counted together, and what came of it holds for so long.
BREAKER_WINDOW, BREAKER_LASTS = dt.timedelta(minutes=10), dt.timedelta(minutes=30)
# Who has just begun is still typing a card: of those only every so many-th counts as unfinished.
BREAKER_PATIENCE, OF_THE_IMPATIENT = dt.timedelta(minutes=3), 5
# Staff may let it go on for so much longer; and once they have ended it, it rests for so long.
BREAKER_PROLONGED, BREAKER_RESTS = dt.timedelta(hours=12), dt.timedelta(hours=2)
# The whole site may see so many times what one case may.
SITE_TIMES = 3
# So many cards may be refused on one card page before it is closed, and for one e-mail address within an hour.
FAILURES_A_PAGE, FAILURES_AN_ADDRESS = 5, 10
# So many may be refused that come from one network within an hour, and half as many more as were saved from there.
FAILURES_A_NETWORK = 10
FAILURES_WITHIN = dt.timedelta(hours=1)
# While addresses are to be confirmed, so many of one network may be unanswered that were asked within an hour, and one
# more for each that was answered.
UNANSWERED_A_NETWORK = 3
# A supporter who tried so many different cards, or a card that was refused so often elsewhere within a day, is odd.
CARDS_TRIED, CARD_REFUSED, CARD_REFUSED_WITHIN = 3, 3, dt.timedelta(days=1)
# What is known of refused cards is forgotten after so long.
FORGET_FAILURES = dt.timedelta(days=30)
# So long somebody may take to confirm an address before Stripe's page.
CONFIRMATION_WAITS = dt.timedelta(days=2)
# Staff are reminded of pledges that are held so long before the round ends.
REMIND_OF_HELD = dt.timedelta(days=1)
# Why a pledge is held -> what staff read of it.
DOUBTS: Mapping[str, str] = {
    "same_card": N_("the same card is behind pledges of other people for this case"),
    "many_cards": N_("several other cards were refused for it first"),
    "card_refused": N_("this card was refused for other pledges lately"),
    "network": N_("many cards were refused that came from the same network"),
    # Its supporter lets it count, by the link in a letter.
    "unconfirmed": N_("its address was not confirmed while cards were being tested"),
}

# What pages call the kinds of rows, their states and what happened to them: as the database has it, but for the
# underscores.
KINDS = (N_("Case"), N_("Round"), N_("Update"), N_("Promise change"), N_("Breaker"))
HAPPENED = (
    N_("draft"), N_("submitted"), N_("changes requested"), N_("approved"), N_("live"), N_("rejected"), N_("funded"),
    N_("missed"), N_("cancelled"), N_("closed"), N_("open"), N_("closing"), N_("met"), N_("started"),
    N_("confirmed"), N_("due"), N_("charging"), N_("charged"), N_("action required"), N_("declined"), N_("unknown"),
    N_("refunded"), N_("disputed"), N_("charged back"), N_("released"), N_("dropped"), N_("abandoned"),
    N_("pending"), N_("spam"), N_("withdrawn"), N_("scheduled"), N_("published"), N_("asked"), N_("consented"),
    N_("refused"), N_("second factor set up"), N_("second factor replaced"), N_("second factor turned off"),
    N_("second factor reset"), N_("role changed"), N_("disabled"), N_("enabled"), N_("signed up"), N_("invited"),
    N_("accepted"), N_("taken back"), N_("password reset"), N_("password changed"), N_("email change asked"),
    N_("email changed"), N_("email taken back"), N_("name changed"), N_("log in ended"), N_("logged out everywhere"),
    N_("preview link replaced"), N_("editor joined"),
    N_("editor left"), N_("written"), N_("pledging paused"), N_("pledging paused ended"), N_("charges frozen"),
    N_("charges frozen ended"), N_("comments locked"), N_("comments locked ended"), N_("shown as public"),
    N_("shown as notice"), N_("shown as hidden"), N_("edited"), N_("update draft deleted"), N_("draft deleted"),
    N_("deadline moved"), N_("promise changed"), N_("changed"), N_("raise asked"), N_("not raised"), N_("renamed"),
    N_("address corrected"), N_("address asked"), N_("address changed"), N_("address taken back"),
    N_("link replaced"), N_("subscribed"), N_("unsubscribed"), N_("decided"), N_("card replaced"),
    N_("agreed to repair"), N_("card not taken"), N_("card removed"), N_("old card removed"), N_("not approved"),
    N_("halted"),
    N_("asked again"), N_("reminded"), N_("charges went on"), N_("stopped trying"), N_("receipt asked"),
    N_("refund asked"), N_("money back"), N_("refund failed"), N_("opened"), N_("won"), N_("lost"), N_("reported"),
    N_("answered"), N_("answer changed"), N_("look again"), N_("kept"), N_("undone"), N_("resubmitted"),
    N_("held"), N_("asks"), N_("paused"), N_("prolonged"), N_("address question"), N_("address confirmed"),
    N_("erased"),
)  # fmt: skip
# The same where a sentence has it as the database has it; and who does things, if it is none of the users.
AS_STORED = (
    N_("changes_requested"), N_("action_required"), N_("charged_back"), N_("case"), N_("round"), N_("pledge"),
    N_("comment"), N_("update"), N_("promise_change"), N_("dispute"), N_("refund"), N_("breaker"),
)  # fmt: skip
DOERS = (N_("clock"), N_("operator"), N_("stripe"), N_("supporter"), N_("staff"), N_("author"), N_("reader"))

# A pledge in one of these will not move by itself any more (an abandoned one only by its supporter).
FINAL_PLEDGES = frozenset({"charged", "released", "cancelled", "dropped", "refunded", "charged_back", "abandoned"})
# The states of a pledge that was charged, whatever became of the money later.
PAID_PLEDGES = frozenset({"charged", "refunded", "disputed", "charged_back"})
# After a refusal the supporter has this long before the pledge ends.
REPAIR_WINDOW = dt.timedelta(days=7)
# A soft refusal is tried again by itself at these ages of the first refusal; the last time as the window ends.
RETRIES = (dt.timedelta(days=2), dt.timedelta(days=4), REPAIR_WINDOW)
# A standstill may delay the last try, but not for longer: the supporter was told when the window ends.
LAST_RETRY_LATE = dt.timedelta(hours=1)
# While the window is open the supporter is reminded this often.
REMIND_EVERY = dt.timedelta(hours=48)
# When charges go on that staff had frozen, at least so much of the window is left: a letter has to be read first.
LEAST_LEFT = dt.timedelta(days=2)
# Stripe may forget a key after 24 hours; before that the same key is safe to send again.
KEY_LIFETIME = dt.timedelta(hours=23)
# From here on the payment is only looked up. A new key waits an hour longer, since the last request with the old one
# may still be on its way to Stripe, and both would charge.
NEW_KEY_AFTER = dt.timedelta(hours=24)
# Once the card is removed at Stripe no request that comes later can take anything. One that Stripe was at work on by
# then is over after so long: many times what it takes for an answer.
LAST_REQUEST = dt.timedelta(minutes=10)
# Stripe's own bounds for one Checkout session: 30 minutes to 24 hours.
SHORTEST_SESSION = dt.timedelta(minutes=31)
LONGEST_SESSION = dt.timedelta(hours=23, minutes=50)
# How long a way back from Stripe or a bank leads to the private page, once what lies at its end is over.
WAY_BACK = dt.timedelta(hours=1)
# A complete session whose event cannot be found for this long is for people to decide.
EVENT_SEARCH = dt.timedelta(minutes=10)

# So long after it was sent an approved comment may still be changed by its author; one that waits always may.
COMMENT_EDITABLE = dt.timedelta(minutes=15)
# So long a moderator may undo a decision; a letter about it waits until then.
UNDO_WITHIN = dt.timedelta(minutes=10)
# So long a comment that a moderator has claimed is shown to the others as being read.
CLAIM_LENGTH = dt.timedelta(minutes=10)
# So many comments may be decided at once.
MOST_AT_ONCE = 100
# By then a comment should have its answer: readers are told "usually within 24 hours".
COMMENT_TARGET = dt.timedelta(hours=24)

# So long the reader of a new address may say that letters are to go there.
NEW_ADDRESS_WAITS = dt.timedelta(days=3)
# So long the reader of the address before may take that back.
OLD_ADDRESS_MAY_OBJECT = dt.timedelta(days=30)

# So long a link works with which somebody confirms an address, takes up an invitation, or sets another password.
SIGN_UP_WAITS = dt.timedelta(days=3)
INVITATION_WAITS = dt.timedelta(days=7)
# So many may work on a case beside its owner.
MOST_EDITORS = 10
# A link to another password works as long as RATE_LETTER counts: so whoever has used up the letters of an address has
# left a link in its mailbox that still works.
RESET_WAITS = dt.timedelta(hours=1)
# So long the reader of a new address may say that a user is to be known by it, and so long that of the old may object.
NEW_EMAIL_WAITS = dt.timedelta(days=1)
OLD_EMAIL_MAY_OBJECT = dt.timedelta(days=7)
# A second factor that was set so long before another address was asked for, or since, goes when that is taken back.
SET_WITH_EMAIL = dt.timedelta(days=1)
# Who can do much to others: these keep their second factor, and where one is required they log in with nothing less.
SECOND_FACTOR_ROLES = frozenset({"moderator", "staff"})
# How long a log-in lasts that nobody uses, and how long at most, by role: who can do much to others comes back more
# often. When it was last used is written down again after so long.
LOG_IN_LASTS: Mapping[str, tuple[dt.timedelta, dt.timedelta]] = {
    "owner": (dt.timedelta(hours=12), dt.timedelta(days=14)),
    "moderator": (dt.timedelta(minutes=30), dt.timedelta(hours=12)),
    "staff": (dt.timedelta(minutes=30), dt.timedelta(hours=12)),
}
SEEN_PAUSE = dt.timedelta(minutes=2)
# So long the books know of a log-in that is over.
LOG_INS_KEPT = dt.timedelta(days=30)
# So long a log-in may stand between the password and the second factor, and so many codes help when the app is lost.
HALF_LOG_IN_WAITS = dt.timedelta(minutes=10)
RECOVERY_CODES = 10

# An approved case may wait so long for the time at which it goes live.
LONGEST_WAIT = dt.timedelta(days=90)
# An update may wait so long for the time at which it is published.
LONGEST_AHEAD = dt.timedelta(days=60)

# Stripe's word for a payment that its payer did not approve on the bank's own page.
NOT_APPROVED = "payment_intent_authentication_failure"
REFUND_STATES = ("asking", "pending", "succeeded", "failed")
DISPUTE_STATES = ("open", "won", "lost")

# An outlook is given once so many whole days lie behind; the first three and the last three are usually the strongest.
STRONG_DAYS, LEAST_DAYS = 3, 4
# So much of what is pledged usually cannot be collected, in per cent, since cards fail.
FAILING_CARDS = (3, 10)

AGREEMENTS = {
    1: N_(
        "I allow {operator} to charge my card {amount} once, after {deadline}, only if pledges for {case} "
        "reach {target} by then. If my bank refuses, it may be tried again for up to 7 days. "
        "I can cancel free of charge until {deadline}."
    ),
    2: N_(
        "I allow {operator} to charge my card {amount} once, as soon as it is saved: {case} reached its target, and my "
        "pledge is not paid yet. If my bank refuses, it may be tried again for up to 7 days."
    ),
}
# The second is of a card that pays what was refused before.
AGREEMENT_VERSION, AGREEMENT_OF_REPAIR_VERSION = 1, 2
PROMISE = N_(
    "Your card is charged only if pledges reach {target} by {deadline}. "
    "If they do not, you pay nothing. You can cancel until then."
)
PROMISE_ONCE_PASSED = N_(
    "Pledges have passed {target}. If they are still there on {deadline}, your card is charged then. "
    "You can cancel until then."
)


@dataclass(frozen=True)
class RepairStep:
    """What the clock does next about a refused pledge, and when: retry, remind or drop."""

    what: str
    at: dt.datetime


def next_repair_step(refused_at: dt.datetime, retried: int, reminded: int, may_retry: bool) -> RepairStep:
    """The next step after the first refusal, when so many retries and reminders have been used up.

    A retry stands for the reminder of its day, since a refusal of it is a letter too. The last step is always the
    drop, after the last retry.
    """
    steps = []
    if may_retry and retried < len(RETRIES):
        steps.append(RepairStep("retry", refused_at + RETRIES[retried]))
    reminder = refused_at + (reminded + 1) * REMIND_EVERY
    if reminder < refused_at + REPAIR_WINDOW:
        steps.append(RepairStep("remind", reminder))
    steps.append(RepairStep("drop", refused_at + REPAIR_WINDOW))
    # Of steps at the same instant the first in this list comes first.
    return min(steps, key=lambda step: step.at)


@dataclass(frozen=True)
class Outlook:
    """What may be pledged at the deadline, and what of it may be charged; in pence, and no more exact than that."""

    low: int
    high: int
    charged_low: int
    charged_high: int


def outlook(days: Sequence[int], total_pence: int, left: dt.timedelta) -> Outlook | None:
    """What a round may come to. `days` are the pence of each whole day so far, the first day first; `left` is the time
    until the deadline. None while too few days lie behind.

    Low: each day that is left brings what a calm day does, so the average of the last three whole days, of the last
    seven, or of all after the first three, whichever is least. High: each brings the average of the last seven days or
    that of all days, whichever is more, and the last three days bring what the first three did, if that is more still.
    Cards that fail take the most off the low end and the least off the high one.
    """
    if len(days) < LEAST_DAYS:
        return None
    remaining = max(left / dt.timedelta(days=1), 0.0)
    recent, first = _average(days[-7:]), _average(days[:STRONG_DAYS])
    slow = max(0.0, min(recent, _average(days[-3:]), _average(days[STRONG_DAYS:])))
    fast = max(0.0, recent, _average(days))
    last = min(remaining, STRONG_DAYS)
    low = total_pence + slow * remaining
    high = total_pence + fast * (remaining - last) + max(fast, first) * last
    least, most = FAILING_CARDS
    return Outlook(
        _rounded(low, up=False), _rounded(high, up=True),
        _rounded(low * (100 - most) / 100, up=False), _rounded(high * (100 - least) / 100, up=True),
    )  # fmt: skip


def _average(pence: Sequence[int]) -> float:
    return sum(pence) / len(pence)


def _rounded(pence: float, up: bool) -> int:
    """To two figures, and to whole pounds: nobody can know more of what is to come."""
    whole = max(0, math.ceil(pence) if up else math.floor(pence))
    step = max(100, int(10 ** (len(str(whole)) - 2)))
    return math.ceil(whole / step) * step if up else whole // step * step


def too_late_to_try(refused_at: dt.datetime, as_of: dt.datetime) -> bool:
    """Whether a refused payment may not be asked for any more, however late the last try was begun."""
    return as_of > refused_at + REPAIR_WINDOW + LAST_RETRY_LATE


def counted_from(refused_at: dt.datetime, frozen_at: dt.datetime, as_of: dt.datetime) -> dt.datetime:
    """From when the window is counted once charges go on that were frozen: the time in which nothing could be paid is
    none of the supporter's seven days."""
    frozen_for = as_of - max(frozen_at, refused_at)
    return max(refused_at + frozen_for, as_of - REPAIR_WINDOW + LEAST_LEFT)


def used_up(refused_at: dt.datetime, as_of: dt.datetime) -> tuple[int, int]:
    """How many retries and reminders lie behind: after a standstill of days they are not all made up for at once."""
    age = as_of - refused_at
    return sum(age >= when for when in RETRIES), int(age / REMIND_EVERY)


def source(label: str, host: str) -> str:
    """Whence somebody came, as it is counted: by the label of a link, "via:poster", else by the host of the page
    before, "from:example.org"; "" when neither says anything."""
    if _LABEL.fullmatch(label):
        return f"via:{label}"
    host = host.lower().removeprefix("www.")
    return f"from:{host}" if len(host) <= 70 and _HOST.fullmatch(host) else ""


def known_source(text: str) -> str:
    """A source as a form brings it back, or "" when it is none."""
    kind, _, name = text.partition(":")
    return text if text and text == source(name if kind == "via" else "", name if kind == "from" else "") else ""


def allows(moves: Mapping[str, frozenset[str]], before: str, after: str) -> bool:
    """Whether the table lets `before` become `after`."""
    return after in moves[before]


def risk(signs: Iterable[str]) -> int:
    """How much the signs of a comment weigh together."""
    return sum(SIGNS[sign][0] for sign in signs)


def has_links(text: str) -> bool:
    return re.search(r"https?://|\bwww\.", text, re.IGNORECASE) is not None


def cards_are_tried(refused: int, unfinished: int, saved: int, most_refused: int, most_unfinished: int) -> bool:
    """Whether so many refused cards, and card pages without a card, are more than people leave who mean it.

    People leave some too, and the more the more of them come: so what was saved in the same time counts for them. A
    case on television has hundreds of open card pages, and hundreds of saved cards.
    """
    return refused > most_refused + saved // 2 or unfinished > most_unfinished + 2 * saved


def likeness(text: str) -> str:
    """The same for texts that differ only in case, signs, digits, repeated words or their order."""
    words = re.findall(r"[^\W\d_]+", text.casefold())
    return hashlib.sha256(" ".join(sorted(set(words))).encode()).hexdigest()


def in_time(moment: dt.datetime, deadline: dt.datetime) -> bool:
    """The only comparison with a deadline: the instant of the deadline itself still counts."""
    return moment <= deadline


def decide(total_pence: int, target_pence: int) -> str:
    """`met` when the confirmed pledges reach the target to the penny, else `missed`."""
    return "met" if total_pence >= target_pence else "missed"


def deadline_from_local(local: dt.datetime, zone: str) -> dt.datetime:
    """The UTC instant of a wall-clock time, refused when daylight saving makes it missing or double.

    A zone that nobody knows is refused too.
    """
    try:
        place = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as unknown:
        raise Refused(gettext("“%(zone)s” is not a time zone, such as Europe/London.", zone=zone)) from unknown
    first = local.replace(tzinfo=place, fold=0)
    second = local.replace(tzinfo=place, fold=1)
    instant = first.astimezone(dt.UTC)
    if instant.astimezone(place).replace(tzinfo=None) != local:
        raise Refused(
            gettext(
                "The clocks go forward that night: %(time)s on %(day)s does not exist. Choose another time.",
                time=f"{local:%H:%M}",
                day=_day_words(local),
            )
        )
    if instant != second.astimezone(dt.UTC):
        raise Refused(
            gettext(
                "The clocks go back that night: %(time)s on %(day)s comes twice. Choose another time.",
                time=f"{local:%H:%M}",
                day=_day_words(local),
            )
        )
    return instant


def _day_words(day: dt.date) -> str:
    return format_date(day, "dd MMMM y", locale=_language())


def deadline_after(days: int, zone: str, as_of: dt.datetime) -> dt.datetime:
    """When a round of so many days ends that begins now: at the first 20:00 of its zone that is as far away.

    Only the longest round ends at the last 20:00 before it would be too long.
    """
    begins = as_of.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    ends = dt.datetime.combine(begins.date() + dt.timedelta(days=days), HOUR_OF_END)
    if deadline_from_local(ends, zone) - as_of < dt.timedelta(days=days):
        ends += dt.timedelta(days=1)
    if deadline_from_local(ends, zone) - as_of > LONGEST_ROUND:
        ends -= dt.timedelta(days=1)
    return deadline_from_local(ends, zone)


def check_target(pence: int) -> None:
    if not 0 < pence <= LARGEST_TARGET:
        raise Refused(gettext("The target must be more than nothing and at most £1,000,000."))


def check_deadline(deadline: dt.datetime, as_of: dt.datetime) -> None:
    """Whether a round that begins now may end then."""
    if in_time(deadline, as_of):
        raise Refused(gettext("The deadline is in the past."))
    if deadline - as_of < SHORTEST_ROUND:
        raise Refused(gettext("The deadline is less than a day away."))
    if deadline - as_of > LONGEST_ROUND:
        raise Refused(gettext("The deadline is more than %(days)s days away.", days=LONGEST_ROUND.days))


def check_new_target(target_pence: int, new_target_pence: int) -> None:
    """Whether a target that supporters have agreed to may become this one."""
    if new_target_pence > target_pence:
        raise Refused(
            gettext(
                "The target can become lower, never higher: supporters agreed to be charged only if pledges reach it."
            )
        )
    check_target(new_target_pence)


def check_change(deadline: dt.datetime, target_pence: int, new_deadline: dt.datetime, new_target_pence: int, zone: str,
                 as_of: dt.datetime) -> None:  # fmt: skip
    """Whether a promise to which people have agreed may become this one, which holds for all of them who do not leave.

    Only a later deadline and a lower target. Either makes it likelier that they are charged, which is why they have
    time to leave. The days are counted on the calendar of the zone, so that a change of the clocks takes no hour from
    them.
    """
    check_new_target(target_pence, new_target_pence)
    if new_deadline < deadline:
        raise Refused(gettext("The deadline can come later, never earlier."))
    if (new_deadline, new_target_pence) == (deadline, target_pence):
        raise Refused(gettext("Enter a later deadline, a lower target, or both."))
    place = ZoneInfo(zone)
    on_the_wall = [one.astimezone(place).replace(tzinfo=None) for one in (deadline, new_deadline)]
    if on_the_wall[1] - on_the_wall[0] > LONGEST_EXTENSION:
        raise Refused(gettext("The deadline can come at most %(days)s days later.", days=LONGEST_EXTENSION.days))
    if new_deadline - as_of < NOTICE:
        raise Refused(
            gettext(
                "Supporters need %(days)s days to read of a change and to leave, and the deadline would come sooner.",
                days=NOTICE.days,
            )
        )


def day_of(instant: dt.datetime, zone: str) -> dt.date:
    """The day on the wall of a zone."""
    return instant.astimezone(ZoneInfo(zone)).date()


def check_publication(at: dt.datetime, as_of: dt.datetime) -> None:
    """Whether an update may be published by the clock at this time."""
    if in_time(at, as_of):
        raise Refused(gettext("This time is in the past. Choose a later one, or publish it now."))
    if at - as_of > LONGEST_AHEAD:
        raise Refused(gettext("This time is more than %(days)s days away.", days=LONGEST_AHEAD.days))


def instant_words(instant: dt.datetime, zone: str) -> str:
    """An instant as readers need it: "Sunday 9 October 2022, 2:00am BST"."""
    return _instant_words(instant, zone, _language())


@functools.lru_cache(maxsize=256)
def _instant_words(instant: dt.datetime, zone: str, language: str) -> str:
    """Kept, since everybody who pledges for a case agrees to the same deadline twice."""
    day = format_datetime(instant.astimezone(ZoneInfo(zone)), "EEEE d MMMM y", locale=language)
    return gettext("%(day)s, %(time)s", day=day, time=clock_words(instant, zone))


def clock_words(instant: dt.datetime, zone: str) -> str:
    """The time of day with its zone: "2:00am BST"."""
    local = instant.astimezone(ZoneInfo(zone))
    if not _language().startswith("en"):
        return f"{format_time(local, 'short', locale=_language())} {local.tzname()}"
    half = "am" if local.hour < 12 else "pm"
    return f"{local.hour % 12 or 12}:{local.minute:02d}{half} {local.tzname()}"


def _language() -> str:
    """That of the page or the letter; English where there is none."""
    return str(get_locale() or ENGLISH)


def session_expiry(deadline: dt.datetime, as_of: dt.datetime) -> dt.datetime:
    """When a card page opened now should end: with the round if Stripe's bounds allow, in whole seconds."""
    expiry = min(as_of + LONGEST_SESSION, max(deadline, as_of + SHORTEST_SESSION))
    return expiry.replace(microsecond=0)


def last_half_hour(deadline: dt.datetime, as_of: dt.datetime) -> bool:
    """Whether so little time is left that the reader must be told until when the card has to be saved."""
    return in_time(as_of, deadline) and deadline - as_of <= dt.timedelta(minutes=30)
