"""How DCNv3's Triton kernels are shared out to threads: by hand, by a table, by an estimate, by a tuner."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import triton

from internimage.ops import dispatch
from internimage.ops.dcnv3 import DCNv3Geometry, triton_launch, triton_tuning
from internimage.ops.dcnv3.triton_tuning import Config, ShapeClass

GPU = torch.device("cuda:0")


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
    known, unknown = ShapeClass("forward", 2, 16, 9), ShapeClass("forward", 2, 16, 9, few=True)
    monkeypatch.setitem(triton_tuning._TABLE, "sm_90", {"forward": {(2, 16, False): Config(2, 2, 2)}})
    assert triton_tuning.choose(known, "sm_90") == triton_tuning.default(known, "sm_90") == Config(2, 2, 2)
    assert triton_tuning.choose(unknown, "sm_90") is None
    assert triton_tuning.choose(replace(known, points=25), "sm_90") is None
    assert triton_tuning.choose(known, "sm_120") is None
    monkeypatch.setenv("INTERNIMAGE_TUNE", "0")
    assert triton_tuning.choose(known, "sm_90") == Config(2, 2, 2)
    assert triton_tuning.choose(unknown, "sm_90") == triton_tuning.default(unknown, "sm_90")
    monkeypatch.setenv("INTERNIMAGE_TUNE", "1")
    assert triton_tuning.choose(known, "sm_90") is None
    with triton_tuning.use_config("forward", Config(2, 8, 1)):
        with triton_tuning.use_config("forward", Config(1, 1, 1)):
            assert triton_tuning.choose(known, "sm_90") == Config(1, 1, 1)
        assert triton_tuning.choose(known, "sm_90") == Config(2, 8, 1)
    assert triton_tuning.choose(known, "sm_90") is None


def test_estimates_by_family() -> None:
    """Additions of one number at a time: the threads of a row, side by side, fill a sector."""
    many, few = (ShapeClass("backward", 2, 16, 9, few) for few in (False, True))
    assert triton_tuning.default(many, "sm_90") == Config(1, 4, 3)
    assert triton_tuning.default(many, "sm_86") == triton_tuning.default(many, "sm_80") == Config(4, 4, 1)
    assert triton_tuning.default(few, "sm_120") == Config(4, 1, 3)
    assert triton_tuning.default(replace(many, points=49), "sm_90") == Config(1, 4, 3)
    for shape in (many, few):
        assert triton_tuning.default(shape, "sm_90") in triton_tuning.candidates(shape)


class Recorded:
    """A kernel: notes its launches."""

    def __init__(self) -> None:
        self.launches: list[dict[str, Any]] = []
        self.best_config = triton.Config({"ROWS": 64}, num_warps=2, num_stages=5)

    def __getitem__(self, grid: Any) -> Any:
        return lambda *arguments, **constants: self.launches.append(constants)


def test_a_tuner_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the kernel is launched as the tuner launched it, so that nothing is compiled or loaded again."""
    shape, kernel, autotuned = ShapeClass("forward", 2, 24, 9), Recorded(), Recorded()
    tuner = triton_tuning.Tuner(triton_launch.forward_kernel, shape, "sm_90")
    tuner.autotuned = autotuned
    monkeypatch.setattr(triton_tuning, "tuner", lambda *_: tuner)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    monkeypatch.setattr(dispatch, "architecture", lambda _: "sm_90")
    problem: Any = SimpleNamespace(value=SimpleNamespace(is_cuda=True, device=GPU))
    capturing = True
    _, chosen = triton_tuning.configure(kernel, shape, problem.value)
    assert chosen == shape.constants(triton_tuning.default(shape, "sm_90"), 32) | {"num_warps": 4}
    capturing = False
    launch, chosen = triton_tuning.configure(kernel, shape, problem.value)
    launch(None, DEPTH=24, **chosen)
    assert (autotuned.launches, kernel.launches) == ([{"DEPTH": 24}], [])
    capturing = True
    launch, chosen = triton_tuning.configure(kernel, shape, problem.value)
    launch(None, DEPTH=24, **chosen)
    assert len(autotuned.launches) == 1
    assert kernel.launches == [{"DEPTH": 24, "ROWS": 64, "num_warps": 2, "num_ctas": 1, "num_stages": 5}]


def test_how_many_rows_are_few() -> None:
    """64 images in T's stage 3 (14 x 14, 16 groups: 200,704 rows) fill a GPU; stage 4 (7 x 7, 32: 100,352) does not."""
    with torch.device("meta"):
        for side, groups, few in ((14, 16, False), (7, 32, True)):
            value, mask = torch.empty(64, side, side, groups, 16), torch.empty(64, side, side, groups, 9)
            problem = triton_launch.Problem.of(
                (value, mask.new_empty((*mask.shape, 2)), mask), DCNv3Geometry.make(3, padding=1), "softmax"
            )
            assert problem.shape_class("forward") == ShapeClass("forward", 4, 16, 9, few)
