"""DCNv3's Triton kernels behind the operator: who takes them, what compilers see, how they are launched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import triton
from torch._functorch import config as functorch_config
from torch._functorch.aot_autograd import aot_function
from torch._inductor.codegen.wrapper import user_defined_triton_kernel_transitive_closure_source_code
from torch._library.triton import get_triton_kernels_for_op
from torch._subclasses import FakeTensorMode

from internimage.ops import dispatch
from internimage.ops.dcnv3 import DCNv3Geometry, explain_dcnv3, triton_launch

FORWARD, BACKWARD = torch.ops.internimage.dcnv3.default, torch.ops.internimage.dcnv3_backward.default
SETTINGS = ([3, 3], [1, 1], [1, 1], [1, 1], 1.0, False, "softmax")
GPU = torch.device("cuda:0")


def version(library: Any) -> tuple[int, int]:
    major, minor = library.__version__.split(".")[:2]
    return int(major), int(minor)


def tensors(dtype: torch.dtype = torch.bfloat16, depth: int = 16, kernel: int = 3) -> list[torch.Tensor]:
    shapes = ((2, 14, 12, 4, depth), (2, 14, 12, 4, kernel**2, 2), (2, 14, 12, 4, kernel**2))
    return [torch.empty(shape, dtype=dtype, device=GPU) for shape in shapes]


def trace(function: Any, *arguments: torch.Tensor, dynamic: bool = False) -> list[torch.fx.Node]:
    """The nodes that compute in the graph which compilers get."""
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _: Any) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    aot_function(function, keep, dynamic=dynamic)(*arguments)
    return [node for node in graphs[0].graph.nodes if node.op == "call_function" and "getitem" not in str(node.target)]


def written(nodes: list[torch.fx.Node]) -> list[list[str]]:
    return [node.kwargs["tensors_to_clone"] for node in nodes if "triton_kernel" in str(node.target)]


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_compilers_see_the_kernels(dtype: torch.dtype) -> None:
    """Nothing but memory for the results, the launch, which says what it writes, and the rounding of a gradient."""
    with FakeTensorMode(), torch.no_grad():
        value, offset, mask = tensors(dtype)
        forward = trace(lambda *t: FORWARD(*t, *SETTINGS), value, offset, mask)
        backward = trace(lambda *t: BACKWARD(*t, *SETTINGS), value, value, offset, mask)
    assert written(forward) == [["out_ptr"]]
    assert written(backward) == [["grad_value_ptr", "grad_offset_ptr", "grad_mask_ptr"]]
    assert len(forward) == 2
    assert len(backward) == (4 if dtype == torch.float32 else 5)


@pytest.mark.usefixtures("hopper")
def test_a_deterministic_graph_gathers() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        with FakeTensorMode(), torch.no_grad():
            value, offset, mask = tensors()
            nodes = trace(lambda *t: BACKWARD(*t, *SETTINGS), value, value, offset, mask)
    finally:
        torch.use_deterministic_algorithms(False)
    assert written(nodes) == [["grad_value_ptr"], ["grad_offset_ptr", "grad_mask_ptr"]]


@pytest.mark.usefixtures("hopper")
def test_open_sizes_stay_open() -> None:
    """Batch and map may change without another graph; groups, channels and points are what kernels are compiled for."""
    from torch._dynamo.source import ConstantSource
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    shapes = ShapeEnv()

    def size(name: str, hint: int) -> Any:
        source = ConstantSource(name)
        return shapes.create_symintnode(shapes.create_symbol(hint, source=source), hint=hint, source=source)

    with FakeTensorMode(shape_env=shapes), torch.no_grad():
        n, h, w = size("n", 8), size("h", 14), size("w", 20)
        shape = (n, h, w, 4)
        value, offset, mask = (
            torch.empty((*shape, *rest), dtype=torch.float16, device=GPU) for rest in ((16,), (9, 2), (9,))
        )
        for function in (lambda *t: FORWARD(*t, *SETTINGS), lambda *t: BACKWARD(t[0], *t, *SETTINGS)):
            (launch,) = (node for node in trace(function, value, offset, mask, dynamic=True) if written([node]))
            assert not isinstance(launch.kwargs["kwargs"]["width"], int)
    assert not any("Eq(" in str(guard.expr) for guard in shapes.guards)


@pytest.mark.usefixtures("hopper")
def test_exported_programs_keep_the_operator() -> None:
    with FakeTensorMode(), torch.no_grad(), functorch_config.patch(decompose_custom_triton_ops=False):
        nodes = trace(lambda *t: FORWARD(*t, *SETTINGS), *tensors())
    assert [node.target for node in nodes] == [FORWARD]


@pytest.mark.usefixtures("hopper")
def test_float64_and_unknown_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeTensorMode(), torch.no_grad():
        double = trace(lambda *t: FORWARD(*t, *SETTINGS), *tensors(torch.float64))
        assert [node.target for node in double] == [FORWARD]
        # Twenty-four channels are in no row of the table: the launch is the tuner's, if there may be one.
        for wish in ("", "0"):
            monkeypatch.setenv("INTERNIMAGE_TUNE", wish)
            nodes = trace(lambda *t: FORWARD(*t, *SETTINGS), *tensors(depth=24))
            (launch,) = (node for node in nodes if written([node]))
            assert ("ROWS" in launch.kwargs["kwargs"]) is (wish == "0")
        value, offset, mask = tensors(depth=24)
        assert written(trace(lambda *t: BACKWARD(*t, *SETTINGS), value, value, offset, mask))


@pytest.mark.usefixtures("hopper")
def test_explain_says_what_runs_on_a_gpu() -> None:
    with FakeTensorMode():
        half, double = explain_dcnv3(tensors(torch.float16)[0]), explain_dcnv3(tensors(torch.float64)[0])
    assert "DCNv3 on cuda:0, float16:" in half
    assert "cpu        can't run: the tensors are on cuda" in half
    assert "triton     runs: Triton kernels" in half
    assert "triton     can't run: the Triton kernels compute in float32" in double
    assert "reference  runs: plain PyTorch" in double


def test_explain_says_why_not_on_a_cpu() -> None:
    assert "triton     can't run: the tensors are on cpu" in explain_dcnv3(torch.zeros(1, 4, 4, 2, 3))


class Driver:
    """Triton's way to the driver, which it compiles when asked for it."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    @property
    def utils(self) -> None:
        if self.error:
            raise self.error


def test_reasons_without_a_suitable_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeTensorMode():
        value = tensors()[0]
    ask = dispatch.why_no_triton.__wrapped__
    if not torch.cuda.is_available():
        assert ask(GPU) == "PyTorch finds no GPU"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (6, 1))
    assert ask(GPU) == "Triton needs compute capability 7.0, this GPU has 6.1"
    assert dispatch.architecture(GPU) == "sm_61"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(triton.runtime.driver, "_active", Driver(None))
    assert ask(GPU) is None
    monkeypatch.setattr(triton.runtime.driver, "_active", Driver(RuntimeError("no\ncompiler")))
    assert ask(GPU) == "Triton can't start (no compiler); it needs a C compiler: install gcc, or set CC"
    monkeypatch.setattr(dispatch, "find_spec", lambda _: None)
    assert ask(GPU) == "Triton is missing: pip install triton"
    monkeypatch.setattr(dispatch, "why_no_triton", ask)
    assert "can't run: Triton is missing" in explain_dcnv3(value)


def test_compiled_graphs_are_kept_under_their_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """And under what launches them, which a graph has inside."""
    for op in (FORWARD, BACKWARD):
        *kernels, launches = get_triton_kernels_for_op(op._name)
        assert kernels == list(triton_launch.KERNELS)
        before = user_defined_triton_kernel_transitive_closure_source_code(launches)
        monkeypatch.setenv("INTERNIMAGE_TUNE", "0")
        tuned = user_defined_triton_kernel_transitive_closure_source_code(launches)
        monkeypatch.setattr(dispatch, "_sources", lambda: "other files")
        other = user_defined_triton_kernel_transitive_closure_source_code(launches)
        assert len({before, tuned, other}) == 3
        monkeypatch.undo()


def test_large_images_are_counted_in_64_bits() -> None:
    with torch.device("meta"):
        for size, wide in ((5792, False), (5793, True)):
            # 64 channels a pixel: 5792^2 * 64 < 2^31 < 5793^2 * 64.
            value, mask = torch.empty(1, size, size, 4, 16), torch.empty(1, size, size, 4, 1)
            tensors = value, mask.new_empty((*mask.shape, 2)), mask
            problem = triton_launch.Problem.of(tensors, DCNv3Geometry.make(1, padding=0), "none")
            assert problem.constants["WIDE"] is wide
        # 2^24 positions, each 2^8 elements of something larger from the next: the logits alone lie that far apart.
        together = torch.empty(1, 4096, 4096, 256)
        tensors = torch.empty(1, 4096, 4096, 1, 1), torch.empty(1, 4096, 4096, 1, 1, 2), together[..., :1, None]
        assert triton_launch.Problem.of(tensors, DCNv3Geometry.make(1, padding=0), "none").constants["WIDE"]


@pytest.mark.parametrize(
    "code",
    [
        "import sys, internimage; internimage.dcnv3; assert 'internimage.ops.dcnv3.triton_launch' not in sys.modules",
        "import sys; sys.modules['triton'] = None; import internimage; internimage.dcnv3",
    ],
)
def test_import_without_triton(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(
    version(triton) < (3, 8) and version(numpy) >= (2, 4),
    reason="the interpreter of Triton before 3.8 can't count in loops with NumPy 2.4",
)
@pytest.mark.timeout(900)
@pytest.mark.parametrize("those", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_kernels_in_the_interpreter(those: str) -> None:
    """In a process of its own: a kernel is either interpreted or compiled."""
    file = Path(__file__).with_name("interpreted_dcnv3.py")
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", those, str(file)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=file.parents[2],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
