"""The demonstration's people, cases and pledges. The pledges go through the site and the sandbox, as a browser
would send them, so that they can really be charged.

Must run while the site, the worker and the sandbox are up.
"""

import datetime as dt
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import pyotp
import requests
import sqlalchemy as sa

import case_file
import config
import law
from jobs import ring
from law import Refused
from models import Case, Comment, Invitation, Pledge, Round, User, begin_reading, begin_writing, db
from pictures import draw_anew

FOLDER = Path(__file__).parent / "cases"
MODERATOR = ("moderator@example.org", "Morgan Reed", "moderator")
STAFF = ("staff@example.org", "Sandy Hall", "staff")
OWNER = ("owner@example.org", "Defend Digital Me", "owner")
OTHER_OWNER = ("river@example.org", "Friends of the Alder", "owner")
EDITOR = ("editor@example.org", "Robin Marsh", "owner")
WORKS, DECLINES = "4242424242424242", "4000000000000341"
# How long the worker may take to bring all of the demonstration's pledges to where they belong.
PATIENCE = 60

# slug -> (name, pounds, card, anonymous, wants updates)
PLEDGES: dict[str, list[tuple[str, int, str, bool, bool]]] = {
    "dfe-real-time-data": [
        ("Priya Shah", 50, WORKS, False, True),
        ("Tom Ellis", 35, WORKS, True, False),
        ("Grace Okafor", 10, WORKS, False, True),
    ],
    "one-pledge-short": [
        ("Ada Winter", 250, WORKS, False, True),
        ("Ben Archer", 125, WORKS, False, False),
        ("Carys Morgan", 75, WORKS, True, True),
        ("Dev Anand", 25, DECLINES, False, False),
    ],
    "river-alder-sewage": [
        ("Ines Alvarez", 150, WORKS, False, True),
        ("Jon Fox", 100, WORKS, False, True),
        ("Kit Yates", 75, WORKS, True, False),
    ],
    "night-bus-cuts": [("Lena Ford", 20, WORKS, False, False), ("Max Hale", 15, WORKS, True, False)],
    "footpath-at-hill-farm": [("Nora Quist", 70, WORKS, False, True)],
    "allotments-by-the-railway": [("Oscar Bell", 40, WORKS, False, True), ("Petra Lund", 25, WORKS, True, False)],
}
# name -> (what came with the pledge, whether it is for everyone)
MESSAGES = {
    "Priya Shah": ("My son is seven. I only want to know who reads what the school writes down.", False),
    "Ines Alvarez": ("I can help to take the samples in the mornings.", False),
    "Jon Fox": ("From everybody at the angling club: thank you.", True),
}
# name -> the label of the link by which the supporter came
CAME_BY = {"Priya Shah": "newsletter", "Tom Ellis": "poster", "Grace Okafor": "newsletter"}
# Those who opened the form of the first case and did not pledge: (label of the link, host of the page before, how many)
VISITS = (("newsletter", "", 3), ("poster", "", 2), ("", "forum.example.org", 2))
WAITING_COMMENTS = (
    ("Hannah, a parent", "Nobody asked us before this began. I would like to know what is kept about my daughter."),
    ("", "I teach in a primary school. We were told that all checks had been made. Thank you for asking."),
)


def seed(go_live: Callable[[case_file.CaseFile, str], Case]) -> None:
    """Put everything in, once; silent when it is there already. Raises Refused when it did not come up."""
    begin_writing()
    if db.session.scalar(sa.select(Case.id).limit(1)) is not None:
        db.session.rollback()
        return
    _people()
    for file in sorted(FOLDER.glob("*.txt")):
        go_live(_case(file), "demonstration")
    db.session.commit()
    _drafts()
    for slug, pledges in PLEDGES.items():
        for pledge in pledges:
            _pledge(slug, *pledge)
    _visits("dfe-real-time-data")
    _wait(lambda: not _count("started"), "the demonstration's pledges were not confirmed")
    _settle("river-alder-sewage", "night-bus-cuts", "footpath-at-hill-farm")
    _afterwards()
    _at_work()
    db.session.commit()
    ring("send_letters")


def has_run_out(as_of: dt.datetime) -> bool:
    """Whether no round of the demonstration can be pledged to any more."""
    begin_reading()
    rounds = list(db.session.scalars(sa.select(Round)))
    return bool(rounds) and not any(its_round.is_open(as_of) for its_round in rounds)


def codes() -> list[tuple[str, str]]:
    """Who has a second factor, and the six digits that their app would show now."""
    begin_reading()
    people = db.session.scalars(sa.select(User).where(User.second_factor_at.is_not(None)).order_by(User.id))
    return [(person.email, pyotp.TOTP(person.second_factor_secret).now()) for person in people]


def move_deadline(case: Case, after: int) -> None:
    """Set the deadline of a demonstration case to so many seconds from now, and ring when that is now."""
    its_round = Round.hold(case.round.id)
    its_round.move_deadline(_now() + dt.timedelta(seconds=after), "demonstration", _now())
    round_id = its_round.id
    db.session.commit()
    if after == 0:
        ring("settle_round", round_id)


def wait_for_capture(slug: str) -> Iterator[str]:
    """Wait until a case's round was settled and everything due was asked for; says what it waits for."""
    yield f"The deadline of {slug} is now. Waiting for the worker ..."
    busy = ("open", "closing")
    _wait(lambda: _round(slug).status not in busy, "the round was not settled")
    _wait(lambda: not _round(slug).pledges("due", "charging", "unknown"), "the cards were not all charged")


def seconds(text: str) -> int:
    """The seconds of "20s", "5m" or "2h"."""
    said = re.fullmatch(r"(\d{1,6})([smh]?)", text.strip())
    if said is None:
        raise Refused("Write the time like 20s, 5m or 2h.")
    return int(said.group(1)) * {"": 1, "s": 1, "m": 60, "h": 3600}[said.group(2)]


def _people() -> None:
    chosen = password()
    bios = {
        OWNER[0]: "Parents and teachers in England who want what schools record about children to be handled safely, "
        "fairly and in the open.",
        OTHER_OWNER[0]: "Neighbours, anglers and swimmers along the river Alder.",
        EDITOR[0]: "",
        MODERATOR[0]: "",
        STAFF[0]: "",
    }
    for email, name, role in (MODERATOR, STAFF, OWNER, OTHER_OWNER, EDITOR):
        person = User.enrol(email, name, role, chosen, _now(), bio=bios[email])
        if role in law.SECOND_FACTOR_ROLES:
            secret = pyotp.random_base32()
            # With the digits of the last half minute: those of now are for whoever logs in at once.
            person.set_second_factor(secret, pyotp.TOTP(secret).at(_now(), counter_offset=-1), _now())
        if email == OTHER_OWNER[0]:
            person.picture = "river.svg"


def _drafts() -> None:
    """One case that is half written, and one that waits for review."""
    owner = _person(OWNER[0])
    begun = Case.draft(owner, "cctv-in-classrooms", "Cameras in classrooms", "", "", "", _now())
    half = {
        "story": "## What is going on\n\nThree schools film their lessons.",
        "budget": [("A letter before claim", None)],
    }
    begun.write(half, begun.draft_version, _now())
    sent = Case.draft(
        owner, "school-meals-by-fingerprint", "School meals by fingerprint",
        "Children pay for lunch with a finger. We ask whether their parents were really asked.",
        "## What is going on\n\nA school takes the fingerprints of eleven-year-olds to sell them lunch."
        "\n\n## What we ask for\n\nThat another way to pay is offered to every child.", "A law centre",
        _now(), who_we_are="Parents of the school.", lawyer="Sam Weir, who does not exist",
        regulator_number="SRA 000000",
        court="High Court", stage="Before the claim", topic="children",
        risks="If we lose, we may have to pay the school’s costs. Our lawyer says so too.",
    )  # fmt: skip
    whole = {
        "wanted_pence": 250_000, "wanted_days": 30,
        "budget": [("Letter before claim", 60_000), ("The claim", 150_000), ("Court fee", 40_000)],
        "links": [("The guidance of the regulator", "https://example.org/guidance")],
    }  # fmt: skip
    sent.write(whole, sent.draft_version, _now())
    sent.submit(owner, _now())
    db.session.commit()


def password() -> str:
    """A password of this demonstration alone, kept where `make run` reads it."""
    file = Path(os.environ.get("STANDING_VAR", config.ROOT / "var")) / "demo-password"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(secrets.token_urlsafe(9) + "\n", encoding="utf-8")
    return file.read_text(encoding="utf-8").strip()


def _case(file: Path) -> case_file.CaseFile:
    """A case of the folder; `{deadline}` in its text becomes a date that lies ahead of today."""
    deadlines = {"week": _two_in_the_morning(), "fortnight": _evening(14), "month": _evening(28)}
    text = file.read_text(encoding="utf-8")
    for name, local in deadlines.items():
        text = text.replace("{" + name + "}", f"{local:%Y-%m-%d %H:%M}")
    return case_file.read(text, config.current().display_zone)


def _two_in_the_morning() -> dt.datetime:
    """The first 2:00am, local time, at least seven full days ahead, that exists once."""
    local = _local_now().replace(hour=2, minute=0, second=0, microsecond=0) + dt.timedelta(days=7)
    while True:
        try:
            if law.deadline_from_local(local, config.current().display_zone) - _now() >= dt.timedelta(days=7):
                return local
        except Refused:
            pass  # That night the clocks change at this hour: take the next.
        local += dt.timedelta(days=1)


def _evening(days: int) -> dt.datetime:
    return _local_now().replace(hour=20, minute=0, second=0, microsecond=0) + dt.timedelta(days=days)


def _local_now() -> dt.datetime:
    return _now().astimezone(ZoneInfo(config.current().display_zone)).replace(tzinfo=None)


def _pledge(slug: str, name: str, amount: int, card: str, anonymous: bool, wants_updates: bool) -> None:
    """Pledge as a browser without JavaScript does: our form, Stripe's page, and back."""
    form = {
        "form_key": secrets.token_urlsafe(24), "amount": "other", "other_amount": str(amount), "name": name,
        "email": f"{name.partition(' ')[0].lower()}@example.org", "agreed": "y",
    }  # fmt: skip
    form |= {"shown_as": "hidden"} if anonymous else {}
    form |= {"wants_updates": "y"} if wants_updates else {}
    if name in MESSAGES:
        words, for_everyone = MESSAGES[name]
        form |= {"message": words} | ({"message_public": "y"} if for_everyone else {})
    site = config.current().site_url
    with requests.Session() as browser:
        via = {"via": CAME_BY[name]} if name in CAME_BY else {}
        browser.get(f"{site}/cases/{slug}/pledge", params=via, timeout=30)
        form["came_from"] = law.source(CAME_BY.get(name, ""), "")
        page = browser.post(f"{site}/cases/{slug}/pledges", form, timeout=30)
        if not page.url.startswith(config.current().checkout_origin):
            raise Refused(f"the pledge of {name} did not reach the card page: {page.status_code} {page.url}")
        back = browser.post(page.url, {"card": card}, timeout=30)
        if back.status_code != 200:
            raise Refused(f"the card of {name} was not saved: {back.status_code} {back.url}")


def _visits(slug: str) -> None:
    """Readers who look at the form, each by a link with a label or from a page elsewhere."""
    for label, host, times in VISITS:
        headers = {"Referer": f"https://{host}/"} if host else {}
        for _ in range(times):
            requests.get(
                f"{config.current().site_url}/cases/{slug}/pledge", params={"via": label} if label else {},
                headers=headers, timeout=30,
            )  # fmt: skip


def _settle(*slugs: str) -> None:
    for slug in slugs:
        begin_writing()
        move_deadline(db.session.scalars(sa.select(Case).where(Case.slug == slug)).one(), 0)
    for slug in slugs:
        for _ in wait_for_capture(slug):
            pass


def _afterwards() -> None:
    """What people said and did since: comments, decisions and updates."""
    begin_writing()
    cases = {case.slug: case for case in db.session.scalars(sa.select(Case))}
    moderator = db.session.scalars(sa.select(User).where(User.role == "moderator")).one()
    for number, (name, body) in enumerate(WAITING_COMMENTS, 1):
        cases["dfe-real-time-data"].take_comment(name, f"reader-{number}@example.org", body, _now())
    river = cases["river-alder-sewage"]
    for name, email, body in (
        ("Jon Fox", "jon@example.org", "I have fished here for forty years. Good luck to us all."),
        ("", "swimmer@example.org", "My children used to swim at the weir. Thank you for doing this."),
    ):
        river.take_comment(name, email, body, _now()).approve(moderator, _now())
    # The message that came with a pledge for everyone waited for a moderator as well.
    of_pledges = sa.select(Comment).where(Comment.case_id == river.id, Comment.status == "pending")
    for message in db.session.scalars(of_pledges.order_by(Comment.id)):
        message.approve(moderator, _now())
        message.answer_by(river.owner, "Thank you all. We meet at the club house on the first Monday.", _now())
    insult = river.take_comment("Anon", "anon@example.org", "They should all be locked up.", _now())
    insult.reject("harassment", moderator, _now(), note="Please speak of the case, and not of people.")
    river.publish_update(
        river.owner, "We have written to the regulator",
        "Our solicitors sent the **letter before action** this morning.\n\nThe regulator has 14 days to answer. We "
        "will publish the answer here, whatever it says.", _now(),
    )  # fmt: skip
    river.publish_update(
        river.owner, "Thank you",
        "The target is reached. What comes next:\n\n- the samples go to the laboratory,\n- counsel is instructed,\n"
        "- we meet on the first Monday of each month.", _now(),
    )  # fmt: skip


def _at_work() -> None:
    """What owners are in the midst of: updates of each kind, help from an editor, a changed promise, a final report."""
    cases = {case.slug: case for case in db.session.scalars(sa.select(Case))}
    river, footpath, gardens = (
        cases[slug] for slug in ("river-alder-sewage", "footpath-at-hill-farm", "allotments-by-the-railway")
    )
    owner, editor, staff = river.owner, _person(EDITOR[0]), _person(STAFF[0])
    Invitation.to_case(river, editor.email, owner, _now()).accept_as(editor, _now())

    at_the_weir = river.begin_update(editor, secrets.token_urlsafe(24), _now())
    words = "We took the first twelve bottles at dawn, above and below the works. The laboratory has them."
    at_the_weir.write({"title": "The first samples are taken", "body": words}, 0, _now())
    picture = draw_anew((FOLDER.parent / "weir.jpg").read_bytes())
    at_the_weir.hang_picture(picture, "A drawing of the weir, with trees on both banks.", editor, _now())
    at_the_weir.publish(f"user:{editor.id}", _now())
    river.publish_update(
        owner, "What counsel says", "Counsel thinks that our chances are good. Please keep this to yourselves for now.",
        _now(), audience="supporters",
    )  # fmt: skip
    draft = river.begin_update(owner, secrets.token_urlsafe(24), _now())
    draft.write({"title": "The regulator has answered", "body": "It says that"}, 0, _now())

    later = gardens.round.deadline + dt.timedelta(days=14)
    asked = gardens.round.ask_change(later, 90_000, "The court has moved the hearing by two weeks.", owner, _now())
    asked.consent(staff, _now())

    footpath.publish_report(
        owner, "## The gate is open\n\nThe council gave way before the hearing, and pays for **two signposts**.",
        [("Court fee", 5_000), ("Copies of the old maps", 1_500)], _now(),
    )  # fmt: skip


def _person(email: str) -> User:
    return db.session.scalars(sa.select(User).where(User.email == email)).one()


def _round(slug: str) -> Round:
    begin_writing()
    return db.session.scalars(sa.select(Case).where(Case.slug == slug)).one().round


def _count(status: str) -> int:
    begin_writing()
    return db.session.scalar(sa.select(sa.func.count(Pledge.id)).where(Pledge.status == status)) or 0


def _wait(arrived: Callable[[], bool], otherwise: str) -> None:
    """Look every fifth of a second until it is so; raises Refused when it takes too long."""
    until = time.monotonic() + PATIENCE
    while not arrived():
        db.session.rollback()
        if time.monotonic() > until:
            raise Refused(f"{otherwise} within {PATIENCE} seconds. Are the worker and the sandbox running?")
        time.sleep(0.2)
    db.session.rollback()


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
