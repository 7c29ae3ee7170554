"""A deploy in the middle of everything: the tables are of one release and a process of another, so it does nothing."""

import pytest
import sqlalchemy as sa
from click.testing import Result
from flask import Flask

import jobs
from jobs import sweep as the_sweep
from models import db
from tests.at_stripe import calls
from tests.charged import due
from tests.made import keep, look_anew, now, pledges_of
from tests.sandbox_process import SandboxProcess

CREATE = "payment_intents.create"


def migrate_to(release: str) -> None:
    """What `flask db upgrade` of that release would write down as its last step."""
    look_anew()
    db.session.execute(sa.text("UPDATE alembic_version SET version_num = :release"), {"release": release})
    keep()


@pytest.mark.parametrize("release", ["0000", "9999"], ids=["not migrated yet", "migrated by a newer release"])
def test_a_worker_of_another_release_than_the_tables_leaves_every_job_to_the_next(
    asks_the_sandbox: Flask, sandbox: SandboxProcess, release: str
) -> None:
    due(sandbox, 2_500)
    ours = asks_the_sandbox.config["SCHEMA"]
    migrate_to(release)
    try:
        jobs.perform("charge_due", None)
        the_sweep.sweep(now())
        by_hand: Result = asks_the_sandbox.test_cli_runner().invoke(args=["capture", "--case", "the-case"])
        assert by_hand.exit_code == 1
        assert by_hand.output.endswith("The database is not of this release: run flask db upgrade.\n")
        books: Result = asks_the_sandbox.test_cli_runner().invoke(args=["doctor"])
        assert books.output == "Error: The database is not of this release: run flask db upgrade.\n"
        assert [pledge.status for pledge in pledges_of("the-case")] == ["due"]
        assert calls(sandbox, CREATE) == []
    finally:
        migrate_to(ours)
    jobs.perform("charge_due", None)
    assert [pledge.status for pledge in pledges_of("the-case")] == ["charged"]
    assert len(calls(sandbox, CREATE)) == 1
