"""The scaling rule, by hand: the published variants, and designs grown to a cost."""

from __future__ import annotations

import math

import pytest

from internimage.model import InternImageConfig
from internimage.model.design.cost import multiply_adds, parameter_count
from internimage.model.design.rules import STEP, scaled_design
from internimage.model.design.scaling import compare_published, design_of, scale, scale_to

T = InternImageConfig.from_variant("t")


def test_a_step_doubles() -> None:
    assert pytest.approx(1.09 * 1.36**1.99) == STEP
    assert pytest.approx(2, rel=0.01) == STEP


@pytest.mark.parametrize(
    ("phi", "numbers"),
    [
        (0, (64, 16, 4, 18)),
        # 64 * 1.36 = 87.04 is 5.44 groups; 30 * 1.09 = 32.7 blocks, 4 * 1.09 = 4.36 of them in each outer stage.
        (1, (80, 16, 4, 21)),
        # 118.4 is 7.4 groups; 35.6 blocks, and 4 * 1.1881 = 4.75.
        (2, (112, 16, 5, 21)),
        # 64 / 1.36 = 47.06; 30 / 1.09 = 27.5, and 3.67.
        (-1, (48, 16, 4, 16)),
        (-40, (16, 16, 1, 1)),
    ],
)
def test_designs_by_hand(phi: float, numbers: tuple[int, int, int, int]) -> None:
    assert scaled_design((64, 16, 4, 18), phi) == numbers
    assert scale(T, phi).design.numbers == numbers
    assert design_of(T.scaled(phi)).numbers == numbers


def test_how_far_rounding_goes() -> None:
    found = scale(T, 1)
    assert (found.ruled_channels, found.ruled_depth, found.ruled_outer) == pytest.approx((87.04, 32.7, 4.36))
    assert (found.width_off, found.depth_off) == pytest.approx((80 / 87.04 - 1, 33 / 32.7 - 1))


def test_published_variants_beside_the_rule() -> None:
    found = {each.name: each for each in compare_published()}
    assert list(found) == ["t", "s", "b", "l", "xl", "h"]
    assert found["s"].phi_by_width == pytest.approx(math.log(80 / 64) / math.log(1.36))
    assert found["s"].phi_by_depth == pytest.approx(math.log(33 / 30) / math.log(1.09))
    assert found["s"].phi_by_parameters == pytest.approx(math.log(50_079_880 / 29_918_424) / math.log(STEP))
    assert found["t"].differences == ()
    assert found["b"].differences == ("L1 4, not 5", "L3 21, not 20")
    assert found["h"].differences == ("C1 320, not 304", "C' 32, not 16", "L3 32, not 29")


@pytest.mark.parametrize("target", [2_000_000, 30_000_000, 97_000_000, 1_000_000_000])
def test_no_other_phi_comes_nearer_to_a_number_of_parameters(target: int) -> None:
    best = abs(math.log(parameter_count(scale_to(T, target).config) / target))
    centre = math.log(target / 29_918_424) / math.log(2)
    for step in range(-60, 61):
        # The cost is looked for over phi by a search; here, by looking everywhere near.
        assert best <= abs(math.log(parameter_count(scale(T, centre + step / 25).config) / target)) + 1e-12


def test_multiply_adds_are_met_as_well() -> None:
    base = InternImageConfig.from_variant("pico", num_classes=10)
    found = scale_to(base, 200_000_000, lambda config: multiply_adds(config, 64))
    assert multiply_adds(found.config, 64) == pytest.approx(200_000_000, rel=0.25)


def test_what_can_not_be_scaled() -> None:
    with pytest.raises(ValueError, match=r"within 25% of 1,000; .* are \(16, 16, 1, 1\) with 5\d\d,\d{3} and \(16, "):
        scale_to(T, 1_000)
    for phi in (math.nan, math.inf, 41):
        with pytest.raises(ValueError, match=f"phi must be a number from -40 to 40, got {phi}"):
            scale(T, phi)
    with pytest.raises(ValueError, match="pattern A-A-B-A"):
        scale(InternImageConfig.from_variant("g"), 0)
