"""What the journeys do again and again: pledge, let the deadline come, let time pass, ask Stripe what it has."""

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests
import sqlalchemy as sa

from jobs import ring
from models import Event, Lease, Letter, Movement, Pledge, Round, StripeEvent, begin_writing, db
from tests.house import House, eventually
from tests.made import case_at, keep, look_anew, now, pledges_of
from tests.reader import Reader

WORKS = "4242 4242 4242 4242"
DECLINES_LATER = "4000 0000 0000 0341"
BANK_ASKS_LATER = "4000 0027 6000 3184"
LOST_LATER = "4000 0000 0000 0036"
A_SECOND = dt.timedelta(seconds=1)
A_WEEK = dt.timedelta(days=7)
# The clock does itself what has waited for this long.
NOBODY_CAME = dt.timedelta(seconds=16)

# --- What people do ----------------------------------------------------------------------------------------


def on_card_page(house: House, slug: str, pounds: int, **typed: Any) -> tuple[Reader, Pledge]:
    """Somebody who filled in the pledge form and stands on Stripe's page, and the pledge that was started."""
    reader = Reader(house.url).pledge(slug, str(pounds), **typed)
    return reader, pledges_of(slug)[-1]


def a_real_pledge(house: House, slug: str, pounds: int, card: str = WORKS, **typed: Any) -> Pledge:
    """A pledge that went the whole way through Stripe's page and back, so that its card can really be charged."""
    reader, _ = on_card_page(house, slug, pounds, **typed)
    reader.save_card(card)
    if card == BANK_ASKS_LATER:
        reader.press("Approve")
    assert f"Your pledge of £{pounds} counts" in reader.words
    return pledges_of(slug)[-1]


def save_card_and_close_the_tab(reader: Reader, card: str = WORKS) -> None:
    """On Stripe's page: save the card, and never come back to our site."""
    saved = requests.post(reader.address, {"card": card}, allow_redirects=False, timeout=30)
    assert saved.status_code == 303


# --- What time does ----------------------------------------------------------------------------------------


@contextmanager
def writing() -> Iterator[None]:
    """A change of rows by the test's own hand; afterwards this process only reads again."""
    begin_writing()
    yield
    keep()


def the_deadline_comes(slug: str, rung: bool = True, ago: dt.timedelta = dt.timedelta(0)) -> None:
    """The deadline is now, or was a little while `ago`. `rung` saves the seconds until the sweep sees it and rings."""
    round_id = case_at(slug).round.id
    with writing():
        Round.hold(round_id).move_deadline(now() - ago, "test", now())
    if rung:
        ring("settle_round", round_id)


def time_passes(slug: str, length: dt.timedelta = NOBODY_CAME) -> None:
    """All that waits for the clock has waited for so much longer: the case's own rows, its letters and the inbox."""
    round_id = case_at(slug).round.id
    with writing():
        its_round = Round.hold(round_id)
        rows: list[Any] = [its_round, *_held(sa.select(Pledge).where(Pledge.round_id == round_id))]
        subjects = [f"pledge:{row.id}" for row in rows[1:]] + [f"round:{round_id}"]
        rows += _held(sa.select(Letter).where(Letter.subject.in_(subjects), Letter.sent_at.is_(None)))
        rows += _held(sa.select(StripeEvent).where(StripeEvent.processed_at.is_(None)))
        for row in rows:
            row.next_at = row.next_at and row.next_at - length
        for pledge in its_round.pledges("declined", "action_required"):
            pledge.refused_at = pledge.refused_at and pledge.refused_at - length
            pledge.repair_until = pledge.repair_until and pledge.repair_until - length
        for lease in _held(sa.select(Lease).where(Lease.name == "capture")):
            lease.until -= length


def _held(rows: Any) -> list[Any]:
    return list(db.session.scalars(rows.with_for_update()))


# --- What is so afterwards ---------------------------------------------------------------------------------


def states(slug: str) -> list[str]:
    """The states of a case's pledges, oldest first."""
    return [pledge.status for pledge in pledges_of(slug)]


def round_of(slug: str) -> Round:
    """The case's round as the database has it now."""
    return case_at(slug).round


def history(pledge: Pledge) -> list[str | None]:
    """The states that a pledge went through, in order."""
    look_anew()
    found = sa.select(Event.after).where(Event.subject_kind == "pledge", Event.subject_id == pledge.id)
    return list(db.session.scalars(found.where(Event.after.is_not(None)).order_by(Event.id)))


def movements_of(pledge: Pledge) -> list[Movement]:
    """What the ledger holds of a pledge."""
    look_anew()
    return list(db.session.scalars(sa.select(Movement).where(Movement.pledge_id == pledge.id).order_by(Movement.id)))


def decisions(slug: str) -> list[str | None]:
    """What the case's round was decided to be: one line of history for each time, so never more than one."""
    verdicts = ("met", "missed", "cancelled")
    found = sa.select(Event.after).where(Event.subject_kind == "round", Event.subject_id == round_of(slug).id)
    return list(db.session.scalars(found.where(Event.after.in_(verdicts))))


def stripe_object(house: House, path: str) -> dict[str, Any]:
    """One object as Stripe has it: "payment_methods/pm_1", "checkout/sessions/cs_1"."""
    answer = requests.get(f"{house.stripe}/v1/{path}", headers={"Authorization": "Bearer sk_test_house"}, timeout=30)
    answer.raise_for_status()
    return dict(answer.json())


def calls(house: House, operation: str, pledge: Pledge | None = None) -> list[dict[str, Any]]:
    """What was asked of Stripe, oldest first: every call of an operation, or those that name a pledge."""
    asked = requests.get(f"{house.stripe}/sandbox/calls", {"operation": operation}, timeout=30).json()
    return [
        call for call in asked if pledge is None or call["params"].get("metadata[pledge_id]") == str(pledge.id)
    ]  # fmt: skip


def let_events_go(house: House, reverse: bool = False) -> None:
    """Deliver what a "hold" kept back, in its order or the other way round, and wait until all of it was looked at."""
    house.clear_faults()
    requests.post(f"{house.stripe}/sandbox/events/release", json={"reverse": reverse}, timeout=30).raise_for_status()
    every_event_is_looked_at(house)


def every_event_is_looked_at(house: House) -> None:
    """Wait until Stripe has delivered all that came of this test, and our inbox has worked on it.

    A test before may have killed who was at work: what that one had claimed is taken up again only after a minute.
    """

    def all_is_read() -> bool:
        sent = house.deliveries()
        if any(delivery["state"] in ("waiting", "held") for delivery in sent):
            return False
        look_anew()
        ids = {delivery["event_id"] for delivery in sent}
        waiting = set(db.session.scalars(sa.select(StripeEvent.event_id).where(StripeEvent.processed_at.is_(None))))
        return not ids & waiting

    eventually(all_is_read, why="events were not looked at")


def card_is_saved(house: House, payment_method_id: str | None) -> bool:
    """Whether Stripe could still charge this card. Note its id before anything happens: our row soon forgets it."""
    assert payment_method_id is not None
    return stripe_object(house, f"payment_methods/{payment_method_id}")["customer"] is not None


def letters_about(house: House, to: str) -> list[str]:
    """The subjects of all letters to an address, sorted."""
    return sorted(letter.partition("Subject: ")[2].partition("\n")[0] for letter in house.letters(to=to))


def told(house: House, to: str, *subjects: str) -> None:
    """Wait until exactly these letters, and no other, have gone to an address."""
    # Letters wait behind money, and without a worker the clock comes for them only after a while. Each test has its
    # own addresses, since the letters of the tests before it lie in the same folder.
    whether = f"{to} was not told exactly this: {subjects}"
    assert eventually(lambda: letters_about(house, to) == sorted(subjects), why=whether)


def body(letter: str) -> str:
    """The words of a letter, without its headers."""
    return letter.partition("\n\n")[2]
