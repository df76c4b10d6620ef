"""How many outputs a Triton program computes, and on how many warps: a table, and an autotuner behind it.

`choose` knows what was timed: the table's rows, and what this process's tuner found. For all else a launch goes through
`Tuner`, once per class of shapes; its choice is kept on disk. Where nothing may be timed, `default` has an estimate.
"""

# Triton has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportMissingTypeStubs=false

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
import triton
from torch import Tensor

from internimage.ops import dispatch

# Takes a grid, and a kernel's arguments.
Launcher = Callable[..., None]

_VECTOR_BYTES = 16
# An H100 holds 270,000 threads.
_FEW_ROWS = 2**17
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


def are_few(rows: int | torch.SymInt) -> bool:
    """Whether the rows of a call leave a GPU partly idle at one thread each: a single image, or a late stage.

    A number that a traced graph leaves open is large: a question about it would tie the graph to the answer.
    """
    return not isinstance(rows, torch.SymInt) and rows < _FEW_ROWS


@dataclass(frozen=True)
class ShapeClass:
    """What the best configuration depends on.

    Args:
        kind: ``"forward"`` or ``"backward"``, and ``"attention_forward"`` or ``"attention_backward"``.
        itemsize: bytes per element of the value.
        depth: channels of a group.
        points: sampling points of a group; of attention, on one level.
        few: `are_few`, of a call's rows.
    """

    kind: str
    itemsize: int
    depth: int
    points: int
    few: bool = False

    @property
    def is_backward(self) -> bool:
        """Whether a value's gradient is added to."""
        return self.kind.endswith("backward")

    @property
    def vector(self) -> int:
        """Channels that a thread loads at once: a power of two that divides a group, so that every load is aligned."""
        # The value's gradient is added in float32, whatever the value's own type.
        widest = _VECTOR_BYTES // (4 if self.is_backward else self.itemsize)
        return math.gcd(self.depth, widest)

    @property
    def fewest_threads_per_row(self) -> int:
        """A power of two; fewer would need too many registers."""
        fewest = max(self.depth / _CHANNELS, self.depth / (_PARTS * self.vector))
        return 1 << max(0, math.ceil(math.log2(fewest)))

    @property
    def threads_per_row(self) -> list[int]:
        """What is worth a try: from the fewest to one vector a thread."""
        shares = [self.fewest_threads_per_row]
        while 2 * shares[-1] * self.vector <= self.depth:
            shares.append(2 * shares[-1])
        return shares

    @cache  # noqa: B019  # classes are few, and configurations
    def constants(self, config: Config, warp_size: int) -> dict[str, int]:
        """The kernels' arguments that follow: rows of a program, and the parts in which a thread takes its channels."""
        width = self.vector * config.threads_per_row
        rows = config.num_warps * warp_size // config.threads_per_row
        parts, chunk = -(-self.depth // width), min(config.chunk, self.points)
        return {"ROWS": max(1, rows), "WIDTH": width, "PARTS": parts, "CHUNK": chunk}


Rows = dict[tuple[int, int, bool], Config]

# Timed, of 3x3 kernels, eight or nine points: architecture -> kind -> (bytes of an element, channels of a group, few
# rows) -> Config. `benchmarks/gpu.py --suite tune` prints rows. None has been measured yet.
_TABLE: dict[str, dict[str, Rows]] = {}
# Points at once where nothing was timed, from instructions, registers and occupancy of the compiled kernels
# (tests/ops/test_dcnv3_aot.py has the budget), by family: the first of these that an architecture's name begins with.
_FAMILIES = ("sm_7", "sm_8", "sm_9", "sm_1", "gfx9")
_CHUNKS = {
    "forward": {"sm_8": 9, "sm_9": 9, "sm_1": 9, "gfx9": 1},
    "backward": {"sm_8": 1, "sm_9": 3, "sm_1": 3, "gfx9": 1},
    "attention_forward": {"sm_8": 4, "sm_9": 4, "sm_1": 4, "gfx9": 1},
    "attention_backward": {"sm_8": 1, "sm_9": 2, "sm_1": 2, "gfx9": 1},
}
# What is worth timing.
_TRIED = {"forward": (3, 9), "backward": (1, 3), "attention_forward": (4,), "attention_backward": (1, 2)}
# Additions of four numbers at once came with Hopper. Elsewhere threads that share a row's sectors add to them together.
_SCALAR_ATOMICS = ("sm_7", "sm_8", "gfx9")


def warp_size(architecture: str) -> int:
    """Threads of a warp; AMD's CDNA has 64."""
    return 64 if architecture.startswith("gfx9") else 32


def default(shape: ShapeClass, architecture: str) -> Config:
    """The table's configuration, or an estimate where nothing was timed."""
    return _find(shape, architecture) or _estimate(shape, architecture)


@cache
def _estimate(shape: ShapeClass, architecture: str) -> Config:
    family = next((family for family in _FAMILIES if architecture.startswith(family)), "")
    shares = shape.threads_per_row
    spread = shape.few or (shape.is_backward and family in _SCALAR_ATOMICS)
    chunk = _CHUNKS[shape.kind].get(family, 3) if shape.points <= _CHUNKS["forward"]["sm_9"] else 3
    return Config(shares[-1] if spread else shares[0], 1 if shape.few else 4, chunk)


def candidates(shape: ShapeClass) -> list[Config]:
    """What is worth timing: two to eight, which take a compiler seconds."""
    # Few rows need many small programs.
    shares, warps = (shape.threads_per_row[-2:], (1, 4)) if shape.few else (shape.threads_per_row, (4,))
    return [Config(share, count, chunk) for share in shares for count in warps for chunk in _TRIED[shape.kind]]


def choose(shape: ShapeClass, architecture: str) -> Config | None:
    """The configuration to launch; None if only timing can tell, and timing is wanted."""
    if shape.kind in _forced:
        return _forced[shape.kind]
    wish = dispatch.tuning_wish()
    return default(shape, architecture) if wish == "never" else None if wish == "always" else _find(shape, architecture)


def _find(shape: ShapeClass, architecture: str) -> Config | None:
    rows = _TABLE.get(architecture, {}).get(shape.kind, {})
    return rows.get((shape.itemsize, shape.depth, shape.few)) if shape.points in (8, 9) else None


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


class Tuner:
    """Triton's tuner around a kernel, for one class of shapes on one architecture.

    Once it has chosen, `launch` is the kernel itself with `options`: nothing is timed again, no lock is taken, and what
    a warm-up has loaded is what a CUDA graph records.
    """

    def __init__(self, kernel: Any, shape: ShapeClass, architecture: str) -> None:
        lanes = warp_size(architecture)
        self.options: dict[str, Any] | None = None
        self.autotuned = triton.autotune(
            configs=[
                triton.Config(shape.constants(config, lanes), num_warps=config.num_warps)
                for config in candidates(shape)
            ],
            key=["DEPTH", "POINTS"],
            reset_to_zero=["grad_value_ptr"] if shape.is_backward else None,
            cache_results=True,
        )(kernel)
        # One thread per device runs backward; Triton's tuner keeps the arguments of the call it is in.
        self._lock = threading.Lock()

    def launch(self, kernel: Any, grid: Any, *arguments: Any, **constants: Any) -> None:
        """Launch, after timing the candidates if that was not done."""
        if self.options is None:
            with self._lock:
                if self.options is None:
                    self.autotuned[grid](*arguments, **constants)
                    self.options = self.autotuned.best_config.all_kwargs()
                    return
        kernel[grid](*arguments, **constants, **self.options)


@cache
def tuner(kernel: Any, shape: ShapeClass, architecture: str) -> Tuner:
    """The one tuner of a class."""
    return Tuner(kernel, shape, architecture)


def configure(kernel: Any, shape: ShapeClass, value: Tensor) -> tuple[Launcher, dict[str, int]]:
    """How to launch a kernel, with a tuner where nothing is known about this class of shapes; and what is chosen."""
    on_gpu, is_traced = value.is_cuda, dispatch.is_traced(value)
    architecture = dispatch.architecture(value.device) if on_gpu else "interpreter"
    config = choose(shape, architecture)
    # What a tuner finds may change from run to run, and the order of sums with it.
    if config is None and on_gpu and not torch.are_deterministic_algorithms_enabled():
        found = tuner(kernel, shape, architecture)
        if is_traced:
            return launcher(found.autotuned, value), {}
        # A graph under capture can't wait for a tuner, but takes what a warm-up has found.
        if found.options is not None or not torch.cuda.is_current_stream_capturing():
            return partial(found.launch, kernel), {}
    config = config or default(shape, architecture)
    constants = shape.constants(config, warp_size(architecture)) | {"num_warps": config.num_warps}
    return launcher(kernel, value), constants


def launcher(kernel: Any, value: Tensor) -> Launcher:
    """Launches a kernel; where a compiler traces, writes the launch down."""
    wrapped = torch.library.wrap_triton(kernel) if dispatch.is_traced(value) else kernel

    def launch(grid: Any, *arguments: Any, **constants: Any) -> None:
        wrapped[grid](*arguments, **constants)

    return launch
