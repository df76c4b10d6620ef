"""``internimage visualize reach``: how far each block looks."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from internimage.cli.tables import table
from internimage.cli.visualize.options import images_of, new_parser, open_inspector, output_of, save_figure


def parser() -> ArgumentParser:
    """The command's options."""
    return new_parser(
        "reach", "How far each block looks, how evenly its points count, how many fall on nothing.", many=True
    )


def run(options: Namespace) -> int:
    """Draw it, with a table of the same on the screen; returns the exit status."""
    from internimage.visualization.looks.reach import reach_figure, reach_table

    images = images_of(options)
    output = output_of(options, "reach", images)
    inspector = open_inspector(options)
    traces = [inspector.sampling(image) for image in images]
    found = reach_table(traces)
    print("\n".join(table(found.header, [[str(cell) for cell in row] for row in found.rows])))
    return save_figure(reach_figure(traces), output)
