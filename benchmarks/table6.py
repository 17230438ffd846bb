"""DSP-KD's Table 6 again: how much faster than its teacher the student is, and why.

    python benchmarks/table6.py
    python benchmarks/table6.py --students ShuffleNetV2,MobileNetV2 --rounds 9

Teacher and students with random weights (the arithmetic takes as long with any) go through edgekd's
own export: ONNX, int8 calibrated on noise, the forms of ONNX Runtime and OpenVINO. Every cell
(network, form, threads) is a process that waits for its turn; in each round all take turns, each
for at least BLOCK_MS. Raw times go to `benchmarks/results/table6.json`, the tables that follow into
`docs/papers/dspkd.md`. `--quick` tries it out on small pictures and writes only to `--results`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from table6_tables import ALL, EAGER, FORMS, ONE, STUDENT, TEACHER, THREADS, blocks, key

from edgekd.host import host_facts, usable_cores, version
from edgekd.rundir import write_text

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "table6.json"
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    # weights that begin as zeros would vanish from the exported graph, and its work with them
    TEACHER: ("timm:res2net101_26w_4s", {"zero_init_last": False}),
    STUDENT: ("torchvision:shufflenet_v2_x1_0", {}),
    "ShuffleNetV2-x0.5": ("torchvision:shufflenet_v2_x0_5", {}),
    "ShuffleNetV1": ("edgekd:shufflenet_v1", {"groups": 3}),
    "MobileNetV2": ("torchvision:mobilenet_v2", {}),
}
CLASSES, SIZE, CALIBRATION = 8, 224, 32
BLOCK_MS, WARM_MS, LEAST_RUNS, LEAST_ROUNDS = 100.0, 100.0, 3, 7


def noise(count: int, size: int) -> Any:
    """Pictures to calibrate on: uint8 (count, size, size, 3), coarse noise under fine."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 192, (count, 8, 8, 3)).repeat(-(-size // 8), 1)
    coarse = coarse.repeat(-(-size // 8), 2)[:, :size, :size]
    return np.asarray(coarse + random.integers(0, 64, coarse.shape), dtype=np.uint8)


def make(name: str, folder: Path, size: int, calibration: int) -> dict[str, Any]:
    """Write all forms of a network into a folder, and say what it costs.

    BatchNorm's statistics are those of noise, so that the ranges that int8 is calibrated for are
    not those of an untrained network's zeros and ones.
    """
    import torch

    from edgekd.export import (
        onnx_from_torch,
        onnx_int8,
        onnxruntime_from_onnx,
        openvino_from_onnx,
    )
    from edgekd.export.given import Given
    from edgekd.image import to_input
    from edgekd.models.build import build_network
    from edgekd.models.complexity import count
    from edgekd.recipe import ExportSpec, ModelSpec
    from edgekd.tasks.classification import Classification

    arch, arguments = NETWORKS[name]
    network = build_network(ModelSpec(arch=arch, args=arguments), outputs=CLASSES, seed=1)
    cost = count(network, size)
    squares = noise(calibration, size)
    with torch.no_grad():
        network.train()
        for _ in range(3):
            network(torch.from_numpy(to_input(squares[:8])))
    network.eval()
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(network, folder / "network.pt")
    exact, whole = folder / "model.fp32.onnx", folder / "model.int8.onnx"
    onnx_from_torch.to_onnx(network, exact, size=size)

    def refuse() -> Any:
        raise NotImplementedError("nothing is judged here")

    task = Classification(classes=[str(number) for number in range(CLASSES)])
    given = Given(lambda: squares, refuse, task, ExportSpec(model=name), print)
    onnx_int8.convert(exact, whole, given)
    onnxruntime_from_onnx.lower(whole, folder, "int8")
    for precision, source in (("fp32", exact), ("int8", whole)):
        openvino_from_onnx.lower(source, folder, precision)
    return {"arch": arch, "args": arguments, "params": cost.params, "macs": cost.macs,
            "megabytes": {form: megabytes(folder, form) for form in FORMS}, "precision": {}
            }  # fmt: skip


def file_of(folder: Path, form: str) -> Path:
    """What a form is run from."""
    if form == EAGER:
        return folder / "network.pt"
    runtime, _, precision = form.partition("-")
    if runtime == "onnxruntime":
        inner = folder if precision == "fp32" else folder / runtime
        return inner / f"model.{precision}.onnx"
    return folder / runtime / f"model.{precision}.xml"


def megabytes(folder: Path, form: str) -> float:
    path = file_of(folder, form)
    weights = path.with_suffix(".bin") if path.suffix == ".xml" else None
    return sum(one.stat().st_size for one in (path, weights) if one is not None) / 1e6


@contextlib.contextmanager
def opened(folder: Path, form: str, threads: int, size: int) -> Iterator[tuple[Any, str]]:
    """A call that answers for one picture, and the precision that it runs in."""
    picture = np.random.default_rng(1).random((1, 3, size, size), dtype=np.float32)
    if form == EAGER:
        import torch

        torch.set_num_threads(threads)
        network = torch.load(file_of(folder, form), weights_only=False).eval()
        tensor = torch.from_numpy(picture)
        with torch.inference_mode():
            yield lambda: network(tensor), "f32"
        return
    from edgekd.plugins import load
    from edgekd.runtimes.base import RunOptions, Runtime

    runtime, _, precision = form.partition("-")
    cls = load("runtimes", runtime, Runtime)  # type: ignore[type-abstract]
    options = RunOptions(threads=threads, batch=1, precision=precision)
    with cls(file_of(folder, form), options) as session:
        (name,) = session.facts.inputs
        yield lambda: session.run({name: picture}), session.inspect().precision


def block(
    call: Callable[[], object],
    least_ms: float,
    warm_ms: float,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Milliseconds per call, after a warm-up: a process that has waited is cold."""
    spent = runs = 0.0
    for limit in (warm_ms, least_ms):
        spent, runs, begin = 0.0, 0, clock()
        while spent < limit or runs < LEAST_RUNS:
            call()
            runs += 1
            spent = (clock() - begin) * 1000
    return spent / runs


def work(folder: Path, form: str, threads: int, size: int) -> None:
    """A cell's process: for each line `LEAST_MS WARM_MS` that it is given one line, ms per call."""
    with opened(folder, form, threads, size) as (call, precision):
        print(json.dumps({"precision": precision}), flush=True)
        for line in sys.stdin:
            least, warm = map(float, line.split())
            print(block(call, least, warm), flush=True)


class Cell:
    """One process that waits for its turn."""

    def __init__(self, folder: Path, form: str, threads: int, size: int) -> None:
        command = [sys.executable, Path(__file__), "--work", folder, form, threads, size]
        self.words = " ".join(map(str, command[1:]))
        self.process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        self.precision = str(json.loads(self._line())["precision"])

    def turn(self, least_ms: float, warm_ms: float) -> float:
        assert self.process.stdin is not None
        print(least_ms, warm_ms, file=self.process.stdin, flush=True)
        return float(self._line())

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.close()
            raise SystemExit(f"{self.words}: it ended without an answer")
        return line


Turn = Callable[[float, float], float]


def measure(
    cells: Mapping[str, Turn], rounds: int, least_ms: float, warm_ms: float
) -> dict[str, list[float]]:
    """All cells in turn, round by round, in an order that is drawn anew for each round."""
    times: dict[str, list[float]] = {name: [] for name in cells}
    names, random = list(cells), np.random.default_rng(0)
    for number in range(rounds):
        for place in random.permutation(len(names)):
            name = names[place]
            times[name].append(round(cells[name](least_ms, warm_ms), 4))
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return times


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--students", type=lambda text: text.split(","), default=[STUDENT])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="small pictures, two short rounds")
    parser.add_argument("--results", type=Path, default=None)
    parser.add_argument("--work", nargs=4, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    if arguments.work:
        folder, form, threads, size = arguments.work
        work(Path(folder), form, int(threads), int(size))
        return 0
    students = [name for name in NETWORKS if name != TEACHER]
    if unknown := sorted(set(arguments.students) - set(students)):
        parser.error(f"no such student: {', '.join(unknown)}; known: {', '.join(students)}")
    if arguments.rounds < LEAST_ROUNDS:
        parser.error(f"--rounds: at least {LEAST_ROUNDS}")
    rounds, size, calibration, least, warm = (
        (2, 64, 4, 5.0, 5.0)
        if arguments.quick
        else (arguments.rounds, SIZE, CALIBRATION, BLOCK_MS, WARM_MS)
    )
    record: dict[str, Any] = {
        "name": "table6",
        "command": f"python benchmarks/table6.py --students {','.join(arguments.students)} "
        f"--rounds {arguments.rounds}" + (" --quick" if arguments.quick else ""),
        "rounds": rounds, "block_ms": least, "size": size, "batch": 1, "classes": CLASSES,
        "threads": {ONE: 1, ALL: usable_cores() or 1},
        "host": host_facts(),
        "packages": {n: version(n) for n in ("torch", "onnxruntime", "openvino", "nncf")},
        "networks": {},
    }  # fmt: skip
    cells: dict[str, Cell] = {}
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        for name in (TEACHER, *arguments.students):
            folder = Path(scratch) / name
            print(f"{name}: exporting", file=sys.stderr)
            record["networks"][name] = network = make(name, folder, size, calibration)
            for form in FORMS:
                for threads in THREADS:
                    cell = Cell(folder, form, record["threads"][threads], size)
                    stack.callback(cell.close)
                    cells[key(name, form, threads)] = cell
                    network["precision"][form] = cell.precision
        turns = {name: cell.turn for name, cell in cells.items()}
        record["step_ms"] = measure(turns, rounds, least, warm)
    path = arguments.results or (None if arguments.quick else RESULTS)
    if path is not None:
        write_text(path, json.dumps(record, indent=1) + "\n")
    if path == RESULTS:
        import papers

        print(papers.write("dspkd"))
    else:
        print("\n\n".join(blocks(record).values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
