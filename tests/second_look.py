"""A second look, in CI alone, at the few journeys that failed beside all the others: python -m tests.second_look sqlite

Journeys wait for real processes, and a machine that is shared with strangers is sometimes slower than any patience.
So a few of them may be tried once more, by themselves and in a new house, and whatever comes of it is said aloud:
a journey that needed this is a defect to be mended. Tests without processes of their own are never tried again.
"""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

MOST = 3  # journeys
JOURNEYS = ("test_browser_", "test_journey_", "test_capture", "test_make_run", "test_text_browser", "test_walk")


def failed_in(report: Path) -> list[str]:
    """The names of the tests that a report in JUnit's format calls failed, as pytest takes them."""
    # The report is our own.
    cases = ET.parse(report).iter("testcase")  # noqa: S314 - pytest's own report
    failed = [case.attrib for case in cases if case.find("failure") is not None or case.find("error") is not None]
    return sorted({f"{case['classname'].replace('.', '/')}.py::{case['name']}" for case in failed})


def may_be_tried_again(failed: list[str]) -> bool:
    """Whether these are few, and journeys all of them."""
    names = [Path(name.partition("::")[0]).name for name in failed]
    return 0 < len(failed) <= MOST and all(name.startswith(JOURNEYS) for name in names)


def main(database: str) -> int:
    """Look again; returns 0 when all that had failed pass now."""
    failed = failed_in(Path(f"var/tests-{database}.xml"))
    if not may_be_tried_again(failed):
        return 1
    print("UNSTEADY: these failed beside the others, and are tried once more by themselves:", *failed, sep="\n  ")
    report = f"--junit-xml=var/tests-{database}-again.xml"
    return subprocess.run(
        [sys.executable, "-m", "pytest", f"--database={database}", report, *failed], check=False
    ).returncode  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
