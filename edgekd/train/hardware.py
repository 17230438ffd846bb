"""Where a stage is computed: checks of the recipe's `hardware:`, Fabric, and torch.compile."""

from __future__ import annotations

import contextlib
import inspect
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from edgekd.errors import MissingOnHost, RecipeError
from edgekd.log import say
from edgekd.models.network import Network, OnnxTeacher
from edgekd.recipe import HardwareSpec

NOT_COMPILED = "hardware.compile=false"


def check_hardware(hardware: HardwareSpec) -> None:
    """Raises MissingOnHost for a device that is not there, RecipeError for what is not built."""
    several = hardware.devices != 1 or hardware.nodes != 1
    if hardware.strategy not in ("auto", "ddp"):
        raise RecipeError(
            f"hardware.strategy: '{hardware.strategy}' is not one of auto, ddp",
            hint="hardware.strategy=ddp: every device holds all networks of a stage",
        )
    if several and hardware.compile:
        raise RecipeError("hardware.compile: not on several devices", hint=NOT_COMPILED)
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(hardware.accelerator, True):
        raise MissingOnHost(
            f"hardware.accelerator is {hardware.accelerator}, but this machine has no such device",
            hint="hardware.accelerator=auto uses what is there",
        )
    on_cpu = scoring_device(hardware).type == "cpu"
    if hardware.precision == "16-mixed" and on_cpu:
        raise RecipeError(
            "hardware.precision: 16-mixed needs a GPU", hint="hardware.precision=bf16-mixed"
        )
    if hardware.compile and on_cpu:
        # the name that torch itself would call
        names = {"darwin": "clang++", "win32": "cl"}
        compiler = os.environ.get("CXX") or names.get(sys.platform, "g++")
        if shutil.which(compiler) is None:
            raise MissingOnHost(
                f"hardware.compile needs a C++ compiler, and there is no '{compiler}' here",
                hint=f"install one (or name it in the variable CXX), or set {NOT_COMPILED}",
            )


def make_fabric(hardware: HardwareSpec) -> Any:
    """Fabric for the recipe's hardware; raises what `check_hardware` raises."""
    from lightning_fabric import Fabric

    check_hardware(hardware)
    if hardware.threads:
        torch.set_num_threads(hardware.threads)
    strategy: Any = "auto"
    if hardware.devices != 1 or hardware.nodes != 1:
        from lightning_fabric.strategies import DDPStrategy

        # a stage has frozen models, heads that only some terms ask, students that take turns
        strategy = DDPStrategy(find_unused_parameters=True)
    fabric = Fabric(
        accelerator=hardware.accelerator,
        devices=hardware.devices,
        num_nodes=hardware.nodes,
        strategy=strategy,
        precision=hardware.precision,
    )
    fabric.launch()
    return fabric


def scoring_device(hardware: HardwareSpec) -> torch.device:
    """The device that training and the final scores use."""
    if hardware.accelerator in ("auto", "cuda") and torch.cuda.is_available():
        return torch.device("cuda")
    if hardware.accelerator in ("auto", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


@contextlib.contextmanager
def compiled(networks: Mapping[str, Network], where: str, hardware: HardwareSpec) -> Iterator[None]:
    """With `hardware.compile`, run a stage's networks through torch.compile from here on.

    A network stays the module that it is: its state dict, the hooks of its taps and its head are
    what they were. The size of the batch is left open, so that a network is compiled once for
    training and once for evaluation, however full the last batch is and wherever a stage is
    resumed. A batch of one image would be a graph of its own; it runs uncompiled.
    Raises RecipeError in the first batch where a network cannot be compiled.
    """
    if not hardware.compile:
        yield
        return
    torch.compiler.reset()  # what earlier stages compiled is not needed again
    # dropout draws what it draws without compiling
    options: dict[str, Any] = {"options": {"fallback_random": True}}
    if "isolate_recompiles" in inspect.signature(torch.compile).parameters:
        options["isolate_recompiles"] = True  # else all networks share one limit of graphs
    names = [name for name, network in networks.items() if not isinstance(network.net, OnnxTeacher)]
    for name in names:
        forward = _forward(networks[name], name, options)
        networks[name].forward = forward  # type: ignore[assignment, method-assign]
    say(f"{where}: compiling {', '.join(names)} in the first batches, which can take minutes")
    with _clear_errors(f"the networks of {where}"):
        yield


def _forward(network: Network, name: str, options: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    plain = network.forward
    fast = torch.compile(plain, **options)

    def forward(images: Tensor) -> Tensor:
        if len(images) == 1:
            return plain(images)
        torch._dynamo.maybe_mark_dynamic(images, 0)
        with _clear_errors(f"'{name}'"):
            return fast(images)

    return forward


@contextlib.contextmanager
def _clear_errors(what: str) -> Iterator[None]:
    """Make one clear RecipeError of whatever torch.compile raises inside."""
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        raise RecipeError(
            f"torch.compile cannot compile {what}: {_reason(error)}", hint=NOT_COMPILED
        ) from error


def _reason(error: Exception) -> str:
    """What matters of the compiler's pages of text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    explained = [line for line in lines if line.startswith("Explanation:")]
    text = " ".join([*lines[:1], *explained[:1]]) or type(error).__name__
    return text if len(text) <= 400 else f"{text[:400]} ..."


def check_compile(networks: Mapping[str, Network], images: Tensor, device: torch.device) -> None:
    """Try what `hardware.compile` needs, before training: the compiler, and tracing each network.

    The compiler gets one line to compile. The networks are traced forward and back, but not
    compiled to code: that takes minutes. Raises RecipeError that names what failed.
    """
    with _clear_errors("anything on this machine"):
        torch.compile(_one_line)(torch.ones(8, device=device))
    for name, network in networks.items():
        if isinstance(network.net, OnnxTeacher):
            continue
        traced = torch.compile(network.forward, backend="aot_eager")
        with _clear_errors(f"'{name}'"):
            logits = traced(images)
            if logits.requires_grad:
                logits.sum().backward()


def _one_line(x: Tensor) -> Tensor:
    return x.relu() + 1
