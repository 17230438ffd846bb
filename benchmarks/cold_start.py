"""How long until the first answer, beside `import numpy`, in one run.

    python benchmarks/cold_start.py BUNDLE PICTURE

starts, in turns, processes that import numpy, import ONNX Runtime, load the bundle and predict one
picture (in Python and by the command), and say `edgekd --help`. What counts is the ratio to numpy,
round by round; the first round warms the disk's cache and is left out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from study import insert

from edgekd.host import host_facts
from edgekd.results import dump_json
from edgekd.rundir import write_text
from edgekd.stats import percentile_interval

HERE = Path(__file__).parent
RESULT = HERE / "results" / "cold_start.json"
DOCUMENT = HERE.parent / "docs" / "studies" / "cold-start.md"
BASE = "import numpy"
PREDICT = """
import sys, edgekd
with edgekd.load(sys.argv[1], artifact="onnx-fp32") as model:
    model.predict(sys.argv[2])
assert "torch" not in sys.modules
"""
RESAMPLES = 10_000


def commands(bundle: Path, picture: Path) -> dict[str, list[str]]:
    """What is started, by the name in the table."""
    python, edgekd = sys.executable, str(Path(sys.executable).parent / "edgekd")
    return {
        BASE: [python, "-c", "import numpy"],
        "import onnxruntime": [python, "-c", "import onnxruntime"],
        "edgekd.load and predict": [python, "-c", PREDICT, str(bundle), str(picture)],
        "edgekd predict": [edgekd, "predict", str(bundle), str(picture), "--artifact", "onnx-fp32"],
        "edgekd --help": [edgekd, "--help"],
    }


def measure(bundle: Path, picture: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of every process by name and round."""
    found: dict[str, list[float]] = {name: [] for name in commands(bundle, picture)}
    for index in range(rounds + 1):
        for name, command in commands(bundle, picture).items():
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            if index:
                found[name].append(time.perf_counter() - start)
    return found


def ratio(own: list[float], base: list[float]) -> tuple[float, float, float]:
    """Median over rounds and its 95 % bootstrap interval."""
    ratios = np.array(own) / np.array(base)
    drawn = np.random.default_rng(0).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    low, high = percentile_interval(np.median(ratios[drawn], axis=1))
    return float(np.median(ratios)), low, high


def render(record: dict[str, Any]) -> str:
    lines = [f"{record['host'].get('cpu')}, {len(record['rounds_s'][BASE])} rounds.", "",
             "| process | median, ms | times `import numpy` |", "|---|---:|---:|"]  # fmt: skip
    for name, times in record["rounds_s"].items():
        middle, low, high = ratio(times, record["rounds_s"][BASE])
        text = "1" if name == BASE else f"{middle:.2f} [{low:.2f}, {high:.2f}]"
        lines.append(f"| `{name}` | {1e3 * float(np.median(times)):.0f} | {text} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    found = measure(arguments.bundle, arguments.picture, arguments.rounds)
    record = {"host": host_facts(), "rounds_s": found}
    write_text(RESULT, dump_json(record))
    kept = json.loads(RESULT.read_text(encoding="utf-8"))
    kept["rounds_s"] = {name: kept["rounds_s"][name] for name in found}  # in this order
    write_text(DOCUMENT, insert(DOCUMENT.read_text(encoding="utf-8"), render(kept)))


if __name__ == "__main__":
    main()
