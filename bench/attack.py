"""What becomes of a case on which cards are tried out: `make bench-attack`, or with numbers of one's own:

    python -m bench.attack 20000 --supporters 50 --bots 500 --mailboxes 4 --threads 16

A house of real processes is set as in production (limits, breaker, held pledges), behind one proxy that is believed.
Scripts send so many pledge forms, each from one of the bots' addresses, with an e-mail address and a name of its own.
Whoever of them is sent to Stripe's page types stolen numbers there until it is closed: one in fifty works. Whoever is
asked to confirm an address tries the private page's button; a few read their mail, and press the button in the letter.
Meanwhile real supporters pledge, one after the other, each from home and with a card of their own.
"""

import argparse
import os
import random
import re
import secrets
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from email import message_from_bytes, policy
from pathlib import Path

import requests
import sqlalchemy as sa
from flask_migrate import upgrade

from jobs.queue import worker_is_there
from models import Breaker, CardFailure, Case, Letter, Pledge, begin_reading, begin_writing, db
from tests.house import House, eventually
from tests.made import a_case, a_user, now
from tests.mailbox import text_of
from tests.many_cards import OWN, REFUSED, STOLEN

# What the house of the tests sets otherwise than production does.
AS_IN_PRODUCTION = ("RATE_PLEDGE", "RATE_NETWORK", "RATE_CARD_PAGE", "RATE_LETTER", "SAME_CARD",
                    "BREAKER_REFUSED", "BREAKER_UNFINISHED")  # fmt: skip
SLUG = "under-attack"
WORKS_ONE_IN = 50
CARDS_AT_MOST = 20
# Of Stripe, by the people, the scripts and our own comparisons together.
CALLS_AT_MOST = 400


class Attack:
    """`answers` is how the forms were answered, `typed` what became of the cards that were typed on Stripe's pages."""

    def __init__(self, house: House, asked: argparse.Namespace) -> None:
        self.house, self.asked = house, asked
        self.answers: Counter[str] = Counter()
        self.typed: Counter[str] = Counter()
        self.until = time.monotonic() + 60 * asked.minutes
        self.bots = [f"{45 + bot % 100}.{bot // 100 % 250}.{bot % 7}.{bot % 250}" for bot in range(asked.bots)]

    def attempt(self, number: int) -> None:
        if time.monotonic() > self.until:
            self.answers["not sent any more"] += 1
            return
        chance = random.Random(number)  # noqa: S311 - for a script that can be run again
        who = "mailbox" if number % (self.asked.attempts // max(1, self.asked.mailboxes)) == 7 else "bot"
        headers = {"X-Forwarded-For": chance.choice(self.bots)}
        with requests.Session() as browser:
            browser.headers.update(headers)
            where = self._pledge(browser, f"{who}{number}@bots.example", number)
            if where is None:
                return
            if not where.startswith(self.house.stripe) and chance.random() < 0.1:
                where = self._post(browser, f"{self.house.url}{where}/card-page") or where
            if who == "mailbox" and self.asked.mailboxes and not where.startswith(self.house.stripe):
                where = self._confirmed(browser, f"{who}{number}@bots.example") or where
            if where.startswith(self.house.stripe):
                self._type(browser, where, chance)

    def _pledge(self, browser: requests.Session, email: str, number: int) -> str | None:
        form = {
            "amount": "25", "name": f"B. Ot {number}", "email": email, "agreed": "y",
            "form_key": secrets.token_urlsafe(24),
        }  # fmt: skip
        answer = browser.post(f"{self.house.url}/cases/{SLUG}/pledges", form, allow_redirects=False, timeout=120)
        where = answer.headers.get("Location", "")
        to_stripe = where.startswith(self.house.stripe)
        said = "to Stripe's page" if to_stripe else "asked to confirm an address" if where else str(answer.status_code)
        self.answers[said] += 1
        return where or None

    def _post(self, browser: requests.Session, where: str) -> str:
        return browser.post(where, allow_redirects=False, timeout=120).headers.get("Location", "")

    def _type(self, browser: requests.Session, page: str, chance: random.Random) -> None:
        for _ in range(CARDS_AT_MOST):
            works = chance.randrange(WORKS_ONE_IN) == 0
            card = chance.choice(STOLEN if works else REFUSED)
            answer = browser.post(page, {"card": card}, allow_redirects=False, timeout=120)
            said = {303: "saved", 402: "refused"}.get(answer.status_code, "page closed")
            self.typed[said] += 1
            if said != "refused":
                return

    def _confirmed(self, browser: requests.Session, email: str) -> str:
        """Read the letter, and press its button; where that leads, or "" when no letter came in time."""
        until = time.monotonic() + 120
        while time.monotonic() < until:
            if link := letter_link(self.house, email):
                return self._post(browser, link)
            time.sleep(0.5)
        return ""


def letter_link(house: House, email: str) -> str:
    """The address in the last letter in which somebody is asked to confirm theirs; "" while none was sent."""
    with house.app.app_context():
        begin_reading()
        asked = sa.select(Letter.message_id).where(
            Letter.kind == "confirmation", Letter.sent_at.is_not(None),
            Letter.subject.in_(sa.select(sa.literal("pledge:") + sa.cast(Pledge.id, sa.String)).where(
                Pledge.email_lowered == email)),
        )  # fmt: skip
        number = db.session.scalar(asked.order_by(Letter.id.desc()).limit(1))
        db.session.remove()
    file = house.letters_folder / f"{number}.eml"
    if number is None or not file.exists():
        return ""
    message = message_from_bytes(file.read_bytes(), policy=policy.default)
    found = re.search(r"https?://\S+/pledges/confirmation/\S+", text_of(message))
    return found.group() if found else ""


def support(house: House, number: int, patience: float) -> tuple[bool, float]:
    """Pledge £25 as a person does. Whether the pledge counts in the end, and how long that took."""
    email, began, pressed = f"person{number}@home.example", time.monotonic(), ""
    with requests.Session() as browser:
        browser.headers["X-Forwarded-For"] = f"203.{number}.113.5"
        page = browser.get(f"{house.url}/cases/{SLUG}/pledge", timeout=120)
        key = re.search(r'name="form_key"[^>]*value="([^"]+)"', page.text)
        form = {"amount": "25", "name": f"Person {number}", "email": email, "agreed": "y"}
        form["form_key"] = key.group(1) if key else ""
        sent = browser.post(f"{house.url}/cases/{SLUG}/pledges", form, allow_redirects=False, timeout=120)
        while sent.status_code == 503 and time.monotonic() - began < patience:
            # The page says to wait and to send it again.
            time.sleep(2)
            sent = browser.post(f"{house.url}/cases/{SLUG}/pledges", form, allow_redirects=False, timeout=120)
        _save_card(house, browser, sent.headers.get("Location", ""), number)
        while time.monotonic() - began < patience:
            if _counts(house, email):
                return True, time.monotonic() - began
            if (link := letter_link(house, email)) and link != pressed:
                pressed = link
                answer = browser.post(link, allow_redirects=False, timeout=120)
                _save_card(house, browser, answer.headers.get("Location", ""), number)
            time.sleep(0.5)
    return False, time.monotonic() - began


def _save_card(house: House, browser: requests.Session, page: str, number: int) -> None:
    if page.startswith(house.stripe):
        back = browser.post(page, {"card": OWN[number]}, allow_redirects=False, timeout=120)
        browser.get(back.headers["Location"], timeout=120)


def _counts(house: House, email: str) -> bool:
    with house.app.app_context():
        begin_reading()
        found = db.session.scalar(sa.select(Pledge.status).where(Pledge.email_lowered == email))
        db.session.remove()
    return found == "confirmed"


def run(asked: argparse.Namespace) -> bool:
    with tempfile.TemporaryDirectory(prefix="standing-bench-") as folder:
        house = House(Path(folder))
        for name in AS_IN_PRODUCTION:
            house.environment.pop(name, None)
        house.environment["TRUSTED_PROXIES"] = "1"
        house.commands["sandbox"] = [sys.executable, "-m", "tests.many_cards"]
        with house.app.app_context():
            begin_writing()
            upgrade()
            try:
                house.start()
                eventually(worker_is_there)
                a_user("staff")
                a_case(slug=SLUG, target=600_000, pledged=[10_000])
                db.session.commit()
                return _measure(house, asked)
            finally:
                house.stop()
                db.session.remove()
                db.engine.dispose()


def _measure(house: House, asked: argparse.Namespace) -> bool:
    before = _total()
    requests.delete(f"{house.stripe}/sandbox/calls", timeout=30).raise_for_status()
    attack, began = Attack(house, asked), time.monotonic()
    with ThreadPoolExecutor(asked.threads) as bots, ThreadPoolExecutor(asked.supporters) as people:
        attempts = bots.map(attack.attempt, range(asked.attempts))
        supporters = []
        for number in range(asked.supporters):
            supporters.append(people.submit(support, house, number, asked.patience))
            time.sleep(asked.pause)
        list(attempts)
        took = time.monotonic() - began
        through = [one.result() for one in supporters]
    calls = Counter(call["operation"] for call in requests.get(f"{house.stripe}/sandbox/calls", timeout=60).json())
    after = _total()
    counted = sum(counts for counts, _ in through)
    _say(asked, attack, took, before, after, calls)
    slowest = max((seconds for counts, seconds in through if counts), default=0.0)
    print(f"supporters      {counted} of {asked.supporters} got through, the slowest within {slowest:.0f} s")
    few_calls = calls.total() <= CALLS_AT_MOST
    return counted == asked.supporters and after == before + 2_500 * counted and few_calls


def _say(asked: argparse.Namespace, attack: Attack, took: float, before: int, after: int, calls: Counter[str]) -> None:
    print(f"attempts        {asked.attempts} in {took:.0f} s, from {asked.bots} addresses; answered:")
    for said, times in attack.answers.most_common():
        print(f"                {times:6} {said}")
    print("cards typed     " + ", ".join(f"{times} {said}" for said, times in attack.typed.most_common()))
    begin_reading()
    of_bots = sa.select(Pledge.status, sa.func.count()).where(Pledge.email_lowered.like("%@bots.example"))
    print("bots' pledges   " + ", ".join(f"{n} {status}" for status, n in db.session.execute(
        of_bots.group_by(Pledge.status))))  # fmt: skip
    kinds = sa.select(Letter.kind, sa.func.count()).group_by(Letter.kind)
    print("letters         " + ", ".join(f"{n} {kind}" for kind, n in db.session.execute(kinds)))
    failures = db.session.scalar(sa.select(sa.func.count()).select_from(CardFailure))
    opened = [f"{one.scope} {one.status} ({one.why})" for one in Breaker.open_ones(now())]
    print(f"breakers        {'; '.join(opened) or 'none'}; {failures} refused cards were counted")
    db.session.rollback()
    print(f"calls to Stripe {calls.total()}: " + ", ".join(f"{n} {name}" for name, n in calls.most_common()))
    print(f"total           £{before / 100:.0f} before, £{after / 100:.0f} after")


def _total() -> int:
    begin_reading()
    pence = db.session.scalars(sa.select(Case).where(Case.slug == SLUG)).one().round.pledged_pence
    db.session.rollback()
    return pence


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.attack", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("attempts", type=int, nargs="?", default=20_000, help="pledge forms that are sent by scripts")
    parser.add_argument("--supporters", type=int, default=50, help="people who pledge meanwhile")
    parser.add_argument("--bots", type=int, default=500, help="addresses from which the scripts come")
    parser.add_argument("--mailboxes", type=int, default=4, help="how many of the scripts read their mail")
    parser.add_argument("--threads", type=int, default=16, help="scripts at the same time")
    parser.add_argument("--pause", type=float, default=2.0, help="seconds between two supporters")
    parser.add_argument("--patience", type=float, default=300, help="seconds after which a supporter gives up")
    parser.add_argument("--minutes", type=float, default=8, help="after so many the rest of the forms is not sent")
    asked = parser.parse_args()
    print(f"Load of this machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.")
    if not run(asked):
        sys.exit(
            "The total moved by more than the supporters' pledges, one of them did not get through, or Stripe was "
            "asked too often."
        )


if __name__ == "__main__":
    main()
