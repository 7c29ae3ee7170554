"""The operator's commands: `flask --help` lists them."""

import base64
import datetime as dt
import hashlib
import json
import time
from pathlib import Path
from typing import BinaryIO

import click
import sqlalchemy as sa
from email_validator import EmailNotValidError, validate_email
from flask import Flask, current_app
from flask.cli import AppGroup

import case_file
import config
import demo.big
import demo.seed
import law
import passwords
import payments
from jobs import cards, deadline_capture, doctor, post, reconcile, ring
from jobs import retention as forgetting
from law import Refused
from models import (
    Bounce,
    Case,
    Comment,
    Invitation,
    Letter,
    Movement,
    Pledge,
    Reconciliation,
    Round,
    User,
    begin_reading,
    begin_writing,
    db,
    held_about,
    held_at,
    tables_are_ours,
)
from money import pounds

LONGEST_NAME = 120
demonstration = AppGroup("demo", help="The demonstration: its data and its deadlines. Development only.")


def register(app: Flask) -> None:
    """Give the application its commands."""
    operating = (
        create_user, invite, reset_second_factor, create_case, cancel_case, capture, ask_again, post_again, take_bounce,
        decide_card, examine_books, compare, keep_htmx, export_person, erase_person, retention,
    )  # fmt: skip
    for command in (*operating, demonstration):
        app.cli.add_command(command)


@click.command("keep-htmx")
def keep_htmx() -> None:
    """Fetch htmx from where HTMX_SRC says, check it by its hash, and keep it among our own static files."""
    import requests

    settings = config.current()
    if not settings.htmx_host:
        raise click.ClickException("HTMX_SRC names a file of this site already.")
    try:
        answer = requests.get(settings.htmx_url, timeout=20)
        answer.raise_for_status()
    except requests.RequestException as trouble:
        raise click.ClickException(f"{settings.htmx_url} cannot be fetched: {type(trouble).__name__}.") from trouble
    found = "sha384-" + base64.b64encode(hashlib.sha384(answer.content).digest()).decode()
    if found != settings.htmx_integrity:
        raise click.ClickException("What came is not what the hash in HTMX_SRC stands for, so nothing was kept.")
    name = f"htmx-{hashlib.sha256(answer.content).hexdigest()[:12]}.min.js"
    (Path(current_app.static_folder or "") / name).write_bytes(answer.content)
    click.echo(f"It is kept. Now set\nHTMX_SRC=/static/{name}#{settings.htmx_integrity}")


@click.command("create-user")
@click.option("--role", type=click.Choice(["owner", "moderator", "staff"]), required=True)
@click.option("--name", prompt=True, help="Shown to everybody.")
@click.option("--bio", default="", help="A sentence or two about a case owner, for the case page.")
@click.password_option()
@click.argument("email")
def create_user(role: str, name: str, bio: str, password: str, email: str) -> None:
    """Enrol a case owner, a moderator or one of staff; asks for the password."""
    # A database may refuse what no terminal shows.
    name, bio = " ".join(name.replace("\0", "").split()), bio.replace("\0", "")
    if not 0 < len(name) <= LONGEST_NAME:
        raise click.ClickException(f"Use a name of at most {LONGEST_NAME} characters.")
    wrong = passwords.trouble(password, name, email, config.current().site_name)
    if wrong:
        raise click.ClickException(wrong)
    try:
        address = str(validate_email(email, check_deliverability=False, allow_smtputf8=False).ascii_email)
        User.enrol(address, name, role, password, _now(), bio=bio.strip())
    except (EmailNotValidError, Refused) as refused:
        raise click.ClickException(str(refused)) from refused
    db.session.commit()
    click.echo(f"{address} can log in as {role}.")


@click.command("invite")
@click.option("--role", type=click.Choice(["owner", "moderator", "staff"]), required=True)
@click.argument("email")
def invite(role: str, email: str) -> None:
    """Send somebody a letter with a link, by which they choose a name and a password themselves."""
    try:
        address = str(validate_email(email, check_deliverability=False, allow_smtputf8=False).ascii_email)
        begin_writing()
        sent = Invitation.send(address, role, None, _now())
    except (EmailNotValidError, Refused) as refused:
        raise click.ClickException(str(refused)) from refused
    until = law.instant_words(sent.runs_out_at, config.current().display_zone)
    db.session.commit()
    ring("send_letters")
    click.echo(f"A letter goes to {address}. Its link works until {until}.")


@click.command("reset-second-factor")
@click.option("--reason", required=True, help="For the history of this user, which staff read.")
@click.argument("address")
def reset_second_factor(reason: str, address: str) -> None:
    """For somebody who has lost the app and the recovery codes, above all when nobody of staff can log in any more."""
    begin_writing()
    person = User.at(address)
    if person is None or person.second_factor_at is None:
        raise click.ClickException(f"There is no user {address} with a second factor.")
    held = User.hold(person.id, person) or person
    held.reset_second_factor(reason, None, _now())
    db.session.commit()
    ring("send_letters")
    click.echo(f"{address} has no second factor any more, and is told so by letter.")


@click.command("create-case")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def create_case(file: Path) -> None:
    """Make a case live from a text file; docs/case-file.md says how it is written."""
    try:
        # Editors of Windows put a mark before the first letter, which is not part of it.
        said = case_file.read(file.read_text(encoding="utf-8-sig"), config.current().display_zone)
        case = go_live(said, "operator")
    except UnicodeDecodeError as wrong:
        raise click.ClickException("The file is not text in UTF-8.") from wrong
    except Refused as wrong:
        raise click.ClickException(str(wrong)) from wrong
    db.session.commit()
    click.echo(f"{config.current().site_url}/cases/{case.slug} is live until {_words(case.round)}.")


def go_live(said: case_file.CaseFile, by: str) -> Case:
    """The case of a file, live. Does not commit."""
    owner = db.session.scalar(sa.select(User).where(User.email == said.owner.lower(), User.role == "owner"))
    if owner is None:
        raise Refused(f"Owner: there is no case owner {said.owner}; make one with flask create-user.")
    case = Case.draft(owner, said.slug, said.title, as_of=_now(), zone=said.zone, **said.words)
    case.go_live(said.target_pence, said.deadline, said.zone, by, _now())
    return case


@click.command("cancel-case")
@click.option("--reason", required=True, help="Shown on the case page.")
@click.argument("slug")
def cancel_case(reason: str, slug: str) -> None:
    """Stop a case: every pledge that is not charged yet is released. What was charged staff may refund."""
    case = _case(slug)
    if not reason.strip():
        raise click.ClickException("Say why: the reason is shown on the case page.")
    try:
        case.cancel(reason, "operator", _now())
    except Refused as refused:
        raise click.ClickException(str(refused)) from refused
    charged = case.round.figures().charged
    db.session.commit()
    taken = f"{pounds(charged)} had been charged before." if charged else "Nobody is charged."
    click.echo(f"{slug} is cancelled. {taken}")


@click.command("capture")
@click.option("--case", "slug", required=True)
@click.option("--dry-run", is_flag=True, help="Only print what would happen.")
def capture(slug: str, dry_run: bool) -> None:
    """Settle a case's round if its deadline has passed, and charge what is due."""
    its_round = _case(slug).round
    for line in _prospect(its_round):
        click.echo(line)
    if not tables_are_ours():
        raise click.ClickException("The database is not of this release: run flask db upgrade.")
    db.session.rollback()
    if dry_run:
        click.echo("Dry run: nothing was done.")
        return
    deadline_capture.settle_round(its_round.id)
    deadline_capture.charge_due()
    cards.let_go()
    begin_writing()
    for line in _prospect(_case(slug).round):
        click.echo(line)


def _prospect(its_round: Round) -> list[str]:
    """What the capture finds, and what it would do about it."""
    target = pounds(its_round.target_pence)
    lines = [f"{its_round.case.slug}: round {its_round.status}, target {target}, deadline {_words(its_round)}."]
    confirmed, started = its_round.pledges("confirmed"), its_round.unresolved()
    if its_round.status in ("open", "closing"):
        total = sum(pledge.amount_pence for pledge in confirmed)
        verdict = law.decide(total, its_round.target_pence)
        lines.append(f"{pounds(total)} confirmed, pledges: {len(confirmed)}. The round would be {verdict}.")
        lines.append(f"Card pages to close first: {len(started)}. A card saved in time still counts.")
        ended = not law.in_time(_now(), its_round.deadline)
        charged = len(confirmed) if verdict == "met" else 0
        lines.append(f"Cards to charge: {charged}. Pledges to release: {len(confirmed) - charged}.")
        lines.append("The deadline has passed." if ended else "The deadline has not passed: nothing is done yet.")
        return lines
    for status in sorted(law.PLEDGE_MOVES):
        found = its_round.pledges(status)
        if found:
            total = sum(pledge.amount_pence for pledge in found)
            lines.append(f"{len(found):>6} {status:<16} {pounds(total)}")
    return lines


@click.command("ask-again")
@click.argument("slug")
def ask_again(slug: str) -> None:
    """Go on with the charges of a case that Stripe called wrong requests, once the mistake is mended."""
    its_round = Round.hold(_case(slug).round.id)
    halted = its_round.halted()
    for pledge in halted:
        pledge.ask_again("operator", _now())
    db.session.commit()
    ring("charge_due")
    click.echo(f"Charges that are asked for again: {len(halted)}.")


@click.command("post-again")
@click.argument("address", default="")
def post_again(address: str) -> None:
    """Believe ADDRESS again, or each one whose letters came back, and try once more what was given up or withheld."""
    begin_writing()
    lifted = Bounce.lift(address)
    if address and not lifted:
        raise click.ClickException(f"Letters to {address} did not come back, so nothing is withheld from it.")
    letters = Letter.given_up()
    for letter in letters:
        letter.next_at = _now()
    db.session.commit()
    ring("send_letters")
    click.echo(f"Letters that are tried again: {len(letters)}.")


@click.command("take-bounce")
@click.argument("message", type=click.File("rb"), default="-")
def take_bounce(message: BinaryIO) -> None:
    """Read a MESSAGE that came to BOUNCES_TO, from standard input when none is named: a letter that came back stops
    all others to its address."""
    begin_writing()
    done = post.take_back(message.read())
    db.session.commit()
    click.echo(done)


@click.command("decide-card")
@click.option("--counts/--does-not-count", required=True)
@click.argument("public_id")
def decide_card(counts: bool, public_id: str) -> None:
    """Decide whether a saved card counts whose event Stripe cannot show."""
    pledge = db.session.scalar(sa.select(Pledge).where(Pledge.public_id == public_id))
    if pledge is None or pledge.session_id is None:
        raise click.ClickException(f"There is no pledge {public_id} that waits for a decision.")
    pledge_id, session_id = pledge.id, pledge.session_id
    db.session.rollback()
    try:
        found = payments.look_at_card_page(session_id)
        Pledge.hold(pledge_id).decide_card(found, counts, "operator", _now())
    except (payments.StripeTrouble, Refused) as wrong:
        raise click.ClickException(str(wrong)) from wrong
    db.session.commit()
    click.echo(f"The pledge {public_id} {'counts' if counts else 'does not count'}.")


@click.command("doctor")
@click.pass_context
def examine_books(context: click.Context) -> None:
    """Sum up the books: say what is off, or in one line that they agree. Changes nothing."""
    begin_reading()
    # Before the first upgrade there is no table that could say of which release they are.
    if not sa.inspect(db.session.connection()).has_table("alembic_version") or not tables_are_ours():
        raise click.ClickException("The database is not of this release: run flask db upgrade.")
    findings = doctor.examine(_now())
    for finding in findings:
        click.echo(finding)
    if findings:
        context.exit(1)
    click.echo(f"The books agree: {_size_of_the_books()}.")


@click.command("reconcile")
@click.option(
    "--since", type=click.DateTime(), required=True, help="From when, in UTC: 2026-11-20 or 2026-11-20T18:30:00."
)
@click.option("--until", type=click.DateTime(), help="Till when, in UTC; now when left out.")
@click.pass_context
def compare(context: click.Context, since: dt.datetime, until: dt.datetime | None) -> None:
    """Bring what Stripe knows and our rows do not into them, and say what cannot be mended."""
    began, ended = since.replace(tzinfo=dt.UTC), until.replace(tzinfo=dt.UTC) if until else _now()
    if not reconcile.earliest(_now()) <= began < ended:
        raise click.ClickException("--since must be before --until, and within the 30 days that Stripe looks back.")
    begin_writing()
    comparison_id = Reconciliation.begin(began, ended, _now()).id
    db.session.commit()
    if not reconcile.to_the_end(comparison_id):
        raise click.ClickException("Stripe cannot be asked just now. The clock will go on with this.")
    found = db.session.get_one(Reconciliation, comparison_id)
    click.echo(
        f"Looked at {found.looked_at} of Stripe's events, payments, refunds, disputes and lines of its balance, "
        f"mended {found.mended}."
    )
    for finding in found.findings:
        click.echo(finding)
    context.exit(1 if found.findings else 0)


@click.command("export-person")
@click.argument("address")
def export_person(address: str) -> None:
    """Print all that is kept with an e-mail ADDRESS, as JSON: its pledges, comments, account and requests. Make sure
    first that whoever asks reads that address."""
    begin_reading()
    pledges, comments, person = _of_person(address)
    held = {
        "pledges": [held_about(one) for one in pledges], "comments": [held_about(one) for one in comments],
        "account": held_about(person) if person else None, "asked_for": held_at(address),
    }  # fmt: skip
    click.echo(json.dumps(held, indent=2, ensure_ascii=False))


@click.command("erase-person")
@click.argument("address")
@click.pass_context
def erase_person(context: click.Context, address: str) -> None:
    """Erase all that is kept with an e-mail ADDRESS, but for the books. What has to wait is named, and ends with 1."""
    begin_reading()
    pledges, comments, person = _of_person(address)
    wanted = [(Pledge, one.id) for one in pledges] + [(Comment, one.id) for one in comments]
    wanted += [(User, person.id)] if person else []
    if not wanted:
        raise click.ClickException(f"Nothing is kept with {address}.")
    waits = [told for table, number in wanted if (told := _erase(table, number))]
    for job in ("let_go", "finish_erasures"):
        ring(job)
    click.echo(f"Erased: {len(wanted) - len(waits)}.")
    for told in waits:
        click.echo(told)
    context.exit(1 if waits else 0)


def _of_person(address: str) -> tuple[list[Pledge], list[Comment], User | None]:
    lowered = address.strip().lower()
    pledges = sa.select(Pledge).where(Pledge.email_lowered == lowered).order_by(Pledge.id)
    comments = sa.select(Comment).where(Comment.email == lowered).order_by(Comment.id)
    return list(db.session.scalars(pledges)), list(db.session.scalars(comments)), User.at(lowered)


def _erase(table: type[Pledge | Comment | User], number: int) -> str:
    """Erase one; why it has to wait, or "" when it was erased."""
    begin_writing()
    try:
        if table is User:
            person = db.session.get_one(User, number)
            (User.hold(number, person) or person).erase("operator", _now())
        elif table is Pledge:
            Pledge.hold(number).erase("operator", _now())
        elif (comment := Comment.hold(number)) is not None:
            comment.erase("operator", _now())
    except Refused as why:
        db.session.rollback()
        return f"{table.__name__} {number} is not erased: {why}"
    db.session.commit()
    return ""


@click.command("retention")
def retention() -> None:
    """Print what the clock would forget now, by the rules of privacy.toml. Changes nothing."""
    begin_reading()
    for rule, count in forgetting.prospect(_now()):
        click.echo(f"{count:>6}  {rule.words}")


def _size_of_the_books() -> str:
    """What was looked at, and what rightly waits for somebody else."""
    cases, pledges = _count(Case), _count(Pledge)
    disputed = _count(Pledge, Pledge.status == "disputed")
    charged = sa.select(sa.func.coalesce(sa.func.sum(Movement.amount_pence), 0)).where(Movement.kind == "charge")
    held = f", {disputed} of them waiting for a bank's decision" if disputed else ""
    return f"{cases} cases, {pledges} pledges{held}, {pounds(db.session.scalar(charged) or 0)} charged"


def _count(table: type[Case | Pledge], *where: sa.ColumnElement[bool]) -> int:
    return db.session.scalar(sa.select(sa.func.count(table.id)).where(*where)) or 0


# --- The demonstration -------------------------------------------------------------------------------------


@demonstration.command("seed")
def demo_seed() -> None:
    """Put the demonstration's people, cases and pledges in, once."""
    _only_in_development()
    demo.seed.seed(go_live)


@demonstration.command("big")
@click.option("--cases", default=200, type=click.IntRange(1))
@click.option("--pledges", default=20_000, type=click.IntRange(0))
@click.option("--comments", default=5_000, type=click.IntRange(0))
def demo_big(cases: int, pledges: int, comments: int) -> None:
    """Add a house that has been used for long: 200 cases, 20,000 pledges, 5,000 comments. Stripe knows none of them."""
    _only_in_development()
    begun = time.monotonic()
    try:
        password = demo.seed.password()
        demo.big.fill(cases, pledges, comments, password)
    except Refused as refused:
        raise click.ClickException(str(refused)) from refused
    click.echo(f"{cases} cases, {pledges} pledges and {comments} comments in {time.monotonic() - begun:.0f} seconds.")
    click.echo(f"Log in as {demo.big.OWNER}, {demo.big.MODERATOR} or {demo.big.STAFF}, password {password}.")
    click.echo("The books agree, but Stripe knows none of these cards: a charge that comes due is refused.")


@demonstration.command("deadline")
@click.argument("slug")
@click.option("--in", "after", default="0s", help="When: 20s, 5m; now when left out.")
def demo_deadline(slug: str, after: str) -> None:
    """Move a case's deadline, and say what came of it."""
    _only_in_development()
    try:
        length = demo.seed.seconds(after)
        demo.seed.move_deadline(_case(slug), length)
    except Refused as refused:
        raise click.ClickException(str(refused)) from refused
    if length == 0:
        for line in demo.seed.wait_for_capture(slug):
            click.echo(line)
        for line in _prospect(_case(slug).round):
            click.echo(line)
    else:
        click.echo(f"The deadline of {slug} is in {after}.")


@demonstration.command("codes")
def demo_codes() -> None:
    """Print the six digits that the app of each user with a second factor would show now."""
    _only_in_development()
    for address, digits in demo.seed.codes():
        click.echo(f"{digits}  {address}")


@demonstration.command("last-words")
def demo_last_words() -> None:
    """What `make run` says at the end: the digits of now, and when every round of the demonstration has ended."""
    _only_in_development()
    digits = dict(demo.seed.codes())
    known = [(person, digits[person[0]]) for person in (demo.seed.MODERATOR, demo.seed.STAFF) if person[0] in digits]
    if known:
        of_now = ", ".join(f"{role} {code}" for (_, _, role), code in known)
        click.echo(f"5  Second factor     {of_now}; later  make demo-codes")
    if demo.seed.has_run_out(_now()):
        click.echo("The demonstration has run out: its rounds have ended. Begin anew with: make run RESET=1")


def _only_in_development() -> None:
    if config.current().environment == "production":
        raise click.ClickException("This is a production site: its promises cannot be played with.")


def _case(slug: str) -> Case:
    begin_writing()
    case = db.session.scalar(sa.select(Case).where(Case.slug == slug))
    if case is None or not case.rounds:
        raise click.ClickException(f"There is no case at /cases/{slug}.")
    return case


def _words(its_round: Round) -> str:
    return law.instant_words(its_round.deadline, its_round.zone)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
