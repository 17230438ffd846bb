"""What the tests of the teacher cache begin with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.train.cached import Opened, recipe_of

Said = Callable[[], str]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Opened]:
    """A cache of two views, and the folder of its recipe."""
    folder = tmp_path_factory.mktemp("first")
    return folder, Opened(recipe_of(folder, views=2), folder / "runs")


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """What was said since the last call."""
    return lambda: capsys.readouterr().err
