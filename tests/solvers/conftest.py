"""What the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import pytest

from solvers.sde.schemes import passes


@pytest.fixture(scope="session", autouse=True)
def compiled_once() -> Iterator[None]:
    """Keep all that is compiled: a user has few equations at a time, tests have more than the library keeps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "_pass", lru_cache(maxsize=None)(passes._pass.__wrapped__))
        yield
