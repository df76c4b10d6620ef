"""Scalar loops -> reference: the first links of the chain of trust."""

from __future__ import annotations

import pytest
import torch

from internimage.ops.dcnv3 import DCNv3Geometry, dcnv3_reference, sampling_positions_xy
from support.cases import CASES, NAMES, SMOOTH, Case
from support.compare import TOLERANCE, assert_close, relative_rms, run
from support.oracle import dcnv3_scalar
from support.sabotage import SABOTAGES, Sabotage, right

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def oracle(case: Case) -> torch.Tensor:
    return torch.from_numpy(dcnv3_scalar(*(tensor.numpy() for tensor in case.tensors()), case.pattern))


@pytest.mark.parametrize("case", CASES, **NAMES)
def test_reference_equals_scalar_loops(case: Case) -> None:
    assert relative_rms(right(case, case.tensors()), oracle(case)) <= TOLERANCE["oracle"][0]


@pytest.mark.parametrize("case", SMOOTH, **NAMES)
def test_reference_gradients(case: Case) -> None:
    leaves = [tensor.requires_grad_() for tensor in case.smaller.tensors()]
    assert torch.autograd.gradcheck(lambda *t: right(case, t), leaves)


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda sabotage: sabotage.name)
@pytest.mark.parametrize("case", CASES, **NAMES)
def test_every_sabotage_is_rejected(case: Case, sabotage: Sabotage) -> None:
    if not sabotage.applies(case):
        pytest.skip("this mistake can't be made here")
    # Every wrong result lies beyond twice the loosest tolerance that any backend gets: bfloat16's.
    assert relative_rms(sabotage.wrong(case, case.tensors()), oracle(case)) > 2 * TOLERANCE["bf16"][0]


@pytest.mark.parametrize("case", CASES, **NAMES)
def test_data_are_part_of_the_test(case: Case) -> None:
    """Most points inside, some across the border, so that both count in the comparison."""
    if not case.shape[0]:
        pytest.skip("no data")
    value, offset, _ = case.tensors()
    x, y = sampling_positions_xy(offset, case.geometry).unbind(-1)
    height, width = case.shape[1:3]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    contributing = (x > -1) & (x < width) & (y > -1) & (y < height)
    assert contributing.double().mean() > 0.6
    assert inside.double().mean() > 0.45
    assert not contributing.all()
    if case.offsets != "integer":
        assert (contributing & ~inside).double().mean() > 0.02
    assert 0.5 < float(value.std()) < 2


def test_non_finite_offsets_get_no_gradient() -> None:
    case = next(case for case in CASES if case.name == "nan_offsets")
    outcome = run(lambda *t: right(case, t), case.tensors())
    assert all(tensor.isfinite().all() for tensor in outcome)
    lost = ~case.tensors()[1].isfinite().all(-1)
    assert lost.any()
    assert (outcome.grad_offset[lost] == 0).all()


@pytest.mark.parametrize("name", ["fp16", "bf16"])
@pytest.mark.parametrize("case", CASES, **NAMES)
def test_16_bit_computes_in_float32(case: Case, name: str) -> None:
    """Against float32 on the same rounded inputs: only the results' rounding may remain."""
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[name]
    tensors = case.tensors(dtype)
    if case.offsets == "far" and name == "fp16":
        assert tensors[1].isinf().any()
    exact = run(lambda *t: right(case, t), tuple(tensor.float() for tensor in tensors))
    rounded = run(lambda *t: right(case, t), tensors)
    assert rounded.output.dtype == dtype
    assert_close(rounded, exact, name)


def test_positions_by_hand() -> None:
    """Kernel 3x1, stride 2, dilation 2, padding 1, scale 0.5: worked out on paper."""
    geometry = DCNv3Geometry.make((3, 1), (2, 1), (1, 0), (2, 1), 0.5)
    offset = torch.zeros(1, *geometry.output_size(7, 2), 1, 3, 2)
    offset[..., 0], offset[..., 1] = 1.0, -3.0
    position = sampling_positions_xy(offset, geometry)
    # y: 2*o - 1 + 2 + 0.5*(2*i - 2 - 3); x: o + 0.5*(0 + 1).
    assert position[0, 1, 1, 0, :, 1].tolist() == [3 - 2.5, 3 - 1.5, 3 - 0.5]
    assert position[0, 1, 1, 0, :, 0].tolist() == [1.5, 1.5, 1.5]


def test_by_hand() -> None:
    """One point half-way between four pixels, weight 0.5: (1 + 2 + 3 + 4)/4 * 0.5."""
    value = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 2, 2, 1, 1)
    geometry = DCNv3Geometry.make(1, padding=0)
    offset, mask = torch.full((1, 2, 2, 1, 1, 2), 0.5), torch.full((1, 2, 2, 1, 1), 0.5)
    out = dcnv3_reference(value, offset, mask, geometry, "none")
    # At the right and the lower edge the missing pixels are zeros.
    assert out.flatten().tolist() == [1.25, 0.75, 0.875, 0.5]
