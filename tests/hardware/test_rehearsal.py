"""The tests for hardware run through on the doubles, so that on a device only the device is new."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtimes.trt import api
from tests.runtimes.trt.here import described

FILE = Path(__file__).with_name("test_tensorrt_hardware.py")


@pytest.mark.parametrize("version", api.VERSIONS)
def test_of_tensorrt(version: str) -> None:
    described(version)  # skips where the bindings are not here
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.runtimes.trt.plugin",
               "-p", "no:cacheprovider", "-m", "tensorrt", str(FILE)]  # fmt: skip
    environment = {key: value for key, value in os.environ.items() if key != "EDGEKD_TEST_BUNDLE"}
    done = subprocess.run(
        command, cwd=api.REPOSITORY, capture_output=True, text=True, check=False,
        env={**environment, "EDGEKD_DOUBLE": version},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    passed = re.search(r"(\d+) passed, 1 skipped", done.stdout)
    assert passed, done.stdout
    assert int(passed.group(1)) == 20
