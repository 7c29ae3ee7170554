"""What the operator says of the site itself, and the one file that may come from elsewhere or from us."""

import base64
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

import law
from tests.doorway import set_otherwise
from tests.reading import read, said

HTMX = b"/* a small program */"


def integrity(content: bytes) -> str:
    return "sha384-" + base64.b64encode(hashlib.sha384(content).digest()).decode()


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """Another host that has htmx."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/htmx.min.js" else 404)
        self.end_headers()
        self.wfile.write(HTMX)

    def log_message(self, *_: object) -> None:
        """It says nothing."""


@pytest.fixture
def elsewhere() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_each_page_leads_to_how_the_site_works_its_accessibility_and_its_privacy(client: FlaskClient) -> None:
    foot = read(client, "/").select("footer a")
    assert [(said(link), link["href"]) for link in foot[1:4]] == [
        ("How it works", "/how-it-works"), ("Accessibility", "/accessibility"), ("Privacy", "/privacy"),
    ]  # fmt: skip
    how = said(read(client, "/how-it-works"), ".story")
    assert "What is charged arrives in the account of Standing Test at Stripe." in how
    assert "and cancel it until its last card is charged; what was charged they can pay back." in how
    assert f"it may be tried again for up to {law.REPAIR_WINDOW.days} days" in how
    assert "write to help@example.org and say which page it was" in said(read(client, "/accessibility"), ".story")
    privacy = said(read(client, "/privacy"), "main")
    assert "This site is run by Standing Test, who is responsible" in privacy
    assert "The case owner, and those who work on the case with them: the amount of each pledge, its message" in privacy
    assert "comes from cdn.jsdelivr.net, which so learns the address of your connection" in privacy


def test_the_operator_can_say_it_in_other_words(app: Flask, tmp_path: Path) -> None:
    (tmp_path / "privacy.md").write_text("We, {operator}, keep *nothing*. <b>{htmx}</b>", encoding="utf-8")
    other = {"pages_folder": str(tmp_path), "htmx_src": f"/static/htmx.js#{integrity(HTMX)}"}
    with set_otherwise(app, **other) as site:
        page = read(site.test_client(), "/privacy")
        assert said(page, ".story") == (
            "We, Standing Test, keep nothing. <b>Everything that a page needs comes from this site itself.</b>"
        )
        assert page.select_one(".story em")
        # What is not in the folder is as we say it.
        assert "What works" in said(read(site.test_client(), "/accessibility"), ".story")
        # In another language the operator's English stands before our own words in that language, for it is what holds.
        french = read(site.test_client(), "/fr/privacy").select_one(".story[lang='en-GB']")
        assert french and french.text.strip().startswith("We, Standing Test, keep nothing.")
        assert "Ce qui fonctionne" in said(read(site.test_client(), "/fr/accessibility"), ".story:not([lang])")
        (tmp_path / "privacy.fr.md").write_text("{operator} ne garde *rien*.", encoding="utf-8")
        assert said(read(site.test_client(), "/fr/privacy"), ".story:not([lang])") == "Standing Test ne garde rien."


def test_htmx_is_kept_among_our_own_files_once_its_hash_was_checked(app: Flask, tmp_path: Path, elsewhere: str) -> None:
    source = f"{elsewhere}/htmx.min.js#{integrity(HTMX)}"
    with set_otherwise(app, htmx_src=source) as site, site.app_context():
        site.static_folder = str(tmp_path)
        told = site.test_cli_runner().invoke(args=["keep-htmx"]).output
    (kept,) = tmp_path.iterdir()
    assert kept.read_bytes() == HTMX
    assert told == f"It is kept. Now set\nHTMX_SRC=/static/{kept.name}#{integrity(HTMX)}\n"


@pytest.mark.parametrize(
    ("source", "refusal"),
    [
        ("{elsewhere}/htmx.min.js#" + integrity(b"another"), "is not what the hash in HTMX_SRC stands for"),
        ("{elsewhere}/gone.js#" + integrity(HTMX), "cannot be fetched: HTTPError"),
        ("http://127.0.0.1:1/htmx.min.js#" + integrity(HTMX), "cannot be fetched: ConnectionError"),
        ("/static/htmx.js#" + integrity(HTMX), "names a file of this site already"),
    ],
)
def test_nothing_is_kept_that_is_not_htmx(
    app: Flask, tmp_path: Path, elsewhere: str, source: str, refusal: str
) -> None:
    with set_otherwise(app, htmx_src=source.format(elsewhere=elsewhere)) as site, site.app_context():
        site.static_folder = str(tmp_path)
        told = site.test_cli_runner().invoke(args=["keep-htmx"])
    assert (told.exit_code, refusal in told.output) == (1, True), told.output
    assert list(tmp_path.iterdir()) == []
