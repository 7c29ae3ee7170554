"""How soon a moderator sees what a key did: `make bench-keys`, or with a number of one's own:

    python -m bench.keys 50

Starts a house of real programs (database, web server, worker), lets so many comments wait, and presses "a" for each of
them in Chromium, waiting for each answer. Counted in the page itself, from the key to the decided comment, and to the
focus on the next one. The promise is 200 ms on a quiet machine. htmx comes from the folder of the browser tests, so run
one of these before.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

from flask_migrate import upgrade
from playwright.sync_api import sync_playwright

from jobs.queue import worker_is_there
from models import Case, begin_writing, db
from tests.house import House, eventually
from tests.made import PASSWORD, a_case, a_user, keep, now

HTMX = Path(__file__).parent.parent / "var" / "test-cache" / "htmx-2.0.11.min.js"
PROMISED = 200
# Notes when the key went down, when its comment showed the decision, and when the next one had the focus.
WATCH = """() => {
  window.seen = {decided: [], focused: []};
  let begun = 0, item = null;
  document.addEventListener("keydown", (event) => {
    if (event.key !== "a") return;
    begun = performance.now();
    item = document.activeElement.closest(".item")?.id;
  }, true);
  document.addEventListener("focusin", (event) => {
    const next = event.target.closest(".item")?.id;
    if (begun && next && next !== item && seen.focused.length === seen.decided.length)
      seen.focused.push(performance.now() - begun);
  });
  new MutationObserver(() => {
    const now = item && document.getElementById(item);
    if (begun && now && !now.querySelector("[name=decision][value=approve]")) {
      seen.decided.push(performance.now() - begun);
      begun = 0;
    }
  }).observe(document.getElementById("desk"), {childList: true, subtree: true});
}"""


def measure(comments: int) -> dict[str, list[float]]:
    """Milliseconds for each comment: until it was "decided", and until the next one was "focused"."""
    with tempfile.TemporaryDirectory(prefix="standing-bench-") as folder, sync_playwright() as player:
        house = House(Path(folder))
        with house.app.app_context():
            begin_writing()
            upgrade()
            try:
                house.start("valkey", "sandbox", "worker", "web")
                eventually(worker_is_there)
                browser = player.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
                page = browser.new_page()
                headers = {"Content-Type": "text/javascript", "Access-Control-Allow-Origin": "*"}
                cdn = house.app.config["STANDING"].htmx_url
                page.route(cdn, lambda route: route.fulfill(body=HTMX.read_bytes(), headers=headers))
                slug, email = _waiting(comments), a_user("moderator").email
                page.goto(f"{house.url}/login")
                page.get_by_label("E-mail address").fill(email)
                page.get_by_label("Password").fill(PASSWORD)
                page.get_by_role("button", name="Log in").click()
                page.goto(f"{house.url}/moderation?case={slug}")
                page.evaluate(WATCH)
                page.keyboard.press("j")
                for number in range(1, comments + 1):
                    page.keyboard.press("a")
                    # Asked from outside: the policy of the page lets nothing be worked out in it.
                    eventually(lambda so_many=number: page.evaluate("seen.decided.length") == so_many)  # type: ignore[misc]
                seen: dict[str, list[float]] = page.evaluate("seen")
                browser.close()
                return seen
            finally:
                house.stop()
                db.session.remove()
                db.engine.dispose()


def _waiting(comments: int) -> str:
    """The address of a case of which so many comments wait."""
    case = a_case()
    number, slug = case.id, case.slug
    begin_writing()
    held = db.session.get_one(Case, number)
    for turn in range(comments):
        held.take_comment("Ben Field", "ben@keys.example.org", f"Words {'a' * turn}", now())
    keep()
    return slug


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.keys", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("comments", type=int, nargs="?", default=50, help="how many are decided, at most 50")
    asked = parser.parse_args()
    if not HTMX.exists():
        sys.exit("Run a browser test before, which gets htmx.")
    print(f"Load of this machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.")
    for what, times in measure(min(asked.comments, 50)).items():
        late = sum(time > PROMISED for time in times)
        print(f"{what:>8}: {len(times)} keys, median {statistics.median(times):.0f} ms, slowest {max(times):.0f} ms, "
              f"{late} over {PROMISED} ms")  # fmt: skip


if __name__ == "__main__":
    main()
