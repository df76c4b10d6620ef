"""What comparisons say of networks, by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from internimage.structures import SearchedDesign, TrainedForm

FORM = TrainedForm(
    "a",
    100,
    4000,
    ((0.1, 0.5), (0.2, 0.7), ()),
    ((1.0, 2.0, 3.0), (4.0, 4.0, 4.0, 4.0), ()),
    (1.0, 2.0, 0.0),
    (None, None, "diverged"),
)
DESIGN = SearchedDesign((8, 4, 1, 2), 100, 5000, ((0.1, 0.3, 0.4), (0.2, 0.4, 0.6)), (1.0, 2.0))


def test_the_last_epoch_of_every_seed_counts() -> None:
    assert FORM.final == (0.5, 0.7, 0.0), "a training that failed reaches nothing"
    assert FORM.mean_accuracy == pytest.approx(0.4)
    assert FORM.spread == pytest.approx(math.sqrt((0.1**2 + 0.3**2 + 0.4**2) / 2))
    assert (DESIGN.epochs, DESIGN.final, DESIGN.mean_accuracy) == (3, (0.4, 0.6), 0.5)
    assert replace(DESIGN, accuracy=((0.5,),)).spread is None


def test_gradients_in_two_numbers() -> None:
    # 1, 2, 3, 4, 4, 4, 4 together; 99% of the way from the first to the last of three is 2.98.
    assert FORM.typical_gradient == 4.0
    assert FORM.unsteadiness == pytest.approx((2.98 / 2 + 1) / 2)
    assert math.isnan(replace(FORM, gradient_norms=((), (), ())).unsteadiness)


@pytest.mark.parametrize("value", [FORM, DESIGN], ids=["form", "design"])
def test_files(value: TrainedForm | SearchedDesign) -> None:
    read = json.loads(json.dumps(value.to_dict()))
    assert type(value).from_dict(read) == value
    with pytest.raises(ValueError, match=f"{type(value).__name__} has the keys"):
        type(value).from_dict({"name": "x"})
