"""Keep the converters' talk off stdout, and their telemetry off the network."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator

TELEMETRY = "openvino_telemetry"


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


def telemetry_off() -> None:
    """Stop OpenVINO and NNCF from reporting usage. Call it before importing either.

    `import openvino` already sends an event, through a package of its own; where that cannot be
    imported OpenVINO falls back to a silent stub. No environment variable turns it off without
    changing other things, so it is made unimportable in this process.
    """
    loaded = sys.modules.get(TELEMETRY)
    if loaded is None:
        sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # makes `import` fail
        return
    # Somebody imported it before us: silence the one class that sends.
    for name in ("start_session", "end_session", "send_event", "send_error", "send_stack_trace"):
        setattr(loaded.Telemetry, name, _silent)


def _silent(*_: object, **__: object) -> None:
    """Stands in for every method that would send."""
