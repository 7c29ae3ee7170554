"""The pages in w3m and lynx, as people read them who use a text browser: in a sensible order, whole, and good to
search, comment and pledge with."""

import contextlib
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from fcntl import ioctl
from pathlib import Path

import pytest
import sqlalchemy as sa

from models import Case, Comment, Report, Round, begin_writing, db
from tests.house import House, eventually
from tests.journey import DECLINES_LATER, a_real_pledge, body, movements_of, states, the_deadline_comes, writing
from tests.made import PASSWORD, a_case, a_pledge, a_user, case_at, confirm, keep, now, pledges_of
from tests.reader import Reader

pytestmark = [pytest.mark.w3m, pytest.mark.slow]
TAB, ENTER, BACK, RELOAD, EMPTY, REDRAW = "\t", "\r", "\x1b\t", "R", "\x15", "\x0c"


@pytest.fixture(params=["w3m", "lynx"])
def typist(request: pytest.FixtureRequest, tmp_path: Path) -> "Terminal":
    """Somebody with a text browser; the public journeys are typed into both."""
    browser = {"w3m": W3m, "lynx": Lynx}[request.param]
    return browser(request.getfixturevalue(request.param), tmp_path)


def test_a_case_reads_from_its_title_to_its_comments(house: House, w3m: str) -> None:
    case = a_case(target=600_000, pledged=[5_000, 3_500, 1_000])
    page = _read(w3m, f"{house.url}/cases/{case.slug}")
    _in_this_order(
        page,
        "A case about data",
        "by A Owner",
        "£95 pledged of £6,000 target from 3 pledges",
        "£95 of £6,000",  # What stands for the bar.
        "7 days to go",
        "Pledge now",
        "Your card is charged only if pledges reach £6,000 by",
        "If they do not, you pay nothing. You can cancel until then.",
        "What is going on",
        "A story.",
        "Pledge now",
        "Case Owner",
        "Teachers and parents.",
        "Legal team",
        "AWO acts for us.",
        "There are no public comments on this case page yet.",
        "If approved, your name and comment are public. Your e-mail is never shown.",
        "Send comment",
        f"Copy the address: {house.url}/cases/{case.slug}",
    )


def test_the_pledge_form_reads_from_the_amount_to_the_promise(house: House, w3m: str) -> None:
    page = _read(w3m, f"{house.url}/cases/{a_case(target=600_000).slug}/pledge")
    _in_this_order(
        page,
        "How much would you like to pledge?",
        "( ) £10", "( ) £25", "( ) £50", "( ) £100", "( ) Another amount",
        "Another amount, in pounds",
        "From £5 to £10,000, for example 40 or 12.50.",
        "Your name",
        "How would you like to be shown?",
        "The amount is never public. Your name is, only where you send a message that everyone can read.",
        "( ) With my name", "(*) As “Anonymous”; the case owner sees my name",
        "Your e-mail address",
        "[ ] Keep me updated about this case by e-mail",
        "[ ] I allow Standing Test to charge my card the amount chosen above once, after",
        "You enter your card on Stripe's own page.",
        "Continue to Stripe",
        "Your card is charged only if pledges reach £6,000 by",
    )  # fmt: skip


def test_a_private_page_reads_from_the_state_to_the_way_out(house: House, w3m: str) -> None:
    number = a_case(target=600_000).id
    begin_writing()
    pledge = confirm(a_pledge(db.session.get_one(Case, number).round, 2_500, email="ada@example.org"))
    keep()
    page = _read(w3m, f"{house.url}/pledges/{pledge.link()}")
    _in_this_order(
        page,
        "Your pledge",
        "For A case about data",
        "Thank you, Ada Winter. Your pledge of £25 counts.",
        "The link of this page is in a letter to ada@example.org.",
        "Amount", "£25", "Card", "Visa ending 4242", "Target", "£6,000", "Deadline",
        "You can cancel until then.",
        "Cancel my pledge",
    )  # fmt: skip


def test_somebody_finds_a_case_reads_it_and_pledges(house: House, typist: "Terminal") -> None:
    title, email = f"The river of {typist.name}", f"p@{typist.name}.example"
    slug = a_case(target=600_000, title=title, pledged=[9_500]).slug
    with typist.opened(house.url):
        typist.sees("Search cases").fills("Search cases", f"{typist.name} river").goes_to("Search").types(ENTER)
        typist.sees(title).goes_to(title).types(ENTER).sees("£95 pledged of £6,000 target").sees("What is going on")
        typist.goes_to("Pledge now").types(ENTER).sees("How much would you like to pledge?")
        typist.ticks("£25").fills("Your name", "Ada Winter").fills("Your e-mail", email)
        typist.ticks("I allow").goes_to("Continue to Stripe").types(ENTER).sees("Save your card")
        typist.fills("Card number", "4242 4242 4242 4242")
        typist.goes_to("Save this card").types(ENTER).sees("Thank you, Ada Winter. Your pledge of £25 counts.")
    [mine] = [pledge for pledge in pledges_of(slug) if pledge.email == email]
    assert (mine.status, mine.amount_pence, mine.name, mine.wants_updates) == ("confirmed", 2_500, "Ada Winter", False)
    assert (case_at(slug).round.pledged_pence, case_at(slug).round.pledge_count) == (12_000, 2)
    assert eventually(lambda: house.letters(to=email))


def test_somebody_comments_changes_it_by_the_letter_and_takes_it_back(house: House, typist: "Terminal") -> None:
    slug, email = a_case().slug, f"c@{typist.name}.example"
    with typist.opened(f"{house.url}/cases/{slug}"):
        typist.sees("Leave a comment").goes_to("Send comment").types(ENTER).sees("Enter your comment.")
        assert _said(slug) == []
        typist.fills("Your name", "Ben Field").fills("Your e-mail", email)
        typist.writes("become links.", "I stand with you.")
        typist.goes_to("Send comment").types(ENTER).sees("Your comment is not public yet.")
    assert _said(slug) == [("Ben Field", email, "I stand with you.", "pending")]
    letter = eventually(lambda: house.letters(to=email))[0]
    link = next(line for line in body(letter).splitlines() if "/comments/" in line)
    with typist.opened(link):
        typist.sees("I stand with you.").writes("become links.", "I stand with all of you.")
        typist.goes_to("Save the change").types(ENTER).sees("I stand with all of you.")
        typist.goes_to("Withdraw my comment").types(ENTER).sees("You have withdrawn your comment")
    assert _said(slug) == [("Ben Field", email, "I stand with all of you.", "withdrawn")]


def test_somebody_lowers_raises_and_cancels_a_pledge(house: House, typist: "Terminal") -> None:
    slug = a_case(target=600_000, pledged=[9_500]).slug
    mine = a_real_pledge(house, slug, 25, email=f"changes@{typist.name}.example.org")
    with typist.opened(f"{house.url}/pledges/{mine.link()}"):
        typist.sees("Your pledge of £25 counts.")
        typist.goes_to("Change the amount").types(ENTER).sees("From £5 to £10,000")
        typist.fills("in pounds", "12.50").goes_to("Continue").types(ENTER).sees("From here on")
        typist.ticks("I allow").goes_to("Change it to £12.50").types(ENTER)
        typist.sees("Your pledge of £12.50 counts.")
        assert _terms(slug, mine.email) == ("confirmed", 1_250, 10_750)
        typist.goes_to("Change the amount").types(ENTER).sees("From £5 to £10,000")
        typist.fills("in pounds", "40").goes_to("Continue").types(ENTER).sees("From here on")
        typist.ticks("I allow").goes_to("Continue to Stripe").types(ENTER)
        typist.sees("Save your card").fills("Card number", "4242 4242 4242 4242")
        typist.goes_to("Save this card").types(ENTER).sees("Your pledge of £40 counts.")
        assert _terms(slug, mine.email) == ("confirmed", 4_000, 13_500)
        typist.goes_to("Cancel my pledge").types(ENTER).sees("Your pledge of £40 is cancelled.")
    assert _terms(slug, mine.email) == ("cancelled", 4_000, 9_500)


def test_somebody_finds_a_lost_pledge_from_the_case_by_the_letter(house: House, typist: "Terminal") -> None:
    slug, email = a_case(target=600_000).slug, f"l@{typist.name}.example"
    a_real_pledge(house, slug, 25, email=email)
    with typist.opened(f"{house.url}/cases/{slug}"):
        typist.sees("£25 pledged of £6,000 target")
        typist.goes_to("Find your pledge").types(ENTER).sees("If you have lost it")
        typist.fills("Your e-mail", email)
        typist.goes_to("Send me my links").types(ENTER).sees("Check your e-mail")
    letter = eventually(
        lambda: next((one for one in house.letters(to=email) if "Subject: The links of your pledges" in one), "")
    )
    link = next(line for line in body(letter).splitlines() if "/pledges/" in line)
    with typist.opened(link):
        typist.sees("Your pledge of £25 counts.")


def test_somebody_reports_a_comment_and_moves_leaves_and_erases_a_pledge_by_its_letters(
    house: House, typist: "Terminal"
) -> None:
    owner, staff, moderator = a_user("owner"), a_user("staff"), a_user("moderator")
    slug, old, new = a_case(target=600_000, owner=owner).slug, f"m@{typist.name}.example", f"n@{typist.name}.example"
    number, round_number = case_at(slug).id, case_at(slug).round.id
    with writing():
        said = db.session.get_one(Case, number).take_comment("Ben Field", "b@talk.example", "He lives there.", now())
        said.approve(db.session.merge(moderator), now())
    with typist.opened(f"{house.url}/cases/{slug}"):
        typist.sees("He lives there.").goes_to("Report the comment").types(ENTER).sees("Only moderators read this.")
        typist.ticks("It has somebody").writes("who you are.", "My own street.")
        typist.goes_to("Send the report").types(ENTER).sees("Thank you for the report")
    assert _reported(slug) == [("personal", "My own street.")]

    mine = a_real_pledge(house, slug, 25, email=old)
    with typist.opened(f"{house.url}/pledges/{mine.link()}"):
        typist.sees("Your pledge of £25 counts.").goes_to("Change the e-mail").types(ENTER).sees("The old address")
        typist.fills("Your e-mail", new).goes_to("Send the letter").types(ENTER).sees(f"We have written to {new}")
    with typist.opened(_link(house, new, "/pledges/new-address/")):
        # The heading says the same as the button, and comes first where one searches for it.
        typist.sees(f"will go to {new}").goes_to("Use this address").goes_to("Use this address")
        typist.types(ENTER).sees("Your pledge of £25 counts.")
    assert _terms(slug, new) == ("confirmed", 2_500, 2_500)

    with writing():
        its_round = Round.hold(round_number)
        asked = its_round.ask_change(its_round.deadline, 100_000, "We need less.", db.session.merge(owner), now())
        asked.consent(db.session.merge(staff), now())
    with typist.opened(_link(house, new, "/departure")):
        typist.sees("The promise that you agreed to was changed:").sees("£1,000")
        typist.goes_to("Cancel my pledge").types(ENTER).sees("Your pledge of £25 is cancelled.")
    assert _terms(slug, new) == ("cancelled", 2_500, 0)

    with typist.opened(f"{house.url}/pledges/{pledges_of(slug)[0].link()}"):
        typist.sees("is cancelled.").goes_to("have it erased").types(ENTER).sees("This cannot be undone.")
        typist.goes_to("Erase everything").types(ENTER).sees("What was kept of you with your pledge for")
    assert [(pledge.status, pledge.name, pledge.erased_at is None) for pledge in pledges_of(slug)] == [
        ("cancelled", "", False)
    ]


def test_somebody_repairs_a_refused_payment_with_another_card_in_w3m(house: House, w3m: str, tmp_path: Path) -> None:
    slug = a_case(target=2_500).slug
    mine = a_real_pledge(house, slug, 25, DECLINES_LATER, email="repairs-in-w3m@example.org")
    the_deadline_comes(slug)
    assert eventually(lambda: states(slug) == ["declined"])
    with W3m(w3m, tmp_path).opened(f"{house.url}/pledges/{mine.link()}") as typist:
        typist.sees("You have not been charged.")
        typist.goes_to("Use another card").types(ENTER).sees("Save your card")
        typist.fills("Card number", "4242 4242 4242 4242").goes_to("Save this card").types(ENTER).sees("Your pledge")
        assert eventually(lambda: states(slug) == ["charged"])
        typist.types(RELOAD).sees("Your card was charged £25. Thank you.")
    assert [moved.amount_pence for moved in movements_of(mine)] == [2_500]
    assert [payment["amount_received"] for payment in house.payments_of(mine.id)] == [2_500]


def test_somebody_sets_another_password_with_w3m(house: House, w3m: str, tmp_path: Path) -> None:
    email = a_user("owner", email="in-w3m@example.org").email
    with W3m(w3m, tmp_path).opened(f"{house.url}/login") as typist:
        typist.sees("Forgotten your password?")
        typist.goes_to("Forgotten").types(ENTER).sees("Send me a link")
        typist.fills("Your e-mail", email).goes_to("Send me a link").types(ENTER).sees("Check your e-mail")
    letter = eventually(lambda: house.letters(to=email))[0]
    [link] = re.findall(rf"{re.escape(house.url)}/password-resets/\S+", letter)
    with W3m(w3m, tmp_path).opened(link) as typist:
        typist.sees("Set another password").goes_to("New password").types(TAB, ENTER).sees("assword:")
        typist.types("four words nothing ties", ENTER).sees("*")
        typist.goes_to("Set this password").types(ENTER).sees("Your password is changed")
    entered = Reader(house.url).log_in(email, "four words nothing ties")
    assert entered.address == f"{house.url}/owner"
    assert Reader(house.url).log_in(email, PASSWORD).status == 422


def _link(house: House, to: str, which: str) -> str:
    """The address of this kind that stands in a letter to somebody."""

    def found() -> str:
        lines = [line for letter in house.letters(to=to) for line in body(letter).splitlines()]
        return next((line for line in lines if line.startswith(house.url) and which in line), "")

    return eventually(found, why=f"no letter to {to} leads to {which}")


def _reported(slug: str) -> list[tuple[str, str]]:
    """(reason, words) of each report of a comment on a case."""
    found = sa.select(Report).join(Comment, Comment.id == Report.comment_id).where(Comment.case_id == case_at(slug).id)
    return [(report.reason, report.words) for report in db.session.scalars(found)]


def _terms(slug: str, email: str) -> tuple[str, int, int]:
    """(state, pence) of somebody's pledge, and the total of the round."""
    [mine] = [pledge for pledge in pledges_of(slug) if pledge.email == email]
    return mine.status, mine.amount_pence, case_at(slug).round.pledged_pence


def _said(slug: str) -> list[tuple[str, str, str, str]]:
    """(name, address, words, state) of each comment on a case."""
    number = case_at(slug).id
    found = db.session.scalars(sa.select(Comment).where(Comment.case_id == number).order_by(Comment.id))
    return [(comment.name, comment.email, comment.body, comment.status) for comment in found]


def _read(w3m: str, address: str) -> str:
    """What w3m shows of a page, with single spaces."""
    shown = subprocess.run([w3m, "-dump", "-cols", "80", address], capture_output=True, check=True, timeout=30)
    return " ".join(shown.stdout.decode().split())


def _in_this_order(page: str, *sentences: str) -> None:
    place = 0
    for sentence in sentences:
        found = page.find(sentence, place)
        assert found >= 0, f"“{sentence}” does not come after {page[:place][-80:]!r} in {page}"
        place = found + len(sentence)


class Terminal:
    """A text browser on a terminal of its own, and somebody who types there and looks at what appears."""

    name, rows = "", 60
    arguments: tuple[str, ...] = ()

    def __init__(self, program: str, home: Path) -> None:
        self.path, self.home = program, home
        self.command = [program, *self.arguments]
        self.shown = b""

    def opened(self, address: str) -> "Terminal":
        self.command = [self.path, *self.arguments, address]
        return self

    def __enter__(self) -> "Terminal":
        self.keyboard, theirs = pty.openpty()
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", self.rows, 80, 0, 0))
        environment = {"HOME": str(self.home), "TERM": "vt100", "LANG": "C.UTF-8", "PATH": os.environ["PATH"]}
        self.program = subprocess.Popen(
            self.command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
        )
        os.close(theirs)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.program.pid, signal.SIGKILL)
        self.program.wait(10)
        os.close(self.keyboard)

    def types(self, *keys: str) -> "Terminal":
        """Forget what was shown before, so that only what this brings about is seen."""
        self.shown = b""
        for key in keys:
            os.write(self.keyboard, key.encode())
        return self

    def sees(self, words: str) -> "Terminal":
        """Wait until the words appear; the terminal moves about between them, so spaces don't count."""
        self._reads(re.escape("".join(words.split())))
        return self

    def _reads(self, pattern: str) -> re.Match[str]:
        """What is on the screen. What stood there before is not sent again, so after a while it is asked for anew."""
        until = time.monotonic() + 20
        while not (found := re.search(pattern, self._text())):
            assert time.monotonic() < until, f"“{pattern}” did not appear in: {self._text()}"
            if select.select([self.keyboard], [], [], 1)[0]:
                self.shown += os.read(self.keyboard, 65_536)
            else:
                os.write(self.keyboard, REDRAW.encode())
        return found

    def goes_to(self, words: str) -> "Terminal":
        """Put the cursor on a link or a button, or wherever the words are."""
        raise NotImplementedError

    def ticks(self, words: str) -> "Terminal":
        """Tick the box before the words, or choose one of a few by them."""
        raise NotImplementedError

    def fills(self, label: str, value: str) -> "Terminal":
        """Type a value into the field after a label, in the place of what stands there."""
        raise NotImplementedError

    def writes(self, label: str, words: str) -> "Terminal":
        """Write a few words into the large field after a label, in the place of what stands there."""
        raise NotImplementedError

    def _text(self) -> str:
        text = self.shown.decode(errors="ignore")
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b.|[\s\x00-\x1f]", "", text)


class W3m(Terminal):
    name = "w3m"

    def __init__(self, program: str, home: Path) -> None:
        super().__init__(program, home)
        # w3m opens an editor for a large field. This one writes what is kept beside it.
        editor = home / "editor"
        editor.write_text(f"#!/bin/sh\ncat '{home}/words' > \"$1\"\n", encoding="utf-8")
        editor.chmod(0o755)
        self.arguments = ("-no-mouse", "-o", "confirm_qq=0", "-o", f"editor={editor}")

    def goes_to(self, words: str) -> Terminal:
        return self.types("/").sees("Forward:").types(words).sees(words).types(ENTER)

    def fills(self, label: str, value: str) -> Terminal:
        return (
            self.goes_to(label).types(TAB, ENTER).sees("TEXT:").types(EMPTY, value).sees(value).types(ENTER).sees(value)
        )

    def ticks(self, words: str) -> Terminal:
        return self.goes_to(words).types(BACK, ENTER)

    def writes(self, label: str, words: str) -> Terminal:
        (self.home / "words").write_text(words, encoding="utf-8")
        return self.goes_to(label).types(TAB, ENTER).sees(words[:15])


class Lynx(Terminal):
    """Whatever can be followed, typed into or pressed has a number. The terminal is so long that a whole page stands on
    it; text fields are entered with Enter and left with Tab."""

    name, rows = "lynx", 240

    def __init__(self, program: str, home: Path) -> None:
        super().__init__(program, home)
        settings = home / "lynx.cfg"
        settings.write_text(
            "DEFAULT_KEYPAD_MODE:LINKS_AND_FIELDS_ARE_NUMBERED\nCHARACTER_SET:utf-8\n", encoding="utf-8"
        )
        self.arguments = ("-tna", "-nopause", "-nocolor", f"-cfg={settings}")

    def goes_to(self, words: str) -> Terminal:
        return self._goes(rf"\[(\d+)\](?:BUTTON\))?{re.escape(''.join(words.split()))}")

    def ticks(self, words: str) -> Terminal:
        return self._goes(rf"\[(\d+)\](?:\[\]|\(\)){re.escape(''.join(words.split()))}").types(ENTER)

    def fills(self, label: str, value: str) -> Terminal:
        self._goes(rf"{re.escape(''.join(label.split()))}[^\[]*\[(\d+)\]").types(ENTER).sees("Enter text.")
        return self.types(EMPTY, value).sees(value).types(TAB)

    def writes(self, label: str, words: str) -> Terminal:
        return self.fills(label, words)

    def _goes(self, pattern: str) -> Terminal:
        number = self.types(REDRAW)._reads(pattern)[1]
        return self.types(number).sees("number:").types("g", ENTER)
