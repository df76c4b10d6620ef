"""The networks that are compared: ours, the official one with the same weights, and timm's of the same size."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from benchmarks.comparison import Settings
from benchmarks.official import OFFICIAL_NAME, official_network
from internimage import InternImageConfig, create_model, load_checkpoint


@dataclass(frozen=True)
class NetworkSpec:
    """How to build a network; can be pickled.

    Args:
        name: in tables.
        source: whose code.
        model: ours: a variant; official: the variant whose settings it takes; timm: timm's name.
        official: the checkout, for the official source.
    """

    name: str
    source: Literal["internimage", "official", "timm"]
    model: str
    official: Path | None = None


@dataclass(frozen=True)
class Line:
    """Who takes part, ours first; why others do not; and the image side in pixels."""

    specs: tuple[NetworkSpec, ...]
    skipped: tuple[tuple[str, str], ...]
    size: int


def line_up(settings: Settings) -> Line:
    """InternImage-T, the official T if there is a checkout, ConvNeXt-T and Swin-T if there is timm."""
    ours = "internimage_femto" if settings.quick else "internimage_t"
    theirs = ("convnext_atto",) if settings.quick else ("convnext_tiny", "swin_tiny_patch4_window7_224")
    specs = [NetworkSpec(ours, "internimage", ours)]
    skipped: list[tuple[str, str]] = []
    has_timm = find_spec("timm") is not None
    if settings.official is None:
        skipped.append((OFFICIAL_NAME, "no checkout given (--official PATH)"))
    elif has_timm:
        specs.append(NetworkSpec(OFFICIAL_NAME, "official", ours, settings.official))
    else:
        skipped.append((OFFICIAL_NAME, "its network needs timm, which is not installed"))
    for model in theirs:
        if has_timm:
            specs.append(NetworkSpec(f"timm {model}", "timm", model))
        else:
            skipped.append((f"timm {model}", "timm is not installed"))
    return Line(tuple(specs), tuple(skipped), 64 if settings.quick else 224)


def build_network(spec: NetworkSpec) -> nn.Module:
    """The network with seeded random weights; ours and the official one look off the grid, as trained ones do."""
    torch.manual_seed(0)
    if spec.source == "timm":
        import timm

        return timm.create_model(spec.model, pretrained=False)
    if spec.source == "official":
        assert spec.official is not None
        return scatter_sampling(official_network(spec.official, InternImageConfig.from_variant(spec.model)))
    return scatter_sampling(create_model(spec.model))


def build_networks(specs: tuple[NetworkSpec, ...], device: torch.device) -> dict[str, nn.Module]:
    """All of them, by name; ours takes the official one's weights through the public loader."""
    networks = {spec.name: build_network(spec) for spec in specs}
    if OFFICIAL_NAME in networks:
        copy_official_weights(networks[OFFICIAL_NAME], networks[specs[0].name])
    return {name: network.to(device) for name, network in networks.items()}


def copy_official_weights(official: nn.Module, ours: nn.Module) -> None:
    """Through a file, as a user's weights come."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "official.pth"
        torch.save({"model": official.state_dict()}, file)
        load_checkpoint(ours, file)


@torch.no_grad()
def scatter_sampling(network: nn.Module) -> nn.Module:
    """Give DCNv3's offsets and modulations random weights: at the start they are zero and every point is on the grid.

    On the grid bilinear weights are 0 or 1, so a wrong offset would go unseen. Nor may a point come so close to it
    that rounding decides on which side it lies: gradients jump there.
    """
    sampling = [name for name, _ in network.named_parameters() if ".dcn.offset." in name or ".dcn.mask." in name]
    assert sampling, "no layer of this network predicts offsets under a name that we know"
    for name in sampling:
        parameter = network.get_parameter(name)
        if name.endswith("weight"):
            # Offsets vary by some hundredths of a pixel from place to place.
            parameter.normal_(std=0.04 / parameter.shape[1] ** 0.5)
        else:
            parameter.copy_(torch.randint_like(parameter, -2, 2) + torch.empty_like(parameter).uniform_(0.25, 0.75))
    return network


def random_images(batch: int, channels: int, size: int, device: torch.device) -> torch.Tensor:
    """(N, C, H, W), seeded, of order one as normalised pixels are."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, channels, size, size, generator=generator).to(device)


def autocast(device: torch.device, enabled: bool) -> Any:
    """bfloat16 autocast, or nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)
