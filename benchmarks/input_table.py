"""The tables of `input_pipeline.py`, made from its record alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.stats import percentile_interval

RAW, COPY, MEMORY = "raw", "prepared", "memory"
RESAMPLES = 2000

Floats = npt.NDArray[np.float64]
Cell = dict[str, Any]


def interval(values: Sequence[float] | Floats) -> tuple[float, float, float]:
    """Median over rounds, and the 95 % interval of a bootstrap over rounds."""
    array = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(0).integers(0, len(array), (RESAMPLES, len(array)))
    low, high = percentile_interval(np.median(array[drawn], axis=1))
    return float(np.median(array)), low, high


def of(record: dict[str, Any], kind: str, source: str, workers: int, **more: Any) -> Cell:
    """The one cell that is meant."""
    wanted = {"kind": kind, "source": source, "workers": workers, **more}
    (found,) = (c for c in record["cells"] if all(c.get(k) == v for k, v in wanted.items()))
    return found


def seconds(cell: Cell) -> Floats:
    """Seconds of an epoch (rounds,)."""
    return np.array([one["seconds"] for one in cell["rounds"]])


def recommend(record: dict[str, Any], raw: str) -> dict[str, Any]:
    """The fastest epoch that a recipe can ask for, and what cannot be told apart from it.

    The copy and the raw files `raw`, with any number of workers, are compared round by round.
    """
    cells = [c for c in record["cells"] if c["kind"] == "epoch" and c["source"] in (raw, COPY)]
    best = min(cells, key=lambda cell: float(np.median(seconds(cell))))
    ties = [
        {"source": cell["source"], "workers": cell["workers"]}
        for cell in cells
        if cell is not best and interval(seconds(cell) - seconds(best))[1] <= 0
    ]
    ratio = interval(seconds(of(record, "epoch", raw, 0)) / seconds(best))
    return {"source": best["source"], "workers": best["workers"], "ratio": ratio, "ties": ties}


def render(record: dict[str, Any]) -> str:
    """The record as markdown: what was measured, two tables, and what follows."""
    return "\n".join([*_setting(record), "", *_rates(record), "", *_epochs(record), "",
                      *_advice(record)]) + "\n"  # fmt: skip


def _setting(record: dict[str, Any]) -> list[str]:
    host, spec = record["host"], record["input"]
    kind = "a virtual machine with " if host["is_virtual"] else ""
    packages = ", ".join(f"{name} {number}" for name, number in sorted(record["packages"].items()))
    lines = [
        f"`{record['command']}`",
        "",
        f"{record['images']} training images of `{record['data']}`: {_files(record, RAW)}, "
        f"resized to {spec['resize'] or spec['size']} ({spec['fit']}), batch {record['batch']}; "
        f"augmentation {', '.join(record['augment']) or 'none'}. Their prepared copy has "
        f"{record['copy_bytes'] / 1e6:.1f} MB. Student `{record['student']}`, `ce` alone, on "
        f"{record['device']}, {record['threads']} thread{'s' * (record['threads'] > 1)}. "
        f"Machine: {kind}{host['cpu']}, {host['cores_usable']} usable cores, "
        f"{host['memory_mb'] / 1024:.0f} GiB; Python {host['python']}, {packages}. Measured: "
        f"medians of {record['rounds']} rounds, each with all settings in random order; in "
        "brackets 95 % bootstrap intervals over rounds. All files were in the system's cache: a "
        "slow disk comes on top.",
    ]
    for name in _raw(record)[1:]:
        lines += [
            "",
            f"{name}: the same images enlarged and written again as JPEG, quality "
            f"{record['jpeg_quality']}, {_files(record, name)}. They stand for full-size "
            "camera pictures, but are smoother, so real ones take longer to decode.",
        ]
    return lines


def _raw(record: dict[str, Any]) -> list[str]:
    """The data set's own files, then enlarged ones."""
    return [RAW, *sorted(set(record["pictures"]) - {RAW})]


def _files(record: dict[str, Any], name: str) -> str:
    facts = record["pictures"][name]
    size = f"{'about ' * facts['is_mixed']}{facts['size']} pixels"
    if facts["mean_bytes"] is None:
        return f"pictures of {size} (no files)"
    return f"files of {size}, {facts['mean_bytes'] / 1e3:.1f} kB each"


def _settings(record: dict[str, Any]) -> list[tuple[str, int]]:
    return [(c["source"], c["workers"]) for c in record["cells"] if c["kind"] == "epoch"]


def _label(record: dict[str, Any], source: str) -> str:
    if source in (COPY, MEMORY):
        return {COPY: "prepared copy", MEMORY: "in memory"}[source]
    return f"raw, {record['pictures'][source]['size']}"


def _rates(record: dict[str, Any]) -> list[str]:
    lines = [
        "Images per second that the loader delivers, start of its workers included:",
        "",
        "| images from | workers | with augmentation | without |",
        "|---|---:|---:|---:|",
    ]
    for source, workers in _settings(record):
        texts = []
        for augment in (True, False):
            cell = of(record, "rate", source, workers, augment=augment)
            rate = interval(record["images"] / seconds(cell))
            texts.append("{:,.0f} [{:,.0f}, {:,.0f}]".format(*rate))
        lines.append(f"| {_label(record, source)} | {workers} | {texts[0]} | {texts[1]} |")
    return lines


def _epochs(record: dict[str, Any]) -> list[str]:
    lines = [
        "One training epoch, and the part of it in which the loop waits for images (without "
        "workers it loads them itself, so that is the time of loading):",
        "",
        "| images from | workers | epoch, s | waiting | until the first batch, s |",
        "|---|---:|---:|---:|---:|",
    ]
    for source, workers in _settings(record):
        cell = of(record, "epoch", source, workers)
        waiting = np.array([one["waiting"] for one in cell["rounds"]]) / seconds(cell)
        first = float(np.median([one["first"] for one in cell["rounds"]]))
        whole = "{:.2f} [{:.2f}, {:.2f}]".format(*interval(seconds(cell)))
        share = "{:.0f} % [{:.0f}, {:.0f}]".format(*interval(100 * waiting))
        lines.append(f"| {_label(record, source)} | {workers} | {whole} | {share} | {first:.3f} |")
    return lines


def _advice(record: dict[str, Any]) -> list[str]:
    lines = ["Fastest epoch that a recipe can ask for (`data.prepared`, `data.workers`):", ""]
    for raw in _raw(record):
        found = recommend(record, raw)
        text = f"- {_files(record, raw)}: **{_choice(found)}**"
        if (found["source"], found["workers"]) != (raw, 0):
            ratio = "{:.2f} [{:.2f}, {:.2f}]".format(*found["ratio"])
            text += f"; without a copy and without workers an epoch takes {ratio} times as long"
        ties = ", ".join(_choice(tie) for tie in found["ties"])
        lines.append(f"{text}.{f' Not told apart from it: {ties}.' if ties else ''}")
    best = recommend(record, RAW)
    ratio = seconds(of(record, "epoch", MEMORY, 0)) / seconds(
        of(record, "epoch", best["source"], best["workers"])
    )
    text = "{:.2f} [{:.2f}, {:.2f}]".format(*interval(ratio))
    lines += [
        "",
        "Without a copy and without workers, training itself keeps images in memory as long as "
        f"they fit, so that epochs after the first are `in memory`: {text} times as long as the "
        "fastest above.",
    ]
    return lines


def _choice(cell: Cell) -> str:
    where = "`data.prepared=...`" if cell["source"] == COPY else "no copy"
    return f"{where} `data.workers={cell['workers']}`"
