"""In CI a few tests get a second look; those about races and the laws of the deadline are believed the first time."""

from pathlib import Path

import pytest

from tests.second_look import failed_in, may_be_tried_again


def few(count: int) -> list[str]:
    return [f"tests/test_journey_queue.py::test_{number}" for number in range(count)]


@pytest.mark.parametrize(
    ("failed", "again"),
    [
        ([], False),
        (few(3), True),
        (few(4), False),
        (["tests/test_browser_staff.py::test_a[late]"], True),
        (["tests/test_money.py::test_a_penny"], True),
        (["tests/test_law.py::test_the_law"], False),
        ([*few(1), "tests/test_many_at_once.py::test_two[cancel]"], False),
    ],
)
def test_three_tests_may_be_tried_again_but_none_about_races_and_laws(failed: list[str], again: bool) -> None:
    assert may_be_tried_again(failed) is again


def test_failures_and_errors_of_a_report_are_named_as_pytest_takes_them(tmp_path: Path) -> None:
    report = tmp_path / "tests.xml"
    report.write_text(
        "<testsuites><testsuite>"
        '<testcase classname="tests.test_walk" name="test_passes"/>'
        '<testcase classname="tests.test_walk" name="test_fails[1]"><failure/></testcase>'
        '<testcase classname="tests.contract.test_x" name="test_breaks"><error/></testcase>'
        '<testcase classname="tests.test_walk" name="test_is_skipped"><skipped/></testcase>'
        "</testsuite></testsuites>"
    )
    assert failed_in(report) == ["tests/contract/test_x.py::test_breaks", "tests/test_walk.py::test_fails[1]"]
