"""Deformable attention on a GPU that is there: ``pytest -m gpu tests/ops/attention``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from internimage.ops.attention import deformable_attention, deformable_attention_reference
from support.attention.cases import CASES, NAMES, Case, Shapes, Tensors, check, outcome
from support.compare import Outcome, relative_rms

pytestmark = pytest.mark.gpu
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# The encoder of a detector on a picture of 800 x 800, and its decoder on two of them.
ENCODER = Case("encoder", "", 1, ((100, 100), (50, 50), (25, 25), (13, 13)), 8, 32, 13294, 4)
DECODER = Case("decoder", "", 2, ENCODER.shapes, 8, 32, 900, 4)
WIDTHS = tuple(Case(f"depth_{depth}", "", 2, depth=depth, queries=33, points=3) for depth in (1, 12, 24, 64, 100))


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Toys must not decide what this machine launches from now on: nothing is timed."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    monkeypatch.setenv("INTERNIMAGE_TUNE", "0")


def on_gpu(case: Case, tensors: Tensors, attention: Any = deformable_attention) -> Outcome:
    def move(value: Tensor, shapes: Shapes, points: Tensor, weights: Tensor) -> Tensor:
        return attention(value.cuda(), shapes, points.cuda(), weights.cuda()).cpu()

    return outcome(move, case, tensors)


def expect(case: Case, tensors: Tensors) -> Outcome:
    """The reference in float64 on the same rounded inputs, on the GPU, where it is fast enough."""
    value, points, weights = (tensor.double() for tensor in tensors)
    return on_gpu(case, (value, points, weights), deformable_attention_reference)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("case", [*CASES, *WIDTHS], **NAMES)
def test_kernels_equal_reference(case: Case, name: str) -> None:
    tensors = case.tensors(TYPES[name])
    check(on_gpu(case, tensors), expect(case, tensors), name)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("case", [ENCODER, DECODER], **NAMES)
def test_large_cases(case: Case, name: str) -> None:
    tensors = case.tensors(TYPES[name])
    found, expected = on_gpu(case, tensors), expect(case, tensors)
    # A map of 100 pixels leaves float32 a hundred times eps for a position.
    limit = max(1e-5, 2 * torch.finfo(TYPES[name]).eps)
    errors = [relative_rms(one, other) for one, other in zip(found, expected, strict=True)]
    assert errors[0] <= limit, errors
    assert errors[1] <= 2 * limit, errors
    assert max(errors[2:]) <= 1e-4, errors


def test_deterministic_gradients_have_equal_bits() -> None:
    case = Case("crowded", "", 2, ((9, 9), (5, 5)), 4, 16, 700, 4)
    tensors = case.tensors(torch.float16)
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (on_gpu(case, tensors) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(map(torch.equal, first, second))
    check(first, expect(case, tensors), "fp16")


def test_no_synchronisation() -> None:
    value, points, weights = (tensor.cuda().requires_grad_() for tensor in DECODER.tensors(torch.bfloat16))
    deformable_attention(value, DECODER.shapes, points, weights).sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        deformable_attention(value, DECODER.shapes, points, weights).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_whole_graph_compiles() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(deformable_attention, fullgraph=True)
    for case in (DECODER, Case("other_size", "", 2, ((11, 7), (5, 4), (3, 2), (2, 1)), 8, 32, 77, 4)):
        tensors = case.tensors(torch.bfloat16)
        check(on_gpu(case, tensors, compiled), on_gpu(case, tensors), "bf16")


def test_cuda_graph_replays() -> None:
    value, points, weights = (tensor.cuda() for tensor in DECODER.tensors(torch.bfloat16))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        deformable_attention(value, DECODER.shapes, points, weights)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = deformable_attention(value, DECODER.shapes, points, weights)
    value.copy_(torch.randn_like(value))
    graph.replay()
    assert torch.equal(out, deformable_attention(value, DECODER.shapes, points, weights))
