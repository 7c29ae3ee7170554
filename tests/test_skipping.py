"""What a run of the tests says on a machine without browsers: one line for each thing that is missing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NEED_A_BROWSER = ("tests/test_browser_owner.py", "tests/test_text_browser.py")


def run_without_browsers(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run tests that need Chromium or w3m where no program but Python can be found."""
    own = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST_") and name != "REQUIRE_ALL"
    }
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *NEED_A_BROWSER],
        cwd=ROOT, env={**own, **settings, "PATH": str(folder)}, capture_output=True, text=True, timeout=180,
        check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_without_chromium_one_line_says_how_to_get_it(tmp_path: Path) -> None:
    ended = run_without_browsers(tmp_path)
    assert ended.returncode == 0, ended.stdout
    assert sorted(line for line in ended.stdout.splitlines() if "apt-get" in line) == [
        "SKIPPED: Browser tests need Chromium: apt-get install chromium",
        "SKIPPED: Text browser tests need lynx: apt-get install lynx",
        "SKIPPED: Text browser tests need w3m: apt-get install w3m",
    ]


@pytest.mark.slow
def test_where_ci_insists_on_them_missing_browsers_are_a_failure(tmp_path: Path) -> None:
    ended = run_without_browsers(tmp_path, REQUIRE_ALL="1")
    assert ended.returncode == 1
    assert "Browser tests need Chromium: apt-get install chromium" in ended.stdout
    assert " skipped" not in ended.stdout and " passed" not in ended.stdout
