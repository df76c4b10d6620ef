"""The stacking rules: hand-computed designs, the paper's space, and what is said of designs that are none."""

from __future__ import annotations

import pytest
import torch

from internimage.model import InternImageConfig, create_model
from internimage.model.design.rules import check_design, nearest_designs, nearest_groups
from internimage.model.design.stacking import ORIGIN, Design, design_space


def built(config: InternImageConfig) -> int:
    with torch.device("meta"):
        return sum(each.numel() for each in create_model(config).parameters())


def test_the_paper_s_space() -> None:
    space = design_space()
    assert len(space.candidates) == 30
    assert not space.left_out
    # C1 = 48 and 80 have 1.5 and 2.5 groups of 32: five depths each.
    assert {each.design.channels for each in space.candidates if each.changes} == {48, 80}
    assert {each.design.group_width for each in space.candidates if each.changes} == {32}
    assert space.num_exact == 20
    # Five blocks in three stages of 80 channels are too many already.
    least = [each for each in space.candidates if each.is_least]
    assert [each.design.numbers for each in least] == [(80, 16, 5, 5), (80, 32, 5, 5)]
    assert [each.parameters for each in least] == [35_969_525, 33_663_995]
    found = {each.design: each for each in space.candidates}
    assert found[ORIGIN].config == InternImageConfig.from_variant("t")
    assert found[ORIGIN].parameters == 29_918_424


@pytest.mark.parametrize("index", [0, 11, 29])
def test_no_other_depth_is_nearer_to_the_budget(index: int) -> None:
    """By networks that are built, one block less and one more."""
    each = design_space().candidates[index]
    assert built(each.config) == each.parameters

    def off(more: int) -> int:
        design = Design(*each.design.numbers[:3], each.design.depth_inner + more)
        return abs(built(design.rounded_config()[0]) - 30_000_000)

    assert off(0) <= off(1)
    if not each.is_least:
        assert off(0) <= off(-1)


def test_groups_that_do_not_divide_are_rounded_and_said() -> None:
    config, changes = Design(80, 32, 2, 15).rounded_config(num_classes=10)
    assert (config.groups, changes, config.num_classes) == ((2, 5, 10, 20), "stage 1: 2 groups of 40", 10)
    config, changes = Design(64, 16, 4, 18).rounded_config()
    assert (config, changes) == (InternImageConfig.from_variant("t"), "")
    # 9 channels in 4s: 2.25 groups, of which 1 and 3 divide; both are nearly as far, 3 is nearer.
    assert nearest_groups(9, 4) == 3
    assert Design(18, 4, 1, 1).rounded_config()[1].startswith("stage 1: ")


def test_a_small_budget_and_other_stems() -> None:
    space = design_space(500_000, [16, 24, 32], [1, 2], [8, 16], num_classes=10, stem_strides=(1, 2))
    assert all(abs(each.parameters / 500_000 - 1) <= 0.25 for each in space.candidates)
    assert {each.config.stem_strides for each in space.candidates} == {(1, 2)}
    assert len(space.candidates) + len(space.left_out) == 12
    assert space.left_out


def test_spaces_that_are_none() -> None:
    with pytest.raises(ValueError, match=r"within 25% of 1,000 .* are \(48, 32, 1, 1\) with 3,\d{3},\d{3}, "):
        design_space(1_000)
    with pytest.raises(ValueError, match="at least one width, one depth and one group width"):
        design_space(depths=[])
    with pytest.raises(ValueError, match="a budget is at least one parameter, got 0"):
        design_space(0)
    with pytest.raises(ValueError, match=r"channels must be even.*got 63; the nearest legal .*\(6[24], "):
        design_space(channels=[63])
    with pytest.raises(ValueError, match="at least one channel, got group width 0"):
        design_space(group_widths=[0])
    with pytest.raises(ValueError, match=r"1 <= depth_outer .* got 0 and 0; the nearest legal .* \(48, 16, 1, 1\)"):
        design_space(depths=[0])


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        # Widths on either side of 48 (factors 4/3 and 3/2), group widths of 24 and 48 (4/3 and 3/2).
        ((48, 32, 4, 18), [(64, 32, 4, 18), (48, 24, 4, 18), (48, 48, 4, 18)]),
        ((64, 16, 5, 4), [(64, 16, 4, 4), (64, 16, 5, 5)]),
        ((64, 16, 0, -3), [(64, 16, 1, 1)]),
        ((63, 21, 1, 1), [(84, 21, 1, 1), (42, 21, 1, 1)]),
        ((16, 128, 1, 1), [(16, 16, 1, 1), (128, 128, 1, 1)]),
        ((64, 16, 4, 18), [(64, 16, 4, 18)]),
    ],
)
def test_nearest_designs(wrong: tuple[int, int, int, int], nearest: list[tuple[int, int, int, int]]) -> None:
    assert nearest_designs(wrong) == nearest
    for each in nearest:
        check_design(*each)
        assert InternImageConfig.stacked(*each).channels == each[0]


def test_errors_name_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"got 32 and 48; the nearest legal .*: \(64, 32, 4, 18\), \(48, 24, 4, 18\)"):
        InternImageConfig.stacked(48, 32, 4, 18)
    with pytest.raises(ValueError, match=r"got 5 and 4; the nearest legal .*: \(64, 16, 4, 4\), \(64, 16, 5, 5\)"):
        InternImageConfig.stacked(64, 16, 5, 4)
    with pytest.raises(ValueError, match=r"must be integers, got '64', 16, 4 and 18"):
        InternImageConfig.stacked("64", 16, 4, 18)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"groups \(16, 32, 64, 128\); the nearest legal .*: \(512, 32, 2, 48\)"):
        InternImageConfig.from_variant("g").scaled(1)
