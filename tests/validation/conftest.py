"""What tests of several validations need."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def trained():
    """Dense networks by what they are trained on and with."""
    return {}


@pytest.fixture
def dense_once(trained, monkeypatch):
    """Faults are in the library, and networks of torch do not change with them."""
    from validation import networks

    train = networks.train

    def once(problem, **rest):
        key = repr(problem), repr(rest)
        trained[key] = trained.get(key) or train(problem, **rest)
        return trained[key]

    monkeypatch.setattr(networks, "train", once)
