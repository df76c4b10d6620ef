"""Scalar loops -> reference of deformable attention; transformers' own plain code."""

from __future__ import annotations

import pytest
import torch
from transformers.models.deformable_detr.modeling_deformable_detr import MultiScaleDeformableAttention

from internimage.ops.attention import deformable_attention_reference
from internimage.ops.attention.reference import deformable_attention_reference_backward
from support.attention.cases import (
    CASES,
    NAMES,
    SABOTAGES,
    SMOOTH,
    Case,
    Sabotage,
    Shapes,
    check,
    named,
    outcome,
    scalar_loops,
)
from support.compare import TOLERANCE, Outcome, relative_rms

pytestmark = pytest.mark.usefixtures("poisoned_memory")


@pytest.mark.parametrize("case", CASES, **NAMES)
def test_reference_equals_scalar_loops(case: Case) -> None:
    value, points, weights = case.tensors()
    found = deformable_attention_reference(value, case.shapes, points, weights)
    assert found.is_contiguous()
    assert relative_rms(found, scalar_loops(case, (value, points, weights))) <= TOLERANCE["oracle"][0]


@pytest.mark.parametrize("case", SMOOTH, **NAMES)
def test_reference_gradients(case: Case) -> None:
    leaves = [tensor.requires_grad_() for tensor in case.smaller.tensors()]
    assert torch.autograd.gradcheck(lambda v, p, w: deformable_attention_reference(v, case.shapes, p, w), leaves)


@pytest.mark.parametrize("name", ["fp64", "bf16"])
@pytest.mark.parametrize("case", CASES, **NAMES)
def test_backward_by_hand_equals_autograd(case: Case, name: str) -> None:
    value, points, weights = tensors = case.tensors(torch.float64 if name == "fp64" else torch.bfloat16)
    expected = outcome(deformable_attention_reference, case, tensors)
    grad = (8 * torch.randn(expected.output.shape, generator=torch.Generator().manual_seed(1))).round() / 8
    found = deformable_attention_reference_backward(grad.to(value), value, case.shapes, points, weights)
    assert all(tensor.is_contiguous() for tensor in found)
    check(Outcome(expected.output, *found), expected, name)


@pytest.mark.parametrize("sabotage", SABOTAGES, **NAMES)
@pytest.mark.parametrize("case", [case for case in CASES if not case.is_empty], **NAMES)
def test_every_sabotage_is_rejected(case: Case, sabotage: Sabotage) -> None:
    if not sabotage.applies(case):
        pytest.skip("this mistake can't be made here")
    tensors = case.tensors()
    wrong = sabotage.wrong(deformable_attention_reference, case, tensors)
    assert relative_rms(wrong, scalar_loops(case, tensors)) > 2 * TOLERANCE["bf16"][0]


@pytest.mark.parametrize("case", [case for case in CASES if not case.is_empty], **NAMES)
def test_data_are_part_of_the_test(case: Case) -> None:
    """Most points count, some lie across the border, and some count for nothing."""
    points = case.tensors()[1]
    size = torch.tensor([(w, h) for h, w in case.shapes], dtype=torch.float64)[:, None]
    pixel = points * size - 0.5
    counts = ((pixel > -1) & (pixel < size)).all(-1)
    across = counts & ~((pixel >= 0) & (pixel <= size - 1)).all(-1)
    assert counts.double().mean() > (0.4 if case.hostile else 0.6)
    assert across.double().mean() > 0.02
    assert not counts.all()


def test_points_of_no_position_get_no_gradient() -> None:
    case = named("hostile_points")
    tensors = case.tensors()
    lost = ~tensors[1].isfinite().all(-1)
    assert lost.any()
    found = outcome(deformable_attention_reference, case, tensors)
    assert all(tensor.isfinite().all() for tensor in found)
    assert (found.grad_offset[lost] == 0).all()


def test_by_hand() -> None:
    """The corner where four pixels meet, then the map's own corner, of which three quarters are outside."""
    value = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1)
    points = torch.tensor([[0.5, 0.5], [1.0, 0.0]]).view(1, 2, 1, 1, 1, 2)
    out = deformable_attention_reference(value, [(2, 2)], points, torch.full((1, 2, 1, 1, 1), 0.5))
    assert out.flatten().tolist() == [1.25, 0.25]


def test_agrees_with_transformers() -> None:
    case = named("as_detr")
    tensors = case.tensors()

    def theirs(value: torch.Tensor, shapes: Shapes, points: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        sizes = torch.tensor(shapes)
        starts = torch.cat((sizes.new_zeros(1), sizes.prod(1).cumsum(0)[:-1]))
        out = MultiScaleDeformableAttention()(value, sizes, list(shapes), starts, points, weights, 64)
        return out.unflatten(2, (case.groups, case.depth))

    check(outcome(deformable_attention_reference, case, tensors), outcome(theirs, case, tensors), "fp64")
