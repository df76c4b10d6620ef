"""The separable branch: named cases with a reason each, one way to run it, one to compare, and wrong branches."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from internimage.ops.branch import branch_reference
from support.compare import relative_rms

EPS = 1e-6
ACTIVATIONS = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu, "none": lambda u: u}
Branch = Callable[..., Tensor]
# Which of the gradients of x, of the weight, and of the other three are wanted.
MASKS = ([True, True, True], [True, False, False], [False, True, False], [False, False, True], [True, False, True])


@dataclass(frozen=True)
class Case:
    name: str
    reason: str
    shape: tuple[int, int, int, int] = (2, 6, 5, 8)  # N, H, W, C
    kernel: tuple[int, int] = (3, 3)
    activation: str = "gelu"
    has_bias: bool = True
    permuted: bool = False

    def tensors(self, dtype: torch.dtype = torch.float64, parameters: torch.dtype | None = None) -> list[Tensor | None]:
        """x, weight, bias, norm_weight, norm_bias; the same ones in every process."""
        generator = torch.Generator().manual_seed(zlib.crc32(self.name.encode()))

        def normal(*size: int) -> Tensor:
            return torch.randn(size, generator=generator, dtype=torch.float64)

        channels = self.shape[-1]
        x = normal(*self.shape).to(dtype)
        if self.permuted:
            x = x.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
        rest = normal(channels, 1, *self.kernel), normal(channels), 1 + 0.3 * normal(channels), 0.5 * normal(channels)
        weight, bias, gain, shift = (each.to(parameters or dtype) for each in rest)
        if self.permuted:
            weight = weight.transpose(2, 3).contiguous().transpose(2, 3)
        return [x, weight, bias if self.has_bias else None, gain, shift]


CASES = (
    Case("odd_map_5x4", "height and width differ and neither is a multiple of anything", (2, 5, 4, 6)),
    Case("two_strips", "wider than a program's share, and not a multiple of it", (1, 3, 35, 5)),
    Case("many_rows", "two images of more than a handful of rows", (2, 9, 3, 4)),
    Case("channels_70", "channels are no power of two and take two blocks", (1, 4, 5, 70)),
    Case("kernel_5", "the large variants' kernel", (1, 7, 6, 12), (5, 5)),
    Case("kernel_1x7", "height and width of the kernel swapped would show; wider than the map", (1, 5, 4, 6), (1, 7)),
    Case("kernel_1", "no neighbours", (1, 4, 5, 6), (1, 1)),
    Case("one_pixel", "all but the middle tap in the padding", (3, 1, 1, 8)),
    Case("no_bias", "a convolution without bias", has_bias=False),
    Case("relu", "another activation", activation="relu"),
    Case("silu", "another activation", activation="silu"),
    Case("permuted_strides", "an input and a weight that are not contiguous", permuted=True),
    Case("batch_0", "nothing to do is not an error", (0, 6, 5, 8)),
)
NAMES = {"ids": lambda case: case.name}


class Outcome(NamedTuple):
    output: Tensor
    grad_x: Tensor
    grad_weight: Tensor
    grad_bias: Tensor
    grad_norm_weight: Tensor
    grad_norm_bias: Tensor


def composed(x: Tensor, weight: Tensor, bias: Tensor | None, gain: Tensor, shift: Tensor, activation: str) -> Tensor:
    """The three layers one after the other, as the network would."""
    padding = (weight.shape[2] // 2, weight.shape[3] // 2)
    conv = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=padding, groups=weight.shape[0])
    return ACTIVATIONS[activation](F.layer_norm(conv.permute(0, 2, 3, 1), gain.shape, gain, shift, EPS))


def run(branch: Branch, case: Case, tensors: list[Tensor | None]) -> Outcome:
    """Forward and backward with a gradient that depends on nothing but the output's shape."""
    leaves = [None if each is None else each.detach().requires_grad_() for each in tensors]
    output = branch(*leaves, case.activation)
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output.dtype)
    found = iter(torch.autograd.grad(output, [each for each in leaves if each is not None], grad))
    gradients = [torch.zeros(()) if each is None else next(found) for each in leaves]
    return Outcome(output.detach(), *gradients)


def assert_close(actual: Outcome, expected: Outcome, forward: float, backward: float) -> None:
    found = {name: relative_rms(getattr(actual, name), getattr(expected, name)) for name in Outcome._fields}
    table = "\n".join(f"  {name:<16} {error:.2e}" for name, error in found.items())
    limits = [forward] + [backward] * 5
    assert all(error <= limit for error, limit in zip(found.values(), limits, strict=True)), (
        f"relative RMS errors, allowed {forward:.1e} forward and {backward:.1e} backward:\n{table}"
    )


def _right(*arguments: Tensor | str | None) -> Tensor:
    *tensors, activation = arguments
    return branch_reference(*tensors, EPS, activation)


def _biased_by_one(x: Tensor, weight: Tensor, bias: Tensor | None, gain: Tensor, shift: Tensor, name: str) -> Tensor:
    """The variance with C - 1 in the denominator."""
    channels = x.shape[-1]
    return _right(x, weight, bias, gain * ((channels - 1) / channels) ** 0.5, shift, name)


def _clamped(x: Tensor, weight: Tensor, bias: Tensor | None, gain: Tensor, shift: Tensor, name: str) -> Tensor:
    pad_h, pad_w = weight.shape[2] // 2, weight.shape[3] // 2
    x_NCHW = F.pad(x.permute(0, 3, 1, 2), (pad_w, pad_w, pad_h, pad_h), mode="replicate")
    out = _right(x_NCHW.permute(0, 2, 3, 1), weight, bias, gain, shift, name)
    return out[:, pad_h : pad_h + x.shape[1], pad_w : pad_w + x.shape[2]]


def _approximate(x: Tensor, weight: Tensor, bias: Tensor | None, gain: Tensor, shift: Tensor, name: str) -> Tensor:
    u = composed(x, weight, bias, gain, shift, "none")
    return F.gelu(u, approximate="tanh") if name == "gelu" else F.gelu(u)


class Sabotage(NamedTuple):
    name: str
    wrong: Branch
    applies: Callable[[Case], bool] = lambda case: True


def _spatial(case: Case) -> bool:
    return max(case.kernel) > 1 and case.shape[1] * case.shape[2] > 1


SABOTAGES = (
    Sabotage("zeros", lambda *t: 0 * _right(*t)),
    Sabotage("times_two", lambda *t: 2 * _right(*t)),
    Sabotage("flipped_kernel", lambda x, w, *t: _right(x, w.flip(2, 3), *t), _spatial),
    Sabotage("off_by_one_pixel", lambda x, *t: _right(x.roll(1, 1), *t), lambda case: case.shape[1] > 1),
    Sabotage("clamped_border", _clamped, lambda case: max(case.kernel) > 1),
    Sabotage("bias_ignored", lambda x, w, b, *t: _right(x, w, 0 * b, *t), lambda case: case.has_bias),
    Sabotage("gain_ignored", lambda x, w, b, g, *t: _right(x, w, b, 0 * g + 1, *t)),
    Sabotage("shift_ignored", lambda x, w, b, g, s, a: _right(x, w, b, g, 0 * s, a)),
    Sabotage("channels_rolled", lambda x, w, *t: _right(x, w.roll(1, 0), *t)),
    Sabotage("variance_by_c_minus_1", _biased_by_one),
    Sabotage("another_activation", _approximate),
)
