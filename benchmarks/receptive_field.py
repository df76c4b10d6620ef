"""``python -m benchmarks.receptive_field``: how far networks see, trained and at their start, by gradients."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from jsonargparse import ArgumentParser
from torch import Tensor

from benchmarks.comparison import Settings
from benchmarks.machine import describe
from benchmarks.peer import build_peer, load_peer
from benchmarks.report import keep, one_table
from internimage.data import find_images, read_image, to_tensor
from internimage.inference import load_classifier
from internimage.inference.receptive_field import effective_receptive_field
from internimage.model import create_model
from internimage.model.layers import to_nchw
from internimage.model.weights import DEFAULT_WEIGHTS
from internimage.structures import Preprocess, ReceptiveField
from internimage.visualization.looks.receptive_field import receptive_field_figure

RESULTS = Path(__file__).resolve().parent / "results"
SHARES = (0.5, 0.9, 0.99)

Features = Callable[[Tensor], Tensor]


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table, and keep it with the picture."""
    parser = ArgumentParser(prog="python -m benchmarks.receptive_field", description=__doc__)
    parser.add_argument("images", type=str, help="a folder of photographs")
    parser.add_argument("--peer", type=str | None, default=None, help="the run of benchmarks.peer")
    parser.add_argument("--sizes", type=int, nargs=2, default=[96, 224], help="pixels for small and large networks")
    parser.add_argument("--output", type=str, default=str(RESULTS), help="folder for the result files")
    options = parser.parse_args(list(arguments))
    small, large = options.sizes
    paths = find_images([options.images])
    facts = describe(Settings(threads=torch.get_num_threads()), "receptive fields")
    facts["command"] = "python -m benchmarks.receptive_field IMAGES" + (" --peer RUN" if options.peer else "")
    facts["images"] = f"{len(paths)}, their middle squares; each network's last map"
    fields: dict[str, ReceptiveField] = {}
    for size, networks in ((small, _small(options.peer)), (large, _large())):
        for name, features, preprocess in networks:
            seen = Preprocess(size, 1.0, mean=preprocess.mean, std=preprocess.std)
            images = (to_tensor(read_image(path), seen)[None] for path in paths)
            fields[f"{name}, {size} px"] = effective_receptive_field(features, images)
            print(name, file=sys.stderr)
    head = ["side in pixels of the square that holds", *(f"{share:.0%}" for share in SHARES)]
    rows = [[name, *(str(field.side(share)) for share in SHARES)] for name, field in fields.items()]
    page = one_table("Effective receptive fields", facts, head, rows)
    sides = {name: {str(share): field.side(share) for share in SHARES} for name, field in fields.items()}
    print(page)
    stem = f"{facts['date'][:10]}_receptive_field_cpu"
    files = keep(Path(options.output), stem, json.dumps({"facts": facts, "sides": sides}, indent=1) + "\n", page)
    picture = files[0].with_suffix(".png")
    receptive_field_figure(fields).savefig(picture, dpi=80, facecolor="white")
    for file in (*files, picture):
        print(f"wrote {file}")
    return 0


def _small(peer: str | None) -> Iterator[tuple[str, Features, Preprocess]]:
    trained, card = load_classifier(DEFAULT_WEIGHTS)
    preprocess = card.preprocess or Preprocess()
    torch.manual_seed(0)
    for name, network in (("InternImage-pico", trained), ("InternImage-pico, random", create_model(trained.config))):
        yield name, _ours(network), preprocess
    if peer is not None:
        for name, network in (("ConvNeXt", load_peer(Path(peer))[0]), ("ConvNeXt, random", build_peer())):
            yield f"{name}, of the same size", _timms(network), preprocess


def _large() -> Iterator[tuple[str, Features, Preprocess]]:
    torch.manual_seed(0)
    plain = Preprocess()
    yield "InternImage-T, random", _ours(create_model("internimage_t")), plain
    # As they start, their branches add nothing: the last scale of each is 0, or 1e-6.
    for name, what, opened in (
        ("resnet50", "ResNet-50", {"zero_init_last": False}),
        ("convnext_tiny", "ConvNeXt-T", {"ls_init_value": 1.0}),
    ):
        yield f"{what}, random", _timms(timm.create_model(name)), plain
        setting = ", ".join(f"{key}={value}" for key, value in opened.items())
        options: dict[str, Any] = dict(opened)
        yield f"{what}, random, {setting}", _timms(timm.create_model(name, **options)), plain


def _ours(network: Any) -> Features:
    network.eval()
    return lambda image_NCHW: to_nchw(network.forward_features(image_NCHW)[-1])


def _timms(network: Any) -> Features:
    return network.eval().forward_features


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
