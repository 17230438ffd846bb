"""Reading a checkpoint that somebody else saved, and putting it into a network."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.errors import CheckpointError
from edgekd.log import warn
from edgekd.models.network import Network
from edgekd.models.oltr import OltrHead

WRAPPERS = ("state_dict", "model_state_dict", "model")  # under which training scripts keep weights
# what wrappers of a network (ours, DataParallel, Lightning, torch.compile) put before every name
PREFIXES = ("net.", "module.", "model.", "_orig_mod.")


def load_weights(network: Network, path: Path, *, new_head: bool = False) -> None:
    """Load a local `.safetensors`, or a `.pth`/`.pt` that holds tensors only.

    With `new_head` a classifier of another width is left as it was initialised (and said so);
    any other difference raises CheckpointError that names the first tensor that does not fit.
    """
    own = network.net.state_dict()
    state = _without_prefix(read_weights(path), own)
    wrong = [key for key in own if key in state and state[key].shape != own[key].shape]
    missing = [key for key in own if key not in state]
    unknown = [key for key in state if key not in own]
    if wrong and not missing and not unknown and all(is_head(network.net, key) for key in wrong):
        if not new_head:
            raise CheckpointError(
                f"{path}: its classifier has {len(state[wrong[0]])} outputs, the data has "
                f"{len(own[wrong[0]])} classes",
                hint="take a checkpoint of these classes, or train this model in a stage first",
            )
        warn(f"{path}: its classifier has another width; ours starts fresh ({wrong[0]})")
        state = {key: value for key, value in state.items() if key not in wrong}
        network.net.load_state_dict(state, strict=False)
        return
    if wrong or missing or unknown:
        if len(missing) > len(wrong):
            instead = f", but {unknown[0]} is" if unknown else ""
            detail = f"{missing[0]} is not in the file{instead}"
        elif wrong:
            found = tuple(state[wrong[0]].shape), tuple(own[wrong[0]].shape)
            detail = f"{wrong[0]} is {found[0]} in the file, {found[1]} in the network"
        elif missing:
            detail = f"{missing[0]} is not in the file"
        else:
            detail = f"the network has no {unknown[0]}"
        raise CheckpointError(
            f"{path} holds weights of another architecture: {detail} "
            f"({len(wrong)} differ in shape, {len(missing)} missing, {len(unknown)} unknown)",
            hint="check the model's `arch` and `args`",
        )
    network.net.load_state_dict(state)


def _without_prefix(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names as the network has them: what stands before all of them is taken away."""
    while state and not any(key in own for key in state):
        prefix = next((p for p in PREFIXES if all(key.startswith(p) for key in state)), None)
        if prefix is None:
            break
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict without running any code that the file might carry.

    Raises CheckpointError for anything but tensors by name, bare or in one of WRAPPERS.
    """
    if not path.is_file():
        raise CheckpointError(f"no such weights file: {path}")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except Exception as error:  # safetensors' own exception type is not exported everywhere
            raise CheckpointError(f"{path} cannot be read as safetensors: {error}") from None
    with path.open("rb") as file:
        begins_as_pickle = file.read(1) == b"\x80"  # how torch.save wrote before it wrote zip files
    if not (begins_as_pickle or zipfile.is_zipfile(path)):
        raise CheckpointError(
            f"{path} is not a weights file, neither of torch.save nor safetensors"
        )
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip and pickle errors share no base class
        raise CheckpointError(
            f"{path} {_refusal(str(error))}",
            hint="where it was made, save the weights alone: "
            "torch.save(model.state_dict(), 'weights.pth')",
        ) from None
    for key in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        found = type(state).__name__
        if isinstance(state, dict):
            entries = [f"'{key}' ({type(value).__name__})" for key, value in state.items()]
            found = ", ".join(entries[:6])
        raise CheckpointError(
            f"{path}: expected tensors by name, found {found}",
            hint=f"save them alone, or under one of the keys {', '.join(WRAPPERS)}",
        )
    return state


def _refusal(text: str) -> str:
    """Why torch would not read a file, without its advice to read it all the same."""
    if "TorchScript" in text:
        return "is a TorchScript program; a weights file may hold tensors only"
    found = re.search(r"GLOBAL (\S+)", text)
    if found is not None:
        return (
            f"holds a pickled {found[1]}; a weights file may hold tensors only, because reading "
            "anything else can run code"
        )
    reason = "" if "weights_only" in text or not text else f": {text.splitlines()[0]}"
    return f"cannot be read as weights (tensors only){reason}"


def is_head(net: nn.Module, key: str) -> bool:
    """Does a tensor of this name belong to the last linear layer, or to a memory?"""
    for name, module in net.named_modules():
        if isinstance(module, OltrHead):
            return key.startswith(f"{name}.")
    linear = [name for name, module in net.named_modules() if isinstance(module, nn.Linear)]
    return bool(linear) and key.rpartition(".")[0] == linear[-1]
