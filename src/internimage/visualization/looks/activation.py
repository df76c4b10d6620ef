"""Which regions of a picture speak for a class, beside the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from internimage.structures import ClassActivation
from internimage.visualization.looks.overlay import lay_over
from internimage.visualization.style import INK, new_figure, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANEL = 3.4


def activation_figure(picture: Image.Image, activations: Sequence[ClassActivation]) -> Figure:
    """The picture, and for each class a picture of the regions that speak for it: the lighter, the more.

    Each class has a scale of its own; a class that no region speaks for stays dark.

    Args:
        picture: what the network sees, at any resolution.
        activations: at least one, of the same view.

    Raises:
        ValueError: no activations.
    """
    if not activations:
        raise ValueError("there is nothing to show: name at least one class")
    panels = [("what the network sees", picture)]
    panels += [
        (f"{each.label} {percent(each.score)}", lay_over(picture, each.values, stride=each.stride, size=each.size))
        for each in activations
    ]
    figure = new_figure(PANEL * len(panels), PANEL * picture.height / picture.width + 0.4)
    for axes, (title, image) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        axes.imshow(np.asarray(image.convert("RGB")), interpolation="lanczos")
        axes.set_title(title, loc="left", fontsize=10, color=INK, pad=6)
        axes.set_axis_off()
    return figure
