"""Reference -> deformable attention as an operator: C++ kernel, autograd, fake tensors, compile, autocast, errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from internimage.ops.attention import deformable_attention, deformable_attention_reference
from internimage.ops.dcnv3 import backends, cpu
from support.attention.cases import CASES, NAMES, SABOTAGES, SMOOTH, Case, Sabotage, check, named, outcome
from support.compare import TOLERANCE, relative_rms

pytestmark = pytest.mark.usefixtures("poisoned_memory")
OP = torch.ops.internimage.deformable_attention.default
TYPES = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.fixture(autouse=True, scope="module")
def built() -> None:
    """These tests are about the kernel, so they fail where it can't be had."""
    assert cpu.why_not(torch.zeros(1, 1, 1, 1)) is None


def on_level(level: int) -> Any:
    """The C++ kernel on no more than an instruction set, with gradients."""

    class Kernel(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, value: torch.Tensor, shapes: Any, points: torch.Tensor, weights: torch.Tensor) -> Any:
            ctx.save_for_backward(value, points, weights)
            ctx.shapes = [side for size in shapes for side in size]
            return torch.ops.internimage_cpu.attention(value, ctx.shapes, points, weights, level)

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> Any:
            value, points, weights = ctx.saved_tensors
            found = torch.ops.internimage_cpu.attention_backward(grad, value, ctx.shapes, points, weights, level)
            return found[0], None, *found[1:]

    return Kernel.apply


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("case", CASES, **NAMES)
def test_op_equals_reference(case: Case, name: str) -> None:
    """The reference runs in float64 on the same rounded numbers."""
    tensors = case.tensors(TYPES[name])
    wide = tuple(tensor.double() for tensor in tensors)
    found = outcome(deformable_attention, case, tensors)
    assert [each.dtype for each in found] == [tensors[0].dtype] * 2 + [tensors[1].dtype] * 2
    check(found, outcome(deformable_attention_reference, case, wide), name)


@pytest.mark.parametrize("name", ["fp64", "fp32", "bf16"])
@pytest.mark.parametrize("depth", [1, 4, 7, 12, 16, 24, 31, 32, 48, 67])
def test_any_group_width_on_any_processor(depth: int, name: str) -> None:
    """Widths are cut into vectors of 16, 8, 4 and 1: every cut must meet the next one."""
    case = Case("widths", "", 1, depth=depth, queries=5)
    tensors = case.tensors(TYPES[name])
    expected = outcome(deformable_attention_reference, case, tuple(tensor.double() for tensor in tensors))
    for level in range(len(cpu.INSTRUCTION_SETS)):
        check(outcome(on_level(level), case, tensors), expected, name)


def test_more_points_than_a_block_has() -> None:
    """Blocks aim at 256 points; beyond 4096 the reference runs."""
    for points, shapes in ((300, ((3, 2),)), (1400, ((2, 2), (1, 2), (2, 1)))):
        case = Case("many_points", "", 1, shapes, 1, 2, 2, points)
        tensors = case.tensors()
        check(
            outcome(deformable_attention, case, tensors), outcome(deformable_attention_reference, case, tensors), "fp64"
        )


def test_equal_to_the_last_bit_for_any_number_of_threads() -> None:
    case, before, outcomes = Case("threads", "", 3, queries=300, groups=3), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            outcomes.append(outcome(deformable_attention, case, case.tensors(torch.float32)))
    finally:
        torch.set_num_threads(before)
    for other in outcomes[1:]:
        assert all(map(torch.equal, outcomes[0], other))


@pytest.mark.parametrize("sabotage", SABOTAGES, **NAMES)
def test_sabotage_is_rejected(sabotage: Sabotage) -> None:
    for case in (named("two_levels"), named("as_detr")):
        tensors = case.tensors(torch.float32)
        found = deformable_attention(tensors[0], case.shapes, *tensors[1:])
        wrong = sabotage.wrong(deformable_attention_reference, case, tensors)
        assert relative_rms(wrong, found) > 100 * TOLERANCE["fp32"][0]


@pytest.mark.parametrize("case", SMOOTH, **NAMES)
def test_op_gradients(case: Case) -> None:
    leaves = [tensor.requires_grad_() for tensor in case.smaller.tensors()]
    assert torch.autograd.gradcheck(lambda v, p, w: deformable_attention(v, case.shapes, p, w), leaves)


def test_a_point_off_the_map_does_not_see_nan_on_it() -> None:
    value, points, weights = named("two_levels").tensors(torch.float32)
    value[:] = float("nan")
    points[:] = 7.0
    assert (deformable_attention(value, named("two_levels").shapes, points, weights) == 0).all()


# opcheck itself looks at .grad of tensors that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("name", ["hostile_points", "permuted_strides"])
def test_opcheck(name: str) -> None:
    case = named(name)
    value, points, weights = (tensor.requires_grad_() for tensor in case.tensors())
    torch.library.opcheck(OP, (value, [side for size in case.shapes for side in size], points, weights))


def test_whole_graph_compiles_with_dynamic_shapes() -> None:
    graphs = 0

    def count(graph: Any, inputs: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return graph

    def attend(first: torch.Tensor, second: torch.Tensor, points: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        shapes = [(each.shape[1], each.shape[2]) for each in (first, second)]
        value = torch.cat([each.flatten(1, 2) for each in (first, second)], 1)
        return deformable_attention(value, shapes, points, weights)

    torch._dynamo.reset()
    compiled = torch.compile(attend, backend=count, fullgraph=True, dynamic=True)
    # No two sizes are equal in the first call: torch.compile takes equal sizes for one symbol.
    for shapes, queries in ((((11, 9), (6, 5)), 7), (((4, 6), (3, 2)), 8)):
        case = Case("compiled", "", 4, shapes, 3, 10, queries, 12)
        value, points, weights = case.tensors()
        maps = value.split([h * w for h, w in shapes], 1)
        found = compiled(*(each.unflatten(1, size) for each, size in zip(maps, shapes, strict=True)), points, weights)
        assert torch.equal(found, deformable_attention(value, shapes, points, weights))
    assert graphs == 1


# PyTorch's own, when it first differentiates forward.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")
def test_transforms_and_forward_mode_take_the_reference() -> None:
    case = named("two_levels")
    value, points, weights = case.tensors()
    tangent = torch.randn(points.shape, dtype=points.dtype)
    _, found = torch.func.jvp(lambda p: deformable_attention(value, case.shapes, p, weights), (points,), (tangent,))
    step = 1e-6
    ahead, behind = (
        deformable_attention(value, case.shapes, points + sign * step * tangent, weights) for sign in (1, -1)
    )
    assert relative_rms(found, (ahead - behind) / (2 * step)) < 1e-8
    mapped = torch.func.vmap(lambda v, p, w: deformable_attention(v[None], case.shapes, p[None], w[None])[0])
    expected = deformable_attention(value, case.shapes, points, weights)
    assert relative_rms(mapped(value, points, weights), expected) < 1e-14


def test_autocast_leaves_positions_alone() -> None:
    case = named("as_detr")
    value, points, weights = case.tensors(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = deformable_attention(value, case.shapes, points, weights)
    assert torch.equal(found, deformable_attention(value.bfloat16(), case.shapes, points, weights))
    assert found.dtype == torch.bfloat16
    value, points, weights = case.tensors()
    with torch.autocast("cpu", torch.bfloat16):
        assert deformable_attention(value, case.shapes, points, weights).dtype == torch.float64


def test_positions_in_16_bit_are_widened_and_get_their_gradients() -> None:
    case = named("two_levels")
    value, points, weights = (tensor.bfloat16() for tensor in case.tensors())
    found = outcome(deformable_attention, case, (value, points, weights))
    expected = outcome(deformable_attention, case, (value, points.float(), weights.float()))
    assert all(torch.equal(one, other.bfloat16()) for one, other in zip(found, expected, strict=True))


def test_flops() -> None:
    case = named("as_detr")
    value, points, weights = (tensor.requires_grad_() for tensor in case.tensors())
    with FlopCounterMode(display=False) as counter:
        deformable_attention(value, case.shapes, points, weights).sum().backward()
    # 5 queries, 2 groups, 4 levels, 4 points, 32 channels.
    assert counter.get_total_flops() == 2 * (5 + 8) * 5 * 2 * 4 * 4 * 32


def test_without_the_kernel_the_reference_runs_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    case = named("two_levels")
    value, points, weights = case.tensors()
    monkeypatch.setattr(cpu, "why_not", lambda _: "there is no compiler")
    monkeypatch.setattr(backends, "_warned", set())
    with pytest.warns(RuntimeWarning, match="deformable attention runs on the slow reference: there is no compiler"):
        found = deformable_attention(value, case.shapes, points, weights)
    assert torch.equal(found, deformable_attention_reference(value, case.shapes, points, weights))


VALUE, POINTS, WEIGHTS = torch.zeros(1, 10, 2, 3), torch.zeros(1, 4, 2, 2, 5, 2), torch.zeros(1, 4, 2, 2, 5)
SHAPES = ((2, 3), (2, 2))
BAD: dict[str, tuple[tuple[Any, ...], str]] = {
    "value": ((VALUE[0], SHAPES, POINTS, WEIGHTS), r"value must be \(N, S, G, D\)"),
    "no_channels": ((VALUE[..., :0], SHAPES, POINTS, WEIGHTS), r"with groups and channels"),
    "no_levels": ((VALUE, (), POINTS, WEIGHTS), r"shapes must be \(height, width\)"),
    "empty_level": ((VALUE, ((2, 5), (3, 0)), POINTS, WEIGHTS), r"at least 1 each, got \[\(2, 5\), \(3, 0\)\]"),
    "flat_shapes": ((VALUE, ((2, 3, 1), (2, 2)), POINTS, WEIGHTS), r"shapes must be \(height, width\)"),
    "pixels": ((VALUE, ((2, 3), (2, 3)), POINTS, WEIGHTS), "value has 10 pixels"),
    "weights": ((VALUE, SHAPES, POINTS, WEIGHTS[..., 0]), r"weights must be \(N, Q, G, L, P\)"),
    "no_points": ((VALUE, SHAPES, POINTS[..., :0, :], WEIGHTS[..., :0]), "with at least one point"),
    "levels": ((VALUE, SHAPES, POINTS, WEIGHTS[:, :, :, :1]), r"= \(1, 4, 2, 2, 5\) for this value"),
    "points": ((VALUE, SHAPES, POINTS[:, :3], WEIGHTS), r"points must be \(N, Q, G, L, P, 2\) = \(1, 4, 2, 2, 5, 2\)"),
    "devices": ((VALUE, SHAPES, POINTS.to("meta"), WEIGHTS), "must be on one device"),
    "integers": ((VALUE.int(), SHAPES, POINTS, WEIGHTS), "value must be float64, float32"),
    "narrow_points": ((VALUE.double(), SHAPES, POINTS, WEIGHTS.double()), "float64 with a float64 value"),
    "wide_points": ((VALUE, SHAPES, POINTS.double(), WEIGHTS), "else float32; got torch.float32, torch.float64"),
}


@pytest.mark.parametrize("problem", BAD)
def test_bad_input_gets_one_clear_sentence(problem: str) -> None:
    arguments, message = BAD[problem]
    with pytest.raises(ValueError, match=message):
        deformable_attention(*arguments)


def test_called_past_the_public_function_it_still_checks() -> None:
    """The C++ operator is open to everyone: nothing may be read where nothing is."""
    sides, op = [2, 3, 2, 2], torch.ops.internimage_cpu.attention
    for wrong in (
        (VALUE[:, :9], sides, POINTS, WEIGHTS),
        (VALUE, sides[:2], POINTS, WEIGHTS),
        (VALUE, [2, 3, 4], POINTS, WEIGHTS),
        (VALUE, [-2, -3, 2, 2], POINTS, WEIGHTS),
        (VALUE, sides, POINTS[:, :3], WEIGHTS),
        (VALUE, sides, POINTS, WEIGHTS[:, :, :1]),
        (VALUE, sides, POINTS.double(), WEIGHTS),
        (VALUE.int(), sides, POINTS, WEIGHTS),
        (VALUE[..., :0], sides, POINTS, WEIGHTS),
    ):
        with pytest.raises(RuntimeError, match="attention: "):
            op(*wrong)
    with pytest.raises(RuntimeError, match="the gradient doesn't fit the output"):
        torch.ops.internimage_cpu.attention_backward(VALUE, VALUE, sides, POINTS, WEIGHTS)
