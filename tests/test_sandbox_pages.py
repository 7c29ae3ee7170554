"""The sandbox's own pages: the start page, its levers, the letters, and who can reach them."""

import subprocess
import sys
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
import stripe

from tests.at_stripe import (
    BANK_ASKS_LATER,
    an_account,
    charge_params,
    faults,
    page_params,
    refusal,
    saved_card,
    sdk,
    transfer_params,
)
from tests.house import eventually
from tests.hygiene import check_page
from tests.reader import Reader
from tests.sandbox_process import ROOT, SITE_URL, SandboxProcess, start_sandbox

LINK = f"{SITE_URL}/pledges/AbC-12_3.Zz-9_x"


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[SandboxProcess]:
    """A sandbox of this test alone, whose events find nobody, with the folder of its letters."""
    (tmp_path / "letters").mkdir()
    running = start_sandbox(tmp_path, "http://127.0.0.1:9/nobody-listens")
    yield running
    running.stop()


def test_the_start_page_lists_sessions_payments_events_and_what_became_of_each(alone: SandboxProcess) -> None:
    client = sdk(alone)
    opened = client.v1.checkout.sessions.create(page_params(customer_email="<b>ada</b>@example.org"))
    customer, method = saved_card(alone)
    paid = client.v1.payment_intents.create(charge_params(customer, method))
    customer, method = saved_card(alone, BANK_ASKS_LATER)
    error = refusal(lambda: client.v1.payment_intents.create(charge_params(customer, method)))
    made = client.v1.transfers.create(transfer_params(an_account(alone), paid.latest_charge.id, amount=2_000))
    client.v1.transfers.reversals.create(made.id, {"amount": 700})
    page = Reader(alone.url).open("/")
    assert f"Transfer {made.id} of £20.00 to {made.destination} , £7.00 taken back" in page.words
    assert f"{opened.id} : open, <b>ada</b>@example.org" in page.words
    assert opened.url in [link["href"] for link in page.page.select("main a")]
    assert f"£25.00, succeeded, {paid.id}" in page.words
    assert f"£25.00, requires_payment_method (authentication_required), {error.payment_intent.id}" in page.words
    assert "payment_intents.create, 402, key" in page.words
    newest = client.v1.events.list({"limit": 1, "type": "payment_intent.payment_failed"}).data[0]
    assert f"payment_intent.payment_failed, {newest.id}" in page.words
    eventually(lambda: "Connection refused" in page.open("/").words)
    check_page(requests.get(f"{alone.url}/", timeout=30).text, "/")


def test_the_form_of_the_start_page_plans_a_fault_that_acts_and_clears_it(sandbox: SandboxProcess) -> None:
    person = Reader(sandbox.url).open("/")
    assert "Nothing is planned to fail." in person.words
    only = {"calls": "1, 3", "match": "email=ada@example.org"}
    person.press("Add to the plan", fault="error", target="customers.list", status="503", **only)
    assert "customers.list: error, calls 1, 3; seen 0, acted 0; when" in person.words
    check_page(requests.get(f"{sandbox.url}/", timeout=30).text, "/")
    assert sdk(sandbox).v1.customers.list().object == "list"
    with pytest.raises(stripe.APIError) as failed:
        sdk(sandbox).v1.customers.list({"email": "ada@example.org"})
    assert failed.value.http_status == 503
    assert "seen 1, acted 1" in person.open("/").words
    person.press("Clear the plan")
    assert "Nothing is planned to fail." in person.words and faults(sandbox) == []
    assert sdk(sandbox).v1.customers.list({"email": "ada@example.org"}).object == "list"


def test_the_form_plans_faults_of_events_and_says_what_it_did_not_understand(sandbox: SandboxProcess) -> None:
    person = Reader(sandbox.url).open("/")
    person.press("Add to the plan", fault="delay", target="setup_intent.succeeded", seconds="2.5", times="always")
    assert [(one["event"], one["seconds"], one["times"]) for one in faults(sandbox)] == [
        ("setup_intent.succeeded", 2.5, "always")
    ]
    person.press("Add to the plan", fault="hang", target="customers.list")
    assert person.status == 400 and "hang needs seconds." in person.words
    check_page(str(requests.post(f"{sandbox.url}/sandbox/faults", {"fault": "hang"}, timeout=30).text))


def test_an_event_can_be_delivered_again_and_the_clock_moved_from_the_start_page(alone: SandboxProcess) -> None:
    sdk(alone).v1.checkout.sessions.create(page_params())
    person = Reader(alone.url).open("/")
    person.press("Deliver again")
    assert "given up" in person.words
    person.press("Move the clock", offset_seconds="7200")
    assert "7200 seconds ahead of the real time" in person.words
    made = sdk(alone).v1.checkout.sessions.create(page_params(expires_at=None))
    assert made.created - sdk(alone).v1.checkout.sessions.list().data[1].created >= 7_200
    person.press("Move the clock", offset_seconds="soon")
    assert person.status == 400


def test_letters_are_listed_newest_first_and_their_links_to_the_site_work(
    alone: SandboxProcess, tmp_path: Path
) -> None:
    assert "No letters yet." in Reader(alone.url).open("/letters").words
    _write(tmp_path, "1", "Your £25 pledge counts", f"Your page:\n{LINK}\n\nOr <{LINK}/cancellation>.\n")
    _write(
        tmp_path, "2", "A <script> in the subject", "See http://127.0.0.1:8000.evil.example/ and https://example.org."
    )
    person = Reader(alone.url).open("/letters")
    assert [link.text for link in person.page.select("ol a")] == ["A <script> in the subject", "Your £25 pledge counts"]
    person.open(str(person.page.select("ol a")[1]["href"]))
    assert [link["href"] for link in person.page.select("pre a")] == [LINK, f"{LINK}/cancellation"]
    assert "Message-ID <1@standing>" in person.words and "ada@example.org" in person.words
    # An address of somebody else stays text: a letter must not lead out of the demonstration.
    assert Reader(alone.url).open("/letters/2.eml").page.select("pre a") == []
    for path in ("/letters", "/letters/1.eml", "/letters/2.eml"):
        check_page(requests.get(alone.url + path, timeout=30).text, path)


def test_nothing_outside_the_folder_of_letters_is_shown(alone: SandboxProcess, tmp_path: Path) -> None:
    _write(tmp_path, "1", "A letter", "Words.")
    (tmp_path / "letters" / "inside.eml").mkdir()
    hidden = ("secret.eml", "letters/notes.txt", "letters/inside.eml/1.eml")
    for name in hidden:
        (tmp_path / name).write_text("Subject: a secret\n\na secret")
    (tmp_path / "letters" / "link.eml").symlink_to(tmp_path / "secret.eml")
    ways = (
        "../secret.eml", "..%2fsecret.eml", "%2e%2e/secret.eml", "..%5csecret.eml", "%2e%2e%2fsecret.eml",
        "link.eml", "notes.txt", "inside.eml", "inside.eml/1.eml", "inside.eml%2f1.eml", "*.eml", "1.eml%00.txt",
        str(tmp_path / "secret.eml"),
    )  # fmt: skip
    with requests.Session() as session:
        for way in ways:
            asked = requests.Request("GET", alone.url).prepare()
            asked.url = f"{alone.url}/letters/{way}"  # as it stands, not tidied
            answer = session.send(asked, timeout=30)
            assert answer.status_code == 404 and "a secret" not in answer.text, way
        listed = session.get(f"{alone.url}/letters", timeout=30).text
    assert "A letter" in listed and "a secret" not in listed


def test_the_sandbox_listens_on_this_machine_only(sandbox: SandboxProcess) -> None:
    """127.0.0.1 is 0100007F in the kernel's table; 00000000 would be every network."""
    port = f"{urlsplit(sandbox.url).port:04X}"
    table = [
        line.split() for file in ("tcp", "tcp6") for line in Path(f"/proc/net/{file}").read_text().splitlines()[1:]
    ]
    listening = [row[1] for row in table if row[1].endswith(f":{port}") and row[3] == "0A"]
    assert listening == [f"0100007F:{port}"]


def test_a_busy_port_is_a_sentence_and_no_traceback(sandbox: SandboxProcess, tmp_path: Path) -> None:
    port = str(urlsplit(sandbox.url).port)
    again = subprocess.run(
        [sys.executable, "-m", "sandbox", "--port", port, "--state", str(tmp_path / "sandbox.db")],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (again.returncode, again.stderr) == (
        1, f"The sandbox cannot listen on 127.0.0.1:{port}: Address already in use.\n",
    )  # fmt: skip


def test_everything_is_forgotten_on_reset_but_the_webhook(alone: SandboxProcess) -> None:
    saved_card(alone)
    requests.post(f"{alone.url}/sandbox/reset", timeout=30).raise_for_status()
    client = sdk(alone)
    for service in (client.v1.checkout.sessions, client.v1.customers, client.v1.events, client.v1.setup_intents):
        assert service.list().data == []
    assert [one.url for one in client.v1.webhook_endpoints.list().data] == ["http://127.0.0.1:9/nobody-listens"]


def _write(tmp_path: Path, name: str, subject: str, text: str) -> None:
    """A letter as the product writes it; later ones are newer."""
    letter = EmailMessage()
    letter["From"], letter["To"] = "Standing <letters@example.org>", "ada@example.org"
    letter["Subject"], letter["Message-ID"] = subject, f"<{name}@standing>"
    letter.set_content(text)
    (tmp_path / "letters" / f"{name}.eml").write_bytes(letter.as_bytes())
