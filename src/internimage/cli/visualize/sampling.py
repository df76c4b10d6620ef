"""``internimage visualize sampling``: where a block looks from one place of a picture."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from internimage.cli.visualize.options import image_of, new_parser, open_inspector, output_of, save_figure


def parser() -> ArgumentParser:
    """The command's options."""
    found = new_parser("sampling", "Where a block looks from one place: its points, coloured by how much they count.")
    pixel = "the place, x and y in pixels of the image; by default the middle of what the network sees"
    found.add_argument("--pixel", type=float, nargs=2, default=None, help=pixel)
    found.add_argument("--stage", type=int, default=3, help="from 1 to 4")
    found.add_argument("--block", type=int | None, default=None, help="from 1; by default the last of the stage")
    found.add_argument("--depth", type=int, default=3, help="through how many blocks points are followed back")
    return found


def run(options: Namespace) -> int:
    """Draw it; returns the exit status."""
    from internimage.visualization.looks.sampling import sampling_figure

    image = image_of(options)
    output = output_of(options, "sampling", [image])
    inspector = open_inspector(options)
    view = inspector.view(image)
    trace = inspector.sampling(view)
    middle = trace.size[1] / 2, trace.size[0] / 2
    place = middle if options.pixel is None else view.to_input(*options.pixel)
    figure = sampling_figure(view.picture, trace, place, stage=options.stage, block=options.block, depth=options.depth)
    return save_figure(figure, output)
