"""Counting whence people come: two numbers, and nothing of anybody. See docs/decisions/0027."""

import datetime as dt

import sqlalchemy as sa
import structlog

from models import Round, Source, begin_reading, begin_writing, db, is_away

log = structlog.get_logger()


def count_source(round_id: int, came_from: str, what: str, as_of: dt.datetime) -> None:
    """The one thing that a GET writes: one more `visited` or `opened`. Nobody waits for it, and a page that was not
    counted is as good a page."""
    try:
        begin_writing(patient=False)
        Source.count(db.session.get_one(Round, round_id), came_from, what, as_of)
        db.session.commit()
    except sa.exc.SQLAlchemyError as error:
        db.session.rollback()
        if not is_away(error):
            raise
        log.info("a visit was not counted", why=type(error).__name__)
    begin_reading()
