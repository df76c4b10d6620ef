"""Deformable attention's Triton kernels: in the interpreter, in compilers' graphs, and compiled for GPUs not here."""

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
from torch._functorch.aot_autograd import aot_function
from torch._subclasses import FakeTensorMode

from internimage.ops.attention import triton_launch
from internimage.ops.dcnv3 import triton_tuning
from support import aot

OPS = torch.ops.internimage
SIDES = [20, 30, 10, 15]
GPU = torch.device("cuda:0")
# The most registers a thread may take in groups of 32: so that 512 threads fit with 128 each, or 384 with 168.
BUDGET = {"forward": 128, "backward": 168}


def version(library: Any) -> tuple[int, int]:
    major, minor = library.__version__.split(".")[:2]
    return int(major), int(minor)


@pytest.mark.skipif(
    version(triton) < (3, 8) and version(numpy) >= (2, 4),
    reason="the interpreter of Triton before 3.8 can't count in loops with NumPy 2.4",
)
@pytest.mark.timeout(900)
@pytest.mark.parametrize("those", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_kernels_in_the_interpreter(those: str) -> None:
    """In a process of its own: a kernel is either interpreted or compiled."""
    file = Path(__file__).with_name("interpreted_attention.py")
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", those, str(file)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=file.parents[3],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr


def trace(function: Any, *arguments: torch.Tensor, dynamic: bool = False) -> list[Any]:
    """The keyword arguments of the launches in the graph which compilers get."""
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _: Any) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    aot_function(function, keep, dynamic=dynamic)(*arguments)
    nodes = [node for node in graphs[0].graph.nodes if node.op == "call_function"]
    return [node.kwargs for node in nodes if "triton_kernel" in str(node.target)]


def tensors(batch: Any = 2, queries: Any = 50) -> list[torch.Tensor]:
    value = torch.empty((batch, 750, 8, 32), dtype=torch.bfloat16, device=GPU)
    weights = torch.empty((batch, queries, 8, 2, 4), device=GPU)
    return [value, weights.new_empty((*weights.shape, 2)), weights]


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("deterministic", [False, True])
def test_compilers_see_the_kernels(deterministic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERNIMAGE_TUNE", "0")
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: deterministic)
    with FakeTensorMode(), torch.no_grad():
        value, points, weights = tensors()
        (forward,) = trace(lambda v, p, w: OPS.deformable_attention(v, SIDES, p, w), value, points, weights)
        grad = value.new_empty((2, 50, 8, 32))
        (backward,) = trace(
            lambda g, v, p, w: OPS.deformable_attention_backward(g, v, SIDES, p, w), grad, value, points, weights
        )
    written = ["grad_points_ptr", "grad_weights_ptr"]
    assert forward["tensors_to_clone"] == ["out_ptr"]
    assert backward["tensors_to_clone"] == (written if deterministic else ["grad_value_ptr", *written])


@pytest.mark.usefixtures("hopper")
def test_open_sizes_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.source import ConstantSource
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    monkeypatch.setenv("INTERNIMAGE_TUNE", "0")
    shapes = ShapeEnv()

    def size(name: str, hint: int) -> Any:
        source = ConstantSource(name)
        return shapes.create_symintnode(shapes.create_symbol(hint, source=source), hint=hint, source=source)

    with FakeTensorMode(shape_env=shapes), torch.no_grad():
        value, points, weights = tensors(size("n", 3), size("q", 50))
        (launch,) = trace(
            lambda v, p, w: OPS.deformable_attention(v, SIDES, p, w), value, points, weights, dynamic=True
        )
    assert not isinstance(launch["kwargs"]["rows"], int)
    assert launch["kwargs"]["height_1"] == 10
    assert not any("Eq(" in str(guard.expr) for guard in shapes.guards)


def compile_kernel(kind: str, target: str, dtype: torch.dtype, depth: int) -> aot.Resources:
    """As `triton_launch` would launch it for the encoder of a detector."""
    kernel: Any = dict(zip(("forward", "backward"), triton_launch.KERNELS, strict=True))[kind]
    with torch.device("meta"):
        value, weights = torch.empty(1, 13294, 8, depth, dtype=dtype), torch.empty(1, 13294, 8, 4, 4)
        problem = triton_launch.Problem.of(value, [100, 100, 50, 50, 25, 25, 13, 13], weights[..., None], weights)
    config = triton_tuning.default(problem.shape_class(kind), target)
    constants = problem.constants | problem.shape_class(kind).constants(config, triton_tuning.warp_size(target))
    constants |= {"SCATTER": True} if kind == "backward" else {}
    own = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}[dtype]
    types = {name: "i32" for name in kernel.arg_names if name not in constants}
    for name in types:
        if name.endswith("_ptr"):
            types[name] = own if name in ("value_ptr", "out_ptr", "grad_ptr") else "*fp32"
    return aot.compile_for(target, kernel, types, constants, num_warps=config.num_warps)


@pytest.mark.parametrize("kind", BUDGET)
@pytest.mark.parametrize(
    ("target", "dtype"),
    [
        ("sm_90", torch.bfloat16),
        *(
            pytest.param(target, dtype, marks=pytest.mark.slow)
            for target, dtype in (
                *(("sm_90", torch.float32), ("sm_80", torch.bfloat16), ("sm_100", torch.bfloat16)),
                *(("gfx942", torch.bfloat16), ("sm_75", torch.float16)),
            )
        ),
    ],
    ids=str,
)
def test_kernels_spill_nothing(kind: str, target: str, dtype: torch.dtype) -> None:
    found = compile_kernel(kind, target, dtype, 32)
    assert found.spills == 0, found
    assert found.registers <= (256 if target == "gfx942" else BUDGET[kind]), found


def test_large_tensors_are_counted_in_64_bits() -> None:
    with torch.device("meta"):
        for pixels, wide in ((2**20 - 1, False), (2**20, True)):
            weights = torch.empty(8, 1, 8, 1, 1)
            value, points = torch.empty(8, pixels, 8, 32), torch.empty(8, 1, 8, 1, 1, 2)
            problem = triton_launch.Problem.of(value, [1, pixels], points, weights)
            assert problem.constants["WIDE"] is wide


@pytest.mark.usefixtures("hopper")
def test_more_levels_than_the_kernels_take_go_to_the_reference() -> None:
    with FakeTensorMode(), torch.no_grad():
        weights = torch.empty((1, 3, 1, 9, 1), device=GPU)
        value, points = torch.empty((1, 9, 1, 2), device=GPU), weights.new_empty((*weights.shape, 2))
        assert trace(lambda v, p, w: OPS.deformable_attention(v, [1] * 18, p, w), value, points, weights) == []


def test_import_without_triton() -> None:
    code = "import sys; sys.modules['triton'] = None; import internimage.ops.attention"
    subprocess.run([sys.executable, "-c", code], check=True)
