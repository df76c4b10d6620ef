"""``internimage visualize features``: the maps of the four stages as colours."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from internimage.cli.visualize.options import image_of, new_parser, open_inspector, output_of, save_figure


def parser() -> ArgumentParser:
    """The command's options."""
    return new_parser("features", "The maps of the four stages: their three principal components as colours.")


def run(options: Namespace) -> int:
    """Draw it; returns the exit status."""
    from internimage.visualization.looks.features import features_figure

    image = image_of(options)
    output = output_of(options, "features", [image])
    inspector = open_inspector(options)
    view = inspector.view(image)
    return save_figure(
        features_figure(view.picture, inspector.stage_features(view), inspector.strides, view.size), output
    )
