"""Keep the converters' talk off stdout, and their telemetry off the network."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator

from edgekd.runtimes._telemetry import telemetry_off


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What runs inside cannot write to stdout (NNCF's bars go to stderr); warnings are dropped.

    The converters' deprecation warnings concern their own code, and no user can act on them.
    OpenVINO and NNCF that are imported inside cannot report usage.
    """
    telemetry_off()
    before = logging.root.manager.disable
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
