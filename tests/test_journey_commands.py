"""The operator's commands against the running house."""

import datetime as dt
import secrets
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from models import Base, db
from tests.house import House, eventually
from tests.journey import (
    DECLINES_LATER,
    a_real_pledge,
    calls,
    on_card_page,
    round_of,
    save_card_and_close_the_tab,
    states,
    the_deadline_comes,
)
from tests.made import PASSWORD, a_case, case_at, look_anew, now
from tests.reader import Reader


def test_a_dry_run_of_the_capture_says_what_would_happen_and_changes_nothing(house: House) -> None:
    slug = a_case(target=7_500, title="A case in rehearsal").slug
    a_real_pledge(house, slug, 50)
    a_real_pledge(house, slug, 25)
    on_card_page(house, slug, 10)
    # Past the deadline, and nobody there to see it: here the command itself could do something.
    for name in ("worker", "sweep"):
        house.kill(name)
    the_deadline_comes(slug)
    before, asked = _everything(), len(calls(house, "checkout.sessions.expire"))
    said = house.run("capture", "--case", slug, "--dry-run")
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.splitlines()[0].startswith(f"{slug}: round open, target £75, deadline ")
    assert said.stdout.splitlines()[1:] == [
        "£75 confirmed, pledges: 2. The round would be met.",
        "Card pages to close first: 1. A card saved in time still counts.",
        "Cards to charge: 2. Pledges to release: 0.",
        "The deadline has passed.",
        "Dry run: nothing was done.",
    ]
    assert _everything() == before
    assert len(calls(house, "checkout.sessions.expire")) == asked


def test_the_capture_command_alone_settles_and_charges(house: House) -> None:
    slug = a_case(target=3_000).slug
    a_real_pledge(house, slug, 25)
    a_real_pledge(house, slug, 10, DECLINES_LATER)
    at_stripe, _ = on_card_page(house, slug, 5)
    save_card_and_close_the_tab(at_stripe)
    assert eventually(lambda: states(slug) == ["confirmed"] * 3)
    for name in ("worker", "sweep"):
        house.kill(name)
    the_deadline_comes(slug)
    said = house.run("capture", "--case", slug)
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.splitlines()[-2:] == ["     2 charged          £30", "     1 declined         £10"]
    assert states(slug) == ["charged", "declined", "charged"]


def test_an_owner_and_a_case_made_on_the_command_line_are_live_and_take_a_pledge(
    house: House, reader: Reader, tmp_path: Path
) -> None:
    slug = f"alder-{secrets.token_hex(4)}"
    email = f"{slug}@example.org"
    made = house.run(
        "create-user", "--role", "owner", "--name", "Friends of the Alder", email,
        stdin=f"{PASSWORD}\n{PASSWORD}\n",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines()[-1] == f"{email} can log in as owner."
    file, evening = tmp_path / "alder.txt", now().astimezone(ZoneInfo("Europe/London")) + dt.timedelta(days=10)
    file.write_text(
        f"Title: Clean water in the Alder\nSlug: {slug}\nOwner: {email}\nTarget: £300\n"
        f"Deadline: {evening:%Y-%m-%d} 20:00\nZone: Europe/London\nSummary: Sewage.\n\n## What is going on\n\nSewage.\n"
    )
    live = house.run("create-case", str(file))
    assert live.returncode == 0, live.stderr
    assert live.stdout.startswith(f"{house.url}/cases/{slug} is live until ")
    assert "Clean water in the Alder" in reader.open("/").words
    assert "£0 pledged of £300 target, no pledges yet" in reader.open(f"/cases/{slug}").words
    assert "by Friends of the Alder" in reader.words and "8:00pm" in reader.words
    a_real_pledge(house, slug, 25)
    assert "£25 pledged of £300 target from 1 pledge" in reader.open(f"/cases/{slug}").words
    owner = Reader(house.url).log_in(email, PASSWORD)
    assert "Clean water in the Alder" in owner.words


def test_the_demonstration_can_move_a_deadline_near_and_to_now(house: House) -> None:
    slug = a_case(target=2_500).slug
    a_real_pledge(house, slug, 25)
    began = now()
    said = house.run("demo", "deadline", slug, "--in", "20s")
    assert (said.returncode, said.stdout) == (0, f"The deadline of {slug} is in 20s.\n")
    length = dt.timedelta(seconds=20)
    assert began + length <= round_of(slug).deadline <= now() + length
    said = house.run("demo", "deadline", slug)
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines()[0] == f"The deadline of {slug} is now. Waiting for the worker ..."
    assert said.stdout.splitlines()[-1] == "     1 charged          £25"
    assert case_at(slug).status == "funded"


def test_a_production_site_lets_nobody_play_with_its_deadlines(house: House) -> None:
    slug = a_case().slug
    deadline = round_of(slug).deadline
    production = {
        "ENVIRONMENT": "production", "SITE_URL": "https://standing.example", "STRIPE_API_BASE": "",
        "STRIPE_SECRET_KEY": "sk_live_" + "x" * 24, "STRIPE_WEBHOOK_SECRET": "whsec_" + "x" * 40,
        "STRIPE_WORKER_KEY": "",
        "SECRET_KEY": "s" * 50, "LINK_SECRET": "l" * 50, "CHECKOUT_ORIGIN": "https://checkout.stripe.com",
        "MAIL_URL": "smtp://mail.standing.example", "CONTACT_EMAIL": "help@standing.example",
        "MAIL_FROM": "Standing <letters@standing.example>",
    }  # fmt: skip
    before = dict(house.environment)
    house.environment |= production
    try:
        said = house.run("demo", "deadline", slug)
    finally:
        house.environment = before
    assert said.returncode == 1
    assert said.stderr.splitlines()[-1] == "Error: This is a production site: its promises cannot be played with."
    assert round_of(slug).deadline == deadline


def _everything() -> dict[str, list[Any]]:
    """Every row of every table."""
    look_anew()
    return {name: [tuple(row) for row in db.session.execute(sa.select(table).order_by(*table.primary_key)).all()]
            for name, table in Base.metadata.tables.items()}  # fmt: skip
