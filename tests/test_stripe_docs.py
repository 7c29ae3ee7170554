"""docs/stripe.md lists what we really call and listen to, and every card that can be tried."""

import re
from pathlib import Path

from jobs.reconcile import TYPES
from sandbox.cards import CARDS

ROOT = Path(__file__).resolve().parent.parent
WORDS = (ROOT / "docs" / "stripe.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    return WORDS.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_the_calls_are_those_of_payments() -> None:
    code = (ROOT / "payments.py").read_text(encoding="utf-8")
    made = set(re.findall(r"\.v1\.((?:\w+\.)+\w+)\(", code)) | {
        f"payment_intents.{verb}" for verb in re.findall(r"\bintents\.(\w+)\(", code)
    }
    listed = {name for row in section("The calls").splitlines() for name in re.findall(r"`([\w.]+)`", row[:75])}
    assert {name for name in listed if "." in name} == made


def test_the_events_are_those_that_we_listen_to() -> None:
    rows = [row for row in section("Events").splitlines() if row.startswith("| `")]
    assert sorted(re.findall(r"`([\w.]+)`", " ".join(rows))) == TYPES


def test_the_cards_are_those_of_the_sandbox() -> None:
    assert sorted(re.findall(r"(?:\d{4} ){3}\d{4}", section("Test cards"))) == sorted(
        card.spaced for card in CARDS.values()
    )
