"""``internimage visualize receptive_field``: what of the input changes the middle of a map, network by network."""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from torch import Tensor

from internimage.cli.tables import table
from internimage.cli.visualize.options import add_output, images_of, output_of, save_figure
from internimage.data import read_image, to_tensor
from internimage.inference import load_classifier
from internimage.inference.loading import pick_device
from internimage.inference.receptive_field import effective_receptive_field
from internimage.model import create_model, list_models
from internimage.model.layers import to_nchw
from internimage.model.sampling import find_backbone
from internimage.model.weights import DEFAULT_WEIGHTS
from internimage.structures import Preprocess

_RANDOM, _TIMM = "random:", "timm:"
_SHARES = (0.5, 0.9, 0.99)

Features = Callable[[Tensor], Tensor]


def parser() -> ArgumentParser:
    """The command's options."""
    found = ArgumentParser(
        prog="internimage visualize receptive_field",
        description="What of the input changes the middle of a map, by gradients, averaged over images.",
    )
    images = "image files and folders; by default the photograph that comes with the package"
    found.add_argument("images", nargs="*", type=str, default=[], help=images)
    networks = (
        "each a classifier's weights, timm:NAME or timm:NAME=FILE (timm's weights, or a .safetensors file), or random: "
        "and any of these or a name from `internimage models`; options of timm follow behind commas, such as "
        "random:timm:convnext_tiny,ls_init_value=1.0"
    )
    default = [DEFAULT_WEIGHTS, _RANDOM + DEFAULT_WEIGHTS]
    found.add_argument("--networks", type=str, nargs="+", default=default, help=networks)
    found.add_argument("--size", type=int, default=224, help="side in pixels of the square that all of them see")
    found.add_argument("--stage", type=int, default=4, help="whose map, from 1 to 4")
    found.add_argument("--seed", type=int, default=0, help="of random weights")
    add_output(found, "receptive_field")
    found.add_argument("--device", type=str | None, default=None, help="such as cpu or cuda; the fastest by default")
    return found


def run(options: Namespace) -> int:
    """Draw it, with a table of the same on the screen; returns the exit status."""
    from internimage.visualization.looks.receptive_field import receptive_field_figure

    if options.size < 1 or not 1 <= options.stage <= 4:
        raise ValueError(f"--size must be at least 1 and --stage from 1 to 4, got {options.size} and {options.stage}")
    paths = images_of(options)
    output = output_of(options, "receptive_field", paths)
    device, fields = pick_device(options.device), {}
    for name in dict.fromkeys(options.networks):
        torch.manual_seed(options.seed)
        features, preprocess = _network(name, options.stage, device)
        seen = partial(_seen, size=options.size, preprocess=preprocess, device=device)
        fields[name] = effective_receptive_field(features, map(seen, paths))
    rows = [[name, *(str(field.side(share)) for share in _SHARES)] for name, field in fields.items()]
    header = ["side in pixels of the square that holds", *(f"{share:.0%}" for share in _SHARES)]
    print("\n".join(table(header, rows)))
    return save_figure(receptive_field_figure(fields), output)


def _seen(path: Path, size: int, preprocess: Preprocess, device: torch.device) -> Tensor:
    whole = Preprocess(size, 1.0, preprocess.interpolation, preprocess.mean, preprocess.std)
    return to_tensor(read_image(path, in_chans=preprocess.in_chans), whole)[None].to(device)


def _network(name: str, stage: int, device: torch.device) -> tuple[Features, Preprocess]:
    """A network's map of a stage as a function of its input, and how images become inputs."""
    plain = name.removeprefix(_RANDOM)
    is_random = plain != name
    if plain.startswith(_TIMM):
        return _timm(plain.removeprefix(_TIMM), stage, device, is_random=is_random)
    if plain in list_models():
        if not is_random:
            raise ValueError(f"{name} is an architecture without weights: write random:{name}, or name its weights")
        network, preprocess = create_model(plain), Preprocess()
    else:
        network, card = load_classifier(plain)
        preprocess = card.preprocess or Preprocess()
        network = create_model(network.config) if is_random else network
    backbone = find_backbone(network.eval().to(device))
    return lambda image_NCHW: to_nchw(backbone.forward_stages(image_NCHW, stage)[-1]), preprocess


def _timm(text: str, stage: int, device: torch.device, *, is_random: bool) -> tuple[Features, Preprocess]:
    try:
        import timm
    except ImportError as error:
        raise ImportError(f"timm:{text} needs timm: pip install 'internimage-torch[timm]'") from error
    wanted, *others = text.split(",")
    architecture, _, file = wanted.partition("=")
    options: dict[str, Any] = {key: _value(value) for key, _, value in (each.partition("=") for each in others)}
    if file:
        if Path(file).suffix != ".safetensors" or not Path(file).is_file():
            raise ValueError(f"timm's weights must be a .safetensors file, which runs no code; got {file}")
        options["pretrained_cfg_overlay"] = {"file": file}
    try:
        network: Any = timm.create_model(
            architecture, pretrained=not is_random, features_only=True, out_indices=(stage - 5,), **options
        )
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"timm can't build {text}: {str(error).splitlines()[0]}") from None
    settings = network.pretrained_cfg
    network.eval().to(device)
    preprocess = Preprocess(mean=settings.get("mean", Preprocess().mean), std=settings.get("std", Preprocess().std))
    return lambda image_NCHW: network(image_NCHW)[0], preprocess


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
