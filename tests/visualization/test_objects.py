"""Objects on a canvas: where labels lie, what masks and boxes paint, and when labels are dropped."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageColor

from internimage.structures import Detections, LabelMap
from internimage.visualization.objects import (
    FILL,
    boxes_on,
    draw_objects,
    is_crowded,
    place_labels,
    text_size,
)
from internimage.visualization.style import CLASS_COLOURS, class_colour

WHITE = (255, 255, 255)


def rgb(colour: str) -> tuple[int, ...]:
    return ImageColor.getrgb(colour)


def objects(boxes, size=(480, 640), *, scores=None, labels=None, masks=None, classes=3) -> Detections:
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32),
        np.linspace(0.9, 0.5, count) if scores is None else np.array(scores),
        np.zeros(count, np.int64) if labels is None else np.array(labels),
        LabelMap.numbered(classes),
        size,
        masks,
    )


def drawn(found: Detections, text: int = 12, scale: int = 1, **settings) -> np.ndarray:
    canvas = Image.new("RGB", (found.size[1] * scale, found.size[0] * scale), WHITE)
    draw_objects(canvas, found, text, **settings)
    return np.asarray(canvas)


def places(boxes, size=(640, 480), text: int = 12, words: str = "cat 93%"):
    wanted = {row: (words, np.array(box)) for row, box in enumerate(boxes)}
    return [label.box for label in place_labels(size, wanted, text)]


def test_a_box_lies_on_whole_pixels_inside_the_canvas():
    found = objects([[10, 20, 30, 40], [-5, -5, 700, 900], [640, 480, 640, 480], [3.4, 3.6, 3.4, 3.6], [0, 0, 1e30, 9]])
    expected = [[20, 40, 60, 80], [0, 0, 1280, 960], [1279, 959, 1280, 960], [7, 7, 8, 8], [0, 0, 1280, 18]]
    assert boxes_on((1280, 960), found).tolist() == expected
    # Sides of small pictures are rounded, each on its own.
    assert boxes_on((1280, 240), found)[0].tolist() == [20, 10, 60, 20]


def test_a_box_is_an_outline_of_its_class():
    pixels = drawn(objects([[100, 200, 300, 400]], labels=[1]))
    colour = rgb(CLASS_COLOURS[1])
    for y, x in ((200, 200), (399, 200), (300, 100), (300, 299)):
        assert tuple(pixels[y, x]) == colour
    assert tuple(pixels[300, 200]) == WHITE
    # A shadow sets it off from any ground.
    assert pixels[400, 200].max() < 200
    assert tuple(pixels[402, 200]) == WHITE


def test_the_first_label_stands_on_its_box():
    ((left, top, right, bottom),) = places([[100, 200, 300, 400]])
    assert (left, bottom) == (100, 200)
    assert right - left > bottom - top > 12


def test_labels_stay_inside_the_picture():
    edges = [[0, 0, 60, 60], [600, 0, 640, 50], [0, 440, 30, 480], [620, 460, 640, 480], [0, 0, 640, 480]]
    found = places(edges)
    assert len(found) == 5
    assert all(0 <= left < right <= 640 and 0 <= top < bottom <= 480 for left, top, right, bottom in found)


def test_labels_of_equal_boxes_do_not_overlap_and_touch_their_box():
    found = places([[200, 100, 420, 300]] * 12)
    cover = np.zeros((480, 640), np.int64)
    for left, top, right, bottom in found:
        cover[top:bottom, left:right] += 1
        assert right >= 200
        assert left <= 420
        assert bottom >= 100
        assert top <= 300
    assert len(found) == 12
    assert cover.max() == 1


def test_a_label_without_a_place_is_left_out():
    assert places([[0, 0, 30, 30]], size=(30, 30)) == []
    assert places([[0, 0, 2000, 1]], size=(2000, 1)) == []
    assert len(places([[0, 0, 70, 20]] * 3, size=(70, 20))) == 1


def test_labels_of_random_boxes_never_overlap():
    corners = np.random.default_rng(0).integers(0, 400, (60, 2, 2))
    boxes = np.concatenate([corners.min(1), corners.max(1) + 30], axis=1)
    cover = np.zeros((480, 640), np.int64)
    for left, top, right, bottom in places(boxes):
        cover[top:bottom, left:right] += 1
    assert cover.max() == 1
    assert 0.03 < (cover > 0).mean() <= 0.1


def test_many_small_objects_have_no_labels_but_large_ones_do():
    small = [[x, y, x + 20, y + 20] for x in range(20, 620, 40) for y in range(200, 460, 40)]
    found = objects([*small, [20, 40, 220, 160]], labels=[0] * len(small) + [1])
    assert is_crowded((640, 480), found, 12)
    pixels = drawn(found)
    # Above the box lies its label, a filled rectangle; above the small ones nothing.
    assert (pixels[26:38, 22] == rgb(CLASS_COLOURS[1])).all()
    assert (pixels[186:198, 20:600] == WHITE).all()
    assert not is_crowded((640, 480), objects(small[:5]), 12)


def test_lines_are_thinner_around_small_objects():
    corners = [(x, y) for x in range(20, 620, 40) for y in range(20, 460, 40)]
    pixels = drawn(objects([[x, y, x + 12, y + 12] for x, y in corners]))
    assert (pixels == rgb(CLASS_COLOURS[0])).all(-1).sum() == len(corners) * (4 * 12 - 4)


def disc(size: int = 100, radius: float = 30) -> np.ndarray:
    y, x = np.mgrid[:size, :size] + 0.5 - size / 2
    return (y**2 + x**2 < radius**2)[None]


@pytest.mark.parametrize("scale", [1, 2, 5])
def test_a_mask_is_translucent_with_a_contour(scale):
    found = objects([[20, 20, 80, 80]], (100, 100), masks=disc())
    pixels = drawn(found, 12 * scale, scale, crowded=True)
    colour, middle = np.array(rgb(CLASS_COLOURS[0])), 50 * scale
    tinted = (1 - FILL) * 255 + FILL * colour
    np.testing.assert_allclose(pixels[middle, middle], tinted, atol=2)
    # The contour lies inside the mask: opaque near its edge on all sides.
    line = pixels[middle, : middle + 1].astype(float)
    distance = np.abs(line - colour).max(-1)
    edge = int(distance.argmin())
    assert distance[edge] < 25
    assert abs(edge - 20 * scale) <= scale
    assert (np.abs(pixels.astype(int) - pixels[:, ::-1]).max(-1) < 60).mean() > 0.99


def test_masks_of_named_objects_have_a_box():
    found = objects([[20, 20, 80, 80]], (100, 100), masks=disc())
    corner = (79, 79)
    assert tuple(drawn(found, crowded=False)[corner]) == rgb(CLASS_COLOURS[0])
    assert tuple(drawn(found, crowded=True)[corner]) == WHITE


def test_a_mask_at_the_border_has_no_contour_there():
    mask = np.zeros((1, 60, 60), bool)
    mask[:, :, :30] = True
    pixels = drawn(objects([[0, 0, 30, 60]], (60, 60), masks=mask), crowded=True)
    assert (pixels[:, :20] == pixels[30, 10]).all()
    assert (pixels[:, 29] != pixels[30, 10]).any()


@pytest.mark.parametrize("scale", [(1, 1), (3, 3), (0.5, 0.5), (1.37, 1.41)])
def test_masks_cover_the_same_share_at_every_scale(scale):
    mask = np.random.default_rng(0).random((1, 12, 17)).round().astype(bool).repeat(8, 1).repeat(8, 2)
    height, width = mask.shape[1:]
    canvas = Image.new("RGB", (round(width * scale[0]), round(height * scale[1])))
    draw_objects(canvas, objects([[0, 0, width, height]], (height, width), masks=mask), 99, crowded=True)
    # On black the shadow stays dark, and half of the fill's green is where half of a pixel is covered.
    inked = np.asarray(canvas)[..., 1] > FILL * rgb(CLASS_COLOURS[0])[1] / 2
    assert inked.mean() == pytest.approx(mask.mean(), abs=0.06)


@pytest.mark.parametrize("size", [(1, 2000), (2000, 1), (1, 1), (2, 3)])
def test_slivers_and_single_pixels_are_drawn(size):
    height, width = size
    found = objects([[0, 0, width, height]] * 2, size, masks=np.ones((2, height, width), bool))
    assert drawn(found).shape == (height, width, 3)
    assert drawn(found, scale=3).shape == (3 * height, 3 * width, 3)


def test_empty_masks_and_no_objects_leave_the_picture_alone():
    empty = objects([[5, 5, 9, 9]], (20, 20), masks=np.zeros((1, 20, 20), bool))
    assert (drawn(empty, crowded=True) == WHITE).all()
    nothing = objects(np.zeros((0, 4)), (20, 20), masks=np.zeros((0, 20, 20), bool))
    assert (drawn(nothing) == WHITE).all()


def test_small_objects_lie_on_large_ones():
    large, small = [20, 20, 460, 460], [100, 100, 300, 300]
    masks = np.zeros((2, 480, 640), bool)
    masks[0, 20:460, 20:460] = masks[1, 100:300, 100:300] = True
    one = drawn(objects([large, small], masks=masks, labels=[0, 2]), crowded=True)
    other = drawn(objects([small, large], masks=masks[::-1], labels=[2, 0]), crowded=True)
    np.testing.assert_array_equal(one[320:], other[320:])
    below = (1 - FILL) * 255 + FILL * np.array(rgb(CLASS_COLOURS[0]))
    for pixels in (one, other):
        np.testing.assert_allclose(
            pixels[200, 200], (1 - FILL) * below + FILL * np.array(rgb(CLASS_COLOURS[2])), atol=3
        )


def test_scores_can_be_left_out():
    found = objects([[100, 200, 300, 400]])
    with_score, without = (
        (drawn(found, show_scores=show)[190, :] == rgb(class_colour(0))).all(-1).sum() for show in (True, False)
    )
    assert with_score > without > 10


def test_text_grows_with_the_picture():
    assert text_size((100, 100)) == 11
    assert text_size((4000, 3000)) > 4 * text_size((640, 480))
