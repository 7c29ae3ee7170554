"""A person with a browser that knows no JavaScript: opens pages, fills in forms, presses buttons.

It sends neither Sec-Fetch-Site nor Origin, as text browsers do.
"""

from typing import Any

import mechanicalsoup
from bs4 import BeautifulSoup


class Reader:
    """One person's browser, with its own cookies."""

    def __init__(self, site: str) -> None:
        self.site = site
        self.browser = mechanicalsoup.StatefulBrowser(soup_config={"features": "html5lib"}, user_agent="text browser")
        self.status = 0

    def open(self, address: str) -> "Reader":
        """Open an address of the site, or any whole address."""
        self.status = self.browser.open(address if "://" in address else self.site + address, timeout=30).status_code
        return self

    def press(self, button: str, within: str = "", **typed: Any) -> "Reader":
        """Fill the form that has this button and press it. Fields by name; True ticks a box."""
        form = next(
            form for form in self.page.select("form")
            if any(button == _words(b) for b in form.select("button")) and within in str(form.get("action", ""))
        )  # fmt: skip
        chosen = self.browser.select_form(form)
        for name, value in typed.items():
            if value is True:
                chosen.set_checkbox({name: "y"})
            else:
                chosen.set(name, value)
        chosen.choose_submit(next(b for b in form.select("button") if _words(b) == button))
        self.status = self.browser.submit_selected(timeout=30).status_code
        return self

    @property
    def page(self) -> BeautifulSoup:
        page: BeautifulSoup | None = self.browser.page
        assert page is not None, "no page is open"
        return page

    @property
    def words(self) -> str:
        """All words of the page's main part, with single spaces."""
        return _words(self.page.select_one("main") or self.page)

    @property
    def address(self) -> str:
        return str(self.browser.url)

    def log_in(self, email: str, password: str) -> "Reader":
        return self.open("/login").press("Log in", email=email, password=password)

    def pledge(self, slug: str, pounds: str, name: str = "Ada Winter", email: str = "ada@example.org",
               **typed: Any) -> "Reader":  # fmt: skip
        """Fill in the pledge form and go on to Stripe's page."""
        self.open(f"/cases/{slug}/pledge")
        return self.press(
            "Continue to Stripe", amount="other", other_amount=pounds, name=name, email=email, agreed=True, **typed
        )

    def save_card(self, number: str = "4242 4242 4242 4242") -> "Reader":
        """On Stripe's page: type the number of a card and save it."""
        return self.press("Save this card", card=number)


def _words(element: Any) -> str:
    return " ".join(element.get_text(" ").split())
