"""From a name in the recipe to a network: of a library, of edgekd, the user's own, an ONNX file."""

from __future__ import annotations

import hashlib
import inspect
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekd.errors import CheckpointError, MissingOnHost, RecipeError, did_you_mean
from edgekd.models.neck import add_neck, graft, with_oltr
from edgekd.models.network import IMAGENET_MEAN, IMAGENET_STD, Network, OnnxTeacher
from edgekd.models.shufflenet_v1 import ShuffleNetV1
from edgekd.models.weights import is_head, load_weights, read_weights
from edgekd.plugins import import_file
from edgekd.recipe import ModelSpec


def build_network(
    spec: ModelSpec,
    *,
    outputs: int,
    seed: int = 0,
    initial: bool = True,
    new_head: bool = True,
    head: nn.Linear | None = None,
) -> Network:
    """Build the network of a recipe's model entry.

    `seed` initialises it unless the entry has its own. With `initial=False` no pretrained weights
    are fetched, because a checkpoint is about to replace them. With `new_head` the classifier of a
    checkpoint may have another width: ours starts fresh. A model that nobody trains needs its own.
    A checkpoint of the plain network serves for one with a neck, which starts fresh too. `head` is
    what an entry with `graft` takes for its classifier.
    Raises RecipeError for unknown names or arguments, CheckpointError for weights that do not
    fit, MissingOnHost when weights cannot be downloaded.
    """
    kind, _, name = spec.arch.partition(":")
    file = Path(spec.pretrained) if initial and isinstance(spec.pretrained, str) else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed if spec.seed is not None else seed)
        builder = BUILDERS[kind]
        net, mean, std = builder(name, spec, outputs, initial and spec.pretrained is True)
        network = Network(net, mean=spec.mean or mean, std=spec.std or std, taps=spec.taps)
        if file is not None and (spec.neck or head) and not is_necked(file):
            if not new_head:
                raise CheckpointError(
                    f"{file} holds the plain network, without the neck that this model has",
                    hint="train this model in a stage, which starts from the file",
                )
            load_weights(network, file, new_head=True)
            file = None
        if spec.neck is not None or head is not None:
            _check_end(spec)
        if spec.neck is not None:
            network.net = add_neck(net, spec.neck, outputs=outputs, arch=spec.arch)
        elif head is not None:
            network.net = graft(net, head, arch=spec.arch)
        if spec.head == "oltr":
            with_oltr(network.net, arch=spec.arch)
    if file is not None:
        load_weights(network, file, new_head=new_head)
    return network


def _check_end(spec: ModelSpec) -> None:
    """A network with a neck ends in the mean and a linear layer, whatever its own end was."""
    for key, plain in (("drop_rate", 0), ("global_pool", "avg")):
        if spec.args.get(key, plain) != plain:
            raise RecipeError(
                f"{spec.arch}: `args: {{{key}: {spec.args[key]}}}` has no meaning with a neck or a "
                "graft, which bring an end of their own: mean and one linear layer",
                hint=f"leave out `{key}`",
            )


def is_necked(path: Path) -> bool:
    """Was a weights file saved from a network with a neck or a graft?"""
    return any(".neck." in f".{key}" for key in read_weights(path))


def model_seed(seed: int, name: str) -> int:
    """The initialisation seed of model `name` in a run with `seed`."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big")


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
        left = [key for key in own if key not in fitting and not is_head(net, key)]
        if left:
            raise RecipeError(
                f"{spec.arch}: with these `args` the pretrained weights do not fit: {left[0]} "
                f"({len(left)} tensors)",
                hint="leave out `args`, or set `pretrained: false`",
            )
        net.load_state_dict(fitting, strict=False)
    return net, IMAGENET_MEAN, IMAGENET_STD


def _own(name: str, spec: ModelSpec, outputs: int, pretrained: bool) -> Any:
    """What no library has."""
    if name not in OWN:
        raise RecipeError(f"edgekd has no model '{name}'", hint=did_you_mean(name, OWN))
    if pretrained:
        raise RecipeError(
            f"{spec.arch}: `pretrained: true` has no meaning, no weights of it are published",
            hint="set `pretrained: path/to/weights.safetensors`, or `pretrained: false`",
        )
    try:
        net = OWN[name](num_classes=outputs, **spec.args)
    except TypeError as error:
        raise RecipeError(f"{spec.arch}: `args` do not fit: {error}") from None
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
    for key in ("pretrained", "args", "taps"):
        if getattr(spec, key):
            raise RecipeError(
                f"{spec.arch}: `{key}` has no meaning for an ONNX file", hint=f"leave out `{key}`"
            )
    # what the file expects besides [0, 1] is not written in it: the recipe's mean/std say so
    return OnnxTeacher(Path(name)), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def _smp(name: str, spec: ModelSpec, outputs: int, pretrained: bool) -> Any:
    """segmentation-models-pytorch: a decoder on one of its encoders (`args.encoder_name`)."""
    try:
        import segmentation_models_pytorch as smp
    except ModuleNotFoundError:
        raise MissingOnHost(
            "an smp: network needs the package 'segmentation-models-pytorch'",
            hint="pip install 'edgekd[train]'",
        ) from None
    known = {arch.lower(): cls for arch, cls in smp.MODEL_ARCHITECTURES_MAPPING.items()}
    if name not in known:
        raise RecipeError(
            f"segmentation-models-pytorch has no '{name}'", hint=did_you_mean(name, known)
        )
    arguments = {"encoder_name": "resnet34", **spec.args}
    encoder = arguments["encoder_name"]
    if not str(encoder).startswith("tu-") and encoder not in smp.encoders.get_encoder_names():
        raise RecipeError(
            f"smp:{name}: there is no encoder '{encoder}'",
            hint=did_you_mean(str(encoder), smp.encoders.get_encoder_names())
            + "; timm's are tu-NAME",
        )
    if not str(encoder).startswith("tu-"):  # it takes any other word, and does nothing with it
        fitting = inspect.signature(known[name]).parameters
        for key in spec.args:
            if key not in fitting:
                raise RecipeError(
                    f"smp:{name}: `args` do not fit: there is no '{key}'",
                    hint=did_you_mean(key, fitting),
                )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net = smp.create_model(
                name,
                encoder_weights="imagenet" if pretrained else None,
                classes=outputs,
                **arguments,
            )
    except TypeError as error:
        raise RecipeError(f"smp:{name}: `args` do not fit: {error}") from None
    except Exception as error:
        if pretrained:
            raise _no_download(spec.arch, error) from None
        raise RecipeError(f"smp:{name} cannot be built: {error}") from None
    return net, IMAGENET_MEAN, IMAGENET_STD


def _no_download(arch: str, error: Exception) -> MissingOnHost:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return MissingOnHost(
        f"the pretrained weights of {arch} cannot be fetched: {reason}",
        hint="set `pretrained: path/to/weights.safetensors`, or `pretrained: false`",
    )


OWN = {"shufflenet_v1": ShuffleNetV1}
BUILDERS = {
    "timm": _timm,
    "torchvision": _torchvision,
    "smp": _smp,
    "edgekd": _own,
    "file": _file,
    "onnx": _onnx,
}
