"""One ordered table of implementations: who can run these tensors, and why not the others."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from internimage.ops.dcnv3 import cpu, gpu


@dataclass(frozen=True)
class Backend:
    """An implementation of DCNv3.

    Args:
        name: what ``dcnv3(..., backend=name)`` takes.
        what: one line for people.
        why_not: the reason why it can't run on these tensors (of value), or None if it can.
    """

    name: str
    what: str
    why_not: Callable[[Tensor], str | None]


def _always(value_NHWGD: Tensor) -> str | None:
    return None


# In the order of preference; the dispatcher's registrations in op.py follow the same order per device.
BACKENDS: tuple[Backend, ...] = (
    Backend("cpu", "C++ with AVX-512, AVX2 or plain vectors, compiled once per machine", cpu.why_not),
    Backend("triton", "Triton kernels for NVIDIA and AMD GPUs, compiled at the first call", gpu.why_not),
    Backend("reference", "plain PyTorch (grid_sample); any device, any floating dtype", _always),
)


def backend_names() -> tuple[str, ...]:
    """The names that ``backend=`` accepts."""
    return tuple(backend.name for backend in BACKENDS)


def why_not(name: str, value_NHWGD: Tensor) -> str | None:
    """The reason why a backend can't run on this value, or None; ``ValueError`` for an unknown name."""
    for backend in BACKENDS:
        if backend.name == name:
            return backend.why_not(value_NHWGD)
    raise ValueError(f"unknown backend {name!r}; choose from {', '.join(backend_names())}")


def explain(value_NHWGD: Tensor) -> str:
    """A table, one line per backend: which one runs and why not the others."""
    lines = [f"DCNv3 on {value_NHWGD.device}, {str(value_NHWGD.dtype).removeprefix('torch.')}:"]
    chosen = False
    for backend in BACKENDS:
        reason = backend.why_not(value_NHWGD)
        verdict = f"can't run: {reason}" if reason else f"{'could run' if chosen else 'runs'}: {backend.what}"
        chosen = chosen or reason is None
        lines.append(f"  {backend.name:<10} {verdict}")
    return "\n".join(lines)


def warn_once(reason: str, operator: str = "DCNv3") -> None:
    """Say that the slow path runs, and what would end that."""
    if (operator, reason) not in _warned:
        _warned.add((operator, reason))
        warnings.warn(f"{operator} runs on the slow reference: {reason}", RuntimeWarning, stacklevel=2)


_warned: set[tuple[str, str]] = set()
