"""Every page in every state, as a browser without script gets it, is put before the Nu checker, the W3C's validator."""

import contextvars
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup, Tag
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from models import db
from tests import gallery
from tests.gallery import Shown
from tests.made import PASSWORD
from tests.reading import said

# Titles tell pages apart, but for those of one thing: each of these rows has one title.
ONE_THING = (
    {"public.case", "public.embed"},
    {"supporters.links_sent", "accounts.reset_sent", "accounts.sign_up_sent"},
    {"owners.new_update", "owners.update"},
    {"owners.preview_draft", "staff.preview_case", "drafts.draft"},
)
STYLE = re.compile(r"<style>.*?</style>", re.DOTALL)


class Client(FlaskClient):
    """Each request begins in a context of its own, as on a server. Nothing is checked before the checker does."""

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        db.session.rollback()
        return contextvars.Context().run(super().open, *args, **kwargs)


@pytest.mark.only_on("sqlite", why="The pages are the same on both, and this takes a while.")
def test_every_page_in_every_state_is_valid_html_with_a_title_of_its_own(
    app: Flask, nu_checker: list[str], tmp_path: Path
) -> None:
    app.config["STANDING"] = app.config["STANDING"].model_copy(update={"sign_up": "open"})
    hung = gallery.hang()
    doors = {"": Client(app)}
    names: dict[str, str] = {}
    titled: dict[str, set[str]] = {}
    for shown in [shown for room in hung.rooms.values() for shown in room]:
        if shown.who not in doors:
            doors[shown.who] = Client(app)
            log_in = {"E-mail address": hung.people[shown.who], "Password": PASSWORD}
            _press(doors[shown.who], "/login", "Log in", log_in)
        page = _looked_at(doors[shown.who], shown)
        in_french = replace(shown, name=f"{shown.name}, in French", address=f"/fr{shown.address}")
        french = [] if shown.press else [(in_french.name, _looked_at(doors[shown.who], in_french))]
        for name, text in [(shown.name, page), *french]:
            # All have the same stylesheet; to check it with each takes minutes.
            file = tmp_path / f"{len(names):03}.html"
            file.write_text(STYLE.sub("", text) if names else text)
            names[f"file:{file}"] = name
        if not shown.press and shown.status == 200:
            endpoint, _ = app.url_map.bind("").match(shown.address.partition("?")[0])
            titled.setdefault(said(BeautifulSoup(page, "html5lib"), "title"), set()).add(endpoint)
    assert len(names) > 350
    assert [
        title for title, pages in titled.items() if len(pages) > 1 and not any(pages <= one for one in ONE_THING)
    ] == []
    checked = subprocess.run([*nu_checker, str(tmp_path)], capture_output=True, text=True, check=False, timeout=300)
    complaints: list[dict[str, Any]] = json.loads(checked.stderr)["messages"]
    found = [f"{names[it['url']]}: {it['message']} {it.get('extract', '')}" for it in complaints]
    assert not found, "\n".join(found)


def _looked_at(client: FlaskClient, shown: Shown) -> str:
    """A page, after what brings it into its state was typed and pressed."""
    if shown.press:
        answer = _press(client, shown.address, shown.press, shown.typed)
        assert answer.status_code in (200, 303, 409, 422), shown.name
    else:
        answer = client.get(shown.address)
        assert answer.status_code == shown.status, shown.name
    while answer.status_code == 303:
        answer = client.get(answer.location)
    assert answer.mimetype == "text/html", shown.name
    return answer.text


def _press(client: FlaskClient, address: str, button: str, typed: dict[str, str]) -> TestResponse:
    """Fill in the first form that has this button, by the labels of its fields, and press it."""
    page = BeautifulSoup(client.get(address).data, "html5lib")
    pressed = next(one for one in page.select("form button") if button in said(one))
    form = pressed.find_parent("form")
    assert form
    sent = {str(pressed["name"]): str(pressed["value"])} if pressed.get("name") else {}
    for control in form.select("[name]:is(input, select, textarea)"):
        label = page.select_one(f'label[for="{control.get("id")}"]')
        if label and said(label) in typed:
            sent[str(control["name"])] = typed[said(label)]
        elif control.get("type") not in ("radio", "checkbox", "file") or control.has_attr("checked"):
            sent[str(control["name"])] = _stands_in(control)
    address = str(pressed.get("formaction") or form["action"])
    return client.get(address, query_string=sent) if form["method"] == "get" else client.post(address, data=sent)


def _stands_in(control: Tag) -> str:
    """What a field holds before anything is typed."""
    if control.name == "textarea":
        return control.text
    chosen = control.select_one("option[selected]") or control.select_one("option") or control
    return str(chosen.get("value", ""))
