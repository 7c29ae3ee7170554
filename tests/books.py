"""The doctor's questions, written out once: they are asked at the end of each test, and after each step of a life.

To write each of them out anew, for every application that a test makes, took a third of the time of all tests.
"""

import datetime as dt
import functools
from typing import Any

from jobs import doctor
from models import db

# At this instant nothing has waited for too long.
LONG_AGO = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)


def contradictions() -> list[str]:
    """What the doctor finds, apart from what waits for too long. Needs an application context."""
    connection = db.session.connection()
    questions = _questions(connection.dialect.name)
    # All of them in one, since hardly ever there is anything to tell.
    every = ", ".join(f"EXISTS ({question})" for _, question in questions)
    is_off = connection.exec_driver_sql(f"SELECT {every}").one()
    return [
        words.format(**row)
        for (words, question), found in zip(questions, is_off, strict=True)
        if found
        for row in connection.exec_driver_sql(question).mappings()
    ]


@functools.cache
def _questions(dialect: str) -> list[tuple[str, str]]:
    """(words, question) of each check, as plain text of this kind of database."""
    plain: dict[str, Any] = {"dialect": db.engine.dialect, "compile_kwargs": {"literal_binds": True}}
    asked = [(check.words, str(check.asks(LONG_AGO).compile(**plain))) for check in doctor.CHECKS]
    return [(words, question.replace("%", "%%")) for words, question in asked]
