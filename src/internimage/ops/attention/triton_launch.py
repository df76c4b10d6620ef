"""Launching deformable attention's Triton kernels; importing this imports Triton."""

# Triton has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from internimage.ops import dispatch
from internimage.ops.attention.reference import scatter
from internimage.ops.attention.triton_kernels import SIDES, backward_kernel, forward_kernel
from internimage.ops.dcnv3 import triton_tuning

KERNELS = (forward_kernel, backward_kernel)
_INT32 = 2**31


@dataclass(frozen=True)
class Problem:
    """What both kernels of one call share; made by `Problem.of`.

    Args:
        value, points, weights: (N, S, G, D), (N, Q, G, L, P, 2), (N, Q, G, L, P), contiguous.
        sides: H and W of each level in turn, in pixels.
    """

    value: Tensor
    sides: tuple[int, ...]
    points: Tensor
    weights: Tensor

    @classmethod
    def of(cls, value: Tensor, sides: Sequence[int], points: Tensor, weights: Tensor) -> Problem:
        """The operator's arguments as they come."""
        points = points.contiguous()
        # A kernel reads (x, y) in one load.
        if points.storage_offset() % 2:
            points = points.clone(memory_format=torch.contiguous_format)
        return cls(value.contiguous(), tuple(sides), points, weights.contiguous())

    def shape_class(self, kind: str) -> triton_tuning.ShapeClass:
        """What the configuration of a kind of kernel depends on."""
        few = triton_tuning.are_few(math.prod(self.weights.shape[:3]))
        depth, points = int(self.value.shape[3]), int(self.weights.shape[4])
        return triton_tuning.ShapeClass(f"attention_{kind}", self.value.element_size(), depth, points, few)

    @property
    def sizes(self) -> tuple[int, ...]:
        """What kernels are told at every launch."""
        batch, queries, groups, levels, points = self.weights.shape
        absent = (0,) * (len(SIDES) - len(self.sides))
        image_rows = queries * groups
        return (batch * image_rows, image_rows, self.value.shape[1], levels, points, *self.sides, *absent)

    @property
    def constants(self) -> dict[str, Any]:
        """What kernels are compiled for, configuration apart; int() fixes what a traced graph leaves open."""
        groups, depth = (int(size) for size in self.value.shape[2:])
        levels, points = (int(size) for size in self.weights.shape[3:])
        batch, pixels, queries = self.value.shape[0], self.value.shape[1], self.weights.shape[1]
        of_query = groups * max(depth, 2 * levels * points)
        wide = batch * pixels * groups * depth >= _INT32 or batch * queries * of_query >= _INT32
        return {"GROUPS": groups, "DEPTH": depth, "LEVELS": levels, "POINTS": points, "WIDE": wide}


def forward(problem: Problem) -> Tensor:
    """`deformable_attention_reference` by a kernel: (N, Q, G, D) in float32, bfloat16 or float16."""
    value, points, weights = problem.value, problem.points, problem.weights
    out = value.new_empty((value.shape[0], weights.shape[1], *value.shape[2:]))
    _launch(forward_kernel, "forward", problem, (value, points, weights, out))
    return out


def backward(problem: Problem, grad_NQGD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `forward` for value, points and weights: their dtypes, contiguous; nothing but the inputs is kept.

    The value's gradient is summed in float32, in an order that changes from run to run unless
    ``torch.use_deterministic_algorithms(True)``; then by PyTorch, slower.
    """
    value, points, weights, grad = problem.value, problem.points, problem.weights, grad_NQGD.contiguous()
    grad_points, grad_weights = points.new_empty(points.shape), weights.new_empty(weights.shape)
    sorts = torch.are_deterministic_algorithms_enabled()
    if sorts:
        shapes = list(zip(problem.sides[::2], problem.sides[1::2], strict=True))
        grad_value = scatter(grad.float(), value.shape[1], shapes, points, weights)
    else:
        grad_value = torch.zeros(value.shape, dtype=torch.float32, device=value.device)
    tensors = (grad, value, points, weights, grad_value, grad_points, grad_weights)
    _launch(backward_kernel, "backward", problem, tensors, SCATTER=not sorts)
    return grad_value.to(value.dtype), grad_points, grad_weights


def _launch(kernel: Any, kind: str, problem: Problem, tensors: tuple[Tensor, ...], **constants: Any) -> None:
    """A program for every few rows."""
    if problem.weights.numel() == 0:
        return
    launch, config = triton_tuning.configure(kernel, problem.shape_class(kind), problem.value)
    rows = problem.sizes[0]

    def grid(chosen: dict[str, Any]) -> tuple[Any]:
        return (_ceil(rows, chosen["ROWS"]),)

    on_gpu = problem.value.is_cuda and not dispatch.is_traced(problem.value)
    with torch.cuda.device(problem.value.device) if on_gpu else nullcontext():
        launch(grid, *tensors, *problem.sizes, **problem.constants, **constants, **config)


def _ceil(number: Any, divisor: Any) -> Any:
    return (number + divisor - 1) // divisor
