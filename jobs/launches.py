"""What happens at a time that somebody has set: approved cases go live, and updates are published."""

import datetime as dt

from jobs import ring
from models import Case, Update, db


def launch_case(case_id: int) -> None:
    """The case is public from now on, or went back to its owner because its round cannot be any more."""
    Case.hold(case_id).launch(dt.datetime.now(dt.UTC))
    db.session.commit()
    ring("send_letters")


def publish_update(update_id: int) -> None:
    """Readers see the update from now on, unless its owner took it back."""
    Update.hold(update_id).publish_by_the_clock(dt.datetime.now(dt.UTC))
    db.session.commit()
    ring("send_letters")
