"""``internimage visualize entropy``: where each block is choosy among its points."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from internimage.cli.visualize.options import image_of, new_parser, open_inspector, output_of, save_figure


def parser() -> ArgumentParser:
    """The command's options."""
    return new_parser("entropy", "Where each block is choosy: the entropy of its modulations over the picture.")


def run(options: Namespace) -> int:
    """Draw it; returns the exit status."""
    from internimage.visualization.looks.reach import entropy_figure

    image = image_of(options)
    output = output_of(options, "entropy", [image])
    inspector = open_inspector(options)
    view = inspector.view(image)
    return save_figure(entropy_figure(view.picture, inspector.sampling(view)), output)
