"""How many outputs a program of a Triton kernel computes, and on how many warps: a table, and an autotuner behind it."""

# Triton has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportMissingTypeStubs=false

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import triton

# Always time the candidates, whatever the table says.
TUNE_VARIABLE = "INTERNIMAGE_TUNE"
# Up to here the loops over points are unrolled: a 3x3 kernel, and a 4x4.
UNROLLED_POINTS = 16
_VECTOR_BYTES = 16


@dataclass(frozen=True)
class Config:
    """What a launch may choose: rows (a group at an output position each) of a program, and its warps."""

    rows: int
    num_warps: int


@dataclass(frozen=True)
class ShapeClass:
    """What the best configuration depends on.

    Args:
        kind: ``"forward"`` or ``"backward"``.
        itemsize: bytes per element of the value.
        depth: channels of a group.
        points: sampling points of a group.
    """

    kind: str
    itemsize: int
    depth: int
    points: int

    @property
    def depth_padded(self) -> int:
        """Triton's blocks are powers of two."""
        return 1 << (self.depth - 1).bit_length()

    def rows(self, num_warps: int, lanes: int, share: int = 1) -> int:
        """Rows with which each thread holds ``share`` vectors of 16 bytes."""
        vector = min(_VECTOR_BYTES // self.itemsize, self.depth_padded)
        return max(1, num_warps * lanes * share * vector // self.depth_padded)


# (architecture, kind, bytes of an element, padded group width) of a 3x3 kernel's eight or nine points -> (vectors that
# each thread holds, warps). `benchmarks/gpu.py --suite tune` prints rows. Those here follow from registers and
# occupancy of the compiled kernels (tests/ops/test_dcnv3_aot.py has the budget); no GPU has timed them yet.
_TABLE: dict[tuple[str, str, int, int], tuple[int, int]] = {
    (architecture, kind, itemsize, depth): (1, 4)
    for architecture in ("sm_80", "sm_90", "sm_100", "gfx942")
    for kind in ("forward", "backward")
    for itemsize in (2, 4)
    for depth in (16, 32)
}


def lanes_of(architecture: str) -> int:
    """Threads of a warp; AMD's CDNA has 64."""
    return 64 if architecture.startswith("gfx9") else 32


def default(shape: ShapeClass, architecture: str) -> Config:
    """The table's configuration, or a plain one where nothing was tuned."""
    share, num_warps = _TABLE.get((architecture, shape.kind, shape.itemsize, shape.depth_padded), (1, 4))
    return Config(shape.rows(num_warps, lanes_of(architecture), share), num_warps)


def candidates(shape: ShapeClass, architecture: str) -> list[Config]:
    """What is worth timing."""
    lanes, shares = lanes_of(architecture), (1, 2) if shape.kind == "forward" else (1,)
    found = {Config(shape.rows(warps, lanes, share), warps) for warps in (1, 2, 4, 8) for share in shares}
    return sorted(found, key=lambda config: (config.num_warps, config.rows))


def choose(shape: ShapeClass, architecture: str) -> Config | None:
    """The configuration to launch; None if only timing can tell."""
    if shape.kind in _forced:
        return _forced[shape.kind]
    key = (architecture, shape.kind, shape.itemsize, shape.depth_padded)
    known = key in _TABLE and shape.points in (8, 9)
    return default(shape, architecture) if known and not os.environ.get(TUNE_VARIABLE) else None


@contextmanager
def use_config(kind: str, config: Config) -> Iterator[None]:
    """Launch every kernel of this kind so: for timing one configuration after the other."""
    before = _forced.get(kind)
    _forced[kind] = config
    try:
        yield
    finally:
        del _forced[kind]
        if before is not None:
            _forced[kind] = before


_forced: dict[str, Config] = {}


@cache
def autotuned(kernel: Any, shape: ShapeClass, architecture: str) -> Any:
    """The kernel with Triton's own tuner around it; its choice is kept on disk with the compiled kernels."""
    return triton.autotune(
        configs=[
            triton.Config({"ROWS": config.rows}, num_warps=config.num_warps)
            for config in candidates(shape, architecture)
        ],
        # One choice for all maps: the resolutions of a detector's training change with every batch.
        key=["DEPTH", "POINTS", "NORMALIZE"],
        reset_to_zero=["grad_value_ptr"] if shape.kind == "backward" else None,
        cache_results=True,
    )(kernel)
