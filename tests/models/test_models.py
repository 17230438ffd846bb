"""Networks: names, taps, heads, weights that do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgekd.errors import CheckpointError, MissingOnHost, RecipeError
from edgekd.models.build import build_network, model_seed
from edgekd.models.network import Network
from edgekd.models.taps import Recorder, head_of, locate
from edgekd.models.weights import load_weights
from edgekd.recipe import ModelSpec

OWN = """
import torch
def build(num_classes, width=8):
    return torch.nn.Sequential(torch.nn.Conv2d(3, width, 3, stride=4), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(width, num_classes))
"""


def network(arch: str, outputs: int = 8, **more: object) -> Network:
    return build_network(ModelSpec.model_validate({"arch": arch, **more}), outputs=outputs)


TAPS = {
    "timm:resnet18": {"s1": (64, 16), "s2": (128, 8), "s3": (256, 4), "s4": (512, 2),
                      "last": (512, 2), "stem": (64, 16)},
    "torchvision:resnet18": {"s1": (64, 16), "s4": (512, 2), "last": (512, 2), "stem": (64, 16)},
    "torchvision:shufflenet_v2_x1_0": {"s1": (24, 16), "s2": (116, 8), "s3": (232, 4),
                                       "s4": (464, 2), "last": (1024, 2)},
    "edgekd:shufflenet_v1": {"stem": (24, 32), "s1": (24, 16), "s2": (240, 8), "s3": (480, 4),
                             "s4": (960, 2), "last": (960, 2)},
    "torchvision:mobilenet_v3_small": {"s1": (16, 16), "s4": (96, 2), "last": (576, 2)},
    "torchvision:mobilenet_v2": {"s1": (24, 16), "s4": (320, 2), "last": (1280, 2)},
    "timm:efficientnet_b0": {"s1": (24, 16), "s2": (40, 8), "s3": (112, 4), "s4": (320, 2),
                             "last": (1280, 2)},
    "timm:convnext_atto": {"s1": (40, 16), "s4": (320, 2), "last": (320, 2), "stem": (40, 16)},
}  # fmt: skip


@pytest.mark.parametrize("arch", sorted(TAPS))
def test_taps_have_the_specified_channels_and_sizes(arch: str) -> None:
    model = network(arch).eval()
    recorder = Recorder(model, set(TAPS[arch]) | {"pooled"}, "m")
    recorder.start()
    with torch.no_grad():
        logits = model(torch.rand(2, 3, 64, 64))
    maps = recorder.take()
    assert {name: (maps[name].shape[1], maps[name].shape[-1]) for name in TAPS[arch]} == TAPS[arch]
    with torch.no_grad():
        again = head_of(model)(maps["pooled"])
    torch.testing.assert_close(again, logits)


def test_the_recipe_can_name_a_tap(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN, encoding="utf-8")
    model = network(f"file:{file}:build", taps={"s1": "1", "last": "2:input"})
    recorder = Recorder(model, {"s1", "pooled"}, "own")
    model(torch.rand(3, 3, 16, 16))
    assert not recorder.maps  # nobody asked
    recorder.start()
    model(torch.rand(2, 3, 16, 16))
    assert {name: tuple(value.shape) for name, value in recorder.take().items()} == {
        "s1": (2, 8, 4, 4), "last": (2, 8, 4, 4), "pooled": (2, 8)}  # fmt: skip
    with pytest.raises(RecipeError, match="no module '9'"):
        locate(network(f"file:{file}:build", taps={"s1": "9"}))
    with pytest.raises(RecipeError, match="has no tap 's3'"):
        Recorder(network(f"file:{file}:build"), {"s3"}, "own")


def test_ones_own_network_takes_its_arguments_and_a_local_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN, encoding="utf-8")
    first = network(f"file:{file}:build", args={"width": 4})
    save_file(first.net.state_dict(), tmp_path / "w.safetensors")
    torch.save({"state_dict": first.net.state_dict()}, tmp_path / "w.pth")
    for weights in ("w.safetensors", "w.pth"):
        again = network(
            f"file:{file}:build", args={"width": 4}, pretrained=str(tmp_path / weights), seed=9
        )
        torch.testing.assert_close(again.net.state_dict(), first.net.state_dict())
    with pytest.raises(RecipeError, match="do not fit"):
        network(f"file:{file}:build", args={"wide": 4})
    with pytest.raises(RecipeError, match="no function 'make'"):
        network(f"file:{file}:make")
    with pytest.raises(RecipeError, match="no such Python file"):
        network(f"file:{tmp_path}/none.py:build")


def test_weights_of_another_architecture_name_the_first_tensor_that_differs(
    tmp_path: Path,
) -> None:
    path = tmp_path / "w.safetensors"
    save_file(network("torchvision:shufflenet_v2_x0_5").net.state_dict(), path)
    with pytest.raises(CheckpointError, match=r"another architecture: .*conv1"):
        load_weights(network("timm:resnet18"), path)


def test_a_backbone_with_another_head_starts_a_fresh_head_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "w.safetensors"
    source = network("torchvision:shufflenet_v2_x0_5", outputs=10)
    save_file(source.net.state_dict(), path)
    loaded = network("torchvision:shufflenet_v2_x0_5", outputs=3, pretrained=str(path), seed=5)
    assert "starts fresh" in capsys.readouterr().err
    torch.testing.assert_close(
        loaded.net.state_dict()["conv1.0.weight"], source.net.state_dict()["conv1.0.weight"]
    )
    with pytest.raises(CheckpointError):
        load_weights(network("torchvision:shufflenet_v2_x0_5", outputs=3), path)


class Evil:
    def __reduce__(self) -> object:
        return (Path.touch, (Path("pwned"),))


def test_a_pickle_from_a_stranger_is_not_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="tensors only"):
        load_weights(network("torchvision:shufflenet_v2_x0_5"), tmp_path / "evil.pth")
    assert not Path("pwned").exists()


def test_unknown_names_come_with_a_suggestion() -> None:
    for arch, close in (
        ("timm:resnet81", "resnet"),
        ("torchvision:shufflenet_v2_x1", "shufflenet"),
    ):
        with pytest.raises(RecipeError) as caught:
            network(arch)
        assert close in (caught.value.hint or "")


def test_weights_that_cannot_be_fetched_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    def offline(*args: object, **kwargs: object) -> nn.Module:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(MissingOnHost, match="cannot be fetched") as caught:
        network("timm:resnet18", pretrained=True)
    assert "safetensors" in (caught.value.hint or "")


def test_initialisation_depends_on_the_seed_and_nothing_else() -> None:
    spec = ModelSpec(arch="torchvision:shufflenet_v2_x0_5")
    torch.manual_seed(1)
    first = build_network(spec, outputs=2, seed=model_seed(1, "a")).net.state_dict()
    torch.manual_seed(2)
    same = build_network(spec, outputs=2, seed=model_seed(1, "a")).net.state_dict()
    other = build_network(spec, outputs=2, seed=model_seed(1, "b")).net.state_dict()
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not torch.equal(first["conv1.0.weight"], other["conv1.0.weight"])


def test_an_onnx_teacher_gives_the_logits_of_its_file_at_any_batch(tmp_path: Path) -> None:
    from tests.tiny_onnx import write_classifier

    path = tmp_path / "teacher.onnx"
    write_classifier(path, size=16, classes=3)
    teacher = network(f"onnx:{path}", outputs=3)
    images = torch.rand(5, 3, 16, 16)
    assert teacher(images).shape == (5, 3)
    torch.testing.assert_close(teacher(images)[1:2], teacher(images[1:2]))


@pytest.mark.parametrize(
    "arch", ["timm:resnet18", "timm:resnet50", "torchvision:resnet18", "torchvision:resnet50"]
)
def test_a_tap_before_the_last_activation_is_what_the_activation_gets(arch: str) -> None:
    network = build_network(ModelSpec(arch=arch), outputs=3).eval()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):  # timm starts blocks as identities
            nn.init.ones_(layer.weight)
    recorder = Recorder(network, {"s1", "s1.pre", "s4.pre", "last"}, "net")
    recorder.start()
    with torch.no_grad():
        network(torch.rand(2, 3, 64, 64))
    maps = recorder.take()
    assert (maps["s1.pre"] < 0).any()
    torch.testing.assert_close(maps["s1.pre"].relu(), maps["s1"], rtol=0, atol=0)
    torch.testing.assert_close(maps["s4.pre"].relu(), maps["last"], rtol=0, atol=0)


def test_a_network_without_such_blocks_has_no_tap_before_the_activation() -> None:
    network = build_network(ModelSpec(arch="timm:mobilenetv3_small_050"), outputs=3)
    with pytest.raises(RecipeError, match=r"model 'student' has no tap 's1\.pre'") as caught:
        Recorder(network, {"s1.pre"}, "student")
    assert caught.value.hint == "tap_activation=post"


@pytest.mark.parametrize(
    "arch", ["timm:mobilenetv4_conv_small", "torchvision:mobilenet_v3_small", "timm:ghostnetv2_100"]
)
def test_a_head_that_is_asked_again_answers_as_in_evaluation(arch: str) -> None:
    """Regions must not move the statistics of a BatchNorm there, nor see a dropout."""
    net = network(arch).eval()
    recorder = Recorder(net, {"pooled"}, "net")
    recorder.start()
    with torch.no_grad():
        logits = net(torch.rand(2, 3, 64, 64))
    pooled = recorder.take()["pooled"]
    net.train()
    before = {name: value.clone() for name, value in net.named_buffers()}
    torch.testing.assert_close(head_of(net)(pooled), logits, rtol=1e-4, atol=1e-5)
    assert all(module.training for module in net.modules())
    for name, value in net.named_buffers():
        assert torch.equal(value, before[name]), name
