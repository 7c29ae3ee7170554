"""Reading a page of the test client as somebody would: its words, its headings, its fields."""

import re
from typing import Any

from bs4 import BeautifulSoup, Tag
from flask.testing import FlaskClient


def read(client: FlaskClient, address: str, status: int = 200, **asked: Any) -> BeautifulSoup:
    """Open a page (or, with method="POST", send to it) that must answer with this status."""
    answer = client.open(address, **asked)
    assert answer.status_code == status, f"{address} answered {answer.status_code}"
    return BeautifulSoup(answer.get_data(as_text=True), "html5lib")


def said(where: Any, selector: str = "") -> str:
    """The words of an element, or of the first one that a selector finds, with single spaces; "" for none."""
    found = where.select_one(selector) if selector else where
    words = " ".join(found.get_text(" ").split()) if isinstance(found, Tag) else ""
    return re.sub(r" (?=[.,:;])", "", words)


def headings(page: BeautifulSoup) -> list[tuple[int, str]]:
    """(level, words) of each heading, in the order of the page."""
    return [(int(found.name[1]), said(found)) for found in page.select("h1, h2, h3, h4, h5, h6")]


def token(client: FlaskClient, address: str) -> str:
    """The token that a page gives to the forms of somebody who is logged in."""
    found = read(client, address).select_one("[name=form_token]")
    assert found, f"{address} has no form token"
    return str(found["value"])
