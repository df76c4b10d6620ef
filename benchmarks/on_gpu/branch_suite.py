"""The separable branch at the stages of InternImage-T and B: one operator beside the three layers it stands for.

Shape legend: N batch, H W map, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.comparison import Agreement, Contender, full_float32, relative_rms
from benchmarks.on_gpu.clock import cache_bytes, rotated, rotation_count
from benchmarks.on_gpu.extensions import Missing
from benchmarks.on_gpu.measuring import Setup, Trial, detached, release
from benchmarks.on_gpu.operator_suite import Stage, peer_limits, stages
from benchmarks.timing import Workload
from internimage.model.layers import NORM_EPS
from internimage.ops.branch import depthwise_branch, why_not

OURS = "internimage, one operator"
LAYERS, LAYERS_COMPILED = "three PyTorch layers", "three PyTorch layers, compiled"
_KERNEL = 3
# Of the convolution, its bias, and scale and shift of the normalisation.
_PARAMETERS_PER_CHANNEL = _KERNEL * _KERNEL + 3
_NAMES = ("x", "weight", "bias", "norm_weight", "norm_bias")

# x (N, H, W, C), weight (C, 1, 3, 3), bias, norm_weight, norm_bias -> (N, H, W, C)
Branch = Callable[..., Tensor]


@dataclass(frozen=True)
class Work:
    """One stage's branch; the map is in 16 bit, as the network hands it over.

    Args:
        stage: its size and the 16-bit type.
        autocast: parameters in float32 under autocast, as in training; else a network converted to 16 bit.
    """

    stage: Stage
    autocast: bool

    @property
    def channels(self) -> int:
        """C."""
        return self.stage.case.groups * self.stage.case.depth

    @property
    def kind(self) -> str:
        """The 16-bit type's name."""
        return str(self.stage.case.dtype).removeprefix("torch.")

    def title(self, backward: bool) -> str:
        """What is done at which size, for people."""
        case = self.stage.case
        size = f"{case.batch} x {case.height} x {case.width}, {self.channels} channels"
        how = f"{self.kind} autocast" if self.autocast else f"all in {self.kind}"
        return f"Branch {'forward and backward' if backward else 'forward'}, {case.name} ({size}), {how}"

    def moved(self, backward: bool) -> int:
        """Compulsory bytes."""
        case = self.stage.case
        itemsize = case.dtype.itemsize
        parameter_itemsize = 4 if self.autocast else itemsize
        positions = case.batch * case.height * case.width
        return branch_bytes(positions, self.channels, itemsize, parameter_itemsize, backward=backward)

    def inputs(self) -> tuple[Tensor, ...]:
        """Seeded map and parameters of order one."""
        case, channels = self.stage.case, self.channels
        generator = torch.Generator().manual_seed(0)
        x_NHWC, weight, bias, norm_weight, norm_bias = (
            torch.randn(*shape, generator=generator)
            for shape in (
                (case.batch, case.height, case.width, channels),
                (channels, 1, _KERNEL, _KERNEL),
                *[(channels,)] * 3,
            )
        )
        parameters = (weight / _KERNEL, 0.1 * bias, 1 + 0.1 * norm_weight, 0.1 * norm_bias)
        dtype = torch.float32 if self.autocast else case.dtype
        return x_NHWC.to(case.device, case.dtype), *(each.to(case.device, dtype) for each in parameters)

    def limits(self, name: str) -> tuple[float, float]:
        """Largest relative RMS of output and gradients."""
        return self.stage.case.limits() if name == OURS else peer_limits(self.stage.case.dtype)


def branch_bytes(positions: int, channels: int, itemsize: int, parameter_itemsize: int, *, backward: bool) -> int:
    """What must be read and written at least once.

    Forward: map and parameters in, map out. Backward: these two and the output's gradient in, two gradients out.

    >>> branch_bytes(100, 8, 2, 4, backward=False)
    3584
    >>> branch_bytes(100, 8, 2, 4, backward=True) - 3584
    5568
    """
    maps, parameters = positions * channels * itemsize, _PARAMETERS_PER_CHANNEL * channels * parameter_itemsize
    forward = 2 * maps + parameters
    return forward + 3 * maps + 2 * parameters if backward else forward


def trials(setup: Setup) -> Iterator[Trial]:
    """Two comparisons for each stage and kind of parameters: one pass and both."""
    for stage in stages(setup):
        for autocast in (True, False):
            yield from _work_trials(Work(stage, autocast), setup)
            # A size is a constant of the compiled layers, and PyTorch compiles a function a few times only.
            cast(Any, torch)._dynamo.reset()
            release()


def _work_trials(work: Work, setup: Setup) -> Iterator[Trial]:
    forward, both = (_empty_trial(work, backward) for backward in (False, True))
    inputs = work.inputs()
    with full_float32():
        expected = _results(_layers, tuple(tensor.float() for tensor in inputs))
    count = rotation_count(work.moved(False), cache_bytes(setup.device))
    for name, maker in _makers(work, inputs, compiled=not setup.on_cpu).items():
        with forward.attempt(name):
            run = maker()
            forward.agreements += _check(name, run, work, inputs, expected)
            forward.contenders.append(Contender(name, _workload(run, inputs, count, backward=False)))
        if forward.skipped and forward.skipped[-1][0] == name:
            both.skipped.append(forward.skipped[-1])
            continue
        both.agreements += [agreement for agreement in forward.agreements if agreement.name == name]
        with both.attempt(name):
            both.contenders.append(Contender(name, _workload(run, inputs, count, backward=True)))
    del expected
    yield forward
    forward.contenders.clear()
    yield both


def _empty_trial(work: Work, backward: bool) -> Trial:
    key = {
        "suite": "branch",
        "variant": work.stage.variant,
        "stage": str(work.stage.number),
        "dtype": work.kind,
        "parameters": "float32" if work.autocast else work.kind,
        "passes": "both" if backward else "forward",
    }
    return Trial(work.title(backward), key, OURS, moved_bytes=work.moved(backward), queued=True)


def _makers(work: Work, inputs: tuple[Tensor, ...], *, compiled: bool) -> dict[str, Callable[[], Branch]]:
    """Ours first; each runs as the network runs it, and gives what the next linear layers read: 16 bit."""
    case = work.stage.case

    def running(function: Branch) -> Branch:
        def run(*tensors: Tensor) -> Tensor:
            with torch.autocast(case.device.type, case.dtype, enabled=work.autocast):
                return function(*tensors)

        return run

    def ours() -> Branch:
        reason = why_not(*inputs[:2])
        if reason is not None and inputs[0].is_cuda:
            raise Missing(reason)
        return running(partial(depthwise_branch, eps=NORM_EPS))

    layers = partial(_layers, dtype=case.dtype)
    makers: dict[str, Callable[[], Branch]] = {OURS: ours, LAYERS: lambda: running(layers)}
    if compiled:
        makers[LAYERS_COMPILED] = lambda: running(torch.compile(layers, fullgraph=True, dynamic=False))
    return makers


def _layers(
    x_NHWC: Tensor,
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Convolution, normalisation, GELU; channels-last, so nothing is copied in between.

    Under autocast the normalisation gives float32: ``dtype`` is what the next layers would make of the result.
    """
    conv_NCHW = F.conv2d(x_NHWC.permute(0, 3, 1, 2), weight, bias, padding=_KERNEL // 2, groups=weight.shape[0])
    normed_NHWC = F.layer_norm(conv_NCHW.permute(0, 2, 3, 1), norm_weight.shape, norm_weight, norm_bias, NORM_EPS)
    return F.gelu(normed_NHWC).to(dtype or x_NHWC.dtype)


def _results(run: Branch, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Output and all gradients."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    output = run(*leaves)
    generator = torch.Generator().manual_seed(2)
    grad = torch.randn(output.shape, generator=generator).bfloat16().to(output)
    gradients = torch.autograd.grad(output, leaves, grad)
    return {"output": output.detach()} | {
        f"gradient of {name}": gradient for name, gradient in zip(_NAMES, gradients, strict=True)
    }


def _check(
    name: str, run: Branch, work: Work, inputs: tuple[Tensor, ...], expected: dict[str, Tensor]
) -> list[Agreement]:
    for_output, for_gradients = work.limits(name)
    return [
        Agreement(
            name,
            f"{what} against PyTorch's layers in float32",
            relative_rms(tensor, expected[what]),
            for_output if what == "output" else for_gradients,
        )
        for what, tensor in _results(run, inputs).items()
    ]


def _workload(run: Branch, inputs: tuple[Tensor, ...], count: int, *, backward: bool) -> Workload:
    """What is timed: each time on the next of ``count`` maps of the same numbers, with the same parameters."""
    parameters = tuple(tensor.requires_grad_() for tensor in detached(inputs[1:]))
    maps = [detached(inputs[:1])[0] for _ in range(count)]
    if not backward:

        def forward(x_NHWC: Tensor) -> Tensor:
            with torch.no_grad():
                return run(x_NHWC, *parameters)

        return rotated(forward, [(x_NHWC,) for x_NHWC in maps])
    grads = [torch.ones_like(x_NHWC) for x_NHWC in maps]

    def both(x_NHWC: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
        leaves = (x_NHWC, *parameters)
        return torch.autograd.grad(run(*leaves), leaves, grad)

    return rotated(both, [(x_NHWC.requires_grad_(), grad) for x_NHWC, grad in zip(maps, grads, strict=True)])
