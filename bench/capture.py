"""How fast the deadline capture charges, by itself: `make bench-capture`, or with numbers of one's own:

    python -m bench.capture 500 3000 --rate 100 --limit 100 --latency 0.3

For each number of pledges it starts a house of real processes on a database of its own (Valkey, the sandbox with the
rate limit and the latency, two workers, the sweep), makes one case with so many confirmed pledges, lets its deadline
come, and watches until all are charged. No web server runs and Stripe's events go to nobody, so that what is measured
is the capture. Nothing here takes longer than `--patience` seconds.
"""

import argparse
import datetime as dt
import math
import os
import secrets
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import sqlalchemy as sa
from flask_migrate import upgrade

from jobs import ring
from jobs.queue import worker_is_there
from models import Examination, Pledge, Reconciliation, Round, begin_reading, begin_writing, db
from tests.at_stripe import saved_card
from tests.house import House, descendants, eventually
from tests.made import a_case, a_pledge, confirm, now
from tests.sandbox_process import SandboxProcess

HERTZ = os.sysconf("SC_CLK_TCK")


@dataclass
class Seen:
    """What one run came to."""

    pledges: int
    charged: int
    settling: float
    seconds: float
    charging: float
    calls: int
    refused: int
    cpu: float
    peak: float
    own: float
    idle: float

    @property
    def rate(self) -> float:
        return self.charged / self.seconds

    @property
    def cost(self) -> float:
        """CPU milliseconds of both workers for each pledge, settling and the letters sent by then included."""
        return 1000 * self.cpu / self.pledges


def run(pledges: int, asked: argparse.Namespace) -> Seen:
    with tempfile.TemporaryDirectory(prefix="standing-bench-") as folder:
        house = House(Path(folder))
        del house.environment["SANDBOX_WEBHOOK_URL"]
        house.environment["CAPTURE_RATE"] = str(asked.rate)
        with house.app.app_context():
            begin_writing()
            upgrade()
            try:
                house.commands["second worker"] = house.commands["worker"]
                house.start("valkey", "sandbox", "worker", "second worker", "sweep")
                eventually(worker_is_there)
                eventually(_has_settled_in)
                return _measure(house, pledges, asked)
            finally:
                house.stop()
                db.session.remove()
                db.engine.dispose()


def _has_settled_in() -> bool:
    """Whether the first look at the books, and the first comparison with Stripe, are behind a new house."""
    begin_reading()
    looked = db.session.scalar(sa.select(Examination.id).limit(1))
    waiting = Reconciliation.waiting(now() + dt.timedelta(hours=1))
    compared = db.session.scalar(sa.select(sa.func.count()).select_from(Reconciliation)) == 2
    db.session.rollback()
    return looked is not None and compared and not waiting


def _measure(house: House, pledges: int, asked: argparse.Namespace) -> Seen:
    round_id = _make(house, pledges)
    limits = {"per_endpoint": 0, "in_all": asked.limit, "latency": asked.latency}
    requests.post(f"{house.stripe}/sandbox/limits", json=limits, timeout=5).raise_for_status()
    workers = [house.programs["worker"].pid, house.programs["second worker"].pid]
    cpu_before, idle = sum(map(_cpu, workers)), _memory(workers[0], "Rss")
    _let_the_deadline_come(round_id)
    begun = time.monotonic()
    ring("settle_round", round_id)
    settled_after, peak, own, charged = 0.0, 0.0, 0.0, 0
    while time.monotonic() - begun < asked.patience:
        time.sleep(0.1)
        for pid in descendants(workers[0]) | descendants(workers[1]):
            peak, own = max(peak, _memory(pid, "Rss")), max(own, _memory(pid, "Pss"))
        begin_reading()
        if not settled_after and db.session.get_one(Round, round_id).status == "met":
            settled_after = time.monotonic() - begun
        done = sa.select(sa.func.count()).where(Pledge.round_id == round_id, Pledge.status == "charged")
        charged = db.session.scalar(done) or 0
        db.session.rollback()
        if charged == pledges:
            break
    seconds = time.monotonic() - begun
    calls = requests.get(f"{house.stripe}/sandbox/calls", timeout=60).json()
    paid = [call["at"] for call in calls if call["operation"].startswith("payment_intents.")]
    refused = sum(call["status"] == 429 for call in calls)
    if asked.timeline:
        each = Counter(int(at - min(paid)) for at in paid)
        print("calls in each second:", *(each[second] for second in range(int(max(paid) - min(paid)) + 1)))
    return Seen(
        pledges, charged, settled_after, seconds, max(paid) - min(paid), len(paid), refused,
        sum(map(_cpu, workers)) - cpu_before, peak, own, idle,
    )  # fmt: skip


def _make(house: House, pledges: int) -> int:
    """A case with so many confirmed pledges, made from one that went through the models' own verbs."""
    stripe = SandboxProcess(house.stripe, [], house.programs["sandbox"])  # type: ignore[arg-type]
    customer, card = saved_card(stripe)
    requests.delete(f"{house.stripe}/sandbox/calls", timeout=5).raise_for_status()
    case = a_case(target=2_500)
    round_id = case.round.id
    begin_writing()
    its_round = Round.hold(round_id)
    first = confirm(a_pledge(its_round, 2_500))
    first.customer_id, first.payment_method_id = customer, card
    db.session.flush()
    row = {column.key: getattr(first, column.key) for column in Pledge.__table__.columns}
    del row["id"]
    copies: list[dict[str, Any]] = [
        row | {
            "public_id": secrets.token_hex(10), "form_key": secrets.token_urlsafe(24),
            "session_id": f"cs_test_{number}", "email": f"supporter{number}@example.org",
        }
        for number in range(1, pledges)
    ]  # fmt: skip
    if copies:
        db.session.execute(sa.insert(Pledge), copies)
    its_round.count(2_500 * len(copies), len(copies), now())
    db.session.commit()
    return round_id


def _let_the_deadline_come(round_id: int) -> None:
    begin_writing()
    Round.hold(round_id).move_deadline(now(), "bench", now())
    db.session.commit()


def _cpu(pid: int) -> float:
    """CPU seconds of a process and its children, those that have ended included."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ended = sum(int(word) for word in words[11:15])
    return ended / HERTZ + sum(_cpu(child) for child in _children(pid))


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in found.read_text().split()] if found.exists() else []


def _memory(pid: int, kind: str) -> float:
    """Megabytes that a process has: all that it can reach ("Rss"), or with what it shares divided up ("Pss")."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{kind}:"):
                return int(line.split()[1]) / 1000
    except OSError:
        return 0.0
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.capture", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pledges", type=int, nargs="*", default=[500, 3000], help="how many, for each run")
    parser.add_argument("--rate", type=float, default=100, help="CAPTURE_RATE, charges a second")
    parser.add_argument("--limit", type=float, default=100, help="the sandbox's own limit, calls a second")
    parser.add_argument("--latency", type=float, default=0.3, help="seconds for each call to Stripe")
    parser.add_argument("--patience", type=float, default=300, help="seconds after which a run is given up")
    parser.add_argument("--timeline", action="store_true", help="print the calls in each second of a run")
    asked = parser.parse_args()
    print(f"Rate {asked.rate:g}/s, Stripe's limit {asked.limit:g}/s, {asked.latency:g} s for each call; "
          f"load of this machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.")  # fmt: skip
    runs = [run(pledges, asked) for pledges in asked.pledges]
    print(f"{'pledges':>8} {'charged':>8} {'settled':>9} {'in all':>9} {'rate':>8} {'of rate':>7} {'of limit':>8} "
          f"{'charging':>9} {'calls each':>10} {'429':>5} {'peak':>7} {'shared out':>10} {'idle':>7} "
          f"{'cpu each':>9}")  # fmt: skip
    for seen in runs:
        print(f"{seen.pledges:8} {seen.charged:8} {seen.settling:7.2f} s {seen.seconds:7.1f} s {seen.rate:6.1f}/s "
              f"{100 * seen.rate / asked.rate:5.1f} % {100 * seen.rate / (asked.limit or math.inf):6.1f} % "
              f"{seen.charging:7.1f} s {seen.calls / seen.pledges:10.3f} {seen.refused:5} "
              f"{seen.peak:4.0f} MB {seen.own:7.0f} MB {seen.idle:4.0f} MB {seen.cost:6.2f} ms")  # fmt: skip
    if len(runs) > 1:
        print(f"One pledge of {runs[-1].pledges} costs {runs[-1].cost / runs[0].cost:.2f} times one of "
              f"{runs[0].pledges} (CPU of the workers).")  # fmt: skip
    if any(seen.charged != seen.pledges for seen in runs):
        sys.exit("Not all were charged in time.")


if __name__ == "__main__":
    main()
