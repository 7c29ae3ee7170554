"""The contract is never tried with a key that moves real money."""

import pytest

from tests.contract import stripes


@pytest.mark.parametrize("key", ["sk_live_1234", "rk_live_1234", "pk_test_1234", "anything"])
def test_a_key_that_is_not_a_test_key_is_refused(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("STRIPE_TEST_KEY", key)
    with pytest.raises(ValueError, match="never run with real money"):
        stripes.names()


def test_without_a_key_only_the_sandbox_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STRIPE_TEST_KEY", raising=False)
    assert stripes.names() == ["the sandbox"]
    monkeypatch.setenv("STRIPE_TEST_KEY", "rk_test_1234")
    assert stripes.names() == ["the sandbox", "Stripe's test mode"]
