"""The post: each letter is sent once, and none is lost whatever the mail server does. A real SMTP server listens."""

import asyncio
import datetime as dt
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import time_machine
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from flask import Flask

import letters
from jobs import doctor
from jobs.post import send_letters
from models import Lease, Letter, begin_writing, db
from tests.house import free_port
from tests.made import a_case, a_pledge, confirm, keep, now


@dataclass
class MailServer:
    """What came in, and what it is to answer next: to the recipient, to the letter after so many seconds."""

    port: int = 0
    came: list[EmailMessage] = field(default_factory=list)
    to_the_recipient: str = "250 OK"
    to_the_letter: str = "250 OK"
    thinks_for: float = 0
    # How often a recipient was named, and by whom each letter was sent as the envelope has it.
    asked: int = 0
    senders: list[str] = field(default_factory=list)

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        self.asked += 1
        if self.to_the_recipient.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.to_the_recipient

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        await asyncio.sleep(self.thinks_for)
        if self.to_the_letter.startswith("250"):
            self.senders.append(envelope.mail_from)
            self.came.append(message_from_bytes(envelope.content, policy=policy.default))
        return self.to_the_letter


@pytest.fixture
def mail(app: Flask) -> Iterator[MailServer]:
    """A mail server on this machine, which the application knows as its own."""
    server = MailServer(free_port())
    send_to(app, f"smtp://127.0.0.1:{server.port}")
    listening = Controller(server, hostname="127.0.0.1", port=server.port)
    listening.start()
    yield server
    listening.stop()


def send_to(app: Flask, mail_url: str) -> None:
    app.config["STANDING"] = app.config["STANDING"].model_copy(update={"mail_url": mail_url})


def owe(*emails: str) -> None:
    """A confirmed pledge, and so an owed letter, for each address."""
    its_round = a_case().round
    for email in emails:
        confirm(a_pledge(its_round, email=email))
    keep()


def rows() -> list[Letter]:
    db.session.rollback()
    return list(db.session.scalars(sa.select(Letter).order_by(Letter.id)))


def later(seconds: int) -> Any:
    """The clock of this process, moved on."""
    return time_machine.travel(now() + dt.timedelta(seconds=seconds), tick=True)


def test_a_letter_is_delivered_once_however_often_the_post_goes(mail: MailServer) -> None:
    owe("ada@example.org")
    for _ in range(3):
        send_letters()
    (came,) = mail.came
    (row,) = rows()
    assert came["To"].addresses[0].addr_spec == "ada@example.org"
    assert (came["Message-ID"], row.tries) == (f"<{row.message_id}@127.0.0.1>", 1)
    assert row.sent_at is not None and row.next_at is None


def test_while_cards_are_charged_letters_take_little_of_the_time(
    mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    owe("ada@example.org", "bo@example.org", "cy@example.org")
    monkeypatch.setattr("jobs.post.BESIDE_MONEY", 0.0)
    assert Lease.take("capture", "somebody", now(), dt.timedelta(seconds=10))
    keep()
    send_letters()
    assert len(mail.came) == 1
    Lease.take("capture", "somebody", now(), dt.timedelta(0))
    keep()
    send_letters()
    assert len(mail.came) == 3


@pytest.mark.parametrize(
    ("refusing", "answer", "seconds"),
    [
        ("to_the_recipient", "451 Try later", 3),
        ("to_the_recipient", "550 No such mailbox", 6 * 3600),
        ("to_the_letter", "451 Try later", 3),
        ("to_the_letter", "550 Not today", 3),
    ],
)
def test_a_refused_letter_is_kept_and_sent_later_with_the_same_number(
    mail: MailServer, refusing: str, answer: str, seconds: int
) -> None:
    owe("ada@example.org")
    setattr(mail, refusing, answer)
    send_letters()
    (kept,) = rows()
    number = kept.message_id
    assert (mail.came, kept.sent_at, kept.tries) == ([], None, 1)
    setattr(mail, refusing, "250 OK")
    with later(seconds - 3):
        send_letters()
    assert mail.came == [], "it waits a little"
    with later(seconds):
        send_letters()
    assert [came["Message-ID"] for came in mail.came] == [f"<{number}@127.0.0.1>"]


def test_a_mailbox_that_does_not_exist_is_tried_five_times_in_a_day_and_then_given_up_for_people_to_see(
    app: Flask, mail: MailServer
) -> None:
    owe("ada@example.org")
    mail.to_the_recipient = "550 No such mailbox"
    for minutes in range(0, 3 * 24 * 60, 10):
        with later(60 * minutes):
            send_letters()
    (letter,) = rows()
    assert (letter.tries, letter.sent_at, letter.next_at) == (5, None, None)
    assert doctor.examine(now()) == [
        f"Letter {letter.id} (“confirmed”) to pledge:1 is given up (SMTPRecipientsRefused: 550); see flask post-again."
    ]
    long_after = doctor.examine(now() + dt.timedelta(days=8, seconds=1))
    assert not [finding for finding in long_after if "Letter" in finding], "there is nothing to mend"
    keep()
    mail.to_the_recipient = "250 OK"
    runner = app.test_cli_runner()
    assert runner.invoke(args=["post-again"]).output.endswith("Letters that are tried again: 1.\n")
    send_letters()
    assert len(mail.came) == 1 and rows()[0].sent_at is not None


def test_a_mail_server_that_is_too_slow_is_left_and_the_letter_kept(
    mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    owe("ada@example.org")
    monkeypatch.setattr(letters, "PATIENCE", 0.2)
    mail.thinks_for = 0.6
    send_letters()
    (kept,) = rows()
    assert (kept.sent_at, kept.tries) == (None, 1) and kept.trouble.endswith("timed out")
    mail.thinks_for = 0
    with later(3):
        send_letters()
    # What the slow server did with the first is not known; a second one would carry the same number.
    assert rows()[0].sent_at is not None
    assert {came["Message-ID"] for came in mail.came} == {f"<{kept.message_id}@127.0.0.1>"}


def test_while_the_mail_server_is_away_nothing_is_lost(app: Flask, mail: MailServer) -> None:
    owe("ada@example.org", "bo@example.org")
    here = app.config["STANDING"].mail_url
    send_to(app, f"smtp://127.0.0.1:{free_port()}")
    send_letters()
    assert [(row.sent_at, row.trouble.split(":")[0]) for row in rows()] == [(None, "ConnectionRefusedError")] * 2
    send_to(app, here)
    with later(3):
        send_letters()
    assert sorted(came["To"].addresses[0].addr_spec for came in mail.came) == ["ada@example.org", "bo@example.org"]


def test_a_letter_that_cannot_be_written_keeps_no_other_back(mail: MailServer) -> None:
    owe("jürgen@example.org", "ada@example.org")
    send_letters()
    assert [came["To"].addresses[0].addr_spec for came in mail.came] == ["ada@example.org"]
    unwritable, sent = rows()
    assert unwritable.sent_at is None and unwritable.trouble and unwritable.next_at and unwritable.next_at > now()
    assert sent.sent_at is not None


def test_what_went_wrong_is_noted_without_the_address(mail: MailServer) -> None:
    owe("ada@example.org")
    mail.to_the_recipient = "550 ada@example.org has no mailbox here"
    send_letters()
    assert rows()[0].trouble == "SMTPRecipientsRefused: 550"


def test_only_a_crash_before_our_commit_sends_a_letter_again_and_with_the_same_number(
    mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    owe("ada@example.org")
    with monkeypatch.context() as crash:
        crash.setattr(Letter, "sent", lambda *_: sys.exit("killed"))
        with pytest.raises(SystemExit):
            send_letters()
    db.session.rollback()
    send_letters()
    assert len(mail.came) == 1, "somebody may still be sending it"
    with later(301):
        send_letters()
    first, second = mail.came
    assert first["Message-ID"] == second["Message-ID"] and rows()[0].sent_at is not None


def test_two_posts_at_once_send_each_letter_once(app: Flask, mail: MailServer) -> None:
    owe(*(f"supporter{number}@example.org" for number in range(8)))
    together = threading.Barrier(2)

    def post() -> None:
        with app.app_context():
            begin_writing()
            together.wait()
            send_letters()
            db.session.remove()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(post), pool.submit(post)]:
            done.result()
    assert sorted(str(came["To"].addresses[0].addr_spec) for came in mail.came) == [
        f"supporter{number}@example.org" for number in range(8)
    ]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for this machine that nobody but its own file vouches for, with its key."""
    file = tmp_path_factory.mktemp("certificate") / "mail.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
            "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(file), "-out", f"{file}.crt"]  # fmt: skip
    subprocess.run(made, check=True, capture_output=True, timeout=60)
    return file


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_a_password_and_letters_go_only_to_a_server_whose_certificate_is_good(
    app: Flask, certificate: Path, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever sits between us and the mail server could read every private link."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{certificate}.crt", certificate)
    server, passwords = MailServer(free_port()), []

    def log_in(_server: Any, _session: Any, _envelope: Any, _mechanism: str, said: Any) -> AuthResult:
        passwords.append((said.login, said.password))
        return AuthResult(success=True)

    tls = {"tls_context": context} if scheme == "smtp" else {"ssl_context": context, "auth_require_tls": False}
    listening = Controller(server, hostname="127.0.0.1", port=server.port, authenticator=log_in, **tls)
    listening.start()
    try:
        send_to(app, f"{scheme}://standing:p%40ss@127.0.0.1:{server.port}")
        owe("ada@example.org")
        send_letters()
        assert (server.came, passwords) == ([], []) and "CERTIFICATE_VERIFY_FAILED" in rows()[0].trouble
        monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
        with later(3):
            send_letters()
        assert (len(server.came), passwords) == (1, [(b"standing", b"p@ss")])
    finally:
        listening.stop()
