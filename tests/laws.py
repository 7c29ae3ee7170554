"""What must hold of our books and of Stripe's at every moment, whatever went wrong: each breach is one sentence.

Stripe's side is read from the sandbox's own documents, and who was promised what from what the supporters were told;
nothing here asks the doctor, who has his own look.
"""

import datetime as dt
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

import law
from models import Letter, Movement, Pledge, Round, StripeEvent, db
from money import parse_pounds
from tests.world import World

Document = dict[str, Any]
AGREED = re.compile(r"charge my card £([\d,.]+) once")
ENDED_UNCHARGED = ("released", "cancelled", "dropped", "abandoned")


@dataclass
class Told:
    """What people were told or have asked for, which nothing may take back."""

    cancelled: set[int] = field(default_factory=set)
    # Also those whose answer was lost, so that nobody knows.
    wants_to_cancel: set[int] = field(default_factory=set)
    pledges: set[str] = field(default_factory=set)
    decision: tuple[Any, ...] | None = None
    refunds: set[int] = field(default_factory=set)
    # The lower amounts that supporters agreed to on our own page, by pledge.
    lowered: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))


class Both:
    """Our books and Stripe's side by side, as they are at this moment. Needs an application context."""

    def __init__(self, world: World, told: Told) -> None:
        self.world, self.told = world, told
        self.pledges = list(db.session.scalars(sa.select(Pledge).order_by(Pledge.id)))
        self.round = db.session.scalars(sa.select(Round)).one()
        self.movements = list(db.session.scalars(sa.select(Movement)))
        self.intents = by_pledge(world.stripes("payment_intent"))
        self.charges = by_pledge([one for one in world.stripes("charge") if one["paid"]])
        self.refunds = world.stripes("refund")
        self.disputes = world.stripes("dispute")
        self.sessions = by_pledge(world.stripes("checkout.session"))

    def saved_in_time(self, pledge: Pledge) -> list[Document]:
        """The card pages of a pledge on which a card was saved by the deadline, by Stripe's clock."""
        at = {
            event["data"]["object"]["id"]: dt.datetime.fromtimestamp(event["created"], dt.UTC)
            for event in self.world.stripes("event")
            if event["type"] == "setup_intent.succeeded"
        }
        return [
            session
            for session in self.sessions[pledge.id]
            if session["status"] == "complete" and at[session["setup_intent"]] <= self.round.deadline
        ]


def by_pledge(documents: list[Document]) -> dict[int, list[Document]]:
    found: dict[int, list[Document]] = defaultdict(list)
    for document in documents:
        found[int(document["metadata"]["pledge_id"])].append(document)
    return found


# --- At every moment ---------------------------------------------------------------------------------------


def never_charged_twice(both: Both) -> Iterator[str]:
    """I1"""
    for pledge_id, charges in both.charges.items():
        if len(charges) > 1:
            yield f"pledge {pledge_id} was charged {len(charges)} times"
    for pledge_id, intents in both.intents.items():
        if len(intents) > 1:
            yield f"pledge {pledge_id} has {len(intents)} payments at Stripe"


def only_what_was_agreed(both: Both) -> Iterator[str]:
    """I1: the amount is one that stood on a page on which a card was saved, or a lower one that was agreed to later."""
    for pledge in both.pledges:
        agreed = both.told.lowered[pledge.id] | {
            _agreed(session) for session in both.sessions[pledge.id] if session["status"] == "complete"
        }
        for intent in both.intents[pledge.id]:
            if intent["amount"] not in agreed:
                yield f"pledge {pledge.id} agreed to {agreed} and was asked for {intent['amount']}"


def _agreed(session: Document) -> int:
    said = AGREED.search(session["custom_text"]["submit"]["message"])
    assert said is not None
    return parse_pounds(said.group(1))


def only_if_it_was_met(both: Both) -> Iterator[str]:
    """I2: the decision is made once, on what was saved in time, and without it no payment exists."""
    its_round, told = both.round, both.told
    decision = (its_round.status, its_round.settled_total_pence, its_round.settled_count, its_round.settled_at)
    if told.decision not in (None, decision):
        yield f"the decision {told.decision} became {decision}"
    if its_round.status in ("met", "missed"):
        told.decision = decision
    asked = [pledge_id for pledge_id, intents in both.intents.items() if intents]
    if asked and its_round.status != "met":
        yield f"pledges {asked} have payments, but the round is {its_round.status}"
    if its_round.status == "met" and (its_round.settled_total_pence or 0) < its_round.target_pence:
        yield f"the round is met with {its_round.settled_total_pence} of {its_round.target_pence}"


def whoever_saved_a_card_in_time_counts(both: Both) -> Iterator[str]:
    """I2, I6: once it is decided, all of them, and nobody else."""
    if both.round.status not in ("met", "missed"):
        return
    counted = {one.id for one in both.pledges if one.confirmed_at is not None and one.status != "cancelled"}
    in_time = {one.id for one in both.pledges if both.saved_in_time(one)}
    if lost := in_time - both.told.wants_to_cancel - counted:
        yield f"pledges {lost} saved a card in time and do not count"
    if wrong := counted - (in_time - both.told.cancelled):
        yield f"pledges {wrong} count without a card in time, or after they were cancelled"
    total = sum(one.amount_pence for one in both.pledges if one.id in counted)
    if total != both.round.settled_total_pence:
        yield f"those that count are {total} pence, but {both.round.settled_total_pence} were decided on"


def cancelled_is_cancelled(both: Both) -> Iterator[str]:
    """I3"""
    for pledge in both.pledges:
        if pledge.id in both.told.cancelled and pledge.status != "cancelled":
            yield f"pledge {pledge.id} was told that it is cancelled, and is {pledge.status}"
        if pledge.id in both.told.cancelled and both.intents[pledge.id]:
            yield f"pledge {pledge.id} was told that it is cancelled, and has a payment"
        if pledge.status in ENDED_UNCHARGED and both.charges[pledge.id]:
            yield f"pledge {pledge.id} is {pledge.status}, and was charged"


def the_shown_total_is_the_sum(both: Both) -> Iterator[str]:
    """I5"""
    if both.round.status in ("open", "closing"):
        confirmed = sum(one.amount_pence for one in both.pledges if one.status == "confirmed")
        if both.round.pledged_pence != confirmed:
            yield f"{both.round.pledged_pence} pence are shown, and {confirmed} are confirmed"


def nothing_acknowledged_is_lost(both: Both) -> Iterator[str]:
    """I6"""
    if both.world.acknowledged:
        kept = set(db.session.scalars(sa.select(StripeEvent.event_id)))
        if lost := both.world.acknowledged - kept:
            yield f"the events {lost} were acknowledged and are not there"
    if lost := both.told.pledges - {one.form_key for one in both.pledges}:
        yield f"{len(lost)} pledges were acknowledged and are not there"


def the_ledger_claims_nothing_that_stripe_has_not(both: Both) -> Iterator[str]:
    """I8, at every moment: what we wrote down has happened, once, with this amount."""
    happened = {one["id"]: one["amount"] for charges in both.charges.values() for one in charges}
    happened |= {one["id"]: -one["amount"] for one in (*both.refunds, *both.disputes)}
    # What Stripe kept for itself stands in its balance only.
    happened |= {line["id"]: -line["fee"] for line in both.world.stripes("balance_transaction")}
    for one in both.movements:
        name, _, undone = one.stripe_id.partition(":")
        if happened.get(name) != (-one.amount_pence if undone else one.amount_pence):
            yield f"the ledger has {one.kind} {one.stripe_id} of {one.amount_pence}, and Stripe {happened.get(name)}"


def nothing_is_paid_back_twice(both: Both) -> Iterator[str]:
    """I8: each refund that staff asked for is at most one at Stripe."""
    asked = Counter(one["metadata"].get("refund_id") for one in both.refunds)
    for refund_id, times in asked.items():
        if refund_id is not None and times > 1:
            yield f"refund {refund_id} was paid back {times} times"


def each_letter_once(both: Both) -> Iterator[str]:
    """I7"""
    times = sa.func.count()
    found = sa.select(Letter.kind, Letter.subject, Letter.occasion).group_by(
        Letter.kind, Letter.subject, Letter.occasion
    )
    for kind, subject, occasion in db.session.execute(found.having(times > 1)):
        yield f"the letter {kind} to {subject} about {occasion} is owed twice"
    known = set(db.session.scalars(sa.select(Letter.message_id)))
    if unknown := both.world.posted - known:
        yield f"{len(unknown)} letters were sent that nobody owed"


# --- Once everything has healed ----------------------------------------------------------------------------


def everything_has_ended(both: Both) -> Iterator[str]:
    """I4"""
    for pledge in both.pledges:
        if pledge.status not in law.FINAL_PLEDGES:
            yield f"pledge {pledge.id} is still {pledge.status}"


def the_ledger_is_stripes_balance(both: Both) -> Iterator[str]:
    """I8: to the penny, Stripe's fees included, for the whole account and for each pledge that was charged."""
    at_stripe = sum(one["net"] for one in both.world.stripes("balance_transaction"))
    ours = sum(one.amount_pence for one in both.movements)
    if at_stripe != ours:
        yield f"Stripe's balance is {at_stripe} and our ledger {ours}"
    for pledge in both.pledges:
        paid = sum(one["amount"] for one in both.charges[pledge.id])
        booked = sum(one.amount_pence for one in both.movements if (one.pledge_id, one.kind) == (pledge.id, "charge"))
        if paid != booked or (paid != 0) != (pledge.status in law.PAID_PLEDGES):
            yield f"pledge {pledge.id} is {pledge.status}: Stripe took {paid}, the ledger has {booked}"


def no_card_is_kept_that_is_not_needed(both: Both) -> Iterator[str]:
    """Whoever was not charged has no card, and no open card page, at Stripe; who was, has one card at most."""
    kept = Counter(one["customer"] for one in both.world.stripes("payment_method") if one["customer"])
    for pledge in both.pledges:
        open_pages = [one for one in both.sessions[pledge.id] if one["status"] == "open"]
        most = 1 if pledge.status in law.PAID_PLEDGES else 0
        customers = {one["customer"] for one in both.sessions[pledge.id] if one["customer"]}
        if sum(kept[one] for one in customers) > most:
            yield f"pledge {pledge.id} is {pledge.status}, and Stripe still has its card"
        if open_pages and not most:
            yield f"pledge {pledge.id} is {pledge.status}, and its card page is still open"


Law = Callable[[Both], Iterator[str]]
ALWAYS: tuple[Law, ...] = (
    never_charged_twice,
    only_what_was_agreed,
    only_if_it_was_met,
    whoever_saved_a_card_in_time_counts,
    cancelled_is_cancelled,
    the_shown_total_is_the_sum,
    nothing_acknowledged_is_lost,
    the_ledger_claims_nothing_that_stripe_has_not,
    nothing_is_paid_back_twice,
    each_letter_once,
)
AT_THE_END: tuple[Law, ...] = (
    everything_has_ended,
    the_ledger_is_stripes_balance,
    no_card_is_kept_that_is_not_needed,
)


def breaches(world: World, told: Told, laws: tuple[Law, ...]) -> list[str]:
    """Every sentence that any of these laws has to say."""
    both = Both(world, told)
    return [f"{one.__name__}: {sentence}" for one in laws for sentence in one(both)]
