"""How soon a reader on a slow line sees a case. `make bench-paint`, or

    python -m bench.paint --times 5

Chromium opens the case page of bench/speed.py for the first time, over a line as slow as its own "slow 3G": 400 ms for
each request and 400 kbit a second for all, on a processor four times as slow as this one. The script comes over the
same line from another host. Counted is the first contentful paint, by the page's own clock. htmx comes from the folder
of the browser tests, so run one of these before.
"""

import argparse
import functools
import http.server
import os
import statistics
import sys
import tempfile
import threading
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from bench.keys import HTMX
from bench.speed import KEPT, PORTS, SLUG, Programs, fill, settings_of

GOAL = 800
# As Chromium names them: milliseconds for each request, and bytes a second.
LINES = {
    "slow 3G": {"latency": 400, "downloadThroughput": 400_000 / 8, "uploadThroughput": 400_000 / 8},
    "fast 3G": {"latency": 150, "downloadThroughput": 1_600_000 / 8, "uploadThroughput": 750_000 / 8},
}
SLOWER_PROCESSOR = 4


class Cdn(http.server.SimpleHTTPRequestHandler):
    """The host of the script."""

    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Timing-Allow-Origin", "*")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def first_paint(browser: Browser, line: dict[str, float]) -> tuple[float, float]:
    """Milliseconds to the first paint, and the kilobytes that came with the page, for who was never here before."""
    page = browser.new_context(viewport={"width": 360, "height": 640}).new_page()
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Network.emulateNetworkConditions", {"offline": False, **line})
    session.send("Emulation.setCPUThrottlingRate", {"rate": SLOWER_PROCESSOR})
    page.goto(f"http://127.0.0.1:{PORTS[KEPT]}/cases/{SLUG}", wait_until="load")
    painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    bytes_of_all = page.evaluate(
        "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
        ".reduce((sum, one) => sum + one.encodedBodySize, 0)"
    )
    page.context.close()
    return float(painted), bytes_of_all / 1000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.paint", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--times", type=int, default=5)
    asked = parser.parse_args()
    if not HTMX.exists():
        sys.exit("Run a browser test before, which gets htmx.")
    print(f"Load of this machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.")
    with tempfile.TemporaryDirectory(prefix="standing-paint-") as place, sync_playwright() as player:
        folder = Path(place)
        cdn = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Cdn, directory=str(HTMX.parent)))
        threading.Thread(target=cdn.serve_forever, daemon=True).start()
        fill(folder)
        settings = settings_of(folder)
        integrity = "sha384-2OatzQy1H+Zd/IIrjr1TcuDGqLXeHhbooAyJY1KdQMKnr4LZ22k31GBLdYKHmVjg"
        settings["HTMX_SRC"] = f"http://127.0.0.1:{cdn.server_port}/{HTMX.name}#{integrity}"
        programs = Programs(folder)
        try:
            programs.serve(KEPT, "app:create_app", **settings)
            browser = player.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            for name, line in LINES.items():
                seen = [first_paint(browser, line) for _ in range(asked.times + 1)][1:]
                times, kilobytes = [time for time, _ in seen], seen[0][1]
                print(f"{name}: first paint after {statistics.median(times):.0f} ms (slowest {max(times):.0f}; {GOAL} "
                      f"is the goal on slow 3G), {kilobytes:.1f} kB with the scripts")  # fmt: skip
            browser.close()
        finally:
            programs.stop()
            cdn.shutdown()


if __name__ == "__main__":
    main()
