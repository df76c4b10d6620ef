"""``internimage models``: the architectures and the released weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jsonargparse import ArgumentParser

from internimage.model import WEIGHTS, InternImageConfig, create_model, list_models
from internimage.model.variants import OURS, short_name
from internimage.model.weights import DETECTORS, SEGMENTERS, SHIPPED


def main(arguments: Sequence[str]) -> int:
    """Print five tables."""
    parser = ArgumentParser(prog="internimage models", description="List architectures and released weights.")
    parser.parse_args(list(arguments))
    print("Architectures (internimage.create_model(NAME)):\n")
    print(f"  {'name':<20} {'parameters':>13}  {'channels':>8}  {'depths':<10} {'source'}")
    for name in list_models():
        config = InternImageConfig.from_variant(name)
        with torch.device("meta"):
            parameters = sum(parameter.numel() for parameter in create_model(config).parameters())
        depths = "-".join(map(str, config.depths))
        paper = "paper" if config.core == "dcnv3" else "DCNv4's paper"
        source = "ours, for small machines" if short_name(name) in OURS else paper
        print(f"  {name:<20} {parameters:>13,}  {config.channels:>8}  {depths:<10} {source}")
    print("\nWeights that come with the package (no network needed; predict takes them where none are named):\n")
    print(f"  {'name':<32} {'size':>4}  {'classes':>7}  {'top-1':>5}  {'licence':<7}  {'trained on'}")
    for shipped in SHIPPED.values():
        numbers = f"{shipped.image_size:>4}  {shipped.num_classes:>7,}  {shipped.top1:>5.1f}"
        print(f"  {shipped.name:<32} {numbers}  {shipped.licence:<7}  {shipped.data}")
    print("\nReleased weights (pretrained=NAME; accuracies are the authors'):\n")
    print(f"  {'name':<32} {'size':>4}  {'classes':>7}  {'top-1':>5}  {'licence':<7}  {'trained on'}")
    for row in WEIGHTS.values():
        top1 = "-" if row.top1 is None else f"{row.top1:.1f}"
        print(
            f"  {row.name:<32} {row.image_size:>4}  {row.num_classes:>7,}  {top1:>5}  {row.licence:<7}  "
            f"{row.data.replace('ImageNet-', 'IN-')}"
        )
    print("\nReleased detectors (internimage.Detector(NAME), predict --weights NAME; AP is the authors'):\n")
    print(f"  {'name':<42} {'box AP':>6}  {'mask AP':>7}  {'licence':<7}  {'trained on'}")
    for detector in DETECTORS.values():
        box, mask = ("-" if each is None else f"{each:.1f}" for each in (detector.box_ap, detector.mask_ap))
        print(f"  {detector.name:<42} {box:>6}  {mask:>7}  {detector.licence:<7}  {detector.data}")
    print(
        "\nReleased segmenters (internimage.Segmenter(NAME), predict --weights NAME; the authors' mIoU, multi-scale):\n"
    )
    print(f"  {'name':<52} {'mIoU':>5}  {'multi':>5}  {'licence':<7}  {'trained on'}")
    for row in SEGMENTERS.values():
        single, multi = ("-" if each is None else f"{each:.1f}" for each in (row.miou, row.miou_multi_scale))
        print(f"  {row.name:<52} {single:>5}  {multi:>5}  {row.licence:<7}  {row.data}")
    return 0
