"""A stage's map as a picture: its three principal components as red, green and blue.

Shape legend: H W map, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from internimage.visualization.style import INK, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANEL = 2.8
# Of each component this share of the cells at either end is as dark or as bright as can be.
CLIPPED = 0.01


def principal_colours(map_HWC: NDArray[np.float32]) -> Image.Image:
    """The map's three largest principal components as RGB: cells of like colour hold like features.

    A component is bright where it grows with the channel that has most of it, so that the same map gives the same
    colours everywhere. Components that don't exist, of a map with fewer than three, are grey.

    Args:
        map_HWC: (H, W, C).

    Returns:
        A picture of W x H pixels.

    Raises:
        ValueError: another shape, or values that are no numbers.
    """
    if map_HWC.ndim != 3 or not map_HWC.size or not np.isfinite(map_HWC).all():
        raise ValueError(f"a map (H, W, C) of finite numbers is needed, got shape {map_HWC.shape}")
    cells = map_HWC.reshape(-1, map_HWC.shape[-1]).astype(np.float64)
    cells = cells - cells.mean(0)
    _, strengths, directions = np.linalg.svd(cells, full_matrices=False)
    colours = np.full((len(cells), 3), 0.5)
    for index in range(min(3, len(strengths))):
        if strengths[index] <= 1e-9 * max(strengths[0], 1e-300):
            break
        direction = directions[index]
        values = cells @ (direction * np.sign(direction[np.abs(direction).argmax()]))
        low, high = np.quantile(values, (CLIPPED, 1 - CLIPPED))
        colours[:, index] = ((values - low) / max(high - low, np.finfo(np.float64).tiny)).clip(0, 1)
    return Image.fromarray(np.rint(255 * colours).astype(np.uint8).reshape(*map_HWC.shape[:2], 3))


def features_figure(
    picture: Image.Image, maps_HWC: Sequence[NDArray[np.float32]], strides: Sequence[int], size: tuple[int, int]
) -> Figure:
    """The picture, and every stage's map by `principal_colours`; colours of two stages have nothing in common.

    Args:
        picture: what the network sees, at any resolution.
        maps_HWC: one map (H, W, C) per stage.
        strides: pixels of the network's input between neighbouring cells of each map.
        size: height and width of the network's input in pixels.
    """
    figure = new_figure(PANEL * (1 + len(maps_HWC)), PANEL * picture.height / picture.width + 0.4)
    panels = figure.subplots(1, 1 + len(maps_HWC), squeeze=False)[0]
    titles = [f"stage {index + 1}: {each.shape[1]} x {each.shape[0]}" for index, each in enumerate(maps_HWC)]
    whole = (-0.5, size[1] - 0.5, size[0] - 0.5, -0.5)
    panels[0].imshow(np.asarray(picture.convert("RGB")), interpolation="lanczos", extent=whole)
    for axes, map_HWC, stride in zip(panels[1:], maps_HWC, strides, strict=True):
        # A cell lies around its pixel, stride*index: half a cell is missing at the end, where the last one goes on.
        pixels = np.pad(np.asarray(principal_colours(map_HWC)), ((0, 1), (0, 1), (0, 0)), mode="edge")
        right, bottom = (stride * (length - 0.5) for length in (pixels.shape[1], pixels.shape[0]))
        axes.imshow(pixels, interpolation="nearest", extent=(-stride / 2, right, bottom, -stride / 2))
    for axes, title in zip(panels, ["what the network sees", *titles], strict=True):
        axes.set(xlim=whole[:2], ylim=whole[2:])
        axes.set_title(title, loc="left", fontsize=10, color=INK, pad=6)
        axes.set_axis_off()
    return figure
