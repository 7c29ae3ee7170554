"""What moderators do: decide, undo, decide many at once, claim; and what the slower of two is told."""

import datetime as dt
from collections.abc import Mapping
from functools import partial

import pytest
import sqlalchemy as sa
from bs4 import BeautifulSoup
from flask import Flask
from flask.testing import FlaskClient

import letters
from jobs.post import send_letters
from law import Refused
from models import Case, Comment, Event, Letter, User, begin_writing, db
from tests.crowd import at_once
from tests.doorway import logged_in, token_on
from tests.made import a_case, a_user, keep, look_anew, now
from tests.reading import read, said

MINUTE, SECOND = dt.timedelta(minutes=1), dt.timedelta(seconds=1)


class Desk:
    """A moderator at the browser."""

    def __init__(self, app: Flask, name: str) -> None:
        self.person = a_user("moderator", name=name)
        self.browser: FlaskClient = logged_in(app, self.person)
        self.token = ""

    def press(self, path: str, **typed: object) -> str:
        """Send a form of the desk; returns what the page then says, whatever its status."""
        self.token = self.token or token_on(self.browser, "/moderation")
        answer = self.browser.post(f"/moderation/{path}", data={"form_token": self.token, **typed})
        if answer.status_code == 303:
            return said(read(self.browser, answer.location), "main")
        self.status = answer.status_code
        return " ".join(answer.text.split())

    def sent(
        self, path: str, status: int, typed: Mapping[str, object], headers: Mapping[str, str] = {}
    ) -> BeautifulSoup:
        """The page or the fragment that a form of the desk is answered with."""
        self.token = self.token or token_on(self.browser, "/moderation")
        data = {"form_token": self.token, **typed}
        answer = self.browser.post(f"/moderation/{path}", data=data, headers=headers)
        assert answer.status_code == status
        return BeautifulSoup(answer.text, "html5lib")

    def decide(self, number: int, decision: str, seen: int = 1, reason: str = "") -> str:
        return self.press(f"comments/{number}/decision", decision=decision, seen=seen, **{f"c{number}-reason": reason})

    @property
    def me(self) -> User:
        return db.session.merge(self.person)


@pytest.fixture
def first(app: Flask) -> Desk:
    return Desk(app, "Mo First")


@pytest.fixture
def second(app: Flask) -> Desk:
    return Desk(app, "Mo Second")


def says(case: Case, body: str = "I stand with you.", email: str = "ben@decide.example.org") -> int:
    begin_writing()
    number = db.session.merge(case).take_comment("Ben Field", email, body, now() - MINUTE).id
    keep()
    return number


def comment(number: int) -> Comment:
    look_anew()
    return db.session.get_one(Comment, number)


def state(number: int) -> tuple[str, str | None, bool]:
    """Its state, what the public sees of it, and whether it waits."""
    one = comment(number)
    return one.status, one.public_body, one.waits_since is not None


# --- Undo --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decision", ["approve", "reject", "spam"])
def test_a_decision_is_undone_with_all_that_it_changed(first: Desk, decision: str) -> None:
    number = says(a_case())
    before, waited = state(number), comment(number).waits_since
    assert "Just decided by you" in first.decide(number, decision, reason="contempt")
    assert state(number)[2] is False
    page = first.press(f"comments/{number}/undo")
    assert "Undone: the comment by Ben Field is pending again." in page and "Just decided by you" not in page
    assert state(number) == before == ("pending", None, True)
    assert (comment(number).waits_since, comment(number).reason, comment(number).decided_by) == (waited, "", None)
    written = db.session.scalars(sa.select(Event).where(Event.subject_kind == "comment").order_by(Event.id)).all()
    status = {"approve": "approved", "reject": "rejected", "spam": "spam"}[decision]
    assert [(e.what, e.before, e.after) for e in written] == [
        (status, "pending", status), ("undone", status, "pending"),
    ]  # fmt: skip


def test_undoing_a_rejection_of_a_change_makes_the_approved_text_public_again(first: Desk) -> None:
    number = says(a_case(), "Approved words")
    first.decide(number, "approve")
    comment(number).edit("Changed words", now())
    keep()
    first.decide(number, "spam", seen=3)
    assert state(number) == ("spam", None, False)
    first.press(f"comments/{number}/undo")
    assert state(number) == ("pending", "Approved words", True)


def test_a_decision_can_be_undone_for_ten_minutes_by_whoever_made_it(app: Flask, first: Desk, second: Desk) -> None:
    number = says(a_case())
    at = now()
    comment(number).approve(first.me, at)
    keep()
    assert comment(number).can_undo(first.me, at + 10 * MINUTE)
    assert not comment(number).can_undo(first.me, at + 10 * MINUTE + SECOND)
    assert "by whoever made it" in second.press(f"comments/{number}/undo")
    with pytest.raises(Refused, match="A decision can be undone for 10 minutes"):
        comment(number).undo(first.me, at + 10 * MINUTE + SECOND)
    assert state(number)[0] == "approved"


def test_the_letter_about_a_rejection_waits_until_it_cannot_be_undone_and_is_then_not_sent_if_it_was(
    first: Desk,
) -> None:
    case = a_case()
    undone, kept = says(case, "Undone"), says(case, "Kept")
    for number in (undone, kept):
        first.decide(number, "reject", reason="off_topic")
    first.press(f"comments/{undone}/undo")
    look_anew()
    owed = db.session.scalars(sa.select(Letter).where(Letter.kind == "comment_rejected").order_by(Letter.id)).all()
    assert [letter.next_at - letter.created_at for letter in owed if letter.next_at] == [10 * MINUTE] * 2
    assert [letters.is_true(letter) for letter in owed] == [False, True]
    send_letters()
    look_anew()
    assert [letter.sent_at for letter in db.session.scalars(sa.select(Letter))] == [None, None]


def test_a_note_whose_comment_was_changed_or_decided_meanwhile_is_given_back_to_be_copied(
    first: Desk, second: Desk
) -> None:
    case, note = a_case(), "Leave out the name of the doctor."
    changed, decided = says(case, "Changed"), says(case, "Decided")
    comment(changed).edit("Changed words", now())
    keep()
    second.decide(decided, "reject", reason="off_topic")
    for number in (changed, decided):
        where, typed = f"comments/{number}/decision", {"decision": "reject", "seen": 1, f"c{number}-reason": "personal"}
        for headers in ({}, {"HX-Request": "true"}):
            page = first.sent(where, 409, {**typed, f"c{number}-note": note}, headers)
            (given_back,) = page.select("textarea[readonly]")
            assert (given_back["id"], given_back.text.strip()) == (f"c{number}-typed-1", note)
        # Who has typed none is given none back.
        assert first.sent(where, 409, typed).select("textarea[readonly]") == []


# --- Many at once ------------------------------------------------------------------------------------------


def test_ticked_comments_are_decided_together_and_one_that_has_changed_is_left_and_said(first: Desk) -> None:
    case = a_case()
    numbers = [says(case, f"Words {word}") for word in "abc"]
    comment(numbers[1]).edit("Changed words", now())
    keep()
    ticked = [f"{number}.1" for number in numbers]
    page = first.press("decisions", decision="approve", ticked=ticked)
    assert "Approved: 2 comments." in page
    assert "The comment by Ben Field was left as it is. Its author has changed this comment in the meantime" in page
    assert [state(number)[0] for number in numbers] == ["approved", "pending", "approved"]
    assert "Spam: no comments." in first.press("decisions", decision="spam", ticked=["99999999.1"])
    page = first.press("decisions", decision="reject", ticked=[f"{numbers[1]}.2"], **{"all-reason": "harassment"})
    assert "Rejected: 1 comment." in page and comment(numbers[1]).reason == "harassment"


def test_at_most_a_hundred_are_decided_at_once_and_never_without_a_reason(first: Desk) -> None:
    case = a_case()
    begin_writing()
    held = db.session.merge(case)
    numbers = [held.take_comment("Ben", "ben@decide.example.org", f"Words {'a' * n}", now()).id for n in range(101)]
    keep()
    for typed, told in (
        ({"ticked": []}, "Tick at least one comment, and at most 100."),
        ({"ticked": [f"{n}.1" for n in numbers]}, "Tick at least one comment, and at most 100."),
        ({"ticked": ["x", "1", "1.x", ".", "-1.1"]}, "Tick at least one comment"),
        ({"ticked": [f"{numbers[0]}.1"], "decision": "reject"}, "Choose a reason"),
    ):
        assert told in first.press("decisions", **{"decision": "approve", **typed})
    assert {c.status for c in db.session.scalars(sa.select(Comment))} == {"pending"}
    assert "Approved: 100 comments." in first.press(
        "decisions", decision="approve", ticked=[f"{n}.1" for n in numbers[1:]]
    )
    assert [n for n in numbers if comment(n).status == "pending"] == numbers[:1]


def test_of_many_at_once_a_note_is_given_back_and_what_is_wrong_with_it_is_said(first: Desk) -> None:
    number, note = says(a_case()), "Leave out the name of the doctor."
    right = {"decision": "reject", "ticked": [f"{number}.1"], "all-reason": "personal", "all-note": note}
    for wrong, told, given_back in (
        ({"ticked": []}, "Tick at least one comment, and at most 100. Nothing was done.", note),
        ({"all-reason": ""}, "Choose a reason for the comments that you ticked. Nothing was done.", note),
        ({"all-note": "n" * 1_001}, "Use at most 1,000 characters.", "n" * 1_001),
    ):
        page = first.sent("decisions", 409, {**right, **wrong})
        assert said(page, "main [role=alert]") == told
        assert [field.text.strip() for field in page.select("textarea")] == [given_back]
    assert state(number)[0] == "pending"
    assert "Rejected: 1 comment." in first.press("decisions", **right)


def test_the_tick_of_a_comment_belongs_to_the_form_for_all_and_names_the_version(first: Desk) -> None:
    case = a_case()
    numbers = [says(case, word) for word in ("One", "Two")]
    comment(numbers[0]).edit("One more", now())
    keep()
    page = read(first.browser, "/moderation")
    assert page.select_one("form#ticked[method=post][action='/moderation/decisions']")
    ticks = page.select("input[type=checkbox][name=ticked][form=ticked]")
    assert [tick["value"] for tick in ticks] == [f"{numbers[0]}.2", f"{numbers[1]}.1"]


# --- Claims ------------------------------------------------------------------------------------------------


def test_a_claim_shows_the_others_who_reads_it_for_ten_minutes_and_keeps_nobody_from_deciding(
    first: Desk, second: Desk
) -> None:
    number = says(a_case())
    page = first.press(f"comments/{number}/claim")
    assert page.startswith("A comment by Ben Field") and "reads this just now" not in page
    assert "Mo First reads this just now." in said(read(second.browser, "/moderation"), f"#item-{number}")
    assert "Mo First reads this comment just now." in second.press(f"comments/{number}/claim")
    until = comment(number).claimed_until
    assert until and comment(number).reader_besides(second.me, until - SECOND) == first.me
    assert comment(number).reader_besides(second.me, until) is None
    assert "Approved:" in second.decide(number, "approve")
    assert comment(number).claimed_by is None


# --- Two at once -------------------------------------------------------------------------------------------


def test_the_slower_of_two_is_told_who_decided_and_shown_the_comment_as_it_is(first: Desk, second: Desk) -> None:
    number = says(a_case())
    first.decide(number, "reject", reason="protected")
    for decision in ("approve", "spam", "reject"):
        told = second.decide(number, decision, reason="harassment")
        assert second.status == 409
        assert "Already decided by Mo First: rejected. Nothing was done. Look again." in told
    assert (comment(number).reason, comment(number).version) == ("protected", 2)
    swapped = second.browser.post(
        f"/moderation/comments/{number}/decision", headers={"HX-Request": "true"},
        data={"form_token": second.token, "decision": "approve", "seen": "1"},
    )  # fmt: skip
    assert swapped.status_code == 409 and f'id="item-{number}"' in swapped.text and "<html" not in swapped.text
    first.press(f"comments/{number}/undo")
    assert "A decision of it was undone in the meantime" in second.decide(number, "approve", seen=2)


@pytest.mark.parametrize("seen", ["", "0", "2", "-1", "1.0", "¹", "9" * 40])
def test_whoever_has_not_seen_this_version_decides_nothing(first: Desk, seen: str) -> None:
    number = says(a_case())
    for decision in ("approve", "spam"):
        told = first.press(f"comments/{number}/decision", decision=decision, seen=seen)
        assert "so nothing was done. Look again." in told
        assert (first.status, state(number)) == (409, ("pending", None, True))


@pytest.mark.slow
def test_of_parallel_decisions_exactly_one_is_made_and_each_slower_one_is_told(
    app: Flask, first: Desk, second: Desk
) -> None:
    """Real requests at the same moment, twenty comments, two moderators who disagree about each."""
    case = a_case()
    numbers = [says(case, f"Words {'a' * n}") for n in range(20)]
    tokens = {desk: token_on(desk.browser, "/moderation") for desk in (first, second)}

    def ask(desk: Desk, number: int, decision: str) -> tuple[int, str]:
        data = {"form_token": tokens[desk], "decision": decision, "seen": "1", f"c{number}-reason": "off_topic"}
        answer = desk.browser.post(f"/moderation/comments/{number}/decision", data=data)
        return answer.status_code, answer.text

    for number in numbers:
        one, two = at_once(app, partial(ask, first, number, "approve"), partial(ask, second, number, "reject"))
        assert sorted((one[0], two[0])) == [303, 409]
        slower = one[1] if one[0] == 409 else two[1]
        faster = "Mo First: approved" if one[0] == 303 else "Mo Second: rejected"
        assert f"Already decided by {faster}. Nothing was done. Look again." in " ".join(slower.split())
        written = sa.select(sa.func.count(Event.id)).where(Event.subject_kind == "comment", Event.subject_id == number)
        assert db.session.scalar(written) == 1


@pytest.mark.slow
def test_two_who_decide_the_same_hundred_at_once_never_wait_for_each_other_for_good(
    app: Flask, first: Desk, second: Desk
) -> None:
    case = a_case()
    numbers = [says(case, f"Words {'a' * n}") for n in range(20)]
    people = first.me.id, second.me.id

    def decide(number: int, order: list[int], to: str) -> int:
        done = 0
        me = db.session.get_one(User, number)
        for held in Comment.hold_all(order):
            try:
                held.approve(me, now(), 1) if to == "approved" else held.reject("spam", me, now(), 1)
                done += 1
            except Refused:
                continue
        db.session.commit()
        return done

    done = at_once(
        app, lambda: decide(people[0], numbers, "approved"), lambda: decide(people[1], numbers[::-1], "spam"), within=30
    )
    assert sum(done) == 20 and sorted(done) == [0, 20]


@pytest.mark.slow
def test_of_two_who_claim_one_comment_at_the_same_moment_one_has_it_and_the_other_is_told(
    app: Flask, first: Desk, second: Desk
) -> None:
    case = a_case()
    tokens = {desk: token_on(desk.browser, "/moderation") for desk in (first, second)}

    def claim(desk: Desk, number: int) -> tuple[int, str]:
        answer = desk.browser.post(f"/moderation/comments/{number}/claim", data={"form_token": tokens[desk]})
        return answer.status_code, answer.text

    for number in [says(case, f"Words {'a' * n}") for n in range(8)]:
        one, two = at_once(app, partial(claim, first, number), partial(claim, second, number))
        assert sorted((one[0], two[0])) == [303, 409]
        has_it, told = ("Mo First", two[1]) if one[0] == 303 else ("Mo Second", one[1])
        assert f"{has_it} reads this comment just now." in told
        claimed_by = comment(number).claimed_by
        assert claimed_by and claimed_by.name == has_it


@pytest.mark.slow
def test_an_undo_and_another_decision_at_the_same_moment_are_one_of_the_two(
    app: Flask, first: Desk, second: Desk
) -> None:
    case = a_case()
    numbers = [says(case, f"Words {'a' * n}") for n in range(8)]
    for number in numbers:
        first.decide(number, "approve")
    second.token = token_on(second.browser, "/moderation")

    def undo(number: int) -> tuple[int, str]:
        answer = first.browser.post(f"/moderation/comments/{number}/undo", data={"form_token": first.token})
        return answer.status_code, " ".join(answer.text.split())

    def turn_round(number: int) -> tuple[int, str]:
        data = {"form_token": second.token, "decision": "spam", "seen": "2"}
        answer = second.browser.post(f"/moderation/comments/{number}/decision", data=data)
        return answer.status_code, " ".join(answer.text.split())

    for number in numbers:
        undone, turned = at_once(app, partial(undo, number), partial(turn_round, number))
        assert sorted((undone[0], turned[0])) == [303, 409]
        if undone[0] == 303:
            assert "A decision of it was undone in the meantime" in turned[1]
        else:
            assert "A decision can be undone for 10 minutes, by whoever made it" in undone[1]
        assert state(number) == (("pending", None, True) if undone[0] == 303 else ("spam", None, False))


@pytest.mark.slow
def test_ticked_comments_and_decisions_of_somebody_else_at_the_same_moment_decide_each_once(
    app: Flask, first: Desk, second: Desk
) -> None:
    """One ticks twelve; the other decides six of them one by one, and ticks the other six."""
    case = a_case()
    numbers = [says(case, f"Words {'a' * n}") for n in range(12)]
    ticked = [f"{number}.1" for number in numbers]
    for desk in (first, second):
        desk.token = token_on(desk.browser, "/moderation")

    def tick(desk: Desk, decision: str, some: list[str]) -> list[int]:
        data = {"form_token": desk.token, "decision": decision, "ticked": some}
        return [desk.browser.post("/moderation/decisions", data=data).status_code]

    def decide_and_tick() -> list[int]:
        data = {"form_token": second.token, "decision": "spam", "seen": "1"}
        told = [
            second.browser.post(f"/moderation/comments/{number}/decision", data=data).status_code
            for number in numbers[:6]
        ]
        return told + tick(second, "spam", ticked[:5:-1])

    answers = at_once(app, partial(tick, first, "approve", ticked), decide_and_tick)
    assert {status for told in answers for status in told} <= {303, 409}
    look_anew()
    written = sa.select(Event.subject_id, Event.after).where(Event.subject_kind == "comment").order_by(Event.subject_id)
    decided = [tuple(row) for row in db.session.execute(written)]
    assert [number for number, _ in decided] == numbers
    assert decided == [(number, state(number)[0]) for number in numbers]
    # Whoever was slower is told of each comment that was decided already.
    for desk, decision in ((first, "spam"), (second, "approved")):
        left = sum(1 for _, status in decided[0 if desk is first else 6 :] if status == decision)
        page = said(read(desk.browser, "/moderation"), "main")
        assert page.count("was left as it is. Already decided by") == left
