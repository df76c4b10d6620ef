"""The branch as an operator: against the three layers, dispatch, autograd, fake tensors, compilers, and its kernels."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sympy
import torch
from torch import Tensor
from torch._dynamo.source import ConstantSource
from torch._functorch.aot_autograd import aot_function
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._python_dispatch import TorchDispatchMode

from internimage.ops.branch import depthwise_branch, why_not
from support.branch import CASES, EPS, MASKS, NAMES, SABOTAGES, Case, Sabotage, assert_close, composed, run

pytestmark = pytest.mark.usefixtures("poisoned_memory")
FORWARD, BACKWARD = torch.ops.internimage.branch.default, torch.ops.internimage.branch_backward.default


def by_op(*arguments: Any) -> Tensor:
    *tensors, activation = arguments
    return FORWARD(*tensors, EPS, activation)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-14), (torch.float32, 1e-6)], ids=str)
@pytest.mark.parametrize("case", CASES, **NAMES)
def test_op_equals_layers(case: Case, dtype: torch.dtype, limit: float) -> None:
    tensors = case.tensors(dtype)
    expected = run(composed, case, [None if each is None else each.double() for each in tensors])
    assert_close(run(by_op, case, tensors), expected, limit, limit)


@pytest.mark.parametrize("sabotage", SABOTAGES, **NAMES)
def test_sabotage_is_rejected(sabotage: Sabotage) -> None:
    """By every case it applies to, at the loosest tolerance for the kernels in float32."""
    for case in CASES:
        if case.shape[0] and sabotage.applies(case):
            tensors = case.tensors()
            with pytest.raises(AssertionError):
                assert_close(run(sabotage.wrong, case, tensors), run(composed, case, tensors), 1e-5, 1e-4)


@pytest.mark.parametrize("case", [case for case in CASES if case.shape[0]], **NAMES)
def test_gradients(case: Case) -> None:
    small = Case(case.name, "", (1, 3, 2, 3), case.kernel, case.activation, case.has_bias, case.permuted)
    leaves = [None if each is None else each.requires_grad_() for each in small.tensors()]
    assert torch.autograd.gradcheck(lambda *t: by_op(*t, small.activation), leaves)


# opcheck itself looks at .grad of tensors that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("name", ["odd_map_5x4", "no_bias", "permuted_strides", "kernel_5"])
def test_opcheck(name: str) -> None:
    case = next(case for case in CASES if case.name == name)
    leaves = [None if each is None else each.requires_grad_() for each in case.tensors()]
    torch.library.opcheck(FORWARD, (*leaves, EPS, case.activation, None))
    with torch.no_grad():
        arguments = FORWARD(*leaves, EPS, case.activation), *leaves, EPS, case.activation
        for output_mask in MASKS:
            torch.library.opcheck(BACKWARD, (*arguments, output_mask))


class Calls(TorchDispatchMode):
    """What the backward operator is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[list[bool]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is BACKWARD:
            self.masks.append(list(args[-1]))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("output_mask", MASKS, ids=str)
def test_only_what_is_wanted(output_mask: list[bool]) -> None:
    """Frozen parameters, or an input without gradient, cost nothing; the others' gradients stay the same."""
    x, weight, *rest = CASES[0].tensors()
    wanted = [x] * output_mask[0] + [weight] * output_mask[1] + rest[1:2] * output_mask[2]
    whole = [each.clone().requires_grad_() for each in (x, weight, *rest)]
    by_op(*whole, "gelu").square().sum().backward()
    for each in wanted:
        each.requires_grad_()
    with Calls() as calls:
        by_op(x, weight, *rest, "gelu").square().sum().backward()
    assert calls.masks == [output_mask]
    for leaf, full in zip((x, weight, *rest), whole, strict=True):
        if any(leaf is each for each in wanted):
            torch.testing.assert_close(leaf.grad, full.grad, rtol=1e-12, atol=1e-12)
        else:
            assert leaf.grad is None


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize(("output_mask", "kernels"), [([True, False, True], 2), ([False, False, True], 1)], ids=str)
def test_nothing_wanted_nothing_launched(output_mask: list[bool], kernels: int) -> None:
    graphs: list[torch.fx.GraphModule] = []
    with FakeTensorMode(), torch.no_grad():
        tensors = on_gpu(torch.bfloat16)
        grad = torch.empty_like(tensors[0])
        aot_function(lambda *t: BACKWARD(*t, EPS, "gelu", output_mask), lambda g, _: graphs.append(g) or g)(
            grad, *tensors
        )
    launches = [node for node in graphs[0].graph.nodes if "triton_kernel_wrapper" in str(node.target)]
    assert len(launches) == kernels


def test_schemas() -> None:
    shared = "Tensor x, Tensor weight, Tensor? bias, Tensor norm_weight, Tensor norm_bias, float eps, str activation"
    assert str(FORWARD._schema) == f'internimage::branch({shared}="gelu", ScalarType? out_dtype=None) -> Tensor'
    backward = f"internimage::branch_backward(Tensor grad, {shared}, bool[] output_mask) -> (Tensor, Tensor, Tensor)"
    assert str(BACKWARD._schema) == backward


def test_autocast_decides_the_result_alone() -> None:
    case = CASES[0]
    tensors = case.tensors(torch.float32)
    exact = depthwise_branch(*tensors, EPS)
    with torch.autocast("cpu", torch.bfloat16):
        found = depthwise_branch(*tensors, EPS)
        wide = depthwise_branch(*case.tensors(), EPS)
    assert torch.equal(found, exact.bfloat16())
    assert wide.dtype == torch.float64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: torch.zeros(5, 4, 6)}, r"x must be \(N, H, W, C\)"),
        ({1: torch.zeros(6, 1, 2, 3)}, "odd sizes"),
        ({1: torch.zeros(5, 1, 3, 3)}, r"weight must be \(6, 1, Kh, Kw\)"),
        ({2: torch.zeros(5)}, r"bias must be \(6,\), got \(5,\)"),
        ({4: torch.zeros(1)}, "norm_bias"),
    ],
)
def test_what_does_not_fit(change: dict[int, Tensor], message: str) -> None:
    tensors = [change.get(place, each) for place, each in enumerate(CASES[0].tensors(torch.float32))]
    with pytest.raises(ValueError, match=message):
        FORWARD(*tensors, EPS)
    with pytest.raises(ValueError, match="gelu, relu, silu"):
        FORWARD(*CASES[0].tensors(), EPS, "tanh")


def test_compiles_whole_with_any_batch() -> None:
    case = CASES[0]
    compiled = torch.compile(lambda *t: by_op(*t, case.activation), fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in (2, 3):
        x, *rest = case.tensors()
        x = x[:1].repeat(batch, 1, 1, 1)
        assert torch.allclose(compiled(x, *rest), by_op(x, *rest, case.activation), rtol=1e-12)


def test_kernels_of_more_than_49_taps_stay_layers() -> None:
    """Every tap is written out in the backward kernel: 225 of them took a minute and a half to compile."""
    with FakeTensorMode():
        x = on_gpu(torch.bfloat16)[0]
        assert "49 taps" in (why_not(x, torch.empty(48, 1, 5, 11, device="cuda:1")) or "")
        assert "cpu" in (why_not(torch.empty(1, 5, 4, 8), torch.empty(8, 1, 9, 9)) or "")


def on_gpu(dtype: torch.dtype, batch: int = 2) -> list[Tensor]:
    return [
        torch.empty(batch, 14, 12, 48, dtype=dtype, device="cuda:1").transpose(1, 2),
        torch.empty(48, 1, 3, 3, device="cuda:1"),
        *(torch.empty(48, device="cuda:1") for _ in range(3)),
    ]


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("out_dtype", [None, torch.float16], ids=str)
def test_fake_tensors_on_a_gpu(dtype: torch.dtype, out_dtype: torch.dtype | None) -> None:
    with FakeTensorMode():
        tensors = on_gpu(dtype)
        assert why_not(*tensors[:2]) is None
        out = FORWARD(*tensors, EPS, "gelu", out_dtype)
        assert (out.shape, out.dtype, out.device) == (tensors[0].shape, out_dtype or dtype, torch.device("cuda:1"))
        grad_x, grad_weight, sums = BACKWARD(out, *tensors, EPS, "gelu", [True] * 3)
    assert out.is_contiguous()
    assert grad_x.is_contiguous()
    assert (grad_x.shape, grad_x.dtype) == (tensors[0].shape, dtype)
    assert (grad_weight.shape, grad_weight.dtype, grad_weight.is_contiguous()) == ((48, 1, 3, 3), torch.float32, True)
    assert (sums.shape, sums.dtype) == ((3, 48), torch.float32)


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("dynamic", [False, True])
def test_compilers_see_the_kernels(dynamic: bool) -> None:
    """Each launch is a node of the graph that says what it writes; nothing else is copied around it."""
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _: Any) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    shapes = ShapeEnv()

    def size(name: str, hint: int) -> Any:
        if not dynamic:
            return hint
        source = ConstantSource(name)
        return shapes.create_symintnode(shapes.create_symbol(hint, source=source), hint=hint, source=source)

    with FakeTensorMode(shape_env=shapes), torch.no_grad():
        x = torch.empty(size("n", 8), size("h", 14), size("w", 20), 48, dtype=torch.bfloat16, device="cuda:1")
        tensors = [x, *on_gpu(torch.bfloat16)[1:]]
        aot_function(lambda *t: FORWARD(*t, EPS), keep, dynamic=dynamic)(*tensors)
        aot_function(lambda *t: BACKWARD(*t, EPS, "gelu", [True] * 3), keep, dynamic=dynamic)(x, *tensors)
    nodes = [
        node for graph in graphs for node in graph.graph.nodes if "triton_kernel_wrapper_functional" in str(node.target)
    ]
    written = [node.kwargs["tensors_to_clone"] for node in nodes]
    assert written == [["out_ptr"], ["grad_conv_ptr", "sums_ptr"], ["grad_x_ptr", "sums_ptr"]]
    # Another map, larger or smaller, or another batch is the same graph: what was asked of these sizes holds for it.
    for sizes in ((2, 480, 640), (2, 800, 1333), (8, 800, 1088), (256, 224, 224)):
        known = {size.node.expr: other for size, other in zip(x.shape, sizes, strict=False) if dynamic}
        assert [guard.expr for guard in shapes.guards if guard.expr.subs(known) != sympy.true] == []
    assert all(isinstance(node.kwargs["kwargs"]["width"], int) != dynamic for node in nodes)


def test_why_not() -> None:
    with FakeTensorMode():
        assert "float64" in (why_not(*on_gpu(torch.float64)[:2]) or "")
    assert "cpu" in (why_not(*CASES[0].tensors(torch.float32)[:2]) or "")


@pytest.mark.parametrize(
    "code",
    [
        "import sys, internimage.ops.branch as b; assert b.__name__ + '.triton_launch' not in sys.modules",
        "import sys; sys.modules['triton'] = None; import internimage.ops.branch",
    ],
)
def test_import_without_triton(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.timeout(900)
def test_kernels_in_the_interpreter() -> None:
    """In a process of its own: a kernel is either interpreted or compiled."""
    pytest.importorskip("triton")
    file = Path(__file__).with_name("interpreted_branch.py")
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=file.parents[2],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
