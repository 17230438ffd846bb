"""What every test begins with."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_memory(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Hashes of image files are remembered here, not in the home of who runs the tests."""
    patch = pytest.MonkeyPatch()
    patch.setenv("EDGEKD_CACHE", str(tmp_path_factory.mktemp("cache")))
