"""How many outputs a Triton program computes, and on how many warps: a table, and an autotuner behind it."""

# Triton has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportMissingTypeStubs=false

from __future__ import annotations

import math
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import triton

# Always time the candidates, whatever the table says.
TUNE_VARIABLE = "INTERNIMAGE_TUNE"
_VECTOR_BYTES = 16
# Channels that a thread holds, and the pieces they come in: more would spill.
_CHANNELS, _PARTS = 32, 8


@dataclass(frozen=True)
class Config:
    """What a launch may choose.

    Args:
        threads_per_row: how many threads share a row, which is a group at an output position; a power of two.
        num_warps: of a program.
        chunk: sampling points at once; more hide latency, take registers and keep the compiler busy.
    """

    threads_per_row: int
    num_warps: int
    chunk: int


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
    def vector(self) -> int:
        """Channels that a thread loads at once: a power of two that divides a group, so that every load is aligned."""
        # The value's gradient is added in float32, whatever the value's own type.
        widest = _VECTOR_BYTES // (self.itemsize if self.kind == "forward" else 4)
        return math.gcd(self.depth, widest)

    @property
    def fewest_threads_per_row(self) -> int:
        """A power of two; fewer would need too many registers."""
        fewest = max(self.depth / _CHANNELS, self.depth / (_PARTS * self.vector))
        return 1 << max(0, math.ceil(math.log2(fewest)))

    def constants(self, config: Config, warp_size: int) -> dict[str, int]:
        """The kernels' arguments that follow: rows of a program, and the parts in which a thread takes its channels."""
        width = self.vector * config.threads_per_row
        rows = config.num_warps * warp_size // config.threads_per_row
        parts, chunk = -(-self.depth // width), min(config.chunk, self.points)
        return {"ROWS": max(1, rows), "WIDTH": width, "PARTS": parts, "CHUNK": chunk}


def _rows(config: Config) -> dict[tuple[int, int], Config]:
    return {(itemsize, depth): config for itemsize in (2, 4) for depth in (16, 32)}


# Of 3x3 kernels, eight or nine points: architecture -> kind -> (bytes of an element, channels of a group) -> Config.
# `benchmarks/gpu.py --suite tune` prints rows. Those here follow from instructions, registers and occupancy of the
# compiled kernels (tests/ops/test_dcnv3_aot.py has the budget); no GPU has timed them yet.
_TABLE: dict[str, dict[str, dict[tuple[int, int], Config]]] = {
    "sm_80": {"forward": _rows(Config(1, 4, 9)), "backward": _rows(Config(1, 4, 1))},
    "sm_90": {"forward": _rows(Config(1, 4, 9)), "backward": _rows(Config(1, 4, 3))},
    "sm_100": {"forward": _rows(Config(1, 4, 9)), "backward": _rows(Config(1, 4, 3))},
    "gfx942": {"forward": _rows(Config(1, 4, 1)), "backward": _rows(Config(1, 4, 1))},
}


def warp_size(architecture: str) -> int:
    """Threads of a warp; AMD's CDNA has 64."""
    return 64 if architecture.startswith("gfx9") else 32


def default(shape: ShapeClass, architecture: str) -> Config:
    """The table's configuration, or a plain one where nothing was tuned."""
    return _find(shape, architecture) or Config(shape.fewest_threads_per_row, 4, 3)


def candidates(shape: ShapeClass) -> list[Config]:
    """What is worth timing."""
    fewest = shape.fewest_threads_per_row
    shares = [share for share in (fewest, 2 * fewest) if share == fewest or share * shape.vector <= shape.depth]
    chunks = (3, 9) if shape.kind == "forward" else (1, 3)
    return [Config(share, warps, chunk) for share in shares for warps in (2, 4, 8) for chunk in chunks]


def choose(shape: ShapeClass, architecture: str) -> Config | None:
    """The configuration to launch; None if only timing can tell."""
    if shape.kind in _forced:
        return _forced[shape.kind]
    return None if os.environ.get(TUNE_VARIABLE) else _find(shape, architecture)


def _find(shape: ShapeClass, architecture: str) -> Config | None:
    rows = _TABLE.get(architecture, {}).get(shape.kind, {})
    return rows.get((shape.itemsize, shape.depth)) if shape.points in (8, 9) else None


@contextmanager
def use_config(kind: str, config: Config) -> Generator[None]:
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
    lanes = warp_size(architecture)
    return triton.autotune(
        configs=[
            triton.Config(shape.constants(config, lanes), num_warps=config.num_warps) for config in candidates(shape)
        ],
        # One choice for all maps: the resolutions of a detector's training change with every batch.
        key=["DEPTH", "POINTS", "NORMALIZE"],
        reset_to_zero=["grad_value_ptr"] if shape.kind == "backward" else None,
        cache_results=True,
    )(kernel)
