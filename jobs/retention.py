"""What is over is forgotten: once a day, by the rules of privacy.toml. Safe to run twice and at any time."""

import datetime as dt
import secrets
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
import structlog

import privacy
from jobs import by_itself, one_slice, ring
from models import (
    ENDED_UNPAID,
    Case,
    Comment,
    Event,
    Lease,
    Letter,
    Movement,
    Pledge,
    Round,
    begin_reading,
    begin_writing,
    db,
)

log = structlog.get_logger()

LEASE = "retention"
EVERY = dt.timedelta(days=1)
# So many rows of one rule go in one transaction.
AT_ONCE = 200

# The column that holds a moment, where the row itself does.
COLUMNS = {
    "asked": "asked_at", "invited": "invited_at", "sent": "created_at", "replaced": "replaced_at", "reported": "at",
    "returned": "at", "looked": "at", "refused": "at", "logged_in": "created_at", "began": "started_at", "told": "at",
}  # fmt: skip


def forget() -> None:
    """The daily look. The lease, which runs out when the next is due, lets one through; what is left after a slice of
    time is rung for again."""
    if not Lease.take(LEASE, secrets.token_hex(8), _now(), EVERY):
        db.session.rollback()
        return
    db.session.commit()
    gone, more = 0, False
    for number, rule in enumerate(privacy.table().rules):
        begin_reading()
        ids = list(db.session.scalars(over(rule, _now()).limit(AT_ONCE)))
        # Whoever is erased is locked, so one at a time.
        portions = [[one] for one in ids] if rule.then == "erase" else [ids]
        for portion in one_slice(portions if ids else []):
            by_itself((number, portion), _apply, _pass_over)
            gone += len(portion)
        more = more or len(ids) == AT_ONCE
    log.info("forgotten", rows=gone, more=more)
    if more:
        begin_writing()
        Lease.make_due(LEASE, _now())
        db.session.commit()
        ring("forget")
    ring("finish_erasures")


def prospect(as_of: dt.datetime) -> list[tuple[privacy.Rule, int]]:
    """(rule, how many rows it would be applied to now). Only reads."""
    rules = privacy.table().rules
    counts = (sa.select(sa.func.count()).select_from(over(rule, as_of).subquery()) for rule in rules)
    return [(rule, int(db.session.scalar(count) or 0)) for rule, count in zip(rules, counts, strict=True)]


def over(rule: privacy.Rule, as_of: dt.datetime) -> sa.Select[int]:
    """The ids of the rows for which the time of a rule has come, and to which it was not applied yet."""
    table = db.metadata.tables[rule.table]
    since = as_of - dt.timedelta(days=rule.days)
    special = MOMENTS.get(rule.after)
    when = special(since) if special else table.c[COLUMNS[rule.after]] <= since
    asked = sa.select(table.c.id).where(when).order_by(table.c.id)
    if rule.columns:
        asked = asked.where(sa.or_(*(table.c[column] != "" for column in rule.columns)))
    if rule.then == "erase":
        asked = asked.where(table.c.erased_at.is_(None))
    if rule.after == "asked" and rule.then == "delete":
        # Its letter may have to wait for a mail server that is away.
        subject = sa.literal(f"{rule.table.removesuffix('s')}:") + sa.cast(table.c.id, sa.String)
        asked = asked.where(~sa.exists().where(Letter.subject == subject, Letter.next_at.is_not(None)))
    return asked


def _uncharged(since: dt.datetime) -> Any:
    its_case = sa.select(Case.ended_at).join(Round, Round.case_id == Case.id).where(Round.id == Pledge.round_id)
    return sa.and_(Pledge.status.in_(ENDED_UNPAID), its_case.scalar_subquery() <= since)


def _charged(since: dt.datetime) -> Any:
    at = sa.select(sa.func.max(Movement.at)).where(Movement.pledge_id == Pledge.id, Movement.kind == "charge")
    return sa.and_(Pledge.status.in_(("charged", "refunded", "charged_back")), at.scalar_subquery() <= since)


def _rejected(since: dt.datetime) -> Any:
    return sa.and_(Comment.status.in_(("rejected", "spam")), Comment.decided_at <= since)


def _withdrawn(since: dt.datetime) -> Any:
    line = sa.exists().where(
        Event.subject_kind == "comment", Event.subject_id == Comment.id, Event.after == "withdrawn", Event.at <= since
    )
    return sa.and_(Comment.status == "withdrawn", line)


def _reported(since: dt.datetime) -> Any:
    reports = db.metadata.tables["reports"]
    answered = sa.exists().where(Comment.id == reports.c.comment_id, Comment.reports == 0)
    return sa.and_(reports.c.at <= since, answered)


# Moments that no single column holds.
MOMENTS: dict[str, Callable[[dt.datetime], Any]] = {
    "uncharged": _uncharged, "charged": _charged, "rejected": _rejected, "withdrawn": _withdrawn,
    "reported": _reported,
}  # fmt: skip


def _apply(portion: tuple[int, list[int]]) -> None:
    """`portion` is the number of a rule in the table, and the ids to which it is applied."""
    number, ids = portion
    rule = privacy.table().rules[number]
    begin_writing()
    table = db.metadata.tables[rule.table]
    if rule.then == "erase":
        for one in ids:
            _erase(rule.table, one)
    elif rule.then == "delete":
        db.session.execute(sa.delete(table).where(table.c.id.in_(ids)))
    else:
        db.session.execute(sa.update(table).where(table.c.id.in_(ids)).values(dict.fromkeys(rule.columns, "")))
    db.session.commit()


def _erase(table: str, row_id: int) -> None:
    """By the same verbs as for those who ask for it themselves."""
    held = Pledge.hold(row_id) if table == "pledges" else Comment.hold(row_id)
    if held is not None:
        held.erase("clock", _now())


def _pass_over(portion: tuple[int, list[int]], why: str) -> None:
    """They are looked at again tomorrow; the log has said why."""


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
