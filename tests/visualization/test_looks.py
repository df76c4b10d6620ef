"""Pictures of where a network looks, by what is on them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageColor

from internimage.structures import BlockSampling, ClassActivation, ReceptiveField, SamplingPoints, SamplingTrace
from internimage.visualization.looks.activation import activation_figure
from internimage.visualization.looks.features import features_figure, principal_colours
from internimage.visualization.looks.overlay import HEAT, heat_colour, lay_over, stretched
from internimage.visualization.looks.reach import entropy_figure, outside, reach, reach_figure, reach_table
from internimage.visualization.looks.receptive_field import receptive_field_figure
from internimage.visualization.looks.sampling import draw_points, flow_figure, sampling_figure

GREY = Image.new("RGB", (1280, 640), "#808080")


def points(*rows: tuple[float, float, float]) -> SamplingPoints:
    """Rows of x, y, weight in a network's input of 32 x 64 pixels."""
    table = np.array(rows, np.float32).reshape(-1, 3)
    return SamplingPoints((32.0, 16.0), table[:, :2], table[:, 2], np.zeros(len(table), np.int64), 1, (32, 64))


def pixel(picture: Image.Image, x: float, y: float) -> np.ndarray:
    """The colour at a place in the network's input."""
    return np.array(picture.getpixel((int((x + 0.5) * picture.width / 64), int((y + 0.5) * picture.height / 32))))


def test_points_lie_where_they_should_in_the_colour_of_their_weight() -> None:
    picture = draw_points(GREY, points((8, 4, 1.0), (48, 24, 0.5), (20, 28, 0.0)), side=1280)
    assert picture.size == GREY.size
    for x, y, share in ((8, 4, 1.0), (48, 24, 0.5), (20, 28, 0.0)):
        expected = np.array(ImageColor.getrgb(heat_colour(share)))
        assert np.abs(pixel(picture, x, y) - expected).max() < 12, (x, y)
    # The ring is open: its middle shows the picture, darker than it was.
    assert 80 < pixel(picture, 32, 16).mean() < 115
    nothing = np.asarray(draw_points(GREY, points(), side=1280))
    changed = (np.asarray(picture) != nothing).any(-1)
    rows, columns = np.nonzero(changed)
    assert columns.min() > (8 * 20) - 40
    assert rows.max() < 29.5 * 20


def test_points_outside_are_not_drawn_and_set_no_scale() -> None:
    alone = draw_points(GREY, points((8, 4, 0.1)))
    beside = draw_points(GREY, points((8, 4, 0.1), (-3, 4, 0.9), (70, 4, 0.9)))
    np.testing.assert_array_equal(np.asarray(alone), np.asarray(beside))
    small = Image.new("L", (32, 16), 90)
    assert draw_points(small, points((8, 4, 0.1))).size == (960, 480)
    with pytest.raises(ValueError, match="scale must be positive, got 0"):
        draw_points(GREY, points(), scale=0)


def trace(groups: int = 2) -> SamplingTrace:
    """Two stages of two blocks each, on 32 x 64 pixels."""
    dice, blocks = np.random.default_rng(0), []
    for stage, stride in ((1, 4), (2, 8)):
        height, width = 32 // stride, 64 // stride
        rows, columns = np.indices((height, width))
        centers = np.stack((columns, rows), -1)[:, :, None, None] * stride
        for block in (1, 2):
            positions = centers + dice.normal(0, 2 * stride, (height, width, groups, 9, 2))
            modulations = dice.dirichlet(np.ones(9), (height, width, groups))
            blocks.append(
                BlockSampling(stage, block, stride, positions.astype(np.float32), modulations.astype(np.float32))
            )
    return SamplingTrace((32, 64), tuple(blocks))


@pytest.mark.parametrize(("groups", "shown"), [(1, 1), (5, 5), (20, 12)])
def test_a_sampling_figure_has_a_panel_for_everything(groups: int, shown: int) -> None:
    figure = sampling_figure(GREY, trace(groups), (30, 10), stage=2, depth=3)
    titles = [axes.get_title(loc="left") for part in figure.subfigs for axes in part.axes]
    titles = [title for title in titles if title]
    plural = "group" if groups == 1 else "groups"
    assert titles[0].startswith(f"stage 2, block 2: {groups} {plural} of 9, map 8 x 4; ")
    assert titles[1] == "followed back through 3 blocks"
    assert titles[2].startswith("all that counts, 4 blocks back; ")
    assert [title.split()[0] for title in titles[3:]] == ["group"] * shown
    assert titles[3:][0] == "group 1"
    assert titles[3:][-1] == f"group {groups}"
    with pytest.raises(ValueError, match="there is no stage 3"):
        sampling_figure(GREY, trace(), (30, 10), stage=3)


def test_flow_doubles_its_way_back() -> None:
    titles = [axes.get_title(loc="left").split(";")[0] for axes in flow_figure(GREY, trace(), (30, 10), stage=2).axes]
    words = [f"all that counts, {count} back" for count in ("1 block", "2 blocks", "4 blocks")]
    assert titles == words


def test_reach_by_hand() -> None:
    """Two cells, two points each: distances 0 and 1, and 3 and 10, of weights 0.5, 0.5, 0.95 and 0.05."""
    positions = np.zeros((1, 2, 1, 2, 2), np.float32)
    positions[0, 0, 0, 1] = (1, 0)
    positions[0, 1, 0] = [(2, 3), (2, 10)]
    modulations = np.array([[[[0.5, 0.5]], [[0.95, 0.05]]]], np.float32)
    block = BlockSampling(1, 1, 2, positions, modulations)
    assert reach([block]).tolist() == [0, 0, 1, 3, 3]
    assert reach([block, block]).tolist() == [0, 0, 1, 3, 3]
    # Rows 3 and 10 are one and a half and five cells below a map of one row.
    assert outside([block]) == pytest.approx(0.5)
    table = reach_table([SamplingTrace((2, 4), (block,))])
    assert table.rows[0] == ("1.1", "1.0", "0.0", "3.0", "0.50", "0.64", "50.0%")
    with pytest.raises(ValueError, match="give at least one image"):
        reach_figure([])


def test_figures_of_blocks() -> None:
    labels = [label.get_text() for label in reach_figure([trace()]).axes[0].get_yticklabels()]
    assert labels == ["1.1", "1.2", "2.1", "2.2"]
    titles = [axes.get_title(loc="left") for axes in entropy_figure(GREY, trace()).axes]
    assert [title.split(":")[0] for title in titles[:4]] == labels


def test_a_maps_cells_belong_to_the_first_pixels_of_their_strides() -> None:
    values = np.zeros((4, 8))
    values[1, 3] = 1
    large = stretched(values, 8, (32, 64), (640, 320))
    row, column = np.unravel_index(large.argmax(), large.shape)
    assert abs(column - (24 + 0.5) * 10) <= 1
    assert abs(row - (8 + 0.5) * 10) <= 1
    picture = np.asarray(lay_over(GREY, values, stride=8, size=(32, 64), side=1280), dtype=float).sum(-1)
    row, column = np.unravel_index(picture.argmax(), picture.shape)
    assert (abs(column - 490) <= 3, abs(row - 170) <= 3) == (True, True)
    with pytest.raises(ValueError, match="values from 0 to 1"):
        lay_over(GREY, values + 0.5, stride=8, size=(32, 64))
    lightness = [sum(ImageColor.getrgb(colour)) for colour in HEAT]
    assert lightness == sorted(lightness)


def test_principal_colours_by_hand() -> None:
    """Cells of two kinds along one channel are black and white in red; there is no second component."""
    map_HWC = np.zeros((2, 2, 4), np.float32)
    map_HWC[0, :, 2], map_HWC[1, :, 2] = 5, 1
    assert np.asarray(principal_colours(map_HWC)).tolist() == [[[255, 128, 128]] * 2, [[0, 128, 128]] * 2]
    dice = np.random.default_rng(0)
    features = dice.normal(size=(6, 7, 5)).astype(np.float32)
    turned = features @ np.linalg.qr(dice.normal(size=(5, 5)))[0].astype(np.float32)
    first, second = (np.asarray(principal_colours(each), dtype=int) for each in (features, turned))
    # A rotation of the channels leaves the colours, up to the direction of each.
    assert all(
        min(np.abs(a - b).max(), np.abs(a - (255 - b)).max()) <= 2 for a, b in zip(first.T, second.T, strict=True)
    )
    with pytest.raises(ValueError, match="finite numbers is needed"):
        principal_colours(features * np.nan)


def test_other_figures_have_a_panel_each() -> None:
    activation = ClassActivation(np.ones((2, 4), np.float32), "cat", 0.72, 16, (32, 64))
    titles = [axes.get_title(loc="left") for axes in activation_figure(GREY, [activation]).axes]
    assert titles == ["what the network sees", "cat 72%"]
    maps = [np.random.default_rng(0).normal(size=(4, 8, 6)).astype(np.float32)] * 2
    titles = [axes.get_title(loc="left") for axes in features_figure(GREY, maps, (8, 8), (32, 64)).axes]
    assert titles == ["what the network sees", "stage 1: 8 x 4", "stage 2: 8 x 4"]
    values = np.zeros((9, 9))
    values[4, 4] = 1
    panels = receptive_field_figure({"a": ReceptiveField(values, 1), "b": ReceptiveField(values, 1)}).axes
    assert [axes.get_xlabel() for axes in panels] == ["50% within 1 px, 90% within 1 px"] * 2
    with pytest.raises(ValueError, match="name at least one class"):
        activation_figure(GREY, [])
    with pytest.raises(ValueError, match="name at least one network"):
        receptive_field_figure({})
