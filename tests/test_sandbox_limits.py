"""The sandbox's rate limits: so many calls a second of each kind and in all, as Stripe has them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import stripe

from tests.at_stripe import a_key, charge_params, saved_card, sdk
from tests.house import eventually, free_port
from tests.sandbox_process import ROOT, SandboxProcess


@pytest.fixture
def limited(sandbox: SandboxProcess) -> Iterator[SandboxProcess]:
    """The sandbox, whose limits a test may set; afterwards it has none."""
    yield sandbox
    set_limits(sandbox, per_endpoint=0, in_all=0, latency=0)


def set_limits(sandbox: SandboxProcess, **wanted: float) -> None:
    requests.post(f"{sandbox.url}/sandbox/limits", json=wanted, timeout=30).raise_for_status()


def pay(sandbox: SandboxProcess, card: tuple[str, str], key: str) -> bool:
    """Whether the call was let through."""
    try:
        sdk(sandbox).v1.payment_intents.create(charge_params(*card), {"idempotency_key": key})
    except stripe.RateLimitError:
        return False
    return True


def test_above_the_limit_of_one_kind_of_call_the_others_still_go_through(limited: SandboxProcess) -> None:
    card = saved_card(limited)
    set_limits(limited, per_endpoint=2)
    assert [pay(limited, card, a_key()) for _ in range(4)] == [True, True, False, False]
    assert sdk(limited).v1.payment_intents.list({"limit": 1}).data[0].amount == 2_500


def test_above_the_limit_in_all_nothing_goes_through_for_a_moment(limited: SandboxProcess) -> None:
    card = saved_card(limited)
    set_limits(limited, in_all=1)
    eventually(lambda: pay(limited, card, a_key()))
    with pytest.raises(stripe.RateLimitError):
        sdk(limited).v1.payment_intents.list({"limit": 1})
    assert eventually(lambda: pay(limited, card, a_key()))


def test_what_was_limited_is_not_kept_under_its_key(limited: SandboxProcess) -> None:
    card, key = saved_card(limited), a_key()
    set_limits(limited, per_endpoint=1)
    eventually(lambda: pay(limited, card, a_key()))
    assert not pay(limited, card, key)
    assert eventually(lambda: pay(limited, card, key))


def test_the_limits_are_shown_and_refuse_what_is_no_number(limited: SandboxProcess) -> None:
    set_limits(limited, per_endpoint=25, in_all=100, latency=0.3)
    shown = requests.get(f"{limited.url}/sandbox/limits", timeout=30).json()
    assert shown == {"per_endpoint": 25, "in_all": 100, "latency": 0.3}
    for wrong in ({"in_all": "many"}, {"in_all": -1}, {"per_customer": 5}, {"in_all": "nan"}):
        assert requests.post(f"{limited.url}/sandbox/limits", json=wrong, timeout=30).status_code == 400
    assert requests.get(f"{limited.url}/sandbox/limits", timeout=30).json() == shown


def test_without_a_word_about_them_the_limits_are_stripes(tmp_path: Path) -> None:
    """25 calls a second of each kind and 100 in all, as the demonstration has them too."""
    port = free_port()
    bare = {name: value for name, value in os.environ.items() if not name.startswith("SANDBOX_")}
    alone = subprocess.Popen(
        [sys.executable, "-m", "sandbox", "--port", str(port), "--state", str(tmp_path / "sandbox.db")], cwd=ROOT,
        env=bare, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert eventually(lambda: _limits(port)) == {"per_endpoint": 25, "in_all": 100, "latency": 0}
    finally:
        alone.terminate()
        alone.wait(timeout=30)


def _limits(port: int) -> dict[str, float] | None:
    try:
        found: dict[str, float] = requests.get(f"http://127.0.0.1:{port}/sandbox/limits", timeout=5).json()
    except requests.ConnectionError:
        return None
    return found
