"""The pages in w3m, as people read them who use a text browser: in a sensible order, whole, and good to pledge with."""

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

from models import Case, begin_writing, db
from tests.house import House, eventually
from tests.journey import DECLINES_LATER, a_real_pledge, body, movements_of, states, the_deadline_comes
from tests.made import PASSWORD, a_case, a_pledge, a_user, case_at, confirm, keep, pledges_of
from tests.reader import Reader

pytestmark = [pytest.mark.w3m, pytest.mark.slow]
TAB, ENTER, RELOAD, EMPTY = "\t", "\r", "R", "\x15"


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
        "[ ] Show me as “Anonymous” instead of my name",
        "Your e-mail address",
        "[ ] Keep me updated about this case by e-mail",
        "[ ] I allow Standing Test to charge my card the amount chosen above once, after",
        "You enter your card on Stripe's own page. That page may need JavaScript; ours never does.",
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
        "A letter with the address of this page goes to ada@example.org.",
        "Amount", "£25", "Card", "Visa ending 4242", "Target", "£6,000", "Deadline",
        "You can cancel until then.",
        "Cancel my pledge",
    )  # fmt: skip


def test_somebody_pledges_with_w3m_from_the_case_to_the_private_page(house: House, w3m: str, tmp_path: Path) -> None:
    slug = a_case(target=600_000, pledged=[9_500]).slug
    with Terminal(_opened(w3m, f"{house.url}/cases/{slug}"), tmp_path) as typist:
        typist.sees("£95 pledged of £6,000 target")
        typist.goes_to("Pledge now").types(ENTER).sees("How much would you like to pledge?")
        typist.fills("in pounds", "25").fills("Your name", "Ada Winter").fills("Your e-mail", "ada@example.org")
        typist.goes_to("on the case page too").types(TAB, ENTER)
        typist.goes_to("Continue to Stripe").types(ENTER).sees("Save your card")
        typist.fills("Card number", "4242 4242 4242 4242")
        typist.goes_to("Save this card").types(ENTER).sees("Thank you, Ada Winter. Your pledge of £25 counts.")
    [mine] = [pledge for pledge in pledges_of(slug) if pledge.email == "ada@example.org"]
    assert (mine.status, mine.amount_pence, mine.name, mine.wants_updates) == ("confirmed", 2_500, "Ada Winter", False)
    assert (case_at(slug).round.pledged_pence, case_at(slug).round.pledge_count) == (12_000, 2)
    assert eventually(lambda: house.letters(to="ada@example.org"))


def test_somebody_lowers_raises_and_cancels_a_pledge_with_w3m(house: House, w3m: str, tmp_path: Path) -> None:
    slug = a_case(target=600_000, pledged=[9_500]).slug
    mine = a_real_pledge(house, slug, 25, email="changes-in-w3m@example.org")
    with Terminal(_opened(w3m, f"{house.url}/pledges/{mine.link()}"), tmp_path) as typist:
        typist.sees("Your pledge of £25 counts.")
        typist.goes_to("Change the amount").types(ENTER).sees("From £5 to £10,000")
        typist.fills("in pounds", "12.50").goes_to("Continue").types(ENTER).sees("From here on")
        typist.goes_to("From here on").types(TAB, ENTER).goes_to("Change it to £12.50").types(ENTER)
        typist.sees("Your pledge of £12.50 counts.")
        assert _terms(slug, mine.email) == ("confirmed", 1_250, 10_750)
        typist.goes_to("Change the amount").types(ENTER).sees("From £5 to £10,000")
        typist.fills("in pounds", "40").goes_to("Continue").types(ENTER).sees("From here on")
        typist.goes_to("From here on").types(TAB, ENTER).goes_to("Continue to Stripe").types(ENTER)
        typist.sees("Save your card").fills("Card number", "4242 4242 4242 4242")
        typist.goes_to("Save this card").types(ENTER).sees("Your pledge of £40 counts.")
        assert _terms(slug, mine.email) == ("confirmed", 4_000, 13_500)
        typist.goes_to("Cancel my pledge").types(ENTER).sees("Your pledge of £40 is cancelled.")
    assert _terms(slug, mine.email) == ("cancelled", 4_000, 9_500)


def test_somebody_finds_a_lost_pledge_with_w3m_from_the_case_by_the_letter(
    house: House, w3m: str, tmp_path: Path
) -> None:
    slug = a_case(target=600_000).slug
    mine = a_real_pledge(house, slug, 25, email="lost.w3m@example.org")
    with Terminal(_opened(w3m, f"{house.url}/cases/{slug}"), tmp_path) as typist:
        typist.sees("£25 pledged of £6,000 target")
        typist.goes_to("Find your pledge").types(ENTER).sees("If you have lost it")
        typist.fills("Your e-mail", "lost.w3m@example.org")
        typist.goes_to("Send me my links").types(ENTER).sees("Look into your mail")
    letter = eventually(
        lambda: next((one for one in house.letters(to=mine.email) if "Subject: The links of your pledges" in one), "")
    )
    link = next(line for line in body(letter).splitlines() if "/pledges/" in line)
    with Terminal(_opened(w3m, link), tmp_path) as typist:
        typist.sees("Your pledge of £25 counts.")


def test_somebody_repairs_a_refused_payment_with_another_card_in_w3m(house: House, w3m: str, tmp_path: Path) -> None:
    slug = a_case(target=2_500).slug
    mine = a_real_pledge(house, slug, 25, DECLINES_LATER, email="repairs-in-w3m@example.org")
    the_deadline_comes(slug)
    assert eventually(lambda: states(slug) == ["declined"])
    with Terminal(_opened(w3m, f"{house.url}/pledges/{mine.link()}"), tmp_path) as typist:
        typist.sees("You have not been charged.")
        typist.goes_to("Use another card").types(ENTER).sees("Save your card")
        typist.fills("Card number", "4242 4242 4242 4242").goes_to("Save this card").types(ENTER).sees("Your pledge")
        assert eventually(lambda: states(slug) == ["charged"])
        typist.types(RELOAD).sees("Your card was charged £25. Thank you.")
    assert [moved.amount_pence for moved in movements_of(mine)] == [2_500]
    assert [payment["amount_received"] for payment in house.payments_of(mine.id)] == [2_500]


def test_somebody_sets_another_password_with_w3m(house: House, w3m: str, tmp_path: Path) -> None:
    email = a_user("owner", email="in-w3m@example.org").email
    with Terminal(_opened(w3m, f"{house.url}/login"), tmp_path) as typist:
        typist.sees("Forgotten your password?")
        typist.goes_to("Forgotten").types(ENTER).sees("Send me a link")
        typist.fills("Your e-mail", email).goes_to("Send me a link").types(ENTER).sees("Look into your mail")
    letter = eventually(lambda: house.letters(to=email))[0]
    [link] = re.findall(rf"{re.escape(house.url)}/password-resets/\S+", letter)
    with Terminal(_opened(w3m, link), tmp_path) as typist:
        typist.sees("Set another password").goes_to("New password").types(TAB, ENTER).sees("assword:")
        typist.types("four words nothing ties", ENTER).sees("*")
        typist.goes_to("Set this password").types(ENTER).sees("Your password is changed")
    entered = Reader(house.url).log_in(email, "four words nothing ties")
    assert entered.address == f"{house.url}/owner"
    assert Reader(house.url).log_in(email, PASSWORD).status == 422


def _terms(slug: str, email: str) -> tuple[str, int, int]:
    """(state, pence) of somebody's pledge, and the total of the round."""
    [mine] = [pledge for pledge in pledges_of(slug) if pledge.email == email]
    return mine.status, mine.amount_pence, case_at(slug).round.pledged_pence


def _opened(w3m: str, address: str) -> list[str]:
    return [w3m, "-no-mouse", "-o", "confirm_qq=0", address]


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
    """A program on a terminal of its own, and somebody who types there and looks at what appears."""

    def __init__(self, command: list[str], home: Path) -> None:
        self.command, self.home = command, home
        self.shown = b""

    def __enter__(self) -> "Terminal":
        self.keyboard, theirs = pty.openpty()
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 80, 0, 0))
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
        until = time.monotonic() + 20
        while "".join(words.split()) not in self._text():
            left = until - time.monotonic()
            assert left > 0, f"“{words}” did not appear in: {self._text()}"
            if select.select([self.keyboard], [], [], left)[0]:
                self.shown += os.read(self.keyboard, 65_536)
        return self

    def goes_to(self, words: str) -> "Terminal":
        """Search forward for the words, which puts the cursor on them."""
        return self.types("/").sees("Forward:").types(words).sees(words).types(ENTER)

    def fills(self, label: str, value: str) -> "Terminal":
        """Type a value into the field after a label, in the place of what stands there."""
        return (
            self.goes_to(label).types(TAB, ENTER).sees("TEXT:").types(EMPTY, value).sees(value).types(ENTER).sees(value)
        )

    def _text(self) -> str:
        text = self.shown.decode(errors="ignore")
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b.|[\s\x00-\x1f]", "", text)
