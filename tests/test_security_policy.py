"""What a page may load and run, and what we hear when one tries more. Rows 30 and 31 of docs/security.md."""

import json
import re
import subprocess
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from models import Round, db
from tests.doorway import everything, logged_in, set_otherwise
from tests.made import a_case, a_pledge, a_user, keep
from views import doors

ONE_KIND, ANOTHER = "application/csp-report", "application/reports+json"
# The severities of Google's evaluator; what is above medium has a smaller number.
MEDIUM = 30


def old(**said: str) -> dict[str, Any]:
    """A report as Firefox and Safari send it."""
    return {"csp-report": {"document-uri": "http://127.0.0.1:8000/", "blocked-uri": "inline", **said}}


def new(**said: str) -> list[dict[str, Any]]:
    """A report as Chromium sends it."""
    body = {"documentURL": "http://127.0.0.1:8000/", "blockedURL": "inline", "effectiveDirective": "script-src-elem"}
    return [{"type": "csp-violation", "age": 1, "url": "http://127.0.0.1:8000/", "body": {**body, **said}}]


def report(client: FlaskClient, said: Any, kind: str = ONE_KIND, **more: Any) -> TestResponse:
    raw = said if isinstance(said, bytes) else json.dumps(said).encode()
    return client.post("/policy-reports", data=raw, content_type=kind, **more)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What the log says of broken policies, without the time."""
    said = capsys.readouterr()
    found = re.findall(r"a page broke its policy +(.*)", said.out + said.err)
    return [" ".join(sorted(line.split())) for line in found]


def test_row_30_googles_evaluator_finds_nothing_above_medium(app: Flask, csp_evaluator: list[str]) -> None:
    slug = a_case().slug
    with set_otherwise(app, checkout_origin="https://checkout.stripe.com", site_url="https://standing.example") as site:
        client = site.test_client()
        policies = [
            client.get(where, base_url="https://standing.example").headers["Content-Security-Policy"]
            for where in ("/", f"/cases/{slug}/embed")
        ]
    weak = "script-src 'unsafe-inline' https://cdn.jsdelivr.net"
    checked = subprocess.run([*csp_evaluator, *policies, weak], capture_output=True, text=True, check=True, timeout=60)
    page, framed, known_to_be_weak = json.loads(checked.stdout)
    assert [one for one in page + framed if one["severity"] <= MEDIUM] == []
    assert len([one for one in known_to_be_weak if one["severity"] < MEDIUM]) >= 2


def test_row_30_a_report_of_either_kind_is_one_line_of_words_that_are_ours(
    app: Flask, client: FlaskClient, capsys: pytest.CaptureFixture[str]
) -> None:
    pledge = a_pledge(a_case(slug="the-case").round)
    link = pledge.link()
    keep()
    before = everything()
    capsys.readouterr()
    here = "http://127.0.0.1:8000"
    told: list[tuple[Any, str]] = [
        (old(**{"document-uri": f"{here}/cases/the-case?x=canary", "violated-directive": "img-src 'self'",
                "blocked-uri": "https://evil.example/canary?canary"}), ONE_KIND),
        (old(**{"document-uri": f"{here}/pledges/{link}", "effective-directive": "script-src-attr"}), ONE_KIND),
        (new(documentURL=f"{here}/fr/pledges/{link}/cancellation", blockedURL="eval"), ANOTHER),
        (new(documentURL="https://canary.example/canary", blockedURL="chrome-extension://canary",
             effectiveDirective=""), ANOTHER),
        (new(effectiveDirective="canary\r\nevent=forged", blockedURL="https://a.example\nevent=forged"), ANOTHER),
    ]  # fmt: skip
    for said, kind in told:
        assert report(client, said, kind).status_code == 204
    written = lines(capsys)
    assert written == [
        "blocked=https://evil.example directive=img-src page=/cases/<slug>",
        "blocked=inline directive=script-src-attr page=/pledges/<link>",
        "blocked=eval directive=script-src-elem page=/pledges/<link>/cancellation",
        "blocked=another directive=none page=elsewhere",
        "blocked=https://a.example directive=canary page=/",
    ]
    assert everything() == before


def test_row_30_what_is_no_report_is_refused_and_of_many_few_are_written(
    client: FlaskClient, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("application/json", "application/x-www-form-urlencoded", "text/plain", ""):
        assert report(client, old(), kind).status_code == 415
    for body in (
        b"",
        b"{}",
        b"[1]",
        b"null",
        b"7",
        b'{"csp-report": []}',
        b"\xff",
        b"[" * 10_000,
        b'[{"type": "x"}, {}]',
    ):
        assert report(client, body, ANOTHER).status_code == 400, body
    assert report(client, b" " * 17_000).status_code == 413
    assert lines(capsys) == []
    assert report(client, new() * 50 + [{"type": "deprecation", "body": {}}], ANOTHER).status_code == 204
    assert len(lines(capsys)) == 5


def test_row_30_reports_are_counted_for_each_address_and_need_no_lock(
    app: Flask, capsys: pytest.CaptureFixture[str]
) -> None:
    with set_otherwise(app, rate_comment="3 per hour") as site:
        browser, round_id = logged_in(site, a_user()), a_case().round.id
        db.session.remove()
        # Somebody else writes meanwhile, so on SQLite nobody else can.
        with db.engine.connect() as writer:
            writer.execute(sa.select(Round.id).where(Round.id == round_id).with_for_update())
            answers = [report(browser, old()).status_code for _ in range(5)]
            other = report(site.test_client(), old(), environ_overrides={"REMOTE_ADDR": "10.0.0.7"}).status_code
            writer.rollback()
    assert (answers, other) == ([204, 204, 204, 429, 429], 204)
    assert len(lines(capsys)) == 4


def test_row_30_over_https_each_page_says_where_to_report_in_the_new_way_too(app: Flask, client: FlaskClient) -> None:
    """Chromium believes this over https alone, and passes over the old way where it finds the new one."""
    a_case(slug="the-case")
    https: Any = {"base_url": "https://standing.example"}
    with set_otherwise(app, site_url="https://standing.example") as site:
        browser, where = site.test_client(), f'{doors.REPORTS_TO}="{doors.REPORTS}"'
        pages, others = ("/", "/none", "/cases/the-case"), ("/cases.atom", "/healthz", "/static/site.css")
        for path, says in (*((one, where) for one in pages), *((one, None) for one in others)):
            answer = browser.get(path, **https)
            answer.close()
            assert answer.headers.get("Reporting-Endpoints") == says, path
        assert "Reporting-Endpoints" not in browser.get("/cases/the-case/embed", **https).headers
        element = browser.get("/cases/the-case/comments", headers={"HX-Request": "true"}, **https)
        assert "Reporting-Endpoints" not in element.headers
        policy = browser.get("/", **https).headers["Content-Security-Policy"]
        assert policy.endswith("; report-uri /policy-reports; report-to policy")
        assert site.url_map.bind("").build("public.policy_report") == doors.REPORTS
    assert "Reporting-Endpoints" not in client.get("/").headers
    assert client.get("/").headers["Content-Security-Policy"].endswith("; report-uri /policy-reports")
