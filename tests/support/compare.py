"""One way to run an implementation, one way to compare, one table of tolerances."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

# Largest relative RMS error allowed: (output, gradients). Tightened over time, never loosened.
TOLERANCE = {
    "oracle": (1e-14, 1e-14),
    "fp64": (1e-14, 1e-14),
    "fp32": (1e-6, 1e-6),
    "bf16": (2 * torch.finfo(torch.bfloat16).eps, 4 * torch.finfo(torch.bfloat16).eps),
    "fp16": (2 * torch.finfo(torch.float16).eps, 4 * torch.finfo(torch.float16).eps),
    "golden": (3e-6, 3e-6),
}
Operator = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class Outcome(NamedTuple):
    output: torch.Tensor
    grad_value: torch.Tensor
    grad_offset: torch.Tensor
    grad_mask: torch.Tensor


def relative_rms(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """RMS of the difference over RMS of the expectation, in float64; inf when one has a NaN the other has not."""
    actual, expected = actual.detach().double(), expected.detach().double()
    if actual.shape != expected.shape or not torch.equal(actual.isnan(), expected.isnan()):
        return float("inf")
    if actual.numel() == 0:
        return 0.0
    difference, size = (actual - expected).nan_to_num(0.0), expected.nan_to_num(0.0)
    scale = float(size.pow(2).mean().sqrt())
    error = float(difference.pow(2).mean().sqrt())
    return error if scale == 0 else error / scale


def run(operator: Operator, tensors: tuple[torch.Tensor, ...]) -> Outcome:
    """Forward and backward with a gradient that depends on nothing but the output's shape."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    output = operator(*leaves)
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output.dtype)
    return Outcome(output.detach(), *torch.autograd.grad(output, leaves, grad))


def errors(actual: Outcome, expected: Outcome) -> dict[str, float]:
    return {name: relative_rms(getattr(actual, name), getattr(expected, name)) for name in Outcome._fields}


def assert_close(actual: Outcome, expected: Outcome, tolerance: str) -> None:
    found, (forward, gradient) = errors(actual, expected), TOLERANCE[tolerance]
    table = "\n".join(f"  {name:<12} {error:.2e}" for name, error in found.items())
    limits = [forward, gradient, gradient, gradient]
    assert all(error <= limit for error, limit in zip(found.values(), limits, strict=True)), (
        f"relative RMS errors, allowed {forward:.1e} forward and {gradient:.1e} backward:\n{table}"
    )
