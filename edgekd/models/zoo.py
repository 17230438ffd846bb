"""The networks of DSP-KD (Bioengineering 2024, 11(1):70): their size here and as it is printed.

Its Table 1 mixes heads: the parameters of both EfficientNets and of MobileNetV2 are those of 1000
classes, all others and all multiply-accumulates those of the 8 of ISIC2019. So a network may have
two lines here, each with the figures that belong to its head. The EfficientNets are torchvision's:
timm's take the mean for squeeze-and-excitation with an operation that fvcore does not count, which
makes 1.536 and 0.398 billion of the printed 1.543 and 0.400. The variant of ConvNeXt, the groups of
ShuffleNetV1 and the width of ShuffleNetV2 follow from the printed counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgekd import published
from edgekd.models.build import build_network
from edgekd.models.complexity import Complexity, count
from edgekd.recipe import ModelSpec

SIZE = 224
DIGITS = 3  # that the tables print, of millions and billions
MATCH, DIFFERS, UNKNOWN = "match", "differs", "not reproducible"
BOTH = ("params_m", "gmacs")


@dataclass(frozen=True)
class Entry:
    """A line of a published table, or of it the figures (`printed`) of one head."""

    name: str
    arch: str | None  # as a recipe names it; None: not known
    classes: int = 8
    printed: tuple[str, ...] = BOTH
    table: str = "dspkd_table1"
    note: str = ""


@dataclass(frozen=True)
class Size:
    """What was counted and what is printed, in millions and billions at 224 pixels."""

    network: str
    arch: str | None
    classes: int
    params_m: float | None
    published_params_m: float | None
    gmacs: float | None
    published_gmacs: float | None
    table: str
    status: str
    note: str


SAME = "the network is ShuffleNetV2; distillation cannot change its size"
NETWORKS = (
    Entry("Res2Net101", "timm:res2net101_26w_4s"),
    Entry("ConvNeXt", "timm:convnext_base"),
    Entry("EfficientNet-B4", "torchvision:efficientnet_b4", 1000, ("params_m",)),
    Entry("EfficientNet-B4", "torchvision:efficientnet_b4", 8, ("gmacs",)),
    Entry("ShuffleNetV1", "edgekd:shufflenet_v1"),
    Entry("ShuffleNetV2", "torchvision:shufflenet_v2_x1_0"),
    Entry("EfficientNet-B0", "torchvision:efficientnet_b0", 1000, ("params_m",)),
    Entry("EfficientNet-B0", "torchvision:efficientnet_b0", 8, ("gmacs",)),
    Entry("MobileNetV2", "torchvision:mobilenet_v2", 1000, ("params_m",)),
    Entry("MobileNetV2", "torchvision:mobilenet_v2", 8, ("gmacs",)),
    Entry("SSD-KD", "torchvision:shufflenet_v2_x1_0", table="dspkd_table6", note=SAME),
    Entry("DSP-KD", "torchvision:shufflenet_v2_x1_0", table="dspkd_table6", note=SAME),
    Entry("wide-ShuffleNet", None, table="dspkd_table6"),
)


def survey() -> list[Size]:
    """Count every network, with random weights."""
    done: dict[tuple[str, int], Complexity] = {}
    found = []
    for network in NETWORKS:
        printed = _printed(network)
        values: dict[str, float] = {}
        if network.arch is not None:
            key = network.arch, network.classes
            if key not in done:
                done[key] = measure(*key)
            values = {
                "params_m": round(done[key].params / 1e6, DIGITS),
                "gmacs": round(done[key].macs / 1e9, DIGITS),
            }
        [row] = published.table(network.table).rows_of(network.name)
        found.append(
            Size(
                network=network.name,
                arch=network.arch,
                classes=network.classes,
                params_m=values.get("params_m"),
                published_params_m=printed.get("params_m"),
                gmacs=values.get("gmacs"),
                published_gmacs=printed.get("gmacs"),
                table=network.table,
                status=_status(values, printed),
                note=network.note or ("" if values else row.reason or ""),
            )
        )
    return found


def measure(arch: str, classes: int) -> Complexity:
    """Parameters and multiply-accumulates of a network for images of 224 pixels."""
    return count(build_network(ModelSpec(arch=arch), outputs=classes), SIZE)


def _printed(network: Entry) -> dict[str, float]:
    [row] = published.table(network.table).rows_of(network.name)
    figures = {name: row.values.get(name) for name in network.printed}
    return {name: value for name, value in figures.items() if value is not None}


def _status(values: dict[str, float], printed: dict[str, float]) -> str:
    if not values:
        return UNKNOWN
    return MATCH if all(values[name] == printed[name] for name in printed) else DIFFERS
