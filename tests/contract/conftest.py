"""Each scenario asks for `at`, and so runs once at the sandbox, and once at Stripe's test mode when there is a key."""

import pytest

import config
from tests.contract.stripes import AStripe, names


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "at" in metafunc.fixturenames:
        only = metafunc.definition.get_closest_marker("sandbox_only")
        assert only is None or only.kwargs["why"], f"{metafunc.definition.nodeid} must say why"
        metafunc.parametrize("at", names()[:1] if only else names(), indirect=True)


@pytest.fixture
def at(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AStripe:
    """Where the SDK and payments.py ask in this test."""
    local = request.param == "the sandbox"
    found = AStripe.local(request.getfixturevalue("sandbox")) if local else AStripe.real()
    monkeypatch.setattr(config, "current", lambda: found.settings)
    return found
