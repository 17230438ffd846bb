"""From a name in the recipe to a network: timm, torchvision, the user's own file, an ONNX file."""

from __future__ import annotations

import hashlib
import inspect
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.errors import CheckpointError, MissingOnHost, RecipeError, did_you_mean
from edgekd.log import warn
from edgekd.models.network import IMAGENET_MEAN, IMAGENET_STD, Network, OnnxTeacher
from edgekd.plugins import import_file
from edgekd.recipe import ModelSpec


def build_network(spec: ModelSpec, *, outputs: int, seed: int = 0, initial: bool = True) -> Network:
    """Build the network of a recipe's model entry.

    `seed` initialises it unless the entry has its own. With `initial=False` no pretrained weights
    are fetched, because a checkpoint is about to replace them.
    Raises RecipeError for unknown names or arguments, CheckpointError for weights that do not
    fit, MissingOnHost when weights cannot be downloaded.
    """
    kind, _, name = spec.arch.partition(":")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed if spec.seed is not None else seed)
        builder = {"timm": _timm, "torchvision": _torchvision, "file": _file, "onnx": _onnx}[kind]
        net, mean, std = builder(name, spec, outputs, initial and spec.pretrained is True)
    network = Network(net, mean=spec.mean or mean, std=spec.std or std, taps=spec.taps)
    if initial and isinstance(spec.pretrained, str):
        load_weights(network, Path(spec.pretrained), new_head=True)
    return network


def model_seed(seed: int, name: str) -> int:
    """The initialisation seed of model `name` in a run with `seed`."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big")


def load_weights(network: Network, path: Path, *, new_head: bool = False) -> None:
    """Load a local `.safetensors`, or a `.pth`/`.pt` that holds tensors only.

    With `new_head` a classifier of another width is left as it was initialised (and said so);
    any other difference raises CheckpointError that names the first tensor that does not fit.
    """
    state = read_weights(path)
    own = network.net.state_dict()
    for prefix in ("net.", "module.", "model."):
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    wrong = [key for key in own if key in state and state[key].shape != own[key].shape]
    missing = [key for key in own if key not in state]
    unknown = [key for key in state if key not in own]
    if new_head and wrong and not missing and not unknown:
        head = [key for key in wrong if _is_head(network.net, key)]
        if head == wrong:
            warn(f"{path}: its classifier has another width; ours starts fresh ({wrong[0]})")
            state = {key: value for key, value in state.items() if key not in wrong}
            network.net.load_state_dict(state, strict=False)
            return
    if wrong or missing or unknown:
        if len(missing) > len(wrong):
            detail = f"{missing[0]} is not in the file"
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


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict without running any code that the file might carry."""
    if not path.is_file():
        raise CheckpointError(f"no such weights file: {path}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, zip and pickle errors share no base class
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read as weights (tensors only): {first}",
            hint="convert it to .safetensors where it was made",
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{path}: expected a mapping of names to tensors")
    return state


def _is_head(net: nn.Module, key: str) -> bool:
    linear = [name for name, module in net.named_modules() if isinstance(module, nn.Linear)]
    return bool(linear) and key.rpartition(".")[0] == linear[-1]


def _timm(name: str, spec: ModelSpec, outputs: int, pretrained: bool) -> Any:
    import timm

    if not timm.is_model(name.split(".")[0]):
        raise RecipeError(
            f"timm has no model '{name}'", hint=did_you_mean(name, timm.list_models())
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net = timm.create_model(name, pretrained=pretrained, num_classes=outputs, **spec.args)
    except TypeError as error:
        raise RecipeError(f"timm:{name}: `args` do not fit: {error}") from None
    except Exception as error:
        if pretrained:
            raise _no_download(spec.arch, error) from None
        raise RecipeError(f"timm:{name} cannot be built: {error}") from None
    config = net.pretrained_cfg or {}
    return net, config.get("mean", IMAGENET_MEAN), config.get("std", IMAGENET_STD)


def _torchvision(name: str, spec: ModelSpec, outputs: int, pretrained: bool) -> Any:
    from torchvision import models

    if name not in models.list_models(module=models):
        raise RecipeError(
            f"torchvision has no classification model '{name}'",
            hint=did_you_mean(name, models.list_models(module=models)),
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some builders announce a coming default
            net = models.get_model(name, weights=None, num_classes=outputs, **spec.args)
    except TypeError as error:
        raise RecipeError(f"torchvision:{name}: `args` do not fit: {error}") from None
    if pretrained:
        weights = models.get_model_weights(name).DEFAULT
        try:
            state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        except Exception as error:
            raise _no_download(spec.arch, error) from None
        own = net.state_dict()
        fitting = {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
        left = [key for key in own if key not in fitting and not _is_head(net, key)]
        if left:
            raise RecipeError(
                f"{spec.arch}: with these `args` the pretrained weights do not fit: {left[0]} "
                f"({len(left)} tensors)",
                hint="leave out `args`, or set `pretrained: false`",
            )
        net.load_state_dict(fitting, strict=False)
    return net, IMAGENET_MEAN, IMAGENET_STD


def _file(name: str, spec: ModelSpec, outputs: int, pretrained: bool) -> Any:
    path, _, function = name.rpartition(":")
    if not path or not function:
        raise RecipeError(f"arch '{spec.arch}' is not file:PATH.py:FUNCTION")
    build = getattr(import_file(Path(path)), function, None)
    if not callable(build):
        raise RecipeError(f"{path} defines no function '{function}'")
    parameters = inspect.signature(build).parameters
    arguments = dict(spec.args)
    if "num_classes" in parameters:
        arguments["num_classes"] = outputs
    try:
        net = build(**arguments)
    except TypeError as error:
        raise RecipeError(f"{path}:{function}: `args` do not fit: {error}") from None
    except Exception as error:  # somebody's code: it may raise anything
        raise RecipeError(f"{path}:{function}: {type(error).__name__}: {error}") from error
    if not isinstance(net, nn.Module):
        raise RecipeError(f"{path}:{function} returned {type(net).__name__}, not an nn.Module")
    if pretrained:
        raise RecipeError(
            f"{spec.arch}: `pretrained: true` has no meaning for one's own file; "
            "give the path of a checkpoint"
        )
    return net, IMAGENET_MEAN, IMAGENET_STD


def _onnx(name: str, spec: ModelSpec, outputs: int, pretrained: bool) -> Any:
    # what the file expects besides [0, 1] is not written in it: the recipe's mean/std say so
    return OnnxTeacher(Path(name)), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def _no_download(arch: str, error: Exception) -> MissingOnHost:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return MissingOnHost(
        f"the pretrained weights of {arch} cannot be fetched: {reason}",
        hint="set `pretrained: path/to/weights.safetensors`, or `pretrained: false`",
    )
