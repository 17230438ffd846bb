"""Peak memory of running one artifact, measured in a process of its own.

In the benchmark's own process the peak would be that of whatever was loaded before. So a fresh
Python starts, loads the artifact, runs it three times and reports the highest resident set it
ever had. It does not inspect the model, which could load it twice. Python, numpy and the
runtime's libraries are included: it is what must be free on the device, not the weights alone.
Memory of a graphics unit is not counted.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from edgekd.runtimes.base import RunOptions
from edgekd.runtimes.session import Session, runtime_class

RUNS = 3
LIMIT_S = 300.0
# `-m` would look for every module in the working folder first, and run a json.py that lies there;
# from Python 3.11 on PYTHONSAFEPATH leaves it out, before that the first words do
SAFE = {"PYTHONSAFEPATH": "1"}
START = """import sys
sys.path[:] = [place for place in sys.path if place] + [sys.argv[2]]
from edgekd.bench.memory import _main
_main(sys.argv[1])"""


def peak_memory_mb(session: Session, options: RunOptions) -> tuple[float | None, str | None]:
    """MiB, or None and the reason why it could not be measured."""
    job = {
        "path": str(session.runtime.path),
        "runtime": session.runtime_name,
        "input": session.input_name,
        "type": session.facts.types.get(session.input_name, "float32"),
        "shape": [max(1, options.batch), *session.shape],
        "options": vars(options),
    }
    own = str(Path(__file__).resolve().parents[2])  # last: for an edgekd that is not installed
    command = [sys.executable, "-c", START, json.dumps(job), own]
    try:
        done = subprocess.run(command, env={**os.environ, **SAFE}, capture_output=True, text=True,
                              timeout=LIMIT_S, check=True)  # fmt: skip
        return float(done.stdout.split()[-1]), None
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or [f"exit code {error.returncode}"]
        return None, f"peak memory not measured: {lines[-1]}"
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        return None, f"peak memory not measured: {error}"


def _peak_of_this_process() -> float:
    """The highest resident set so far, in MiB."""
    try:
        # not getrusage: on Linux its peak is inherited from the process that started this one
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        match = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
        if match:
            return int(match.group(1)) / 1024
    except OSError:
        pass
    import psutil

    facts = psutil.Process().memory_info()
    return float(getattr(facts, "peak_wset", facts.rss)) / (1 << 20)


def _main(text: str) -> None:
    job = json.loads(text)
    images = np.full(job["shape"], 0.5, dtype=job["type"])
    loader = runtime_class(job["runtime"])
    with loader(Path(job["path"]), RunOptions(**job["options"])) as runtime:
        for _ in range(RUNS):
            runtime.run({job["input"]: images})
        print(_peak_of_this_process())
