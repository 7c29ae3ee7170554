"""What pages cost whose case has a million pledges, beside the same pages with ten. `make bench-million`, or

    python -m bench.million --few 10 --many 1000000

In a house of its own (demo/big.py) one case that is live and one that was funded have few pledges; each page is looked
at; one pledge of each is copied until there are many; each page is looked at again. Steps of SQLite are the same on
every machine. Quote the ratios.
"""

import argparse
import datetime as dt
import os
import statistics
import tempfile

import sqlalchemy as sa
from flask_migrate import upgrade

import app as application
from bench.growth import copies_of_pledge
from bench.pages import Cost, look
from demo import big
from models import Case, Pledge, User, UserSession, begin_writing, db

LIVE, FUNDED = "big-1", "big-6"
# (who looks, at which address)
PAGES = (
    ("", f"/cases/{LIVE}/pledge-total"),
    ("", f"/cases/{LIVE}"),
    ("", f"/cases/{FUNDED}"),
    (big.OWNER, f"/owner/cases/{LIVE}"),
    (big.OWNER, f"/owner/cases/{LIVE}/figures"),
    (big.OWNER, f"/owner/cases/{FUNDED}"),
    (big.STAFF, "/staff"),
    (big.STAFF, f"/staff/cases/{LIVE}"),
    (big.STAFF, f"/staff/cases/{FUNDED}"),
    (big.STAFF, f"/staff/cases/{FUNDED}/run"),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.million", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--few", type=int, default=10)
    parser.add_argument("--many", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=15, help="how often each page is looked at")
    asked = parser.parse_args()
    print(f"Load of this machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.")
    with tempfile.TemporaryDirectory(prefix="standing-million-") as folder:
        site = {"environment": "test", "database_url": f"sqlite:///{folder}/standing.db"}
        app = application.create_app({**site, "site_url": "http://127.0.0.1:8000"})
        with app.app_context():
            begin_writing()
            upgrade()
            big.fill(cases=10, pledges=100, comments=60)
            people = {
                person.email: UserSession.begin(person, "", "", dt.datetime.now(dt.UTC))
                for person in db.session.scalars(sa.select(User))
            }
            # The funded case is looked at by its owner too.
            owner = db.session.scalars(sa.select(User).where(User.email == big.OWNER)).one()
            _case(FUNDED).owner_id = owner.id
            db.session.commit()
        costs: list[list[Cost]] = []
        for wanted in (asked.few, asked.many):
            with app.app_context():
                begin_writing()
                have = [_fill(slug, wanted) for slug in (LIVE, FUNDED)]
            print(f"{have[0]:,} and {have[1]:,} pledges")
            costs.append([look(app, people.get(who, ""), address, asked.times) for who, address in PAGES])
        _print(costs[0], costs[1])
        with app.app_context():
            db.session.remove()
            db.engine.dispose()


def _case(slug: str) -> Case:
    return db.session.scalars(sa.select(Case).where(Case.slug == slug)).one()


def _fill(slug: str, wanted: int) -> int:
    """Bring a case to so many pledges, unless it has more; how many it has then."""
    its_round = _case(slug).round
    of_it = sa.select(sa.func.count(Pledge.id)).where(Pledge.round_id == its_round.id)
    have = int(db.session.scalar(of_it) or 0)
    if have < wanted:
        alike = sa.select(Pledge.id).where(
            Pledge.round_id == its_round.id, Pledge.status.in_(("confirmed", "charged")), Pledge.message.is_(None)
        )
        copies_of_pledge(int(db.session.scalar(alike.limit(1)) or 0), wanted - have)
    return int(db.session.scalar(of_it) or 0)


def _print(few: list[Cost], many: list[Cost]) -> None:
    print(f"{'page':34} {'queries':>9} {'1,000 steps':>14} {'ratio':>6} {'processor':>20} {'ratio':>6}")
    for (_, address), one, other in zip(PAGES, few, many, strict=True):
        print(f"{address:34} {one.queries:4}{other.queries:5} {one.steps / 1000:6.1f} {other.steps / 1000:7.1f} "
              f"{other.steps / max(1, one.steps):6.2f} {one.seconds * 1000:7.1f} ms {other.seconds * 1000:6.1f} ms "
              f"{other.seconds / one.seconds:6.2f}")  # fmt: skip
    ratio = statistics.median(other.seconds / one.seconds for one, other in zip(few, many, strict=True))
    print(f"The median of the ratios of the processor is {ratio:.2f}.")


if __name__ == "__main__":
    main()
