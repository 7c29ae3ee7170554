"""The doctor: sums over our own rows that must agree, and rows that wait longer than they may.

Each check is one question to the database; each row that it answers with becomes one sentence, which names the row by
its number and never names a person. Nothing here changes the books, and Stripe is not asked: comparing our
books with Stripe's is the work of jobs/reconcile.py.
"""

import datetime as dt
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
import structlog

import law
from jobs import ring
from models import (
    DISPUTE_LETTERS,
    WITHHELD,
    Agreement,
    Case,
    ChargeAttempt,
    Day,
    Dispute,
    Erasure,
    Event,
    Examination,
    FinalReport,
    Lease,
    Letter,
    Movement,
    OldCard,
    Pledge,
    PromiseChange,
    Refund,
    Round,
    StripeEvent,
    Tally,
    Update,
    db,
)

log = structlog.get_logger()

# A question to the database, whatever its columns are.
Asked = sa.Select[*tuple[Any, ...]]

LEASE = "doctor"
EVERY = dt.timedelta(hours=1)
# So many rows of one check are enough to see what is wrong.
MOST = 100

# How long a thing may take before people should know of it.
DECIDING = dt.timedelta(minutes=30)
CHARGING = dt.timedelta(hours=1)
# Stripe may have been away until its key was forgotten, and the payment has to be looked up.
KNOWING = law.NEW_KEY_AFTER + dt.timedelta(hours=2)
# The window for repair ends with a last try, which may have to wait for Stripe as well.
REPAIRING = dt.timedelta(days=1)
MAKING_PAGES = dt.timedelta(hours=1)
REMOVING_CARDS = dt.timedelta(days=1)
READING_NEWS = dt.timedelta(hours=1)
POSTING = dt.timedelta(hours=6)
PUBLISHING = dt.timedelta(hours=1)
REFUNDING = dt.timedelta(days=1)
ERASING = dt.timedelta(days=2)
# A letter that was given up is named for so long after it was owed.
NAMING_REFUSED = dt.timedelta(days=8)

PAID = tuple(sorted(law.PAID_PLEDGES))
REFUSED = ("declined", "action_required")
# Only pledges of a round that was met are ever in one of these.
OF_A_MET_ROUND = ("due", "charging", "unknown", *REFUSED, "dropped", *PAID)


def examine(as_of: dt.datetime) -> list[str]:
    """One sentence for everything that is off at this instant; none when the books agree. Only reads."""
    return [check.words.format(**row) for check in CHECKS for row in _rows(check.asks(as_of))]


def examine_books() -> None:
    """The hourly look. Safe to run twice: the lease, which runs out when the next look is due, lets one through."""
    if not Lease.take(LEASE, secrets.token_hex(8), _now(), EVERY):
        db.session.rollback()
        return
    db.session.commit()
    findings = examine(_now())
    for finding in findings:
        log.error("the books do not agree", finding=finding)
    Examination.write(findings, _now())
    db.session.commit()
    ring("send_letters")


def _rows(asked: Asked) -> list[dict[str, Any]]:
    return [dict(row) for row in db.session.execute(asked.limit(MOST)).mappings()]


@dataclass(frozen=True)
class Check:
    """`asks` finds the rows that are off; `words` says so of each, with the columns that were asked for."""

    words: str
    asks: Callable[[dt.datetime], Asked]


# --- What several checks ask -------------------------------------------------------------------------------


def _pledges(*columns: Any) -> Asked:
    return sa.select(Pledge.id.label("id"), Pledge.status.label("status"), *columns).order_by(Pledge.id)


def _sum(of: Any, *where: Any) -> Any:
    """A sum over another table for each row of the asking one; 0 when there is nothing to add."""
    return sa.select(sa.func.coalesce(sa.func.sum(of), 0)).where(*where).scalar_subquery()


def _number(*where: Any) -> Any:
    return sa.select(sa.func.count()).where(*where).scalar_subquery()


def _ledger(*kinds: str) -> tuple[Any, ...]:
    return Movement.pledge_id == Pledge.id, Movement.kind.in_(kinds)


def _told(kind: Any, subject_kind: str, subject_id: Any) -> Any:
    """Whether a letter of this kind is owed to the row, sent or not."""
    subject = sa.literal(f"{subject_kind}:") + sa.cast(subject_id, sa.String)
    return sa.exists().where(Letter.kind == kind, Letter.subject == subject)


def _since(status: Any) -> Any:
    """When the pledge came to its present state, by its history."""
    came = sa.select(sa.func.max(Event.at)).where(
        Event.subject_kind == "pledge", Event.subject_id == Pledge.id, Event.after == status
    )
    return came.scalar_subquery()


def _waiting(length: dt.timedelta, *statuses: str) -> Callable[[dt.datetime], Asked]:
    return lambda as_of: _pledges().where(Pledge.status.in_(statuses), _since(Pledge.status) < as_of - length)


def _in_cases_that_go_on(asked: Asked) -> Asked:
    """Of pledges: only those whose case was not cancelled."""
    return asked.join(Round).join(Case, Case.id == Round.case_id).where(Case.status != "cancelled")


def _that_could_be_charged(asked: Asked, since: dt.datetime) -> Asked:
    """Of pledges: only those whose case has been neither frozen nor cancelled all the time since then. Staff may hold
    charges back for as long as they like."""
    thawed = sa.exists().where(
        Event.subject_kind == "case", Event.subject_id == Case.id, Event.what == "charges_frozen_ended",
        Event.at >= since,
    )  # fmt: skip
    return asked.join(Round).join(Case, Case.id == Round.case_id).where(Case.may_charge(), ~thawed)


def _steps() -> Any:
    """Every change of state, each beside the one before it of the same row."""
    of_a_row: dict[str, Any] = {"partition_by": (Event.subject_kind, Event.subject_id), "order_by": Event.id}
    return (
        sa.select(
            Event.id,
            Event.subject_kind,
            Event.subject_id,
            Event.before,
            Event.after,
            sa.func.lag(Event.after).over(**of_a_row).label("left"),
        )
        .where(Event.after.is_not(None))
        .subquery()
    )


# --- Rounds ------------------------------------------------------------------------------------------------


def _counters(as_of: dt.datetime) -> Asked:
    confirmed = (Pledge.round_id == Round.id, Pledge.status == "confirmed")
    pence, count = _sum(Pledge.amount_pence, *confirmed), _number(*confirmed)
    return sa.select(
        Round.id, Round.status, Round.pledged_pence, Round.pledge_count, pence.label("pence"), count.label("count")
    ).where(
        Round.status.in_(("open", "closing", "cancelled")),
        sa.or_(Round.pledged_pence != pence, Round.pledge_count != count),
    )


def _days(as_of: dt.datetime) -> Asked:
    """The days of a round against its counters; counters that are wrong themselves are told by the checks above."""
    confirmed = (Pledge.round_id == Round.id, Pledge.status == "confirmed")
    right = sa.and_(
        Round.pledged_pence == sa.func.coalesce(Round.settled_total_pence, _sum(Pledge.amount_pence, *confirmed)),
        Round.pledge_count == sa.func.coalesce(Round.settled_count, _number(*confirmed)),
    )
    pence, pledges = _sum(Day.pence, Day.round_id == Round.id), _sum(Day.pledges, Day.round_id == Round.id)
    asked = sa.select(Round.id, Round.pledged_pence, Round.pledge_count, pence.label("pence"), pledges.label("pledges"))
    differ = sa.or_(pence != Round.pledged_pence, pledges != Round.pledge_count)
    return asked.where(right, differ)


def _tallies(as_of: dt.datetime) -> Asked:
    """What the triggers keep against the rows that it is kept of."""
    pledges = sa.select(
        (sa.literal("round:") + sa.cast(Pledge.round_id, sa.String)).label("subject"), Pledge.status.label("what"),
        sa.literal(1).label("count"), Pledge.amount_pence.label("pence"), Pledge.refunded_pence.label("refunded"),
    ).where(Pledge.confirmed_at.is_not(None))  # fmt: skip
    fees = sa.select(
        sa.literal("case:") + sa.cast(Movement.case_id, sa.String), Movement.kind, sa.literal(1),
        Movement.amount_pence, sa.literal(0),
    ).where(Movement.kind == "fee")  # fmt: skip
    kept = sa.select(Tally.subject, Tally.what, -Tally.count, -Tally.pence, -Tally.refunded)
    both = sa.union_all(pledges, fees, kept).subquery()
    count, pence, refunded = (sa.func.sum(both.c[name]) for name in ("count", "pence", "refunded"))
    asked = sa.select(both.c.subject, both.c.what, count.label("count"), pence.label("pence"))
    return asked.group_by(both.c.subject, both.c.what).having(sa.or_(count != 0, pence != 0, refunded != 0))


def _decided_total(as_of: dt.datetime) -> Asked:
    counted = (Pledge.round_id == Round.id, Pledge.confirmed_at.is_not(None), Pledge.status != "cancelled")
    pence, count = _sum(Pledge.amount_pence, *counted), _number(*counted)
    return sa.select(
        Round.id, Round.status, Round.settled_total_pence, Round.settled_count, pence.label("pence"),
        count.label("count"),
    ).where(
        Round.status.in_(("met", "missed")),
        sa.or_(Round.settled_total_pence != pence, Round.settled_count != count),
    )  # fmt: skip


def _wrong_decision(as_of: dt.datetime) -> Asked:
    reached = Round.settled_total_pence >= Round.target_pence
    wrong = sa.or_(
        sa.and_(Round.status == "met", sa.not_(reached)),
        sa.and_(Round.status == "missed", reached),
        sa.and_(Round.status.in_(("met", "missed")), Round.settled_at.is_(None)),
    )
    return sa.select(Round.id, Round.status, Round.settled_total_pence, Round.target_pence).where(wrong)


def _decided_twice(as_of: dt.datetime) -> Asked:
    times = sa.func.count().label("times")
    decisions = sa.select(Event.subject_id.label("id"), times).where(
        Event.subject_kind == "round", Event.after.in_(("met", "missed", "cancelled"))
    )
    return decisions.group_by(Event.subject_id).having(times > 1)


def _case_and_round(as_of: dt.datetime) -> Asked:
    met = sa.exists().where(Round.case_id == Case.id, Round.status == "met")
    wrong = sa.or_(sa.and_(Case.status == "funded", ~met), sa.and_(Case.status == "missed", met))
    return sa.select(Case.id, Case.status).where(wrong)


def _closed_without_report(as_of: dt.datetime) -> Asked:
    reported = sa.exists().where(FinalReport.case_id == Case.id)
    return sa.select(Case.id, Case.status).where((Case.status == "closed") != reported)


def _undecided(as_of: dt.datetime) -> Asked:
    late = sa.or_(
        sa.and_(Round.status == "open", Round.deadline < as_of - DECIDING),
        sa.and_(Round.status == "closing", Round.closing_at < as_of - DECIDING),
    )
    return sa.select(Round.id, Round.status).where(late)


def _moved_by_hand() -> Any:
    """Whether the deadline of a round was moved for a demonstration, which nobody may do with a real promise."""
    return sa.exists().where(
        Event.subject_kind == "round", Event.subject_id == Round.id, Event.what == "deadline_moved"
    )


def _another_promise(as_of: dt.datetime) -> Asked:
    other = sa.or_(
        sa.and_(Round.deadline != PromiseChange.new_deadline, ~_moved_by_hand()),
        Round.target_pence != PromiseChange.new_target_pence,
    )
    asked = sa.select(Round.id, PromiseChange.id.label("change")).join(PromiseChange)
    return asked.where(PromiseChange.status == "consented", other)


ROUNDS = (
    Check("Round {id} is {status} and counts {pledge_count} pledges of {pledged_pence} pence together, but its rows "
          "are {count} of {pence}.", _counters),
    Check("Round {id} was {status} with {settled_count} pledges of {settled_total_pence} pence together, but those "
          "that counted are {count} of {pence}.", _decided_total),
    Check("Round {id} counts {pledge_count} pledges of {pledged_pence} pence together, but its days are {pledges} of "
          "{pence}.", _days),
    Check("The tally of {what} of {subject} is off by {count} rows and {pence} pence.", _tallies),
    Check("Round {id} is {status}, with {settled_total_pence} of {target_pence} pence.", _wrong_decision),
    Check("Round {id} was decided {times} times.", _decided_twice),
    Check("Case {id} is {status}, which none of its rounds says.", _case_and_round),
    Check("Case {id} is {status}, which its final report, or the lack of one, does not say.", _closed_without_report),
    Check("Round {id} is still {status}, long after its deadline.", _undecided),
    Check("Round {id} has another deadline or target than change {change} of its promise says.", _another_promise),
)  # fmt: skip


# --- Pledges and the law -----------------------------------------------------------------------------------


def _charged_for_nothing(as_of: dt.datetime) -> Asked:
    wrong = sa.and_(Pledge.status.in_(OF_A_MET_ROUND), Round.status != "met")
    return _pledges(Round.id.label("round"), Round.status.label("decision")).join(Round).where(wrong)


def _asked_for_nothing(as_of: dt.datetime) -> Asked:
    asked = sa.select(ChargeAttempt.id, Pledge.id.label("pledge"), Round.id.label("round"), Round.status)
    return asked.select_from(ChargeAttempt).join(Pledge).join(Round).where(Round.status != "met")


def _asked_without_counting(as_of: dt.datetime) -> Asked:
    asked = sa.exists().where(ChargeAttempt.pledge_id == Pledge.id)
    return _pledges().where(asked, sa.or_(Pledge.confirmed_at.is_(None), Pledge.status.in_(("confirmed", "cancelled"))))


def _left_behind(as_of: dt.datetime) -> Asked:
    decided = Round.status.in_(("met", "missed", "cancelled"))
    return (
        _pledges(Round.id.label("round"), Round.status.label("decision"))
        .join(Round)
        .where(Pledge.status.in_(("started", "held", "confirmed")), decided)
    )


def _held_in_the_total(as_of: dt.datetime) -> Asked:
    """What is held has a card and never counted."""
    wrong = sa.or_(Pledge.confirmed_at.is_not(None), Pledge.card_saved_at.is_(None))
    return _pledges().where(Pledge.status == "held", wrong)


def _page_before_the_address(as_of: dt.datetime) -> Asked:
    waits = sa.and_(Pledge.status == "started", Pledge.confirm_by.is_not(None))
    return _pledges().where(waits, Pledge.session_id.is_not(None))


def _new_key_too_early(as_of: dt.datetime) -> Asked:
    later = sa.orm.aliased(ChargeAttempt)
    unanswered = ChargeAttempt.status.in_(("asking", "unknown")) & (ChargeAttempt.code != "never_arrived")
    followed = sa.exists().where(later.pledge_id == ChargeAttempt.pledge_id, later.number > ChargeAttempt.number)
    return sa.select(ChargeAttempt.number, ChargeAttempt.pledge_id.label("pledge")).where(unanswered, followed)


def _paid_twice(as_of: dt.datetime) -> Asked:
    times = _number(ChargeAttempt.pledge_id == Pledge.id, ChargeAttempt.status == "succeeded")
    return _pledges(times.label("times")).where(times > 1)


def _success_without_state(as_of: dt.datetime) -> Asked:
    times = _number(ChargeAttempt.pledge_id == Pledge.id, ChargeAttempt.status == "succeeded")
    return _pledges().where(Pledge.status.in_(PAID) != (times > 0))


def _never_agreed(as_of: dt.datetime) -> Asked:
    """What holds was agreed to at a time, in words that are kept; and so was another card for a refused payment."""
    agreed = sa.exists().where(
        Agreement.pledge_id == Pledge.id,
        Agreement.amount_pence == Pledge.amount_pence,
        Agreement.agreed_at == Pledge.agreement_at,
    )
    repaired = sa.exists().where(
        Event.subject_kind == "pledge", Event.subject_id == Pledge.id, Event.what == "agreed_to_repair"
    )
    kept = sa.exists().where(
        Agreement.pledge_id == Pledge.id, Agreement.version == law.AGREEMENT_OF_REPAIR_VERSION
    )  # fmt: skip
    return _pledges(Pledge.amount_pence).where(sa.or_(~agreed, sa.and_(repaired, ~kept)))


def _agreed_to_another(as_of: dt.datetime) -> Asked:
    """Whoever counts agreed to the promise of its round, or to the one that was changed into it with consent."""
    in_force = sa.and_(
        Agreement.pledge_id == Pledge.id,
        Agreement.amount_pence == Pledge.amount_pence,
        Agreement.agreed_at == Pledge.agreement_at,
    )
    same = sa.and_(
        sa.or_(Agreement.deadline == Round.deadline, _moved_by_hand()), Agreement.target_pence == Round.target_pence
    )
    changed = sa.exists().where(
        PromiseChange.round_id == Round.id,
        PromiseChange.status == "consented",
        PromiseChange.old_deadline == Agreement.deadline,
        PromiseChange.old_target_pence == Agreement.target_pence,
    )
    asked = _pledges(Round.id.label("round")).join(Round).join(Agreement, in_force)
    return asked.where(Pledge.status.in_(("confirmed", *OF_A_MET_ROUND)), ~same, ~changed)


PLEDGES = (
    Check("Pledge {id} is {status}, but its round {round} is {decision}.", _charged_for_nothing),
    Check("Charge attempt {id} was made for pledge {pledge}, but its round {round} is {status}.", _asked_for_nothing),
    Check("Pledge {id} is {status}, but a charge was asked for it.", _asked_without_counting),
    Check("Pledge {id} is still {status}, though its round {round} is {decision}.", _left_behind),
    Check("Pledge {id} is held, but it counted before, or has no saved card.", _held_in_the_total),
    Check("Pledge {id} has a card page, though its address is not confirmed yet.", _page_before_the_address),
    Check("Pledge {pledge} was asked for again while attempt {number} had no answer.", _new_key_too_early),
    Check("Pledge {id} has {times} charges that succeeded.", _paid_twice),
    Check("Pledge {id} is {status}, which its charge attempts do not say.", _success_without_state),
    Check("Pledge {id} is of {amount_pence} pence, to which nobody has agreed.", _never_agreed),
    Check(
        "Pledge {id} is {status}, and agreed to another deadline or target than its round {round} has.",
        _agreed_to_another,
    ),
)


# --- The ledger --------------------------------------------------------------------------------------------


def _not_in_the_ledger(as_of: dt.datetime) -> Asked:
    pence = _sum(Movement.amount_pence, *_ledger("charge"))
    owed = sa.case((Pledge.status.in_(PAID), Pledge.amount_pence), else_=0)
    return _pledges(owed.label("owed"), pence.label("pence")).where(pence != owed)


def _charges(as_of: dt.datetime) -> Asked:
    times = _number(*_ledger("charge"))
    return _pledges(times.label("times")).where(times > 1)


def _given_back(as_of: dt.datetime) -> Asked:
    # Whichever sign they carry, all refunds of the ledger together are what the pledge says was given back.
    pence = sa.func.abs(_sum(Movement.amount_pence, *_ledger("refund")))
    return _pledges(Pledge.refunded_pence, pence.label("pence")).where(pence != Pledge.refunded_pence)


def _refunded_in_part(as_of: dt.datetime) -> Asked:
    whole = Pledge.refunded_pence == Pledge.amount_pence
    wrong = sa.or_(
        sa.and_(Pledge.status == "refunded", ~whole),
        sa.and_(Pledge.status == "charged", whole),
        sa.and_(Pledge.status.not_in(PAID), Pledge.refunded_pence > 0),
    )
    return _pledges(Pledge.refunded_pence, Pledge.amount_pence).where(wrong)


def _disputed(as_of: dt.datetime) -> Asked:
    def has(status: str) -> Any:
        return sa.exists().where(Dispute.pledge_id == Pledge.id, Dispute.status == status)

    # What was refunded already stays refunded, whatever the bank asks afterwards.
    wrong = sa.or_(
        sa.and_(Pledge.status == "disputed", ~has("open")),
        sa.and_(Pledge.status == "charged", has("open")),
        sa.and_(Pledge.status == "charged_back", ~has("lost")),
    )
    return _pledges().where(wrong)


def _disputed_money(as_of: dt.datetime) -> Asked:
    pence = sa.func.abs(_sum(Movement.amount_pence, *_ledger("dispute")))
    wrong = sa.or_(
        sa.and_(Pledge.status == "charged_back", pence == 0),
        sa.and_(Pledge.status.not_in(("disputed", "charged_back")), pence > 0),
        pence + Pledge.refunded_pence > Pledge.amount_pence,
    )
    return _pledges(pence.label("pence")).where(wrong)


def _another_case(as_of: dt.datetime) -> Asked:
    return (
        sa.select(Movement.id, Movement.case_id.label("case"), Pledge.id.label("pledge"))
        .join(Pledge, Pledge.id == Movement.pledge_id)
        .join(Round)
        .where(Movement.case_id != Round.case_id)
    )


def _another_charge(as_of: dt.datetime) -> Asked:
    same = sa.exists().where(
        ChargeAttempt.pledge_id == Movement.pledge_id,
        ChargeAttempt.status == "succeeded",
        ChargeAttempt.charge_id == Movement.stripe_id,
    )
    return sa.select(Movement.id, Movement.pledge_id.label("pledge")).where(Movement.kind == "charge", ~same)


def _charge_of_nobody(as_of: dt.datetime) -> Asked:
    about_pledges = Movement.kind.in_(("charge", "refund", "dispute"))
    return sa.select(Movement.id, Movement.kind).where(about_pledges, Movement.pledge_id.is_(None))


def _dispute_of_nobody(as_of: dt.datetime) -> Asked:
    return sa.select(Dispute.id).where(Dispute.status == "open", Dispute.pledge_id.is_(None))


LEDGER = (
    Check("Pledge {id} is {status}: the ledger should hold {owed} pence for it and holds {pence}.", _not_in_the_ledger),
    Check("Pledge {id} was charged {times} times in the ledger.", _charges),
    Check("Pledge {id} says that {refunded_pence} pence were given back; the ledger says {pence}.", _given_back),
    Check("Pledge {id} is {status}, with {refunded_pence} of {amount_pence} pence given back.", _refunded_in_part),
    Check("Pledge {id} is {status}, which its disputes do not say.", _disputed),
    Check("Pledge {id} is {status}, with {pence} pence held or lost in disputes.", _disputed_money),
    Check("Movement {id} of pledge {pledge} stands in the books of case {case}, which is another.", _another_case),
    Check("Movement {id} of pledge {pledge} is none of its charges that succeeded.", _another_charge),
    Check("Movement {id}, a {kind}, belongs to no pledge.", _charge_of_nobody),
    Check("Dispute {id} is about a charge that is none of ours.", _dispute_of_nobody),
)


# --- History and letters -----------------------------------------------------------------------------------


def _broken_chain(as_of: dt.datetime) -> Asked:
    step = _steps()
    gap = sa.and_(step.c.left.is_not(None), sa.func.coalesce(step.c.before, "nothing") != step.c.left)
    return sa.select(
        step.c.subject_kind, step.c.subject_id, step.c.after, step.c.before, step.c.left
    ).where(gap)  # fmt: skip


def _wrong_end(kind: str, table: Any) -> Callable[[dt.datetime], Asked]:
    """One look into the index of the history for each row: a join with all last steps grew with the square."""

    def ask(as_of: dt.datetime) -> Asked:
        of_row = sa.and_(Event.subject_kind == kind, Event.subject_id == table.id, Event.after.is_not(None))
        last = sa.select(Event.after).where(of_row).order_by(Event.id.desc()).limit(1).scalar_subquery()
        # What has no history yet is as it was born.
        ended = sa.func.coalesce(last, {"round": "open", "case": "draft", "update": "draft"}.get(kind, "nothing"))
        return sa.select(table.id, table.status, ended.label("ended")).where(ended != table.status).order_by(table.id)

    return ask


def _unlawful(kind: str, moves: Any) -> Callable[[dt.datetime], Asked]:
    lawful = [f"{before}>{after}" for before in moves for after in moves[before]]

    def ask(as_of: dt.datetime) -> Asked:
        step = Event.before + ">" + Event.after
        return sa.select(Event.subject_id.label("id"), Event.before, Event.after).where(
            Event.subject_kind == kind, Event.before.is_not(None), Event.after.is_not(None), step.not_in(lawful)
        )

    return ask


def _untold(as_of: dt.datetime) -> Asked:
    kind = sa.case(
        (Pledge.status == "dropped", "dropped"),
        (Pledge.status.in_(PAID), "charged"),
        (sa.and_(Pledge.status == "cancelled", Pledge.confirmed_at.is_not(None)), "cancelled"),
        (sa.and_(Pledge.status == "released", Pledge.confirmed_at.is_not(None)), Pledge.ended_because),
        (sa.and_(Pledge.status == "released", Pledge.card_saved_at.is_not(None)), Pledge.ended_because),
    )
    return _pledges(kind.label("kind")).where(kind.is_not(None), ~_told(kind, "pledge", Pledge.id))


def _refusal_untold(as_of: dt.datetime) -> Asked:
    """Any letter of the first refusal will do; of a cancelled case the supporter is told once the payment is gone."""
    told = sa.or_(*(_told(kind, "pledge", Pledge.id) for kind in REFUSED))
    return _in_cases_that_go_on(_pledges().where(Pledge.status.in_(REFUSED), ~told))


def _cancellation_untold(as_of: dt.datetime) -> Asked:
    """Whoever was charged before the case was cancelled, or was found charged after it, is told what becomes of it."""
    charged = _pledges().join(Round).join(Case, Case.id == Round.case_id).where(Pledge.status.in_(PAID))
    return charged.where(Case.status == "cancelled", ~_told("cancelled_charged", "pledge", Pledge.id))


def _change_untold(as_of: dt.datetime) -> Asked:
    """Whoever agreed to the promise of before, and can be charged or was, must have been told how to leave."""
    changed = _pledges(PromiseChange.id.label("change")).join(
        PromiseChange, PromiseChange.round_id == Pledge.round_id
    ).where(PromiseChange.status == "consented", Pledge.agreement_at < PromiseChange.decided_at)  # fmt: skip
    occasion = sa.literal("promise_change:") + sa.cast(PromiseChange.id, sa.String)
    told = _told("promise_changed", "pledge", Pledge.id).where(Letter.occasion == occasion)
    return changed.where(Pledge.status.in_(("confirmed", *OF_A_MET_ROUND)), ~told)


def _unthanked(as_of: dt.datetime) -> Asked:
    return _pledges().where(Pledge.confirmed_at.is_not(None), ~_told("confirmed", "pledge", Pledge.id))


def _owner_untold(as_of: dt.datetime) -> Asked:
    kind = sa.case((Round.status == "met", "reached"), (Round.status == "missed", "not_reached"))
    asked = sa.select(Round.id, Round.status, kind.label("kind"))
    return asked.where(kind.is_not(None), ~_told(kind, "round", Round.id))


def _dispute_untold(as_of: dt.datetime) -> Asked:
    """Of a dispute its supporter is told what it is at; each state is a letter of its own."""
    kind = sa.case({state: to_supporter for state, (to_supporter, _) in DISPUTE_LETTERS.items()}, value=Dispute.status)
    occasion = sa.literal("dispute:") + sa.cast(Dispute.id, sa.String)
    told = _told(kind, "pledge", Dispute.pledge_id).where(Letter.occasion == occasion)
    asked = sa.select(Dispute.id, Dispute.status, kind.label("kind")).order_by(Dispute.id)
    return asked.where(Dispute.pledge_id.is_not(None), ~told)


def _never_sent(as_of: dt.datetime) -> Asked:
    lost = sa.and_(Letter.next_at.is_(None), Letter.trouble == "")
    late = sa.and_(Letter.next_at.is_not(None), Letter.created_at < as_of - POSTING)
    waits = sa.and_(Letter.sent_at.is_(None), sa.or_(lost, late))
    return sa.select(Letter.id, Letter.kind, Letter.tries).where(waits).order_by(Letter.id)


def _given_up(as_of: dt.datetime) -> Asked:
    """Mailboxes that do not exist are nothing to mend, so after a while it has been said often enough."""
    given_up = sa.and_(Letter.sent_at.is_(None), Letter.next_at.is_(None))
    refused = sa.and_(Letter.trouble.not_in(("", WITHHELD)), Letter.created_at > as_of - NAMING_REFUSED)
    asked = sa.select(Letter.id, Letter.kind, Letter.subject, Letter.trouble)
    return asked.where(given_up, refused).order_by(Letter.id)


RECORDS = (
    Check("The history of {subject_kind} {subject_id} has a gap: it became {left}, and then {after} from {before}.",
          _broken_chain),
    Check("Pledge {id} is {status}, but its history ends with {ended}.", _wrong_end("pledge", Pledge)),
    Check("Round {id} is {status}, but its history ends with {ended}.", _wrong_end("round", Round)),
    Check("Case {id} is {status}, but its history ends with {ended}.", _wrong_end("case", Case)),
    Check("Update {id} is {status}, but its history ends with {ended}.", _wrong_end("update", Update)),
    Check("Pledge {id} went from {before} to {after}, which the law does not allow.",
          _unlawful("pledge", law.PLEDGE_MOVES)),
    Check("Round {id} went from {before} to {after}, which the law does not allow.",
          _unlawful("round", law.ROUND_MOVES)),
    Check("Pledge {id} is {status}, and its supporter is not owed the letter “{kind}”.", _untold),
    Check("Pledge {id} is {status}, and its supporter is not owed a letter about it.", _refusal_untold),
    Check("Pledge {id} is {status}, its case was cancelled, and its supporter is not owed the letter about that.",
          _cancellation_untold),
    Check("Pledge {id} was made before change {change} of the promise, and its supporter was not told.",
          _change_untold),
    Check("Pledge {id} counted, and its supporter is not owed the letter “confirmed”.", _unthanked),
    Check("Round {id} is {status}, and its owner is not owed the letter “{kind}”.", _owner_untold),
    Check("Dispute {id} is {status}, and its supporter is not owed the letter “{kind}”.", _dispute_untold),
    Check("Letter {id} (“{kind}”) has not been sent, after {tries} tries.", _never_sent),
    Check("Letter {id} (“{kind}”) to {subject} is given up ({trouble}); see flask post-again.", _given_up),
)  # fmt: skip


# --- What waits too long -----------------------------------------------------------------------------------


def _due_too_long(as_of: dt.datetime) -> Asked:
    return _that_could_be_charged(_waiting(CHARGING, "due", "charging")(as_of), as_of - CHARGING)


def _unknown_too_long(as_of: dt.datetime) -> Asked:
    unknown = _waiting(KNOWING, "unknown")(as_of).where(Pledge.next_at.is_not(None))
    return _that_could_be_charged(unknown, as_of - KNOWING)


def _refused_too_long(as_of: dt.datetime) -> Asked:
    over = sa.or_(Pledge.repair_until.is_(None), Pledge.repair_until < as_of - REPAIRING)
    return _that_could_be_charged(_pledges().where(Pledge.status.in_(REFUSED), over), as_of - REPAIRING)


def _not_let_go(as_of: dt.datetime) -> Asked:
    """Of a cancelled case: each payment that was begun has to be given up at Stripe first, or may arrive for a day."""
    left = _waiting(KNOWING, "due", "charging", "unknown", *REFUSED)(as_of)
    cancelled = left.join(Round).join(Case, Case.id == Round.case_id).where(Case.status == "cancelled")
    return cancelled.where(Case.ended_at < as_of - KNOWING)


def _halted(as_of: dt.datetime) -> Asked:
    asking = sa.exists().where(ChargeAttempt.pledge_id == Pledge.id)
    return _pledges().where(Pledge.status == "unknown", Pledge.next_at.is_(None), asking)


def _forgotten(as_of: dt.datetime) -> Asked:
    """Rows that the clock will never find, since they say that nothing waits."""
    work_left = Pledge.status.in_(("due", "charging", *REFUSED))
    card_left = Pledge.status.in_(("released", "cancelled", "dropped")) & Pledge.payment_method_id.is_not(None)
    return _pledges().where(Pledge.next_at.is_(None), work_left | card_left)


def _asked_by_nobody(as_of: dt.datetime) -> Asked:
    asking = sa.exists().where(ChargeAttempt.pledge_id == Pledge.id)
    return _pledges().where(Pledge.status.in_(("charging", "unknown")), ~asking)


def _page_not_made(as_of: dt.datetime) -> Asked:
    """The clock asks Stripe for a card page again and again, as long as the case takes pledges."""
    waits = sa.and_(Pledge.status == "started", Pledge.session_id.is_(None), Pledge.next_at < as_of - MAKING_PAGES)
    taken = sa.and_(Round.status == "open", Round.deadline >= as_of, Case.visibility == "public",
                    Case.pledging_paused.is_(False))  # fmt: skip
    return _pledges(Pledge.tries).join(Round).join(Case, Case.id == Round.case_id).where(waits, taken)


def _card_left(as_of: dt.datetime) -> Asked:
    ended = Pledge.status.in_(("released", "cancelled", "dropped")) & Pledge.next_at.is_not(None)
    return _pledges().where(ended, _since(Pledge.status) < as_of - REMOVING_CARDS)


def _old_card_left(as_of: dt.datetime) -> Asked:
    # The pauses grow to ten minutes: so many tries are a day.
    tried_enough = sa.or_(OldCard.next_at < as_of - REMOVING_CARDS, OldCard.tries > 144)
    return sa.select(OldCard.id, OldCard.pledge_id.label("pledge")).where(OldCard.next_at.is_not(None), tried_enough)


def _unread(as_of: dt.datetime) -> Asked:
    waits = sa.and_(StripeEvent.processed_at.is_(None), StripeEvent.received_at < as_of - READING_NEWS)
    return sa.select(StripeEvent.id, StripeEvent.type, StripeEvent.tries).where(waits).order_by(StripeEvent.id)


def _refund_unanswered(as_of: dt.datetime) -> Asked:
    too_long = sa.and_(Refund.status == "asking", Refund.asked_at < as_of - REFUNDING)
    forgotten = sa.and_(Refund.status.in_(("asking", "pending")), Refund.next_at.is_(None))
    return sa.select(Refund.id, Refund.pledge_id.label("pledge")).where(too_long | forgotten)


def _not_erased(as_of: dt.datetime) -> Asked:
    waits = sa.and_(Erasure.next_at.is_not(None), Erasure.asked_at < as_of - ERASING)
    return sa.select(Erasure.id, Erasure.subject).where(waits).order_by(Erasure.id)


def _unpublished(as_of: dt.datetime) -> Asked:
    waits = sa.and_(Update.status == "scheduled", Update.publish_at < as_of - PUBLISHING)
    return sa.select(Update.id).where(waits).order_by(Update.id)


WAITING = (
    Check("Pledge {id} has been {status} for longer than a charge takes.", _due_too_long),
    Check("Pledge {id} is still {status}: nobody knows whether it was charged.", _unknown_too_long),
    Check("Pledge {id} is still {status}, though its time for repair is over.", _refused_too_long),
    Check("Pledge {id} is still {status}, though its case is cancelled.", _not_let_go),
    Check("Pledge {id} is not asked for any more, since Stripe calls our request wrong; see flask ask-again.", _halted),
    Check("Pledge {id} is {status}, and nothing will ever look at it again.", _forgotten),
    Check("Pledge {id} is {status}, but no charge was ever asked for.", _asked_by_nobody),
    Check("Pledge {id} waits for its card page, which nobody has made, after {tries} tries.", _page_not_made),
    Check("Pledge {id} is {status}, and its card, or card page, has not been removed.", _card_left),
    Check("Old card {id} of pledge {pledge} has not been removed.", _old_card_left),
    Check("Stripe's event {id} ({type}) has not been worked on, after {tries} tries.", _unread),
    Check("Refund {id} of pledge {pledge} was asked for and never answered.", _refund_unanswered),
    Check("Update {id} waits to be published, and its time has long passed.", _unpublished),
    Check("Erasure {id}, of {subject}, is not finished.", _not_erased),
)

CHECKS = (*ROUNDS, *PLEDGES, *LEDGER, *RECORDS, *WAITING)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
