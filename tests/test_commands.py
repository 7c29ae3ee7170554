"""The operator's commands: users, cases from a file, cancelling, and a look at what the capture would do."""

import datetime as dt
from pathlib import Path
from typing import Any

import click
import pytest
import sqlalchemy as sa
from flask import Flask

from cli import ask_again, cancel_case, capture, create_case, create_user, decide_card, demo_deadline
from models import Case, Letter, User, begin_writing, db
from tests.doorway import everything
from tests.made import PASSWORD, a_case, a_pledge, a_user, case_at, keep, now

ROOT = Path(__file__).resolve().parent.parent
GOOD = {
    "Title": "Clean water in the river Alder",
    "Slug": "river-alder-sewage",
    "Owner": "river@example.org",
    "Target": "£300",
    "Deadline": "SOON",
    "Zone": "Europe/London",
    "Summary": "Sewage runs into the Alder.",
    "Firm": "A firm of solicitors",
    "Lawyer": "Sam Weir",
    "Regulator-number": "SRA 000000",
    "Court": "High Court",
    "Stage": "Before the claim",
}
OPTIONAL = ("Zone", "Summary", "Firm", "Lawyer", "Regulator_number", "Court", "Stage")
STORY = "## What is going on\n\nThe works: they may spill in heavy rain only ..."


def run(app: Flask, command: click.Command, *words: str, typed: str = "") -> tuple[int, str]:
    """What a command answered: its exit code and all that it printed."""
    begin_writing()
    result = app.test_cli_runner().invoke(command, list(words), input=typed)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    begin_writing()
    return result.exit_code, result.output


def the_users() -> list[tuple[str, str, str]]:
    return [(u.email, u.name, u.role) for u in db.session.scalars(sa.select(User).order_by(User.id))]


# --- Users -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["owner", "moderator", "staff"])
def test_a_user_is_made_with_a_password_that_is_asked_for_and_not_shown(app: Flask, role: str) -> None:
    words = ("--role", role, "Mo@Example.ORG")
    code, printed = run(app, create_user, *words, typed=f" Mo  Derator \n{PASSWORD}\n{PASSWORD}\n")
    assert code == 0
    assert f"can log in as {role}." in printed
    assert PASSWORD not in printed
    assert the_users() == [("mo@example.org", "Mo Derator", role)]
    assert User.authenticate("MO@example.org", PASSWORD) is not None


@pytest.mark.parametrize(
    ("words", "password", "complaint"),
    [
        (("--role", "owner", "new@example.org"), "eleven char", "Use a password of at least 12 characters."),
        (("--role", "owner", "taken@example.org"), PASSWORD, "There is already a user with the address taken@"),
        (("--role", "owner", "TAKEN@example.org"), PASSWORD, "There is already a user with the address TAKEN@"),
        (("--role", "owner", "new at home"), PASSWORD, "must have an @-sign"),
        (("--role", "owner", "--name", " ", "new@example.org"), PASSWORD, "Use a name of at most 120 characters."),
        (
            ("--role", "owner", "--name", "x" * 121, "new@example.org"),
            PASSWORD,
            "Use a name of at most 120 characters.",
        ),
        (("--role", "boss", "new@example.org"), PASSWORD, "'boss' is not one of 'owner', 'moderator', 'staff'"),
        (("new@example.org",), PASSWORD, "Missing option '--role'"),
    ],
)
def test_a_user_that_cannot_be_is_refused_in_words(
    app: Flask, words: tuple[str, ...], password: str, complaint: str
) -> None:
    a_user("owner", email="taken@example.org", name="Taken")
    name = "" if "--name" in words else "New\n"
    code, printed = run(app, create_user, *words, typed=f"{name}{password}\n{password}\n")
    assert code != 0
    assert complaint in printed
    assert the_users() == [("taken@example.org", "Taken", "owner")]


def test_an_owner_can_be_given_the_words_that_the_case_page_shows(app: Flask) -> None:
    words = ("--role", "owner", "--bio", "We watch the river.", "river@example.org")
    assert run(app, create_user, *words, typed=f"River Watch\n{PASSWORD}\n{PASSWORD}\n")[0] == 0
    assert db.session.scalars(sa.select(User.bio)).all() == ["We watch the river."]


def test_what_no_terminal_shows_is_no_part_of_a_name(app: Flask) -> None:
    assert run(app, create_user, "--role", "owner", "a@example.org", typed=f"A\0da\n{PASSWORD}\n{PASSWORD}\n")[0] == 0
    assert the_users() == [("a@example.org", "Ada", "owner")]


# --- A case from a file ------------------------------------------------------------------------------------


def soon() -> dt.datetime:
    """Eight in the evening, four weeks ahead: no clock is changed at that hour."""
    return (now() + dt.timedelta(days=28)).replace(hour=20, minute=0, second=0, microsecond=0, tzinfo=None)


def a_file(folder: Path, story: str = STORY, **lines: Any) -> str:
    """The good file with some of its lines changed, or left out where they are None."""
    said = {**GOOD, "Deadline": f"{soon():%Y-%m-%d %H:%M}", **{k.replace("_", "-"): v for k, v in lines.items()}}
    file = folder / "case.txt"
    head = "\n".join(f"{name}: {words}" for name, words in said.items() if words is not None)
    file.write_text(f"{head}\n\n{story}\n", encoding="utf-8")
    return str(file)


def test_a_case_from_a_file_is_live(app: Flask, tmp_path: Path) -> None:
    a_user("owner", email="river@example.org")
    code, printed = run(app, create_case, a_file(tmp_path))
    assert code == 0, printed
    assert printed.startswith("http://127.0.0.1:8000/cases/river-alder-sewage is live until ")
    case = case_at("river-alder-sewage")
    assert (case.title, case.summary, case.firm, case.story) == (
        GOOD["Title"], GOOD["Summary"], GOOD["Firm"], STORY,
    )  # fmt: skip
    assert (case.lawyer, case.regulator_number, case.court, case.stage) == (
        "Sam Weir", "SRA 000000", "High Court", "Before the claim",
    )  # fmt: skip
    assert (case.status, case.owner.email, case.round.target_pence) == ("live", "river@example.org", 30_000)
    assert app.test_client().get("/cases/river-alder-sewage").status_code == 200


def test_the_example_of_the_documentation_is_a_good_file(app: Flask, tmp_path: Path) -> None:
    a_user("owner", email="river@example.org")
    example = (ROOT / "docs" / "case-file.md").read_text(encoding="utf-8").split("```")[1].strip()
    file = tmp_path / "case.txt"
    lines = [f"Deadline: {soon():%Y-%m-%d %H:%M}" if line.startswith("Deadline:") else line
             for line in example.splitlines()]  # fmt: skip
    file.write_bytes("\ufeff".encode() + "\r\n".join(lines).encode())
    assert run(app, create_case, str(file))[0] == 0
    assert case_at("river-alder-sewage").story.startswith("## What is going on")


def test_what_may_be_left_out_can_be_left_out(app: Flask, tmp_path: Path) -> None:
    a_user("owner", email="river@example.org")
    left_out: dict[str, Any] = dict.fromkeys(OPTIONAL)
    assert run(app, create_case, a_file(tmp_path, Slug="bare", **left_out))[0] == 0
    case = case_at("bare")
    assert (case.round.zone, case.summary, case.firm) == ("Europe/London", "", "")
    assert app.test_client().get("/cases/bare").status_code == 200


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ({"Title": None}, "The file has no line “Title: …”."),
        ({"Target": ""}, "The file has no line “Target: …”."),
        ({"Title": "x" * 161}, "Title: use at most 160 characters."),
        ({"Slug": "x" * 81}, "Slug: use at most 80 characters."),
        ({"Slug": "River Alder"}, "Slug: use small letters, digits and hyphens."),
        ({"Slug": "taken"}, "There is already a case at /cases/taken."),
        ({"Owner": "nobody@example.org"}, "Owner: there is no case owner nobody@example.org"),
        ({"Owner": "moderator@example.org"}, "Owner: there is no case owner moderator@example.org"),
        ({"Target": "lots"}, "Target: Enter an amount in pounds"),
        ({"Target": "0"}, "Target: it must be more than nothing and at most £1,000,000."),
        ({"Target": "£1,000,000.01"}, "Target: it must be more than nothing and at most £1,000,000."),
        ({"Deadline": "tomorrow"}, "Deadline: write it like 2026-12-10 02:00."),
        ({"Deadline": "2026-13-10 02:00"}, "Deadline: write it like 2026-12-10 02:00."),
        ({"Deadline": "2022-10-09 02:00"}, "The deadline is in the past."),
        ({"Deadline": "2099-10-09 02:00"}, "The deadline is more than 60 days away."),
        ({"Deadline": "2027-03-28 01:30"}, "Deadline: The clocks go forward that night"),
        ({"Deadline": "2027-10-31 01:30"}, "Deadline: The clocks go back that night"),
        ({"Zone": "Europe/Atlantis"}, "Zone: write a time zone, such as Europe/London."),
        ({"Zone": "../etc"}, "Zone: write a time zone, such as Europe/London."),
        ({"Sumary": "x"}, "Line 13: begin with one of Title, Slug, Owner, Target, Deadline, Zone, Summary, Firm"),
        ({"Stage": "Before\nthe claim"}, "Line 13: begin with one of Title"),
        ({"Firm": "x" * 201}, "Firm: use at most 200 characters."),
        ({"Summary": "One\nTitle: Another"}, "Line 8: there is a line “Title” above already."),
    ],
)
def test_the_line_that_is_wrong_is_named_and_nothing_is_made(
    app: Flask, tmp_path: Path, lines: dict[str, Any], complaint: str
) -> None:
    owner = a_user("owner", email="river@example.org")
    a_user("moderator", email="moderator@example.org")
    a_case(slug="taken", owner=owner)
    code, printed = run(app, create_case, a_file(tmp_path, **lines))
    assert code == 1
    assert complaint in printed
    assert db.session.scalars(sa.select(Case.slug)).all() == ["taken"]


def test_a_file_without_a_story_or_without_letters_is_refused(app: Flask, tmp_path: Path) -> None:
    assert "The file has no story" in run(app, create_case, a_file(tmp_path, story=" \n"))[1]
    file = tmp_path / "picture.png"
    file.write_bytes(b"\x89PNG\r\n\xff")
    assert "The file is not text in UTF-8." in run(app, create_case, str(file))[1]
    for broken in ({"Title": "A\0B"}, {"Summary": "\0"}, {"story": "## A\0B"}):
        assert "a character that is no text" in run(app, create_case, a_file(tmp_path, **broken))[1]
    assert db.session.scalars(sa.select(Case.id)).all() == []


# --- Cancelling, and looking before the capture ------------------------------------------------------------


def test_a_cancelled_case_releases_every_pledge_and_tells_those_who_counted(app: Flask) -> None:
    case = a_case(target=600_000, pledged=[2_500, 5_000])
    a_pledge(case.round)
    keep()
    assert run(app, cancel_case, "--reason", " ", case.slug) == (
        1, "Error: Say why: the reason is shown on the case page.\n",
    )  # fmt: skip
    code, printed = run(app, cancel_case, "--reason", "The other side gave in.", case.slug)
    assert (code, printed) == (0, f"{case.slug} is cancelled. Nobody is charged.\n")
    ended = case_at(case.slug)
    assert (ended.status, ended.round.status, ended.ended_because) == (
        "cancelled", "cancelled", "The other side gave in.",
    )  # fmt: skip
    assert len(ended.round.pledges("released")) == 3
    assert len(db.session.scalars(sa.select(Letter.id).where(Letter.kind == "case_cancelled")).all()) == 2
    code, printed = run(app, cancel_case, "--reason", "Again.", case.slug)
    assert (code, printed) == (1, "Error: This case's round has already been decided.\n")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (cancel_case, ("--reason", "x", "nowhere")), (capture, ("--case", "nowhere", "--dry-run")),
        (capture, ("--case", "nowhere")), (ask_again, ("nowhere",)), (demo_deadline, ("nowhere",)),
    ],
)  # fmt: skip
def test_a_case_that_does_not_exist_is_named_and_nothing_is_changed(
    app: Flask, command: click.Command, words: tuple[str, ...]
) -> None:
    its_round = a_case(target=2_500, pledged=[2_500]).round
    its_round.move_deadline(now(), "test", now())
    keep()
    before = everything()
    assert run(app, command, *words) == (1, "Error: There is no case at /cases/nowhere.\n")
    assert everything() == before


@pytest.mark.parametrize("counts", ["--counts", "--does-not-count"])
def test_a_pledge_that_waits_for_no_decision_is_named(app: Flask, counts: str) -> None:
    said = "Error: There is no pledge nobody that waits for a decision.\n"
    assert run(app, decide_card, counts, "nobody") == (1, said)


@pytest.mark.parametrize(
    ("pledged", "verdict", "charge", "release"), [([50_000, 5_000], "met", 2, 0), ([49_999], "missed", 0, 1)]
)
def test_a_dry_run_says_what_would_happen_and_does_nothing(
    app: Flask, pledged: list[int], verdict: str, charge: int, release: int
) -> None:
    case = a_case(target=50_000, pledged=pledged)
    a_pledge(case.round)
    keep()
    code, printed = run(app, capture, "--case", case.slug, "--dry-run")
    assert code == 0
    assert f"The round would be {verdict}." in printed
    assert "Card pages to close first: 1." in printed
    assert f"Cards to charge: {charge}. Pledges to release: {release}." in printed
    assert "The deadline has not passed: nothing is done yet.\nDry run: nothing was done." in printed
    its_round = case_at(case.slug).round
    assert its_round.status == "open"
    assert len(its_round.pledges("confirmed")) == len(pledged)
