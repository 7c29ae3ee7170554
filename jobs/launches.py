"""Approved cases that go live at the time that staff have set."""

import datetime as dt

from jobs import ring
from models import Case, db


def launch_case(case_id: int) -> None:
    """The case is public from now on, or went back to its owner because its round cannot be any more."""
    Case.hold(case_id).launch(dt.datetime.now(dt.UTC))
    db.session.commit()
    ring("send_letters")
