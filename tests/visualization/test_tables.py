"""Tables of a confusion matrix, against values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from internimage.structures import LabelMap
from internimage.visualization.page import confusions_table, per_class_table

LABELS = LabelMap(("cat", "dog", "emu", "fox"))
# Rows are true classes: emu is never predicted, fox has no images but is predicted once.
MATRIX = np.array([[3, 1, 0, 1], [2, 2, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]])


def test_precision_recall_and_f1():
    table = per_class_table(MATRIX, LABELS)
    assert tuple(table.header) == ("class", "precision", "recall", "F1", "images")
    assert list(table.rows) == [
        ("cat", "60.0%", "60.0%", "60.0%", 5),
        ("dog", "50.0%", "50.0%", "50.0%", 4),
        ("emu", "—", "0.0%", "0.0%", 1),
        ("fox", "0.0%", "—", "0.0%", 0),
    ]
    assert table.caption == "Mean over the classes: precision 36.7%, recall 36.7%, F1 27.5%."


def test_f1_is_the_harmonic_mean():
    (row, _) = per_class_table(np.array([[1, 3], [0, 4]]), LabelMap(("a", "b"))).rows
    assert row == ("a", "100.0%", "25.0%", "40.0%", 4)


def test_a_class_that_never_occurs_has_no_values():
    assert per_class_table(np.array([[4, 0], [0, 0]]), LabelMap(("a", "b"))).rows[1] == ("b", "—", "—", "—", 0)


def test_most_frequent_confusions_come_first():
    table = confusions_table(MATRIX, LABELS)
    assert list(table.rows) == [
        ("dog", "cat", 2, "50.0%"),
        ("cat", "dog", 1, "20.0%"),
        ("cat", "fox", 1, "20.0%"),
        ("emu", "dog", 1, "100.0%"),
    ]
    assert list(confusions_table(MATRIX, LABELS, count=1).rows) == [("dog", "cat", 2, "50.0%")]


def test_a_perfect_classifier_confuses_nothing():
    assert not confusions_table(np.eye(4), LABELS).rows


@pytest.mark.parametrize("table", [per_class_table, confusions_table])
def test_a_matrix_of_other_classes_is_refused(table):
    with pytest.raises(ValueError, match="3 classes is square"):
        table(MATRIX, LabelMap(("a", "b", "c")))
