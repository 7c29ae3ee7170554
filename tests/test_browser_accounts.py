"""Accounts in Chromium: staff invite somebody, who joins; an owner signs up; somebody gets back in by mail. And no
link of these ever stands in a log."""

import re
from typing import TYPE_CHECKING

import pyotp
import pytest
from playwright.sync_api import expect

from tests.house import House, eventually
from tests.journey import told
from tests.made import PASSWORD, a_user, now

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]
CHOSEN = "four words nothing ties"


def log_in(house: House, page: "Page", email: str, password: str = PASSWORD) -> None:
    page.goto(f"{house.url}/login")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


def link_to(house: House, email: str, room: str) -> str:
    """The link of the newest letter to an address, once it has come."""
    whole = re.compile(rf"{re.escape(house.url)}/{room}/\S+")
    found = eventually(lambda: [one for letter in house.letters(to=email) for one in whole.findall(letter)])
    return str(found[-1])


def stands_in_a_log(house: House, link: str) -> list[str]:
    """The programs whose log has the secret part of a link, or the part that names its row."""
    named, _, secret = link.rpartition("/")[2].partition(".")
    assert len(named) > 20 and len(secret) > 40
    return [name for name in house.commands if named in house.log(name) or secret in house.log(name)]


def test_staff_invite_somebody_who_joins_and_whom_they_disable(
    house: House, page: "Page", way: str, open_browser: "Callable[..., Page]"
) -> None:
    email = f"invited-{way.replace(' ', '-').lower()}@example.org"
    log_in(house, page, a_user("staff").email)
    page.get_by_role("link", name="Users", exact=True).click()
    page.get_by_label("E-mail address", exact=True).fill(email)
    page.get_by_role("button", name="Send the invitation").click()
    expect(page).to_have_title(re.compile("^Error: Users"))
    expect(page.get_by_role("alert")).to_be_focused()
    expect(page.get_by_label("E-mail address", exact=True)).to_have_value(email)
    page.get_by_label("Moderator").check()
    page.get_by_role("button", name="Send the invitation").click()
    expect(page.get_by_role("status")).to_have_text(f"A letter goes to {email}.")

    link, theirs = link_to(house, email, "invitations"), open_browser(way)
    theirs.goto(link)
    theirs.get_by_label("Your name").fill("Mo Derator")
    theirs.get_by_label("Password").fill("password1234")
    theirs.get_by_role("button", name="Join").click()
    expect(theirs.get_by_role("alert")).to_contain_text("This password is among the first that somebody would try.")
    expect(theirs.get_by_label("Your name")).to_have_value("Mo Derator")
    expect(theirs.get_by_label("Password")).to_have_value("")
    theirs.get_by_label("Password").fill(CHOSEN)
    theirs.get_by_role("button", name="Join").click()
    expect(theirs).to_have_url(f"{house.url}/moderation")

    page.reload()
    expect(page.get_by_role("region", name="Invitations").get_by_role("row", name=email)).to_contain_text("accepted")
    page.get_by_label("Name or e-mail address of a user").fill(email)
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name="Mo Derator").click()
    page.get_by_role("region", name="Disable").get_by_label("Reason").fill("A test.")
    page.get_by_role("button", name="Disable this user").click()
    expect(page.get_by_role("status")).to_have_text("Mo Derator cannot log in any more.")
    expect(page.get_by_role("region", name="History")).to_contain_text("A test.")
    theirs.reload()
    expect(theirs).to_have_url(re.compile("/login"))
    log_in(house, theirs, email, CHOSEN)
    expect(theirs.get_by_role("alert")).to_contain_text("The e-mail address or the password is not right.")
    assert stands_in_a_log(house, link) == []


def test_an_owner_signs_up_and_begins(house: House, page: "Page", way: str) -> None:
    email = f"signs-up-{way.replace(' ', '-').lower()}@example.org"
    page.goto(f"{house.url}/login")
    page.get_by_role("link", name="Sign up").click()
    page.get_by_label("Your e-mail address").fill(email)
    page.get_by_label("Password").fill(CHOSEN)
    page.get_by_role("button", name="Sign up").click()
    expect(page.get_by_role("alert")).to_contain_text("Enter your name.")
    expect(page.get_by_label("Your e-mail address")).to_have_value(email)
    page.get_by_label("Your name").fill("River Watch")
    page.get_by_label("Password").fill(CHOSEN)
    page.get_by_role("button", name="Sign up").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Check your e-mail")

    link = link_to(house, email, "sign-up")
    page.goto(link)
    page.get_by_label("Password").fill(CHOSEN)
    page.get_by_role("button", name="Open my account").click()
    expect(page).to_have_url(f"{house.url}/owner")
    expect(page.get_by_role("link", name="Begin a case")).to_be_visible()
    assert stands_in_a_log(house, link) == []


def test_somebody_gets_back_in_by_mail(house: House, page: "Page", way: str) -> None:
    email = a_user("owner", email=f"forgets-{way.replace(' ', '-').lower()}@example.org").email
    page.goto(f"{house.url}/login")
    page.get_by_role("link", name="Forgotten your password?").click()
    page.get_by_label("Your e-mail address").fill(email)
    page.get_by_role("button", name="Send me a link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Check your e-mail")

    link = link_to(house, email, "password-resets")
    page.goto(link)
    page.get_by_label("New password").fill("too short")
    page.get_by_role("button", name="Set this password").click()
    expect(page.get_by_role("alert")).to_contain_text("Use a password of at least 12 characters.")
    page.get_by_label("New password").fill(CHOSEN)
    page.get_by_role("button", name="Set this password").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Your password is changed")
    page.goto(link)
    expect(page.get_by_role("heading", level=1)).to_have_text("This link works no more")
    log_in(house, page, email, CHOSEN)
    expect(page).to_have_url(f"{house.url}/owner")
    told(house, email, "Set another password", "Your password was changed")
    assert stands_in_a_log(house, link) == []


def test_an_owner_sets_up_a_second_factor_and_logs_in_with_it_by_keyboard(house: House, page: "Page", way: str) -> None:
    email = a_user("owner", email=f"two-steps-{way.replace(' ', '-').lower()}@example.org").email
    log_in(house, page, email)
    page.get_by_role("link", name="Account").click()
    page.get_by_role("link", name="Set up a second factor").click()
    expect(page.get_by_role("img", name="The secret below, for the camera of your phone")).to_be_visible()
    secret = page.locator(".secret").inner_text().replace(" ", "")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_label("Six digits that your app shows now").fill("000000")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("These are not the digits for this secret.")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_label("Six digits that your app shows now").fill(pyotp.TOTP(secret).now())
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Your recovery codes")
    codes = page.locator(".codes li").all_inner_texts()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save them as a file").click()
    assert saved.value.path().read_text(encoding="utf-8").splitlines()[3:] == codes and len(codes) == 10
    page.get_by_role("link", name="I have kept them").click()
    expect(page.get_by_role("main")).to_contain_text("Recovery codes that you have left: 10.")
    page.get_by_role("button", name="Log out", exact=True).click()

    log_in(house, page, email)
    expect(page.get_by_role("heading", level=1)).to_have_text("One more step")
    page.goto(f"{house.url}/owner")
    expect(page).to_have_url(re.compile("/login"))
    page.go_back()
    digits, recovery = page.get_by_label("Six digits from your app"), page.get_by_label("Or a recovery code")
    digits.focus()
    page.keyboard.type("000000")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_be_focused()
    # The digits of the step that comes next, copied from elsewhere and pasted.
    recovery.fill(pyotp.TOTP(secret).at(now(), counter_offset=1))
    recovery.press("Control+A")
    recovery.press("Control+X")
    page.keyboard.press("Shift+Tab")
    expect(digits).to_be_focused()
    page.keyboard.press("Control+V")
    expect(digits).to_have_value(re.compile("^[0-9]{6}$"))
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{house.url}/owner")
    told(house, email, "Your second factor is set up")
    private = [secret, *codes, *(code.replace("-", "") for code in codes)]
    assert [name for name in house.commands if any(word in house.log(name) for word in private)] == []
