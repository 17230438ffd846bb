"""Our latencies beside the vendors' own tools, in one run.

    python benchmarks/against_vendor.py NAME=FILE.onnx=FILE.xml ...

For each pair (the same model for ONNX Runtime and for OpenVINO) rounds alternate between
`edgekd bench` and OpenVINO's `benchmark_app`, and between `edgekd bench` and a bare loop around
ONNX Runtime: same file, one thread, batch 1, f32, each in a process of its own without torch. What
counts is the ratio of the medians, round by round.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import vendor_table

from edgekd.host import host_facts
from edgekd.results import dump_json
from edgekd.rundir import write_text

HERE = Path(__file__).parent
RESULT = HERE / "results" / "against_vendor.json"
DOCUMENT = HERE.parent / "docs" / "studies" / "against-vendor.md"
BIN = Path(sys.executable).parent
MEDIAN = re.compile(r"Median:\s+([\d.]+) (us|ms)")
BARE = """
import sys, time
import numpy, onnxruntime
path, seconds = sys.argv[1], float(sys.argv[2])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
put = session.get_inputs()[0]
shape = [1, *put.shape[1:]]
image = {put.name: numpy.random.default_rng(0).random(shape).astype("float32")}
def run(seconds):
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter_ns()
        session.run(None, image)
        times.append(time.perf_counter_ns() - start)
    return times
run(0.5)
print(numpy.median(run(seconds)) / 1e6)
assert "torch" not in sys.modules
"""


# `benchmark_app` reports what OpenVINO's own clock says of a request, without the call from Python,
# the handing in of the picture and the copy of the answer: the same clock in our session
INSIDE = """
import sys, time
from pathlib import Path
import numpy
from edgekd.runtimes.base import RunOptions
from edgekd.runtimes.openvino import OpenVino
path, seconds = Path(sys.argv[1]), float(sys.argv[2])
with OpenVino(path, RunOptions(threads=1, batch=1)) as session:
    (name, shape), = session.facts.inputs.items()
    image = {name: numpy.random.default_rng(0).random(shape).astype("float32")}
    def run(seconds):
        times, end = [], time.perf_counter() + seconds
        while time.perf_counter() < end:
            session.run(image)
            times.append(session._request.latency)
        return times
    run(0.5)
    print(numpy.median(run(seconds)))
"""


def ours(path: Path, seconds: float) -> float:
    """The median, in ms, that `edgekd bench` finds."""
    command = [BIN / "edgekd", "bench", path, "--threads", "1", "--batch", "1", "--json",
               "--seconds", str(seconds)]  # fmt: skip
    found = json.loads(_output(command))
    row = (found["measurements"] if isinstance(found, dict) else found)[0]
    assert row["precision_ran"] == "f32", row["precision_ran"]
    return float(row["latency_ms"]["p50"])


def benchmark_app(path: Path, seconds: float) -> float:
    """The median, in ms, that OpenVINO's own tool finds."""
    size = _size(path)
    with tempfile.TemporaryDirectory() as folder:
        text = _output([
            BIN / "benchmark_app", "-m", path, "-d", "CPU", "-api", "sync", "-hint", "none",
            "-nstreams", "1", "-nthreads", "1", "-infer_precision", "f32", "-t",
            str(max(1, round(seconds))), "-shape", size, "-data_shape", size,
            "-report_folder", folder,
        ])  # fmt: skip
    match = MEDIAN.search(text)
    assert match is not None, text
    return float(match[1]) / (1000 if match[2] == "us" else 1)


def inside(path: Path, seconds: float) -> float:
    """The median, in ms, that OpenVINO's own clock finds in our session."""
    return float(_output([sys.executable, "-c", INSIDE, path, str(seconds)]))


def bare_loop(path: Path, seconds: float) -> float:
    """The median, in ms, of a loop around ONNX Runtime."""
    return float(_output([sys.executable, "-c", BARE, path, str(seconds)]))


def _size(path: Path) -> str:
    shape = re.search(r'<data shape="\?,(\d+),(\d+),(\d+)"', path.read_text(encoding="utf-8"))
    assert shape is not None, f"{path}: no input with a dynamic batch"
    return f"[1,{shape[1]},{shape[2]},{shape[3]}]"


def _output(command: list[Any]) -> str:
    return subprocess.run([str(part) for part in command], check=True, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout  # fmt: skip


def measure(onnx: Path, xml: Path, *, rounds: int, seconds: float) -> dict[str, Any]:
    """Medians of every round, ms."""
    found: dict[str, list[float]] = {name: [] for name in vendor_table.TOOLS}
    for index in range(rounds):
        calls = [
            ("edgekd, openvino", ours, xml),
            ("benchmark_app", benchmark_app, xml),
            (vendor_table.CLOCK, inside, xml),
            ("edgekd, onnxruntime", ours, onnx),
            ("bare loop", bare_loop, onnx),
        ]
        for name, call, path in calls if index % 2 else reversed(calls):
            found[name].append(call(path, seconds))
        print({name: round(float(np.median(times)), 3) for name, times in found.items()})
    return {"rounds_ms": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", metavar="NAME=FILE.onnx=FILE.xml")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    known = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
    if arguments.models:
        known = {"host": host_facts(), "seconds": arguments.seconds, "models": {}}
        for entry in arguments.models:
            name, onnx, xml = entry.split("=")
            known["models"][name] = measure(Path(onnx), Path(xml), rounds=arguments.rounds,
                                            seconds=arguments.seconds)  # fmt: skip
            write_text(RESULT, dump_json(known))
        known = json.loads(RESULT.read_text(encoding="utf-8"))  # in the order of the file
    text = DOCUMENT.read_text(encoding="utf-8")
    write_text(DOCUMENT, vendor_table.insert(text, known))


if __name__ == "__main__":
    main()
