"""Things that tests need, made by the models' own verbs, with every number that matters in the call."""

import datetime as dt
import itertools
import secrets
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from flask import current_app

import law
from models import ENGLISH, Case, Pledge, Round, User, begin_reading, begin_writing, db
from payments import CardFound

PASSWORD = "a long password for the tests"
_numbers = itertools.count(1)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def a_user(role: str = "owner", email: str = "", name: str = "") -> User:
    """Somebody with the password PASSWORD."""
    begin_writing()
    person = User.enrol(
        email or f"{role}-{secrets.token_hex(4)}@example.org", name or f"A {role.title()}", role, PASSWORD, now(),
        bio="Teachers and parents.",
    )  # fmt: skip
    keep()
    return person


def a_case(
    *,
    slug: str = "",
    title: str = "A case about data",
    target: int = 600_000,
    pledged: Iterable[int] = (),
    ends_in: dt.timedelta = dt.timedelta(days=7, minutes=5),
    owner: User | None = None,
    story: str = "## What is going on\n\nA story.",
) -> Case:
    """A live case of its own owner. `target` and `pledged` are pence; each of `pledged` is a confirmed pledge."""
    owner, as_of = owner or a_user(), now()
    begin_writing()
    case = Case.draft(
        db.session.merge(owner), slug or f"case-{secrets.token_hex(4)}", title, "In short.", story,
        "AWO acts for us.", as_of,
    )  # fmt: skip
    case.go_live(target, as_of + max(ends_in, law.SHORTEST_ROUND), "Europe/London", "test", as_of)
    # No case begins so shortly before its end; but every case comes there.
    case.round.deadline = as_of + ends_in
    for amount in pledged:
        confirm(a_pledge(case.round, amount))
    keep()
    return case


def a_draft(owner: User | None = None, **changed: Any) -> Case:
    """A draft that lacks nothing: £6,000 in 30 days, with a budget of £4,000 and £2,000, except for what is changed."""
    owner, as_of = owner or a_user(), now()
    begin_writing()
    case = Case.draft(db.session.merge(owner), f"draft-{secrets.token_hex(4)}", "Whose data?", "In short.",
                      "## What is going on\n\nA story.", "AWO", as_of)  # fmt: skip
    whole = {
        "who_we_are": "Teachers and parents.", "lawyer": "Sam Weir", "regulator_number": "SRA 000000",
        "topic": "privacy", "court": "High Court", "stage": "Before the claim",
        "risks": "We may lose, and then pay costs.",
        "wanted_pence": 600_000, "wanted_days": 30, "wanted_end": None,
        "budget": [("The claim", 400_000), ("Counsel", 200_000)],
        "links": [("The letter", "https://example.org/letter.pdf")],
    }  # fmt: skip
    case.write({**whole, **changed}, case.draft_version, as_of)
    keep()
    return case


def a_pledge(
    its_round: Round,
    amount: int = 2_500,
    *,
    name: str = "Ada Winter",
    email: str = "",
    shown_as: str = "name",
    wants_updates: bool = False,
    as_of: dt.datetime | None = None,
    language: str = ENGLISH,
) -> Pledge:
    """A pledge that was started and went to Stripe's page; its card is not saved yet."""
    number = next(_numbers)
    pledge = its_round.start_pledge(
        form_key=secrets.token_urlsafe(24), amount_pence=amount, name=name,
        email=email or f"supporter{number}@example.org", shown_as=shown_as, wants_updates=wants_updates,
        as_of=as_of or now(), language=language,
    )  # fmt: skip
    pledge.ask_card_page({"made": "by a test"}, its_round.deadline)
    pledge.card_page_made(pledge.session_key, f"cs_test_{secrets.token_hex(8)}", "https://stripe.example/page")
    return pledge


def card_found(pledge: Pledge, saved_at: dt.datetime | None = None, *, expired: bool = False) -> CardFound:
    """What Stripe would say of the pledge's card page."""
    return CardFound(
        session_id=str(pledge.session_id), expired=expired, complete=not expired, url=None,
        setup_intent_id=f"seti_{pledge.id}", saved_at=None if expired else saved_at or now(),
        customer_id=f"cus_{pledge.id}", payment_method_id=None if expired else f"pm_{pledge.id}",
        card_words="Visa ending 4242",
    )  # fmt: skip


def a_new_card(pledge: Pledge, saved_at: dt.datetime | None = None) -> CardFound:
    """The page for another card is asked for, and this is what Stripe would say of it once a card is saved there."""
    pledge.ask_card_page({}, pledge.round.deadline)
    pledge.card_page_made(pledge.session_key, f"cs_again_{pledge.id}_{pledge.session_no}", None)
    found = card_found(pledge, saved_at)
    return replace(found, payment_method_id=f"pm_new_{pledge.id}", customer_id=pledge.customer_id)


def confirm(pledge: Pledge, saved_at: dt.datetime | None = None) -> Pledge:
    """Its card is saved."""
    pledge.apply_card(card_found(pledge, saved_at), now())
    return pledge


def keep() -> None:
    """Commit. In journeys this process then only reads, so that it never stands in the way of the others."""
    db.session.commit()
    look_anew()


def look_anew() -> None:
    """Forget what was read before, so that the next look sees what other processes did."""
    if current_app.config.get("JOURNEY"):
        begin_reading()
    else:
        begin_writing()


def case_at(slug: str) -> Case:
    """The case as the database has it now."""
    look_anew()
    return db.session.scalars(sa.select(Case).where(Case.slug == slug)).one()


def pledges_of(slug: str) -> list[Pledge]:
    """Every pledge of a case, oldest first, as the database has it now."""
    its_round = case_at(slug).round
    return list(db.session.scalars(sa.select(Pledge).where(Pledge.round_id == its_round.id).order_by(Pledge.id)))


def not_unique(table: str, *columns: str) -> str:
    """How either database says that these columns together are there already: a pattern for `match`."""
    listed = ", ".join(f"{table}.{column}" for column in columns)
    return rf"UNIQUE constraint failed: {listed}|unique constraint \"uq_{table}_{'_'.join(columns)}\""
