"""The tables and sentences of `device_settings.py`, all computed from what it measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgekd.recipe import HardwareSpec
from edgekd.stats import percentile_interval

PLAIN = "fp32"
SETTINGS: dict[str, dict[str, Any]] = {
    PLAIN: {"channels_last": False},
    "channels_last": {"channels_last": True},
    "bf16": {"precision": "bf16-mixed", "channels_last": False},
    "bf16 + channels_last": {"precision": "bf16-mixed", "channels_last": True},
    "compile + channels_last": {"compile": True, "channels_last": True},
}
# what one key does, the others equal: (key, its value, the other value, with it, without it)
EFFECTS: tuple[tuple[str, Any, Any, str, str], ...] = (
    ("channels_last", True, False, "channels_last", PLAIN),
    ("precision", "bf16-mixed", "32-true", "bf16 + channels_last", "channels_last"),
    ("compile", True, False, "compile + channels_last", "channels_last"),
)
RESAMPLES = 10_000


def speed(times: dict[str, list[float]], ours: str, base: str) -> tuple[float, float, float]:
    """How many times faster `ours` is than `base`: median over rounds, 95 % bootstrap interval."""
    ratios = np.array(times[base]) / np.array(times[ours])
    drawn = np.random.default_rng(0).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    low, high = percentile_interval(np.median(ratios[drawn], axis=1))
    return float(np.median(ratios)), low, high


def conclusions(found: dict[str, Any]) -> Iterator[str]:
    """For each family and key of `hardware:` one sentence, all of it from the numbers."""
    families: dict[str, list[str]] = {}
    for name, row in found["networks"].items():
        families.setdefault(row["family"], []).append(name)
    for family, names in sorted(families.items()):
        for key, value, other, ours, base in EFFECTS:
            speeds = {
                name: speed(found["networks"][name]["step_ms"], ours, base)
                for name in names
                if ours in found["networks"][name]["step_ms"]
            }
            if not speeds:
                continue
            faster = [name for name, (_, low, _) in speeds.items() if low > 1]
            slower = [name for name, (_, _, high) in speeds.items() if high < 1]
            middle = [point for point, _, _ in speeds.values()]
            best = value if len(faster) > len(speeds) / 2 and not slower else other
            default = HardwareSpec.model_fields[key].default
            agrees = (
                "as is the default"
                if best == default
                else f"not for the default, `{_yaml(default)}`"
            )
            yield (
                f"- {family}: `{key}: {_yaml(value)}` is faster on {len(faster)} of {len(speeds)} "
                f"networks and slower on {len(slower)} ({min(middle):.2f} to {max(middle):.2f} "
                f"times the speed of `{base}`). The evidence is for `{_yaml(best)}`, {agrees}."
            )


def _yaml(value: object) -> str:
    return str(value).lower()


def pays_after(row: dict[str, Any]) -> str:
    """After how many steps what compiling takes is won back."""
    ours, base = "compile + channels_last", "channels_last"
    if ours not in row["step_ms"]:
        return "not run"
    first = row["first_step_s"][ours]
    saved = float(np.median(row["step_ms"][base]) - np.median(row["step_ms"][ours])) / 1000
    is_faster = speed(row["step_ms"], ours, base)[1] > 1
    return f"{first:.0f} s, {f'{first / saved:,.0f} steps' if is_faster else 'never'}"


def render(record: dict[str, Any]) -> str:
    """The measurements as markdown: for each device one row per network, then what follows."""
    parts = []
    for device, found in sorted(record["devices"].items()):
        host = found["host"]
        bf16 = "has" if any("bf16" in name for name in host["isa"]) else "lacks"
        where = found["gpu"] or f"{host['cpu']} (it {bf16} bf16 instructions)"
        parts += [
            f"**{device}**: {where}, {found['threads']} thread(s), {host['cores_usable']} usable "
            f"cores, torch {found['packages']['torch']}; {found['rounds']} rounds of at least "
            f"{found['block_ms']:.0f} ms per setting: `{found['command']}`",
            "",
            "| network | px, batch | fp32 images/s | "
            + " | ".join(f"{name}" for name in SETTINGS if name != PLAIN)
            + " | compiling, pays after |",
            "|---|---|---:|" + "---:|" * len(SETTINGS),
        ]
        for name, row in found["networks"].items():
            times = row["step_ms"]
            rate = row["batch"] * 1000 / float(np.median(times[PLAIN]))
            cells = [
                "{:.2f} [{:.2f}, {:.2f}]".format(*speed(times, setting, PLAIN))
                if setting in times
                else "not run"
                for setting in SETTINGS
                if setting != PLAIN
            ]
            parts.append(
                f"| {name} | {row['size']}, {row['batch']} | {rate:.1f} | "
                f"{' | '.join(cells)} | {pays_after(row)} |"
            )
        parts += ["", *conclusions(found), ""]
    return "\n".join(parts)
