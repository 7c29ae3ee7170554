"""Letters that come back, and mail servers that die in the middle: nothing lost, nothing twice, and an address that
bounced is not written to again. Real SMTP servers listen."""

import socket
import socketserver
import threading
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from jobs import doctor
from jobs.post import send_letters
from models import WITHHELD, Bounce, PasswordReset, Pledge, db
from tests.doorway import logged_in
from tests.made import a_user, keep, now
from tests.test_post import MailServer, later, mail, owe, rows, send_to

__all__ = ["mail"]
DAY = 24 * 3600
UNKNOWN = "550 No such mailbox"


def a_report(number: str, address: str, *, action: str = "failed", status: str = "5.1.1", whole: bool = True) -> bytes:
    """What a mail server sends back: words, the facts for machines, and the letter or its headers (RFC 3464)."""
    carried = f"From: letters@example.org\r\nTo: {address}\r\nMessage-ID: <{number}@127.0.0.1>\r\n\r\n"
    kind = "message/rfc822" if whole else "text/rfc822-headers"
    return (
        "From: MAILER-DAEMON@example.net\r\nTo: letters@example.org\r\nSubject: Undelivered\r\nMIME-Version: 1.0\r\n"
        'Content-Type: multipart/report; report-type=delivery-status; boundary="=b"\r\n\r\n'
        "--=b\r\nContent-Type: text/plain\r\n\r\nYour message could not be delivered.\r\n"
        "--=b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example.net\r\n\r\n"
        f"Final-Recipient: rfc822; {address}\r\nAction: {action}\r\nStatus: {status}\r\n"
        f"--=b\r\nContent-Type: {kind}\r\n\r\n{carried}\r\n--=b--\r\n"
    ).encode()


def take(app: Flask, report: bytes) -> str:
    db.session.rollback()
    done = app.test_cli_runner().invoke(args=["take-bounce"], input=report)
    assert done.exit_code == 0, done.output
    return done.output


def bounced() -> list[str]:
    db.session.rollback()
    return list(db.session.scalars(sa.select(Bounce.address).order_by(Bounce.id)))


@pytest.mark.broken_books("a letter is given up, and the operator should know")
def test_an_address_that_does_not_exist_for_a_day_is_not_written_to_again(app: Flask, mail: MailServer) -> None:
    owe("gone@example.org")
    mail.to_the_recipient = UNKNOWN
    for hours in (0, 6, 12, 18, 24):
        with later(hours * 3600 + 10):
            send_letters()
    assert bounced() == ["gone@example.org"]
    tries = mail.asked
    owe("Gone@Example.org", "here@example.org")
    mail.to_the_recipient = "250 OK"
    with later(2 * DAY):
        send_letters()
    assert [str(came["To"]) for came in mail.came] == ["Ada Winter <here@example.org>"] and mail.asked == tries + 1
    assert [(row.tries, row.trouble) for row in rows()][1] == (1, WITHHELD)
    assert not any("has not been sent" in finding for finding in doctor.examine(now()))


@pytest.mark.parametrize("whole", [True, False])
def test_a_letter_that_comes_back_later_stops_all_others_to_its_address(
    app: Flask, mail: MailServer, whole: bool
) -> None:
    owe("back@example.org")
    send_letters()
    (first,) = rows()
    said = take(app, a_report(first.message_id, "BACK@example.org", whole=whole))
    assert said.endswith(f"Letter {first.id} came back (5.1.1): nothing more is written to its address.\n")
    owe("back@example.org", "other@example.org")
    send_letters()
    assert [str(came["To"].addresses[0].addr_spec) for came in mail.came] == ["back@example.org", "other@example.org"]
    # The same report once more changes nothing.
    take(app, a_report(first.message_id, "back@example.org"))
    assert bounced() == ["back@example.org"]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"action": "delayed", "status": "4.4.1"}, "no report of a delivery that failed for good"),
        ({"action": "failed", "status": "4.2.2"}, "no report of a delivery that failed for good"),
        ({"action": "delivered", "status": "5.0.0"}, "no report of a delivery that failed for good"),
        ({"number": "0" * 32}, "none of ours"),
        ({"number": "' OR 1=1 --"}, "none of ours"),
        ({"number": ""}, "none of ours"),
        ({"address": "victim@example.org"}, "goes to another address"),
    ],
)
def test_what_is_no_report_about_a_letter_of_ours_stops_nobodys_letters(
    app: Flask, mail: MailServer, changed: dict[str, str], says: str
) -> None:
    owe("ada.reads@example.org")
    send_letters()
    report = {"number": rows()[0].message_id, "address": "ada.reads@example.org"} | changed
    number, address = report.pop("number"), report.pop("address")
    assert says in take(app, a_report(number, address, **report))  # type: ignore[arg-type]
    assert bounced() == []


def test_a_report_about_a_request_that_is_forgotten_by_now_is_read_without_a_traceback(
    app: Flask, mail: MailServer
) -> None:
    PasswordReset.ask(a_user("owner", email="forgetful.owner@example.org").email, now())
    keep()
    send_letters()
    (letter,) = rows()
    db.session.execute(sa.delete(PasswordReset))
    keep()
    assert "forgotten since" in take(app, a_report(letter.message_id, "forgetful.owner@example.org"))
    assert bounced() == []


@pytest.mark.parametrize(
    "junk",
    [
        b"", b"\x00\xff\xfe", b"Subject: I am away\r\n\r\nBack on Monday.\r\n",
        b'Content-Type: multipart/report; boundary="=b"\r\n\r\n--=b\r\nContent-Type: message/delivery-status\r\n\r\n',
        a_report("", "ada@example.org")[:500], a_report("x" * 5_000, "\xe9@example.org") * 2,
    ],
)  # fmt: skip
def test_junk_in_the_mailbox_of_bounces_is_read_without_a_traceback(app: Flask, junk: bytes) -> None:
    assert "nothing is done" in take(app, junk) and bounced() == []


def test_the_operator_has_one_address_written_to_again(app: Flask, mail: MailServer) -> None:
    owe("mended@example.org", "still.gone@example.org")
    send_letters()
    for row, address in zip(rows(), ("mended@example.org", "still.gone@example.org"), strict=True):
        take(app, a_report(row.message_id, address))
    owe("mended@example.org", "still.gone@example.org")
    send_letters()
    assert len(mail.came) == 2
    runner = app.test_cli_runner()
    db.session.rollback()
    refused = runner.invoke(args=["post-again", "never.seen@example.org"])
    assert (refused.exit_code, "did not come back" in refused.output) == (1, True)
    assert runner.invoke(args=["post-again", "Mended@example.org"]).exit_code == 0
    send_letters()
    assert [str(came["To"].addresses[0].addr_spec) for came in mail.came[2:]] == ["mended@example.org"]
    assert bounced() == ["still.gone@example.org"]


def test_the_private_page_and_staff_are_told_that_letters_come_back(
    app: Flask, client: FlaskClient, mail: MailServer
) -> None:
    owe("back@example.org")
    link = db.session.scalars(sa.select(Pledge)).one().link()
    send_letters()
    assert b"come back" not in client.get(f"/pledges/{link}").data
    take(app, a_report(rows()[0].message_id, "back@example.org"))
    page = client.get(f"/pledges/{link}").get_data(as_text=True)
    assert "Our letters to back@example.org come back." in page
    books = logged_in(app, a_user("staff")).get("/staff/books").text
    assert "Addresses that send letters back" in books and "back@example.org" not in books


def test_letters_come_back_to_the_mailbox_that_the_settings_name(app: Flask, mail: MailServer) -> None:
    settings = app.config["STANDING"]
    app.config["STANDING"] = settings.model_copy(update={"bounces_to": "bounces@example.org"})
    owe("ada@example.org")
    send_letters()
    assert mail.senders == ["bounces@example.org"] and mail.came[0]["From"] == settings.mail_from


# --- A server that dies in the middle ----------------------------------------------------------------------


class Dying(socketserver.StreamRequestHandler):
    """Speaks SMTP until the step at which it hangs up, as a server does that is killed there."""

    def handle(self) -> None:
        self.answer("220 here")
        for line in self.rfile:
            word = line.strip().upper().decode("latin-1").split(":")[0].split(" ")[0]
            if self.dies(word) or (word == "DATA" and not self.takes_the_letter()):
                self.connection.shutdown(socket.SHUT_RDWR)
                break
            self.answer("221 bye" if word == "QUIT" else "250 OK")

    def takes_the_letter(self) -> bool:
        self.answer("354 go on")
        if self.dies("in the letter"):
            self.rfile.readline()
            return False
        letter = b"".join(iter(self.rfile.readline, b".\r\n"))
        if self.dies("before its answer"):
            return False
        self.server.came.append(letter)  # type: ignore[attr-defined]
        return not self.dies("after the letter")

    def dies(self, step: str) -> bool:
        return bool(self.server.dies == step)  # type: ignore[attr-defined]

    def answer(self, line: str) -> None:
        self.wfile.write(line.encode() + b"\r\n")


@pytest.fixture
def dying(app: Flask) -> Iterator[socketserver.ThreadingTCPServer]:
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Dying)
    server.daemon_threads, server.came, server.dies = True, [], ""  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    send_to(app, f"smtp://127.0.0.1:{server.server_address[1]}")
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("dies", "arrived_at_first"),
    [("EHLO", 0), ("MAIL", 0), ("RCPT", 0), ("DATA", 0), ("in the letter", 0), ("before its answer", 0),
     ("after the letter", 1), ("QUIT", 1)],
)  # fmt: skip
def test_a_mail_server_that_dies_in_the_middle_loses_no_letter_and_none_has_a_second_number(
    dying: socketserver.ThreadingTCPServer, dies: str, arrived_at_first: int
) -> None:
    owe("ada@example.org", "bo@example.org")
    dying.dies = dies  # type: ignore[attr-defined]
    send_letters()
    came: list[bytes] = dying.came  # type: ignore[attr-defined]
    assert len(came) == 2 * arrived_at_first
    dying.dies = ""  # type: ignore[attr-defined]
    with later(3):
        send_letters()
    numbers = [number_in(letter) for letter in came]
    assert set(numbers) == {f"<{row.message_id}@127.0.0.1>" for row in rows()}
    # What was taken is not sent again, unless the server died before it could say that it had it.
    assert len(numbers) == (4 if dies == "after the letter" else 2)
    assert all(row.sent_at for row in rows()) and bounced() == []


def number_in(letter: bytes) -> str:
    return next(line for line in letter.decode().splitlines() if line.startswith("Message-ID: ")).partition(": ")[2]
