"""What the pictures have in common: which weights, which images, and where the picture goes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from internimage.data import find_images, sample_photo
from internimage.inference.inspection import Inspector
from internimage.model.weights import DEFAULT_WEIGHTS, SHIPPED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

# Of the saved figure, in dots per inch.
_DPI = 150
_SUFFIXES = (".png", ".svg", ".pdf", ".jpg", ".webp")


def new_parser(what: str, description: str, *, many: bool = False) -> ArgumentParser:
    """A parser with the images, the weights and the output that every picture takes.

    Args:
        what: the picture, as it is typed.
        description: one sentence.
        many: whether it is of several images at once.
    """
    parser = ArgumentParser(prog=f"internimage visualize {what}", description=description)
    if many:
        images = "image files and folders; by default the photograph that comes with the package"
        parser.add_argument("images", nargs="*", type=str, default=[], help=images)
    else:
        image = "an image file; by default the photograph that comes with the package"
        parser.add_argument("image", nargs="?", type=str | None, default=None, help=image)
    weights = "a file, a run's folder, a weight name or a hub id; by default a small classifier of the package's own"
    parser.add_argument("--weights", type=str | None, default=None, help=weights)
    size = "show the network whole images, this many pixels at their shorter side; by default what it sees in use"
    parser.add_argument("--size", type=int | None, default=None, help=size)
    add_output(parser, what)
    parser.add_argument("--device", type=str | None, default=None, help="such as cpu or cuda; the fastest by default")
    return parser


def add_output(parser: ArgumentParser, what: str) -> None:
    """Where the picture goes."""
    output = f"the picture's file, {', '.join(_SUFFIXES)}; by default IMAGE_{what}.png in this folder"
    parser.add_argument("--output", type=str | None, default=None, help=output)
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is already there")


def open_inspector(options: Namespace) -> Inspector:
    """The network; says so where it is the package's own."""
    weights = options.weights
    if weights is None:
        weights, row = DEFAULT_WEIGHTS, SHIPPED[DEFAULT_WEIGHTS]
        log.info("no --weights: %s, which come with the package (%s, %d pixels)", row.name, row.data, row.image_size)
    return Inspector(weights, size=options.size, device=options.device)


def image_of(options: Namespace) -> Path:
    """The image, or the package's photograph."""
    return sample_photo() if options.image is None else Path(options.image)


def images_of(options: Namespace) -> list[Path]:
    """The images, those in folders too, or the package's photograph."""
    return find_images(options.images) if options.images else [sample_photo()]


def output_of(options: Namespace, what: str, images: Sequence[Path]) -> Path:
    """Where the picture goes, before any work is done.

    Args:
        options: with ``output`` and ``overwrite``.
        what: the picture, as it is typed.
        images: of which it is.

    Raises:
        ValueError: a file is there, or its name has no suffix of a picture.
    """
    stem = images[0].stem if len(images) == 1 else "images"
    path = Path(f"{stem}_{what}.png") if options.output is None else Path(options.output)
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"--output must end in one of {', '.join(_SUFFIXES)}, got {path}")
    if path.exists() and not options.overwrite:
        raise ValueError(f"{path} exists; choose another --output, or add --overwrite")
    if any(path.resolve() == image.resolve() for image in images):
        raise ValueError(f"{path} is the image itself; choose another --output")
    return path


def save_figure(figure: Figure, path: Path) -> int:
    """Write it and say so; returns the exit status."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"dpi": _DPI, "facecolor": "white"}
    figure.savefig(path, **options)
    print(path)
    return 0
