"""For `pytest -p`: a session on the doubles, of the bindings that EDGEKD_DOUBLE names."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import pytest

from tests.runtimes.trt.here import machine


def pytest_configure(config: pytest.Config) -> None:
    stack = contextlib.ExitStack()
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    stack.enter_context(machine(os.environ["EDGEKD_DOUBLE"], Path(folder)))
    config.add_cleanup(stack.close)
