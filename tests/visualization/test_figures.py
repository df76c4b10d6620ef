"""The confusion matrix and the training curves: their axes, data and words."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from internimage.structures import LabelMap
from internimage.visualization.classification import confusion_matrix_figure, curves_figure

LABELS = LabelMap(("cat", "dog", "emu"))


def rendered(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=60)
    return buffer.getvalue()


def lines_of(axes) -> dict[str, tuple[list[float], list[float]]]:
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}


def test_rows_are_percent_of_the_true_class():
    axes = confusion_matrix_figure(np.array([[3, 1, 0], [0, 4, 0], [5, 0, 5]]), LABELS).axes[0]
    expected = [[75, 25, 0], [0, 100, 0], [50, 0, 50]]
    np.testing.assert_allclose(axes.images[0].get_array(), expected)
    assert axes.get_title(loc="left") == "Accuracy 66.7%  (12 of 18 images)"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert [label.get_text() for label in axes.get_yticklabels()] == list(LABELS)
    assert [label.get_text() for label in axes.get_xticklabels()] == list(LABELS)
    cells = {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "75", (0, 1): "25", (1, 1): "100", (2, 0): "50", (2, 2): "50"}


def luminance(colour) -> float:
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


@pytest.mark.parametrize("share", [0.1, 5, 30, 50, 60, 63, 66, 70, 95])
def test_text_stands_out_from_its_cell(share):
    axes = confusion_matrix_figure(np.array([[share, 100 - share], [0, 1]]), LabelMap(("a", "b"))).axes[0]
    image = axes.images[0]
    cell, text = (luminance(colour) for colour in (image.cmap(image.norm(share))[:3], axes.texts[0].get_color()))
    assert (max(cell, text) + 0.05) / (min(cell, text) + 0.05) > 3.8


def test_a_class_without_images_has_no_percentages():
    axes = confusion_matrix_figure(np.array([[2, 0, 0], [0, 0, 0], [0, 0, 1]]), LABELS).axes[0]
    assert axes.images[0].get_array().mask[1].all()
    assert not axes.images[0].get_array().mask[[0, 2]].any()
    assert len(axes.texts) == 2


@pytest.mark.parametrize("count", [2, 10, 30])
def test_few_classes_are_named(count):
    figure = confusion_matrix_figure(np.eye(count) * 9 + 1, LabelMap.numbered(count))
    axes = figure.axes[0]
    assert len(axes.texts) == count * count
    assert len(axes.get_xticklabels()) == count
    assert rendered(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("count", [31, 200, 1000])
def test_many_classes_are_colours_and_a_legend(count):
    figure = confusion_matrix_figure(np.eye(count, dtype=np.int64) * 50, LabelMap.numbered(count))
    axes, legend = figure.axes
    assert not axes.texts
    assert not len(axes.get_xticks())
    assert not len(axes.get_yticks())
    assert axes.get_xlabel().startswith(f"predicted class, from 0 to {count - 1}")
    assert legend.get_ylabel() == "percent of the true class"
    assert rendered(figure).startswith(b"\x89PNG")


def test_rare_confusions_are_visible_among_many_classes():
    counts = np.eye(100) * 49
    counts[3, 90] = 1
    image = confusion_matrix_figure(counts, LabelMap.numbered(100)).axes[0].images[0]
    rare, none = (np.array(image.cmap(image.norm(share))) for share in (2.0, 0.0))
    assert np.abs(rare - none).max() > 0.05


def test_names_are_neither_formulas_nor_endless():
    labels = LabelMap((r"$\frac{$", "camel " * 30))
    figure = confusion_matrix_figure(np.eye(2), labels)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names[0] == r"$\frac{$"
    assert names[1].endswith("…")
    assert len(names[1]) == 22
    assert rendered(figure)


def test_the_title_fits_the_smallest_figure():
    figure = confusion_matrix_figure(np.array([[900_000, 1], [1, 900_000]]), LabelMap(("a", "b")))
    figure.draw_without_rendering()
    title = figure.axes[0]._left_title
    assert title.get_window_extent().x1 <= figure.bbox.x1


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.ones((2, 2)), "3 classes is square"),
        (np.ones((3, 2)), "3 classes is square"),
        (np.ones(9), "3 classes is square"),
        (-np.eye(3), "negative"),
        (np.full((3, 3), np.nan), "missing"),
        (np.zeros((3, 3)), "counts no image"),
    ],
)
def test_bad_matrices_are_refused(matrix, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix_figure(matrix, LABELS)


def test_one_row_per_epoch_counts_finished_epochs():
    keys = ("epoch", "step", "train/loss", "val/loss", "val/accuracy", "val/accuracy_top5", "lr")
    rows = [(0, 9, 2.0, 1.5, 0.4, 0.8, 1e-3), (1, 19, 1.0, 1.2, 0.6, 0.9, 1e-4)]
    history = [dict(zip(keys, row, strict=True)) for row in rows]
    figure = curves_figure(history)
    loss, accuracy, rate = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Loss", "Validation accuracy", "Learning rate"]
    assert {axes.get_xlabel() for axes in figure.axes} == {"epoch"}
    assert lines_of(loss) == {"training": ([1, 2], [2.0, 1.0]), "validation": ([1, 2], [1.5, 1.2])}
    assert lines_of(accuracy) == {"top 1": ([1, 2], [0.4, 0.6]), "top 5": ([1, 2], [0.8, 0.9])}
    assert lines_of(rate) == {"learning rate": ([1, 2], [1e-3, 1e-4])}
    assert rendered(figure)


def test_rows_of_steps_share_the_axis_of_steps():
    history = [
        {"epoch": 0, "step": 0, "train/loss": 3.0},
        {"epoch": 0, "step": 4, "train/loss": 2.0},
        {"epoch": 0, "step": 4, "val/loss": 2.5},
    ]
    (loss,) = curves_figure(history).axes
    assert loss.get_xlabel() == "step"
    assert lines_of(loss) == {"training": ([0, 4], [3.0, 2.0]), "validation": ([4], [2.5])}


def test_missing_values_are_left_out():
    history = [
        {"epoch": 0, "val/loss": "", "train/loss": 2.0},
        {"epoch": 1, "val/loss": float("nan"), "train/loss": None},
        {"epoch": 2, "val/loss": "0.5"},
    ]
    (loss,) = curves_figure(history).axes
    assert lines_of(loss) == {"training": ([1], [2.0]), "validation": ([3], [0.5])}


def test_rows_without_epoch_and_step_are_counted():
    (loss,) = curves_figure([{"train/loss": 2.0}, {"train/loss": 1.0}]).axes
    assert lines_of(loss) == {"training": ([1, 2], [2.0, 1.0])}


def test_one_epoch_is_visible_points():
    figure = curves_figure([{"epoch": 0, "train/loss": 2.0, "val/accuracy": 0.5}])
    assert [line.get_marker() for axes in figure.axes for line in axes.lines] == ["o", "o"]
    assert list(figure.axes[0].get_xticks()) == [1]
    assert rendered(figure)


def test_long_curves_get_a_running_mean():
    values = np.tile([0.0, 2.0], 200)
    (loss,) = curves_figure([{"epoch": 0, "step": step, "train/loss": value} for step, value in enumerate(values)]).axes
    raw, mean = loss.lines
    np.testing.assert_array_equal(raw.get_ydata(), values)
    np.testing.assert_allclose(mean.get_ydata(), 1.0)
    assert mean.get_label() == "training (mean of 10)"


def test_detection_has_a_panel_of_average_precision():
    keys = ("epoch", "train/loss", "val/map", "val/map50", "val/mask_map")
    rows = [(0, 2.0, 0.1, 0.3, -1.0), (1, 1.0, 0.2, 0.4, 0.15)]
    figure = curves_figure([dict(zip(keys, row, strict=True)) for row in rows])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Loss", "Validation AP"]
    # Masks had nothing to find in the first epoch.
    expected = {"box AP50": ([1, 2], [0.3, 0.4]), "box AP": ([1, 2], [0.1, 0.2]), "mask AP": ([2], [0.15])}
    assert lines_of(figure.axes[1]) == expected
    figure.draw_without_rendering()
    assert figure.axes[1].get_yticklabels()[0].get_text().endswith("%")


def test_segmentation_has_a_panel_of_iou_and_the_parts_of_the_loss():
    keys = ("epoch", "train/loss", "train/decode", "train/auxiliary", "val/miou", "val/mean_accuracy")
    rows = [(0, 2.0, 1.5, 0.5, 0.1, 0.3), (1, 1.0, 0.8, 0.2, 0.2, 0.4)]
    history = [dict(zip(keys, row, strict=True)) for row in rows]
    history[1]["val/pixel_accuracy"] = 0.7
    loss, regions = curves_figure(history).axes
    assert lines_of(loss) == {
        "training": ([1, 2], [2.0, 1.0]),
        "of the head": ([1, 2], [1.5, 0.8]),
        "of the auxiliary head": ([1, 2], [0.5, 0.2]),
    }
    assert regions.get_title(loc="left") == "Validation IoU and accuracy"
    expected = {"mean IoU": [0.1, 0.2], "mean accuracy": [0.3, 0.4]}
    assert lines_of(regions) == {name: ([1, 2], values) for name, values in expected.items()} | {
        "pixel accuracy": ([2], [0.7])
    }


@pytest.mark.parametrize("key", ["val/map", "val/map50", "val/mask_map"])
def test_one_average_precision_is_enough(key):
    (axes,) = curves_figure([{"epoch": 0, key: 0.5}]).axes
    assert axes.get_title(loc="left") == "Validation AP"


@pytest.mark.parametrize(
    "history", [[], [{}], [{"epoch": 0, "step": 3}], [{"epoch": 0, "lr": ""}], [{"epoch": 0, "val/map": -1}]]
)
def test_nothing_to_draw_is_refused(history):
    with pytest.raises(ValueError, match="no loss, accuracy or learning rate"):
        curves_figure(history)


def test_figures_leave_matplotlibs_global_state_alone():
    program = (
        "import sys, numpy as np; from internimage.structures import LabelMap; "
        "from internimage.visualization.classification import confusion_matrix_figure, curves_figure; "
        "confusion_matrix_figure(np.eye(2), LabelMap(('a', 'b'))); curves_figure([{'epoch': 0, 'lr': 0.1}]); "
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
