"""Readers while a hundred people pledge at once and Stripe takes a second to answer. `make bench-crowd`, or

    python -m bench.crowd --pledgers 100 --seconds 15 --reads 200

The configuration that we ship: nginx with deploy/nginx.conf in front of a web server for readers and one for those who
pledge, a worker, the sweep, SQLite with its safest setting, all on all processors of this machine, as are the readers
and the pledgers. First readers come alone, then beside the pledgers. Readers come by the clock, however long an answer
takes; each pledger has a connection of its own and sends one form after the other. In the end everything that was
answered with "go on" has to be a row, and each row may have one card page at most. Quote the ratio.
"""

import argparse
import asyncio
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import requests
import sqlalchemy as sa

import app as application
from bench.speed import GZIP, HTMX, ROOT, SLUG, Programs, fetched, fill, proxy_conf, valkey
from models import Case, Pledge, begin_reading, db

READERS, PLEDGES, PROXY, BELL, STRIPE = "readers", "pledges", "nginx", "Valkey", "Stripe"
WORKER, SWEEP = "worker", "sweep"
PORTS = {READERS: 18121, PLEDGES: 18122, PROXY: 18123, BELL: 18124, STRIPE: 18125}
# So many connections share what readers ask for; every tenth asks for a page that nobody has asked for before.
CONNECTIONS, ANEW = 40, 10
RAISED = {
    "RATE_PLEDGE": "100000000 per hour", "RATE_NETWORK": "100000000 per hour", "BREAKER_UNFINISHED": "100000000",
    "PLEDGE_FORM_SECONDS": "0",
}  # fmt: skip
# For everybody at once the readers' pages may take so many times as long, and so many pledges a second are accepted.
GOAL_RATIO, GOAL_RATE = 2.0, 400


@dataclass
class Taken:
    """What became of what was asked: seconds for each good answer by what it was, and what else came."""

    took: dict[str, list[float]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def note(self, what: str, seconds: float) -> None:
        self.took.setdefault(what, []).append(seconds)

    def within(self, share: float, what: str = "") -> float:
        """Milliseconds within which so many of them were answered."""
        found = sorted(s for name, all_of_it in self.took.items() for s in all_of_it if what in ("", name))
        return found[min(len(found) - 1, int(len(found) * share))] * 1000 if found else 0.0

    @property
    def count(self) -> int:
        return sum(map(len, self.took.values()))


# --- Those who come ----------------------------------------------------------------------------------------


async def _asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bytes:
    """The head of the answer."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    if length:
        await reader.readexactly(int(length.group(1)))
    elif b"chunked" in head.lower():
        while int((await reader.readuntil(b"\r\n")).strip() or b"0", 16):
            await reader.readuntil(b"\r\n")
        await reader.readuntil(b"\r\n")
    return head


async def _reader(number: int, every: float, until: float, taken: Taken) -> None:
    """Asks in time for the next page, however long an answer takes; what is late is counted from when it was due."""
    plain = {**GZIP, "Host": f"127.0.0.1:{PORTS[PROXY]}"}
    due = time.monotonic() + every * number / CONNECTIONS
    turn = number
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", PORTS[PROXY])
        while due < until:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            what, path, headers = "case page", f"/cases/{SLUG}", plain
            if turn % ANEW == 0:
                what, path = "made anew", f"/?after={secrets.randbelow(10**8)}"
            elif turn % 2:
                what, path, headers = "total", f"/cases/{SLUG}/pledge-total", {**plain, **HTMX}
            turn += 1
            head = await _asked(reader, writer, _get(path, headers))
            if head.startswith(b"HTTP/1.1 200 "):
                taken.note(what, time.monotonic() - due)
            else:
                taken.wrong.append(head[:60].decode())
            due += every
        writer.close()
    except (OSError, asyncio.IncompleteReadError) as trouble:
        taken.wrong.append(type(trouble).__name__)


def _get(path: str, headers: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode()


async def _pledger(number: int, until: float, taken: Taken) -> None:
    """Pledges again and again over one connection."""
    site = f"127.0.0.1:{PORTS[PROXY]}"
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", PORTS[PROXY])
        turn = 0
        while time.monotonic() < until:
            turn += 1
            body = urllib.parse.urlencode({
                "amount": "25", "name": "Ada Winter", "email": f"ada-{number}-{turn}@measured.example", "agreed": "y",
                "form_key": secrets.token_urlsafe(24), "promise": "", "wants_updates": "y",
            }).encode()  # fmt: skip
            begun = time.monotonic()
            head = await _asked(reader, writer, (
                f"POST /cases/{SLUG}/pledges HTTP/1.1\r\nHost: {site}\r\nOrigin: http://{site}\r\n"
                "Sec-Fetch-Site: same-origin\r\nContent-Type: application/x-www-form-urlencoded\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            ).encode() + body)  # fmt: skip
            led = re.search(rb"(?i)\r\nlocation: *([^\r]+)", head)
            if not head.startswith(b"HTTP/1.1 303 ") or led is None or b"stripe=" in led.group(1):
                taken.wrong.append(head[:60].decode() + (led.group(1).decode()[-20:] if led else ""))
            else:
                beyond = led.group(1).startswith(b"/pledges/")
                taken.note("left to the clock" if beyond else "on to Stripe", time.monotonic() - begun)
        writer.close()
    except (OSError, asyncio.IncompleteReadError) as trouble:
        taken.wrong.append(type(trouble).__name__)


async def _together(many: int, one: Callable[[int, Taken], object]) -> Taken:
    taken = Taken()
    await asyncio.gather(*(one(number, taken) for number in range(many)))  # type: ignore[call-overload]
    return taken


def read(a_second: float, seconds: float) -> Taken:
    """In a process of its own."""
    until, every = time.monotonic() + seconds, CONNECTIONS / a_second
    return asyncio.run(_together(CONNECTIONS, lambda number, taken: _reader(number, every, until, taken)))


def pledge(many: int, seconds: float) -> Taken:
    """In a process of its own."""
    until = time.monotonic() + seconds
    return asyncio.run(_together(many, lambda number, taken: _pledger(number, until, taken)))


# --- The site ----------------------------------------------------------------------------------------------


def settings_of(folder: Path, database: str) -> dict[str, str]:
    site = f"http://127.0.0.1:{PORTS[PROXY]}"
    return {
        "ENVIRONMENT": "test", "DATABASE_URL": database or f"sqlite:///{folder / 'standing.db'}",
        "REDIS_URL": f"redis://127.0.0.1:{PORTS[BELL]}/0", "MAIL_URL": f"file:{folder / 'letters'}",
        "SITE_URL": site, "TRUSTED_PROXIES": "1", "STRIPE_API_BASE": f"http://127.0.0.1:{PORTS[STRIPE]}",
        "CHECKOUT_ORIGIN": f"http://127.0.0.1:{PORTS[STRIPE]}", **RAISED,
    }  # fmt: skip


def start_all(
    programs: Programs, folder: Path, settings: dict[str, str], latency: float, takes: str = "app:create_app"
) -> None:
    own = [sys.executable, "-m"]
    programs.start(
        BELL, [valkey(), "--port", str(PORTS[BELL]), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    )
    programs.start(STRIPE, [*own, "bench.slow_stripe", str(PORTS[STRIPE]), "--seconds", str(latency)])
    programs.serve(READERS, "app:create_app", **settings)
    programs.serve(PLEDGES, takes, threads="32", **settings)
    for name in (WORKER, SWEEP):
        programs.start(name, [*own, "jobs", name], **settings)
    (folder / "standing").mkdir()
    programs.start(PROXY, proxy_conf(folder, b"", b"", readers=PORTS[READERS], pledges=PORTS[PLEDGES],
                                     own=PORTS[PROXY], site=PORTS[PROXY], workers="auto"))  # fmt: skip


def rows() -> Counter[str]:
    """How many pledges there are, how many with a card page, and how many of these wait for one."""
    begin_reading()
    its_round = db.session.scalars(sa.select(Case).where(Case.slug == SLUG)).one().round
    counts = sa.select(
        sa.func.count(), sa.func.count(Pledge.session_id), sa.func.count(sa.distinct(Pledge.session_id)),
    ).where(Pledge.round_id == its_round.id)  # fmt: skip
    all_of_them, with_page, pages = db.session.execute(counts).one()
    db.session.rollback()
    return Counter({"rows": all_of_them, "with a page": with_page, "pages": pages})


# --- What is measured --------------------------------------------------------------------------------------


def measured(programs: Programs, asked: argparse.Namespace) -> bool:
    with ProcessPoolExecutor(2) as others:
        others.submit(read, 50, 3).result()
        quiet = others.submit(read, asked.reads, asked.seconds).result()
        names = (PLEDGES, READERS, PROXY, WORKER, SWEEP, BELL, STRIPE)
        before, begun = {name: programs.seconds(name) for name in names}, time.monotonic()
        pledging = others.submit(pledge, asked.pledgers, asked.seconds + 1)
        # The first second, in which all of them come at once, is not looked at: the rest is as it goes on.
        time.sleep(0.5)
        beside = others.submit(read, asked.reads, asked.seconds - 0.5).result()
        pledged = pledging.result()
        took = time.monotonic() - begun
        spent = {name: programs.seconds(name) - before[name] for name in names}
    _tell_of_readers(quiet, beside)
    rate = pledged.count / took
    print(f"\npledges accepted: {pledged.count:,} in {took:.1f} s, {rate:,.0f} a second (goal {GOAL_RATE}); half "
          f"within {pledged.within(0.5):.0f} ms, 99 % within {pledged.within(0.99):.0f} ms; refused or failed: "
          f"{len(pledged.wrong)} {Counter(pledged.wrong).most_common(3) or ''}")  # fmt: skip
    for what, all_of_it in sorted(pledged.took.items()):
        print(f"  {what}: {len(all_of_it):,}, half within {pledged.within(0.5, what):.0f} ms")
    print("processor for one pledge, in ms: "
          + ", ".join(f"{name} {1000 * spent[name] / max(1, pledged.count):.2f}" for name in names)
          + f"; all of it together {sum(spent.values()) / took:.2f} cores")  # fmt: skip
    good = not (quiet.wrong or beside.wrong or pledged.wrong)
    return (asked.smallest or _agrees(pledged)) and good and rate >= GOAL_RATE and _ratio(quiet, beside) <= GOAL_RATIO


def _ratio(quiet: Taken, beside: Taken) -> float:
    return beside.within(0.99) / max(0.001, quiet.within(0.99))


def _tell_of_readers(quiet: Taken, beside: Taken) -> None:
    print(f"\n| {'readers':10} | asked | half / 99 % alone, ms | beside pledgers | ratio |\n|---|---|---|---|---|")
    for what in (*sorted(quiet.took), ""):
        alone, then = ((one.within(0.5, what), one.within(0.99, what)) for one in (quiet, beside))
        print(f"| {what or 'all':10} | {sum(len(s) for w, s in beside.took.items() if what in ('', w)):5} | "
              f"{alone[0]:9.1f} / {alone[1]:7.1f} | {then[0]:5.1f} / {then[1]:7.1f} | "
              f"{then[1] / max(0.001, alone[1]):5.2f} |")  # fmt: skip
    wrong = Counter(quiet.wrong + beside.wrong).most_common(3) or ""
    print(f"The goal for all is {GOAL_RATIO:g}. Refused or failed: {len(quiet.wrong)} alone, {len(beside.wrong)} "
          f"beside pledgers {wrong}")  # fmt: skip


def _agrees(pledged: Taken) -> bool:
    """Whether each accepted pledge is a row, and none has two card pages; says how fast the others are made. Who was
    told that something failed may have a row as well, and a page."""
    then, begun = rows(), time.monotonic()
    time.sleep(10)
    now_ = rows()
    pace = (now_["with a page"] - then["with a page"]) / (time.monotonic() - begun)
    seen = requests.get(f"http://127.0.0.1:{PORTS[STRIPE]}/seen", timeout=30).json()
    doctor = subprocess.run([str(Path(sys.executable).parent / "flask"), "--app", "app", "doctor"], cwd=ROOT,
                            capture_output=True, text=True, check=False)  # fmt: skip
    print(f"rows: {now_['rows']:,} of {pledged.count:,} accepted; with a card page {now_['with a page']:,}, all "
          f"different: {now_['pages'] == now_['with a page']}; the worker then made {pace:.1f} a second\n"
          f"Stripe was asked {seen['asked']:,} times with {seen['keys']:,} keys; at most {seen['most_waiting']} waited "
          f"at once\ndoctor: {'clean' if doctor.returncode == 0 else doctor.stdout + doctor.stderr}")  # fmt: skip
    return (
        pledged.count <= now_["rows"] <= pledged.count + len(pledged.wrong)
        and now_["pages"] == now_["with a page"]
        and doctor.returncode == 0
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.crowd", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pledgers", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=15, help="of each of the two turns")
    parser.add_argument("--reads", type=float, default=200, help="a second, by all readers together")
    parser.add_argument("--latency", type=float, default=1.0, help="seconds until Stripe answers")
    parser.add_argument(
        "--at-once", type=int, default=24, help="CARD_PAGES_AT_ONCE; with 1 the worker makes nearly all"
    )
    parser.add_argument(
        "--smallest",
        action="store_true",
        help="the smallest site of bench/smallest.py takes the pledges: what there is to be had",
    )
    parser.add_argument("--database", default="", help="postgresql+psycopg://... for an empty one; else SQLite")
    parser.add_argument("--folder", default=str(ROOT / "var"), help="on the disk that is to be measured")
    asked = parser.parse_args()
    if shutil.which("nginx") is None:
        raise SystemExit("This needs nginx (Debian: apt-get install nginx-light).")
    Path(asked.folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="standing-crowd-", dir=asked.folder) as place:
        folder = Path(place)
        # nginx gives up root, and has to get at its files all the same.
        folder.chmod(0o755)
        settings = {**settings_of(folder, asked.database), "CARD_PAGES_AT_ONCE": str(asked.at_once)}
        fill(folder, **settings)
        programs = Programs(folder, ports=PORTS, processors="")
        app = application.create_app()
        try:
            takes = "bench.smallest:create_app" if asked.smallest else "app:create_app"
            start_all(programs, folder, settings, asked.latency, takes)
            fetched(f"http://127.0.0.1:{PORTS[PROXY]}/cases/{SLUG}", GZIP)
            print(f"Load of this machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores. {asked.pledgers} "
                  f"pledgers, {asked.reads:g} reads a second, Stripe answers after {asked.latency:g} s. Settings that "
                  f"were raised: {RAISED}.")  # fmt: skip
            with app.app_context():
                good = measured(programs, asked)
                db.session.remove()
                db.engine.dispose()
        finally:
            programs.stop()
        print(f"Load of this machine after: {os.getloadavg()[0]:.1f}.")
    sys.exit(0 if good else "A goal was missed.")


if __name__ == "__main__":
    main()
