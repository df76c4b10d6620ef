"""The operators on a GPU that is there: run with ``pytest -m gpu``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from internimage.ops.branch import depthwise_branch
from internimage.ops.dcnv3 import dcnv3, explain_dcnv3, triton_tuning
from support import branch
from support.cases import BASE, CASES, NAMES, Case
from support.compare import Outcome, assert_close, relative_rms, run
from support.sabotage import right

pytestmark = pytest.mark.gpu
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# What production launches: the four stages of T at 64 px, a width of H, and a class that only the tuner knows.
LARGE = (
    Case("stage_1", "", (3, 16, 16, 4, 16)),
    Case("stage_4", "", (3, 2, 2, 32, 16)),
    Case("large_h", "", (1, 20, 33, 10, 32)),
    Case("many_rows", "", (2, 96, 97, 8, 16)),
    Case("no_estimate", "", (2, 17, 9, 3, 24)),
    Case("one_long_row", "", (1, 1, 600_000, 1, 2), replace(BASE, kernel=(1, 1), padding=(0, 0))),
)


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Toys must not decide what this machine launches from now on: nothing is timed unless a test wants it."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    monkeypatch.setenv("INTERNIMAGE_TUNE", "0")


@pytest.fixture
def tuning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Everything is timed, and nobody will know of it."""
    monkeypatch.setenv("INTERNIMAGE_TUNE", "1")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    triton_tuning.tuner.cache_clear()


def named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def to_gpu(tensors: Any, device: str = "cuda") -> tuple[Tensor, ...]:
    return tuple(tensor.to(device) for tensor in tensors)


def on_gpu(case: Case, tensors: tuple[Tensor, ...], device: str = "cuda") -> Outcome:
    outcome = run(lambda *t: dcnv3(*to_gpu(t, device), **case.settings).cpu(), tensors)
    return outcome._replace(grad_offset=case.smooth(tensors[1], outcome.grad_offset))


def exact(case: Case, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Offsets in eighths of a pixel: on a map of 600,000 columns float32 has no finer place for a point."""
    value, offset, mask = case.tensors(dtype)
    return value, (offset * 8).round() / 8, mask


def expect(case: Case, tensors: tuple[Tensor, ...]) -> Outcome:
    outcome = run(lambda *t: right(case, t), tuple(tensor.double() for tensor in tensors))
    return outcome._replace(grad_offset=case.smooth(tensors[1], outcome.grad_offset))


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("case", CASES + LARGE, **NAMES)
def test_kernels_equal_reference(case: Case, name: str, deterministic: bool) -> None:
    if deterministic and case.name == "one_long_row":
        pytest.skip("every tile of the map reads all offsets: hours")
    tensors = exact(case, TYPES[name]) if case in LARGE else case.tensors(TYPES[name])
    torch.use_deterministic_algorithms(deterministic)
    try:
        found = on_gpu(case, tensors)
    finally:
        torch.use_deterministic_algorithms(False)
    assert_close(found, expect(case, tensors), name)


def test_deterministic_gradients_have_equal_bits() -> None:
    case = Case("crowded", "", (2, 24, 24, 4, 16))
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (on_gpu(case, case.tensors(torch.float16)) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_float64_takes_the_reference() -> None:
    case = named("odd_map_5x4")
    tensors = case.tensors()
    assert "reference  runs" in explain_dcnv3(tensors[0].cuda())
    assert_close(on_gpu(case, tensors), expect(case, tensors), "fp64")


def test_second_device_while_the_first_is_current() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    case = named("odd_map_5x4")
    tensors = case.tensors(torch.float32)
    assert torch.cuda.current_device() == 0
    assert_close(on_gpu(case, tensors, "cuda:1"), expect(case, tensors), "fp32")


def test_no_synchronisation() -> None:
    case = LARGE[0]
    leaves = [tensor.requires_grad_() for tensor in to_gpu(case.tensors(torch.float16))]
    dcnv3(*leaves, **case.settings).sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        dcnv3(*leaves, **case.settings).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("dynamic", [False, True])
def test_whole_graph_compiles(dynamic: bool) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(lambda *t: dcnv3(*t, normalize="softmax"), fullgraph=True, dynamic=dynamic)
    for case in (LARGE[0], Case("other_size", "", (2, 11, 7, 4, 16))):
        tensors = case.tensors(torch.float32)
        found = run(lambda *t: compiled(*to_gpu(t)).cpu(), tensors)
        assert_close(found, expect(case, tensors), "fp32")


def replay(case: Case) -> None:
    inputs = to_gpu(case.tensors(torch.float16))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        dcnv3(*inputs, **case.settings)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = dcnv3(*inputs, **case.settings)
    inputs[0].copy_(torch.randn_like(inputs[0]))
    graph.replay()
    assert torch.equal(out, dcnv3(*inputs, **case.settings))


@pytest.mark.parametrize("case", [LARGE[0], named("kernel_5")], **NAMES)
def test_cuda_graph_replays(case: Case) -> None:
    replay(case)


@pytest.mark.usefixtures("tuning")
def test_what_was_timed_is_launched_and_recorded() -> None:
    """Gradients are right after the tuner has added to them a hundred times; a graph takes what it has found."""
    case = Case("tuned", "", (2, 33, 31, 4, 24))
    tensors = case.tensors(torch.float32)
    for _ in range(2):
        assert_close(on_gpu(case, tensors), expect(case, tensors), "fp32")
    replay(case)


@pytest.mark.parametrize("few", [False, True])
def test_every_candidate_computes_the_same(few: bool) -> None:
    case = LARGE[2]
    inputs = to_gpu(case.tensors(torch.float16))
    expected = dcnv3(*inputs, **case.settings)
    for config in triton_tuning.candidates(triton_tuning.ShapeClass("forward", 2, 32, 9, few)):
        with triton_tuning.use_config("forward", config):
            assert relative_rms(dcnv3(*inputs, **case.settings), expected) < 1e-3, config


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", branch.CASES, **branch.NAMES)
def test_branch_equals_layers(case: branch.Case, dtype: torch.dtype) -> None:
    tensors = case.tensors(dtype)

    def operator(*arguments: Any) -> Tensor:
        *inputs, activation = arguments
        moved = [None if each is None else each.cuda() for each in inputs]
        return depthwise_branch(*moved, branch.EPS, activation).cpu()

    expected = branch.run(branch.composed, case, [None if each is None else each.double() for each in tensors])
    eps = torch.finfo(dtype).eps
    limits = (2e-6, 1e-5) if dtype == torch.float32 else (eps, 2 * eps)
    branch.assert_close(branch.run(operator, case, tensors), expected, *limits)
