"""``internimage visualize activation``: which regions of a picture speak for a class."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from internimage.cli.visualize.options import image_of, new_parser, open_inspector, output_of, save_figure


def parser() -> ArgumentParser:
    """The command's options."""
    found = new_parser("activation", "Which regions of a picture speak for a class (Grad-CAM).")
    classes = "class names; by default the most probable one"
    found.add_argument("--classes", type=str, nargs="+", default=None, help=classes)
    found.add_argument("--stage", type=int, default=4, help="whose map is weighed, from 1 to 4")
    return found


def run(options: Namespace) -> int:
    """Draw it; returns the exit status."""
    from internimage.visualization.looks.activation import activation_figure

    image = image_of(options)
    output = output_of(options, "activation", [image])
    inspector = open_inspector(options)
    view = inspector.view(image)
    activations = [inspector.class_activation(view, label, stage=options.stage) for label in options.classes or [None]]
    return save_figure(activation_figure(view.picture, activations), output)
