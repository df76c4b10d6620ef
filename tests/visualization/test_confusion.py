"""A segmenter's confusion of pixels: table, matrix and bars against values computed by hand."""

from __future__ import annotations

import io

import numpy as np
import pytest

from internimage.structures import LabelMap
from internimage.visualization.confusion import class_iou_figure, class_table, confusion_caption, confusion_figure

CLASSES = LabelMap(("sky", "road", "tree", "car"))
# Rows are the truth. The tree is nowhere but claimed once; there is no car, and none is predicted.
CONFUSION = np.array([[6, 2, 0, 0], [1, 10, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]], np.int64)


def rendered(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=40)
    return buffer.getvalue()


def many(count: int) -> np.ndarray:
    """Of 100 pixels of class k, k are taken for the next class."""
    wrong = np.arange(count)
    return np.diag(100 - wrong) + np.roll(np.diag(wrong), 1, axis=1)


def test_the_table_by_hand():
    table = class_table(CONFUSION, CLASSES)
    assert tuple(table.header) == ("class", "IoU", "accuracy", "precision", "pixels")
    assert list(table.rows) == [
        ("sky", "66.7%", "75.0%", "85.7%", "40.0%"),  # 6 / (6 + 1 + 2), 6 / 8, 6 / 7, 8 / 20
        ("road", "71.4%", "83.3%", "83.3%", "60.0%"),  # 10 / (10 + 2 + 2), 10 / 12, 10 / 12, 12 / 20
        ("tree", "0.0%", "—", "0.0%", "0.0%"),
        ("car", "—", "—", "—", "0.0%"),
    ]
    # (6 / 9 + 10 / 14 + 0) / 3, (6 / 8 + 10 / 12) / 2, 16 / 20
    assert table.caption == "Mean over the classes: IoU 46.0%, accuracy 79.2%. Of 20 pixels, 80.0% are right."


def test_perfect_and_wrong_throughout():
    names = LabelMap(("a", "b"))
    assert class_table(np.diag([3, 1]), names).rows[0] == ("a", "100.0%", "100.0%", "100.0%", "75.0%")
    assert class_table(np.array([[0, 3], [1, 0]]), names).rows[1] == ("b", "0.0%", "0.0%", "0.0%", "25.0%")


def test_a_trace_is_not_nothing():
    rows = class_table(np.diag([10**12, 1]), LabelMap(("a", "b"))).rows
    assert [row[-1] for row in rows] == ["100.0%", "<0.1%"]


def test_the_matrix_by_hand():
    axes = confusion_figure(CONFUSION, CLASSES).axes[0]
    shares = axes.images[0].get_array()
    np.testing.assert_allclose(shares[:2], [[75, 25, 0, 0], [100 / 12, 1000 / 12, 100 / 12, 0]])
    assert shares.mask[2:].all()
    assert axes.get_title(loc="left") == "Pixel accuracy 80.0%  (of 20 pixels)"
    assert [label.get_text() for label in axes.get_yticklabels()] == list(CLASSES)


def test_traces_of_confusion_are_left_out():
    axes = confusion_figure(np.array([[996, 4], [5, 995]]), LabelMap(("a", "b"))).axes[0]
    # 0.4% are not shown, 0.5% are.
    assert sorted(text.get_text() for text in axes.texts) == ["<1", ">99", ">99"]


def test_of_many_classes_the_most_confused_are_shown():
    classes, counts = LabelMap.numbered(40), many(40)
    counts[39, 5] = 1
    figure = confusion_figure(counts, classes)
    axes = figure.axes[0]
    # Class k loses k pixels and gains k - 1; class 0 gains 39.
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"class {index}" for index in [0, *range(11, 40)]]
    assert axes.get_xlabel() == "predicted class, 30 of 40"
    shares = axes.images[0].get_array()
    np.testing.assert_allclose(shares[1, 1:3], [89, 11])
    # One of 101 pixels is taken for a class that is not shown.
    np.testing.assert_allclose(shares[-1].sum(), 100 * 100 / 101)
    assert confusion_caption(many(40), classes).endswith("Of the 40 classes, those 30 with the most mistaken pixels.")
    assert "40" not in confusion_caption(CONFUSION, CLASSES)
    assert rendered(figure).startswith(b"\x89PNG")


def test_the_bars_by_hand():
    axes = class_iou_figure(CONFUSION, CLASSES, ((255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9))).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["road", "sky", "tree"]
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], [10 / 14, 6 / 9, 0])
    assert [bar.get_facecolor()[:3] for bar in axes.patches] == [(0, 1, 0), (1, 0, 0), (0, 0, 1)]
    marks = np.ma.filled(axes.collections[0].get_offsets()[:, 0], np.nan)
    np.testing.assert_allclose(marks, [10 / 12, 6 / 8, np.nan])
    assert [text.get_text() for text in axes.texts] == ["71.4%", "66.7%", "0.0%"]
    assert axes.get_title(loc="left") == "IoU, mean of 3 classes 46.0%"


def test_of_many_classes_the_extremes_have_bars():
    figure = class_iou_figure(many(40), LabelMap.numbered(40))
    axes = figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    # 85 / 114 of class 15 are more than 100 / 139 of class 0.
    assert names == [f"class {index}" for index in [*range(1, 16), *range(25, 40)]]
    assert axes.get_title(loc="left").endswith("; the 15 best and the 15 worst")
    assert rendered(figure)


def test_names_are_neither_formulas_nor_endless():
    classes = LabelMap((r"$\frac{$", "camel " * 30))
    for figure in (confusion_figure(np.eye(2), classes), class_iou_figure(np.eye(2), classes)):
        names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        assert names[0] == r"$\frac{$"
        assert len(names[1]) == 22
        assert rendered(figure)


def test_the_title_of_many_pixels_fits_the_smallest_figure():
    figure = confusion_figure(np.array([[10**11, 1], [1, 10**11]]), LabelMap(("a", "b")))
    figure.draw_without_rendering()
    assert figure.axes[0]._left_title.get_window_extent().x1 <= figure.bbox.x1


@pytest.mark.parametrize("show", [class_table, confusion_figure, confusion_caption, class_iou_figure])
@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.ones((3, 4)), "4 classes is square"),
        (-np.eye(4), "negative"),
        (np.zeros((4, 4), np.int64), "counts no pixel: evaluate at least one"),
    ],
)
def test_bad_matrices_are_refused(show, matrix, message):
    with pytest.raises(ValueError, match=message):
        show(matrix, CLASSES)


def test_one_colour_per_class():
    with pytest.raises(ValueError, match="4 classes but 1 colours"):
        class_iou_figure(CONFUSION, CLASSES, ((1, 2, 3),))
