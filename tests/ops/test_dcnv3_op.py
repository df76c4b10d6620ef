"""Reference -> registered operator: dispatch, autograd, fake tensors, compile, autocast, FLOPs, torchvision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import deform_conv2d

from internimage.ops.dcnv3 import Normalize, dcnv3, explain_dcnv3, sampling_positions_xy
from internimage.ops.dcnv3.reference import dcnv3_reference_backward
from support.cases import CASES, NAMES, SMOOTH, Case
from support.compare import TOLERANCE, Outcome, assert_close, relative_rms, run
from support.sabotage import right

pytestmark = pytest.mark.usefixtures("poisoned_memory")
OP = torch.ops.internimage.dcnv3.default


def at_kinks(case: Case, outcome: Outcome) -> Outcome:
    """At whole pixels interpolation has a kink, and the slope on either side of it is right."""
    return outcome._replace(grad_offset=torch.zeros(())) if case.offsets == "integer" else outcome


def named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


@pytest.mark.parametrize("name", ["fp64", "fp32"])
@pytest.mark.parametrize("case", CASES, **NAMES)
def test_op_equals_reference(case: Case, name: str) -> None:
    tensors = case.tensors(torch.float64 if name == "fp64" else torch.float32)
    expected = at_kinks(case, run(lambda *t: right(case, t), tensors))
    for backend in (None, "reference"):
        found = run(lambda *t, backend=backend: dcnv3(*t, **case.settings, backend=backend), tensors)
        assert_close(at_kinks(case, found), expected, name)


@pytest.mark.parametrize("name", ["fp16", "bf16"])
@pytest.mark.parametrize("case", CASES, **NAMES)
def test_op_in_16_bit(case: Case, name: str) -> None:
    tensors = case.tensors(torch.float16 if name == "fp16" else torch.bfloat16)
    expected = run(lambda *t: right(case, t), tuple(tensor.float() for tensor in tensors))
    found = run(lambda *t: dcnv3(*t, **case.settings), tensors)
    assert_close(at_kinks(case, found), at_kinks(case, expected), name)


@pytest.mark.parametrize("case", SMOOTH, **NAMES)
def test_op_gradients(case: Case) -> None:
    leaves = [tensor.requires_grad_() for tensor in case.smaller.tensors()]
    assert torch.autograd.gradcheck(lambda *t: dcnv3(*t, **case.settings), leaves)


# opcheck itself looks at .grad of tensors that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("name", ["odd_map_5x4", "stride_2x1", "padding_0x2", "dilation_2", "remove_center", "sigmoid"])
def test_opcheck(name: str) -> None:
    case = named(name)
    arguments = [list(value) if isinstance(value, tuple) else value for value in case.settings.values()]
    leaves = [tensor.requires_grad_() for tensor in case.tensors()]
    torch.library.opcheck(OP, (*leaves, *arguments))


@pytest.mark.parametrize("case", [case for case in SMOOTH if not case.permuted], **NAMES)
def test_agrees_with_torchvision(case: Case) -> None:
    """torchvision's DCNv2 with an all-ones depth-wise weight, offsets as (y, x) in row-major order."""
    value, offset, mask = case.tensors()
    weights = {"softmax": mask.softmax(-1), "sigmoid": mask.sigmoid(), "none": mask}[case.pattern.normalize]
    (batch, _, _, groups, depth), (_, out_h, out_w) = value.shape, mask.shape[:3]
    kernel_h, kernel_w = case.pattern.kernel
    # What torchvision adds the offset to: the point's place in the plain, unscaled grid.
    plain = type(case.geometry)(**{**case.geometry.__dict__, "offset_scale": 1.0})
    own = sampling_positions_xy(offset, case.geometry) - sampling_positions_xy(torch.zeros_like(offset), plain)
    order = {point: index for index, point in enumerate(case.geometry.points_yx)}
    row_major = [(iy, ix) for iy in range(kernel_h) for ix in range(kernel_w)]
    full_offset = own.new_zeros(batch, groups, kernel_h * kernel_w, 2, out_h, out_w)
    full_mask = own.new_zeros(batch, groups, kernel_h * kernel_w, out_h, out_w)
    for index, point in enumerate(row_major):
        if point in order:
            full_offset[:, :, index] = own[..., order[point], :].flip(-1).permute(0, 3, 4, 1, 2)
            full_mask[:, :, index] = weights[..., order[point]].permute(0, 3, 1, 2)
    expected = deform_conv2d(
        value.flatten(3).permute(0, 3, 1, 2),
        full_offset.flatten(1, 3),
        torch.ones(groups * depth, 1, kernel_h, kernel_w, dtype=value.dtype),
        stride=case.pattern.stride,
        padding=case.pattern.padding,
        dilation=case.pattern.dilation,
        mask=full_mask.flatten(1, 2),
    )
    ours = dcnv3(value, offset, mask, **case.settings).flatten(3).permute(0, 3, 1, 2)
    assert relative_rms(ours, expected) <= 1e-13


@pytest.mark.parametrize("name", ["odd_map_5x4", "stride_2x1"])
def test_whole_graph_compiles_with_dynamic_shapes(name: str) -> None:
    case, compiled_shapes = named(name), 0

    def count(graph: Any, inputs: Any) -> Any:
        nonlocal compiled_shapes
        compiled_shapes += 1
        return graph

    torch._dynamo.reset()
    compiled = torch.compile(lambda *t: dcnv3(*t, **case.settings), backend=count, fullgraph=True, dynamic=True)
    # No two sizes are equal in the first call: torch.compile takes equal sizes for one symbol.
    for height, width in ((26, 33), (11, 6), (7, 12)):
        bigger = Case(case.name, "", (5, height, width, 3, 7), case.pattern)
        found = compiled(*bigger.tensors())
        assert relative_rms(found, right(bigger, bigger.tensors())) <= TOLERANCE["fp64"][0]
    assert compiled_shapes == 1


def test_exports_as_one_node_with_dynamic_shapes() -> None:
    case = named("odd_map_5x4")

    class Module(torch.nn.Module):
        def forward(self, value: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return dcnv3(value, offset, mask, **case.settings)

    dynamic = {0: torch.export.Dim("batch"), 1: torch.export.Dim("height"), 2: torch.export.Dim("width")}
    program = torch.export.export(Module(), case.tensors(), dynamic_shapes=(dynamic, dynamic, dynamic), strict=True)
    assert sum(node.target is OP for node in program.graph.nodes) == 1
    other = Case("other_size", "", (3, 9, 7, 2, 3))
    found = program.module()(*other.tensors())
    assert relative_rms(found, right(other, other.tensors())) <= TOLERANCE["fp64"][0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_takes_the_regions_dtype(dtype: torch.dtype) -> None:
    case = named("odd_map_5x4")
    value, offset, mask = case.tensors(torch.float32)
    with torch.autocast("cpu", dtype):
        out = dcnv3(value, offset.to(dtype), mask, **case.settings)
        double = dcnv3(*case.tensors(torch.float64), **case.settings)
    assert out.dtype == dtype
    assert double.dtype == torch.float64


def test_flop_counter_knows_the_operator() -> None:
    value, offset, mask = named("odd_map_5x4").tensors()
    with FlopCounterMode(display=False) as counter:
        dcnv3(value, offset, mask)
    # 2 images, 5 x 4 positions, 2 groups, 9 points, 3 channels, 5 multiply-adds of 2 FLOPs each.
    assert counter.get_total_flops() == 2 * 20 * 2 * 9 * 3 * 5 * 2
    with FlopCounterMode(display=False) as counter:
        dcnv3(value.requires_grad_(), offset, mask).sum().backward()
    assert counter.get_total_flops() == 2 * 20 * 2 * 9 * 3 * (5 + 8) * 2


def test_empty_batch_has_gradients() -> None:
    case = named("batch_0")
    outcome = run(lambda *t: dcnv3(*t, **case.settings), case.tensors())
    assert [tuple(grad.shape) for grad in outcome[1:]] == [tuple(tensor.shape) for tensor in case.tensors()]


def test_explain_names_the_backend_that_runs() -> None:
    value, offset, mask = named("odd_map_5x4").tensors()
    assert "cpu        runs: C++" in explain_dcnv3(value, offset, mask)
    assert "reference  could run: plain PyTorch" in explain_dcnv3(value)
    elsewhere = explain_dcnv3(value.to("meta"))
    assert "cpu        can't run: the tensors are on meta" in elsewhere
    assert "reference  runs: plain" in elsewhere


def test_explain_checks_what_the_operator_checks() -> None:
    value, offset, mask = named("odd_map_5x4").tensors()
    with pytest.raises(ValueError, match="mask must be"):
        explain_dcnv3(value, offset, mask[..., :-1])
    with pytest.raises(ValueError, match="share one dtype"):
        explain_dcnv3(value, offset.float(), mask)
    with pytest.raises(ValueError, match="share one dtype"):
        explain_dcnv3(value.int())
    with pytest.raises(ValueError, match="give offset and mask, or neither"):
        explain_dcnv3(value, offset)
    with pytest.raises(ValueError, match="unknown backend 'cuda'; choose from cpu, triton, reference"):
        explain_dcnv3(value, backend="cuda")
    with pytest.raises(ValueError, match="backend 'cpu' can't take these tensors: the tensors are on meta"):
        explain_dcnv3(value.to("meta"), backend="cpu")
    assert explain_dcnv3(value, backend="reference") == explain_dcnv3(value)
    with torch.autocast("cpu", torch.bfloat16):
        assert "on cpu, bfloat16" in explain_dcnv3(value.float())


@pytest.mark.parametrize("normalize", ["softmax", "sigmoid", "none"])
def test_gradients_have_the_strides_that_compiled_code_expects(normalize: Normalize) -> None:
    tensors = named("odd_map_5x4").tensors()
    for backend in (None, "reference"):
        leaves = [tensor.clone().requires_grad_() for tensor in tensors]
        backward = torch.compile(
            lambda *t, backend=backend: dcnv3(*t, normalize=normalize, backend=backend), backend="aot_eager"
        )
        backward(*leaves).sum().backward()
    arguments = ([3, 3], [1, 1], [1, 1], [1, 1], 1.0, False, normalize)
    for device in ("cpu", "meta"):
        moved = [tensor.to(device) for tensor in (tensors[0], *tensors)]
        assert all(grad.is_contiguous() for grad in torch.ops.internimage.dcnv3_backward(*moved, *arguments))
    grads = dcnv3_reference_backward(tensors[0], *tensors, named("odd_map_5x4").geometry, normalize)
    assert all(grad.is_contiguous() for grad in grads)


# PyTorch's own, when it first differentiates forward.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")
def test_transforms_of_torch_func_and_forward_mode() -> None:
    """Their rules know PyTorch's own operators only; a registered one would count as a constant, in silence."""
    case = named("odd_map_5x4")
    primals = case.smaller.tensors()
    tangents = tuple(torch.randn_like(tensor) for tensor in primals)

    def ours(*tensors: torch.Tensor) -> torch.Tensor:
        return dcnv3(*tensors, **case.settings)

    _, tangent = torch.func.jvp(ours, primals, tangents)
    step = 1e-6
    ahead, behind = (ours(*(p + sign * step * t for p, t in zip(primals, tangents, strict=True))) for sign in (1, -1))
    assert relative_rms(tangent, (ahead - behind) / (2 * step)) < 1e-6
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(primals[1], tangents[1])
        assert torch.autograd.forward_ad.unpack_dual(ours(primals[0], dual, primals[2])).tangent is not None
    grad = torch.func.grad(lambda value: ours(value, *primals[1:]).square().sum())(primals[0])
    leaf = primals[0].clone().requires_grad_()
    ours(leaf, *primals[1:]).square().sum().backward()
    assert relative_rms(grad, leaf.grad) < 1e-12


def test_numbers_of_numpy_are_numbers() -> None:
    value, offset, mask = named("odd_map_5x4").tensors()
    found = dcnv3(value, offset, mask, kernel_size=np.int64(3), stride=(np.int32(1), 1))
    assert torch.equal(found, dcnv3(value, offset, mask))


VALUE, OFFSET, MASK = torch.zeros(1, 4, 4, 2, 3), torch.zeros(1, 4, 4, 2, 9, 2), torch.zeros(1, 4, 4, 2, 9)
BAD = {
    "value_rank": ((VALUE.flatten(3), OFFSET, MASK), {}, r"value must be \(N, H, W, G, D\)"),
    "mask_shape": ((VALUE, OFFSET, MASK[:, 1:]), {}, r"mask must be .*\(1, 4, 4, 2, 9\)"),
    "offset_shape": ((VALUE, OFFSET[..., :1], MASK), {}, r"offset must be .*\(1, 4, 4, 2, 9, 2\)"),
    "integer_dtype": ((VALUE.int(), OFFSET.int(), MASK.int()), {}, "share one dtype"),
    "mixed_dtypes": ((VALUE, OFFSET.double(), MASK), {}, "share one dtype"),
    "device": ((VALUE, OFFSET.to("meta"), MASK), {}, "on one device"),
    "normalize": ((VALUE, OFFSET, MASK), {"normalize": "relu"}, "normalize must be one of softmax"),
    "backend": (
        (VALUE, OFFSET, MASK),
        {"backend": "cuda"},
        "unknown backend 'cuda'; choose from cpu, triton, reference",
    ),
    "kernel": ((VALUE, OFFSET, MASK), {"kernel_size": 0}, "kernel_size must be at least 1"),
    "kernel_triple": ((VALUE, OFFSET, MASK), {"kernel_size": (3, 3, 3)}, "integer or a \\(height, width\\) pair"),
    "kernel_bool": ((VALUE, OFFSET, MASK), {"kernel_size": (3, 3), "stride": (True, 1)}, "stride must be an integer"),
    "kernel_whole_float": ((VALUE, OFFSET, MASK), {"kernel_size": (3.0, 3)}, "integer or a \\(height, width\\) pair"),
    "kernel_none": ((VALUE, OFFSET, MASK), {"kernel_size": None}, "integer or a \\(height, width\\) pair"),
    "kernel_float": ((VALUE, OFFSET, MASK), {"kernel_size": (3, 2.5)}, "integer or a \\(height, width\\) pair"),
    "stride": ((VALUE, OFFSET, MASK), {"stride": (1, 0)}, "stride must be at least 1"),
    "padding": ((VALUE, OFFSET, MASK), {"padding": -1}, "padding must be at least 0"),
    "dilation": ((VALUE, OFFSET, MASK), {"dilation": 0}, "dilation must be at least 1"),
    "offset_scale": ((VALUE, OFFSET, MASK), {"offset_scale": float("nan")}, "offset_scale must be finite"),
    "even_center": ((VALUE, OFFSET, MASK), {"kernel_size": 2, "remove_center": True}, "odd kernel sizes"),
    "only_center": ((VALUE, OFFSET, MASK), {"kernel_size": 1, "remove_center": True}, "leaves no sampling point"),
    "no_output": ((VALUE, OFFSET, MASK), {"kernel_size": 9, "padding": 0}, "gives no output"),
}


@pytest.mark.parametrize("problem", BAD)
def test_bad_input_gets_one_clear_sentence(problem: str) -> None:
    tensors, settings, message = BAD[problem]
    with pytest.raises(ValueError, match=message):
        dcnv3(*tensors, **settings)
