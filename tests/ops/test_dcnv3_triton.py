"""DCNv3's Triton kernels behind the operator: who takes them, what compilers see, how they are launched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._functorch import config as functorch_config
from torch._functorch.aot_autograd import aot_function
from torch._library.triton import get_triton_kernels_for_op
from torch._subclasses import FakeTensorMode

from internimage.ops import dispatch
from internimage.ops.dcnv3 import DCNv3Geometry, explain_dcnv3, triton_launch, triton_tuning
from internimage.ops.dcnv3.triton_tuning import Config, ShapeClass

FORWARD, BACKWARD = torch.ops.internimage.dcnv3.default, torch.ops.internimage.dcnv3_backward.default
SETTINGS = ([3, 3], [1, 1], [1, 1], [1, 1], 1.0, False, "softmax")
GPU = torch.device("cuda:1")


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
def test_float64_and_unknown_classes() -> None:
    with FakeTensorMode(), torch.no_grad():
        double = trace(lambda *t: FORWARD(*t, *SETTINGS), *tensors(torch.float64))
        assert [node.target for node in double] == [FORWARD]
        # Twenty-four channels are in no row of the table: the launch is the tuner's.
        (launch,) = (node for node in trace(lambda *t: FORWARD(*t, *SETTINGS), *tensors(depth=24)) if written([node]))
        assert "ROWS" not in launch.kwargs["kwargs"]
        value, offset, mask = tensors(depth=24)
        assert written(trace(lambda *t: BACKWARD(*t, *SETTINGS), value, value, offset, mask))


@pytest.mark.usefixtures("hopper")
def test_explain_says_what_runs_on_a_gpu() -> None:
    with FakeTensorMode():
        half, double = explain_dcnv3(tensors(torch.float16)[0]), explain_dcnv3(tensors(torch.float64)[0])
    assert "DCNv3 on cuda:1, float16:" in half
    assert "cpu        can't run: the tensors are on cuda" in half
    assert "triton     runs: Triton kernels" in half
    assert "triton     can't run: the Triton kernels compute in float32" in double
    assert "reference  runs: plain PyTorch" in double


def test_explain_says_why_not_on_a_cpu() -> None:
    assert "triton     can't run: the tensors are on cpu" in explain_dcnv3(torch.zeros(1, 4, 4, 2, 3))


def test_reasons_without_a_suitable_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeTensorMode():
        value = tensors()[0]
    ask = dispatch.why_no_triton.__wrapped__
    if not torch.cuda.is_available():
        assert ask(GPU) == "PyTorch finds no GPU"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (6, 1))
    assert ask(GPU) == "Triton needs compute capability 7.0, this GPU has 6.1"
    assert dispatch.architecture(GPU) == "sm_61"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert ask(GPU) is None
    monkeypatch.setattr(dispatch, "find_spec", lambda _: None)
    assert ask(GPU) == "Triton is missing: pip install triton"
    monkeypatch.setattr(dispatch, "why_no_triton", ask)
    assert "can't run: Triton is missing" in explain_dcnv3(value)


def test_compiled_graphs_are_kept_under_their_kernels() -> None:
    for op in (FORWARD, BACKWARD):
        assert list(get_triton_kernels_for_op(op._name)) == list(triton_launch.KERNELS)


@pytest.mark.parametrize(
    ("shape", "vector", "fewest"),
    [
        (ShapeClass("forward", 2, 16, 9), 8, 1),
        (ShapeClass("forward", 4, 16, 9), 4, 1),
        (ShapeClass("backward", 2, 64, 9), 4, 2),
        (ShapeClass("forward", 2, 24, 9), 8, 1),
        (ShapeClass("forward", 2, 5, 9), 1, 1),
        (ShapeClass("forward", 4, 15, 9), 1, 2),
        (ShapeClass("forward", 2, 1, 9), 1, 1),
    ],
)
def test_how_threads_share_a_group(shape: ShapeClass, vector: int, fewest: int) -> None:
    assert (shape.vector, shape.fewest_threads_per_row) == (vector, fewest)
    for config in triton_tuning.candidates(shape):
        found = shape.constants(config, 32)
        assert found["PARTS"] * found["WIDTH"] >= shape.depth > (found["PARTS"] - 1) * found["WIDTH"]
        assert found["ROWS"] * config.threads_per_row == 32 * config.num_warps


def test_constants_by_hand() -> None:
    """Four warps of 32, two threads a row of 32 channels in vectors of eight: 64 rows, two parts of sixteen."""
    shape = ShapeClass("forward", 2, 32, 9)
    assert shape.constants(Config(2, 4, 3), 32) == {"ROWS": 64, "WIDTH": 16, "PARTS": 2, "CHUNK": 3}
    assert shape.constants(Config(2, 4, 16), 64) == {"ROWS": 128, "WIDTH": 16, "PARTS": 2, "CHUNK": 9}


def test_table_variable_and_forced_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    known, unknown = ShapeClass("forward", 2, 16, 9), ShapeClass("forward", 2, 16, 25)
    assert triton_tuning.choose(known, "sm_90") == triton_tuning.default(known, "sm_90")
    assert triton_tuning.choose(unknown, "sm_90") is None
    assert triton_tuning.choose(known, "sm_120") is None
    monkeypatch.setenv(triton_tuning.TUNE_VARIABLE, "1")
    assert triton_tuning.choose(known, "sm_90") is None
    with triton_tuning.use_config("forward", Config(2, 8, 1)):
        with triton_tuning.use_config("forward", Config(1, 1, 1)):
            assert triton_tuning.choose(known, "sm_90") == Config(1, 1, 1)
        assert triton_tuning.choose(known, "sm_90") == Config(2, 8, 1)
    assert triton_tuning.choose(known, "sm_90") is None


def test_large_images_are_counted_in_64_bits() -> None:
    with torch.device("meta"):
        for size, wide in ((5792, False), (5793, True)):
            # 64 channels a pixel: 5792^2 * 64 < 2^31 < 5793^2 * 64.
            value, mask = torch.empty(1, size, size, 4, 16), torch.empty(1, size, size, 4, 1)
            tensors = value, mask.new_empty((*mask.shape, 2)), mask
            problem = triton_launch.Problem.of(tensors, DCNv3Geometry.make(1, padding=0), "none")
            assert problem.constants["WIDE"] is wide


@pytest.mark.parametrize(
    "code",
    [
        "import sys, internimage; internimage.dcnv3; assert 'internimage.ops.dcnv3.triton_launch' not in sys.modules",
        "import sys; sys.modules['triton'] = None; import internimage; internimage.dcnv3",
    ],
)
def test_import_without_triton(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def test_kernels_in_the_interpreter() -> None:
    """In a process of its own: a kernel is either interpreted or compiled."""
    file = Path(__file__).with_name("interpreted_dcnv3.py")
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=file.parents[2],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
