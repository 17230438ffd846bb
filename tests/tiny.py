"""A whole experiment that takes seconds: drawn lesions, two tiny networks, two stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

NETS = """
import torch
from torch import nn


def block(a, b):
    return nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())


class Net(nn.Module):
    def __init__(self, num_classes, width):
        super().__init__()
        self.s1, self.s2 = block(3, width), block(width, 2 * width)
        self.s3 = block(2 * width, 4 * width)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.1)
        self.fc = nn.Linear(4 * width, num_classes)

    def forward(self, x):
        return self.fc(self.drop(self.pool(self.s3(self.s2(self.s1(x)))).flatten(1)))


def build(num_classes, width=8):
    return Net(num_classes, width)
"""


def tree(folder: Path, **data: Any) -> dict[str, Any]:
    """The recipe as a mapping; its networks are written to `folder/nets.py`."""
    nets = folder / "nets.py"
    nets.write_text(NETS, encoding="utf-8")
    taps = {"s1": "s1", "s2": "s2", "s3": "s3", "last": "pool:input"}
    own = {"arch": f"file:{nets}:build", "taps": taps}
    return {
        "edgekd": 1,
        "name": "tiny",
        "task": {"name": "grading"},
        "data": {
            "name": "synthetic",
            "params": {"images": 240, "size": 32},
            "split": "official",
            "input": {"size": 32},
            "batch": 16,
            "augment": ["hflip", "rotate90"],
            **data,
        },
        "models": {
            "teacher": {**own, "args": {"width": 16}},
            "student": {**own, "args": {"width": 4}},
        },
        "stages": {
            "teacher": {
                "train": ["teacher"],
                "losses": {"ce": {"to": "teacher"}},
                "optimizer": {"lr": 3e-3},
                "epochs": 2,
            },
            "distill": {
                "train": ["student"],
                "frozen": ["teacher"],
                "losses": {
                    "ce": {"to": "student"},
                    "kd": {"from": "teacher", "to": "student"},
                    "fitnet": {"from": "teacher", "to": "student", "weight": 0.1},
                },
                "optimizer": {"lr": 3e-3, "scale": {"heads": 2, "adapters": 2}, "clip": 5.0},
                "schedule": {"name": "cosine", "warmup": 0.5},
                "epochs": 3,
            },
        },
        "export": {
            "model": "student",
            "reference": "teacher",
            "make": ["onnx-fp32", "onnx-int8", "openvino-fp32", "openvino-int8"],
            "calibration": {"images": 32},
        },
        "bench": {"warmup": 2, "repeats": 10, "seconds": 0},
        "hardware": {"accelerator": "cpu"},
    }


def write(folder: Path, recipe: dict[str, Any]) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path
