"""Precision over recall: curves, words and average precisions against values computed by hand."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.colors import to_hex

from internimage.structures import LabelMap
from internimage.visualization.precision_recall import average_precision_table, precision_recall_figure
from internimage.visualization.style import class_colour, darker

LABELS = LabelMap(("cat", "dog", "emu"))
# Five recalls. The cat is found in full at IoU 0.5 and by half at 0.75; the dog by half; there is no emu.
HALF = [1.0, 1.0, 0.0, 0.0, 0.0]
PRECISION = np.stack([np.array([[1.0] * 5, HALF]), np.array([HALF, [0.0] * 5]), np.full((2, 5), -1.0)], axis=2)
THRESHOLDS = (0.5, 0.75)


def lines_of(axes) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in axes.lines}


def legend_of(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def rendered(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=60)
    return buffer.getvalue()


def many(count: int) -> np.ndarray:
    """Class k has precision k / (count - 1) everywhere."""
    return np.broadcast_to(np.arange(count) / (count - 1), (10, 101, count))


def test_means_and_classes_by_hand():
    figure = precision_recall_figure({"box": PRECISION}, LABELS, thresholds=THRESHOLDS)
    means, classes = figure.axes
    assert lines_of(means) == {
        "70.0%  IoU 0.5": [1, 1, 0.5, 0.5, 0.5],
        "20.0%  IoU 0.75": [0.5, 0.5, 0, 0, 0],
        "45.0%  IoU 0.5 to 0.75": [0.75, 0.75, 0.25, 0.25, 0.25],
    }
    assert lines_of(classes) == {"100.0%  cat": [1] * 5, "40.0%  dog": HALF}
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "Box AP, mean of 2 classes",
        "Box AP of classes at IoU 0.5",
    ]
    assert {(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes} == {("recall", "precision")}
    np.testing.assert_allclose(means.lines[0].get_xdata(), [0, 0.25, 0.5, 0.75, 1])
    assert rendered(figure).startswith(b"\x89PNG")


def test_missing_may_also_be_nan():
    given = np.where(PRECISION < 0, np.nan, PRECISION)
    figure = precision_recall_figure({"box": given}, LABELS, thresholds=THRESHOLDS)
    assert legend_of(figure.axes[1]) == ["100.0%  cat", "40.0%  dog"]


def test_the_arrays_given_are_not_changed():
    given = PRECISION.copy()
    precision_recall_figure({"box": given}, LABELS, thresholds=THRESHOLDS)
    np.testing.assert_array_equal(given, PRECISION)


def test_boxes_and_masks_have_a_row_each():
    figure = precision_recall_figure({"box": PRECISION, "mask": PRECISION}, LABELS, thresholds=THRESHOLDS)
    assert [axes.get_title(loc="left").split(maxsplit=1)[0] for axes in figure.axes] == ["Box", "Box", "Mask", "Mask"]


def test_one_class_is_its_own_mean():
    figure = precision_recall_figure({"box": many(2)[..., :1], "mask": many(2)[..., 1:]}, LabelMap(("cat",)))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Box AP, one class", "Mask AP, one class"]


def test_classes_have_the_hue_they_have_on_pictures():
    classes = precision_recall_figure({"box": PRECISION}, LABELS, thresholds=THRESHOLDS).axes[1]
    assert [to_hex(line.get_color()) for line in classes.lines] == [darker(class_colour(index)) for index in (0, 1)]


def test_twelve_classes_are_named_best_first():
    classes = precision_recall_figure({"box": many(12)}, LabelMap.numbered(12)).axes[1]
    assert [entry.split("  ")[1] for entry in legend_of(classes)] == [f"class {index}" for index in range(11, -1, -1)]


@pytest.mark.parametrize("count", [13, 80, 400])
def test_beyond_that_only_the_extremes(count):
    figure = precision_recall_figure({"box": many(count)}, LabelMap.numbered(count))
    names = [entry.split("  ")[1] for entry in legend_of(figure.axes[1])]
    last = [f"class {index}" for index in (count - 1, count - 2, count - 3, 2, 1, 0)]
    assert names == [f"mean of {count} classes", *last]
    assert legend_of(figure.axes[1])[0].startswith("50.0%")
    assert len(figure.axes[1].lines) == count + 7


def test_names_are_neither_formulas_nor_endless_nor_hidden():
    labels = LabelMap((r"$\frac{$", "camel " * 30, "_hidden"))
    figure = precision_recall_figure({"box": many(3)}, labels)
    entries = legend_of(figure.axes[1])
    assert entries[0] == "100.0%  _hidden"
    assert entries[1].endswith("…")
    assert entries[2] == r"0.0%  $\frac{$"
    assert rendered(figure)


def test_the_table_by_hand():
    table = average_precision_table({"box": PRECISION}, LABELS, [5, 2, 0], thresholds=THRESHOLDS)
    assert tuple(table.header) == ("class", "AP", "AP50", "AP75", "objects")
    assert list(table.rows) == [
        ("cat", "70.0%", "100.0%", "40.0%", 5),
        ("dog", "20.0%", "40.0%", "0.0%", 2),
        ("emu", "—", "—", "—", 0),
    ]
    assert table.caption == "Mean over the classes that have objects: AP 45.0%, AP50 70.0%, AP75 20.0%."


def test_the_table_of_boxes_and_masks():
    curves = {"box": PRECISION[:1], "mask": np.ones((1, 5, 3))}
    table = average_precision_table(curves, LABELS, np.array([5, 2, 1]), thresholds=[0.5])
    assert tuple(table.header)[1:-1] == ("box AP", "box AP50", "box AP75", "mask AP", "mask AP50", "mask AP75")
    assert table.rows[2] == ("emu", "—", "—", "—", "100.0%", "100.0%", "—", 1)


@pytest.mark.parametrize(
    ("curves", "thresholds", "message"),
    [
        ({}, THRESHOLDS, "no precision to show"),
        ({"box": PRECISION}, (0.5, 0.75, 0.9), r"box precision has shape \(2, 5, 3\), but 3 thresholds and 3 classes"),
        ({"box": PRECISION[..., :2]}, THRESHOLDS, r"need \(2, number of recalls, 3\)"),
        ({"box": PRECISION[0]}, THRESHOLDS, "has shape"),
        ({"box": PRECISION}, (0.6, 0.75), "IoU 0.5 is not among the thresholds"),
        ({"box": PRECISION * 100}, THRESHOLDS, r"must be in \[0, 1\]"),
        ({"mask": np.full((2, 5, 3), -1)}, THRESHOLDS, "the mask precision has no class with objects"),
    ],
)
def test_bad_curves_are_refused(curves, thresholds, message):
    for draw in (precision_recall_figure, lambda *given, **rest: average_precision_table(*given, [1, 1, 1], **rest)):
        with pytest.raises(ValueError, match=message):
            draw(curves, LABELS, thresholds=thresholds)


def test_one_number_of_objects_per_class():
    with pytest.raises(ValueError, match="3 classes but numbers of objects of shape"):
        average_precision_table({"box": PRECISION}, LABELS, [1, 2], thresholds=THRESHOLDS)
