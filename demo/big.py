"""A big house: hundreds of cases, thousands of pledges and comments, written straight into the tables within seconds.

It is for looking at pages, and for measuring them, when a site has been used for long. Its books agree, as the doctor
says. But nothing of it ever happened at Stripe: nobody there knows these cards, so that a charge that comes due is
refused, and a comparison of the books with Stripe finds none of these payments there.
"""

import datetime as dt
import itertools
import random
import secrets
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

import law
from law import Refused
from models import (
    ENGLISH,
    Agreement,
    Case,
    ChargeAttempt,
    Comment,
    Day,
    Event,
    Letter,
    Movement,
    Pledge,
    Round,
    Source,
    User,
    begin_writing,
    db,
)
from money import pounds

ZONE = "Europe/London"
OWNERS = 5
OWNER, MODERATOR, STAFF = "owner@big.example.org", "moderator@big.example.org", "staff@big.example.org"
# The first case has so large a part of all pledges and comments, so that one page at least is really big.
BIGGEST = 0.25
# How many of ten cases stand where; the first case is always live.
STANDING = ("live",) * 5 + ("funded",) * 2 + ("missed",) * 2 + ("submitted",)
FIRST = "Ada Ben Carys Dev Esther Finn Grace Hannah Ines Jon Kit Lena Max Noor Olu Priya Quentin Rae Sam Tom".split()
LAST = "Archer Bell Cole Dunn Ellis Ford Grant Hale Ivory Jones Kaur Lowe Morgan Nash Okafor Price Shah Winter".split()
AMOUNTS = (500, 1_000, 1_000, 2_000, 2_500, 2_500, 5_000, 10_000)
SOURCES = ("", "", "via:poster", "via:newsletter", "via:radio", "from:news.example.org", "from:forum.example.net")
# Of the pledges that count so many are cancelled, and of the charges so many are refused for good: one in ...
CANCELLED, DROPPED = 30, 20
# How many of ten comments stand where.
DECIDED = ("pending",) * 5 + ("approved",) * 4 + ("rejected",)
LENGTH = dt.timedelta(days=30)
BATCH = 1_000


def fill(cases: int = 200, pledges: int = 20_000, comments: int = 5_000, password: str = "") -> None:
    """Write it all, and commit. The same numbers give much the same house. Raises Refused when it stands already."""
    begin_writing()
    if db.session.scalar(sa.select(User.id).where(User.email == OWNER)) is not None:
        db.session.rollback()
        raise Refused("The big house stands already.")
    now, chance = dt.datetime.now(dt.UTC), random.Random(1)  # noqa: S311 - nothing here is secret
    last_letter = db.session.scalar(sa.select(sa.func.max(Letter.id))) or 0
    owners, moderator = _people(min(OWNERS, cases), password or secrets.token_urlsafe(12), now)
    shares = iter(_shares(sum(_standing(number) != "submitted" for number in range(cases)), pledges))
    plans = []
    for number in range(cases):
        if _standing(number) == "submitted":
            _a_submitted_case(_a_case(number, owners, now), now)
        else:
            plans.append(_plan(_a_case(number, owners, now), _standing(number), next(shares), chance, now))
    _pledges(plans, chance)
    for plan in plans:
        _end(plan)
    _comments(plans, comments, moderator, chance, now)
    new = sa.and_(Letter.id > last_letter, Letter.sent_at.is_(None))
    db.session.execute(sa.update(Letter).where(new).values(sent_at=Letter.created_at, next_at=None))
    db.session.commit()


@dataclass(frozen=True)
class _Plan:
    """A case that was live at some time, and its pledges: (when, pence, when it was cancelled)."""

    round: Round
    began: dt.datetime
    pledges: list[tuple[dt.datetime, int, dt.datetime | None]]


def _people(owners: int, password: str, now: dt.datetime) -> tuple[list[User], User]:
    emails = [OWNER, *(f"owner-{number}@big.example.org" for number in range(1, owners))]
    enrolled = [User.enrol(email, f"Owner {number}", "owner", password, now) for number, email in enumerate(emails, 1)]
    User.enrol(STAFF, "Staff of the big house", "staff", password, now)
    return enrolled, User.enrol(MODERATOR, "Moderator of the big house", "moderator", password, now)


def _shares(cases: int, all_together: int) -> list[int]:
    """How many each case has of them: the first a quarter, the others fewer and fewer."""
    weights = [1 / (number + 3) for number in range(cases - 1)]
    rest = all_together * (1 - BIGGEST) / (sum(weights) or 1)
    shares = [int(weight * rest) for weight in weights]
    return [all_together - sum(shares), *shares]


def _standing(number: int) -> str:
    return STANDING[number % len(STANDING)]


def _a_case(number: int, owners: list[User], now: dt.datetime) -> Case:
    began = now - dt.timedelta(days=number % 20 + 5 if _standing(number) == "live" else number % 40 + 40)
    return Case.draft(
        owners[number % len(owners)], f"big-{number + 1}", f"Case {number + 1} of the big house", "One of many.",
        "## What is going on\n\nThis case was written by a program.", "A law centre", began, zone=ZONE,
        who_we_are="Neighbours.", lawyer="Sam Weir, who does not exist", regulator_number="SRA 000000",
        court="High Court", stage="Before the claim", topic="privacy", risks="We may lose.",
    )  # fmt: skip


def _a_submitted_case(case: Case, now: dt.datetime) -> None:
    wanted = {"wanted_pence": 500_000, "wanted_days": 30, "budget": [("The claim", 500_000)]}
    case.write(wanted, case.draft_version, case.created_at)
    case.submit(case.owner, now)


def _plan(case: Case, standing: str, pledges: int, chance: random.Random, now: dt.datetime) -> _Plan:
    """The case live, or live once, with a target that its pledges will reach or not, as it should be."""
    began = case.created_at
    deadline = law.deadline_after(30, ZONE, began)
    planned = [_a_pledge(began, min(now, deadline), chance) for _ in range(pledges)]
    total = sum(pence for _, pence, cancelled in planned if cancelled is None)
    target = {"live": total * 3 // 2, "funded": total * 4 // 5, "missed": total * 2}[standing]
    step = 50_000 if target > 500_000 else 1_000
    rounded = max(target // step, 1) * step
    case.go_live(min(rounded, law.LARGEST_TARGET), deadline, ZONE, "big", began)
    return _Plan(case.round, began, planned)


def _a_pledge(
    began: dt.datetime, until: dt.datetime, chance: random.Random
) -> tuple[dt.datetime, int, dt.datetime | None]:
    """Most come in the first days."""
    at = began + (until - began) * chance.triangular(0, 1, 0.1)
    cancelled = at + (until - at) * chance.random() if chance.randrange(CANCELLED) == 0 else None
    return at, chance.choice(AMOUNTS), cancelled


def _pledges(plans: list[_Plan], chance: random.Random) -> None:
    """All pledges with what belongs to them, each with its card saved; and the counters of their rounds."""
    for plan in plans:
        its_round, words = plan.round, {pence: plan.round.agreement(pounds(pence)) for pence in AMOUNTS}
        made = {secrets.token_hex(10): one for one in sorted(plan.pledges)}
        rows = [_row(its_round, key, at, pence, cancelled, chance) for key, (at, pence, cancelled) in made.items()]
        _insert(Pledge, rows)
        found = sa.select(Pledge.public_id, Pledge.id).where(Pledge.round_id == its_round.id)
        numbers = {row.public_id: row.id for row in db.session.execute(found)}
        told = [(numbers[key], *one) for key, one in made.items()]
        _insert(Agreement, [
            {"pledge_id": number, "version": law.AGREEMENT_VERSION, "amount_pence": pence, "before_pence": None,
             "deadline": its_round.deadline, "target_pence": its_round.target_pence, "words": words[pence],
             "agreed_at": at} for number, at, pence, _ in told
        ])  # fmt: skip
        case_id = its_round.case_id
        _insert(Event, [
            step for number, at, _, cancelled in told for step in (
                _event("pledge", number, case_id, "supporter", at, None, "started"),
                _event("pledge", number, case_id, "stripe", at, "started", "confirmed"),
                *([_event("pledge", number, case_id, "supporter", cancelled, "confirmed", "cancelled")]
                  if cancelled else ()),
            )
        ])  # fmt: skip
        _insert(Letter, [_letter("confirmed", number, "confirmed", at) for number, at, _, _ in told])
        _insert(Letter, [_letter("cancelled", number, "cancelled", gone) for number, _, _, gone in told if gone])
        _count(its_round, plan.pledges)
        _sources(its_round, plan.pledges, chance)


def _row(its_round: Round, key: str, at: dt.datetime, pence: int, cancelled: dt.datetime | None,
         chance: random.Random) -> dict[str, Any]:  # fmt: skip
    name = f"{chance.choice(FIRST)} {chance.choice(LAST)}"
    return {
        "round_id": its_round.id, "public_id": key, "link_version": 1, "form_key": f"big-{key}-{key}",
        "status": "cancelled" if cancelled else "confirmed", "amount_pence": pence, "name": name,
        "email": f"{name.lower().replace(' ', '.')}.{key[:6]}@big.example.org",
        "shown_as": "anonymous" if chance.random() < 0.2 else "name",
        "wants_updates": chance.random() < 0.4, "came_from": "", "agreement_version": law.AGREEMENT_VERSION,
        "agreement_at": at, "agreement_pence": pence, "started_at": at, "confirmed_at": at, "card_saved_at": at,
        "session_no": 1, "session_id": f"cs_big_{key}", "customer_id": f"cus_big_{key}",
        "payment_method_id": None if cancelled else f"pm_big_{key}", "card_words": "Visa ending 4242",
        "refunded_pence": 0, "awaits_card": False, "refused_softly": False, "retried": 0, "reminded": 0,
        "network": "", "confirm_no": 0,
        "stop_trying": False, "tries": 0, "ended_because": "supporter" if cancelled else None, "language": ENGLISH,
    }  # fmt: skip


def _count(its_round: Round, planned: list[tuple[dt.datetime, int, dt.datetime | None]]) -> None:
    pence: Counter[dt.date] = Counter()
    pledges: Counter[dt.date] = Counter()
    for at, amount, cancelled in planned:
        for moment, sign in ((at, 1), *([(cancelled, -1)] if cancelled else ())):
            date = law.day_of(moment, ZONE)
            pence[date] += sign * amount
            pledges[date] += sign
    _insert(Day, [
        {"round_id": its_round.id, "day": date, "pledges": pledges[date], "pence": pence[date]} for date in pence
    ])  # fmt: skip
    its_round.pledged_pence, its_round.pledge_count = pence.total(), pledges.total()
    db.session.flush()


def _sources(its_round: Round, planned: list[tuple[dt.datetime, int, dt.datetime | None]],
             chance: random.Random) -> None:  # fmt: skip
    came = Counter((law.day_of(at, ZONE), chance.choice(SOURCES)) for at, _, _ in planned)
    _insert(Source, [
        {"round_id": its_round.id, "day": date, "name": name, "visited": 0, "opened": pledged * chance.randint(2, 6),
         "confirmed": pledged} for (date, name), pledged in came.items()
    ])  # fmt: skip


def _end(plan: _Plan) -> None:
    """Close and decide a round whose deadline has passed, by the law's own verbs; then charge it, as if by Stripe."""
    its_round = plan.round
    after = its_round.deadline + dt.timedelta(seconds=1)
    if after > dt.datetime.now(dt.UTC):
        return
    its_round.close(after)
    its_round.settle(after)
    if its_round.status == "missed":
        removed = sa.update(Pledge).where(Pledge.round_id == its_round.id)
        db.session.execute(removed.values(next_at=None, payment_method_id=None))
        return
    due = sa.select(Pledge.id, Pledge.amount_pence).where(Pledge.round_id == its_round.id, Pledge.status == "due")
    charges = [(row.id, row.amount_pence) for row in db.session.execute(due.order_by(Pledge.id))]
    for status, those in (
        ("charged", [one for place, one in enumerate(charges, 1) if place % DROPPED]),
        ("dropped", [one for place, one in enumerate(charges, 1) if not place % DROPPED]),
    ):
        _charge(its_round, status, those, after)


def _charge(its_round: Round, status: str, those: list[tuple[int, int]], at: dt.datetime) -> None:
    paid, numbers = status == "charged", [number for number, _ in those]
    steps = ("due", "charging", "charged") if paid else ("due", "charging", "declined", "dropped")
    _insert(Event, [
        _event("pledge", number, its_round.case_id, "clock", at, before, to)
        for number in numbers for before, to in itertools.pairwise(steps)
    ])  # fmt: skip
    _insert(ChargeAttempt, [
        {"pledge_id": number, "number": 1, "kind": "create", "key": f"pledge-{number}-1", "params": {},
         "status": "succeeded" if paid else "declined", "asked_at": at, "code": "" if paid else "card_declined",
         "charge_id": f"ch_big_{number}" if paid else None} for number in numbers
    ])  # fmt: skip
    if paid:
        _insert(Movement, [
            {"case_id": its_round.case_id, "pledge_id": number, "kind": "charge", "amount_pence": pence,
             "stripe_id": f"ch_big_{number}", "at": at} for number, pence in those
        ])  # fmt: skip
    _insert(Letter, [_letter(status, number, status, at) for number in numbers])
    changed: dict[str, Any] = {"status": status, "next_at": None}
    changed["payment_intent_id"] = sa.literal("pi_big_") + Pledge.public_id
    if not paid:
        changed |= {"payment_method_id": None, "ended_because": "not_repaired", "refused_at": at}
    for first in range(0, len(numbers), BATCH):
        some = sa.update(Pledge).where(Pledge.id.in_(numbers[first : first + BATCH]))
        db.session.execute(some.values(changed).execution_options(synchronize_session=False))


def _comments(plans: list[_Plan], comments: int, moderator: User, chance: random.Random, now: dt.datetime) -> None:
    rows = []
    for plan, share in zip(plans, _shares(len(plans), comments), strict=True):
        for number in range(share):
            sent = plan.began + (now - plan.began) * chance.random()
            rows.append(_comment(plan.round.case_id, number, sent, chance.choice(DECIDED), moderator, chance))
    _insert(Comment, rows)
    decided = sa.select(Comment.id, Comment.case_id, Comment.status, Comment.created_at)
    by_moderator = decided.where(Comment.decided_by_id == moderator.id).order_by(Comment.id)
    _insert(Event, [
        _event("comment", number, case_id, f"user:{moderator.id}", sent, "pending", status)
        for number, case_id, status, sent in db.session.execute(by_moderator)
    ])  # fmt: skip


def _comment(case_id: int, number: int, sent: dt.datetime, status: str, moderator: User,
             chance: random.Random) -> dict[str, Any]:  # fmt: skip
    # Everybody writes four times.
    who = case_id * 13 + number // 4
    name = f"{FIRST[who % len(FIRST)]} {LAST[who % len(LAST)]}"
    body = f"I am number {number} who says so, and my name is {name}. {' '.join(chance.sample(FIRST, 6))} agree."
    decided = status != "pending"
    return {
        "case_id": case_id, "public_id": secrets.token_urlsafe(12), "name": name,
        "email": f"{name.lower().replace(' ', '.')}.{case_id}.{number // 4}@big.example.org", "body": body,
        "public_body": body if status == "approved" else None, "digest": secrets.token_hex(32), "status": status,
        "reason": "off_topic" if status == "rejected" else "", "note": "", "resubmitted": False, "version": 1,
        "created_at": sent, "decided_at": sent if decided else None, "decided_by_id": moderator.id if decided else None,
        "waits_since": None if decided else sent, "reports": 0, "undoable": {}, "likeness": law.likeness(body),
        "network": "", "signs": [], "risk": 0, "calm": 0, "language": ENGLISH,
    }  # fmt: skip


def _event(kind: str, number: int, case_id: int, who: str, at: dt.datetime, before: str | None,
           after: str) -> dict[str, Any]:  # fmt: skip
    return {"subject_kind": kind, "subject_id": number, "case_id": case_id, "what": after, "who": who, "at": at,
            "before": before, "after": after, "note": ""}  # fmt: skip


def _letter(kind: str, pledge: int, occasion: str, at: dt.datetime) -> dict[str, Any]:
    return {"kind": kind, "subject": f"pledge:{pledge}", "occasion": occasion, "message_id": secrets.token_hex(16),
            "language": ENGLISH, "created_at": at, "sent_at": at, "next_at": None, "tries": 1,
            "trouble": ""}  # fmt: skip


def _insert(table: type[Any], rows: Iterable[dict[str, Any]]) -> None:
    listed = list(rows)
    for first in range(0, len(listed), BATCH):
        db.session.execute(sa.insert(table), listed[first : first + BATCH])
